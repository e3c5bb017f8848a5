"""API keys as they are stored: made, listed, revoked, and refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchpruner_service.auth.api_keys import SCOPES, create_key, list_keys, revoke_key
from torchpruner_service.problems import InvalidRequest, NotFound
from torchpruner_service.storage.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path.as_uri())


def test_keys_are_listed_from_the_oldest_with_the_revoked(objects: Objects) -> None:
    made = [create_key(objects, "t", ["read"])[0] for _ in range(3)]
    revoked = revoke_key(objects, made[1].id)
    assert revoked.revoked_at is not None
    assert revoke_key(objects, made[1].id).revoked_at == revoked.revoked_at
    listed = list_keys(objects)
    assert [key.id for key in listed] == [key.id for key in made]
    assert [key.revoked_at is None for key in listed] == [True, False, True]


def test_an_administrator_s_key_may_everything(objects: Objects) -> None:
    key, text = create_key(objects, "t", ["admin", "admin"])
    assert key.scopes == ("admin",) and key.principal().scopes == frozenset(SCOPES)
    assert text.startswith(f"tp_{key.id}_")


@pytest.mark.parametrize(
    ("tenant", "scopes"),
    [("t", []), ("t", ["read", "everything"]), ("T", ["read"]), ("", ["read"])],
)
def test_what_is_no_key_is_refused_and_not_stored(
    objects: Objects, tenant: str, scopes: list[str]
) -> None:
    with pytest.raises(InvalidRequest):
        create_key(objects, tenant, scopes)
    assert list_keys(objects) == []


def test_an_unknown_key_is_not_revoked(objects: Objects) -> None:
    with pytest.raises(NotFound, match="keys list"):
        revoke_key(objects, "b" * 12)
    assert list_keys(objects) == []
