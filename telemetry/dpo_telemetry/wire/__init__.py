"""The wire: reading a run directory from elsewhere, and asking its ranks for something."""
