"""`mm flatten`: positions closed at the touch, again and again, until the exchange says that they are flat.

Immediate-or-cancel and reduce-only orders, each within FLATTEN_MAX_SLIPPAGE_CENTS of the touch of its moment: nothing of
them can rest, and none can open a position, however late it is executed.
"""

from collections.abc import Collection
from contextlib import nullcontext
from typing import Final

import attrs
import structlog
import trio

from mm.domain.errors import ConfigError
from mm.domain.market import Market
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker, Order, Side, TimeInForce
from mm.domain.tickers import series_of
from mm.engine.exits import ExitOrder, exit_order
from mm.engine.mark import Touch
from mm.exchange import endpoints
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    OutcomeUnknown,
    RateLimited,
    TradingPaused,
    VenuePosition,
)
from mm.ledger import DataFolderInUse, lock_data_folder
from mm.session.flatten_books import FlattenBooks, open_books
from mm.session.operator import Operator, Say, open_operator, say_aloud
from mm.session.summary import ExitCode
from mm.session.surroundings import Surroundings
from mm.session.venue import NoExchange
from mm.settings import Settings
from mm.tasks.desk import as_new_order
from mm.tasks.freshness import LONG_READ_LAG_S
from mm.tasks.ids import OrderIds, new_flatten_session
from mm.views.texts import cents, contracts

log = structlog.get_logger(__name__)

DEADLINE_S: Final = 60.0
"""A market without a counterparty is given up after this."""
PERIOD_S: Final = 0.25
IDLE_S: Final = 5.0
"""Between two looks while nothing could be sent: nobody there, a pause."""


async def flatten(
    settings: Settings,
    surroundings: Surroundings,
    *,
    tickers: Collection[str] = (),
    dry_run: bool = False,
    beside_bot: bool = False,
    deadline_s: float = DEADLINE_S,
    say: Say = say_aloud,
) -> int:
    """Close positions: those named, or all in the series of SERIES_TICKER and in markets that the ledger knows.

    Returns the exit code: 0 flat (or shown, in a dry run), 1 not flat and nothing rests, 2 orders may rest. Raises
    `ConfigError`, also where orders are on paper, and `DataFolderInUse` while a bot runs here, unless `beside_bot`.
    """
    if settings.orders_on_paper(False) and not dry_run:
        raise ConfigError(
            ["LIVE_TRADING_ENABLED is not set: no orders are sent to the exchange, not even to flatten"]
        )
    is_alone = not (dry_run or beside_bot)
    lock = lock_data_folder(settings.data_dir) if is_alone else nullcontext()
    try:
        with lock:
            async with open_operator(settings, surroundings, say) as operator:
                ids = OrderIds(settings["BOT_NAME"], new_flatten_session(surroundings.random_below))
                async with open_books(operator, ids.session, is_alone=is_alone) as books:
                    wanted = tuple(MarketTicker(ticker) for ticker in tickers)
                    job = Flattening(operator=operator, books=books, ids=ids, wanted=wanted)
                    if dry_run:
                        return await job.show()
                    return await job.run(deadline_s, sweep_first=is_alone)
    except DataFolderInUse as exc:
        raise DataFolderInUse(f"{exc}; or say --beside-bot, best with its quotes switched off") from None
    except NoExchange as exc:
        say(str(exc))
        return ExitCode.CLEAN
    except ExchangeError as exc:
        say(f"NOT FLAT: {exc}")
        return ExitCode.FAILED


@attrs.define(eq=False, kw_only=True)
class Flattening:
    """The work of one `mm flatten`."""

    operator: Operator
    books: FlattenBooks
    ids: OrderIds
    wanted: tuple[MarketTicker, ...]
    """Empty: everything that is ours."""
    _attempts: dict[MarketTicker, int] = attrs.field(factory=dict)
    _last_write: Micros = Micros(0)

    @property
    def _exchange(self) -> Exchange:
        return self.operator.exchange

    @property
    def _say(self) -> Say:
        return self.operator.say

    async def show(self) -> int:
        """What would be sent now. Raises `ExchangeError`."""
        held, left = await self._held()
        for order, position, market in await self._next_orders(held):
            self._say(_sentence(position, market, order, is_dry=True))
        self._tell_left(left)
        self._say("dry run: nothing was sent" if held else "flat: nothing to do")
        return ExitCode.CLEAN

    async def run(self, deadline_s: float, *, sweep_first: bool) -> int:
        """Sweep what rests of ours, then close until flat. Raises `ExchangeError` where the start fails."""
        operator = self.operator
        if sweep_first and not await operator.take_off(await operator.open_groups()):
            return ExitCode.ORDERS_MAY_REST  # they could trade with us, or open what was just closed
        _, left = await self._held()
        self._tell_left(left)
        is_flat = False
        with trio.move_on_after(deadline_s):
            await self._until_flat()
            is_flat = True
        await self.books.book_fills()
        if is_flat:
            self._say("flat, by the exchange's word")
            return ExitCode.CLEAN
        held, _ = await self._held()
        for position in held:
            self._say(
                f"NOT FLAT after {deadline_s:g} s: {position.ticker} {contracts(position.position, sign=True)}"
            )
        return ExitCode.FAILED if held else ExitCode.CLEAN

    async def _until_flat(self) -> None:
        while True:
            try:
                await self._read_is_current()
                held, _ = await self._held()
                if not held:
                    return
                sent = 0
                for order, position, market in await self._next_orders(held):
                    sent += await self._send(order, position, market)
            except AuthError:
                raise
            except ExchangeError as exc:
                self._say(f"looking again: {exc}")
                sent = 0
            await trio.sleep(PERIOD_S if sent else IDLE_S)

    async def _held(self) -> tuple[list[VenuePosition], list[VenuePosition]]:
        """(to be closed, left alone), by the exchange's word."""
        held = [position for position in await self._exchange.positions() if position.position]
        if self.wanted:
            ours = set(self.wanted)
        else:
            account = self._exchange.account
            ours = set(await self.operator.from_ledger(lambda reader: reader.positions(account)) or ())
            series = self.operator.settings["SERIES_TICKER"]
            ours |= {position.ticker for position in held if series_of(position.ticker) in series}
        return [p for p in held if p.ticker in ours], [p for p in held if p.ticker not in ours]

    def _tell_left(self, left: list[VenuePosition]) -> None:
        for position in left:
            self._say(f"left alone: {position.ticker} {contracts(position.position, sign=True)}")

    async def _next_orders(
        self, held: list[VenuePosition]
    ) -> list[tuple[ExitOrder | None, VenuePosition, Market | None]]:
        if not held:
            return []
        listing = {m.ticker: m for m in await self._exchange.markets(tickers=[p.ticker for p in held])}
        found = []
        for position in held:
            market = listing.get(position.ticker)
            order = None
            if market is not None:
                order = exit_order(
                    position.position,
                    Touch(market.yes_bid, market.yes_ask),
                    market.grid,
                    self.operator.settings.strategy,
                    self._attempts.get(position.ticker, 0),
                )
            found.append((order, position, market))
        return found

    async def _send(self, order: ExitOrder | None, position: VenuePosition, market: Market | None) -> bool:
        """Send one order; True when something may have happened. Raises `AuthError` only."""
        self._say(_sentence(position, market, order))
        if order is None or market is None:
            return False
        operator = self.operator
        cost = operator.budget.limits.cost(*endpoints.PLACE)
        await operator.budget.take_for_exit(cost, market.exchange_index)
        self._attempts[market.ticker] = self._attempts.get(market.ticker, 0) + 1
        sent = Order(
            client_order_id=self.ids.next(),
            ticker=market.ticker,
            side=order.side,
            price=order.price,
            count=order.count,
            exchange_index=market.exchange_index,
            time_in_force=TimeInForce.IOC,
            post_only=False,
            reduce_only=True,
        )
        await self.books.intend(sent)
        try:
            ack = await self._exchange.place(as_new_order(sent))
        except AuthError:
            raise
        except OutcomeUnknown as exc:
            await self.books.failed(sent, is_unknown=True)
            self._say(f"  no answer, the next look tells: {exc}")
        except ExchangeError as exc:
            await self.books.failed(sent, is_unknown=False)
            if not isinstance(exc, RateLimited):
                self._say(f"  {'paused' if isinstance(exc, TradingPaused) else 'refused'}: {exc}")
                return False
            operator.budget.refused(market.exchange_index)
            await trio.sleep(exc.retry_after)
            return True
        else:
            await self.books.answered(sent, ack)
            self._say(f"  {contracts(ack.filled)} traded")
        self._last_write = operator.surroundings.clock()
        return True

    async def _read_is_current(self) -> None:
        """Wait until positions show what our last order did. Raises `ExchangeError`."""
        clock = self.operator.surroundings.clock
        while clock() - self._last_write < LONG_READ_LAG_S * SECOND:
            if await self._exchange.user_data_age() > self._last_write:
                return
            await trio.sleep(0.1)


def _sentence(
    position: VenuePosition, market: Market | None, order: ExitOrder | None, *, is_dry: bool = False
) -> str:
    held = f"{position.ticker} {contracts(position.position, sign=True)}"
    if market is None:
        return f"{held}: the exchange does not list the market"
    if order is None:
        return f"{held}: nobody to trade with ({market.status.value})"
    verb = ("would " if is_dry else "") + ("buy" if order.side is Side.BID else "sell")
    touch = f"touch {cents(market.yes_bid)} / {cents(market.yes_ask)}"
    return f"{held}: {verb} {contracts(order.count)} at {cents(order.price)} or better ({touch})"
