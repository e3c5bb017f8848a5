"""Removes what nobody owns any more: blobs, models, artifacts, what was added to models that are gone,
forgotten uploads, staged files.

Marked, waited for, looked at again, and only then deleted:

1. what is older than a grace time and has no owner is *moved* into the trash;
2. whoever wants it again writes that they own it *first* and looks whether it is there *then*;
3. later the trash is listed, the owners are read after that, and what has an owner now is put back,
   the rest deleted.

So it does not matter when anybody is slow, or dies. An owner written before the owners are read in 3
gets the file back. One written later looks after the file was moved away, does not find it, and writes
it anew. The trash holds each removal under a name of its own, so a deletion that comes late hits
nothing else. (Moving is one step on a disk; where it is a copy and a deletion, the trash is kept for
some time in any case, which is far longer than the two are apart.)
"""

from __future__ import annotations

import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects
from torchpruner_service.storage.tree_removal import remove_tree

GRACE_SECONDS = 3600.0
TRASH_SECONDS = 600.0
"""How long the trash keeps things where moving there is not one step, or where nobody is in a hurry."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How many of each went into the trash, and how many uploads were forgotten."""

    blobs: int
    models: int
    artifacts: int
    uploads: int


@dataclass(slots=True)
class Owned:
    """What some tenant has at the moment: ids by kind."""

    models: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    artifacts: set[str] = field(default_factory=set)
    holders: set[tuple[str, str]] = field(default_factory=set)
    """Tenants with each model that they have, and the uploaded model that it was derived from."""

    def has(self, key: str) -> bool:
        """Whether an object belongs to somebody."""
        parts = key.split("/")
        if parts[0] == "tenants":
            return (parts[1], parts[3]) in self.holders
        if parts[0] == "blobs":
            return parts[2].split(".")[0] in self.blobs
        return parts[1] in (self.models if parts[0] == "models" else self.artifacts)


def collect(objects: Objects, *, upload_ttl: float, grace: float = GRACE_SECONDS) -> Collected:
    """Put everything without an owner that is older than ``grace`` seconds into the trash, and empty
    that of what has been there for a while (at once, without a grace)."""
    patience = TRASH_SECONDS if grace > 0 or objects.local_root is None else 0.0
    empty_trash(objects, patience)
    before = time.time() - grace
    owned = read_owners(objects)
    moved = {
        kind: _discard(objects, f"{kind}/", before, owned)
        for kind in ("blobs", "models", "artifacts")
    }
    _discard_holdings(objects, before, owned)
    if not patience:
        empty_trash(objects, patience)
    uploads = _expired_uploads(objects, time.time() - upload_ttl)
    return Collected(**moved, uploads=uploads)


def read_owners(objects: Objects) -> Owned:
    """What tenants have, and the files that it is made from."""
    owned, entries = Owned(), []
    for key in objects.keys("tenants/"):
        tenant, kind, item = key.split("/")[1:4]
        if kind == "models":
            owned.models.add(item)
            owned.holders.add((tenant, item))
            entries.append(key)
        elif layout.is_holding(key) and key.split("/")[4] == layout.WEIGHTS:
            entries.append(key)
        elif kind == "blobs":
            owned.blobs.add(item)
        elif kind == "artifacts":
            owned.artifacts.add(item)
    for key in entries:
        facts = objects.get_json(key) or {}
        tenant, kind, item = key.split("/")[1:4]
        if kind == "models":
            if "blob" not in facts:
                # Written by a version whose entries did not name the file.
                manifest = layout.manifest(item)
                facts = objects.get_json(manifest) or _discarded_json(objects, manifest) or {}
            owned.holders.add((tenant, str(facts.get("root") or item)))
        owned.blobs.add(str(facts.get("blob")))
    return owned


def empty_trash(objects: Objects, patience: float) -> int:
    """Put back what has an owner again and delete what has been in the trash for ``patience``
    seconds; return how many were put back.

    The order matters: an owner that is not read here was written after all of these were moved.
    """
    waiting = list(objects.keys(layout.TRASH))
    if not waiting:
        return 0
    owned, put_back = read_owners(objects), 0
    for place in waiting:
        key, moved_at = layout.undiscarded(place)
        if owned.has(key):
            objects.restore(place, key)
            put_back += 1
        elif moved_at <= time.time() - patience:
            objects.delete(place)
    return put_back


def sweep_scratch(folder: Path, older_than: float) -> int:
    """Remove staged files and job folders that a killed process left; return how many."""
    if not folder.is_dir():
        return 0
    removed = 0
    for path in folder.iterdir():
        try:
            facts = path.lstat()
            if facts.st_mtime > time.time() - older_than:
                continue
            if stat.S_ISDIR(facts.st_mode):
                remove_tree(path)
            else:
                path.unlink()
            removed += 1
        except OSError:
            # One that cannot go keeps no other.
            continue
    return removed


def _discard(objects: Objects, prefix: str, before: float, owned: Owned) -> int:
    doomed = [
        key
        for key, modified in objects.keys_with_times(prefix)
        if modified < before and not owned.has(key)
    ]
    return _move(objects, doomed)


def _discard_holdings(objects: Objects, before: float, owned: Owned) -> int:
    """What was added to a model after it had been removed, by somebody who was slow.

    Nobody looks for it in the trash. So owners are read after it was seen: they are written before
    anything that they hold.
    """
    doomed = [
        key
        for key, modified in objects.keys_with_times("tenants/")
        if modified < before and layout.is_holding(key) and not owned.has(key)
    ]
    if doomed:
        owned = read_owners(objects)
    return _move(objects, [key for key in doomed if not owned.has(key)])


def _move(objects: Objects, keys: list[str]) -> int:
    return sum(
        objects.move(key, layout.discarded(key, time.time(), secrets.token_hex(4))) for key in keys
    )


def _discarded_json(objects: Objects, key: str) -> dict[str, object] | None:
    for place in objects.keys(layout.all_discarded(key)):
        found: dict[str, object] | None = objects.get_json(place)
        return found
    return None


def _expired_uploads(objects: Objects, before: float) -> int:
    """Forget uploads for which nothing has come for a while."""
    latest: dict[str, float] = {}
    for key, modified in objects.keys_with_times("uploads/"):
        folder = key.partition("/parts/")[0].removesuffix("/facts.json") + "/"
        latest[folder] = max(modified, latest.get(folder, 0.0))
    doomed = [folder for folder, modified in latest.items() if modified < before]
    for folder in doomed:
        for key in list(objects.keys(folder)):
            objects.delete(key)
    return len(doomed)
