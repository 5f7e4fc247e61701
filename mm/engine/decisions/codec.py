"""Values of the domain and the engine as plain data for JSON, and back, exactly.

Written by fields, not by hand for each class, so that a field added tomorrow is kept as well. Read are only classes and
functions of `mm.domain`, `mm.engine` and of modules that the reader trusts by name (a strategy of his own): a file from
elsewhere makes nobody import or run anything.
"""

import enum
import importlib
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

import attrs

from mm.domain.errors import MMError

PACKAGES: Final = ("mm.domain.", "mm.engine.")
"""Where what is named in a journal may live, whoever reads it."""
_JSON_INT: Final = 2**63
"""Integers from here on are written as text: not every JSON reader has them."""


class NotPlain(MMError):
    """Data that cannot be turned into the value it says it is; or a value that has no such form."""


def pack(value: Any, *, without: frozenset[str] = frozenset()) -> Any:
    """Plain data for `value`. Raises `NotPlain` with the field's path.

    Args:
        without: Fields of `value` itself that are left out.
    """
    kind = type(value)
    if kind is int:
        return value if -_JSON_INT < value < _JSON_INT else {"$i": str(value)}
    if value is None or kind is str or kind is bool or kind is float:
        return value
    maker = _PACKERS.get(kind)
    if maker is not None:
        return maker(value)
    if isinstance(value, enum.Enum):
        return {"$e": [_name_of(kind), value.name]}
    if attrs.has(kind):
        return _pack_object(value, without)
    if callable(value) and hasattr(value, "__qualname__"):
        return {"$f": _name_of(value)}
    raise NotPlain(f"a {kind.__name__} cannot be journalled")


def _pack_object(value: Any, without: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"$c": _name_of(type(value))}
    for field in attrs.fields(type(value)):
        if field.name in without:
            continue
        try:
            found[field.name] = pack(getattr(value, field.name))
        except NotPlain as exc:
            raise NotPlain(f"{field.name}: {exc}") from None
    return found


_PACKERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    list: lambda value: [pack(v) for v in value],
    tuple: lambda value: {"$t": [pack(v) for v in value]},
    deque: lambda value: {"$d": [value.maxlen, [pack(v) for v in value]]},
    dict: lambda value: {"$m": [[pack(k), pack(v)] for k, v in value.items()]},
    frozenset: lambda value: {"$s": sorted((pack(v) for v in value), key=repr)},
    Fraction: lambda value: {"$q": [str(value.numerator), str(value.denominator)]},
}


@attrs.frozen
class Unpacker:
    """Makes values of what `pack` wrote."""

    trusted: frozenset[str] = frozenset()
    """Packages and modules beside our own whose classes and functions may be named."""

    def __call__(self, data: Any) -> Any:
        """The value that `pack` was given.

        Raises `NotPlain` for what names nothing of ours or trusted, or has other fields.
        """
        if isinstance(data, list):
            return [self(v) for v in data]
        if not isinstance(data, dict):
            return data
        name = data.get("$c")
        if name is not None:
            return self._object(str(name), data)
        try:
            ((tag, body),) = data.items()
            return _UNPACKERS[tag](self, body)
        except (KeyError, ValueError, TypeError) as exc:
            raise NotPlain(f"not a value of a journal: {str(data)[:80]} ({exc})") from None

    def _object(self, name: str, data: Mapping[str, Any]) -> Any:
        kind = self.find(name)
        if not attrs.has(kind):
            raise NotPlain(f"{name} is not a class of values")
        fields = {field.name for field in attrs.fields(kind)}
        given = {key for key in data if key != "$c"}
        if unknown := sorted(given - fields):
            raise NotPlain(f"{name} has no field {unknown[0]!r}: written by another version")
        value = object.__new__(kind)
        for key in given:
            object.__setattr__(value, key, self(data[key]))
        for field in attrs.fields(kind):
            if field.name not in given:
                object.__setattr__(value, field.name, _default_of(name, field))
        return value

    def find(self, name: str) -> Any:
        """What `module:path` names. Raises `NotPlain`."""
        module, _, path = name.partition(":")
        if not path or not all(part.isidentifier() for part in path.split(".")):
            raise NotPlain(f"{name!r} names nothing")
        is_trusted = any(module == known or module.startswith(f"{known}.") for known in self.trusted)
        if not module.startswith(PACKAGES) and not is_trusted:
            raise NotPlain(f"{name} is not of the engine, and {module} is not trusted (`--trust {module}`)")
        try:
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            raise NotPlain(f"{name} does not exist here: written by another version") from None
        return found


unpack: Final = Unpacker()
"""For data that names only what is ours."""


def _default_of(name: str, field: "attrs.Attribute[Any]") -> Any:
    """What a field that the data lacks begins with."""
    default: Any = field.default
    if isinstance(default, attrs.Factory) and not default.takes_self:  # type: ignore[arg-type]
        return default.factory()
    if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        raise NotPlain(f"{name} lacks the field {field.name!r}: written by another version")
    return default


_UNPACKERS: Final[Mapping[str, Callable[[Unpacker, Any], Any]]] = {
    "$i": lambda _, body: int(body),
    "$e": lambda read, body: read.find(body[0])[body[1]],
    "$f": lambda read, body: read.find(body),
    "$t": lambda read, body: tuple(read(v) for v in body),
    "$d": lambda read, body: deque((read(v) for v in body[1]), maxlen=body[0]),
    "$m": lambda read, body: {read(k): read(v) for k, v in body},
    "$s": lambda read, body: frozenset(read(v) for v in body),
    "$q": lambda _, body: Fraction(int(body[0]), int(body[1])),
}


def _name_of(thing: Any) -> str:
    name = f"{thing.__module__}:{thing.__qualname__}"
    if "<" in name:
        raise NotPlain(f"{name} has no name by which it could be found again")
    return name
