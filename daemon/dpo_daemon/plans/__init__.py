"""Memory plans on a terminal."""
