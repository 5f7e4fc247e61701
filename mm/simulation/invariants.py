"""What must hold in every world: some at every event of the exchange, some once a second, the rest when all is calm."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import trio

from mm.domain.numbers import Count, Micros
from mm.domain.order import MarketTicker, OrderState, Side, TimeInForce
from mm.engine.limits import MarketExposure
from mm.engine.parameters import StrategyParameters
from mm.exchange.embedded.core.events import CoreEvent, FillReported, OrderUpdated
from mm.exchange.embedded.core.model import OrderRecord, OrderStatus, Reason
from mm.exchange.embedded.core.state import User
from mm.exchange.embedded.server.server import ExchangeServer
from mm.session.trading import Trading
from mm.simulation.gamerisk import GameRisk

FOREIGN: Final = "hand-"
"""Orders on the bot's account that are not the bot's."""
_NOT_OURS: Final = frozenset({Reason.CLOSE_CANCEL, Reason.HALT_CANCEL, Reason.EXPIRY_CANCEL, Reason.TRADE})
BOOK_WRONG_S: Final = 8.0
"""Longer than any silence that the feed bears: a book that differs at every look for so long is wrong."""
TECHNICAL: Final = ("feed", "drift", "unavailable", "refused", "paused", "switch")
"""Holds that must be over once nothing is wrong any more."""


@attrs.frozen
class Violation:
    """An invariant that did not hold."""

    invariant: str
    at: float
    detail: str

    def text(self) -> str:
        """For people."""
        return f"{self.invariant} at {self.at:.3f}: {self.detail}"


@attrs.define(eq=False, kw_only=True)
class Watch:
    """Sees every event of the exchange and judges it; collects violations."""

    user_id: str
    prefix: str
    parameters: StrategyParameters
    violations: list[Violation] = attrs.field(factory=list)
    orders: int = 0
    fills: int = 0
    events: int = 0
    guarded: int = 0
    """Deaths and freezes of the bot after which its guardian had taken everything off in time."""
    expired: int = 0
    """Deaths that were watched until the time to live of the quotes was over."""
    blind: int = 0
    """Looks at a bot that had been blind for so long that nothing of it may rest."""
    games: GameRisk = attrs.field(init=False)
    on_quote: Callable[[OrderRecord], None] = lambda order: None
    """Told of each fresh quote of the bot: the hunter listens."""
    _server: ExchangeServer | None = None
    _seen: set[str] = attrs.field(factory=set)
    _differs_since: dict[MarketTicker, float] = attrs.field(factory=dict)
    _by_hand: int = 0
    """Contracts that the account's other orders filled: nobody's limits kept them."""

    def __attrs_post_init__(self) -> None:
        self.games = GameRisk(limit=self.parameters.risk_limits.event, fail=self.fail)

    def attach(self, server: ExchangeServer) -> None:
        """Where the account lives."""
        self._server = server

    def fail(self, invariant: str, detail: str) -> None:
        """Enter a violation."""
        self.violations.append(Violation(invariant, trio.current_time(), detail))

    @property
    def server(self) -> ExchangeServer:
        """The exchange."""
        assert self._server is not None
        return self._server

    @property
    def user(self) -> User:
        """The bot's account at the exchange."""
        return self.server.core.users()[self.user_id]

    # --- at every event ---

    def observe(self, event: CoreEvent) -> None:
        """One event of the core."""
        self.events += 1
        if isinstance(event, FillReported):
            self._filled(event)
        elif isinstance(event, OrderUpdated) and event.order.user_id == self.user_id:
            self._order(event.order)

    def is_ours(self, order: OrderRecord) -> bool:
        """Placed by the bot."""
        return (order.client_order_id or "").startswith(self.prefix)

    def _filled(self, event: FillReported) -> None:
        fill = event.fill
        if fill.user_id != self.user_id:
            return
        self.fills += 1
        name = fill.client_order_id or ""
        if not name.startswith(self.prefix):
            self._by_hand += fill.count
        self.games.filled(fill, is_ours=name.startswith(self.prefix))
        order = next((o for o in reversed(self.user.orders) if o.order_id == fill.order_id), None)
        if order is not None and order.time_in_force is TimeInForce.GTC and fill.is_taker:
            self.fail("post-only took", f"{name} {fill.ticker}")

    def _order(self, order: OrderRecord) -> None:
        if not self.is_ours(order):
            reason = order.last_update_reason
            if order.status is OrderStatus.CANCELED and reason not in _NOT_OURS:
                self.fail("foreign order touched", f"{order.client_order_id}: {reason}")
            return
        if order.last_update_reason is Reason.SELF_TRADE_CANCEL and self._crosses_own(order):
            self.fail("self-cross", f"{order.client_order_id} {order.ticker}")
        if order.order_id not in self._seen:
            self._seen.add(order.order_id)
            self.orders += 1
            if order.status is OrderStatus.RESTING:
                self.on_quote(order)
            self._one_a_side(order)
        self._check_limits()
        self.games.check(self.user, [o for o in self.user.resting.values() if self.is_ours(o)])

    def _crosses_own(self, order: OrderRecord) -> bool:
        """Whether another order of the bot (not one by hand) stands in its way."""
        return any(
            self.is_ours(o)
            and (o.ticker, o.side) == (order.ticker, order.side.opposite)
            and (order.price - o.price) * order.side.sign >= 0
            for o in self.user.resting.values()
        )

    def _one_a_side(self, order: OrderRecord) -> None:
        others = [
            o.client_order_id
            for o in self.user.resting.values()
            if self.is_ours(o)
            and (o.ticker, o.side) == (order.ticker, order.side)
            and o.order_id != order.order_id
            and o.time_in_force is TimeInForce.GTC
        ]
        if others and order.time_in_force is TimeInForce.GTC:
            self.fail("two orders on a side", f"{order.client_order_id} beside {others} {order.ticker}")

    def _check_limits(self) -> None:
        limit = self.parameters.max_global_inventory + self._by_hand
        per_market = self.parameters.max_inventory_per_market + self._by_hand
        found = {
            ticker: MarketExposure(
                Count(holding.position),
                self._resting(holding.bids.values()),
                self._resting(holding.asks.values()),
            )
            for ticker, holding in self.user.holdings.items()
            if not holding.is_settled
        }
        for ticker, exposure in found.items():
            if exposure.worst > max(per_market, abs(exposure.net)):
                self.fail("market limit", f"{ticker}: {exposure} above {per_market}")
        total = sum(exposure.worst for exposure in found.values())
        if total > max(limit, sum(abs(exposure.net) for exposure in found.values())):
            told = ", ".join(f"{t.rpartition('-')[2]} {e.net}/{e.bids}/{e.asks}" for t, e in found.items())
            self.fail("global limit", f"{total} above {limit} (net/bids/asks: {told})")

    def _resting(self, orders: Iterable[OrderRecord]) -> Count:
        return Count(sum(order.remaining for order in orders if self.is_ours(order)))

    # --- now and then, from inside the bot ---

    def look_inside(self, trading: Trading) -> None:
        """Is what the bot derived what it would derive now? No waiting, so its state stands still meanwhile."""
        floor = trading.floor
        for ticker in sorted({*floor.makers, *floor.positions.histories}):
            orders = floor.orders(ticker)
            exposure = MarketExposure(
                floor.positions.net(ticker),
                Count(sum(o.at_risk for o in orders if o.side is Side.BID)),
                Count(sum(o.at_risk for o in orders if o.side is Side.ASK)),
            )
            counted = floor.gross.exposure(ticker)
            if counted != exposure:
                self.fail("stale exposure", f"{ticker}: counted {counted}, is {exposure}")

    def look_at_fills(self, trading: Trading) -> None:
        """No market has more contracts counted than the exchange ever filled for us."""
        filled: Counter[MarketTicker] = Counter()
        for fill in self.user.fills:
            filled[fill.ticker] += fill.count
        for ticker, history in trading.floor.positions.histories.items():
            counted = history.state.bought + history.state.sold
            if counted > filled[ticker]:
                self.fail("fill counted twice", f"{ticker}: {counted} counted of {filled[ticker]}")

    def look_at_books(self, trading: Trading) -> None:
        """A book that is called whole is the exchange's now and then, however fast both move."""
        now = trio.current_time()
        watched = trading.floor.makers if trading.floor.is_feed_up else {}
        wrong = set(self.books_differ(trading)) if watched else set()
        self._differs_since = {t: self._differs_since.get(t, now) for t in watched if t in wrong}
        for ticker, since in self._differs_since.items():
            if now - since > BOOK_WRONG_S:
                self.fail("book differs", f"{ticker} for {now - since:.1f} s")
                self._differs_since[ticker] = float("inf")

    def look_away(self) -> None:
        """Nothing trades at the moment: the next bot's books are looked at afresh."""
        self._differs_since.clear()

    # --- when all is calm ---

    def not_healed(self, trading: Trading, now: Micros) -> list[str]:
        """What is still wrong with a running bot."""
        floor, wrong = trading.floor, []
        if not floor.is_feed_up:
            wrong.append("feed is down")
        wrong += [
            f"unknown order {o.client_order_id}"
            for o in trading.desk.live.values()
            if o.state is OrderState.UNKNOWN
        ]
        wrong += [f"drift in {ticker}" for ticker in trading.reconciler.drifts]
        for ticker, maker in floor.makers.items():
            if maker.market.status.is_over:
                continue
            wrong += [f"{ticker} held: {maker.holds[c]}" for c in TECHNICAL if c in maker.holds]
            if not maker.book.is_synced:
                wrong.append(f"{ticker}: book not synced")
            wrong += self._not_quoted(trading, ticker)
        open_now = {t for t, s in self.server.core.markets().items() if s.status.value == "active"}
        taken = [t for t in floor.makers if t in open_now]
        wanted = self._listed_now(trading, now)
        if wanted and not taken:
            wrong.append(f"no market taken of {len(wanted)} open ones")
        return wrong

    def _listed_now(self, trading: Trading, now: Micros) -> list[MarketTicker]:
        del now
        series = trading.settings["SERIES_TICKER"]
        return [
            t
            for t, s in self.server.core.markets().items()
            if s.status.value == "active" and s.event.series_ticker in series
        ]

    def _not_quoted(self, trading: Trading, ticker: MarketTicker) -> list[str]:
        """Sides that are to be quoted by the bot's own decision and are not."""
        maker = trading.floor.makers[ticker]
        last = maker.last
        if last is None:
            return [f"{ticker}: never decided"]
        resting = {o.side for o in self.user.resting.values() if self.is_ours(o) and o.ticker == ticker}
        return [
            f"{ticker}: {side.value} wanted, not resting: {last.plan(side).commands}"
            for side in Side
            if last.plan(side).commands and side not in resting
        ]

    def books_differ(self, trading: Trading) -> list[MarketTicker]:
        """Quoted markets whose book in the bot is not the exchange's at this moment."""
        found = []
        for ticker, maker in trading.floor.makers.items():
            state = self.server.core.markets()[ticker]
            if state.status.value != "active" or not maker.book.is_synced:
                continue
            if (
                dict(state.book.bids.depth()) != maker.book.bids
                or dict(state.book.asks.depth()) != maker.book.asks
            ):
                found.append(ticker)
        return found

    def resting_under(self, prefix: str) -> list[str]:
        """What rests of one session."""
        names = [order.client_order_id or "" for order in self.user.resting.values()]
        return [name for name in names if name.startswith(prefix)]

    def check_after_exit(self, prefix: str | None = None) -> None:
        """Nothing of the bot rests, or nothing with a longer prefix: one session's."""
        left = self.resting_under(prefix or self.prefix)
        if left:
            self.fail("orders left", ", ".join(left))

    def check_ledger(self, image: bytes) -> None:
        """The ledger holds the exchange's fills, each once, to the last digit."""
        connection = sqlite3.connect(":memory:")
        connection.deserialize(image)
        rows = connection.execute(
            "SELECT order_id, trade_id, ticker, side, price, count, fee FROM fills"
        ).fetchall()
        connection.close()
        ours = {(row[0], row[1]): row[2:] for row in rows}
        theirs = {
            (f.order_id, f.trade_id): (f.ticker, f.side.value, f.price, f.count, f.fee)
            for f in self.user.fills
        }
        for key in sorted(theirs.keys() - ours.keys()):
            self.fail("fill missing in the ledger", f"{key} {theirs[key]}")
        for key in sorted(ours.keys() - theirs.keys()):
            self.fail("fill only in the ledger", f"{key} {ours[key]}")
        for key in sorted(ours.keys() & theirs.keys()):
            if ours[key] != theirs[key]:
                self.fail("fill differs", f"{key}: {ours[key]} is {theirs[key]} at the exchange")
