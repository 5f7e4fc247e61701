"""Fills of a run with their markouts: taken on time, from our side, or not at all."""

import attrs

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.session.tape import KEPT_FILLS, Tape

TICKER = MarketTicker("KXNHLGAME-26DEC01VGKMIN-VGK")
START = 1_796_166_601 * SECOND


def fill(n: int, side: Side = Side.BID, price: int = 4_000) -> Fill:
    """Fill `n`, made at the start plus n seconds."""
    return Fill(
        order_id=OrderId("o"),
        trade_id=TradeId(f"t{n}"),
        ticker=TICKER,
        side=side,
        price=Price(price),
        count=Count(1000),
        fee=Money(0),
        liquidity=Liquidity.MAKER,
        ts=Micros(START + n * SECOND),
    )


class Mark:
    """A mark that the test moves."""

    price: Price | None = Price(4_100)

    def __call__(self, ticker: MarketTicker) -> Price | None:
        return self.price


def test_markouts_are_seen_from_our_side() -> None:
    """A rising market is good after a buy and bad after a sale."""
    mark = Mark()
    tape = Tape(mark)
    tape.add(fill(0, Side.BID))
    tape.add(fill(0, Side.ASK))
    mark.price = Price(4_200)
    tape.take_markouts(Micros(START + 10 * SECOND))
    sold, bought = tape.fills

    assert (bought.edge, sold.edge) == (100, -100)
    assert (bought.markouts, sold.markouts) == ((200, None), (-200, None))


def test_each_horizon_is_taken_once_at_its_time() -> None:
    """Not before, and what the market does later changes nothing."""
    mark = Mark()
    tape = Tape(mark)
    tape.add(fill(0))
    for second in range(1, 120):
        mark.price = Price(4_000 + second)
        tape.take_markouts(Micros(START + second * SECOND))

    assert tape.fills[0].markouts == (10, 60)


def test_a_markout_that_was_missed_stays_unknown() -> None:
    """A later mark would be a different number with the same name."""
    mark = Mark()
    tape = Tape(mark)
    tape.add(fill(0))
    mark.price = None
    for second in range(9, 20):
        tape.take_markouts(Micros(START + second * SECOND))
    mark.price = Price(4_500)
    tape.take_markouts(Micros(START + 30 * SECOND))

    assert tape.fills[0].markouts == (None, None)


def test_the_tape_is_bounded_and_newest_first() -> None:
    """A long run keeps the last ones."""
    tape = Tape(Mark())
    for n in range(KEPT_FILLS + 50):
        tape.add(fill(n))

    assert len(tape.fills) == KEPT_FILLS
    assert tape.fills[0].key.endswith(f"t{KEPT_FILLS + 49}")


def test_averages_are_weighted_by_contracts_over_the_whole_run() -> None:
    """Also over fills that the tape has dropped already; what is not known yet is not counted as zero."""
    mark = Mark()
    tape = Tape(mark)
    assert tape.averages == (None, None, None)
    tape.add(attrs.evolve(fill(0), count=Count(100)))
    tape.add(attrs.evolve(fill(0, Side.ASK), count=Count(300)))
    mark.price = Price(4_200)
    tape.take_markouts(Micros(START + 10 * SECOND))

    assert tape.averages == (-50.0, -100.0, None)
