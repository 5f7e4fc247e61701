"""The error bodies of the exchange: four shapes, all in use, each for its own kind of mistake."""

from typing import Final

from mm.exchange.embedded.server.http import Response


class ApiError(Exception):
    """Nested shape: `{"error": {"code", "message", "details"?}}`. What the exchange itself and authentication say."""

    def __init__(self, status: int, code: str, *, message: str | None = None, details: str = "") -> None:
        super().__init__(f"{status} {code} {details}".rstrip())
        self.status = status
        self.code = code
        self.message = code.replace("_", " ") if message is None else message
        self.details = details

    @property
    def content(self) -> dict[str, str]:
        """The inner object, as batches carry it for one item."""
        found = {"code": self.code, "message": self.message}
        if self.details:
            found["details"] = self.details
        return found

    def response(self) -> Response:
        """The answer."""
        return Response.json(self.status, {"error": self.content})


class BodyError(ApiError):
    """Flat shape: `{"code", "message", "details"}` with 400. The body does not decode."""

    def __init__(self, details: str) -> None:
        super().__init__(400, "bad_request", details=details)

    def response(self) -> Response:
        """The answer."""
        return Response.json(self.status, self.content)


class ParameterError(ApiError):
    """`{"msg"}` with 400. A query parameter does not pass validation."""

    def __init__(self, text: str) -> None:
        super().__init__(400, "invalid_parameters", details=text)

    def response(self) -> Response:
        """The answer."""
        return Response.json(self.status, {"msg": self.details})

    @classmethod
    def failed(cls, operation: str, field: str, tag: str) -> "ParameterError":
        """In the words of the validator behind the real exchange, e.g. `GetMarkets`, `Limit`, `lte`."""
        return cls(
            f"Parameter validation failed for {operation}: Key: '{operation}Params.{field}' "
            f"Error:Field validation for '{field}' failed on the '{tag}' tag"
        )


class TooManyRequests(ApiError):
    """429 with a bare string; the request was not executed."""

    def __init__(self) -> None:
        super().__init__(429, "too_many_requests")

    def response(self) -> Response:
        """The answer."""
        return Response.json(429, {"error": "too many requests"})


NOT_FOUND: Final = "not_found"


def not_found() -> ApiError:
    """404, the same bytes for everything that is not there (or not any more, or not on this shard)."""
    return ApiError(404, NOT_FOUND)
