"""Ports to a venue (`port.py`) and the venues behind them."""
