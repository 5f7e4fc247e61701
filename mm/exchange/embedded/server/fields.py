"""Reading what clients send: JSON bodies and query parameters, refused in the exchange's own words.

Bodies are refused like a Go decoder does (flat shape), queries like a Go validator does (`{"msg"}`).
"""

import re
from collections.abc import Sequence
from typing import Final

import attrs
import orjson

from mm.domain.numbers import Count, Micros, Price, parse_count, parse_price
from mm.domain.tickers import parse_time
from mm.exchange.embedded.server.errors import ApiError, BodyError, ParameterError
from mm.exchange.embedded.server.http import Request

_INTEGER: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,256}", re.ASCII)
_MAX_COUNT: Final = 10**13
"""Above any size that makes sense, below what overflows anyone's integers."""


def invalid(details: str) -> ApiError:
    """A body that decodes but does not say what is needed."""
    return ApiError(400, "invalid_parameters", details=details)


def _kind(value: object) -> str:
    """A JSON value's type as Go names it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


@attrs.frozen
class Body:
    """A decoded JSON object. `struct` names it in error texts. Null counts as absent, as in Go."""

    struct: str
    values: dict[str, object]

    @classmethod
    def of(cls, request: Request, struct: str, *, may_be_empty: bool = False) -> "Body":
        """Decode a request's body. Raises `ApiError` when it is no JSON object."""
        if not request.body.strip():
            if may_be_empty:
                return cls(struct, {})
            raise BodyError("EOF")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise ApiError(400, "invalid_content_type")
        try:
            content = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise BodyError(f"invalid JSON: {error.msg}") from None
        if content is None:
            content = {}
        return cls.from_value(content, struct)

    @classmethod
    def from_value(cls, content: object, struct: str) -> "Body":
        """A JSON value that must be an object."""
        if not isinstance(content, dict):
            raise BodyError(f"json: cannot unmarshal {_kind(content)} into Go value of type models.{struct}")
        return cls(struct, content)

    def _mismatch(self, name: str, value: object, wanted: str) -> BodyError:
        return BodyError(
            f"json: cannot unmarshal {_kind(value)} into Go struct field {self.struct}.{name} of type {wanted}"
        )

    def text(self, name: str) -> str | None:
        """A string; an empty one counts as absent."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self._mismatch(name, value, "string")
        return value

    def need_text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise invalid(f"{name} is required")
        return value

    def word(self, name: str, allowed: Sequence[str]) -> str:
        """One of a closed list, required."""
        value = self.need_text(name)
        if value not in allowed:
            raise invalid(f"{name} must be one of {', '.join(allowed)}")
        return value

    def flag(self, name: str) -> bool:
        """A boolean, false when absent."""
        value = self.values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._mismatch(name, value, "bool")
        return value

    def integer(self, name: str, *, lowest: int, highest: int) -> int | None:
        """An integer in a range."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._mismatch(name, value, "int")
        if not lowest <= value <= highest:
            raise invalid(f"{name} must be between {lowest} and {highest}")
        return value

    def count(self, name: str, *, may_be_zero: bool = False) -> Count | None:
        """A count string, at most 2 decimals, above 0."""
        value = self.text(name)
        if value is None:
            return None
        try:
            count = parse_count(value) if len(value) <= 20 else None
        except ValueError:
            count = None
        if count is None or not (0 if may_be_zero else 1) <= count <= _MAX_COUNT:
            raise invalid(f"{name} is not a valid count")
        return count

    def need_count(self, name: str) -> Count:
        """A count that must be there."""
        value = self.count(name)
        if value is None:
            raise invalid(f"{name} is required")
        return value

    def need_price(self, name: str) -> Price:
        """A YES price in dollars that must be there; whether it is on the market's grid is not judged here."""
        value = self.need_text(name)
        try:
            price = parse_price(value) if len(value) <= 20 else None
        except ValueError:
            price = None
        if price is None:
            raise ApiError(400, "invalid_price")
        return price

    def client_order_id(self, name: str = "client_order_id") -> str | None:
        """A client's id: letters, digits, `-`, `_`."""
        value = self.text(name)
        if value is not None and _CLIENT_ID.fullmatch(value) is None:
            raise invalid(f"{name} may hold letters, digits, - and _ only")
        return value

    def items(self, name: str) -> list[object]:
        """A list that must be there and not be empty."""
        value = self.values.get(name)
        if value is None or value == []:
            raise invalid(f"{name} is required")
        if not isinstance(value, list):
            raise self._mismatch(name, value, f"[]{self.struct}")
        return value


@attrs.frozen
class Query:
    """The query parameters of one operation. Unknown ones are ignored, as on the real exchange."""

    operation: str
    """`GetMarkets`: names the operation in error texts."""
    request: Request

    def fail(self, name: str, tag: str) -> ParameterError:
        """The refusal of a parameter."""
        field = "".join(part.capitalize() for part in name.split("_"))
        return ParameterError.failed(self.operation, field, tag)

    def text(self, name: str) -> str | None:
        """A string; an empty one counts as absent."""
        return self.request.parameter(name)

    def need_text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise self.fail(name, "required")
        return value

    def words(self, name: str, *, most: int | None = None) -> list[str] | None:
        """A comma-separated list, or a repeated parameter."""
        found = [
            part for key, value in self.request.query if key == name for part in value.split(",") if part
        ]
        if most is not None and len(found) > most:
            raise self.fail(name, "max")
        return found or None

    def word(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of a closed list."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise self.fail(name, "oneof")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in ("true", "false", "1", "0"):
            raise self.fail(name, "boolean")
        return value.lower() in ("true", "1")

    def integer(self, name: str, *, lowest: int, highest: int) -> int | None:
        """An integer in a range."""
        value = self.text(name)
        if value is None:
            return None
        if _INTEGER.fullmatch(value) is None:
            raise self.fail(name, "number")
        number = int(value)
        if number < lowest:
            raise self.fail(name, "gte")
        if number > highest:
            raise self.fail(name, "lte")
        return number

    def seconds(self, name: str) -> Micros | None:
        """A Unix time in seconds, as `Micros`."""
        value = self.integer(name, lowest=0, highest=10**11)
        return None if value is None else Micros(value * 1_000_000)

    def moment(self, name: str) -> Micros | None:
        """An RFC 3339 time."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse_time(value)
        except ValueError:
            raise self.fail(name, "datetime") from None

    def limit(self, *, default: int, highest: int) -> int:
        """`limit`: above the maximum is refused, never clamped."""
        value = self.integer("limit", lowest=0, highest=highest)
        return value or default

    def subaccount(self) -> int | None:
        """`subaccount`, 0 to 63."""
        return self.integer("subaccount", lowest=0, highest=63)

    def exchange_index(self) -> int | None:
        """`exchange_index`; -1 asks for routing."""
        return self.integer("exchange_index", lowest=-1, highest=1_000)
