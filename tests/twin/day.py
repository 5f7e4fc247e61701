"""What the scripted trading days share: where the exchange is, its back door, and the count of what was done.

Standard library only: each day runs on a client's own Python. Not collected by pytest; see `run.py`.
"""

import json
import os
import time
import urllib.request

READY = json.loads(os.environ["TWIN_READY"])
REST = READY["rest_url"]
WS = READY["ws_url"]
KEY_ID = READY["key_id"]
KEY_PATH = READY["private_key_path"]
ROOT = REST.removesuffix("/trade-api/v2")
SERIES = "KXNHLGAME"


class Failed(Exception):
    """Something was not as a trader may expect."""


def need(condition, text):
    """Raise `Failed` unless the condition holds."""
    if not condition:
        raise Failed(text)


def control(method, path, body=None):
    """A request to the exchange's back door."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{ROOT}/control/{path}", data=data, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def book(ticker):
    """The exchange's own book: (bids, asks) as dictionaries of YES price to count, and the best of both."""
    found = control("GET", f"book/{ticker}")
    return found["bids"], found["asks"]


def cents(price):
    """A price text as whole ten-thousandths."""
    return round(float(price) * 10_000)


def text(ticks):
    """Ten-thousandths as a price text."""
    return f"{ticks // 10_000}.{ticks % 10_000:04d}"


def until(condition, what, seconds=20.0):
    """Wait for a condition of the outside world, under a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        need(time.monotonic() < end, f"never: {what}")
        time.sleep(0.05)


class Count:
    """How much was done; printed at the end as one JSON line."""

    def __init__(self):
        self.done = {}

    def add(self, name, number=1):
        """Something was done."""
        self.done[name] = self.done.get(name, 0) + number

    def tell(self):
        """The line that `run.py` reads."""
        print(json.dumps(self.done))
