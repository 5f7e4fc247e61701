"""The web view: a dashboard, its live data, a few actions, and metrics for Prometheus.

It knows snapshots and an `Actions` protocol, nothing of trading. Not imported when `WEB_ADDRESS` is `off`.
"""
