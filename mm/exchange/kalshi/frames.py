"""The socket's frames that come by the hundred (book and trades), read by hand, and the commands we send.

Direct key access into integers: no classes, no converter. Prices are strings from a small set, so each is parsed once
and then looked up. Everything that comes rarely goes through `codec`.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs
import orjson

from mm.domain.fill import Trade, TradeId
from mm.domain.numbers import SECOND, Count, Micros, Price, complement, parse_count, parse_price
from mm.domain.order import MarketTicker, Side
from mm.exchange.kalshi.codec import side_of
from mm.exchange.kalshi.reading import Malformed, Tally
from mm.exchange.kalshi.wire import names

Msg = dict[str, Any]
Levels = list[tuple[Price, Count]]

_MAX_PRICES: Final = 50_000
"""Bound of the price table: all prices in several spellings; what comes beyond is parsed each time."""
_MAX_SIZES: Final = 50_000
"""The same for sizes."""
_DELTA_KEYS: Final = names(
    "market_ticker market_id price_dollars delta_fp side client_order_id subaccount ts ts_ms"
)
_SNAPSHOT_KEYS: Final = names("market_ticker market_id yes_dollars_fp no_dollars_fp")
_TRADE_KEYS: Final = names(
    "trade_id market_ticker market_id yes_price_dollars no_price_dollars count_fp taker_side taker_outcome_side"
    " taker_book_side is_block_trade ts ts_ms"
)
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError)


def read_count(text: str) -> Count:
    """A count with its usual two decimals, fast; any other spelling goes the careful way. Raises `ValueError`."""
    if text[-3:-2] == ".":
        digits = text[:-3] + text[-2:]
        if digits.isdecimal() and digits.isascii():
            return Count(int(digits))
        if digits[:1] == "-" and digits[1:].isdecimal() and digits.isascii():
            return Count(int(digits))
    return parse_count(text)


@attrs.define(eq=False)
class FrameReader:
    """Reads book and trade frames of one feed."""

    tally: Tally
    use_yes_price: bool
    """Whether NO levels come in YES price (we asked for it) or in their own."""
    _yes: dict[str, Price] = attrs.field(factory=dict)
    _no: dict[str, Price] = attrs.field(factory=dict)
    sizes: dict[str, Count] = attrs.field(factory=dict)
    """Changes of size by their text, as far as they were met: a venue that trades whole contracts has few."""

    @property
    def bid_prices(self) -> dict[str, Price]:
        """Bid prices by their text, as far as they were met."""
        return self._yes

    @property
    def ask_prices(self) -> dict[str, Price]:
        """The same for asks."""
        return self._yes if self.use_yes_price else self._no

    def delta(self, msg: Msg) -> tuple[MarketTicker, Side, Price, Count, Micros]:
        """A change of one level, in YES price. Raises `Malformed`."""
        try:
            if not _DELTA_KEYS.issuperset(msg):
                self._unknown("orderbook_delta", msg, _DELTA_KEYS)
            leg = msg["side"]
            if leg == "yes":
                side, price = Side.BID, self._price(msg["price_dollars"])
            elif leg == "no":
                side, price = Side.ASK, self._ask_price(msg["price_dollars"])
            else:
                raise Malformed(f"delta on side {leg!r}")
            ts = msg.get("ts_ms")
            text = msg["delta_fp"]
            change = read_count(text)
            if len(self.sizes) < _MAX_SIZES:
                self.sizes[text] = change
            return msg["market_ticker"], side, price, change, Micros(ts * 1000 if ts else 0)
        except _UNREADABLE as error:
            raise Malformed(f"orderbook_delta: {error!r}") from error

    def snapshot(self, msg: Msg) -> tuple[MarketTicker, Levels, Levels]:
        """A whole book, bids and asks in YES price. The key of an empty side is absent. Raises `Malformed`."""
        try:
            if not _SNAPSHOT_KEYS.issuperset(msg):
                self._unknown("orderbook_snapshot", msg, _SNAPSHOT_KEYS)
            bids = [(self._price(p), read_count(c)) for p, c in msg.get("yes_dollars_fp") or ()]
            asks = [(self._ask_price(p), read_count(c)) for p, c in msg.get("no_dollars_fp") or ()]
            return msg["market_ticker"], bids, asks
        except _UNREADABLE as error:
            raise Malformed(f"orderbook_snapshot: {error!r}") from error

    def trade(self, msg: Msg, sent_ms: int | None, now: Micros) -> Trade:
        """A print. Raises `Malformed`.

        Some frames have no time of their own: then the envelope's stands in, at last our own clock.
        """
        try:
            if not _TRADE_KEYS.issuperset(msg):
                self._unknown("trade", msg, _TRADE_KEYS)
            return Trade(
                trade_id=TradeId(msg["trade_id"]),
                ticker=MarketTicker(msg["market_ticker"]),
                price=self._price(msg["yes_price_dollars"]),
                count=read_count(msg["count_fp"]),
                taker_side=side_of(msg.get("taker_book_side"), msg.get("taker_outcome_side")),
                ts=_time_of(msg, sent_ms, now),
                is_block=msg.get("is_block_trade") is True,
            )
        except _UNREADABLE as error:
            raise Malformed(f"trade: {error!r}") from error

    def _price(self, text: str) -> Price:
        price = self._yes.get(text)
        if price is None:
            price = parse_price(text)
            if len(self._yes) < _MAX_PRICES:
                self._yes[text] = price
        return price

    def _ask_price(self, text: str) -> Price:
        if self.use_yes_price:
            return self._price(text)
        price = self._no.get(text)
        if price is None:
            price = complement(parse_price(text))
            if len(self._no) < _MAX_PRICES:
                self._no[text] = price
        return price

    def _unknown(self, kind: str, msg: Msg, known: frozenset[str]) -> None:
        for name in msg.keys() - known:
            self.tally.field(kind, name)


def _time_of(msg: Msg, sent_ms: int | None, now: Micros) -> Micros:
    if msg.get("ts_ms") is not None:
        return Micros(msg["ts_ms"] * 1000)
    if msg.get("ts") is not None:
        return Micros(int(msg["ts"]) * SECOND)
    return now if sent_ms is None else Micros(sent_ms * 1000)


# --- commands --------------------------------------------------------------------------------------------------------


def subscribe(
    command_id: int, channel: str, tickers: Iterable[MarketTicker] | None, *, use_yes_price: bool | None
) -> str:
    """Subscribe to one channel; `tickers` None where the channel takes no list."""
    params: Msg = {"channels": [channel]}
    if tickers is not None:
        params["market_tickers"] = list(tickers)
    if use_yes_price is not None:
        params["use_yes_price"] = use_yes_price
    return _command(command_id, "subscribe", params)


def update(command_id: int, sid: int, action: str, tickers: Iterable[MarketTicker]) -> str:
    """`add_markets`, `delete_markets` or `get_snapshot` on a subscription."""
    params = {"sids": [sid], "action": action, "market_tickers": list(tickers)}
    return _command(command_id, "update_subscription", params)


def unsubscribe(command_id: int, sid: int) -> str:
    """End a subscription."""
    return _command(command_id, "unsubscribe", {"sids": [sid]})


def _command(command_id: int, cmd: str, params: Msg) -> str:
    return orjson.dumps({"id": command_id, "cmd": cmd, "params": params}).decode()
