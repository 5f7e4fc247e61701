"""The console: one calm table on a terminal, the lines of `plain` elsewhere. Loaded where there is a terminal: rich is large.

Drawn by hand, once a second, from a frozen snapshot. The text reaches the terminal through an injected
writer, because a terminal may stop reading (Ctrl-S) for as long as it likes, and the event loop must not wait with it.
"""

import io
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, NoReturn, TextIO, final

import attrs
import structlog
import trio
from rich import box
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mm.domain.numbers import Money
from mm.views.logs import Logs
from mm.views.plain import PlainLines, venue_text
from mm.views.snapshot import BudgetView, MarketView, QuoteView, Snapshot
from mm.views.texts import age, cents, clip, contracts, dollars, duration, short_names

log = structlog.get_logger(__name__)

REFRESH_S: Final = 1.0
"""A screen costs about 10 ms to draw: once a second is calm, and one percent of a core."""
MARKET_ROWS: Final = 16
OTHER_ROWS: Final = 12
"""Lines of the screen that are not market rows: heading, table head, totals, alerts."""
STALE_S: Final = 4.0
NOTES: Final = 200
LAST_WRITE_S: Final = 1.0

Write = Callable[[str], Awaitable[None]]


def terminal_writer(stream: TextIO, limiter: trio.CapacityLimiter) -> Write:
    """A writer that works in a thread of its own; cancelled, it leaves a terminal that does not read behind."""

    def write_now(text: str) -> None:
        stream.write(text)
        stream.flush()

    async def write(text: str) -> None:
        await trio.to_thread.run_sync(write_now, text, limiter=limiter, abandon_on_cancel=True)

    return write


@final
@attrs.define(eq=False, kw_only=True)
class Console:
    """Shows snapshots. `run` is the task; `note` takes lines to be printed above the table."""

    write: Write
    """Brings text to the terminal."""
    is_terminal: bool
    logs: Logs | None = None
    """While the table is on, their warnings are printed above it instead of through it."""
    size: tuple[int, int] | None = None
    """Columns and lines, for tests; None: ask the terminal each time."""
    _notes: deque[str] = attrs.field(factory=lambda: deque(maxlen=NOTES), init=False)

    async def run(
        self,
        get_snapshot: Callable[[], Snapshot],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Show for ever. A cancellation leaves the last table on the screen and the cursor visible below it."""
        task_status.started()
        if self.is_terminal:
            await self._run_table(get_snapshot)
        await PlainLines().run(get_snapshot)

    def note(self, line: str) -> None:
        """A line for people, above the table. The oldest go when too many wait; the log file has them all."""
        self._notes.append(line)

    # --- on a terminal ---

    async def _run_table(self, get_snapshot: Callable[[], Snapshot]) -> NoReturn:
        drawn = io.StringIO()
        width, height = self.size or (None, None)
        screen = RichConsole(
            file=drawn, force_terminal=True, width=width, height=height, highlight=False, emoji=False
        )
        live = Live(console=screen, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        with self.logs.divert(self.note) if self.logs is not None else nullcontext():
            try:
                live.start()
                while True:
                    live.update(render(get_snapshot(), screen.height), refresh=True)
                    self._print_notes(screen)
                    await self._send(drawn)
                    await trio.sleep(REFRESH_S)
            finally:
                # What stays on the screen is how it ended, not what stood there a second before.
                live.update(render(get_snapshot(), screen.height))
                live.stop()
                self._print_notes(screen)
                with trio.move_on_after(LAST_WRITE_S, shield=True):
                    await self._send(drawn)

    def _print_notes(self, screen: RichConsole) -> None:
        while self._notes:
            screen.print(Text(self._notes.popleft()), soft_wrap=True)

    async def _send(self, drawn: io.StringIO) -> None:
        text = drawn.getvalue()
        drawn.seek(0)
        drawn.truncate()
        if text:
            await self.write(text)


# --- drawing ---------------------------------------------------------------------------------------------------------


def render(snapshot: Snapshot, height: int) -> RenderableType:
    """The whole screen for a terminal of this many lines."""
    rows = max(1, min(MARKET_ROWS, height - OTHER_ROWS))
    parts: list[RenderableType] = [_heading(snapshot), _second_line(snapshot)]
    if snapshot.notice:
        parts.append(Text(clip(snapshot.notice, 200), style="yellow", no_wrap=True, overflow="ellipsis"))
    parts.append(_table(snapshot, rows))
    parts += [
        Text(clip(" ".join(alert.split()), 200), style="dim", no_wrap=True, overflow="ellipsis")
        for alert in snapshot.alerts[-3:]
    ]
    return Group(*parts)


def _heading(snapshot: Snapshot) -> Text:
    is_money_real = snapshot.environment == "prod" and not snapshot.is_paper
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("mm ", style="bold")
    line.append(f"{venue_text(snapshot)}", style="bold red" if is_money_real else "bold")
    line.append(f" · up {duration(snapshot.uptime_s)}")
    feed_age = snapshot.feed_age_s
    is_fresh = snapshot.is_feed_up and feed_age is not None and feed_age < STALE_S
    feed = f"feed {age(feed_age)} old" if snapshot.is_feed_up else "feed DOWN"
    line.append(f" · {feed}", style="" if is_fresh else "bold red")
    for name, budget in (("writes", snapshot.writes), ("reads", snapshot.reads)):
        if budget is not None:
            line.append(f" · {_budget(name, budget)}", style="yellow" if budget.share < 0.2 else "")
    if snapshot.web_url:
        # The token would not fit: it is behind the text, for terminals that open links, and was printed at the start.
        line.append(" · ")
        line.append(snapshot.web_url.partition("#")[0], style=Style(dim=True, link=snapshot.web_url))
    return line


def _budget(name: str, budget: BudgetView) -> str:
    waiting = f" ({budget.waiting} waiting)" if budget.waiting else ""
    return f"{name} {budget.share:.0%}{waiting}"


def _second_line(snapshot: Snapshot) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(
        f"{snapshot.quoted} of {len(snapshot.markets)} markets quoted"
        f" · {snapshot.orders_placed} orders placed, {snapshot.working_orders} working"
        f" · {snapshot.fills} fills, fees {dollars(snapshot.fees)}"
        f" · gross {contracts(snapshot.gross_position)}"
    )
    return line


def _table(snapshot: Snapshot, rows: int) -> Table:
    hidden = max(len(snapshot.markets) - rows, 0)
    # Widths that ordinary values do not exceed, so that nothing moves sideways when a number grows.
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    table.add_column("market", _more(hidden), no_wrap=True, overflow="ellipsis", min_width=10, max_width=26)
    table.add_column("bid/ask", no_wrap=True, justify="right", min_width=7)
    table.add_column("our bid", no_wrap=True, justify="right", min_width=8)
    table.add_column("our ask", no_wrap=True, justify="right", min_width=8)
    net = contracts(snapshot.net_position, sign=True)
    table.add_column("position", net, no_wrap=True, justify="right", min_width=8)
    table.add_column("realized", _money(snapshot.realized), no_wrap=True, justify="right", min_width=8)
    table.add_column("unreal.", _money(snapshot.unrealized), no_wrap=True, justify="right", min_width=8)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=1, min_width=14)
    names = short_names([m.ticker for m in snapshot.markets])
    for market in shown_markets(snapshot.markets, rows):
        table.add_row(*_cells(market, names[market.ticker]))
    return table


def _more(hidden: int) -> str:
    return f"+{hidden} more" if hidden else "total"


def shown_markets(markets: tuple[MarketView, ...], rows: int) -> list[MarketView]:
    """At most `rows` markets in the order of their tickers, so that no row jumps; those that matter most when it is
    too many: with a position, then with a reason not to be quoted, then quoted."""
    if len(markets) > rows:
        weighed = sorted(
            markets, key=lambda m: (m.position == 0, not m.reason, m.bid is None and m.ask is None, m.ticker)
        )
        markets = tuple(weighed[:rows])
    return sorted(markets, key=lambda m: m.ticker)


def _cells(market: MarketView, name: str) -> list[RenderableType]:
    state = market.state if not market.reason else f"{market.state}: {market.reason}"
    style = "" if not market.reason else "yellow"
    return [
        name,
        f"{cents(market.best_bid)}/{cents(market.best_ask)}",
        _quote(market.bid),
        _quote(market.ask),
        Text(
            contracts(market.position, sign=True) if market.position else "0",
            style="" if market.position else "dim",
        ),
        _money(market.realized),
        _money(market.unrealized) if market.unrealized is not None else Text("?", style="yellow"),
        Text(state, style=style),
    ]


def _quote(quote: QuoteView | None) -> Text:
    if quote is None:
        return Text("-", style="dim")
    return Text(f"{contracts(quote.count)}@{cents(quote.price)}", style="" if quote.is_sure else "yellow")


def _money(money: Money) -> Text:
    text = dollars(money, sign=True)
    return Text(text, style="green" if text.startswith("+") else "red" if text.startswith("-") else "dim")
