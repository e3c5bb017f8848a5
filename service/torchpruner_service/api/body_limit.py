"""Refuses JSON bodies that are too large, before they are in memory, and those that do not come.
Uploads have limits of their own."""

from __future__ import annotations

import asyncio

from fastapi import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchpruner_service.problems import MEDIA_TYPE, TooLarge

SLOW = "the body did not arrive in time; send it again"
STREAMED = ("/v1/models", "/v1/uploads/")


class BodyLimit:
    """ASGI middleware: an ``application/json`` body of more than ``limit`` bytes is a 413, one that
    takes longer than ``timeout`` seconds a 408."""

    def __init__(self, app: ASGIApp, limit: int, timeout: float) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout
        self._detail = (
            f"the body is larger than {limit} bytes; ask for fewer cuts, or send indices as ranges"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        if scope["type"] != "http" or _streamed(scope["path"], headers):
            await self._app(scope, receive, send)
            return
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self._limit):
            await self._refusal(scope)(scope, receive, send)
            return
        received, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._timeout

        async def counted() -> Message:
            nonlocal received, complete
            if complete:
                # What comes now is that the caller hung up.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, SLOW, {"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._limit:
                # FastAPI lets this kind of exception through while it reads a body.
                raise HTTPException(413, self._detail)
            return message

        await self._app(scope, counted, send)

    def _refusal(self, scope: Scope) -> Response:
        identifier = scope.get("state", {}).get("request_id", "")
        problem = TooLarge(self._detail, limit=self._limit).to_dict() | {"request_id": identifier}
        return Response(to_json(problem), 413, media_type=MEDIA_TYPE)


def _streamed(path: str, headers: dict[bytes, bytes]) -> bool:
    is_json = headers.get(b"content-type", b"").startswith(b"application/json")
    return (
        (path == STREAMED[0] and not is_json)
        or path.startswith(STREAMED[1])
        or (path.startswith("/v1/models/") and path.endswith("/weights"))
    )
