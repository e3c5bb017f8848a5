"""A graph's dicts, whose names a person types: a name that is not there is met with the near ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, NoReturn, TypeVar

from torchpruner_core.analysis.requests import near_names
from torchpruner_core.errors import CutError, UnknownModuleError, UnknownNodeError

V = TypeVar("V")


class Named(OrderedDict[str, V]):
    """An ``OrderedDict`` whose ``KeyError`` says what to do."""

    kind: ClassVar[str]
    error: ClassVar[type[CutError]]

    def __missing__(self, name: Any) -> NoReturn:
        if not self:
            raise self.error(
                f"there is no {self.kind} called {name!r}: the graph has none; call "
                "build_graph(inputs) first"
            )
        raise self.error(
            f"there is no {self.kind} called {name!r}{near_names(name, self)}; "
            f"list(graph.{self.kind}s) gives the names",
            **{self.kind: str(name)},
        )


class Nodes(Named[V]):
    kind = "node"
    error = UnknownNodeError


class Operators(Named[V]):
    kind = "operator"
    error = UnknownNodeError


class Modules(Named[V]):
    kind = "module"
    error = UnknownModuleError
