"""Refuses JSON bodies that are too large, before they are in memory. Uploads have limits of their
own."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchpruner_service.problems import TooLarge

STREAMED = ("/v1/models", "/v1/uploads/")


class BodyLimit:
    """ASGI middleware: an ``application/json`` body of more than ``limit`` bytes is a 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _streamed(scope["path"]):
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise TooLarge(
                    f"the body is larger than {self._limit} bytes; ask for fewer cuts, or "
                    f"send indices as "
                    "ranges",
                    limit=self._limit,
                )
            return message

        await self._app(scope, counted, send)


def _streamed(path: str) -> bool:
    return (
        path == STREAMED[0]
        or path.startswith(STREAMED[1])
        or (path.startswith("/v1/models/") and path.endswith("/weights"))
    )
