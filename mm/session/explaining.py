"""Why this quote: a market's journal in words. Reads the engine's values, decides nothing."""

from fractions import Fraction

from mm.domain.commands import Amend, Cancel, Decrease, Place, QuoteCommand
from mm.domain.numbers import Count, Price
from mm.domain.order import Side
from mm.engine.exits import ExitOrder
from mm.engine.journal import JournalEntry
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import PositionState, position_state, skewed_half_spread
from mm.views.snapshot import DecisionView
from mm.views.texts import cents, contracts


def decision_view(entry: JournalEntry, parameters: StrategyParameters) -> DecisionView:
    """One entry of the journal for people."""
    return DecisionView(
        at=entry.at,
        state=entry.state,
        actions=tuple(_action(command) for command in entry.commands),
        why=_why(entry, parameters),
    )


def _action(command: QuoteCommand | ExitOrder) -> str:
    match command:
        case Place():
            again = " again" if command.is_replacement else ""
            return f"place {command.side.value} {contracts(command.count)} @ {cents(command.price)}{again}"
        case Amend():
            return f"move {command.side.value} to {contracts(command.leaves)} @ {cents(command.price)}"
        case Decrease():
            return f"shrink in place to {contracts(command.leaves)}"
        case Cancel():
            return f"cancel: {command.reason}"
        case ExitOrder():
            verb = "sell" if command.side is Side.ASK else "buy"
            return f"exit: {verb} {contracts(command.count)} @ {cents(command.price)} or better, now"


def _why(entry: JournalEntry, parameters: StrategyParameters) -> str:
    seen = f"book {cents(entry.touch.best_bid)}/{cents(entry.touch.best_ask)}"
    if entry.mark is None:
        return f"{entry.reason or 'no price yet'} ({seen})"
    seen = f"mark {cents(entry.mark)}, {seen}, position {contracts(entry.net, sign=True)}"
    if entry.reason:
        return f"{entry.reason} ({seen})"
    sides = [_side(side, entry, parameters) for side in Side]
    return "; ".join([seen, *sides])


def _side(side: Side, entry: JournalEntry, parameters: StrategyParameters) -> str:
    """One side's price, from the mark to the tick."""
    wanted = entry.wanted.of(side)
    if wanted is None:
        return f"no {side.value}: {_why_none(side, entry.net, parameters)}"
    assert entry.mark is not None
    half = skewed_half_spread(entry.net, parameters)
    sign = "-" if side is Side.BID else "+"
    words = f"{side.value} = {cents(entry.mark)} {sign} {_exact(half)}"
    if half != parameters.base_spread:
        words += " (wider for the position)"
    ideal = entry.mark - half * side.sign
    if wanted.want != ideal:
        words += f" = {_exact(ideal)}, {_moved(entry.extra_ticks)} {_exact(wanted.want)}"
    if wanted.want != wanted.price:
        words += f", on the tick {cents(wanted.price)}"
    else:
        words += f" = {cents(wanted.price)}" if wanted.want == ideal else ""
    if wanted.count < parameters.size_per_fill:
        words += f", size {contracts(wanted.count)}: all that the limits leave"
    return words


def _moved(extra_ticks: int) -> str:
    return (
        f"kept off the touch or {extra_ticks} tick wider (churn brake):"
        if extra_ticks
        else "kept off the touch:"
    )


def _why_none(side: Side, net: Count, parameters: StrategyParameters) -> str:
    state = position_state(net, parameters)
    if state is PositionState.LONG and side is Side.BID:
        return f"long {contracts(net)}, only the side that reduces is quoted"
    if state is PositionState.SHORT and side is Side.ASK:
        return f"short {contracts(Count(-net))}, only the side that reduces is quoted"
    return "no price on the grid, or no room in the limits"


def _exact(price: Fraction | int) -> str:
    """In cents, to 1/100 cent."""
    return cents(Price(round(price)))
