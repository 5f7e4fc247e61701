"""The same port by httpx: for whoever brings a transport of its own, and as the yardstick of the fast client."""

import httpx
import trio

from mm.exchange.kalshi.http import AnswerLost, NotSent, Reply

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)


class HttpxClient:
    """An `HttpClient` over any httpx transport."""

    def __init__(self, base_url: str, transport: httpx.AsyncBaseTransport, deadline_s: float) -> None:
        self._base_url = base_url
        self._transport = transport
        self._deadline_s = deadline_s

    async def request(self, method: str, target: str, fields: bytes, body: bytes | None) -> Reply:
        """See `HttpClient`."""
        headers = [
            (name, value.strip())
            for name, _, value in (line.partition(b":") for line in fields.split(b"\r\n") if line)
        ]
        request = httpx.Request(method, self._base_url + target, headers=headers, content=body)
        try:
            with trio.fail_after(self._deadline_s):
                response = await self._transport.handle_async_request(request)
                content = await response.aread()
        except _NEVER_SENT as error:
            raise NotSent(str(error) or type(error).__name__) from error
        except httpx.RequestError as error:
            raise AnswerLost(str(error) or type(error).__name__) from error
        except trio.TooSlowError:
            raise AnswerLost(f"no answer within {self._deadline_s:g} s") from None
        lines = [name + b": " + value for name, value in response.headers.raw]
        return Reply(response.status_code, content, b"\r\n".join(lines))
