"""Imports point one way: no package of this project holds a circle, wherever an import stands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "torchpruner_core": ROOT / "torchpruner_core",
    "torchpruner_service": ROOT / "service/torchpruner_service",
    "torchpruner_client": ROOT / "clients/python/torchpruner_client",
    "torchpruner_dashboard": ROOT / "clients/dashboard/torchpruner_dashboard",
}


def _modules(package: str) -> dict[str, Path]:
    folder = PACKAGES[package]
    found = {}
    for file in folder.rglob("*.py"):
        parts = (package, *file.relative_to(folder).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imported(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Every module that a file imports, under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in modules:
                    yield inner
                elif node.module in modules:
                    yield node.module or ""


def imports(package: str) -> nx.DiGraph:
    """Return an edge from each module to each module it imports."""
    modules = _modules(package)
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name, file in modules.items():
        graph.add_edges_from((name, other) for other in _imported(file, modules) if other != name)
    return graph


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports_wherever_they_stand(package: str) -> None:
    circles = [sorted(c) for c in nx.strongly_connected_components(imports(package)) if len(c) > 1]
    assert circles == []


if __name__ == "__main__":
    for name in PACKAGES:
        graph = imports(name)
        for circle in nx.strongly_connected_components(graph):
            if len(circle) > 1:
                print(name, len(circle))
                for a, b in sorted(graph.subgraph(circle).edges):
                    print("   ", a.removeprefix(name + "."), "->", b.removeprefix(name + "."))
