"""HTTP as such: kept connections, limits, and everything that is not a request."""

import orjson
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

STATUS = b"GET /trade-api/v2/exchange/status HTTP/1.1\r\nHost: x\r\n\r\n"


async def raw(rig, data, *, eof=False):
    """Send bytes on a new connection and read to its end."""
    stream = rig.connect()
    await stream.send_all(data)
    if eof:
        await stream.send_eof()
    answer = b""
    with trio.move_on_after(600):
        while chunk := await stream.receive_some(65_536):
            answer += chunk
        return answer
    raise AssertionError("the server neither answered to the end nor hung up")


def status(answer):
    """The status of the first response."""
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


async def test_a_connection_serves_request_after_request(rig, autojump_clock):
    """Keep-alive: many requests on one connection, answers in order."""
    for _ in range(3):
        reply = await rig.call("GET", "/exchange/status", headers={})
        assert (reply.status, reply.json["exchange_active"]) == (200, True)
    assert rig.server.connections == 1


async def test_pipelined_requests_are_answered_in_order(rig, autojump_clock):
    """Two requests in one write, the second closing: two answers, then the end."""
    second = b"GET /trade-api/v2/markets/NO HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await raw(rig, STATUS + second)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 404" in answer[20:]


async def test_answers_carry_no_date_unless_asked(rig, autojump_clock):
    """A simulation must not see the real clock."""
    reply = await rig.call("GET", "/exchange/status", headers={})
    assert "date" not in reply.headers


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 140_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_no_request_gets_an_error_and_the_end(rig, autojump_clock, data, expected):
    """Malformed input: a 4xx with a JSON body, then the connection closes."""
    answer = await raw(rig, data)
    assert status(answer) == expected
    assert "code" in orjson.loads(answer.partition(b"\r\n\r\n")[2])


async def test_a_body_that_grows_too_large_is_refused(rig, autojump_clock):
    """A chunked body has no announced length; it is cut off at the limit."""
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    head = b"POST /trade-api/v2/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(await raw(rig, head + chunk * 17)) == 413


async def test_half_a_request_is_not_waited_for_without_end(rig, autojump_clock):
    """A peer that stops in the middle is told 408 and let go."""
    answer = await raw(rig, STATUS[:30])
    assert status(answer) == 408


async def test_a_silent_connection_is_closed_after_a_while(rig, autojump_clock):
    """Nothing at all: closed without a word."""
    before = trio.current_time()
    assert await raw(rig, b"") == b""
    assert 60 < trio.current_time() - before < 300


async def test_the_end_in_the_middle_of_a_request_is_no_trouble(rig, autojump_clock):
    """The peer half-closes within a body: 400, not a crash."""
    answer = await raw(rig, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", eof=True)
    assert status(answer) == 400


async def test_expect_continue_is_honoured(rig, autojump_clock):
    """A client may wait for 100 before it sends the body."""
    stream = rig.connect()
    head = b"POST /trade-api/v2/portfolio/events/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    await stream.send_all(head + b"Expect: 100-continue\r\n\r\n")
    with trio.fail_after(5):
        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"{}")
        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "method, path, expected, allow",
    [
        ("GET", "/nothing", 404, None),
        ("POST", "/markets", 405, "GET"),
        ("GET", "/portfolio/events/orders", 405, "DELETE, POST"),
        ("PATCH", "/exchange/status", 405, "GET"),
        ("HEAD", "/exchange/status", 405, "GET"),
    ],
)
async def test_wrong_paths_and_methods_are_told_apart(rig, autojump_clock, method, path, expected, allow):
    """404 for what is not there, 405 with the methods for what is."""
    reply = await rig.call(method, path, headers={})
    assert (reply.status, reply.headers.get("allow")) == (expected, allow)


async def test_a_peer_that_does_not_read_its_answer_is_let_go(nursery, rig, autojump_clock):
    """A full transport must not hold a task for ever."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    done = trio.Event()

    async def serve():
        await rig.server.serve_stream(theirs)
        done.set()

    nursery.start_soon(serve)
    await ours.send_all(STATUS)
    with trio.fail_after(120):
        await done.wait()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, target, headers, body: (
                method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n" + body
            ),
            st.sampled_from([b"GET", b"POST", b"DELETE", b"PUT", b"OPTIONS", b"CONNECT", b"get", b"\x00"]),
            st.one_of(
                st.sampled_from(
                    [b"/trade-api/v2/markets?limit=%s", b"*", b"//", b"/control/faults", b"http://a/b", b"x"]
                ),
                st.binary(min_size=1, max_size=30),
            ),
            st.sampled_from(
                [b"", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"A:\x00"]
            ),
            st.binary(max_size=50),
        ),
    )
)
def test_no_bytes_give_a_500_or_a_hang(virtual_exchange, data):
    """Whatever arrives: an orderly answer or the end of the connection, in bounded time."""

    async def main(rig):
        answer = await raw(rig, data, eof=True)
        assert not answer or (status(answer) != 500 and 100 < status(answer) < 600)

    virtual_exchange(main)
