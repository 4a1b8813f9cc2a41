"""The metrics screen: every series of the run in charts that move together."""

from dpo_tui.screens.metrics.screen import MetricsScreen

__all__ = ["MetricsScreen"]
