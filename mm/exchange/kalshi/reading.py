"""Reading JSON strictly and tolerantly at once: the converter, the tally of oddities, the four shapes of errors.

An unknown field is counted and logged once; a field of the wrong type, or a number that is no decimal string, is
refused with its path. What the fields mean is not known here but in `codec`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import cattrs
import orjson
import structlog
from cattrs.gen import make_dict_structure_fn

from mm.domain.numbers import Count, Micros, Money, Price, parse_count, parse_money, parse_price
from mm.domain.tickers import read_time
from mm.exchange.kalshi import wire

W = TypeVar("W")
JsonObject = dict[str, Any]

log = structlog.get_logger(__name__)


class Malformed(ValueError):
    """The venue sent something that cannot be what it should be. The message names the fields, one after another."""


@attrs.define(eq=False)
class Tally:
    """What was odd on the wire: counted always, logged once a kind."""

    unknown_fields: int = 0
    unknown_frames: int = 0
    malformed: int = 0
    skipped: int = 0
    """Markets left out of a listing, reports of a status we do not know, frames of another subaccount."""
    _told: set[tuple[str, str]] = attrs.field(factory=set)

    def field(self, owner: str, name: str) -> None:
        """A field that no documentation names."""
        self.unknown_fields += 1
        if self._is_news(owner, name):
            log.warning("unknown field", where=owner, field=name)

    def frame(self, kind: str) -> None:
        """A frame of a type that no documentation names."""
        self.unknown_frames += 1
        if self._is_news("frame", kind):
            log.warning("unknown frame", type=kind)

    def bad(self, where: str, why: str) -> None:
        """Something that could not be read."""
        self.malformed += 1
        if self._is_news("malformed " + where, ""):
            log.warning("malformed", where=where, why=why)

    def skip(self, what: str, why: str) -> None:
        """Something read and left out."""
        self.skipped += 1
        if self._is_news("skipped " + what, why):
            log.warning("left out", what=what, why=why)

    def _is_news(self, owner: str, name: str) -> bool:
        # Bounded: whatever a hostile or broken server invents, this does not grow without end.
        if (owner, name) in self._told or len(self._told) >= 10_000:
            return False
        self._told.add((owner, name))
        return True


@attrs.define(eq=False)
class Codec:
    """Reads objects into `wire` classes; one a client, with its tally."""

    tally: Tally = attrs.field(factory=Tally)
    _converter: cattrs.Converter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._converter = _make_converter(self.tally)

    def structure(self, raw: object, cls: type[W]) -> W:
        """One object. Raises `Malformed`."""
        try:
            return self._converter.structure(raw, cls)
        except cattrs.BaseValidationError as error:
            raise Malformed("; ".join(cattrs.transform_error(error))) from None
        except (ValueError, TypeError) as error:
            raise Malformed(f"{cls.__name__}: {error}") from None

    def many(self, body: JsonObject, key: str, cls: type[W]) -> list[W]:
        """The list under `key`; null is empty, absent is malformed."""
        if key not in body:
            raise Malformed(f"no {key} in the reply")
        return [self.structure(item, cls) for item in items(body[key], key)]

    def one(self, body: JsonObject, key: str, cls: type[W]) -> W:
        """The object under `key`."""
        if key not in body:
            raise Malformed(f"no {key} in the reply")
        return self.structure(body[key], cls)


def items(raw: object, key: str) -> list[Any]:
    """A list that may be null. Raises `Malformed`."""
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise Malformed(f"{key} is no list")
    return raw


def _make_converter(tally: Tally) -> cattrs.Converter:
    converter = cattrs.Converter()

    def structure_attrs(cls: type[Any]) -> Callable[[Any, Any], Any]:
        structure = make_dict_structure_fn(cls, converter)
        known = frozenset(field.name for field in attrs.fields(cls)) | wire.IGNORED.get(cls, frozenset())

        def read(raw: Any, wanted: Any) -> Any:
            if not isinstance(raw, dict):
                raise ValueError(f"expected an object, not {type(raw).__name__}")
            if not known.issuperset(raw):
                for name in raw.keys() - known:
                    tally.field(cls.__name__, name)
            return structure(raw, wanted)

        return read

    converter.register_structure_hook_factory(attrs.has, structure_attrs)
    for cls in (str, int, bool, dict):
        converter.register_structure_hook(cls, _exactly(cls))
    converter.register_structure_hook_func(lambda t: t == dict[str, Any], _exactly(dict))
    converter.register_structure_hook(float, _number)
    for newtype, parse in (
        (Price, parse_price),
        (Count, parse_count),
        (Money, parse_money),
    ):
        read = _from_text(parse)
        converter.register_structure_hook_func(_is(newtype), read)
        converter.register_structure_hook_func(_is(newtype | None), _or_none(read))
    converter.register_structure_hook_func(_is(Micros), _time)
    converter.register_structure_hook_func(_is(Micros | None), _or_none(_time))
    return converter


def _is(wanted: Any) -> Callable[[Any], bool]:
    return lambda candidate: bool(candidate == wanted)


def _exactly(cls: type) -> Callable[[Any, Any], Any]:
    def read(raw: Any, _: Any) -> Any:
        if type(raw) is not cls:
            raise ValueError(f"expected {cls.__name__}, not {type(raw).__name__}")
        return raw

    return read


def _number(raw: Any, _: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"expected a number, not {type(raw).__name__}")
    return float(raw)


def _from_text(parse: Callable[[str], int]) -> Callable[[Any, Any], int]:
    def read(raw: Any, _: Any) -> int:
        if not isinstance(raw, str):
            raise ValueError(f"expected a string, not {type(raw).__name__}")
        return parse(raw)

    return read


def _time(raw: Any, _: Any) -> int:
    # Times have been seen as text and as integers; a second spelling must not stop a reader of fills.
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise ValueError(f"expected a time, not {type(raw).__name__}")
    return read_time(raw)


def _or_none(read: Callable[[Any, Any], int]) -> Callable[[Any, Any], int | None]:
    return lambda raw, wanted: None if raw is None or raw == "" else read(raw, wanted)


def read_object(content: bytes) -> JsonObject:
    """The JSON object of a reply. Raises `Malformed`."""
    try:
        body = orjson.loads(content)
    except ValueError:
        raise Malformed("the reply is not JSON") from None
    if not isinstance(body, dict):
        raise Malformed("the reply is no JSON object")
    return body


@attrs.frozen
class VenueError:
    """What an error body says, whichever of the four shapes it has."""

    code: str = ""
    message: str = ""
    details: str = ""

    @property
    def text(self) -> str:
        """For people. Bounded, whatever the server sends."""
        parts = [part for part in (self.message or self.code, self.details) if part]
        return ": ".join(parts)[:300]


def read_error(content: bytes) -> VenueError:
    """The error of a reply of any content; never raises."""
    try:
        body = orjson.loads(content)
    except ValueError:
        return VenueError()
    return error_of(body)


def error_of(body: object) -> VenueError:
    """The error in a decoded body: nested object, flat object, `msg`, or a bare string under `error`."""
    if not isinstance(body, dict):
        return VenueError()
    inner = body.get("error", body)
    if isinstance(inner, str):
        return VenueError(message=inner)
    if not isinstance(inner, dict):
        return VenueError()
    code, message, details = (inner.get(name) for name in ("code", "message", "details"))
    if code is None and message is None:
        message = inner.get("msg")
    return VenueError(*("" if part is None else str(part) for part in (code, message, details)))


def next_cursor(body: JsonObject) -> str | None:
    """The cursor to the next page, None on the last one (an empty string, or absent)."""
    cursor = body.get("cursor")
    return cursor if isinstance(cursor, str) and cursor else None
