"""Where there is no terminal: changes of markets and the totals as lines of the log, every ten seconds."""

from collections.abc import Callable
from typing import Final, NoReturn, final

import attrs
import structlog
import trio

from mm.domain.numbers import format_count, format_money
from mm.domain.order import MarketTicker
from mm.views.snapshot import Snapshot

log = structlog.get_logger(__name__)

PLAIN_S: Final = 10.0
"""Between two status lines."""


@final
@attrs.define(eq=False)
class PlainLines:
    """Logs snapshots. `run` is the task."""

    _shown: dict[MarketTicker, tuple[str, str, int]] = attrs.field(factory=dict, init=False)

    async def run(self, get_snapshot: Callable[[], Snapshot]) -> NoReturn:
        """Log for ever."""
        while True:
            snapshot = get_snapshot()
            self._log_changes(snapshot)
            log.info("status", **status_fields(snapshot))
            await trio.sleep(PLAIN_S)

    def _log_changes(self, snapshot: Snapshot) -> None:
        """One line for each market whose state or position is not what was said last."""
        shown = {m.ticker: (m.state, m.reason, int(m.position)) for m in snapshot.markets}
        for market in snapshot.markets:
            if self._shown.get(market.ticker) != shown[market.ticker]:
                log.info(
                    "market",
                    market=market.ticker,
                    state=market.state,
                    reason=market.reason,
                    position=format_count(market.position),
                    realized=format_money(market.realized),
                )
        self._shown = shown


def status_fields(snapshot: Snapshot) -> dict[str, object]:
    """The totals as fields of one line."""
    fields: dict[str, object] = {
        "venue": venue_text(snapshot),
        "uptime_s": snapshot.uptime_s,
        "markets": len(snapshot.markets),
        "quoted": snapshot.quoted,
        "working_orders": snapshot.working_orders,
        "fills": snapshot.fills,
        "contracts": format_count(snapshot.contracts),
        "net": format_count(snapshot.net_position),
        "gross": format_count(snapshot.gross_position),
        "realized": format_money(snapshot.realized),
        "unrealized": format_money(snapshot.unrealized),
        "fees": format_money(snapshot.fees),
        "feed": "up" if snapshot.is_feed_up else "down",
        "feed_age_s": None if snapshot.feed_age_s is None else round(snapshot.feed_age_s, 1),
    }
    for name, budget in (("writes", snapshot.writes), ("reads", snapshot.reads)):
        if budget is not None:
            fields[f"{name}_left"] = f"{budget.share:.0%}"
    if snapshot.notice:
        fields["notice"] = snapshot.notice
    return fields


def venue_text(snapshot: Snapshot) -> str:
    """Where we trade, in a word or two."""
    return f"{snapshot.environment}{', paper' if snapshot.is_paper else ''}"
