"""The base model and its adapters."""
