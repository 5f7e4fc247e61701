"""Kalshi over the network: signing, wire classes, codec, REST and the one WebSocket. Outside sees `client` only."""
