"""`mm doctor` at the exchange: from its name's address to a book that comes through the WebSocket. Reads only."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from mm.domain.errors import ConfigError
from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Trade
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, Side
from mm.domain.tickers import format_time
from mm.exchange import endpoints
from mm.exchange.kalshi.checkup import Checkup, KeyInfo
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.paging import read_all
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    MarketEvent,
    OrderReport,
    OrderStatus,
    RateLimits,
)
from mm.ledger.lock import holder_of
from mm.session.looking import look_around
from mm.session.surroundings import Surroundings
from mm.session.venue import Venue
from mm.settings import Environment, Settings
from mm.views.doctor import Finding, fail, ok, warn
from mm.views.texts import dollars, duration

DAY_S: Final = 86_400
SKEW_WARN_S: Final = 1.0
SKEW_FAIL_S: Final = 4.0
"""Kalshi refuses signatures that are further off than about five seconds."""
LATENCY_WARN_S: Final = 0.25
REGION_WARN_S: Final = 14 * DAY_S
FEED_S: Final = 10.0
SOON_S: Final = 2 * 3_600
AUTO_TTL_S: Final = 60
"""Where it is chosen per market: what it is for most."""
RENEWALS_SHARE: Final = 0.5


@attrs.define(eq=False, kw_only=True)
class Look:
    """One look at one exchange."""

    settings: Settings
    surroundings: Surroundings
    venue: Venue
    checkup: Checkup
    tell: Callable[[Finding], None]
    shards: set[int] = attrs.field(factory=set)
    """Where the markets are that would be quoted."""
    watched: MarketTicker | None = None

    @property
    def exchange(self) -> Exchange:
        """The port."""
        return self.venue.exchange

    async def everything(self) -> None:
        """In an order in which a failure explains those after it."""
        self.tell(await self._dns())
        try:
            limits = await self.exchange.limits()
        except AuthError as exc:
            self.tell(
                fail("key", str(exc), "check KALSHI_API_KEY and that its private key belongs to KALSHI_ENV")
            )
            return
        except ExchangeError as exc:
            self.tell(fail("exchange", str(exc), "check the network, KALSHI_ENV and KALSHI_REST_URL"))
            return
        checks: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("clock", self._timing),
            ("key", self._key),
            ("budget", lambda: self._budget(limits)),
            ("status", self._status),
            ("series", lambda: self._series(limits)),
            ("balance", self._balance),
            ("orders", self._orders),
            ("websocket", self._feed),
        )
        for name, check in checks:
            try:
                await check()
            except AuthError as exc:
                self.tell(fail(name, str(exc), "the key lacks a scope: make one with read and write"))
            except ExchangeError as exc:
                self.tell(fail(name, str(exc), "try again; if it stays, see docs/troubleshooting.md"))

    async def _dns(self) -> Finding:
        host = kalshi_options(self.venue.access.rest_url, self.venue.access.ws_url).rest.host
        started = trio.current_time()
        try:
            with trio.fail_after(5):
                found = await trio.socket.getaddrinfo(host, 443, type=trio.socket.SOCK_STREAM)
        except (OSError, trio.TooSlowError) as exc:
            return fail("dns", f"{host}: {exc}", "check the network and the resolver of this machine")
        addresses = sorted({str(entry[4][0]) for entry in found})
        took = trio.current_time() - started
        return ok("dns", f"{host} is {', '.join(addresses[:3])} ({took * 1000:.0f} ms)")

    async def _timing(self) -> None:
        timing = await self.checkup.timing()
        text = (
            f"median {timing.latency_s * 1000:.0f} ms, worst {timing.worst_s * 1000:.0f} ms for a small read"
        )
        if timing.latency_s > LATENCY_WARN_S:
            self.tell(
                warn(
                    "latency",
                    text,
                    "run nearer to the exchange: late quotes are filled by those who know more",
                )
            )
        else:
            self.tell(ok("latency", text))
        skew = timing.skew_s
        if skew is None:
            self.tell(
                warn("clock", "the exchange did not tell the time", "check this machine's clock by hand")
            )
        elif abs(skew) >= SKEW_FAIL_S:
            self.tell(
                fail(
                    "clock",
                    f"{skew:+.1f} s off",
                    "set the clock (chrony, systemd-timesyncd): signatures are refused",
                )
            )
        elif abs(skew) >= SKEW_WARN_S:
            self.tell(
                warn("clock", f"{skew:+.1f} s off", "let the clock be kept (chrony, systemd-timesyncd)")
            )
        else:
            self.tell(
                ok(
                    "clock",
                    f"within {max(abs(skew), 0.0):.1f} s of the exchange's (which tells whole seconds)",
                )
            )

    async def _key(self) -> None:
        key = await self.checkup.key()
        if key is None:
            self.tell(
                warn(
                    "key",
                    "accepted, but not in the list of the account's keys",
                    "look at Kalshi's API key page",
                )
            )
            return
        self.tell(self._scopes(key))
        if key.subaccount not in (None, 0):
            self.tell(
                fail(
                    "subaccount",
                    f"the key is bound to subaccount {key.subaccount}",
                    "the bot trades subaccount 0: make a key for it",
                )
            )
        else:
            bound = "bound to it" if key.subaccount == 0 else "not bound to one"
            self.tell(ok("subaccount", f"0, the key is {bound}"))
        self.tell(self._region(key))

    def _scopes(self, key: KeyInfo) -> Finding:
        text = f"{key.name or 'unnamed'}: {', '.join(key.scopes) or 'no scopes'}"
        if not key.may_read:
            return fail("key", text, "the bot needs the scope read: make a new key")
        if not key.may_trade:
            if self.settings.orders_on_paper(False):
                return ok("key", f"{text} (enough for paper)")
            return fail("key", text, "trading needs the scope write or write::trade: make a new key")
        if {"write", "write::transfer"} & set(key.scopes) and self.settings.environment is Environment.PROD:
            return warn("key", text, "it may also move money: a key with read and write::trade is enough")
        return ok("key", text)

    def _region(self, key: KeyInfo) -> Finding:
        if key.region_expires_at is None:
            return warn(
                "region",
                "the exchange tells no expiry of the location attestation",
                "look at Kalshi's API key page",
            )
        left = (key.region_expires_at - self.surroundings.clock()) / SECOND
        until = format_time(key.region_expires_at, trim=True)
        if left <= 0:
            return fail(
                "region",
                f"the location attestation ended at {until}",
                "attest it on Kalshi's site: sports are refused",
            )
        if left < REGION_WARN_S:
            return warn(
                "region",
                f"the location attestation ends at {until}, in {duration(left)}",
                "attest it anew on Kalshi's site",
            )
        return ok("region", f"attested until {until} ({left / DAY_S:.0f} days)")

    async def _budget(self, limits: RateLimits) -> None:
        place, cancel = limits.cost(*endpoints.PLACE), limits.cost(*endpoints.CANCEL)
        amend = limits.cost(*endpoints.AMEND)
        write = limits.write
        text = (
            f"tier {limits.tier}: {write.refill_per_s:g} write tokens/s (a create {place}, an amend {amend}, a "
            f"cancel {cancel}: {write.refill_per_s / place:.0f} creates/s), {limits.read.refill_per_s:g} read tokens/s"
        )
        quotes = 2 * self.settings.strategy.max_markets_to_trade
        renewals = quotes * amend / ((self.settings["QUOTE_TTL_SEC"] or AUTO_TTL_S) / 2)
        if renewals > RENEWALS_SHARE * write.refill_per_s:
            self.tell(
                warn(
                    "budget",
                    f"{text}; renewing {quotes} quotes takes {renewals / write.refill_per_s:.0%} of it",
                    "fewer MAX_MARKETS_TO_TRADE, a longer QUOTE_TTL_SEC, or a higher tier",
                )
            )
        else:
            self.tell(ok("budget", text))

    async def _status(self) -> None:
        status = await self.exchange.status()
        shut = [str(index) for index, (_, trading) in sorted(status.shards.items()) if not trading]
        if not status.trading_active or shut:
            where = f"shards {', '.join(shut)}" if shut else "everywhere"
            self.tell(warn("status", f"trading is paused: {where}", "wait; the bot quotes again by itself"))
        else:
            self.tell(ok("status", f"trading, {max(len(status.shards), 1)} shard(s)"))
        now = self.surroundings.clock()
        windows = [window for window in await self.checkup.maintenance() if window.end > now]
        if not windows:
            self.tell(ok("schedule", "no maintenance announced (by habit Thursdays 03:00-05:00 US Eastern)"))
            return
        text = f"maintenance {format_time(windows[0].start, trim=True)} to {format_time(windows[0].end, trim=True)}"
        if windows[0].start - now < SOON_S * SECOND:
            self.tell(warn("schedule", text, "nothing: quotes go by themselves and come back afterwards"))
        else:
            self.tell(ok("schedule", text))

    async def _series(self, limits: RateLimits) -> None:
        try:
            selection, series = await look_around(
                self.exchange, limits, self.settings, self.surroundings.clock
            )
        except ConfigError as exc:
            for problem in exc.problems:
                self.tell(fail("series", problem, "correct SERIES_TICKER"))
            return
        for row in series:
            text = f"{row.ticker}: fees {row.fee_type.value} x {float(row.fee_multiplier):g}"
            if row.fee_type is FeeType.FLAT:
                self.tell(
                    fail(
                        "fees", text, "this fee type is not understood: take the series out of SERIES_TICKER"
                    )
                )
                continue
            changes = await self.checkup.fee_changes(row.ticker)
            if changes:
                when, what = changes[0]
                self.tell(
                    warn(
                        "fees",
                        f"{text}; from {format_time(when, trim=True)}: {what}",
                        "nothing: it is followed",
                    )
                )
            else:
                self.tell(ok("fees", text))
        chosen = [c.market for c in selection.candidates if c.is_chosen]
        self.shards = {market.exchange_index for market in chosen}
        self.watched = chosen[0].ticker if chosen else None
        if chosen:
            self.tell(
                ok(
                    "markets",
                    f"{len(chosen)} would be quoted now, {len(selection.candidates) - len(chosen)} not (`mm discover`)",
                )
            )
        else:
            self.tell(
                warn(
                    "markets",
                    "none would be quoted now",
                    "`mm discover` says why; perhaps there are no games today",
                )
            )

    async def _balance(self) -> None:
        balance = await self.exchange.balance()
        by_shard = balance.by_exchange_index or {0: balance.total}
        text = ", ".join(f"shard {index}: {dollars(money)}" for index, money in sorted(by_shard.items()))
        empty = [str(i) for i in sorted(self.shards) if by_shard.get(i, 0) <= 0]
        paper = self.settings.orders_on_paper(False)
        if balance.total <= 0 and not paper:
            self.tell(fail("balance", text, "pay in, or stay on paper"))
        elif empty and not paper:
            self.tell(
                warn(
                    "balance",
                    text,
                    f"no money on shard {', '.join(empty)}, where markets would be quoted: move some there",
                )
            )
        else:
            self.tell(ok("balance", f"{text} dollars"))

    async def _orders(self) -> None:
        def page(cursor: str | None):  # type: ignore[no-untyped-def]
            return self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor)

        orders = await read_all(page, what="resting orders")
        prefix = f"{self.settings['BOT_NAME']}-"
        ours = [order for order in orders if (order.client_order_id or "").startswith(prefix)]
        text = f"{len(ours)} of {self.settings['BOT_NAME']} rest, {len(orders) - len(ours)} of others"
        runs = await self.surroundings.runner(lambda: holder_of(self.settings.data_dir))
        if ours and runs is None:
            self.tell(
                warn("orders", text, "no bot runs here: `mm cancel-all`, unless another machine runs it")
            )
        else:
            self.tell(ok("orders", text))

    async def _feed(self) -> None:
        sink = _Listener()
        started = trio.current_time()
        async with self.exchange.open_feed() as feed, trio.open_nursery() as nursery:
            nursery.start_soon(feed.run, sink)
            with trio.move_on_after(FEED_S):
                await sink.connected.wait()
                connected = trio.current_time() - started
                if self.watched is not None:
                    await feed.watch([self.watched])
                    await sink.book.wait()
            nursery.cancel_scope.cancel(reason="seen")
        if not sink.connected.is_set():
            self.tell(
                fail(
                    "websocket",
                    f"no connection within {FEED_S:g} s ({sink.why or 'no answer'})",
                    "check KALSHI_WS_URL and that the network lets WebSockets through",
                )
            )
        elif self.watched is not None and not sink.book.is_set():
            self.tell(
                fail(
                    "websocket",
                    f"connected, but no book of {self.watched} came",
                    "try again; see the exchange's status page",
                )
            )
        else:
            book = "" if self.watched is None else f", a book after {trio.current_time() - started:.2f} s"
            self.tell(ok("websocket", f"connected after {connected:.2f} s{book}"))


class _Listener:
    """A `FeedSink` that only wants to see a book come."""

    def __init__(self) -> None:
        self.connected = trio.Event()
        self.book = trio.Event()
        self.why = ""

    def on_connected(self, now: Micros) -> None:
        self.connected.set()

    def on_disconnected(self, now: Micros, why: str) -> None:
        self.why = why

    def on_alive(self, now: Micros) -> None: ...

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        self.book.set()

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, ts: Micros) -> None: ...
    def on_out_of_sync(self, tickers: Sequence[MarketTicker], why: str) -> None: ...
    def on_trade(self, trade: Trade) -> None: ...
    def on_fill(self, fill: Fill) -> None: ...
    def on_order(self, report: OrderReport) -> None: ...
    def on_market_event(self, event: MarketEvent) -> None: ...
    def on_group_triggered(self, group_id: GroupId) -> None: ...
    def on_read_end(self, now: Micros) -> None: ...
