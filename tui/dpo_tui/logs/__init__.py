"""Raw logs: read piece by piece, sifted, and drawn line by line."""
