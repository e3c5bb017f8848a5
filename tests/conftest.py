"""How the suite is divided among processes: who shares a service shares a process, the long begin."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Folders in the order in which they begin, so that no long file is left for the end.
LONG = ("dashboard", "project", "service", "attacks", "client", "core/zoo", "core/planning")
# Fixtures of a folder that are worth one process: services, with the models that they hold.
SHARED = {"service", "guarded", "target"}


def begins(path: Path) -> int:
    folder = path.parent.relative_to(HERE).as_posix()
    return LONG.index(folder) if folder in LONG else len(LONG)


def together(item: pytest.Item, group: str) -> None:
    """Tests of one group run in one process, in their order."""
    item.add_marker(pytest.mark.xdist_group(group))
    # xdist 3.8 writes the group where pytest 9.2 no longer reads it, and divides files then:
    # https://github.com/pytest-dev/pytest-xdist/issues/1386
    if hasattr(item, "_id") and item.config.getoption("loadgroup", False):
        item._id = type(item._id).parse(f"{item.nodeid}@{group}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    parts = []
    for path, of_file in groupby(items, key=lambda item: item.path):
        members = list(of_file)
        names = {name for item in members for name in getattr(item, "fixturenames", ())}
        shares = bool(SHARED & names)
        group = path.parent if shares else path
        for item in members:
            together(item, group.relative_to(HERE).as_posix())
        parts.append((begins(path), not shares, members))
    parts.sort(key=lambda part: part[:2])
    items[:] = [item for *_, members in parts for item in members]
