"""What to run and what it should cost."""
