"""The webhook client: what Discord's answers mean, and that its address stays a secret."""

import json
import threading
import time
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs
import httpx
import pytest
import structlog
import trio

from mm.tasks.alerts import AlertKind, AlertOptions, Severity, open_alerts
from mm.tasks.senders import Message, MessageRefused, NotSent, ReceiverGone, Route
from mm.tasks.webhooks import discord

TOKEN = "s3cr3t-t0ken-0123456789abcdef"
URL = f"https://discord.test/api/webhooks/112233445566778899/{TOKEN}"


def webhook(handler):
    """A webhook whose server is a function."""
    return discord(httpx.AsyncClient(transport=httpx.MockTransport(handler)), URL)


async def test_a_message_is_json_that_mentions_nobody():
    """Content cut to Discord's limit, no pings."""
    seen = []

    def server(request):
        seen.append(request)
        return httpx.Response(204)

    assert await webhook(server).send(Message(text="@everyone " + "x" * 3000)) == 0.0
    body = json.loads(seen[0].content)
    assert len(body["content"]) == 2000
    assert body["allowed_mentions"] == {"parse": []}
    assert (seen[0].method, str(seen[0].url)) == ("POST", URL)


@pytest.mark.parametrize(
    "response, wait",
    [
        (
            httpx.Response(429, json={"retry_after": 0.65, "global": False}, headers={"Retry-After": "1"}),
            0.65,
        ),
        (httpx.Response(429, headers={"Retry-After": "3"}), 3.0),
        (httpx.Response(429, text="<html>", headers={"X-RateLimit-Reset-After": "2.5"}), 2.5),
        (httpx.Response(429, json=["no object"]), None),
        (httpx.Response(429, json={"retry_after": "soon"}, headers={"Retry-After": "later"}), None),
        (httpx.Response(429, json={"retry_after": -5}), 0.0),
        (httpx.Response(429, text='{"retry_after": NaN}'), 0.0),
        (httpx.Response(429, json={"retry_after": 10**9}), 600.0),
        (httpx.Response(500), None),
        (httpx.Response(503, headers={"Retry-After": "4"}), 4.0),
        (httpx.Response(408), None),
        (httpx.Response(302, headers={"Location": "https://elsewhere.test"}), None),
    ],
)
async def test_what_to_try_again_and_when(response, wait):
    """The wait that the server asks for, bounded; None where it says nothing sensible."""
    with pytest.raises(NotSent) as caught:
        await webhook(lambda _: response).send(Message(text="x"))
    assert type(caught.value) is NotSent
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    "status, error", [(400, MessageRefused), (413, MessageRefused), (401, ReceiverGone), (404, ReceiverGone)]
)
async def test_what_not_to_try_again(status, error):
    """A message nobody will take, and a webhook that is not there."""
    with pytest.raises(error):
        await webhook(lambda _: httpx.Response(status)).send(Message(text="x"))


async def test_a_used_up_allowance_is_told():
    """The seconds until the next message may be sent."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.25"}
    assert await webhook(lambda _: httpx.Response(204, headers=headers)).send(Message(text="x")) == 1.25
    headers["X-RateLimit-Remaining"] = "3"
    assert await webhook(lambda _: httpx.Response(204, headers=headers)).send(Message(text="x")) == 0.0


def echo_everything(request):
    """A server that repeats the address in its answer."""
    return httpx.Response(400, text=f"cannot post to {request.url} ({TOKEN})")


def fail_loudly(request):
    """A transport whose error names the address."""
    raise httpx.ConnectError(f"cannot connect to {request.url}", request=request)


@pytest.mark.parametrize("server", [echo_everything, fail_loudly, lambda _: httpx.Response(404)])
async def test_the_address_is_in_no_error_no_log_and_no_repr(server):
    """Neither in what is raised, with its whole chain, nor in what an alert loop logs about it."""
    sender = webhook(server)
    with pytest.raises(NotSent) as caught:
        await sender.send(Message(text="x"))
    shown = "".join(traceback.format_exception(caught.value)) + repr(sender)
    with structlog.testing.capture_logs() as logs:
        async with open_alerts(
            routes=[Route(name="discord", sender=sender)],
            clock=lambda: 0,
            jitter=lambda: 0.5,
            session="s",
            options=AlertOptions(flush_timeout_s=0.1),
        ) as alerts:
            alerts.error("e", "trouble")
    shown += repr(logs) + repr(alerts)
    assert len(logs) >= 2
    assert TOKEN not in shown
    assert "112233445566778899" not in shown


# --- a real server on loopback --------------------------------------------------------------------------------------


@attrs.define
class Server:
    """What a local webhook was asked, and the answers it still has to give before it accepts."""

    url: str = ""
    answers: list = attrs.field(factory=list)
    requests: list = attrs.field(factory=list)


@contextmanager
def serve_webhook():
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.requests.append((time.monotonic(), json.loads(body)["content"]))
            status, answer = server.answers.pop(0) if server.answers else (204, b"")
            self.send_response(status)
            if answer:
                self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_address[1]}/api/webhooks/1/{TOKEN}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join(5)


@pytest.mark.real
async def test_a_real_webhook_that_answers_429_and_500_first_gets_the_alert_once():
    """Over real sockets: the asked wait is kept, the failure is tried again, and last words go through too."""
    options = AlertOptions(first_backoff_s=0.2, min_interval_s=0.1)
    with serve_webhook() as server, trio.fail_after(15):
        server.answers = [(429, b'{"message": "slow down", "retry_after": 0.4}'), (500, b"{}")]
        async with httpx.AsyncClient(timeout=5) as client, trio.open_nursery() as nursery:
            async with open_alerts(
                routes=[Route(name="discord", sender=discord(client, server.url))],
                clock=lambda: time.time_ns() // 1000,
                jitter=lambda: 0.5,
                session="s",
                options=options,
            ) as alerts:
                await nursery.start(alerts.run)
                alerts.risk("mae", "flatten everything", severity=Severity.CRITICAL)
                while alerts.statistics().messages < 1:
                    await trio.sleep(0.01)
                (first, _), (second, _), (third, told) = server.requests
                assert second - first >= 0.4
                assert third > second
                assert told == "[CRITICAL] flatten everything"

                server.answers = [(500, b"{}")]
                assert await alerts.send_now(AlertKind.STOP, "orders may rest")
                assert server.requests[-1][1] == "[CRITICAL] orders may rest"
                nursery.cancel_scope.cancel(reason="done")


@pytest.mark.real
async def test_a_webhook_where_nobody_listens_holds_up_nothing():
    """The caller goes on at once; the exit is bounded."""
    with serve_webhook() as server:
        url = server.url
    async with httpx.AsyncClient(timeout=5) as client:
        started = time.monotonic()
        async with open_alerts(
            routes=[Route(name="discord", sender=discord(client, url))],
            clock=lambda: time.time_ns() // 1000,
            jitter=lambda: 0.5,
            session="s",
            options=AlertOptions(flush_timeout_s=0.3),
        ) as alerts:
            alerts.error("e", "trouble")
            assert time.monotonic() - started < 0.2
        assert time.monotonic() - started < 3
    assert alerts.statistics().dropped[Severity.WARNING] == 1
