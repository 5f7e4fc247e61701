"""The commands of a WebSocket client: subscribe, unsubscribe, update, list; and their replies and refusals."""

from collections.abc import Callable
from typing import Final

import attrs
import orjson

from mm.domain.order import MarketTicker
from mm.exchange.embedded.server.hub import ERRORS, Channel, Hub, Session, Subscription
from mm.exchange.embedded.server.wire import Json

_MAX_ID: Final = 2**63
_REMOVED: Final = frozenset({"multivariate", "ticker_v2"})


class CommandError(Exception):
    """A command that cannot be carried out."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code} {ERRORS[code]}")
        self.code = code


@attrs.define(eq=False, kw_only=True)
class Commands:
    """Carries out one connection's commands."""

    hub: Hub
    session: Session
    max_markets: int | None = None
    """Markets that one subscription may hold (error 26); the real number is unpublished."""
    max_commands: int = 10_000
    """Commands a second (error 27)."""
    _second: int = 0
    _commands: int = 0

    def on_text(self, text: str) -> None:
        """One message of the client. Never raises for what is in it."""
        command_id: int | None = None
        try:
            try:
                message = orjson.loads(text)
            except orjson.JSONDecodeError:
                raise CommandError(1) from None
            if not isinstance(message, dict):
                raise CommandError(1)
            command_id = _id_of(message)
            self._check_rate()
            self._carry_out(message, command_id)
        except CommandError as error:
            self._reply("error", command_id, msg={"code": error.code, "msg": ERRORS[error.code]})

    def _check_rate(self) -> None:
        second = self.hub.clock() // 1_000_000
        if second != self._second:
            self._second, self._commands = second, 0
        self._commands += 1
        if self._commands > self.max_commands:
            raise CommandError(27)

    def _carry_out(self, message: Json, command_id: int | None) -> None:
        command = message.get("cmd")
        if command == "list_subscriptions":
            listed = [{"channel": s.channel.value, "sid": s.sid} for s in self._subscriptions()]
            self._reply("ok", command_id, msg=listed)
            return
        if command not in ("subscribe", "unsubscribe", "update_subscription"):
            raise CommandError(5)
        params = message.get("params")
        if not isinstance(params, dict):
            raise CommandError(2)
        if command == "subscribe":
            self._subscribe(params, command_id)
        elif command == "unsubscribe":
            self._unsubscribe(params, command_id)
        else:
            self._update(params, command_id)

    def _subscriptions(self) -> list[Subscription]:
        return list(self.session.subscriptions.values())

    def _reply(
        self,
        kind: str,
        command_id: int | None,
        *,
        subscription: Subscription | None = None,
        msg: object = None,
    ) -> None:
        content: Json = {"type": kind}
        if command_id is not None:
            content["id"] = command_id
        if subscription is not None:
            content["sid"] = subscription.sid
            if subscription.channel.is_sequenced:
                # Replies take a number of the stream that they belong to.
                subscription.seq += 1
                content["seq"] = subscription.seq
        if msg is not None:
            content["msg"] = msg
        content["sending_ts_ms"] = self.hub.clock() // 1_000
        payload = orjson.dumps(content) + b"\n"
        if subscription is None:
            self.session.socket.send(payload)
        else:
            self.hub.post(subscription, payload)

    # --- subscribe and unsubscribe ---

    def _subscribe(self, params: Json, command_id: int | None) -> None:
        names = params.get("channels")
        if not isinstance(names, list) or not names:
            raise CommandError(3)
        channels = [_channel(name) for name in names]
        tickers = _tickers(params, with_ids=self._by_market_id if Channel.TICKER in channels else None)
        if Channel.ORDERBOOK_DELTA in channels and not tickers:
            raise CommandError(14)
        self._check_size(tickers)
        # Everything is judged before anything is made: a command that fails leaves no subscription behind.
        use_yes_price, skip_ack = _flag(params, "use_yes_price"), _flag(params, "skip_ticker_ack")
        with_first = _flag(params, "send_initial_snapshot")
        made = [
            self.hub.add(
                self.session, channel, tickers, use_yes_price=use_yes_price, skip_ticker_ack=skip_ack
            )
            for channel in channels
        ]
        # All acknowledgements come before the first data, as recorded.
        for subscription in made:
            told = {"channel": subscription.channel.value, "sid": subscription.sid}
            self._reply("subscribed", command_id, msg=told)
        for subscription in made:
            if subscription.channel is Channel.ORDERBOOK_DELTA:
                self.hub.snapshot(subscription, tickers or [])
            elif subscription.channel is Channel.TICKER and with_first:
                self.hub.tickers_now(subscription, self._all_markets() if tickers is None else tickers)

    def _unsubscribe(self, params: Json, command_id: int | None) -> None:
        sids = params.get("sids")
        if not isinstance(sids, list) or not sids:
            raise CommandError(4)
        found = [self._subscription(sid) for sid in dict.fromkeys(map(_sid, sids))]
        for subscription in found:
            self.hub.remove(subscription)
            self._reply("unsubscribed", command_id, subscription=subscription)

    def _subscription(self, sid: int) -> Subscription:
        found = self.session.subscriptions.get(sid)
        if found is None:
            raise CommandError(7)
        return found

    def _by_market_id(self, market_id: str) -> MarketTicker:
        """The ticker of a market id; an unknown id matches no market."""
        for ticker in self._all_markets():
            if self.hub.market_of(ticker).market_id == market_id:
                return ticker
        return MarketTicker("")

    def _all_markets(self) -> list[MarketTicker]:
        return list(self.hub.markets())

    def _check_size(self, tickers: list[MarketTicker] | None) -> None:
        if tickers is not None and self.max_markets is not None and len(tickers) > self.max_markets:
            raise CommandError(26)

    # --- update ---

    def _update(self, params: Json, command_id: int | None) -> None:
        subscription = self._target(params)
        action = params.get("action")
        if not action:
            raise CommandError(15)
        if action == "get_snapshot":
            self._get_snapshot(subscription, params, command_id)
            return
        if action not in ("add_markets", "delete_markets"):
            raise CommandError(13)
        if not subscription.channel.has_markets:
            raise CommandError(13)
        tickers, with_first = _tickers(params), _flag(params, "send_initial_snapshot")
        if not tickers:
            raise CommandError(14)
        new: list[MarketTicker] = []
        if action == "add_markets":
            self._check_size([*(subscription.tickers or ()), *tickers])
            new = self.hub.add_markets(subscription, tickers)
        else:
            self.hub.delete_markets(subscription, tickers)
        full = {} if subscription.skip_ticker_ack else {"market_tickers": list(subscription.tickers or ())}
        self._reply("ok", command_id, subscription=subscription, msg=full)
        if subscription.channel is Channel.ORDERBOOK_DELTA:
            self.hub.snapshot(subscription, new)
        elif subscription.channel is Channel.TICKER and with_first:
            self.hub.tickers_now(subscription, new)

    def _get_snapshot(self, subscription: Subscription, params: Json, command_id: int | None) -> None:
        if subscription.channel is not Channel.ORDERBOOK_DELTA:
            raise CommandError(13)
        tickers = _text_list(params.get("market_tickers"))
        if not tickers:
            raise CommandError(14)
        self.hub.snapshot(subscription, map(MarketTicker, tickers), command_id=command_id)

    def _target(self, params: Json) -> Subscription:
        sid, sids = params.get("sid"), params.get("sids")
        if (sid is None) == (sids is None):
            raise CommandError(12)
        if sids is not None:
            if not isinstance(sids, list) or len(sids) != 1:
                raise CommandError(12)
            sid = sids[0]
        return self._subscription(_sid(sid))


def _id_of(message: Json) -> int | None:
    """The command's id to echo; 0, missing or no integer: none."""
    value = message.get("id")
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_ID:
        return value
    return None


def _sid(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CommandError(11)
    return value


def _channel(name: object) -> Channel:
    if not isinstance(name, str) or name in _REMOVED:
        raise CommandError(8)
    try:
        return Channel(name)
    except ValueError:
        raise CommandError(8) from None


def _flag(params: Json, name: str) -> bool:
    value = params.get(name)
    if value is not None and not isinstance(value, bool):
        raise CommandError(11)
    return bool(value)


def _text_list(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CommandError(11)
    return list(value)


def _tickers(
    params: Json, *, with_ids: Callable[[str], MarketTicker] | None = None
) -> list[MarketTicker] | None:
    """The markets of a command, None when it names none: `market_ticker` xor `market_tickers`, or ids."""
    one, many = params.get("market_ticker"), _text_list(params.get("market_tickers"))
    if one is not None and (many or not isinstance(one, str)):
        raise CommandError(11)
    found = many if one is None else [str(one)]
    if with_ids is not None:
        one_id, ids = params.get("market_id"), _text_list(params.get("market_ids"))
        if one_id is not None and not isinstance(one_id, str):
            raise CommandError(11)
        found += [with_ids(market_id) for market_id in ([one_id] if one_id else ids)]
    return [MarketTicker(ticker) for ticker in found if ticker] or None
