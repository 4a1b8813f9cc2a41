"""One reader over one model: the same for a live run, a shared folder and an old run."""
