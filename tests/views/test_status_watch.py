"""`mm status --watch` fits the screen that it is shown on, whatever its size and however much there is to see."""

import attrs
import pytest

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, OrderId, Side
from mm.exchange.port import OrderReport, OrderStatus
from mm.views.status import ExchangeView, Status, watch_text

NOW = Micros(1_796_166_601_000_000)


def order(n: int, side: Side) -> OrderReport:
    return OrderReport(
        order_id=OrderId(f"o{n}{side.value}"),
        client_order_id=ClientOrderId(f"mm-s-{n}"),
        ticker=MarketTicker(f"KXNHLGAME-26DEC01M{n:03d}"),
        side=side,
        price=Price(4_100 if side is Side.BID else 4_300),
        status=OrderStatus.RESTING,
        initial=Count(1_000),
        filled=Count(0),
        remaining=Count(1_000),
    )


def status(markets: int) -> Status:
    return Status(
        at=NOW,
        data_dir="/data",
        pid=7,
        kill_switch="",
        ledger=None,
        ledger_problem="there is none",
        exchange=ExchangeView(
            balance=Money(10_000_000_000),
            is_trading=True,
            orders=tuple(order(n, side) for n in range(markets) for side in Side),
            foreign_orders=2,
            positions={MarketTicker(f"KXNHLGAME-26DEC01M{n:03d}"): Count(n * 100) for n in range(1, markets)},
        ),
    )


@pytest.mark.parametrize("markets", [0, 1, 16, 300])
@pytest.mark.parametrize("columns, lines", [(100, 30), (60, 12), (200, 50)])
def test_it_fits(markets: int, columns: int, lines: int) -> None:
    """No line is longer and there are not more of them; what does not fit is counted."""
    shown = watch_text(status(markets), columns, lines).split("\n")

    assert len(shown) < lines
    assert max(map(len, shown)) <= columns
    assert any(f"{2 * markets} orders of ours rest, 2 of others" in line for line in shown)
    rows = sum("KXNHLGAME" in line for line in shown)
    hidden = next((int(line.split()[1]) for line in shown if line.startswith("and ")), 0)
    assert rows + hidden == markets


def test_a_market_is_one_row_and_the_largest_position_comes_first() -> None:
    """Position, bid and ask side by side, as one wants to compare them."""
    shown = watch_text(status(3), 100, 30).split("\n")
    rows = [line.split() for line in shown if "KXNHLGAME" in line]

    assert rows[0] == ["KXNHLGAME-26DEC01M002", "+2", "10@41", "10@43"]
    assert rows[2] == ["KXNHLGAME-26DEC01M000", "0", "10@41", "10@43"]


def test_a_difference_is_seen_at_once() -> None:
    """Beside the market."""
    one = status(2)
    text = watch_text(attrs.evolve(one, exchange=None, exchange_problem="no answer"), 100, 30)
    assert "no answer" in text
