"""Panels of the screens: what they say is made by pure functions from a snapshot."""
