"""The back-test with the old bot's rules, profile `legacy`, so that old results can be repeated.

Every print for itself: the average first, then the quotes from it, then the same print fills them. The old bot thus
quoted with an average that knew the print. No MAE, gate, limits, cooldown, touch or timers. Inventory and fees are the
corrected ones.
"""

from collections.abc import Sequence
from typing import Final

from mm.domain.commands import FlattenReason
from mm.domain.fill import Trade
from mm.domain.grid import uniform_grid
from mm.domain.numbers import Count, Price
from mm.domain.order import Side
from mm.engine.backtest.queue_share import queue_share
from mm.engine.backtest.result import Account, MarketResult
from mm.engine.mark import MidEma, Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import QUOTED_SIDES, position_state, wanted_price

_GRID: Final = uniform_grid(Price(1))
_NO_TOUCH: Final = Touch(None, None)


def run_legacy(
    trades: Sequence[Trade], parameters: StrategyParameters, given: Price | None = None
) -> MarketResult:
    """Back-test one market; arguments as for `run_reference`."""
    account = Account()
    ema = MidEma(parameters.mid_ema_alpha)
    for trade in trades:
        ema.feed(trade.price)
        mark = ema.mark
        if mark is None:
            continue
        exposure = account.inventory.duration_weighted_exposure(trade.ts)
        if exposure >= parameters.duration_limit_units:
            account.flattened(mark, trade.ts, FlattenReason.DURATION_WEIGHTED)
        _quote_and_fill(account, trade, mark, parameters)
    return account.finish(trades, given)


def _quote_and_fill(account: Account, trade: Trade, mark: Price, parameters: StrategyParameters) -> None:
    net = account.inventory.net
    side = trade.taker_side.opposite
    if abs(net) == parameters.neutral_zone:
        return  # the old bot's gap: at the zone's very edge it quoted nothing
    if side not in QUOTED_SIDES[position_state(net, parameters)]:
        return
    prices = wanted_price(side, mark, net, _NO_TOUCH, _GRID, parameters)
    if prices is None:
        return
    _, price = prices
    reached = trade.price <= price if side is Side.BID else trade.price >= price
    count = Count(min(parameters.size_per_fill, queue_share(trade.count, parameters)))
    if reached and count > 0:
        account.quote_filled(side, price, count, trade.ts)
