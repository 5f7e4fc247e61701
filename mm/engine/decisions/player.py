"""The player: feeds a journal's entries to market makers again and compares what they answer, field by field.

The makers are the live ones, with the live book, so that what is played is the code that trades. A market is played from
its first checkpoint on. At the later ones its state is compared too. After the first difference of a market the rest of it is
not played: what follows from a difference are more of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.errors import BookOutOfSync, MMError
from mm.domain.inventory import InventoryState
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker, Order, Side
from mm.engine.decisions.codec import NotPlain, Unpacker, pack
from mm.engine.decisions.journal import CONTEXT_FIELDS, LOOSE, ORDER_FIELDS, state_fields
from mm.engine.decisions.lines import plain_outcome
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker

_INPUTS: Final = LOOSE | {"market", "holds", "exit_holds"}
"""Fields of the state that others set: not compared, taken over."""
ABSENT: Final = "(nothing)"


class BadEntry(MMError):
    """A line that is no entry of a journal, or not one that can follow what came before."""


@attrs.frozen(kw_only=True)
class Difference:
    """The first thing in which a replayed market is not the recorded one."""

    ticker: MarketTicker
    at: Micros
    field: str
    """Path of the field, from `decision`, `mark`, `wanted`, `flattening`, `state` or `raised`."""
    recorded: Any
    replayed: Any
    same_before: int
    """How many decisions of this market were the same before it."""


class NotAsked(Exception):
    """The replayed code asks for what the recorded code did not ask: there is no answer to give."""


@attrs.define(eq=False)
class _Market:
    """One market under replay."""

    maker: MarketMaker
    inventory: InventoryState
    orders: list[Order]
    unpack: Unpacker
    answers: dict[str, Any] = attrs.field(factory=dict)
    """To the present decision's questions, by name and arguments."""
    unanswered: str = ""
    """The first question that was not asked then."""
    last: dict[str, Any] | None = None
    """The recorded outcome of the last decision, as plain data."""
    found: tuple[Any, ...] | None = None
    """What was decided now, the same as `last`."""
    now: Micros = Micros(0)
    same: int = 0
    is_over: bool = False
    """It has differed."""

    def question(self, name: str) -> Callable[..., Any]:
        """The function that gives the recorded answers.

        To a question that was not asked then, the answer to the one most like it is given, so that the difference can
        be told as one of the decision. Raises `NotAsked` when nothing is like it.
        """

        def ask(*args: Any) -> Any:
            key = _key(name, map(pack, args))
            if key in self.answers:
                return self.unpack(self.answers[key])
            self.unanswered = self.unanswered or key
            for known in range(len(args), -1, -1):
                start = _key(name, map(pack, args[:known]))[:-1]
                for other, answer in self.answers.items():
                    if other.startswith(start):
                        return self.unpack(answer)
            raise NotAsked(key)

        return ask


@attrs.define(eq=False)
class Player:
    """Plays entries in order. `differences` holds the first one of each market."""

    change: Callable[[StrategyParameters], StrategyParameters] = lambda parameters: parameters
    """Applied to every market's parameters: what would have been decided with others."""
    only: MarketTicker | None = None
    unpack: Unpacker = attrs.field(factory=Unpacker)
    decisions: int = 0
    commands: int = 0
    """Commands and exits in the decisions played."""
    checkpoints: int = 0
    """Later checkpoints at which a state was compared."""
    frames: int = 0
    """Raw frames in the journal; not played."""
    calls: int = 0
    """Calls to the exchange in it; not played."""
    lost: int = 0
    """Entries that the journal says are missing."""
    unplayed: int = 0
    """Entries of markets that had no checkpoint yet, or had differed."""
    first_at: Micros | None = None
    last_at: Micros = Micros(0)
    tickers: set[MarketTicker] = attrs.field(factory=set)
    differences: list[Difference] = attrs.field(factory=list)
    _markets: dict[int, _Market] = attrs.field(factory=dict)

    def play(self, entry: Sequence[Any]) -> None:
        """One entry. Raises `BadEntry`."""
        try:
            kind, number, *rest = entry
            if kind == "frames":
                self.frames += len(rest[2])
            elif kind == "call":
                self.calls += 1
            elif kind == "gap":
                self.lost += int(rest[0])
                self._markets.clear()
            elif kind == "checkpoint":
                self._checkpoint(int(number), rest[0], rest[1])
            else:
                act = _ACTS[kind]
                market = self._markets.get(int(number))
                if market is None or market.is_over:
                    self.unplayed += 1
                    return
                try:
                    act(self, market, *rest)
                except NotAsked as exc:
                    self._differs(market, "asked", ABSENT, str(exc))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as exc:
            raise BadEntry(f"not an entry of a journal ({type(exc).__name__}: {exc})") from exc
        except NotPlain as exc:
            raise BadEntry(str(exc)) from None

    def restart(self) -> None:
        """What follows was written by another life: markets begin anew."""
        self._markets.clear()

    # --- entries ---

    def _checkpoint(self, number: int, changed: list[str], data: dict[str, Any]) -> None:
        known = self._markets.get(number)
        if known is not None and not known.is_over and not changed:
            self.checkpoints += 1
            self._compare_state(known, data["state"])
        if known is not None and known.is_over:
            return
        if self.only is not None and data["ticker"] != self.only:
            return
        market = self._restore(data)
        if known is not None:
            market.same, market.now = known.same, known.now
        self._markets[number] = market
        self.tickers.add(market.maker.market.ticker)

    def _restore(self, data: dict[str, Any]) -> _Market:
        state = {name: self.unpack(value) for name, value in data["state"].items()}
        book = data["book"]
        maker = MarketMaker(
            market=state["market"],
            parameters=state["parameters"],
            book=OrderBook(
                bids={Price(p): Count(c) for p, c in book["bids"]},
                asks={Price(p): Count(c) for p, c in book["asks"]},
                best_bid=book["best_bid"],
                best_ask=book["best_ask"],
                is_synced=book["is_synced"],
            ),
        )
        for name, value in state.items():
            setattr(maker, name, value)
        changed = self.change(maker.parameters)
        if changed != maker.parameters:
            _use_parameters(maker, changed)
        market = _Market(
            maker,
            self.unpack(data["inventory"]),
            [self._order(values) for values in data["orders"]],
            self.unpack,
        )
        maker.inventory = lambda: market.inventory
        maker.orders = lambda: market.orders

        for name in state_fields():
            if name not in state:
                setattr(maker, name, market.question(name))
        for name in CONTEXT_FIELDS:
            if name not in data["context"]:
                setattr(maker.context, name, market.question(f"context.{name}"))
        return market

    def _book(self, market: _Market, changes: list[list[Any]]) -> None:
        book = market.maker.book
        for first, *rest in changes:
            try:
                if first == "snapshot":
                    book.snapshot([(p, c) for p, c in rest[0]], [(p, c) for p, c in rest[1]])
                elif first == "lost":
                    book.mark_out_of_sync()
                else:
                    book.apply_delta(Side(first), rest[0], rest[1])
            except BookOutOfSync:
                continue  # as it did when it was recorded; what came of it is in the next decision

    def _orders(self, market: _Market, orders: list[list[Any]]) -> None:
        market.orders = [self._order(values) for values in orders]

    def _inventory(self, market: _Market, data: Any) -> None:
        market.inventory = self.unpack(data)

    def _set(self, market: _Market, data: dict[str, Any]) -> None:
        for name, value in data.items():
            if name not in state_fields():
                raise BadEntry(f"a market maker has no field {name!r}: written by another version")
            setattr(market.maker, name, self.unpack(value))

    def _context(self, market: _Market, data: dict[str, Any]) -> None:
        for name, value in data.items():
            if name not in CONTEXT_FIELDS:
                raise BadEntry(f"there is no {name!r} in a context: written by another version")
            setattr(market.maker.context, name, self.unpack(value))

    def _holds(self, market: _Market, holds: list[Any], exit_holds: list[Any]) -> None:
        market.maker.holds = dict(holds)
        market.maker.exit_holds = dict(exit_holds)

    def _trade(self, market: _Market, trade: Any) -> None:
        market.maker.on_trade(self.unpack(trade))

    def _fill(self, market: _Market, asked: Any) -> None:
        self._answer(market, asked)
        market.maker.on_fill()

    def _flatten(self, market: _Market, asked: Any, reason: Any) -> None:
        self._answer(market, asked)
        market.maker.flatten(self.unpack(reason))

    def _exit_sent(self, market: _Market, asked: Any, now: Micros) -> None:
        self._answer(market, asked)
        market.maker.exit_sent(now)

    def _exit_refused(self, market: _Market, asked: Any) -> None:
        self._answer(market, asked)
        market.maker.exit_refused()

    def _sent(self, market: _Market, asked: Any, now: Micros, side: Any, plan: Any) -> None:
        self._answer(market, asked)
        maker, which = market.maker, self.unpack(side)
        if plan is not None:
            maker.plan_sent(which, self.unpack(plan), now)
        elif maker.last is not None:
            maker.plan_sent(which, maker.last.plan(which), now)

    def _decide(self, market: _Market, now: Micros, asked: Any, outcome: Any) -> None:
        self._saw(market, now)
        self._answer(market, asked)
        if outcome is not None:
            market.last = outcome
        maker = market.maker
        try:
            decision = maker.decide(now)
        except Exception as exc:  # noqa: BLE001 - whatever the code raises now is the difference to be told
            self._differs(market, "raised", ABSENT, _told(exc))
            return
        maker.triggers.clear()
        answer = (decision, maker.last_mark, maker.last_wanted, maker.flattening)
        self._count(decision)
        if outcome is not None or answer != market.found:
            found = plain_outcome(answer)
            if found != market.last:
                path, a, b = next(differing(market.last, found))
                self._differs(market, path, a, b)
                return
            market.found = answer
        if market.unanswered:
            self._differs(market, "asked", ABSENT, market.unanswered)
            return
        market.same += 1

    def _raised(self, market: _Market, now: Micros, asked: Any, kind: str, text: str) -> None:
        self._saw(market, now)
        self._answer(market, asked)
        try:
            market.maker.decide(now)
        except Exception as exc:  # noqa: BLE001 - compared with what was raised then
            self.decisions += 1
            if _told(exc) != f"{kind}: {text}":
                self._differs(market, "raised", f"{kind}: {text}", _told(exc))
            return
        self._differs(market, "raised", f"{kind}: {text}", ABSENT)

    # --- inside ---

    def _order(self, values: Sequence[Any]) -> Order:
        return Order(**dict(zip(ORDER_FIELDS, map(self.unpack, values), strict=True)))

    def _saw(self, market: _Market, now: Micros) -> None:
        market.now = now
        self.first_at = now if self.first_at is None else self.first_at
        self.last_at = max(self.last_at, now, key=int)

    def _answer(self, market: _Market, asked: Any) -> None:
        market.unanswered = ""
        if asked is not None:
            market.answers = {_key(name, args): answer for name, answer, *args in asked}

    def _count(self, decision: Any) -> None:
        self.decisions += 1
        self.commands += len(decision.bid.commands) + len(decision.ask.commands) + (decision.exit is not None)

    def _compare_state(self, market: _Market, recorded: dict[str, Any]) -> None:
        for name in state_fields():
            if name in _INPUTS or name not in recorded:
                continue
            if name == "parameters":
                continue  # an input; changed on purpose, perhaps
            then, found = _own(recorded[name]), _own(pack(getattr(market.maker, name)))
            if found != then:
                path, a, b = next(differing(then, found))
                self._differs(market, f"state.{name}{path and '.' + path}", a, b)
                return

    def _differs(self, market: _Market, path: str, recorded: Any, replayed: Any) -> None:
        market.is_over = True
        self.differences.append(
            Difference(
                ticker=market.maker.market.ticker,
                at=market.now,
                field=path,
                recorded=recorded,
                replayed=replayed,
                same_before=market.same,
            )
        )


_ACTS: Final[dict[str, Callable[..., None]]] = {
    "book": Player._book,
    "orders": Player._orders,
    "inventory": Player._inventory,
    "set": Player._set,
    "context": Player._context,
    "holds": Player._holds,
    "trade": Player._trade,
    "fill": Player._fill,
    "flatten": Player._flatten,
    "exit_sent": Player._exit_sent,
    "exit_refused": Player._exit_refused,
    "sent": Player._sent,
    "decide": Player._decide,
    "raised": Player._raised,
}


def _own(data: Any) -> Any:
    """A part of the state without the parameters that it shares with the market."""
    return {k: v for k, v in data.items() if k != "parameters"} if isinstance(data, dict) else data


def _key(name: str, args: Iterable[Any]) -> str:
    shown = (arg["$e"][1] if isinstance(arg, dict) and "$e" in arg else str(arg) for arg in args)
    return f"{name}({', '.join(shown)})"


def _told(exc: Exception) -> str:
    if isinstance(exc, NotAsked):
        return f"asks {exc}, which was not asked then"
    return f"{type(exc).__name__}: {exc}"


def _use_parameters(maker: MarketMaker, parameters: StrategyParameters) -> None:
    """Let the maker, and whatever of it knows the parameters, go by others."""
    before = maker.parameters
    maker.parameters = parameters
    for field in attrs.fields(type(maker)):
        part = getattr(maker, field.name)
        if getattr(part, "parameters", None) == before and field.name not in ("book", "market"):
            part.parameters = parameters
    maker.mid.alpha = parameters.mid_ema_alpha


def differing(recorded: Any, replayed: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two pieces of plain data differ: path, recorded value, replayed value; the first in the order of fields."""
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        names = [*recorded, *(name for name in replayed if name not in recorded)]
        for name in names:
            below = path if name.startswith("$") else f"{path}.{name}" if path else name
            a, b = recorded.get(name, ABSENT), replayed.get(name, ABSENT)
            if a != b:
                yield from differing(a, b, below)
    elif isinstance(recorded, list) and isinstance(replayed, list) and len(recorded) == len(replayed):
        for place, (a, b) in enumerate(zip(recorded, replayed, strict=True)):
            if a != b:
                yield from differing(a, b, f"{path}[{place}]")
    elif recorded != replayed:
        yield path, recorded, replayed
