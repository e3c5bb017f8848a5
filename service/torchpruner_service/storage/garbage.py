"""Removes what nobody owns any more: blobs, models, artifacts, forgotten uploads, staged files.

A file is only removed once it is older than a grace time, so that what is being uploaded or made right now is
left alone. Everything that an owned model needs is kept: its own blob, that of the model it was derived from,
and weights that were added.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects
from torchpruner_service.storage.tree_removal import remove_tree

GRACE_SECONDS = 3600.0

Keeps = Callable[[list[str]], bool]


@dataclass(frozen=True, slots=True)
class Collected:
    """How many of each were removed."""

    blobs: int
    models: int
    artifacts: int
    uploads: int


def collect(objects: Objects, *, upload_ttl: float, grace: float = GRACE_SECONDS) -> Collected:
    """Remove everything without an owner that is older than ``grace`` seconds."""
    before = time.time() - grace
    owned: dict[str, set[str]] = {"models": set(), "blobs": set(), "artifacts": set()}
    holdings = []
    for key in objects.keys("tenants/"):
        kind, item = key.split("/")[2:4]
        if kind == "holdings":
            holdings.append(key)
        else:
            owned.setdefault(kind, set()).add(item)
    blobs = set(owned["blobs"])
    for key in holdings:
        blobs.add(str((objects.get_json(key) or {}).get("blob")))
    for model in owned["models"]:
        blobs.add(str((objects.get_json(layout.manifest(model)) or {}).get("blob")))
    uploads = _expired_uploads(objects, time.time() - upload_ttl)
    return Collected(
        blobs=_remove(objects, "blobs/", before, lambda parts: parts[2].split(".")[0] in blobs),
        models=_remove(objects, "models/", before, lambda parts: parts[1] in owned["models"]),
        artifacts=_remove(
            objects, "artifacts/", before, lambda parts: parts[1] in owned["artifacts"]
        ),
        uploads=uploads,
    )


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


def _remove(objects: Objects, prefix: str, before: float, is_owned: Keeps) -> int:
    doomed = [
        key
        for key, modified in objects.keys_with_times(prefix)
        if modified < before and not is_owned(key.split("/"))
    ]
    for key in doomed:
        objects.delete(key)
    return len(doomed)


def _expired_uploads(objects: Objects, before: float) -> int:
    doomed = []
    for key, modified in objects.keys_with_times("uploads/"):
        if key.endswith("/facts.json") and modified < before:
            doomed.append(key.removesuffix("facts.json"))
    for folder in doomed:
        for key in list(objects.keys(folder)):
            objects.delete(key)
    return len(doomed)
