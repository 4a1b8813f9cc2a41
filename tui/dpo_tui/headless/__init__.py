"""Replay without a screen: what a log shows, for scripts and for people."""
