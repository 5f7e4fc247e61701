"""Signatures made ahead: an RSA signature takes longer than everything else between a price change and its order.

What is signed is a time, a method and a path, not the body: so the header lines of a path can be ready before anybody
knows what will be sent there. Paths that never change (create, batches, the triggers of groups) are always ready; those
with an order's id in them (amends) only while that order may have to move soon. Ready lines are young (`MAX_AGE`); who finds none, or older ones, signs
in line, as if this module did not exist. Nothing here connects, sleeps or starts a thread but in `run`.
"""

import base64
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import attrs
import trio

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.exchange.kalshi.options import Clock
from mm.exchange.kalshi.signing import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer

Work = Callable[[], None]
Runner = Callable[[Work], Awaitable[None]]
"""Runs blocking work: in a thread when live, inline in simulation."""
Call = tuple[str, str]
"""(METHOD, path from the root)."""

MAX_AGE: Final = Micros(4 * SECOND)
"""Older lines are not used. 5 seconds either way were accepted in every observation of the venue's clock window."""
RENEW_AFTER: Final = Micros(3 * SECOND)
LOOK_EVERY_S: Final = 0.5
EXPECTED_FOR: Final = Micros(10 * SECOND)
"""How long a path stays ready after it was last expected."""
MOST_EXPECTED: Final = 64
"""Paths of single orders kept ready at once: one for each of 64 quotes. At 2048 bits about 0.6 % of a core."""

GIVES_WAY_AFTER: Final = Micros(3 * SECOND)

_KEY_ID: Final = re.compile(r"[!-~]+")


@attrs.define(eq=False)
class ReadySignatures:
    """Header lines with a signature in them, from the shelf or made on the spot."""

    signer: Signer
    clock: Clock
    is_ahead: bool = True
    """False: every request is signed in line."""
    _fixed: dict[Call, None] = attrs.field(factory=dict)
    _expected: "OrderedDict[Call, Micros]" = attrs.field(factory=OrderedDict)
    """Call -> when it was last expected; the oldest first."""
    _shelf: dict[Call, tuple[Micros, bytes]] = attrs.field(factory=dict)
    _seen: Micros = Micros(0)
    """The clock when it was last looked at: exact enough for who expects what."""
    _key_line: bytes = attrs.field(init=False, repr=False)
    from_shelf: int = 0
    in_line: int = 0

    def __attrs_post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.signer.key_id):
            raise ConfigError(["KALSHI_API_KEY: not the id of a key (letters, digits and - are allowed)"])
        self._key_line = f"{KEY_HEADER}: {self.signer.key_id}\r\n{TIMESTAMP_HEADER}: ".encode("ascii")

    def lines(self, method: str, path: str, *, fresh: bool = False, shift: int = 0) -> tuple[bytes, bool]:
        """The three header lines of a request, and whether they were made ahead.

        Args:
            fresh: They must not be.
            shift: Microseconds added to our clock, for this request alone; only with `fresh`.
        """
        now = self._seen = self.clock()
        call = method, path
        if not fresh and self.is_ahead:
            ready = self._shelf.get(call)
            if ready is not None and abs(now - ready[0]) < MAX_AGE:
                self.from_shelf += 1
                return ready[1], True
        self.in_line += 1
        made = self._sign(call, Micros(now + shift))
        if shift:
            return made, False
        if self.is_ahead and (call in self._fixed or call in self._expected):
            self._shelf[call] = now, made
        return made, False

    def keep(self, method: str, path: str) -> None:
        """This path is to be ready always."""
        self._fixed[method, path] = None

    def drop(self, method: str, path: str) -> None:
        """Nothing will be sent there any more."""
        call = method, path
        self._fixed.pop(call, None)
        self._expected.pop(call, None)
        self._shelf.pop(call, None)

    def expect(self, method: str, path: str) -> None:
        """Something may be sent there soon. Cheap.

        Where there are too many, one that was not expected for a while gives way; else the new one is left out: if all
        took turns, all would be signed and none be ready.
        """
        call = method, path
        expected = self._expected
        if call not in expected and len(expected) >= MOST_EXPECTED:
            oldest, since = next(iter(expected.items()))
            if self._seen - since < GIVES_WAY_AFTER:
                return
            del expected[oldest]
            self._shelf.pop(oldest, None)
        expected[call] = self._seen
        expected.move_to_end(call)

    def is_ready(self, method: str, path: str) -> bool:
        """Whether lines made ahead are there and young enough."""
        ready = self._shelf.get((method, path)) if self.is_ahead else None
        return ready is not None and abs(self.clock() - ready[0]) < MAX_AGE

    def give_up(self) -> None:
        """The venue does not take signatures that were made ahead: sign in line from now on."""
        self.is_ahead = False
        self._shelf.clear()

    async def run(self, run_blocking: Runner) -> NoReturn:
        """Keep the shelf filled. Never returns. Cancelled: what is on it grows old, and later requests sign in line."""
        while True:
            due = self._due() if self.is_ahead else []
            if due:
                now = self.clock()
                made: list[tuple[Call, bytes]] = []

                def sign(
                    due: list[Call] = due, now: Micros = now, made: list[tuple[Call, bytes]] = made
                ) -> None:
                    made.extend((call, self._sign(call, now)) for call in due)

                await run_blocking(sign)
                for call, lines in made:
                    if self.is_ahead and (call in self._fixed or call in self._expected):
                        self._shelf[call] = now, lines
            await trio.sleep(LOOK_EVERY_S)

    def _due(self) -> list[Call]:
        now = self._seen = self.clock()
        while self._expected:
            call, since = next(iter(self._expected.items()))
            if now - since <= EXPECTED_FOR:
                break
            del self._expected[call]
            self._shelf.pop(call, None)
        calls = [*self._fixed, *self._expected]
        return [c for c in calls if c not in self._shelf or abs(now - self._shelf[c][0]) >= RENEW_AFTER]

    def _sign(self, call: Call, now: Micros) -> bytes:
        method, path = call
        timestamp = str(now // 1000)
        signature = base64.b64encode(self.signer.sign(f"{timestamp}{method}{path}".encode()))
        return b"%s%s\r\n%s: %s\r\n" % (
            self._key_line,
            timestamp.encode("ascii"),
            SIGNATURE_HEADER.encode("ascii"),
            signature,
        )
