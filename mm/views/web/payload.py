"""Snapshots as JSON values: everything once, then only what changed.

Numbers stay the integers of `mm.domain.numbers`; the page writes them for people. What is not listed here is not
sent: above all the address with the token.
"""

from collections.abc import Sequence
from typing import Any

import attrs

from mm.domain.order import MarketTicker
from mm.views.series import Point
from mm.views.snapshot import (
    AlertView,
    BudgetView,
    FillView,
    LevelView,
    MarketDetail,
    MarketView,
    QuoteView,
    Snapshot,
)
from mm.views.texts import short_names

Json = dict[str, Any]


@attrs.define(eq=False)
class Payloads:
    """Remembers what was sent last, to tell what changed."""

    _last: Snapshot | None = None
    _markets: dict[MarketTicker, MarketView] = attrs.field(factory=dict)
    _names: dict[MarketTicker, str] = attrs.field(factory=dict)

    def changes(self, snapshot: Snapshot, version: int) -> Json:
        """The difference from the snapshot given before."""
        before, old = self._last, self._markets
        markets = {m.ticker: m for m in snapshot.markets}
        if markets.keys() != old.keys():
            names = short_names(list(markets))
            changed = [m for t, m in markets.items() if old.get(t) != m or names[t] != self._names.get(t)]
            self._names = names
        else:
            changed = [m for t, m in markets.items() if old[t] != m]
        self._last, self._markets = snapshot, markets
        found: Json = {"version": version, "whole": False, "totals": totals(snapshot)}
        found["markets"] = [self._row(m) for m in changed]
        gone = [ticker for ticker in old if ticker not in markets]
        if gone:
            found["gone"] = gone
        if before is None or before.recent_fills != snapshot.recent_fills:
            found["fills"] = [fill(f) for f in snapshot.recent_fills]
        if before is None or before.alert_list != snapshot.alert_list:
            found["alerts"] = [alert(a) for a in snapshot.alert_list]
        return found

    def whole(self, version: int) -> Json:
        """Everything of the snapshot that was given last."""
        snapshot = self._last
        if snapshot is None:
            return {"version": version, "whole": True}
        return {
            "version": version,
            "whole": True,
            "totals": totals(snapshot),
            "markets": [self._row(m) for m in snapshot.markets],
            "fills": [fill(f) for f in snapshot.recent_fills],
            "alerts": [alert(a) for a in snapshot.alert_list],
        }

    def _row(self, market: MarketView) -> Json:
        return row(market, self._names.get(market.ticker, market.ticker))


def state(snapshot: Snapshot) -> Json:
    """A whole snapshot for whoever asks once."""
    payloads = Payloads()
    payloads.changes(snapshot, 0)
    return payloads.whole(0)


def totals(snapshot: Snapshot) -> Json:
    """What is said of the whole bot."""
    latency = snapshot.write_latency
    return {
        "at": snapshot.at,
        "started_at": snapshot.started_at,
        "environment": snapshot.environment,
        "is_paper": snapshot.is_paper,
        "is_feed_up": snapshot.is_feed_up,
        "feed_age_s": snapshot.feed_age_s,
        "writes": _budget(snapshot.writes),
        "reads": _budget(snapshot.reads),
        "orders_placed": snapshot.orders_placed,
        "orders_cancelled": snapshot.orders_cancelled,
        "orders_working": snapshot.working_orders,
        "orders_expired": snapshot.orders_expired,
        "orders_unknown": snapshot.orders_unknown,
        "writes_refused": snapshot.writes_refused,
        "drifts": snapshot.drifts,
        "latency_p50_s": _finite(latency.quantile(0.5)),
        "latency_p99_s": _finite(latency.quantile(0.99)),
        "loop_lag_s": round(snapshot.loop_lag_s, 4),
        "fills": snapshot.fills,
        "markouts": [None if m is None else round(m, 1) for m in snapshot.markout_averages],
        "contracts": snapshot.contracts,
        "fees": snapshot.fees,
        "realized": snapshot.realized,
        "unrealized": snapshot.unrealized,
        "net": snapshot.net_position,
        "gross": snapshot.gross_position,
        "worst": snapshot.worst_exposure,
        "quoted": snapshot.quoted,
        "limits": [
            {
                "name": limit.name,
                "used": limit.used,
                "limit": limit.limit,
                "unit": limit.unit,
                "market": limit.market,
            }
            for limit in snapshot.limits
        ],
        "notice": snapshot.notice,
        "is_all_paused": snapshot.is_all_paused,
        "stopping": snapshot.stopping,
    }


def row(market: MarketView, name: str) -> Json:
    """One market of the slate."""
    return {
        "ticker": market.ticker,
        "name": name,
        "title": market.title,
        "outcome": market.outcome,
        "event": market.event,
        "best_bid": market.best_bid,
        "best_ask": market.best_ask,
        "bid_size": market.bid_size,
        "ask_size": market.ask_size,
        "mark": market.mark,
        "bid": _quote(market.bid),
        "ask": _quote(market.ask),
        "position": market.position,
        "entry": market.entry,
        "worst": market.worst,
        "realized": market.realized,
        "unrealized": market.unrealized,
        "state": market.state,
        "reason": market.reason,
        "is_paused": market.is_paused,
    }


def detail(found: MarketDetail) -> Json:
    """One market closely."""
    return {
        "market": row(found.market, short_names([found.market.ticker])[found.market.ticker]),
        "bids": [_level(level) for level in found.bids],
        "asks": [_level(level) for level in found.asks],
        "decisions": [
            {"at": d.at, "state": d.state, "actions": list(d.actions), "why": d.why} for d in found.decisions
        ],
        "fills": [fill(f) for f in found.fills],
        "max_position": found.max_position,
    }


def fill(found: FillView) -> Json:
    """One line of the tape."""
    return {
        "key": found.key,
        "at": found.at,
        "ticker": found.ticker,
        "side": found.side.value,
        "price": found.price,
        "count": found.count,
        "fee": found.fee,
        "is_maker": found.is_maker,
        "edge": found.edge,
        "markouts": list(found.markouts),
    }


def alert(found: AlertView) -> Json:
    """One alert."""
    return {"at": found.at, "severity": found.severity, "text": found.text}


def history(points: Sequence[Point]) -> Json:
    """P&L and exposure over time, by column."""
    return {
        "at": [p.at for p in points],
        "realized": [p.realized for p in points],
        "unrealized": [p.unrealized for p in points],
        "worst": [p.worst_exposure for p in points],
        "gross": [p.gross for p in points],
    }


def _budget(budget: BudgetView | None) -> Json | None:
    if budget is None:
        return None
    return {"share": round(budget.share, 4), "capacity": budget.capacity, "waiting": budget.waiting}


def _quote(quote: QuoteView | None) -> Json | None:
    if quote is None:
        return None
    return {"price": quote.price, "count": quote.count, "is_sure": quote.is_sure, "ahead": quote.ahead}


def _level(level: LevelView) -> Json:
    return {"price": level.price, "count": level.count, "ours": level.ours}


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: beyond the last bucket is told as -1."""
    return -1.0 if value == float("inf") else value
