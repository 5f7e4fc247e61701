"""The embedded exchange: a twin of Kalshi, as a pure core under a small HTTP and WebSocket server."""
