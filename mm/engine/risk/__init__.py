"""Risk over all markets: what each game can cost in its worst outcome, and what the limits leave for one more order.

`scenarios` values one event by outcome, `portfolio` sums events against the limits, `free_money` keeps our quotes on
the markets of one event from adding up to a gift, `guards` reacts to losses and to trouble in grades. Everything here
is told what is held and what works; nothing here acts.
"""

from mm.engine.risk.free_money import FreeMoney, own_prices
from mm.engine.risk.portfolio import PortfolioRisk, RiskLimits, ScopeUse
from mm.engine.risk.scenarios import EventShape, Holding, WorkingOrder, event_losses

__all__ = [
    "EventShape",
    "FreeMoney",
    "Holding",
    "PortfolioRisk",
    "RiskLimits",
    "ScopeUse",
    "WorkingOrder",
    "event_losses",
    "own_prices",
]
