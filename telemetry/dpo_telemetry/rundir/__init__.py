"""The run directory: where a run's files lie, how one is made, and how one is found."""
