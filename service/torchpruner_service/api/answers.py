"""JSON answers without a second validation: these values were made here."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic_core import to_json


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``value`` (plain JSON types and tuples) as a response."""
    return Response(to_json(value), status, headers, media_type="application/json")
