"""Frozen parts of a snapshot, one file for each screen that needs more than the overview shows."""
