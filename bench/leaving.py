"""From "stop" to nothing resting: how long, and how many requests it took. A whole session at the embedded exchange.

    python bench/leaving.py

Prints one JSON line: `calls` (requests that the bot sent between the word and the last order's end) and `seconds`. The
end is read from the exchange's own books, by another thread over the back door, so it is not the bot's word that counts.
"""

import http.client
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from mm.session import RunOptions, live_surroundings, run_session
from mm.session.trading import Trading
from mm.settings import load_settings

QUOTES = 32


class Counting:
    """Times of every request that leaves on any connection of the bot."""

    def __init__(self) -> None:
        self.sent: list[float] = []

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """A TCP stream that is listened to."""
        stream = await trio.open_tcp_stream(host, port)
        plain = stream.send_all

        async def send_all(data: bytes) -> None:
            if (
                bytes(data[:7]).split(b" ", 1)[0] in (b"GET", b"PUT", b"POST", b"DELETE")
                and b" HTTP/1.1\r\n" in data
            ):
                self.sent.append(time.monotonic())
            await plain(data)

        stream.send_all = send_all  # type: ignore[method-assign, assignment]
        return stream


class Watcher(threading.Thread):
    """Asks the exchange what rests, until nothing does."""

    def __init__(self, rest_url: str) -> None:
        super().__init__(daemon=True)
        self.address = urlsplit(rest_url)
        self.most = 0
        self.empty_at = 0.0

    def run(self) -> None:
        """In its own thread."""
        line = http.client.HTTPConnection(str(self.address.hostname), self.address.port)
        while True:
            line.request("GET", "/control/account")
            body = json.loads(line.getresponse().read())
            resting = sum(len(account["resting"]) for account in body["accounts"])
            self.most = max(self.most, resting)
            if self.most and not resting:
                self.empty_at = time.monotonic()
                return
            time.sleep(0.003)


async def run(folder: Path) -> dict[str, float]:
    """Quote, stop, measure."""
    counting = Counting()
    surroundings = attrs.evolve(live_surroundings(), connect=counting.connect)
    settings = load_settings(
        {"KALSHI_ENV": "sim", "SIM_SPEED": "1", "MM_DATA_DIR": str(folder), "WEB_ADDRESS": "off"},
        environ={},
        dotenv=Path("/nonexistent/.env"),
    )
    found: dict[str, float] = {}
    watchers: list[Watcher] = []

    async def stop_when_quoting(trading: Trading) -> None:
        with trio.fail_after(60):
            while sum(order.order_id is not None for order in trading.desk.live.values()) < QUOTES * 3 // 4:
                await trio.sleep(0.05)
        watcher = Watcher(trading.venue.access.rest_url)
        watcher.start()
        watchers.append(watcher)
        with trio.fail_after(10):
            while not watcher.most:
                await trio.sleep(0.01)
        found["began"] = time.monotonic()
        trading.stop("bench")

    def begin(trading: Trading, nursery: trio.Nursery) -> None:
        nursery.start_soon(stop_when_quoting, trading)

    # The watch goes on while the session cleans up, so it must end with it and not before.
    summary = await run_session(settings, surroundings, RunOptions(on_trading=begin))
    watcher = watchers[0]
    if summary.exit_code or not watcher.empty_at:
        raise SystemExit(
            f"exit code {summary.exit_code}, {summary.reason}; the books were seen empty: {bool(watcher.empty_at)}"
        )
    return {
        "calls": sum(found["began"] <= at <= watcher.empty_at for at in counting.sent),
        "seconds": round(watcher.empty_at - found["began"], 4),
    }


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(trio.run(run, Path(name))))
    sys.exit(0)
