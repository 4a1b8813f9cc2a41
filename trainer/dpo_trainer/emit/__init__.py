"""What the rank tells: events, log lines, memory and times."""
