"""Takes a body as it streams in: hashed and written piece by piece, never in memory as a whole."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread

from torchpruner_service.problems import InvalidRequest, TooLarge
from torchpruner_service.settings import MIB
from torchpruner_service.storage.store_errors import NO_ROOM, full

PIECE = 1 * MIB

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


class StagedFile:
    """A received file: where it is, its size and sha256 (hex). Use as ``with``: it removes
    itself."""

    def __init__(self, path: Path, size: int, digest: str) -> None:
        self.path = path
        self.size = size
        self.digest = digest

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


def expected_digest(header: str | None) -> str | None:
    """Return the sha256 (hex) of a ``Content-Digest`` header (RFC 9530), if it has one."""
    if not header:
        return None
    match = _DIGEST.search(header)
    if match is None:
        raise InvalidRequest(
            "Content-Digest must have a sha-256 in the form sha-256=:<base64>:",
            slug="invalid-digest",
        )
    try:
        digest = base64.b64decode(match[1], validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise InvalidRequest(
            "Content-Digest's sha-256 is not the base64 of 32 bytes", slug="invalid-digest"
        )
    return digest.hex()


def check_digest(expected: str | None, received: str) -> None:
    """Raise where a file did not arrive as it was sent."""
    if expected is not None and expected != received:
        raise InvalidRequest(
            "the bytes that arrived are not those the digest announces; send the file again",
            slug="digest-mismatch",
            expected=expected,
            received=received,
        )


async def stage(
    chunks: AsyncIterator[bytes], folder: Path, limit: int, idle_timeout: float
) -> StagedFile:
    """Write ``chunks`` into a new file of ``folder``.

    Raises ``TooLarge`` past ``limit`` bytes, ``StorageFull`` on a full disk, ``InvalidRequest``
    where the sender stalls for ``idle_timeout`` seconds. Nothing is left behind then.
    """
    path = folder / f"upload-{secrets.token_hex(12)}"
    hasher = hashlib.sha256()
    size = 0
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _full(folder, error) from error
    writing: asyncio.Future[None] | None = None

    def keep(piece: bytes) -> None:
        hasher.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]

    try:
        async for piece in _pieces(chunks, idle_timeout):
            size += len(piece)
            if size > limit:
                raise TooLarge(
                    f"the file is larger than {limit} bytes, this service's limit", limit=limit
                )
            # Hashing and writing one piece overlaps with receiving the next.
            if writing is not None:
                await writing
            writing = asyncio.ensure_future(anyio.to_thread.run_sync(keep, piece))
        if writing is not None:
            await writing
        done = True
    except OSError as error:
        raise _full(folder, error) from error
    finally:
        if writing is not None and not writing.done():
            with anyio.CancelScope(shield=True):
                await asyncio.wait([writing])
        os.close(descriptor)
        if not done:
            path.unlink(missing_ok=True)
    return StagedFile(path, size, hasher.hexdigest())


def _full(folder: Path, error: OSError) -> Exception:
    if error.errno in NO_ROOM:
        return full(folder, "the disk where uploads are staged", error.errno)
    return error


async def _pieces(chunks: AsyncIterator[bytes], idle_timeout: float) -> AsyncIterator[bytes]:
    """Join small chunks into pieces of about a mebibyte."""
    waiting: list[bytes] = []
    size = 0
    iterator = chunks.__aiter__()
    while True:
        try:
            with anyio.fail_after(idle_timeout):
                chunk = await iterator.__anext__()
        except StopAsyncIteration:
            break
        except TimeoutError as error:
            raise InvalidRequest(
                f"no bytes arrived for {idle_timeout:.0f} s; send the file again, or use a "
                f"resumable "
                "upload",
                slug="upload-stalled",
            ) from error
        if chunk:
            waiting.append(chunk)
            size += len(chunk)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
