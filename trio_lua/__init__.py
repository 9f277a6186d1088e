"""OpenResty's programming model on Trio."""

__version__ = "0.1.0"
