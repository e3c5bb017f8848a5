"""Streams a stored object with ETag, ranges and conditions (RFC 9110), in constant memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from torchpruner_service.observability.metrics import BYTES_OUT
from torchpruner_service.problems import MEDIA_TYPE
from torchpruner_service.storage.objects import Objects

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


def download(
    request: Request, objects: Objects, key: str, facts: dict[str, Any], name: str
) -> Response:
    """Answer a GET or HEAD for the object ``key`` of ``facts['size']`` bytes and
    ``facts['sha256']``."""
    size, etag = int(facts["size"]), f'"{facts["sha256"]}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if_match = request.headers.get("if-match")
    if if_match is not None and not _matches(if_match, etag):
        return _refused(412, "The file is another one now", headers)
    start, end, status = 0, size, 200
    wanted = request.headers.get("range")
    if_range = request.headers.get("if-range")
    if wanted and request.method == "GET" and (if_range is None or if_range == etag):
        span = _span(wanted, size)
        if span == "unsatisfiable":
            return _refused(
                416, f"the file has {size} bytes", {**headers, "Content-Range": f"bytes */{size}"}
            )
        if isinstance(span, tuple):
            start, end, status = *span, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if status == 200:
        headers["Repr-Digest"] = f"sha-256=:{_base64(facts['sha256'])}:"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=facts["media_type"])
    return StreamingResponse(
        _counted(objects.astream(key, start, end)), status, headers, facts["media_type"]
    )


async def _counted(
    chunks: AsyncIterator[bytes | memoryview],
) -> AsyncIterator[bytes | memoryview]:
    async for chunk in chunks:
        BYTES_OUT.inc(len(chunk))
        yield chunk


def _span(header: str, size: int) -> tuple[int, int] | str | None:
    """Return ``(start, end)``, ``"unsatisfiable"``, or ``None`` for what is to be ignored."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        # Several ranges, or another unit: a server may answer with the whole.
        return None
    if not match[1]:
        length = min(size, _number(match[2]))
        return (size - length, size) if length else "unsatisfiable"
    start = _number(match[1])
    end = min(size, _number(match[2]) + 1) if match[2] else size
    if match[2] and _number(match[2]) < start:
        return None
    return (start, end) if start < size else "unsatisfiable"


def _number(digits: str) -> int:
    """A position in a file; one of more digits than any has is past every end."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else 10**18


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


def _refused(status: int, detail: str, headers: dict[str, str]) -> Response:
    from torchpruner_service.api.answers import json_answer

    slug = {412: "precondition-failed", 416: "range-not-satisfiable"}[status]
    body = {"type": slug, "title": detail.capitalize(), "status": status, "detail": detail}
    kept = {key: value for key, value in headers.items() if key in {"ETag", "Content-Range"}}
    answer = json_answer(body, status, kept)
    answer.headers["content-type"] = MEDIA_TYPE
    return answer


def _base64(hexadecimal: str) -> str:
    import base64

    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
