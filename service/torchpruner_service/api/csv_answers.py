"""Lists as CSV (RFC 4180), for spreadsheets and data frames: the whole list, a row for each item."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Query, Response

CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page as JSON; the whole list as CSV",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    }
}
"""The answers of a list that can be CSV, for OpenAPI."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes spreadsheets run a text as a formula."""


def _wants_csv(
    format: Annotated[
        Literal["json", "csv"] | None,
        Query(description="`csv`: the whole list as CSV, as `Accept: text/csv` asks for it too"),
    ] = None,
    accept: Annotated[str | None, Header(max_length=2000)] = None,
) -> bool:
    if format is not None:
        return format == "csv"
    kinds = [part.partition(";")[0].strip().lower() for part in (accept or "").split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


AsCsv = Annotated[bool, Depends(_wants_csv)]


def csv_answer(name: str, columns: Sequence[str], items: Iterable[Mapping[str, Any]]) -> Response:
    """Return the ``columns`` of ``items`` as a CSV file called ``name``.

    A column ``a.b`` is the member ``b`` of the member ``a``; one that ends in ``_at`` is a time and is
    written as ISO 8601. Lists are joined by spaces. A text that a spreadsheet would run as a formula
    has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for item in items:
        writer.writerow([_cell(column, item) for column in columns])
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


def _cell(column: str, item: Mapping[str, Any]) -> Any:
    value: Any = item
    for member in column.split("."):
        value = value.get(member) if isinstance(value, Mapping) else None
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and column.endswith("_at"):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    if isinstance(value, str):
        # A lone surrogate, which JSON can send, is no text that UTF-8 can answer with.
        value = value.encode("utf-8", "backslashreplace").decode()
        return f"'{value}" if value.startswith(FORMULA) else value
    return "" if value is None else value
