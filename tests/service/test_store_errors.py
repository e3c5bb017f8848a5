"""What a store's troubles are called, and what each says to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from obstore.exceptions import BaseError, PermissionDeniedError

from torchpruner_service.problems import StorageFull
from torchpruner_service.storage.store_errors import StoreErrors, full

FOLDER = Path("/var/lib/somewhere")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BaseError("... NoSuchBucket ..."), 503, "does not exist"),
        (BaseError("... No space left on device ..."), 507, "is full"),
        (BaseError("... Disk quota exceeded ..."), 507, "disk quota"),
        (BaseError("... Read-only file system ..."), 503, "read-only"),
        (PermissionDeniedError("403"), 503, "its credentials"),
        (BaseError("connection reset"), 503, "does not answer (BaseError)"),
    ],
)
def test_a_remote_store_s_error_is_known_by_its_words(
    error: Exception, status: int, words: str
) -> None:
    found = StoreErrors("s3://bucket", None).translated(error)
    assert (found.status, words in found.detail) == (status, True), found
    assert status == 507 or "s3://bucket" in found.detail


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (errno.EACCES, 503, "who owns the folder"),
        (errno.EPERM, 503, "who owns the folder"),
        (errno.EROFS, 503, "read-only"),
        (errno.ENOSPC, 507, "is full"),
        (errno.EDQUOT, 507, "disk quota"),
        (errno.EIO, 503, "does not answer (OSError)"),
    ],
)
def test_a_folder_s_error_is_known_by_its_number_and_shows_no_path(
    number: int, status: int, words: str
) -> None:
    found = StoreErrors(FOLDER.as_uri(), FOLDER).translated(OSError(number, "x", str(FOLDER)))
    assert (found.status, words in found.detail) == (status, True), found
    assert str(FOLDER) not in found.detail


async def test_what_is_not_there_is_a_key_error_in_both_worlds() -> None:
    errors = StoreErrors("s3://bucket", None)

    def missing() -> None:
        raise FileNotFoundError("no such file")

    async def also_missing() -> None:
        raise FileNotFoundError("no such file")

    with pytest.raises(KeyError):
        errors.guard(missing)
    with pytest.raises(KeyError):
        await errors.aguard(also_missing)


def test_a_folder_that_is_gone_is_not_taken_for_one_without_inodes(tmp_path: Path) -> None:
    found = full(tmp_path / "gone", "the store")
    assert isinstance(found, StorageFull) and "is full" in found.detail
    assert "reason" not in found.fields
