"""Replay without a screen: what a log shows, for scripts and for people."""

from dpo_tui.headless.command import replay_headless

__all__ = ["replay_headless"]
