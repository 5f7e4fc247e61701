"""The program on real sockets: the ready line, its key, its end, and what goes wrong at a start."""

import gzip
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import contextmanager

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from mm.domain.errors import ConfigError
from mm.exchange.embedded.server.app import ExchangeOptions, check_options

pytestmark = pytest.mark.real

PROGRAM = """
import sys, trio
from pathlib import Path
from mm.exchange.embedded.server.app import ExchangeOptions, run_exchange
fields = eval(sys.argv[1], {"Path": Path})
sys.exit(trio.run(run_exchange, ExchangeOptions(**fields)))
"""


@contextmanager
def started(fields, **how):
    """The program in a process of its own; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repr(fields)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(process):
    """The ready line."""
    line = process.stdout.readline()
    assert line, process.stderr.read().decode()
    return orjson.loads(line)


def signed(info, method, path):
    """The headers of a request, with the key that the program wrote."""
    with open(info["private_key_path"], "rb") as file:
        key = serialization.load_pem_private_key(file.read(), password=None)
    timestamp = str(time.time_ns() // 1_000_000)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    signature = key.sign(f"{timestamp}{method}{path}".encode(), pss, hashes.SHA256())
    return {
        "KALSHI-ACCESS-KEY": info["key_id"],
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": b64encode(signature).decode(),
    }


SMALL = {"seed": 5, "games": 2}


def test_it_tells_where_it_is_and_serves_a_signed_order(tmp_path):
    """The line on stdout equals the file; a real HTTP client trades; SIGTERM ends it with 0 and without a trace."""
    ready_file = tmp_path / "ready.json"
    with started({**SMALL, "ready_file": str(ready_file), "balance": "250.50"}, cwd=tmp_path) as process:
        info = ready(process)
        assert orjson.loads(ready_file.read_bytes()) == info
        assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]
        assert info["rest_url"].endswith("/trade-api/v2")
        assert info["ws_url"].endswith("/trade-api/ws/v2")
        assert info["tier"] == "basic"
        assert os.stat(info["private_key_path"]).st_mode & 0o777 == 0o600
        with httpx.Client(base_url=info["rest_url"]) as client:
            market = client.get("/markets?status=open&limit=1").json()["markets"][0]
            path = "/trade-api/v2/portfolio/balance"
            balance = client.get("/portfolio/balance", headers=signed(info, "GET", path))
            assert balance.json()["balance_dollars"] == "250.5000"
            body = {
                "ticker": market["ticker"],
                "side": "bid",
                "count": "1.00",
                "price": "0.0100",
                "time_in_force": "good_till_canceled",
                "self_trade_prevention_type": "taker_at_cross",
            }
            path = "/trade-api/v2/portfolio/events/orders"
            answer = client.post("/portfolio/events/orders", json=body, headers=signed(info, "POST", path))
            assert answer.status_code == 201, answer.text
            assert "date" in answer.headers
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == b""
        assert not os.path.exists(info["private_key_path"])


def test_it_ends_when_the_holder_of_its_pipe_is_gone():
    """An inherited descriptor at end-of-file ends it, in a session of its own too."""
    ours, theirs = os.pipe()
    fields = {**SMALL, "exit_with_fd": ours}
    with started(fields, pass_fds=(ours,), start_new_session=True) as process:
        os.close(ours)
        ready(process)
        assert process.poll() is None
        os.close(theirs)
        assert process.wait(10) == 0


def test_a_port_in_use_is_told_and_ends_with_1():
    """Which port, what to do, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started({**SMALL, "port": port}) as process:
            assert process.wait(20) == 1
            told = process.stderr.read().decode()
    assert str(port) in told
    assert "in use" in told
    assert "Traceback" not in told


def test_bad_options_are_told_all_at_once():
    """Each with its name and its value."""
    with started({**SMALL, "tier": "gold", "faults": "explode", "balance": "much"}) as process:
        assert process.wait(20) == 1
        told = process.stderr.read().decode()
    for word in ("--tier", "gold", "--faults", "explode", "--balance", "much"):
        assert word in told
    assert "Traceback" not in told


def test_a_recording_is_served(recordings):
    """The books of a real recording, over the wire; the account's money lies where its markets are."""
    path = recordings("ws_mlb_wnba_verbatim") / "ws_orderbook_stream.jsonl.gz"
    with started({"replay": str(path)}) as process:
        info = ready(process)
        markets = httpx.get(f"{info['rest_url']}/markets?status=open").json()["markets"]
        assert len(markets) == 12
        book = httpx.get(f"{info['rest_url']}/markets/{markets[0]['ticker']}/orderbook").json()
        assert book["orderbook_fp"]["yes_dollars"]


def test_a_damaged_recording_is_told_with_its_line(tmp_path, recordings):
    """File and line on stderr, exit code 1, no traceback."""
    whole = recordings("ws_mlb_wnba_verbatim") / "ws_orderbook_stream.jsonl.gz"
    lines = gzip.decompress(whole.read_bytes()).splitlines(keepends=True)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(b"".join(lines[:4]) + b'{"type":\n' + b"".join(lines[4:]))
    for path, word in ((damaged, "line 5"), (tmp_path / "nowhere.jsonl", "nowhere.jsonl")):
        with started({"replay": str(path)}) as process:
            assert process.wait(20) == 1
            told = process.stderr.read().decode()
        assert word in told
        assert "Traceback" not in told


def test_two_starts_never_share_a_key_or_an_id():
    """Same seed, other ids."""
    seen = []
    for _ in range(2):
        with started(SMALL) as process:
            info = ready(process)
            trades = httpx.get(f"{info['rest_url']}/markets/trades?limit=50").json()["trades"]
            seen.append({info["key_id"], info["user_id"], *(trade["trade_id"] for trade in trades)})
    assert len(seen[0]) > 10
    assert not seen[0] & seen[1]


def test_options_are_checked_before_anything_starts():
    """All problems in one error."""
    with pytest.raises(ConfigError) as failure:
        check_options(ExchangeOptions(tier="gold", balance="-1", port=70_000, faults="drop,p=7"))
    assert len(failure.value.problems) == 4
