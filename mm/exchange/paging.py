"""Reading listings to their end, with a guard against cursors that run in circles.

The venue accepts a garbage cursor silently and answers a first-looking page, so a loop is only seen by us.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from mm.exchange.port import ExchangeUnavailable, Page

T = TypeVar("T")

MAX_PAGES: Final = 10_000


async def pages(
    read: Callable[[str | None], Awaitable[Page[T]]], *, what: str
) -> AsyncGenerator[list[T], None]:
    """The pages of a listing in order. Iterate under `contextlib.aclosing`.

    Raises:
        ExchangeUnavailable: A cursor came twice, or there was no end within `MAX_PAGES` pages.
    """
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await read(cursor)
        yield page.items
        if page.cursor is None:
            return
        if page.cursor in seen:
            raise ExchangeUnavailable(f"the cursor of {what} runs in a circle", endpoint=what)
        seen.add(page.cursor)
        cursor = page.cursor
    raise ExchangeUnavailable(f"{what} has no end within {MAX_PAGES} pages", endpoint=what)


async def read_all(read: Callable[[str | None], Awaitable[Page[T]]], *, what: str) -> list[T]:
    """All items of a listing. Raises as `pages` does, and whatever `read` raises."""
    items: list[T] = []
    async with aclosing(pages(read, what=what)) as found:
        async for page in found:
            items.extend(page)
    return items
