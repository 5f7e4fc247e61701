"""What bot and guardian say to each other: lines whole or refused, never with the key in an error."""

import pytest

from mm.guard.protocol import (
    VERSION,
    Address,
    BadMessage,
    Budget,
    Hello,
    LineSplitter,
    decode,
    decode_hello,
    encode,
    encode_hello,
)

HELLO = Hello(
    rest=Address(is_secure=True, host="venue.example", port=443, path="/trade-api/v2"),
    key_id="key-1",
    key="-----BEGIN THE SECRET-----\nline\n",
    prefix="mm-s1-",
    subaccount=3,
    budget=Budget(refill_per_s=300, capacity=600, cancel_cost=2),
    webhook=Address(is_secure=True, host="hooks.example", port=443, path="/the-token"),
    ca_file="/etc/ca.pem",
    silence_s=1.5,
)


def test_a_hello_arrives_as_it_was_sent() -> None:
    """One line, with a key of several lines in it."""
    line = encode_hello(HELLO)
    assert line.count(b"\n") == 1
    kind, message = decode(line)
    assert kind == "hello"
    assert decode_hello(message) == HELLO


def test_a_hello_without_a_webhook_arrives() -> None:
    """The optional parts may be absent."""
    plain = HELLO._replace(webhook=None, ca_file=None)
    assert decode_hello(decode(encode_hello(plain))[1]) == plain


def test_no_secret_shows_in_a_repr() -> None:
    """Neither key nor webhook."""
    assert "SECRET" not in repr(HELLO)
    assert "token" not in repr(HELLO)


@pytest.mark.parametrize(
    "change", [{"version": VERSION + 1}, {"rest": None}, {"budget": {"x": 1}}, {"new": 1}]
)
def test_a_hello_that_is_not_understood_is_refused_without_its_content(change: dict[str, object]) -> None:
    """A package replaced under a running bot speaks another protocol."""
    _, message = decode(encode_hello(HELLO))
    with pytest.raises(BadMessage) as caught:
        decode_hello(message | change)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"1", b'{"n":1}', b'{"is":1}', b"\xff\xfe"])
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    """Whatever it is."""
    with pytest.raises(BadMessage):
        decode(line)


def test_lines_come_out_whole_however_they_were_cut() -> None:
    """Byte by byte or all at once."""
    data = encode("beat", n=1) + encode("group", id="g", exchange_index=2) + encode("goodbye")
    for size in (1, 7, 1000):
        splitter = LineSplitter()
        lines = [line for i in range(0, len(data), size) for line in splitter.feed(data[i : i + size])]
        assert [decode(line)[0] for line in lines] == ["beat", "group", "goodbye"]


def test_a_line_without_end_is_refused() -> None:
    """Memory is bounded."""
    splitter = LineSplitter()
    with pytest.raises(BadMessage):
        for _ in range(100):
            splitter.feed(b"x" * 1000)
