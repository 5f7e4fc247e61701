"""The journal of a market in words: what was sent, and every step from the mark to the price."""

from mm.domain.book import OrderBook
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.journal import KEPT_ENTRIES
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.session.explaining import decision_view
from mm.views.snapshot import DecisionView

TICKER = MarketTicker("KXNHLGAME-26DEC01VGKMIN-VGK")
START = Micros(1_796_166_601 * SECOND)
PARAMETERS = StrategyParameters()


def make_maker(
    state: InventoryState, bid: int = 4_000, ask: int = 6_000, parameters: StrategyParameters = PARAMETERS
) -> MarketMaker:
    """A market with a book, ready to be quoted."""
    maker = MarketMaker(
        market=Market(ticker=TICKER, event_ticker="E", status=MarketStatus.ACTIVE, grid=uniform_grid(CENT)),
        parameters=parameters,
        book=OrderBook(),
        inventory=lambda: state,
    )
    maker.book.snapshot([(Price(bid), Count(1_000))], [(Price(ask), Count(1_000))])
    return maker


def sent(maker: MarketMaker) -> list[DecisionView]:
    """Decide and send both sides; everything that the journal then has, oldest first."""
    decision = maker.decide(START)
    for side in Side:
        if decision.plan(side).commands:
            maker.plan_sent(side, decision.plan(side), START)
    return [decision_view(entry, maker.parameters) for entry in maker.journal]


def test_a_neutral_quote_is_mark_and_half_spread() -> None:
    """The state that began, then each write with the arithmetic of both sides."""
    begun, bid, ask = sent(make_maker(InventoryState()))

    assert (begun.state, begun.actions) == ("quoting", ())
    assert bid.actions == ("place bid 10 @ 49",)
    assert ask.actions == ("place ask 10 @ 51",)
    assert bid.why == "mark 50, book 40/60, position 0; bid = 50 - 1 = 49; ask = 50 + 1 = 51"


def test_a_long_position_explains_its_missing_bid_and_wider_ask() -> None:
    """Outside the neutral zone one side is missing on purpose."""
    state = InventoryState()
    state.apply(Side.BID, Price(5_000), Count(3_000), Money(0), Micros(START - SECOND))
    view = sent(make_maker(state))[-1]

    assert view.actions == ("place ask 10 @ 52",)
    assert "no bid: long 30, only the side that reduces is quoted" in view.why
    assert "ask = 50 + 1.3 (wider for the position), on the tick 52" in view.why


def test_a_quote_kept_off_the_touch_says_so() -> None:
    """A half-spread below a tick does not decide at the touch: the other side's best price does."""
    tight = StrategyParameters(base_spread=Price(25))
    maker = make_maker(InventoryState(), bid=4_000, ask=4_900, parameters=tight)
    maker.mid.feed(Price(4_900))
    view = sent(maker)[1]

    assert view.actions == ("place bid 10 @ 48",)
    assert "bid = 49 - 0.25 = 48.75, kept off the touch: 48" in view.why


def test_why_nothing_is_quoted_is_entered_once() -> None:
    """A market that is held tells the reason when it begins, not at each look."""
    maker = make_maker(InventoryState())
    maker.holds["operator"] = "paused by the operator"
    for n in range(5):
        maker.decide(Micros(START + n))
    entries = [decision_view(entry, PARAMETERS) for entry in maker.journal]

    assert [(e.state, e.why) for e in entries] == [
        ("held", "paused by the operator (mark 50, book 40/60, position 0)")
    ]


def test_a_market_without_a_book_says_what_is_missing() -> None:
    """No mark, no numbers: the reason and the empty book."""
    maker = make_maker(InventoryState())
    maker.book.mark_out_of_sync()
    maker.decide(START)

    assert decision_view(maker.journal[-1], PARAMETERS).why == "waiting for the book (book -/-)"


def test_the_journal_is_bounded() -> None:
    """A market that changes its mind for hours keeps the newest entries."""
    maker = make_maker(InventoryState())
    for n in range(300):
        maker.holds["operator"] = f"reason {n}"
        maker.decide(Micros(START + n))

    assert len(maker.journal) == KEPT_ENTRIES
    assert maker.journal[-1].reason == "reason 299"
