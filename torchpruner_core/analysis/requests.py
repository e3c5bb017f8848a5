"""Reading what a caller asks for: integers of any library, lists of them, requests, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from torchpruner_core.cut_result import CutRequest, Indices
from torchpruner_core.errors import CutError, CutIndexError

COMPUTED_FROM = (("_orig",), ("_g", "_v"))
"""What ``torch.nn.utils``' older ``spectral_norm`` and ``prune``, and ``weight_norm`` append to a name."""


def checked_indices(index: Any, node: str, dim: int, size: int) -> Indices:
    """Return the indices of one axis sorted; raises ``CutIndexError`` for what is none."""

    def refuse(problem: str) -> CutIndexError:
        return CutIndexError(
            f"{problem}; axis {dim} of {node} has the indices 0 to {size - 1}",
            node=node,
            dim=dim,
            size=size,
        )

    try:
        if isinstance(index, str | bytes | Mapping):
            raise TypeError
        values = list(index)
    except TypeError:
        raise refuse(f"index must be a list of integers, not {index!r}") from None
    if not values:
        raise refuse("index is empty, so there is nothing to cut")
    plain = []
    for value in values:
        number = integer(value)
        if number is None:
            raise refuse(f"index holds {value!r}, which is not an integer")
        plain.append(number)
    outside = [i for i in plain if not 0 <= i < size]
    if outside:
        raise refuse(f"index {outside[0]} is out of range")
    array, counts = np.unique(np.array(plain, dtype=np.int64), return_counts=True)
    if len(array) != len(plain):
        raise refuse(f"index holds {array[counts > 1][:5].tolist()} more than once")
    return array


def integer(value: Any) -> int | None:
    """Return an integer of any library as an ``int``; ``None`` for what is none, flags included."""
    kind = getattr(value, "dtype", type(value).__name__)
    if "bool" in str(kind) or getattr(value, "ndim", None):
        return None
    try:
        return value.__index__()  # type: ignore[no-any-return]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None  # numpy's and torch's arrays have the method, and refuse


def read_requests(requests: Any) -> Iterator[CutRequest]:
    """Yield requests given as ``CutRequest``, as dicts with the same fields, or one of them alone."""
    if isinstance(requests, CutRequest | Mapping):
        requests = (requests,)
    if isinstance(requests, str) or not isinstance(requests, Iterable):
        raise CutError(f"requests are a list of CutRequest(node, dim, index), not {requests!r}")
    for request in requests:
        if isinstance(request, Mapping) and request.keys() >= {"node", "dim", "index"}:
            request = CutRequest(request["node"], request["dim"], request["index"])
        if not isinstance(request, CutRequest):
            raise CutError(
                f"a request is a CutRequest(node, dim, index), or a dict with these keys, not "
                f"{request!r}",
                received=repr(request),
            )
        yield request


def near_names(name: object, names: Iterable[str]) -> str:
    """Return ``" (did you mean ...?)"``, or nothing where no name is near.

    Of a weight that a normalisation or parametrization computes, the tensors it is computed from
    are named: they are what is stored.
    """
    from difflib import get_close_matches

    known = list(names)
    module, _, attribute = str(name).rpartition(".")
    prefix = f"{module}.parametrizations.{attribute}."
    sources = sorted(other for other in known if module and other.startswith(prefix))
    for ends in COMPUTED_FROM:
        stored = [f"{module}.{attribute}{end}" for end in ends]
        sources = sources or [other for other in stored if other in known]
    if sources:
        return (
            f": it is computed from {' and '.join(sources)} as the model runs; cut "
            f"{'that' if len(sources) == 1 else 'one of those'}"
        )
    close = get_close_matches(str(name), known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(close)}?)" if close else ""
