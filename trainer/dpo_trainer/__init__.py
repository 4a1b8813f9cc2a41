"""The training job, one process a rank."""
