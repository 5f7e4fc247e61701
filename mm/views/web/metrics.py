"""What Prometheus reads, made from a snapshot at each scrape: between scrapes it costs nothing.

Money is in dollars and counts in contracts, as floats: these are for charts and alerts, never for books.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import mm
from mm.domain.histogram import HistogramView
from mm.domain.numbers import CONTRACT, DOLLAR_MONEY, SECOND
from mm.views.snapshot import MARKOUTS_S, BudgetView, Snapshot

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


@attrs.define(eq=False)
class Metrics:
    """Renders snapshots."""

    refused_requests: int = 0
    """Requests that the web view turned away."""
    _shown: "_Shown" = attrs.field(factory=lambda: _Shown())
    _registry: CollectorRegistry = attrs.field(factory=lambda: CollectorRegistry(auto_describe=False))

    def __attrs_post_init__(self) -> None:
        self._registry.register(self._shown)
        ProcessCollector(namespace="mm", registry=self._registry)

    def render(self, snapshot: Snapshot) -> bytes:
        """The text of `/metrics`."""
        self._shown.snapshot, self._shown.refused_requests = snapshot, self.refused_requests
        return generate_latest(self._registry)


@attrs.define(eq=False)
class _Shown(Collector):
    snapshot: Snapshot | None = None
    refused_requests: int = 0

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        if snapshot is None:
            return
        yield from _about(snapshot)
        yield from _trading(snapshot)
        yield from _orders(snapshot)
        yield from _budgets(snapshot)
        yield from _feed(snapshot)
        yield from _markets(snapshot)
        yield _counter(
            "mm_web_requests_refused", "Requests turned away: host, origin, token.", self.refused_requests
        )


def _about(snapshot: Snapshot) -> Iterator[Metric]:
    info = {
        "version": mm.__version__,
        "environment": snapshot.environment,
        "orders": "paper" if snapshot.is_paper else "venue",
    }
    yield InfoMetricFamily("mm", "What runs here.", value=info)
    yield _gauge(
        "mm_start_time_seconds",
        "When this run began; changes() of it counts restarts.",
        snapshot.started_at / SECOND,
    )
    yield _gauge("mm_event_loop_lag_seconds", "The latest wake of the last minute.", snapshot.loop_lag_s)
    yield _gauge("mm_stopping", "1 while the bot is ending.", int(bool(snapshot.stopping)))
    yield _gauge(
        "mm_quoting_off",
        "1 while nothing new is quoted anywhere.",
        int(bool(snapshot.quoting_off)),
    )


def _trading(snapshot: Snapshot) -> Iterator[Metric]:
    yield _counter("mm_fills", "Fills of this run.", snapshot.fills)
    yield _counter("mm_filled_contracts", "Contracts filled in this run.", snapshot.contracts / CONTRACT)
    yield _counter("mm_fees_dollars", "Fees of this run's fills.", snapshot.fees / DOLLAR_MONEY)
    yield _gauge(
        "mm_realized_pnl_dollars", "Realized in this run, net of fees.", snapshot.realized / DOLLAR_MONEY
    )
    yield _gauge(
        "mm_unrealized_pnl_dollars",
        "Open positions at the mark, before fees.",
        snapshot.unrealized / DOLLAR_MONEY,
    )
    exposure = GaugeMetricFamily(
        "mm_exposure_contracts",
        "Contracts over all markets: net, gross, and worst (gross if every working order fills against us).",
        labels=["kind"],
    )
    for kind, count in (
        ("net", snapshot.net_position),
        ("gross", snapshot.gross_position),
        ("worst", snapshot.worst_exposure),
    ):
        exposure.add_metric([kind], count / CONTRACT)
    yield exposure
    markout = GaugeMetricFamily(
        "mm_markout_cents",
        "Mean over this run's contracts: the mark less the price, from our side, so many seconds after the fill.",
        labels=["after"],
    )
    for after, mean in zip((0, *MARKOUTS_S), snapshot.markout_averages, strict=True):
        if mean is not None:
            markout.add_metric([f"{after}s"], mean / 100)
    yield markout
    used = GaugeMetricFamily(
        "mm_limit_used_ratio", "Share of a limit in use; 1 is all of it.", labels=["limit"]
    )
    for limit in snapshot.limits:
        used.add_metric([limit.name], limit.share)
    yield used


def _orders(snapshot: Snapshot) -> Iterator[Metric]:
    yield _counter("mm_orders_placed", "Creates sent.", snapshot.orders_placed)
    yield _counter("mm_orders_cancelled", "Orders taken off by us.", snapshot.orders_cancelled)
    yield _counter("mm_orders_amended", "Amends sent.", snapshot.orders_amended)
    yield _counter("mm_orders_expired", "Quotes that ended by their expiry.", snapshot.orders_expired)
    yield _gauge("mm_orders_working", "Quotes that work now.", snapshot.working_orders)
    yield _gauge("mm_orders_unknown", "Orders whose last write got no answer.", snapshot.orders_unknown)
    yield _counter("mm_writes_refused", "Writes that the venue refused.", snapshot.writes_refused)
    yield _counter("mm_writes_throttled", "Writes answered with 429.", snapshot.writes_throttled)
    yield _gauge("mm_position_drifts", "Markets whose position is not the exchange's.", snapshot.drifts)
    yield _histogram("mm_write_latency_seconds", "From a write's send to its answer.", snapshot.write_latency)


def _budgets(snapshot: Snapshot) -> Iterator[Metric]:
    tokens = GaugeMetricFamily("mm_budget_tokens", "Tokens left of the account's budget.", labels=["budget"])
    capacity = GaugeMetricFamily(
        "mm_budget_capacity_tokens", "What the budget holds when full.", labels=["budget"]
    )
    found: Iterable[tuple[str, BudgetView | None]] = (("write", snapshot.writes), ("read", snapshot.reads))
    for name, budget in found:
        if budget is not None:
            tokens.add_metric([name], budget.level)
            capacity.add_metric([name], budget.capacity)
    yield tokens
    yield capacity
    yield _gauge(
        "mm_writes_waiting", "Writes that wait for tokens.", snapshot.writes.waiting if snapshot.writes else 0
    )


def _feed(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("mm_feed_up", "1 while the feed is connected.", int(snapshot.is_feed_up))
    if snapshot.feed_age_s is not None:
        yield _gauge("mm_feed_age_seconds", "Since the last frame.", snapshot.feed_age_s)
    yield _counter("mm_feed_connects", "Feed connections made, the first included.", snapshot.connects)
    yield _counter("mm_feed_gaps", "Times that the feed had missed something.", snapshot.gaps)
    yield _counter("mm_decisions", "Decisions made on changes of a market.", snapshot.decisions)


def _markets(snapshot: Snapshot) -> Iterator[Metric]:
    by_state: dict[str, int] = {}
    for market in snapshot.markets:
        by_state[market.state] = by_state.get(market.state, 0) + 1
    states = GaugeMetricFamily("mm_markets", "Markets by state.", labels=["state"])
    for state, count in sorted(by_state.items()):
        states.add_metric([state], count)
    yield states
    yield _gauge("mm_markets_quoted", "Markets with at least one working quote.", snapshot.quoted)
    position = GaugeMetricFamily("mm_market_position_contracts", "Signed position.", labels=["market"])
    pnl = GaugeMetricFamily(
        "mm_market_pnl_dollars", "Realized net and unrealized, as far as it can be valued.", labels=["market"]
    )
    for market in snapshot.markets:
        position.add_metric([market.ticker], market.position / CONTRACT)
        pnl.add_metric([market.ticker], (market.realized + (market.unrealized or 0)) / DOLLAR_MONEY)
    yield position
    yield pnl


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=value)


def _histogram(name: str, about: str, view: HistogramView) -> Metric:
    cumulated, buckets = 0, []
    for bound, count in zip((*view.bounds, float("inf")), view.counts, strict=True):
        cumulated += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", cumulated))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=view.total)
