"""What the exchange's own people do, on command: pauses, halts, results, prices, fees, maintenance, money, the archive."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Final

import attrs

from mm.domain.fees import FeeType
from mm.domain.numbers import Count, Micros, Money, Price, parse_money, parse_price
from mm.domain.order import MarketTicker, Side, TimeInForce
from mm.exchange.embedded.core.grids import grid_of
from mm.exchange.embedded.core.model import OrderRequest
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.fields import Body, invalid
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.service import Service

HOUSE: Final = "control-house"
MAX_MS: Final = 3_600_000
_LONG_MS: Final = 400 * 86_400_000
_FEE_TYPES: Final = tuple(kind.value for kind in FeeType)


@attrs.define(eq=False)
class Operator:
    """Carries out the commands below `/control/` that concern markets and money, not the wire."""

    service: Service

    def commands(self) -> Mapping[str, Callable[[Body], Response]]:
        """By the path below `/control/`."""
        return {
            "pause": partial(self._set_active, is_active=False),
            "resume": partial(self._set_active, is_active=True),
            "order": self._order,
            "close": self._close,
            "determine": partial(self._result, self.service.core.determine),
            "dispute": self._dispute,
            "amend_result": partial(self._result, self.service.core.amend_result),
            "grid": self._grid,
            "fees": self._fees,
            "maintenance": self._maintenance,
            "deposit": self._deposit,
            "archive": self._archive,
            "region": self._region,
        }

    @property
    def _now(self) -> Micros:
        return self.service.clock()

    def _ticker(self, body: Body) -> MarketTicker:
        return self.service.market(body.need_text("ticker")).ticker

    def _later(self, body: Body, name: str) -> Micros:
        return Micros(self._now + (body.integer(name, lowest=-_LONG_MS, highest=_LONG_MS) or 0) * 1_000)

    # --- pauses and orders -------------------------------------------------------------------------------------------

    def _set_active(self, body: Body, *, is_active: bool) -> Response:
        core, now = self.service.core, self._now
        if body.text("ticker") is not None:
            change = core.activate if is_active else core.deactivate
            change(now, self._ticker(body))
            return Response.json(200, {})
        index = body.integer("exchange_index", lowest=0, highest=1_000) or 0
        what = body.text("what") or "trading"
        if what not in ("trading", "exchange"):
            raise invalid("what must be trading or exchange")
        switch = core.set_trading_active if what == "trading" else core.set_exchange_active
        switch(now, index, is_active)
        return Response.json(200, {})

    def _order(self, body: Body) -> Response:
        core = self.service.core
        if HOUSE not in core.users():
            core.add_user(HOUSE, is_house=True)
        request = OrderRequest(
            ticker=MarketTicker(body.need_text("ticker")),
            side=Side(body.word("side", tuple(side.value for side in Side))),
            count=Count(body.need_count("count")),
            price=body.need_price("price"),
            time_in_force=TimeInForce.GTC if body.flag("rest") else TimeInForce.IOC,
        )
        return Response.json(201, wire.create_ack(core.create(self._now, HOUSE, request)))

    # --- the life of a market ----------------------------------------------------------------------------------------

    def _close(self, body: Body) -> Response:
        self.service.core.set_close_time(self._now, self._ticker(body), self._later(body, "in_ms"))
        return Response.json(200, {})

    def _result(self, fix: Callable[[Micros, MarketTicker, Price], None], body: Body) -> Response:
        try:
            value = parse_price(body.need_text("value"))
        except ValueError:
            raise invalid("value is no price") from None
        if not 0 <= value <= 10_000:
            raise invalid("value must lie between 0 and 1 dollar")
        fix(self._now, self._ticker(body), value)
        return Response.json(200, {})

    def _dispute(self, body: Body) -> Response:
        self.service.core.dispute(self._now, self._ticker(body))
        return Response.json(200, {})

    def _grid(self, body: Body) -> Response:
        structure = body.need_text("structure")
        self.service.core.set_grid(self._now, self._ticker(body), grid_of(structure), structure)
        return Response.json(200, {})

    # --- announcements -----------------------------------------------------------------------------------------------

    def _fees(self, body: Body) -> Response:
        """A change of a series' fees (`series_ticker`) or of an event's overrides (`event_ticker`), now or later."""
        core, now, when = self.service.core, self._now, self._later(body, "in_ms")
        number = body.values.get("fee_multiplier")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise invalid("fee_multiplier is no number")
        multiplier = None if number is None else Fraction(str(number))
        kind = body.text("fee_type")
        if kind not in (None, *_FEE_TYPES):
            raise invalid(f"fee_type must be one of {', '.join(_FEE_TYPES)}")
        fee_type = None if kind is None else FeeType(kind)
        if event_ticker := body.text("event_ticker"):
            change = core.schedule_event_fees(now, event_ticker, fee_type, multiplier, when)
        else:
            if fee_type is None or multiplier is None:
                raise invalid("a series needs fee_type and fee_multiplier")
            series = body.need_text("series_ticker")
            change = core.schedule_series_fees(now, series, fee_type, multiplier, when)
        return Response.json(200, {"id": change.change_id})

    def _maintenance(self, body: Body) -> Response:
        start = self._later(body, "in_ms")
        length = body.integer("for_ms", lowest=1, highest=_LONG_MS)
        if length is None:
            raise invalid("for_ms is required")
        self.service.core.schedule_maintenance(self._now, start, Micros(start + length * 1_000))
        return Response.json(200, {})

    # --- money and records -------------------------------------------------------------------------------------------

    def _deposit(self, body: Body) -> Response:
        """Dollars onto a member's account (the only member, unless `user_id` names one); negative: off it."""
        try:
            amount = Money(parse_money(body.need_text("amount")))
        except ValueError:
            raise invalid("amount is no amount of dollars") from None
        members = [user.user_id for user in self.service.core.users().values() if not user.is_house]
        account = body.text("user_id") or (members[0] if members else "")
        if account not in members:
            raise invalid("no such member")
        shard = body.integer("exchange_index", lowest=0, highest=1_000) or 0
        self.service.move_cash(self._now, account, shard, amount)
        return Response.json(200, {})

    def _archive(self, body: Body) -> Response:
        """Settled markets, trades and done orders older than `after_ms` are archived from now on; without: none."""
        after = body.integer("after_ms", lowest=0, highest=_LONG_MS)
        self.service.archive_after = None if after is None else Micros(after * 1_000)
        return Response.json(200, {})

    def _region(self, body: Body) -> Response:
        """When the keys' location attestation ends."""
        self.service.region_expires_at = self._later(body, "expires_in_ms")
        return Response.json(200, {})
