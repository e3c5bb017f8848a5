"""Keeps a local store in a folder whose name nobody can guess.

What runs in the sandbox may read nothing here, and yet could ask whether a path exists: the kernel
lets it, and the paths of blobs are their digests. So the store's folders lie under a name of 128
random bits, which is written in a file that the sandbox cannot read, and no path of the store is ever
given to it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

NAME_FILE = ".store"
FOLDERS = (
    "artifacts",
    "blobs",
    "health",
    "keys",
    "models",
    "pending",
    "tenants",
    "trash",
    "uploads",
)


def hidden_folder(root: Path) -> Path:
    """The store's folder in ``root``, made where there is none. Raises ``OSError``.

    Folders that an older version left in ``root`` itself are moved into it.
    """
    name_file = root / NAME_FILE
    if not name_file.exists():
        draft = root / f"{NAME_FILE}-{secrets.token_hex(8)}"
        draft.write_text(f"store-{secrets.token_hex(16)}")
        draft.chmod(0o600)
        try:
            # Linking is atomic: of two processes that start at once both read the first one's.
            with contextlib.suppress(FileExistsError):
                os.link(draft, name_file)
        finally:
            draft.unlink()
    folder = root / name_file.read_text()
    folder.mkdir(exist_ok=True)
    for name in FOLDERS:
        if (root / name).is_dir():
            _move(root / name, folder / name)
    return folder


def _move(old: Path, new: Path) -> None:
    """Move a folder, or file by file where there is one of the name already."""
    try:
        old.rename(new)
        return
    except OSError:
        files = [path for path in old.rglob("*") if path.is_file()]
    for path in files:
        target = new / path.relative_to(old)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)
