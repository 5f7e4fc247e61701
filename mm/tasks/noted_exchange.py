"""An exchange whose calls are noted beside the decisions: for people who read an incident, replay does not need them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

import attrs
import trio

from mm.domain.numbers import Micros
from mm.engine.decisions.codec import NotPlain, pack
from mm.engine.decisions.journal import DecisionJournal
from mm.exchange.port import Exchange, ExchangeError, Page

NOTED: Final = frozenset(
    {
        "place", "amend", "decrease", "cancel", "cancel_batch", "create_group", "trigger_group", "delete_group",
        "order", "orders_page", "fills_page", "positions", "balance", "user_data_age", "settlements_page",
    }
)  # fmt: skip
"""Calls that are noted, each when it has ended; every other passes through."""


@attrs.define(eq=False)
class Calls:
    """Notes calls: name, arguments, what came of it, milliseconds. Of listings only how long they were."""

    journal: DecisionJournal
    clock: Callable[[], Micros]

    def around(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same call, noted."""

        async def noted(*args: Any, **options: Any) -> Any:
            began = trio.current_time()
            outcome: Any = "cancelled"
            try:
                result = await call(*args, **options)
                outcome = {"answer": _brief(result)}
            except ExchangeError as exc:
                outcome = {
                    "error": type(exc).__name__,
                    "status": exc.status,
                    "code": exc.code,
                    "text": str(exc),
                }
                raise
            finally:
                self._note(name, args, options, outcome, trio.current_time() - began)
            return result

        return noted

    def _note(
        self, name: str, args: Sequence[Any], options: dict[str, Any], outcome: Any, took: float
    ) -> None:
        if self.journal.is_on:
            given = [_brief(value) for value in (*args, *options.values())]
            self.journal.add(("call", 0, self.clock(), name, given, outcome, round(took * 1_000, 1)))


def _brief(value: Any) -> Any:
    """A value for people to read."""
    if isinstance(value, Page):
        return f"{len(value.items)} items"
    if isinstance(value, list | tuple):
        return f"{len(value)} items"
    try:
        return pack(value)
    except NotPlain:
        return type(value).__name__


class _Noted:
    """Passes every attribute through, noted calls wrapped."""

    def __init__(self, inner: Exchange, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in NOTED:
            found = self._calls.around(name, found)
            setattr(self, name, found)  # found here the next time, without a detour
        return found


def noted(exchange: Exchange, journal: DecisionJournal, clock: Callable[[], Micros]) -> Exchange:
    """`exchange` with its calls noted in `journal`."""
    return cast("Exchange", _Noted(exchange, Calls(journal, clock)))
