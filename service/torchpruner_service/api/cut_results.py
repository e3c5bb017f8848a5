"""Cuts as clients send them: what is asked for, and results that are to be applied.

Both are read against the model's graph before anything is unpacked: a range may not reach past its
axis, and all ranges together not hold more slices than there is reason to ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import SHORT_RUN, AxisCuts, CutRequest, CutResult, Indices
from torchpruner_core.errors import CutError
from torchpruner_service.api.audit_trail import note
from torchpruner_service.api.schemas import CutMany, CutOne, CutSpec, IndexRanges, Result
from torchpruner_service.identity import content_id, cut_key
from torchpruner_service.observability.metrics import CUT_SECONDS
from torchpruner_service.problems import Conflict, InvalidRequest, TooLarge

LARGE = 10**18

MIN_SLICES = 100_000
"""So many slices may be asked for together of any model."""


def requests_of(graph: SolvedGraph, body: CutOne | CutMany) -> list[CutRequest]:
    """Return the cuts that a body asks for.

    Raises ``InvalidRequest`` for a range outside its axis, and ``TooLarge`` where the cuts ask for
    more slices in all than the model has.
    """
    specs: list[CutSpec] = [body] if isinstance(body, CutOne) else list(body.cuts)
    limit = max(MIN_SLICES, len(graph.coupling.component))
    total, requests = 0, []
    for spec in specs:
        node, sizes = _asked(graph, spec)
        total += sum(sizes)
        if total > limit:
            raise TooLarge(
                f"the cuts ask for more than {limit} slices in all, and the model has "
                f"{len(graph.coupling.component)}; ask for each slice once",
                slug="too-many-slices",
                limit=limit,
            )
        index: Iterable[int] = spec.index if isinstance(spec.index, list) else ()
        if isinstance(spec.index, IndexRanges) and sizes:
            index = (i for start, stop in spec.index.ranges for i in range(start, stop))
        requests.append(CutRequest(node, spec.dim, tuple(index)))
    return requests


def analysed(graph: SolvedGraph, body: CutOne | CutMany) -> CutResult:
    """Return the engine's answer to what a body asks for."""
    requests = requests_of(graph, body)
    with CUT_SECONDS.time():
        result = graph.cut_analysis_many(
            requests, granularity=body.granularity, protect_io=body.protect_io
        )
    note(asked=_told(requests), **_costs(result))
    return result


def cut_summary(model: str, result: CutResult) -> dict[str, Any]:
    """What a cut costs, and a ``fingerprint`` that the same cut of the same model has again."""
    return {"fingerprint": content_id("cut", model, cut_key(result)), **_costs(result)}


def _costs(result: CutResult) -> dict[str, int]:
    keys = ("params_before", "params_after", "flops_before", "flops_after")
    return {key: getattr(result, key) for key in keys}


def _told(requests: Sequence[CutRequest]) -> list[dict[str, Any]]:
    """The first requests, as the audit trail keeps them."""
    return [
        {"node": each.node, "dim": each.dim, "slices": len(each.index)} for each in requests[:5]
    ]


def _asked(graph: SolvedGraph, spec: CutSpec) -> tuple[str, list[int]]:
    """The node that a cut is about, and how many slices each of its ranges, or its list, holds."""
    if (spec.node is None) == (spec.module is None):
        raise InvalidRequest(
            "a cut names either a node, or a module and its attribute", slug="invalid-request"
        )
    node = spec.node or f"{spec.module}.{spec.attribute}"
    if isinstance(spec.index, list):
        return node, [len(spec.index)]
    shape = graph.node(node).shape
    if not -len(shape) <= spec.dim < len(shape):
        return node, []  # the analysis says what is wrong with it
    size = shape[spec.dim]
    sizes = [stop - start for start, stop in spec.index.ranges]
    for start, stop in spec.index.ranges:
        if not 0 <= start < stop <= size:
            raise InvalidRequest(
                f"[{_short(start)}, {_short(stop)}) is no range of axis {spec.dim} of {node}, which "
                f"has the indices 0 to {size - 1}",
                slug="invalid-index",
                node=node,
                dim=spec.dim,
                size=size,
            )
    if sum(sizes) > size:
        raise InvalidRequest(
            f"the ranges hold {sum(sizes)} indices of axis {spec.dim} of {node}, which has {size}: "
            "some more than once",
            slug="invalid-index",
            node=node,
            dim=spec.dim,
            size=size,
        )
    return node, sizes


def fitting_result(graph: SolvedGraph, body: Result | None, model: str) -> CutResult | None:
    """Return the engine's own result for the cut that a client sent, or ``None`` for none.

    A cut is taken as it is or not at all: it must be closed, so that the engine, asked for all of
    it, says the same. What a client left out entirely (``iner`` or ``operator`` of the plain form) is
    filled in; everything but what is removed is the engine's word, not the client's.

    Raises ``InvalidRequest`` where ``body`` is not a cut result, and a ``Conflict`` that names the
    first difference where the cut does not fit the graph.
    """
    if body is None:
        return None
    posted = {"terminal": body.terminal}
    if "iner" in body.model_fields_set:
        posted["iner"] = body.iner
    for cuts in posted.values():
        for name, axes in cuts.items():
            _check_spans(graph, name, axes, model)
    plain = {**posted, "operator": body.operator}
    try:
        read = CutResult.from_dict({**plain, "shapes": (body.model_extra or {}).get("shapes")})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidRequest(
            f"result is not a cut result ({type(error).__name__}: {str(error)[:500]}); send one that "
            "cut-analysis returned",
            slug="invalid-result",
        ) from error
    for name, axes in (*read.terminal.items(), *read.iner.items()):
        for indices in axes:
            if indices is not None and ((indices[1:] <= indices[:-1]).any() or indices[0] < 0):
                raise InvalidRequest(
                    f"the indices of {name} are not sorted, unique and from zero",
                    slug="invalid-result",
                    node=name,
                )
    for name, shape in read.shapes.items():
        if name in graph.nodes and graph.nodes[name].shape != shape:
            raise _mismatch(
                f"{name} has the shape {list(graph.nodes[name].shape)} in this model, and the cut was "
                f"made for {list(shape)}",
                model,
                node=name,
            )
    requests = _one_request_a_class(graph, read, model)
    if not requests:
        raise InvalidRequest("the result removes nothing", slug="invalid-result")
    try:
        found = graph.cut_analysis_many(requests)
    except CutError as error:
        raise _mismatch(error.detail, model, cause=error.to_problem()) from error
    for key in posted:
        _compare(key, getattr(read, key), getattr(found, key), model)
    if "operator" in body.model_fields_set:
        _compare_changes(read.operator, found.operator, model)
    note(asked=_told(requests), **cut_summary(model, found))
    return found


def _check_spans(graph: SolvedGraph, name: str, axes: list[Any], model: str) -> None:
    """Refuse what is not of the graph, before ranges are unpacked."""
    node = graph.nodes.get(name)
    if node is None:
        raise _mismatch(f"the model has no node {name[:200]!r}", model, node=name[:200])
    if len(axes) != len(node.shape):
        raise _mismatch(
            f"the cut has {len(axes)} axes for {name}, which has the shape {list(node.shape)}",
            model,
            node=name,
        )
    for dim, (axis, size) in enumerate(zip(axes, node.shape, strict=True)):
        if axis is None:
            continue
        held = len(axis) if isinstance(axis, list) else 0
        if isinstance(axis, Mapping) and axis.get("ranges") == []:
            raise InvalidRequest(
                f"axis {dim} of {name} has empty ranges; write null where nothing goes",
                slug="invalid-result",
                node=name,
            )
        for pair in _ranges(axis):
            if not 0 <= pair[0] < pair[1] <= size:
                raise _mismatch(
                    f"[{_short(pair[0])}, {_short(pair[1])}) is no range of axis {dim} of {name}, "
                    f"which has the indices 0 to {size - 1}",
                    model,
                    node=name,
                    dim=dim,
                )
            held += pair[1] - pair[0]
        if held >= size and held:
            raise _mismatch(
                f"the cut leaves nothing of axis {dim} of {name}: it lists {held} of {size}",
                model,
                node=name,
                dim=dim,
            )


def _ranges(axis: Any) -> list[list[int]]:
    if not isinstance(axis, Mapping):
        return []
    ranges = axis.get("ranges")
    pairs: list[Any] = ranges if isinstance(ranges, list) else [None]
    for pair in pairs:
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair)
        ):
            raise InvalidRequest(
                "result is not a cut result: index ranges look like {'ranges': [[0, 4]]}",
                slug="invalid-result",
            )
    return pairs


def _one_request_a_class(graph: SolvedGraph, read: CutResult, model: str) -> list[CutRequest]:
    """Axes that are pruned together need asking for once; all must list the same indices."""
    seen: dict[int, tuple[str, int, Indices]] = {}
    for name, axes in (*read.terminal.items(), *read.iner.items()):
        for dim, (owner, indices) in enumerate(zip(graph.classes_of(name), axes, strict=True)):
            if indices is None:
                continue
            first = seen.setdefault(owner, (name, dim, indices))
            if not np.array_equal(first[2], indices):
                raise _mismatch(
                    f"axis {dim} of {name} and axis {first[1]} of {first[0]} are pruned together, "
                    "and the cut lists other indices for one than for the other",
                    model,
                    node=name,
                    dim=dim,
                )
    return [CutRequest(n, dim, tuple(index.tolist())) for n, dim, index in seen.values()]


def _compare(
    key: str, received: dict[str, AxisCuts], expected: dict[str, AxisCuts], model: str
) -> None:
    for name, axes in expected.items():
        there = received.get(name, [None] * len(axes))
        for dim, (wanted, got) in enumerate(zip(axes, there, strict=True)):
            if wanted is got or (
                wanted is not None and got is not None and np.array_equal(wanted, got)
            ):
                continue
            count = 0 if got is None else len(got)
            raise _mismatch(
                f"{key!r} lists {count} indices of axis {dim} of {name}, and with the rest of the cut "
                f"{0 if wanted is None else len(wanted)} must go",
                model,
                node=name,
                dim=dim,
                expected=0 if wanted is None else len(wanted),
                received=count,
            )
    for name, axes in received.items():
        if name not in expected and any(indices is not None for indices in axes):
            raise _mismatch(f"{name} does not belong under {key!r}", model, node=name)


def _compare_changes(received: dict[str, Any], expected: dict[str, Any], model: str) -> None:
    for name in (*expected, *received):
        wanted, got = expected.get(name, {}), received.get(name, {})
        for attribute in (*wanted, *got):
            if _amount(wanted.get(attribute, 0)) != _amount(got.get(attribute, 0)):
                raise _mismatch(
                    f"'operator' changes {attribute} of {name} by {_short(got.get(attribute, 0))}, and "
                    f"the cut changes it by {_short(wanted.get(attribute, 0))}",
                    model,
                    operator=name,
                    attribute=attribute,
                )


def _amount(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _mismatch(detail: str, model: str, **fields: Any) -> Conflict:
    return Conflict(
        f"the result does not fit this model: {detail}; ask for the cut analysis of this model again",
        slug="cut-mismatch",
        title="The cut does not fit the model",
        model=model,
        **fields,
    )


def not_the_answer(model: str) -> Conflict:
    return _mismatch("it is not the answer to the request that came with it", model)


def _short(value: Any) -> str:
    """A value that a client sent, as short as a message may show it."""
    if isinstance(value, int) and not -LARGE < value < LARGE:
        return "a number of more than 18 digits"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def check_answer(result: CutResult, limit: int) -> None:
    """Raise ``TooLarge`` where a result would take more than about ``limit`` bytes as JSON.

    Indices that are far apart are listed one by one, once for every tensor that loses them.
    """
    lengths: dict[int, int] = {}
    total = 0
    for cuts in (result.terminal, result.iner, result.added):
        for axes in cuts.values():
            for indices in axes:
                if indices is None:
                    continue
                if id(indices) not in lengths:
                    lengths[id(indices)] = _encoded_length(indices)
                total += lengths[id(indices)]
    if total > limit:
        raise TooLarge(
            f"the answer would have about {total} bytes, more than {limit}; ask for fewer slices at "
            "once, or for slices that lie together",
            slug="answer-too-large",
            limit=limit,
        )


def _encoded_length(indices: Indices) -> int:
    numbers = len(indices)
    if numbers > SHORT_RUN:
        numbers = min(numbers, 2 * (int(np.count_nonzero(np.diff(indices) != 1)) + 1))
    return numbers * (len(str(int(indices[-1]))) + 1) if len(indices) else 2
