"""What a user may write for indices and requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torchpruner_core.analysis.requests import integer, near_names
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import CutDimError, CutError, CutIndexError, UnknownModuleError

ModuleT = TypeVar("ModuleT")
Indices = Any
"""A sequence, a numpy array or a tensor of integers."""


MOST = 2**63 - 1
"""The largest index that an answer could ever hold."""


def index_of(index: Indices) -> tuple[int, ...]:
    """Return indices as plain integers. Raises ``CutIndexError`` for anything but a flat list of
    integers."""
    try:
        if isinstance(index, (str, bytes, Mapping)):
            raise TypeError
        values = list(index)
    except TypeError:
        raise CutIndexError(
            f"index is a list or an array of integers, not {type(index).__name__}"
        ) from None
    found = []
    for value in values:
        number = integer(value)
        if number is None:
            raise CutIndexError(f"index holds {value!r}, which is not an integer")
        if abs(number) > MOST:
            raise CutIndexError(f"index {number} is out of range")
        found.append(number)
    return tuple(found)


def dim_of(dim: Any) -> int:
    """Return an axis as a plain integer. Raises ``CutDimError`` for anything else."""
    number = integer(dim)
    if number is None or abs(number) > MOST:
        raise CutDimError(
            f"dim is the number of an axis, negative ones counting from the end, not {dim!r}"
        )
    return number


def request_of(item: Any) -> CutRequest:
    """Return a request given as one, as ``(node, dim, index)`` or as a dict of these.

    Raises ``CutError`` for anything else.
    """
    if isinstance(item, CutRequest):
        item = (item.node, item.dim, item.index)
    if isinstance(item, Mapping) and item.keys() >= {"node", "dim", "index"}:
        item = (item["node"], item["dim"], item["index"])
    if not isinstance(item, (tuple, list)) or len(item) != 3:
        raise CutError(
            f"a request is a CutRequest(node, dim, index), a tuple or a dict of these, not {item!r}"
        )
    node, dim, index = item
    return CutRequest(str(node), dim_of(dim), index_of(index))


def result_of(result: Any) -> CutResult:
    """Return a result, also from its dict. Raises ``CutError`` for what is none."""
    if isinstance(result, CutResult):
        return result
    try:
        if not isinstance(result, Mapping) or "terminal" not in result:
            raise ValueError(f"it is {type(result).__name__}")
        return CutResult.from_dict(result)
    except (ValueError, TypeError, KeyError) as error:
        raise CutError(f"a result is what cut_analysis returned: {error}") from error


def result_body(result: Any) -> dict[str, Any]:
    """The member of a request that carries a result."""
    return {} if result is None else {"result": result_of(result).to_dict()}


def found_module(modules: Mapping[str, ModuleT], name: str) -> ModuleT:
    """Return a module by name. Raises ``UnknownModuleError``, a ``KeyError``, with the near names."""
    if name not in modules:
        raise UnknownModuleError(
            f"there is no module called {name!r}{near_names(name, modules)}; list(remote.modules) gives "
            "the names",
            module=str(name),
        )
    return modules[name]
