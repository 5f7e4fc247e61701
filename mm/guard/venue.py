"""The four calls that a guardian makes, signed. Wire names stand here and in `mm.exchange.kalshi` only."""

import datetime as dt
import json
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mm.domain.numbers import SECOND, Micros
from mm.exchange import endpoints
from mm.exchange.endpoints import Endpoint
from mm.exchange.kalshi.signing import Signer, signed_headers
from mm.guard.http import Connection, NoAnswer, escape
from mm.guard.protocol import Hello

PAGE_SIZE: Final = 1000
_MOST_PAGES: Final = 300


class Refused(Exception):
    """A definite answer that is not a success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status} {text}".strip())
        self.status = status

    @property
    def is_throttled(self) -> bool:
        """429: not executed, the budget is spent."""
        return self.status == 429

    @property
    def is_gone(self) -> bool:
        """404: not there, as far as the venue says."""
        return self.status == 404

    @property
    def is_final(self) -> bool:
        """Trying again as it is will hardly help: 4xx, save those that a little time mends."""
        return 400 <= self.status < 500 and self.status not in (404, 408, 425, 429)

    @property
    def is_key(self) -> bool:
        """The key was refused, not its timestamp."""
        return self.status in (401, 403) and "timestamp" not in str(self)


class Resting(NamedTuple):
    """A resting order of the session."""

    order_id: str
    ticker: str
    exchange_index: int
    group_id: str | None


class Venue:
    """The exchange as one thread of the guardian sees it."""

    def __init__(self, hello: Hello, signer: Signer, connection: Connection) -> None:
        self._hello = hello
        self._signer = signer
        self._connection = connection
        self._shift_s = 0.0
        """From our clock to the exchange's, where it refused ours."""

    def trigger(self, group_id: str, exchange_index: int) -> None:
        """Cancel a group's orders and close it. Raises `Refused`, `NoAnswer`."""
        self._call(endpoints.TRIGGER_GROUP, group_id, query={"exchange_index": exchange_index}, body={})

    def resting(self) -> list[Resting]:
        """Every resting order under the session's prefix. Raises `Refused`, `NoAnswer`."""
        found: list[Resting] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_MOST_PAGES):
            query = {
                "subaccount": self._hello.subaccount,
                "status": "resting",
                "limit": PAGE_SIZE,
                "cursor": cursor,
            }
            reply = self._call(endpoints.ORDERS, query=query)
            rows = reply.get("orders")
            if not isinstance(rows, list):
                raise NoAnswer("a listing without orders")
            found += [order for row in rows if (order := self._ours(row)) is not None]
            cursor = reply.get("cursor") or None
            if cursor is None:
                return found
            if cursor in seen:
                raise NoAnswer("a listing that turns in circles")
            seen.add(cursor)
        raise NoAnswer("a listing without end")

    def cancel_batch(self, orders: Sequence[Resting]) -> list[str]:
        """Cancel all at once; gives the ids of those that the answer does not call cancelled.

        Raises `Refused`, `NoAnswer`.
        """
        items = [{"order_id": o.order_id, **self._where(o)} for o in orders]
        reply = self._call(endpoints.CANCEL_BATCH, body={"orders": items})
        rows = reply.get("orders")
        if not isinstance(rows, list):
            raise NoAnswer("an answer without orders")
        done = {row.get("order_id") for row in rows if isinstance(row, dict) and not row.get("error")}
        return [order.order_id for order in orders if order.order_id not in done]

    def cancel(self, order: Resting) -> None:
        """Cancel one. Raises `Refused`, `NoAnswer`."""
        self._call(endpoints.CANCEL, order.order_id, query=self._where(order), body={})

    def data_time(self) -> float:
        """How fresh reads are by the venue's clock, Unix seconds. Raises `Refused`, `NoAnswer`."""
        text = self._call(endpoints.USER_DATA_TIMESTAMP).get("as_of_time")
        try:
            return dt.datetime.fromisoformat(text).timestamp()  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise NoAnswer("a data time that cannot be read") from None

    def _send(self, method: str, path: str, target: str, data: bytes | None) -> tuple[int, bytes]:
        now = Micros(time.time_ns() // 1_000 + int(self._shift_s * SECOND))
        headers = signed_headers(self._signer, now, method, path)
        return self._connection.request(
            method, target, headers, data, deadline_s=self._hello.request_deadline_s
        )

    def _ours(self, row: Any) -> Resting | None:
        if not isinstance(row, dict):
            raise NoAnswer("a listing with a row that is no order")
        if not str(row.get("client_order_id") or "").startswith(self._hello.prefix):
            return None
        try:
            return Resting(
                order_id=str(row["order_id"]),
                ticker=str(row["ticker"]),
                exchange_index=int(row.get("exchange_index") or 0),
                group_id=row.get("order_group_id") or None,
            )
        except (KeyError, TypeError, ValueError):
            raise NoAnswer("a listing with an order that cannot be read") from None

    def _where(self, order: Resting) -> dict[str, Any]:
        where: dict[str, Any] = {"exchange_index": order.exchange_index, "market_ticker": order.ticker}
        if self._hello.subaccount:
            where["subaccount"] = self._hello.subaccount
        return where

    def _call(
        self,
        endpoint: Endpoint,
        *ids: str,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        method, template = endpoint
        path = self._hello.rest.path + template
        for value in ids:
            path = path.replace(":id", escape(value), 1)
        query = dict(query or {})
        if method != "GET" and template.startswith("/portfolio/order_groups") and self._hello.subaccount:
            query["subaccount"] = self._hello.subaccount
        pairs = "&".join(f"{name}={escape(str(value))}" for name, value in query.items() if value is not None)
        target = path + (f"?{pairs}" if pairs else "")
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        status, answer = self._send(method, path, target, data)
        if status == 401 and "timestamp" in _code(answer):
            # Nobody is there to set the clock right: sign with the exchange's.
            self._shift_s = _unix_time(self._connection.date) - time.time()
            status, answer = self._send(method, path, target, data)
        if status >= 300:
            raise Refused(status, _code(answer))
        if not answer.strip():
            return {}
        reply = _parse(answer)
        if not isinstance(reply, dict):
            raise NoAnswer("an answer that is no JSON object")
        return reply


def _unix_time(date: str) -> float:
    """Of an HTTP date; our own time where there is none."""
    try:
        found = dt.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=dt.UTC)
    except ValueError:
        return time.time()
    return found.timestamp() + 0.5


def _parse(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _code(answer: bytes) -> str:
    """The venue's own word for a refusal, in any of its shapes."""
    reply = _parse(answer)
    error = reply.get("error", reply) if isinstance(reply, dict) else ""
    if isinstance(error, dict):
        error = error.get("code") or error.get("message") or error.get("msg") or ""
    return str(error)[:120]
