"""Our order ids: `<BOT_NAME>-<session>-<counter>`, single use for ever."""

import itertools
from collections.abc import Callable
from typing import Final

import attrs

from mm.domain.order import ClientOrderId

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
SESSION_LENGTH: Final = 10
"""Letters of the random part: 36**10 sessions."""
_FLATTEN: Final = "flat"


def new_session(random_below: Callable[[int], int]) -> str:
    """A fresh session token. `random_below(n)` draws from 0..n-1; live it is `secrets.randbelow`."""
    return "".join(_ALPHABET[random_below(len(_ALPHABET))] for _ in range(SESSION_LENGTH))


def new_flatten_session(random_below: Callable[[int], int]) -> str:
    """A session token of `mm flatten`, told by its length and beginning: all of its orders close positions."""
    return _FLATTEN + new_session(random_below)


def closes_positions(client_order_id: ClientOrderId) -> bool:
    """Whether an order of ours was sent by `mm flatten`."""
    _, _, session = client_order_id.rpartition("-")[0].rpartition("-")
    return session.startswith(_FLATTEN) and len(session) == len(_FLATTEN) + SESSION_LENGTH


@attrs.define(eq=False)
class OrderIds:
    """The id source of one session."""

    bot_name: str
    session: str
    _counter: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    @property
    def bot_prefix(self) -> str:
        """What every order of this bot starts with, in any session."""
        return f"{self.bot_name}-"

    @property
    def session_prefix(self) -> str:
        """What every order of this session starts with."""
        return f"{self.bot_name}-{self.session}-"

    def next(self) -> ClientOrderId:
        """A new id."""
        return ClientOrderId(f"{self.session_prefix}{next(self._counter)}")
