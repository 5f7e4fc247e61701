"""Kalshi over the network: production, demo, or the embedded exchange on loopback."""
