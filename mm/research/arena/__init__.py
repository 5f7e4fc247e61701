"""The arena: strategies against the embedded exchange's games, in a plain loop, on the same seeds.

`nights` makes the games, `world` is the loop (exchange core, feed and order latency, write budget, the live engine, floor
and desk), `measure` notes what came of it, `run` plays many nights in several processes, `table` sums them up.
No network, no tasks, no clock but the agenda's.
"""
