"""One order, every way the world can answer: a sample of what `make interleavings` plays whole, and planted bugs."""

import os
import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from every_interleaving import all_numbers, play_numbers, play_one, shown
from interleavings import DEPTH, VARIANTS
from mm.domain.fill import Fill
from mm.domain.numbers import Count
from mm.domain.order import Order, OrderEvent, OrderState
from mm.tasks.desk import OrderDesk
from mm.tasks.positions import Positions
from mm.tasks.resolve import Resolver

EVERY = 39_989
"""A prime: the sample runs through variants and places alike."""


def sample() -> tuple[int, range]:
    """Where it begins (MM_INTERLEAVINGS_OFFSET, else by chance), and the numbers of its words."""
    given = os.environ.get("MM_INTERLEAVINGS_OFFSET", "")
    offset = int(given) if given else random.SystemRandom().randrange(EVERY)
    return offset, range(offset, all_numbers(DEPTH), EVERY)


async def test_a_sample_of_all_interleavings_is_never_wrong(autojump_clock: MockClock) -> None:
    """No second order, no fill counted twice or forgotten, nothing stuck, UNKNOWN bounded: each k-th word."""
    offset, numbers = sample()
    print(f"MM_INTERLEAVINGS_OFFSET={offset}: each {EVERY}th of {all_numbers(DEPTH):,} words")
    tally = await play_numbers(numbers, DEPTH)
    print("\n".join(shown(tally, DEPTH)))
    assert tally.wrong == {}
    assert tally.words == len(numbers) >= 39
    assert tally.times_unknown > 10


def forget_the_id(self: Resolver, order: Order) -> Any:
    """Planted: a lost create is taken for one that never came; the quoter places another."""

    async def forget() -> None:
        order.apply(OrderEvent.REFUSED)
        self.desk.gone(order, filled=None)

    return forget()


def give_up_at_once(self: Resolver, order: Order) -> float:
    """Planted: a refused repetition is believed at once, though the lost one may still land."""
    return 1e9


def socket_fills_only(self: Positions, fill: Fill) -> bool:
    """Planted: what only a poll brings is not booked."""
    return fill.client_order_id is not None and _apply(self, fill)


_apply = Positions.apply


def unknown_counts_nothing(self: Order) -> Count:
    """Planted: an order of unknown outcome is taken for nothing at risk."""
    return Count(0) if self.state is OrderState.UNKNOWN else Count(max(self.leaves, self.unbooked))


def believe_the_loss(self: OrderDesk, order: Order) -> None:
    """Planted: an answer that is lost is taken for a no."""
    if order.state is not OrderState.DONE:
        order.apply(OrderEvent.GONE)
        self._retire(order)
        self.on_change(order.ticker)


async def resolve_never(self: Resolver, order: Order) -> None:
    """Planted: the resolver never comes back."""
    await trio.sleep_forever()


MUTANTS: list[tuple[type, str, Any, str, str]] = [
    (Resolver, "_send_again", forget_the_id, "stay-told:LTAE", "two orders rest"),
    (Resolver, "_waited_s", give_up_at_once, "stay-told:LTRTAE", "two orders rest"),
    (Resolver, "resolve", resolve_never, "go-silent:LE", "UNKNOWN for 10"),
    (Positions, "apply", socket_fills_only, "stay-silent:AF", "stuck"),
    (OrderDesk, "_lost", believe_the_loss, "stay-silent:LE", "1000 may be held"),
    (Order, "at_risk", property(unknown_counts_nothing), "stay-silent:LE", "1000 may be held"),
]


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "word", "problem"), MUTANTS, ids=[f"{o.__name__}.{n}" for o, n, *_ in MUTANTS]
)
async def test_a_planted_bug_is_found(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    mutant: Any,
    word: str,
    problem: str,
) -> None:
    """By a word of the tree, which is right without it: these demands can fail."""
    variant, _, letters = word.partition(":")
    (wanted,) = (v for v in VARIANTS if str(v) == variant)
    assert (await play_one(wanted, letters)).wrong == {}
    monkeypatch.setattr(owner, name, mutant)
    assert any(problem in text for text in (await play_one(wanted, letters)).wrong)
