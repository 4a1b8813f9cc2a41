"""A small stand-in for a profile's model, data and adapter, on which the same job is rehearsed."""
