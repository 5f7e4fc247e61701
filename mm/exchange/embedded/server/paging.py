"""Cursors: opaque, URL-safe, and silently ignored when they make no sense, as on the real exchange."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=str)


def encode_cursor(scope: str, value: str) -> str:
    """A cursor that only means something to the listing that made it."""
    return urlsafe_b64encode(f"{scope}\n{value}".encode()).decode("ascii").rstrip("=")


def decode_cursor(scope: str, cursor: str | None) -> str | None:
    """What `encode_cursor` was given; None for no cursor, garbage, or another listing's."""
    if not cursor:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("utf-8")
    except (BadBase64, ValueError):
        return None
    found, _, value = text.partition("\n")
    return value if found == scope else None


def decode_position(scope: str, cursor: str | None) -> int | None:
    """A numeric cursor."""
    value = decode_cursor(scope, cursor)
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 18 else None


def position_cursor(scope: str, position: int | None) -> str:
    """The cursor of the next page; empty on the last."""
    return "" if position is None else encode_cursor(scope, str(position))


def page_of_filtered(
    scope: str, items: Mapping[K, T], passes: Callable[[T], bool], *, limit: int, cursor: str | None
) -> tuple[list[T], str]:
    """The same over a mapping in its order, of which only what the page needs is looked at: tens of thousands of items."""
    last = decode_cursor(scope, cursor)
    rest = iter(items.items())
    if last is not None and last in items:
        for key, _ in rest:
            if key == last:
                break
    page: list[T] = []
    last_key = ""
    for key, item in rest:
        if not passes(item):
            continue
        if len(page) == limit:
            return page, encode_cursor(scope, last_key)
        page.append(item)
        last_key = key
    return page, ""


def page_by_key(
    scope: str, items: Sequence[T], key: Callable[[T], str], *, limit: int, cursor: str | None
) -> tuple[list[T], str]:
    """A page of an in-memory list and the next cursor. The cursor names the last item given, so inserts don't shift."""
    last = decode_cursor(scope, cursor)
    start = 0
    if last is not None:
        start = next((i + 1 for i, item in enumerate(items) if key(item) == last), 0)
    page = list(items[start : start + limit])
    is_last = start + limit >= len(items)
    return page, "" if is_last else encode_cursor(scope, key(page[-1]))
