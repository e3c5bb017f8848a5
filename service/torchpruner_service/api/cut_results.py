"""A client's CutResult, checked for form before anything is done with it."""

from __future__ import annotations

from typing import Any

from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.cut_result import decode_indices as decode
from torchpruner_service.api.schemas import CutMany, CutOne, CutSpec, IndexRanges, Result
from torchpruner_service.problems import InvalidRequest

MAX_INDICES = 5_000_000


def result_of(body: Result | None) -> CutResult | None:
    """Return the core's result. Raises ``InvalidRequest`` where it is not one."""
    if body is None:
        return None
    plain = body.model_dump()
    try:
        for key in ("terminal", "iner"):
            for axes in plain.get(key, {}).values():
                for axis in axes:
                    _check_span(axis)
        result = CutResult.from_dict(plain)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidRequest(
            f"result is not a cut result ({type(error).__name__}: {error}); send one that "
            "cut-analysis returned",
            slug="invalid-result",
        ) from error
    for name, axes in (*result.terminal.items(), *result.iner.items()):
        for indices in axes:
            if indices is not None and ((indices[1:] <= indices[:-1]).any() or indices[0] < 0):
                raise InvalidRequest(
                    f"the indices of {name} are not sorted, unique and from zero",
                    slug="invalid-result",
                    node=name,
                )
    return result


def requests_of(body: CutOne | CutMany) -> list[CutRequest]:
    """Return the cuts that a body asks for."""
    specs: list[CutSpec] = [body] if isinstance(body, CutOne) else list(body.cuts)
    return [_request(spec) for spec in specs]


def _request(spec: CutSpec) -> CutRequest:
    if (spec.node is None) == (spec.module is None):
        raise InvalidRequest(
            "a cut names either a node, or a module and its attribute", slug="invalid-request"
        )
    node = spec.node or f"{spec.module}.{spec.attribute}"
    index: Any = spec.index
    if isinstance(index, IndexRanges):
        _check_span({"ranges": index.ranges})
        index = decode({"ranges": index.ranges}).tolist()
    return CutRequest(node, spec.dim, tuple(index))


def _check_span(axis: Any) -> None:
    """Refuse ranges that would unpack into more indices than any axis has."""
    if isinstance(axis, dict):
        total = sum(max(0, int(b) - int(a)) for a, b in axis.get("ranges", ()))
        if total > MAX_INDICES:
            raise InvalidRequest(
                f"the ranges hold {total} indices, more than {MAX_INDICES}", slug="invalid-index"
            )
