"""Ways to people besides Discord: what they are sent, which severity goes where, and when a critical one is settled."""

import json
import random
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import httpx
import pytest
import trio

from mm.session.surroundings import ThreadRunner
from mm.tasks.alerts import Alert, AlertKind, AlertOptions, Severity, open_alerts
from mm.tasks.mail import MailSender, MailServer
from mm.tasks.senders import Message, NotSent, ReceiverGone, Route
from mm.tasks.webhooks import generic, slack, telegram

AT = 1_796_166_601_000_000
TOKEN = "123456789:AAH-s3cr3t-t0ken-0123456789"
ALERT = Alert(
    alert_id="s1-1", kind=AlertKind.RISK, severity=Severity.CRITICAL, text="<!channel> flat & done", at=AT
)
MESSAGE = Message(text="[CRITICAL] <!channel> flat & done", alerts=(ALERT,))


def client(seen: list[httpx.Request], answer: httpx.Response | None = None) -> httpx.AsyncClient:
    """A client whose server remembers what it was asked."""

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer or httpx.Response(200, json={"ok": True})

    return httpx.AsyncClient(transport=httpx.MockTransport(server))


async def test_slack_shows_what_would_be_a_mention_as_text() -> None:
    """Nobody is called by a market's title."""
    seen: list[httpx.Request] = []
    await slack(client(seen), "https://hooks.slack.test/services/T/B/x").send(MESSAGE)

    assert json.loads(seen[0].content)["text"] == "[CRITICAL] &lt;!channel&gt; flat &amp; done"


async def test_telegram_gets_plain_text_and_its_wait_is_kept() -> None:
    """The chat, no parse mode; a 429 says in its body how long."""
    seen: list[httpx.Request] = []
    await telegram(client(seen), TOKEN, "-100123").send(MESSAGE)
    body = json.loads(seen[0].content)
    assert (body["chat_id"], body["text"]) == ("-100123", MESSAGE.text)
    assert "parse_mode" not in body
    assert str(seen[0].url) == f"https://api.telegram.org/bot{TOKEN}/sendMessage"

    full = httpx.Response(429, json={"ok": False, "parameters": {"retry_after": 7}})
    with pytest.raises(NotSent) as caught:
        await telegram(client(seen, full), TOKEN, "1").send(MESSAGE)
    assert caught.value.retry_after == 7.0
    gone = httpx.Response(401, json={"ok": False, "description": f"bad token {TOKEN}"})
    with pytest.raises(ReceiverGone) as refused:
        await telegram(client(seen, gone), TOKEN, "1").send(MESSAGE)
    assert "TELEGRAM_BOT_TOKEN" in str(refused.value)
    assert TOKEN not in str(refused.value)


async def test_a_webhook_gets_text_and_the_alerts_one_by_one() -> None:
    """For programs: id, kind, severity, time."""
    seen: list[httpx.Request] = []
    await generic(client(seen), "https://example.test/hook", "mm").send(MESSAGE)

    assert json.loads(seen[0].content) == {
        "text": MESSAGE.text,
        "bot": "mm",
        "severity": "critical",
        "alerts": [
            {
                "id": "s1-1",
                "kind": "risk",
                "severity": "critical",
                "at": "2026-12-01T23:10:01.000000Z",
                "text": ALERT.text,
            }
        ],
    }


# --- routing ---------------------------------------------------------------------------------------------------------


@attrs.define
class Way:
    """A way to people that can be broken."""

    error: Exception | None = None
    got: list[str] = attrs.field(factory=list)

    async def send(self, message: Message) -> float:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.got.append(message.text)
        return 0.0


@attrs.define
class Book:
    """A ledger's alert part."""

    left: dict[str, object] = attrs.field(factory=dict)

    def record_alert(self, row) -> None:
        self.left[row.alert_id] = row

    def record_alert_delivered(self, alert_id: str) -> None:
        del self.left[alert_id]

    async def undelivered_alerts(self):
        return list(self.left.values())


def alerts_to(book: Book, session: str = "s1", **ways: tuple[Way, Severity]):
    """Alerts over these ways."""
    return open_alerts(
        routes=[Route(name=name, sender=way, floor=floor) for name, (way, floor) in ways.items()],
        clock=lambda: AT + round(trio.current_time() * 1e6),
        jitter=random.Random(1).random,
        session=session,
        book=book,
        options=AlertOptions(),
    )


async def test_each_way_is_told_from_its_severity_on(autojump_clock) -> None:
    """Chat gets everything, the pager only what is critical."""
    chat, pager = Way(), Way()
    async with (
        alerts_to(Book(), chat=(chat, Severity.INFO), pager=(pager, Severity.CRITICAL)) as alerts,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(alerts.run)
        alerts.error("a", "a warning")
        alerts.error("b", "on fire", severity=Severity.CRITICAL)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()

    assert "a warning" in "\n".join(chat.got)
    assert pager.got == ["[CRITICAL] on fire"]


async def test_a_way_that_is_down_holds_up_no_other_and_is_owed(autojump_clock) -> None:
    """The other has it at once; the ledger keeps it for the one that can still come back, through a crash too."""
    book, up, down = Book(), Way(), Way(NotSent("down"))
    async with (
        alerts_to(book, up=(up, Severity.INFO), down=(down, Severity.INFO)) as alerts,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(alerts.run)
        alerts.error("b", "on fire", severity=Severity.CRITICAL)
        await trio.sleep(0.1)
        assert up.got == ["[CRITICAL] on fire"]
        assert list(book.left) == ["s1-1"]
        nursery.cancel_scope.cancel()
    assert list(book.left) == ["s1-1"]

    down.error = None
    async with alerts_to(book, "s2", up=(up, Severity.INFO), down=(down, Severity.INFO)):
        pass
    assert "on fire" in down.got[0]
    assert book.left == {}


async def test_a_way_that_is_gone_is_not_owed_for_ever(autojump_clock) -> None:
    """Told on one, and the other's address does not exist: settled. With none that told it, it stays."""
    book, up, gone = Book(), Way(), Way(ReceiverGone("404"))
    async with (
        alerts_to(book, gone=(gone, Severity.INFO), up=(up, Severity.INFO)) as alerts,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(alerts.run)
        alerts.error("first", "first", severity=Severity.CRITICAL)
        await trio.sleep(1)
        alerts.error("second", "second", severity=Severity.CRITICAL)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert book.left == {}

    async with alerts_to(book, "s2", gone=(gone, Severity.INFO)) as alerts:
        alerts.error("third", "third", severity=Severity.CRITICAL)
    assert len(book.left) == 1


async def test_last_words_go_by_every_way_at_once(autojump_clock) -> None:
    """One that is silent does not keep the other from telling."""
    book, up, down = Book(), Way(), Way(NotSent("down"))
    async with alerts_to(book, down=(down, Severity.INFO), up=(up, Severity.CRITICAL)) as alerts:
        assert await alerts.send_now(AlertKind.STOP, "orders may rest")
        assert up.got == ["[CRITICAL] orders may rest"]
    assert len(book.left) == 1


# --- e-mail ----------------------------------------------------------------------------------------------------------


@attrs.define
class Post:
    """A mail server on loopback: what it was handed, and how it behaves."""

    port: int = 0
    mails: list[str] = attrs.field(factory=list)
    refuses: str = ""
    is_silent: bool = False


@contextmanager
def post_office() -> Iterator[Post]:
    post = Post()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            if post.is_silent:
                self.rfile.read()  # until the client gives up
                return
            self.say("220 post.test")
            while line := self.rfile.readline().decode().strip():
                verb = line.split(":")[0].split(" ")[0].upper()
                if post.refuses and line.upper().startswith(post.refuses):
                    self.say("550 no")
                elif verb == "DATA":
                    self.say("354 go on")
                    text = b""
                    while not text.endswith(b"\r\n.\r\n"):
                        text += self.rfile.readline()
                    post.mails.append(text.decode())
                    self.say("250 taken")
                else:
                    self.say("221 bye" if verb == "QUIT" else "250 fine")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        post.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield post
        finally:
            server.shutdown()
            thread.join(5)


def mail(port: int) -> MailSender:
    """A sender to that server."""
    return MailSender(
        server=MailServer(host="127.0.0.1", port=port, is_loopback=True),
        sender="bot@example.org",
        to=("a@example.org", "b@example.org"),
        bot="mm",
        clock=lambda: AT,
        runner=ThreadRunner(trio.CapacityLimiter(1), leaves_behind=True),
    )


@pytest.mark.real
async def test_a_mail_is_handed_in() -> None:
    """To everybody, with a subject that says it, dated by our clock; a line break in a text makes no header."""
    with post_office() as post:
        await mail(post.port).send(Message(text="[CRITICAL] orders may rest\nBcc: x@y.z\nöäü"))

    head, _, body = post.mails[0].partition("\r\n\r\n")
    assert "Subject: mm: [CRITICAL] orders may rest" in head
    assert "To: a@example.org, b@example.org" in head
    assert "Date: Tue, 01 Dec 2026 23:10:01 -0000" in head
    assert "Bcc" not in head
    assert "orders may rest" in body


@pytest.mark.real
async def test_what_a_mail_server_answers_is_told_apart() -> None:
    """An address that it refuses needs a person; a server that is not there is tried again."""
    with post_office() as post:
        post.refuses = "RCPT"
        with pytest.raises(ReceiverGone):
            await mail(post.port).send(MESSAGE)
        port = post.port
    with pytest.raises(NotSent) as caught:
        await mail(port).send(MESSAGE)
    assert type(caught.value) is NotSent


@pytest.mark.real
async def test_a_silent_mail_server_is_not_waited_for() -> None:
    """Cancelled, the call returns at once: the end of a session is not held up."""
    with post_office() as post:
        post.is_silent = True
        started = trio.current_time()
        with trio.move_on_after(0.1):
            await mail(post.port).send(MESSAGE)
        assert trio.current_time() - started < 0.8
