"""Lists in pages: ``limit`` items from an opaque ``cursor``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query

from torchpruner_service.problems import InvalidRequest

Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page")]
Cursor = Annotated[
    str | None, Query(max_length=100, description="The `next` of the page before this one")
]

T = TypeVar("T")


def page(
    items: Sequence[T], limit: int, cursor: str | None, show: Callable[[T], Any]
) -> dict[str, Any]:
    """Return one page of ``items`` as a ``Page``; only the items on it are shown."""
    start = _decode(cursor)
    end = start + limit
    return {
        "items": [show(item) for item in items[start:end]],
        "total": len(items),
        "next": _encode(end) if end < len(items) else None,
    }


async def page_of_views(
    items: Sequence[T], limit: int, cursor: str | None, show: Callable[[T], Awaitable[Any]]
) -> dict[str, Any]:
    """Return the same where an item is shown by asking for more."""
    answer = page(items, limit, cursor, lambda item: item)
    return {**answer, "items": [await show(item) for item in answer["items"]]}


def unknown_cursor() -> InvalidRequest:
    return InvalidRequest(
        "the cursor is not one that this service gave; start from the first page",
        slug="invalid-cursor",
    )


def _encode(offset: int) -> str:
    return base64.urlsafe_b64encode(f"o{offset}".encode()).decode().rstrip("=")


def _decode(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        if text[:1] != "o" or not text[1:].isdigit() or len(text) > 12:
            raise ValueError
        return int(text[1:])
    except (ValueError, binascii.Error, UnicodeError) as error:
        raise unknown_cursor() from error
