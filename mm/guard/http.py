"""The least of HTTP/1.1 that the guardian needs, over a plain or TLS socket. Blocking, with a deadline for everything.

The standard client would bring the e-mail package along, and TLS where none is spoken; the guardian is to stay small.
"""

import socket
import threading
import time
from functools import lru_cache
from typing import Any, Final

from mm.guard.protocol import Address

_CHUNK: Final = 16_384
_LONGEST_HEAD: Final = 65_536
_LONGEST_BODY: Final = 32 * 1024 * 1024
_DNS_S: Final = 1.5
_CONNECT_S: Final = 2.0
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Headers = list[tuple[str, str]]


class NoAnswer(Exception):
    """No usable answer came; whether the request was carried out is not known. Never holds the address's path."""


def escape(text: str) -> str:
    """`text` as one part of a path or query."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


class Resolver:
    """Finds a host's addresses within a bounded time, and remembers them for when the name service is gone too."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._found: list[tuple[Any, ...]] = []
        self._is_literal = False
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except OSError:
                continue
            self._is_literal = True
            self._found = [(family, (host, port))]

    def look_up(self) -> threading.Thread | None:
        """Begin to ask the name service; returns the thread that does. An answer replaces what was known."""
        if self._is_literal:
            return None
        thread = threading.Thread(target=self._ask, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads for us: it takes as long as it takes
            self._ask()
            return None
        return thread

    def addresses(self) -> list[tuple[Any, ...]]:
        """(family, address) pairs, the newest known. Raises `NoAnswer` when there never was one."""
        thread = self.look_up()
        if thread is not None:
            thread.join(_DNS_S)
        if not self._found:
            raise NoAnswer(f"the name {self._host} cannot be looked up")
        return self._found

    def _ask(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        self._found = [(family, address) for family, _, _, _, address in found]


class Connection:
    """One connection at a time to one server, kept open between requests. For one thread."""

    def __init__(self, address: Address, resolver: Resolver, *, ca_file: str | None = None) -> None:
        self._address = address
        self._resolver = resolver
        self._ca_file = ca_file
        self._socket: Any = None
        self.date = ""
        """When the last answer was given, by the server's clock, as it wrote it."""

    def request(
        self, method: str, target: str, headers: Headers, body: bytes | None, *, deadline_s: float
    ) -> tuple[int, bytes]:
        """Send one request; gives status and body. `target` is path and query.

        Raises `NoAnswer`. The connection that failed is closed.
        """
        deadline = time.monotonic() + deadline_s
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self._host()}",
            "User-Agent: mm-guard",
            "Accept: */*",
        ]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
        try:
            was_open = self._socket is not None
            try:
                return self._exchange(data, deadline)
            except _Stale:
                # The server had closed the idle connection: nothing of this request was answered or begun.
                self.close()
                if not was_open:
                    raise
                return self._exchange(data, deadline)
        except (OSError, ValueError) as exc:
            self.close()
            raise NoAnswer(f"{type(exc).__name__}: {_plain(exc)}") from None
        except NoAnswer:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, data: bytes, deadline: float) -> tuple[int, bytes]:
        if self._socket is None:
            self._connect(deadline)
        self._set_timeout(deadline)
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise _Stale("the connection was closed") from None
        return self._read_answer(deadline)

    def _read_answer(self, deadline: float) -> tuple[int, bytes]:
        head, rest = self._read_head(b"", deadline)
        status, fields = _parse_head(head)
        while status < 200:  # a 1xx announces the real answer
            head, rest = self._read_head(rest, deadline)
            status, fields = _parse_head(head)
        self.date = fields.get("date", "")
        keep = "close" not in fields.get("connection", "").lower()
        if status in (204, 304):
            body = b""
        elif "chunked" in fields.get("transfer-encoding", "").lower():
            body = self._read_chunked(rest, deadline)
        elif "content-length" in fields:
            body = self._read_exactly(rest, int(fields["content-length"]), deadline)
        else:
            keep = False
            body = self._read_to_end(rest, deadline)
        if not keep:
            self.close()
        return status, body

    def _read_head(self, data: bytes, deadline: float) -> tuple[bytes, bytes]:
        while b"\r\n\r\n" not in data:
            try:
                more = self._receive(deadline)
            except ConnectionResetError:
                more = b""
            if not more:
                raise _Stale("closed without an answer") if not data else NoAnswer("closed amid an answer")
            data += more
            if len(data) > _LONGEST_HEAD:
                raise NoAnswer("an answer with a head without end")
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _read_exactly(self, data: bytes, length: int, deadline: float) -> bytes:
        if not 0 <= length <= _LONGEST_BODY:
            raise NoAnswer("an answer of impossible length")
        parts, have = [data], len(data)
        while have < length:
            more = self._receive(deadline)
            if not more:
                raise NoAnswer("closed amid an answer")
            parts.append(more)
            have += len(more)
        return b"".join(parts)[:length]

    def _read_to_end(self, data: bytes, deadline: float) -> bytes:
        parts, have = [data], len(data)
        while more := self._receive(deadline):
            parts.append(more)
            have += len(more)
            if have > _LONGEST_BODY:
                raise NoAnswer("an answer without end")
        return b"".join(parts)

    def _read_chunked(self, data: bytes, deadline: float) -> bytes:
        body: list[bytes] = []
        have = 0
        while True:
            line, data = self._read_line(data, deadline)
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                while line:  # trailers, up to the empty line
                    line, data = self._read_line(data, deadline)
                return b"".join(body)
            have += size
            if have > _LONGEST_BODY:
                raise NoAnswer("an answer without end")
            while len(data) < size + 2:
                more = self._receive(deadline)
                if not more:
                    raise NoAnswer("closed amid an answer")
                data += more
            body.append(data[:size])
            data = data[size + 2 :]

    def _read_line(self, data: bytes, deadline: float) -> tuple[bytes, bytes]:
        while b"\r\n" not in data:
            more = self._receive(deadline)
            if not more or len(data) > _LONGEST_HEAD:
                raise NoAnswer("closed amid an answer")
            data += more
        line, _, rest = data.partition(b"\r\n")
        return line, rest

    def _receive(self, deadline: float) -> bytes:
        self._set_timeout(deadline)
        received: bytes = self._socket.recv(_CHUNK)
        return received

    def _set_timeout(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer("no answer in time")
        self._socket.settimeout(left)

    def _connect(self, deadline: float) -> None:
        problem: Exception = NoAnswer("no address to connect to")
        for family, address in self._resolver.addresses():
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.settimeout(max(0.05, min(_CONNECT_S, deadline - time.monotonic())))
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket = self._secured(opened)
            except OSError as exc:
                opened.close()
                problem = exc
            else:
                return
        raise problem

    def _secured(self, opened: socket.socket) -> Any:
        if not self._address.is_secure:
            return opened
        return tls_context(self._ca_file).wrap_socket(opened, server_hostname=self._address.host)

    def _host(self) -> str:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        return host if address.port == (443 if address.is_secure else 80) else f"{host}:{address.port}"


class _Stale(NoAnswer):
    """The connection ended before a single byte of an answer."""


@lru_cache(maxsize=1)
def tls_context(ca_file: str | None) -> Any:
    """What all TLS connections are made with; certificates from the file, or the system's.

    Takes 15 ms and 8 MB, which an exchange on loopback does without: for others, called while the files are sure to be
    there.
    """
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:
        return ssl.create_default_context()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise NoAnswer("an answer that is not HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    if version == "HTTP/1.0":
        fields.setdefault("connection", "close")
    return int(rest[:3]), fields


def _plain(exc: Exception) -> str:
    """What happened, without anything of the request in it."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return "timed out" if isinstance(exc, TimeoutError) else str(exc)[:200]
