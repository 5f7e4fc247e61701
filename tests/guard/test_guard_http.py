"""The guardian's HTTP: answers of every shape, within the deadline, over plain and TLS sockets."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from mm.guard.http import Connection, NoAnswer, Resolver, escape
from mm.guard.protocol import Address

pytestmark = pytest.mark.real

Talk = Callable[[socket.socket], None]


@attrs.define(eq=False)
class Server:
    """Takes connections one after the other and plays one talk on each."""

    listener: socket.socket
    talks: list[Talk]
    context: ssl.SSLContext | None = None
    thread: threading.Thread | None = None
    accepted: int = 0
    heard: list[bytes] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]  # type: ignore[no-any-return]

    def start(self, *talks: Talk) -> None:
        self.talks = list(talks)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        for talk in self.talks:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                if self.context is not None:
                    peer = self.context.wrap_socket(peer, server_side=True)
                talk(peer)
            except OSError:
                continue
            finally:
                peer.close()

    def answer(self, *answers: bytes) -> Talk:
        """Read a request and send an answer, for each answer."""

        def talk(peer: socket.socket) -> None:
            for answer in answers:
                self.heard.append(read_request(peer))
                peer.sendall(answer)

        return talk


def read_request(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = peer.recv(4096)
        if not more:
            raise OSError("the client hung up")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            while len(body) < int(line.partition(b":")[2]):
                body += peer.recv(4096)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def server() -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener, [])
    yield server
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    if server.thread is not None:
        server.thread.join(5)


def connection(server: Server, host: str = "127.0.0.1", **more: Any) -> Connection:
    address = Address(is_secure=server.context is not None, host=host, port=server.port, path="")
    return Connection(address, Resolver(host, server.port), **more)


def get(conn: Connection, deadline_s: float = 3.0) -> tuple[int, bytes]:
    return conn.request("GET", "/x?y=1", [("A", "b")], None, deadline_s=deadline_s)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi")),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n", (404, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", (200, b"to the end")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
            (200, b"abcde"),
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n1", (201, b"1")),
        (b"HTTP/1.0 200 OK\r\n\r\nold", (200, b"old")),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, b"")),
    ],
)
def test_answers_of_every_framing_are_read(
    server: Server, answer: bytes, expected: tuple[int, bytes]
) -> None:
    """Length, chunks, the end of the connection, nothing at all."""
    server.start(server.answer(answer))
    conn = connection(server)
    assert get(conn) == expected
    conn.close()


def test_an_answer_in_single_bytes_is_read(server: Server) -> None:
    """The network cuts where it likes."""

    def talk(peer: socket.socket) -> None:
        read_request(peer)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
            peer.sendall(bytes([byte]))

    server.start(talk)
    conn = connection(server)
    assert get(conn) == (200, b"hello")
    conn.close()


def test_the_request_is_well_formed(server: Server) -> None:
    """Host with its port, the headers, a body with its length."""
    server.start(server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    conn = connection(server)
    conn.request("DELETE", "/p?q=1", [("K", "v")], b'{"a":1}', deadline_s=3)
    conn.close()
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "DELETE /p?q=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "K: v" in lines
    assert "Content-Type: application/json" in lines
    assert "Content-Length: 7" in lines
    assert body == b'{"a":1}'


def test_a_connection_is_used_again_and_replaced_when_the_server_closed_it(server: Server) -> None:
    """Two requests on one connection; the third finds it closed and takes another, unnoticed."""
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    server.start(server.answer(fine, fine), server.answer(fine))
    conn = connection(server)
    assert [get(conn)[0] for _ in range(3)] == [200, 200, 200]
    conn.close()
    assert server.accepted == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_an_answer_that_cannot_be_used_is_no_answer(server: Server, answer: bytes) -> None:
    """And the next request starts afresh."""
    server.start(server.answer(answer), server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    conn = connection(server)
    with pytest.raises(NoAnswer) as caught:
        get(conn)
    assert "/x" not in str(caught.value)
    assert get(conn) == (200, b"")
    conn.close()


def test_a_silent_server_costs_no_more_than_the_deadline(server: Server) -> None:
    """Nor does one that keeps dripping."""
    hung_up = threading.Event()

    def silence(peer: socket.socket) -> None:
        read_request(peer)
        assert peer.recv(1) == b""  # until the client has had enough

    def drip(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not hung_up.wait(0.05):
            peer.sendall(b".")

    server.start(silence, drip)
    conn = connection(server)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="time"):
            get(conn, deadline_s=0.3)
        assert time.monotonic() - started < 0.6
    hung_up.set()


def test_nobody_listening_is_no_answer(server: Server) -> None:
    """Said without the path."""
    conn = connection(server)
    server.listener.close()
    with pytest.raises(NoAnswer, match="refused"):
        get(conn)


def test_tls_is_spoken_and_certificates_are_checked(server: Server, tmp_path: Path) -> None:
    """A certificate of our authority is taken, one for another host is not."""
    authority = trustme.CA()
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server.context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    fine = server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    server.start(fine, fine, fine)
    good = connection(server, "localhost", ca_file=str(file))
    assert get(good) == (200, b"hi")
    good.close()
    for bad in (connection(server, "127.0.0.1", ca_file=str(file)), connection(server, "localhost")):
        with pytest.raises(NoAnswer, match=r"(?i)certificate"):
            get(bad)


def test_a_name_that_is_unknown_is_no_answer_and_one_once_known_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name service may be gone with the rest of the network."""
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: known)
    resolver = Resolver("venue.example", 443)
    thread = resolver.look_up()
    assert thread is not None
    thread.join(5)

    def gone(*args: object, **kwargs: object) -> object:
        raise socket.gaierror("no name service")

    monkeypatch.setattr(socket, "getaddrinfo", gone)
    assert resolver.addresses() == [(socket.AF_INET, ("192.0.2.1", 443))]
    with pytest.raises(NoAnswer, match=r"other\.example"):
        Resolver("other.example", 443).addresses()


def test_what_goes_into_a_path_is_escaped() -> None:
    """Cursors are opaque."""
    assert escape("aZ9-._~") == "aZ9-._~"
    assert escape("a b/c?d=é&") == "a%20b%2Fc%3Fd%3D%C3%A9%26"
