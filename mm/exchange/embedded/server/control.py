"""The back door, below `/control/` and for this machine only: faults on command, and the exchange's own truth.

For tests and demonstrations: not part of the protocol, no signature, no budget.

| request | does |
|---|---|
| `GET /control/state` | counters: connections, sockets, frames, overflows, requests refused with 429 |
| `GET /control/book/{ticker}` | the whole book: `bids` and `asks` as [YES price, count], best first |
| `GET /control/account` | every member that is not of the house: cash, positions, resting orders, fills |
| `GET`, `POST`, `DELETE /control/faults` | show; add one (`{"kind", ...}`) or several (`{"spec"}`); clear |
| `POST /control/sockets/cut` | end all WebSockets: `how` = `close` (1001), `drop` (no close frame), `reset` |
| `POST /control/sockets/half_open` | neither send nor listen on any socket, and keep the connections |
| `POST /control/sockets/stall`, `/resume` | stop and start writing to all WebSockets |
| `POST /control/outage` | cut every connection and refuse new ones for `ms` (`reset` true: with RST) |
| `POST /control/skip_seq` | skip `by` (1) numbers of every subscription of `channel` |
| `POST /control/drop_frames` | lose the next `count` (1) frames of `channel` |
| `POST /control/channel_error` | end every subscription of `channel` with error `code` (10 or 25) |
| `POST /control/pause`, `/resume` | a market (`ticker`), or a shard (`exchange_index`, `what` = `trading` or `exchange`) |
| `POST /control/order` | an order of the house: `ticker`, `side`, `price`, `count` (immediate or cancel unless `rest`) |
| `POST /control/close`, `/determine`, `/dispute`, `/amend_result` | `ticker`; `in_ms` or `value` in dollars |
| `POST /control/grid` | another price grid while open: `ticker`, `structure` by name |
| `POST /control/fees` | `series_ticker` or `event_ticker`, `fee_type`, `fee_multiplier`, `in_ms` (0: now) |
| `POST /control/maintenance` | pause trading everywhere `in_ms` from now `for_ms`, announced in the schedule |
| `POST /control/deposit` | `amount` in dollars (negative: withdrawn), `exchange_index` |
| `POST /control/archive`, `/region` | what is `after_ms` old moves to `/historical`; keys end in `expires_in_ms` |
"""

from collections.abc import Callable, Mapping

import attrs
import trio

from mm.domain.numbers import Micros, format_money
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.errors import ApiError, not_found
from mm.exchange.embedded.server.faults import Faults
from mm.exchange.embedded.server.fields import Body, invalid
from mm.exchange.embedded.server.http import Request, Response, reset_on_close
from mm.exchange.embedded.server.hub import Channel, Hub
from mm.exchange.embedded.server.operator import MAX_MS, Operator
from mm.exchange.embedded.server.rest.orders import refusal
from mm.exchange.embedded.server.service import Json, Service


def apply_settings(service: Service, faults: Faults) -> None:
    """Make the faults that hold for everybody true: the lag of reads, the skew of our clock, shards that are down."""
    lag = Micros(faults.lag_ms * 1_000)
    if lag != service.reads.lag:
        service.reads.set_lag(service.core, lag)
    service.auth.skew = Micros(faults.skew_ms * 1_000)
    for shard in {*service.shard_numbers(), *faults.shards_down}:
        service.core.set_shard_up(shard, is_up=shard not in faults.shards_down)


@attrs.define(eq=False, kw_only=True)
class Control:
    """Answers the control requests of one exchange."""

    service: Service
    hub: Hub
    faults: Faults
    streams: dict[trio.CancelScope, trio.abc.Stream] = attrs.field(factory=dict)
    """The connections being served: cancelling the scope cuts one."""
    _out_until: Micros = Micros(0)
    _caller: trio.CancelScope | None = None
    """The connection that the request in work came by: an outage spares it."""

    def is_out(self) -> bool:
        """Whether the network is away on purpose."""
        return self.service.clock() < self._out_until

    def answer(self, request: Request, caller: trio.CancelScope | None = None) -> Response:
        """One control request, which came by `caller`."""
        self._caller = caller
        _, _, name, *rest = request.path.split("/")
        target = "/".join(rest)
        try:
            if request.method == "GET":
                return Response.json(200, self._read(name, target))
            if request.method == "DELETE" and name == "faults":
                self.faults.clear()
                return self._faults_changed()
            if request.method != "POST":
                raise ApiError(405, "method_not_allowed")
            command = self._commands().get(f"{name}/{target}" if target else name)
            if command is None:
                raise not_found()
            return command(Body.of(request, "Control", may_be_empty=True))
        except ApiError as error:
            return error.response()
        except Refused as refused:
            return refusal(refused).response()
        except ValueError as error:
            # What operators ask of the core and cannot have: a market in the wrong state, an unknown one.
            return invalid(str(error)).response()

    def _commands(self) -> Mapping[str, Callable[[Body], Response]]:
        return {
            "faults": self._add_faults,
            "sockets/cut": self._cut,
            "sockets/half_open": self._half_open,
            "sockets/stall": self._stall,
            "sockets/resume": self._unstall,
            "outage": self._outage,
            "skip_seq": self._skip_seq,
            "drop_frames": self._drop_frames,
            "channel_error": self._channel_error,
            **Operator(self.service).commands(),
        }

    # --- reading ---

    def _read(self, name: str, target: str) -> Json:
        if name == "faults" and not target:
            return self.faults.as_json()
        if name == "state" and not target:
            return self._state()
        if name == "account":
            return self._accounts()
        if name == "book" and target:
            return self._book(target)
        raise not_found()

    def _state(self) -> Json:
        statistics = self.hub.statistics
        return {
            "connections": len(self.streams),
            "sockets": len(self.hub.sessions),
            "subscriptions": sum(len(session.subscriptions) for session in self.hub.sessions),
            "frames": statistics.frames,
            "overflows": statistics.overflows,
            "dropped_on_purpose": statistics.dropped_on_purpose,
            "refused_429": sum(budget.refused for budget in self.service.budgets.values()),
            "now_ms": self.service.clock() // 1_000,
        }

    def _book(self, ticker: str) -> Json:
        state = self.service.market(ticker)
        return {
            "ticker": state.ticker,
            "status": state.status.value,
            "bids": [[wire.PRICE_TEXT[p], wire.count_text(c)] for p, c in state.book.bids.depth()],
            "asks": [[wire.PRICE_TEXT[p], wire.count_text(c)] for p, c in state.book.asks.depth()],
        }

    def _accounts(self) -> Json:
        core = self.service.core
        found: list[Json] = []
        for user in core.users().values():
            if user.is_house:
                continue
            balances = core.balances(user.user_id)
            found.append(
                {
                    "user_id": user.user_id,
                    "available": {
                        str(view.exchange_index): format_money(view.available) for view in balances
                    },
                    "reserved": {str(view.exchange_index): format_money(view.reserved) for view in balances},
                    "positions": {
                        view.ticker: wire.count_text(view.position)
                        for view in core.positions(user.user_id, is_settled=None)
                    },
                    "resting": [wire.order(record) for record in user.resting.values()],
                    "orders": len(user.orders),
                    "fills": len(user.fills),
                }
            )
        return {"accounts": found}

    # --- faults ---

    def _add_faults(self, body: Body) -> Response:
        spec = body.text("spec")
        try:
            if spec is not None:
                self.faults.add_spec(spec)
            else:
                fields = {name: value for name, value in body.values.items() if name != "kind"}
                self.faults.add(body.need_text("kind"), fields)
        except ValueError as error:
            raise invalid(str(error)) from None
        return self._faults_changed()

    def _faults_changed(self) -> Response:
        apply_settings(self.service, self.faults)
        return Response.json(200, self.faults.as_json())

    def _cut(self, body: Body) -> Response:
        how = body.text("how") or "close"
        if how not in ("close", "drop", "reset"):
            raise invalid("how must be close, drop or reset")
        return self._end_sockets(how)

    def _half_open(self, body: Body) -> Response:
        del body
        return self._end_sockets("half_open")

    def _end_sockets(self, how: str) -> Response:
        sessions = list(self.hub.sessions)
        for session in sessions:
            session.socket.end(how)
        return Response.json(200, {"sockets": len(sessions)})

    def _stall(self, body: Body) -> Response:
        del body
        for session in self.hub.sessions:
            session.socket.stall()
        return Response.json(200, {"sockets": len(self.hub.sessions)})

    def _unstall(self, body: Body) -> Response:
        del body
        for session in self.hub.sessions:
            session.socket.resume()
        return Response.json(200, {"sockets": len(self.hub.sessions)})

    def _outage(self, body: Body) -> Response:
        ms = body.integer("ms", lowest=0, highest=MAX_MS) or 0
        self._out_until = Micros(self.service.clock() + ms * 1_000)
        cut = [(scope, stream) for scope, stream in self.streams.items() if scope is not self._caller]
        for scope, stream in cut:
            if body.flag("reset"):
                reset_on_close(stream)
            scope.cancel(reason="outage")
        return Response.json(200, {"connections": len(cut)})

    def _channel(self, body: Body) -> Channel:
        try:
            return Channel(body.need_text("channel"))
        except ValueError:
            raise invalid("no such channel") from None

    def _skip_seq(self, body: Body) -> Response:
        channel = self._channel(body)
        by = body.integer("by", lowest=1, highest=1_000_000) or 1
        touched = 0
        for session in self.hub.sessions:
            for subscription in session.subscriptions.values():
                if subscription.channel is channel:
                    subscription.seq += by
                    touched += 1
        return Response.json(200, {"subscriptions": touched})

    def _drop_frames(self, body: Body) -> Response:
        channel = self._channel(body)
        count = body.integer("count", lowest=1, highest=1_000_000) or 1
        self.hub.drop_next[channel] = self.hub.drop_next.get(channel, 0) + count
        return Response.json(200, {"to_drop": self.hub.drop_next[channel]})

    def _channel_error(self, body: Body) -> Response:
        channel = self._channel(body)
        code = body.integer("code", lowest=10, highest=25) or 25
        if code not in (10, 25):
            raise invalid("code must be 10 or 25")
        ended = self.hub.end_channel(channel, code)
        return Response.json(200, {"subscriptions": ended})
