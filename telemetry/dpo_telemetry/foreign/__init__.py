"""Logs that other programs wrote, found out by their content."""
