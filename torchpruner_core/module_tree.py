"""The modules within a module, by dotted path, in one plain walk.

They are what ``named_modules`` gives, which nests a generator for each level of the tree and takes
several times as long: on a small network a good part of what an analysis takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def every_path(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return paths and modules, parents first; a module that is shared is there under each of its paths."""
    found = [("", model)]

    def follow(prefix: str, module: nn.Module) -> None:
        for name, child in module._modules.items():
            if child is not None:
                path = prefix + name
                found.append((path, child))
                if child._modules:
                    follow(path + ".", child)

    follow("", model)
    return found


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Return each module once, under its first path, parents first."""
    seen: set[int] = set()
    found: dict[str, nn.Module] = {}
    for path, module in every_path(model):
        if id(module) not in seen:
            seen.add(id(module))
            found[path] = module
    return found
