"""The paper venue: live data from another venue, orders that never leave the process.

Fills come from a model of the queue (`matching`), money from a small account (`account`); `venue` is the port, `feed`
hangs itself between the live feed and whoever listens.
"""

from mm.exchange.paper.venue import Latency, open_paper

__all__ = ["Latency", "open_paper"]
