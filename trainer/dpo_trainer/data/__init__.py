"""Preference pairs: from a file or the hub to token ids."""
