"""The console is calm and whole on a 100x30 terminal, and plain where there is none."""

import io
import re

import attrs
import pytest
import structlog
import trio
from rich.console import Console as RichConsole

from mm.views.console import Console, render
from mm.views.plain import status_fields
from mm.views.snapshot import BudgetView, MarketView, QuoteView, Snapshot

NOW = 1_796_166_601_000_000


def market(n, **changes):
    """Market `n` of a slate, quoted on both sides, flat."""
    row = MarketView(
        ticker=f"KXNHLGAME-26DEC01T{n:02d}BOS-BOS",
        best_bid=4100,
        best_ask=4325,
        bid=QuoteView(price=4100, count=1000),
        ask=QuoteView(price=4325, count=463),
        unrealized=0,
        state="quoting",
    )
    return attrs.evolve(row, **changes)


def snapshot(markets=(), **changes):
    """A healthy bot."""
    whole = Snapshot(
        at=NOW,
        started_at=NOW - 185_000_000,
        environment="sim",
        is_paper=False,
        markets=tuple(markets),
        is_feed_up=True,
        last_frame_at=NOW - 120_000,
        writes=BudgetView(level=180, capacity=200),
        reads=BudgetView(level=20, capacity=200),
        orders_placed=1234,
        fills=57,
        contracts=57_000,
        fees=3_214_500,
        realized=12_345_678,
        unrealized=-1_234_567,
    )
    return attrs.evolve(whole, **changes)


def screen(shot, width=100, height=30):
    """The lines that a terminal of that size shows."""
    console = RichConsole(record=True, file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(render(shot, height))
    return console.export_text().rstrip("\n").split("\n")


def rows(lines):
    """The market lines."""
    return [line for line in lines if "BOS-BOS" in line]


def test_a_slate_of_16_fits_100_by_30_with_everything_on_it():
    """Heading, 16 markets, totals, notice, alerts: no line too many, no column too wide."""
    lines = screen(
        snapshot(
            [market(n) for n in range(16)],
            notice="no new quotes",
            alerts=tuple(f"alert {n}" for n in range(9)),
        )
    )
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100
    assert len(rows(lines)) == 16
    assert "alert 8" in lines[-1]
    assert "alert 5" not in "\n".join(lines)


def test_the_heading_tells_where_how_long_and_how_fresh():
    """Venue, uptime, feed age, budgets, counts."""
    first, second = screen(snapshot([market(1), market(2, bid=None, ask=None)]))[:2]
    assert first == "mm sim · up 3 min 05 s · feed 0.1 s old · writes 90% · reads 10%"
    assert second.startswith(
        "1 of 2 markets quoted · 1234 orders placed, 2 working · 57 fills, fees 3.21 · gross 0"
    )


def test_a_market_line_has_book_quotes_position_and_money():
    """Cents, contracts, dollars, each without idle zeros, each with its sign."""
    (line,) = rows(screen(snapshot([market(1, position=-537, realized=-4_205_000, unrealized=330_000)])))
    assert line.split() == [
        "T01BOS-BOS",
        "41/43.25",
        "10@41",
        "4.63@43.25",
        "-5.37",
        "-4.21",
        "+0.33",
        "quoting",
    ]


def test_a_market_that_is_not_quoted_says_why():
    """State and reason, dashes for what is not there, a question mark for what cannot be valued."""
    held = market(
        1,
        best_bid=None,
        best_ask=None,
        bid=None,
        ask=None,
        state="held",
        reason="book empty",
        unrealized=None,
    )
    (line,) = rows(screen(snapshot([held])))
    assert line.split() == ["T01BOS-BOS", "-/-", "-", "-", "0", "0.00", "?", "held:", "book", "empty"]


def test_more_markets_than_rows_are_counted_and_those_that_matter_are_shown():
    """32 markets: the ones with a position or a reason are among the 16; totals count all."""
    markets = [market(n) for n in range(32)]
    markets[31] = market(31, position=1000)
    markets[30] = market(30, state="held", reason="paused")
    lines = screen(snapshot(markets))
    assert len(rows(lines)) == 16
    assert any("T31BOS" in line and "+10" in line for line in lines)
    assert any("T30BOS" in line and "paused" in line for line in lines)
    (total,) = [line for line in lines if "+16 more" in line]
    assert total.split()[2:] == ["+10", "+12.35", "-1.23"]


def test_rows_keep_their_places_while_numbers_change():
    """Sorted by ticker, whatever the order of the snapshot; the same columns for small and large numbers."""
    small = screen(snapshot([market(n) for n in (3, 1, 2)]))
    large = screen(
        snapshot(
            [market(n, position=-1_234_00, realized=999_990_000, unrealized=-99_990_000) for n in (2, 3, 1)]
        )
    )
    assert [line.split()[0] for line in rows(small)] == ["T01BOS-BOS", "T02BOS-BOS", "T03BOS-BOS"]
    assert [line.split()[0] for line in rows(large)] == ["T01BOS-BOS", "T02BOS-BOS", "T03BOS-BOS"]
    assert {line.index("quoting") for line in rows(small)} == {line.index("quoting") for line in rows(large)}


@pytest.mark.parametrize("size", [(80, 24), (60, 14), (200, 60), (20, 5)])
def test_other_sizes_are_filled_not_exceeded(size):
    """Narrow and low terminals get fewer rows and cut texts."""
    width, height = size
    lines = screen(
        snapshot([market(n) for n in range(40)], alerts=("a" * 500,), notice="n" * 500), width, height
    )
    assert max(map(len, lines)) <= width
    if height >= 14:
        assert len(lines) < height


def test_no_market_at_all_is_a_screen_too():
    """Before the first games: the notice tells when the next look is."""
    lines = screen(snapshot(notice="no games now; next look at 21:00", last_frame_at=None, is_feed_up=False))
    assert "feed DOWN" in lines[0]
    assert "no games now; next look at 21:00" in "\n".join(lines)


def test_markup_in_foreign_text_is_only_text():
    """A title, reason or alert with brackets neither breaks nor colours the screen."""
    odd = market(1, state="held", reason="[red]x[/nope]")
    text = "\n".join(screen(snapshot([odd], alerts=("[bold]oops[/b]",))))
    assert "[red]x[/nope]" in text
    assert "[bold]oops[/b]" in text


class Terminal:
    """Collects what is written; can stop reading."""

    def __init__(self):
        self.text = ""
        self.writes = []
        self.is_stopped = False

    async def write(self, text):
        while self.is_stopped:
            await trio.sleep(1)
        self.text += text
        self.writes.append(trio.current_time())


async def test_the_table_is_drawn_about_once_a_second(autojump_clock):
    """By hand; the cursor is hidden while it is on and back afterwards."""
    terminal = Terminal()
    console = Console(write=terminal.write, is_terminal=True, size=(100, 30))
    async with trio.open_nursery() as nursery:
        await nursery.start(console.run, lambda: snapshot([market(1)]))
        await trio.sleep(10)
        nursery.cancel_scope.cancel(reason="test")

    assert 9 <= len(terminal.writes) <= 12
    assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h") == 1
    assert terminal.text.rstrip("\n").endswith("\x1b[?25h")


async def test_what_stays_on_the_screen_is_how_it_ended(autojump_clock):
    """The last frame is drawn from the last state of things, not from that of a second before."""
    written = []
    states = ["quoting"]

    async def write(text):
        written.append(text)

    console = Console(write=write, is_terminal=True, size=(100, 30))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(console.run, lambda: snapshot([market(1, state=states[-1])]))
        await trio.sleep(1.5)
        states.append("left")
        nursery.cancel_scope.cancel(reason="test")
    assert "left" in written[-1]
    assert "quoting" not in written[-1]


async def test_notes_are_printed_above_the_table(autojump_clock):
    """Whole, once, in order."""
    terminal = Terminal()
    console = Console(write=terminal.write, is_terminal=True, size=(100, 30))
    async with trio.open_nursery() as nursery:
        await nursery.start(console.run, lambda: snapshot([market(1)]))
        await trio.sleep(1)
        console.note("first " + "x" * 300)
        console.note("second [red]")
        await trio.sleep(1)
        nursery.cancel_scope.cancel(reason="test")

    assert terminal.text.count("first " + "x" * 300) == 1
    assert terminal.text.index("first") < terminal.text.index("second [red]")


async def test_a_terminal_that_stops_reading_stops_only_the_console(autojump_clock):
    """Ctrl-S: other tasks go on, and the end does not wait for it longer than a second."""
    terminal = Terminal()
    console = Console(write=terminal.write, is_terminal=True, size=(100, 30))
    async with trio.open_nursery() as nursery:
        await nursery.start(console.run, lambda: snapshot([market(1)]))
        await trio.sleep(1)
        terminal.is_stopped = True
        await trio.sleep(100)
        started = trio.current_time()
        nursery.cancel_scope.cancel(reason="test")
    assert trio.current_time() - started <= 1.01


async def test_without_a_terminal_there_are_lines_of_fields(autojump_clock):
    """A status every ten seconds, a market's line when its state or position changed."""
    terminal = Terminal()
    console = Console(write=terminal.write, is_terminal=False)
    shots = [snapshot([market(1)]), snapshot([market(1)]), snapshot([market(1, position=1000)])]
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(console.run, lambda: shots[min(int(trio.current_time() // 10), 2)])
            await trio.sleep(25)
            nursery.cancel_scope.cancel(reason="test")

    assert [entry["event"] for entry in logs] == ["market", "status", "status", "market", "status"]
    assert logs[3]["position"] == "10.00"
    assert terminal.text == ""


def test_the_status_line_has_exact_numbers():
    """Decimal strings, not rounded ones."""
    fields = status_fields(snapshot([market(1, position=-537)], notice="switched off"))
    assert (fields["net"], fields["gross"]) == ("-5.37", "5.37")
    assert (fields["realized"], fields["unrealized"], fields["fees"]) == (
        "12.345678",
        "-1.234567",
        "3.214500",
    )
    assert (fields["venue"], fields["quoted"], fields["writes_left"]) == ("sim", 1, "90%")
    assert (fields["feed"], fields["feed_age_s"], fields["notice"]) == ("up", 0.1, "switched off")


def test_real_money_is_marked():
    """`prod` with live orders is red, nothing else is."""

    def is_red(**changes):
        console = RichConsole(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
        console.print(render(snapshot(**changes), 30))
        return re.search(r"\x1b\[1;31mprod", console.file.getvalue()) is not None

    assert is_red(environment="prod")
    assert not is_red(environment="prod", is_paper=True)


def test_the_dashboards_address_is_short_on_the_screen_and_whole_behind_it():
    """The heading has room for the address, not for its token; a terminal that opens links gets both."""
    shot = snapshot([market(1)], web_url="http://127.0.0.1:8750/#a-token-of-24-characters")
    heading = screen(shot)[0]
    drawn = RichConsole(file=io.StringIO(), force_terminal=True, width=120, height=30)
    drawn.print(render(shot, 30))

    assert heading.rstrip().endswith("http://127.0.0.1:8750/")
    assert "#a-token-of-24-characters" in drawn.file.getvalue()
