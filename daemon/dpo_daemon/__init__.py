"""The keeper and its agents."""
