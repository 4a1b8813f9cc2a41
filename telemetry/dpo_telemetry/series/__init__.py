"""Columns of numbers by step, attempts and superseded values included."""
