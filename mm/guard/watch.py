"""The guardian's life: hear the bot, answer it, and act when it falls silent."""

import json
import math
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from mm.domain.errors import ConfigError
from mm.exchange.kalshi.signing import Signer, load_handed_over
from mm.guard.http import Connection, NoAnswer, Resolver, tls_context
from mm.guard.protocol import BadMessage, Hello, LineSplitter, Message, decode, decode_hello, encode
from mm.guard.sweep import Report, Sweep
from mm.guard.venue import Venue

HELLO_S: Final = 10.0
"""A bot that says nothing for so long after the start is not coming."""
WEBHOOK_S: Final = 1.5
"""For the last word: the guardian has to be gone 4 s after nothing rests."""
_CHUNK: Final = 65_536


class Relieved(Exception):
    """The bot said goodbye."""


class PipeClosed(Exception):
    """The bot is gone."""


def log(text: str) -> None:
    """One line to stderr, which is the guardian's log file. Never a secret. A full disk stops nothing."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    try:
        os.write(2, f"{stamp} {text}\n".encode())
    except OSError:
        return


class BotLine:
    """The two pipes to the bot. Reading waits, writing never does: a frozen bot must not hold us up."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._splitter = LineSplitter()
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN | select.POLLHUP | select.POLLERR)
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def hear(self, timeout_s: float) -> list[tuple[str, Message]]:
        """The messages there are, waiting up to `timeout_s` for some. Raises `PipeClosed`."""
        # Rounded up: with a rest of time too short to count it would turn round without waiting.
        if not self._poll.poll(max(0, math.ceil(timeout_s * 1000))):
            return []
        try:
            data = os.read(self._read_fd, _CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            raise PipeClosed from None
        if not data:
            raise PipeClosed
        heard = []
        for line in self._splitter.feed(data):
            try:
                heard.append(decode(line))
            except BadMessage as exc:
                log(f"ignored: {exc}")
        return heard

    def say(self, kind: str, **content: Any) -> None:
        """Tell the bot; dropped when it does not listen."""
        try:
            os.write(self._write_fd, encode(kind, **content))
        except OSError:
            return


class Watch:
    """One guardian."""

    def __init__(self, bot: BotLine, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bot = bot
        self._monotonic = monotonic
        self._groups: dict[str, int] = {}
        self._is_alone = False
        """The pipe is closed: nobody will call us off."""

    def run(self) -> int:
        """Guard until it is no longer needed. Gives the exit code: 0 all is well, 1 no start, 2 orders may rest."""
        try:
            hello = self._await_hello()
            signer = load_handed_over(hello.key_id, hello.key)
        except Relieved:
            return 0
        except PipeClosed:
            log("the bot was gone before it said whom to guard")
            return 1
        except (BadMessage, ConfigError) as exc:
            log(f"no start: {exc}")
            self._bot.say("refused", reason=str(exc))
            return 1
        resolver = Resolver(hello.rest.host, hello.rest.port)
        resolver.look_up()
        if hello.rest.is_secure:
            tls_context(hello.ca_file)
        log(f"on guard over {hello.prefix} at {hello.rest.host}:{hello.rest.port}, process {os.getpid()}")
        self._bot.say("ready", pid=os.getpid())
        try:
            silent_s, why = self._guard(hello.silence_s)
            return self._act(hello, signer, resolver, silent_s, why)
        except Relieved:
            log("dismissed")
            return 0

    def _await_hello(self) -> Hello:
        deadline = self._monotonic() + HELLO_S
        hello: Hello | None = None
        while hello is None and (left := deadline - self._monotonic()) > 0:
            for kind, message in self._bot.hear(left):
                # What came with it in one piece, a restart's groups, counts as well.
                if kind == "hello":
                    hello = decode_hello(message)
                else:
                    self._note(kind, message)
        if hello is not None:
            return hello
        raise BadMessage("the bot did not say whom to guard")

    def _guard(self, silence_s: float) -> tuple[float, str]:
        """Return when the bot is dead or frozen: (seconds of silence, reason). Raises `Relieved`."""
        heard_at = self._monotonic()
        while True:
            left = heard_at + silence_s - self._monotonic()
            try:
                # Also when the time is up: what lies in the pipe was said before we were held up ourselves.
                heard = self._bot.hear(max(0.0, left))
            except PipeClosed:
                self._is_alone = True
                return self._monotonic() - heard_at, "its pipe was closed"
            if heard:
                heard_at = self._monotonic()
            elif left <= 0:
                return self._monotonic() - heard_at, "it does not beat"
            for kind, message in heard:
                self._note(kind, message)

    def _note(self, kind: str, message: Message) -> None:
        """Take in one message and answer it. Raises `Relieved`."""
        if kind == "beat":
            self._bot.say("beat", n=message.get("n"))
        elif kind == "group":
            self._groups[str(message["id"])] = int(message["exchange_index"])
            self._bot.say("group", id=message["id"])
        elif kind == "forget":
            self._groups.pop(str(message["id"]), None)
        elif kind == "goodbye":
            raise Relieved
        else:
            log(f"ignored: a message {kind[:20]!r}")

    # --- acting ---

    def _act(self, hello: Hello, signer: Signer, resolver: Resolver, silent_s: float, why: str) -> int:
        self._bot.say("acting", silent_s=silent_s)
        log(f"the bot is gone ({why}, silent for {silent_s:.2f} s): {len(self._groups)} groups to trigger")

        def connect() -> Venue:
            connection = Connection(hello.rest, resolver, ca_file=hello.ca_file)
            return Venue(hello, signer, connection)

        report = Sweep(hello, dict(self._groups), connect, self._pause, log).run()
        log(str(report))
        self._bot.say("done", proven=report.is_proven)
        self._last_word(hello, report, why)
        return 0 if report.is_proven else 2

    def _pause(self, seconds: float) -> None:
        """Sleep, but wake for a bot that came back and took over. Raises `Relieved`."""
        until = self._monotonic() + seconds
        while True:
            left = max(0.0, until - self._monotonic())
            if self._is_alone:
                time.sleep(left)
                return
            try:
                heard = self._bot.hear(left)
            except PipeClosed:
                self._is_alone = True
                continue
            if any(kind == "goodbye" for kind, _ in heard):
                raise Relieved
            if not heard and self._monotonic() >= until:
                return

    def _last_word(self, hello: Hello, report: Report, why: str) -> None:
        """Tell people, once: a webhook that does not answer is not worth staying for."""
        hook = hello.webhook
        if hook is None:
            return
        mark = "WARNING" if report.is_proven else "CRITICAL"
        text = f"{mark}: the bot of {hello.prefix[:-1]} is gone ({why}). Its guardian: {report}"
        body = json.dumps({"content": text[:1_900], "allowed_mentions": {"parse": []}}).encode()
        connection = Connection(hook, Resolver(hook.host, hook.port), ca_file=hello.ca_file)
        try:
            status, _ = connection.request("POST", hook.path, [], body, deadline_s=WEBHOOK_S)
        except NoAnswer as exc:
            log(f"alert not sent: {exc}")
        else:
            log(f"alert sent (HTTP {status})" if status < 300 else f"alert refused (HTTP {status})")
        finally:
            connection.close()


def main() -> int:
    """Guard the bot at the other end of stdin and stdout."""
    watch = Watch(BotLine(sys.stdin.fileno(), sys.stdout.fileno()))
    return watch.run()
