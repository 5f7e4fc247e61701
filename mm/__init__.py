"""A market maker for Kalshi event contracts."""

__version__ = "0.1.0"
