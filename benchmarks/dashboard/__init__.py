"""How soon the dashboard's pages can be used, measured in a real browser."""

from benchmarks.dashboard.pages import dashboard_figures

__all__ = ["dashboard_figures"]
