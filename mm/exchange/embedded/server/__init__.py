"""The wire of the embedded exchange: HTTP, WebSocket, signatures, rate limits, faults. Matching is in `core`."""
