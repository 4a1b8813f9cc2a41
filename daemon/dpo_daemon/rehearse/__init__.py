"""The same job on a shrunken model: start, step, evaluate, save, resume, final adapter, and a verdict."""
