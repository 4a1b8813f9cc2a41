"""Preference optimisation: TRL's trainer, told what it cannot be configured to do."""
