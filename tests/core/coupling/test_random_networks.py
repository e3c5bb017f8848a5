"""The engine against a brute-force reading of what a cut is, on random small networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from tests.core.coupling.network import shown
from tests.core.coupling.networks import networks
from tests.core.operators.brute_force import assert_right, cut_arrays, feeds_for, run
from torchpruner_core import CutRequest, CutResult, prune_onnx, solve_onnx
from torchpruner_core.analysis.closure import Removal
from torchpruner_core.analysis.cut_analysis import result_of
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import decode_indices
from torchpruner_core.errors import (
    AmbiguousCutError,
    CutError,
    EmptyAxisError,
    GraphError,
    OpaqueAxisError,
)
from torchpruner_core.onnx_pruning import masked_onnx

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)

GRANULARITY = st.sampled_from(["auto", "outer", "inner"])


def some_cut(data, network: bytes, graph: SolvedGraph, granularity: str = "auto") -> CutResult:
    """Draw a request on a parameter that some cut answers."""
    note(shown(network))
    axes = [
        (name, dim, size)
        for name, info in graph.nodes.items()
        if info.kind == "parameter"
        for dim, size in enumerate(info.shape)
        if size > 1
    ]
    assume(axes)
    name, dim, size = data.draw(st.sampled_from(axes))
    index = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))
    try:
        return graph.cut_analysis(name, sorted(index), dim, granularity=granularity)
    except (OpaqueAxisError, EmptyAxisError):
        assume(False)
        raise


@BOUNDED
@given(network=networks(), granularity=GRANULARITY, data=st.data())
def test_a_cut_is_consistent_and_complete(network, granularity, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph, granularity)
    assert_right(network, graph, result, feeds_for(graph))
    assert set(result.requested[0].index) <= set(
        result.terminal[result.requested[0].node][result.requested[0].dim].tolist()
    )


@BOUNDED
@given(network=networks(layers=4, constants=True), granularity=GRANULARITY, data=st.data())
def test_constants_that_address_or_count_channels_follow(network, granularity, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph, granularity)
    assert_right(network, graph, result, feeds_for(graph))


@settings(BOUNDED, max_examples=30)
@given(network=networks(layers=3, constants=True), data=st.data())
def test_a_file_with_such_constants_can_be_pruned_again(network, data):
    graph = solve_onnx(network)
    for _ in range(2):
        result = some_cut(data, network, graph)
        network = prune_onnx(network, result)
        graph = solve_onnx(network)
        assert_right(network, graph, some_cut(data, network, graph), feeds_for(graph))


def removal_of(graph: SolvedGraph, result: CutResult) -> Removal:
    """Return the components that a cut removes."""
    removed = np.zeros(len(graph.coupling.component_reason), dtype=np.bool_)
    classes = set()
    for name, axes in chain(result.terminal.items(), result.iner.items()):
        for owner, gone in zip(graph.classes_of(name), axes, strict=True):
            if gone is not None:
                removed[graph.coupling.components_of(owner)[gone]] = True
    starts, reached = graph.coupling.classes_of_component
    for component in np.flatnonzero(removed):
        classes |= set(reached[starts[component] : starts[component + 1]].tolist())
    return Removal(removed, classes)


def is_right(network, graph, result, feeds) -> bool:
    try:
        pruned = run(prune_onnx(network, result), cut_arrays(feeds, result))
        expected = cut_arrays(run(masked_onnx(network, result), feeds), result)
    except (CutError, GraphError):
        return False
    except Exception as error:
        if "ONNXRuntime" in str(error) or "ShapeInference" in str(error):
            return False
        raise
    return all(
        value.shape == expected[name].shape
        and np.allclose(value, expected[name], rtol=1e-4, atol=1e-5)
        for name, value in pruned.items()
    )


def _only_unseen_axes_are_uneven(graph: SolvedGraph, removal: Removal) -> bool:
    """Return whether each view that is not cut along its factors has one that no tensor shows.

    The output channels of a grouped convolution are such a view: as many must go from each group,
    and it would do to take others from each. A cut takes the same ones, as a view demands.
    """
    starts, _ = graph.coupling.axes_of_class
    for view in graph.coupling.views:
        whole, implied = graph.closure._masks(removal, view)
        if np.array_equal(whole, implied) or not whole.any():
            continue
        shown = [f + 1 < len(starts) and starts[f] < starts[f + 1] for f in view.factors]
        if all(shown):
            return False
    return True


@settings(BOUNDED, max_examples=80)
@given(network=networks(layers=3, views=True), granularity=GRANULARITY, data=st.data())
def test_no_smaller_set_of_components_is_a_cut(network, granularity, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph, granularity)
    removal = removal_of(graph, result)
    request = result.requested[0]
    asked = graph.coupling.components_of(graph.classes_of(request.node)[request.dim])
    asked = set(asked[list(request.index)].tolist())
    added = [c for c in np.flatnonzero(removal.removed).tolist() if c not in asked]
    if not 0 < len(added) <= 6:
        return
    feeds = feeds_for(graph)
    subsets = chain.from_iterable(combinations(added, n) for n in range(len(added)))
    for kept in subsets:
        smaller = Removal(np.zeros_like(removal.removed))
        smaller.removed[[*asked, *kept]] = True
        starts, reached = graph.coupling.classes_of_component
        for component in (*asked, *kept):
            smaller.classes |= set(reached[starts[component] : starts[component + 1]].tolist())
        trial = result_of(graph, result.requested, smaller)
        if is_right(network, graph, trial, feeds):
            assert _only_unseen_axes_are_uneven(graph, smaller), f"{kept} of {added} are enough"


@settings(BOUNDED, max_examples=40)
@given(network=networks(), data=st.data())
def test_no_listed_axis_of_a_stored_tensor_can_stay(network, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph)
    feeds = feeds_for(graph)
    listed = [
        (n, d)
        for n, axes in result.terminal.items()
        for d, cut in enumerate(axes)
        if cut is not None
    ]
    for name, dim in listed:
        axes = [None if d == dim else cut for d, cut in enumerate(result.terminal[name])]
        terminal = {**result.terminal, name: axes}
        if all(cut is None for cut in axes):
            del terminal[name]
        assert not is_right(network, graph, replace(result, terminal=terminal), feeds), (name, dim)


@BOUNDED
@given(network=networks(views=True), granularity=GRANULARITY, data=st.data())
def test_a_cut_through_views_is_consistent_and_complete(network, granularity, data):
    graph = solve_onnx(network)
    assert_right(network, graph, some_cut(data, network, graph, granularity), feeds_for(graph))


@BOUNDED
@given(network=networks(), granularity=GRANULARITY, data=st.data())
def test_a_stored_graph_gives_the_same_answer(network, granularity, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph, granularity)
    again = SolvedGraph.from_bytes(graph.to_bytes())
    request = result.requested[0]
    other = again.cut_analysis(request.node, request.index, request.dim, granularity=granularity)
    assert other.to_json() == result.to_json()
    assert CutResult.from_json(result.to_json()).to_json() == result.to_json()


@BOUNDED
@given(network=networks(views=True), data=st.data())
def test_strict_refuses_just_what_auto_must_decide(network, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph)
    request = result.requested[0]
    if not result.choices:
        strict = graph.cut_analysis(request.node, request.index, request.dim, granularity="strict")
        assert strict.to_dict()["terminal"] == result.to_dict()["terminal"]
        return
    with pytest.raises(AmbiguousCutError) as caught:
        graph.cut_analysis(request.node, request.index, request.dim, granularity="strict")
    assert {"operator", "factors", "outer_cost", "inner_cost"} <= caught.value.fields.keys()


@BOUNDED
@given(network=networks(layers=3, views=True), data=st.data())
def test_auto_takes_no_more_than_outer_or_inner(network, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph)
    if len(result.choices) != 1:
        return
    request = result.requested[0]
    for granularity in ("outer", "inner"):
        try:
            other = graph.cut_analysis(
                request.node, request.index, request.dim, granularity=granularity
            )
        except (OpaqueAxisError, EmptyAxisError):
            continue
        assert result.params_removed <= other.params_removed


@settings(BOUNDED, max_examples=40)
@given(network=networks(), granularity=GRANULARITY, data=st.data())
def test_a_derived_graph_is_the_graph_of_the_pruned_file(network, granularity, data):
    graph = solve_onnx(network)
    result = some_cut(data, network, graph, granularity)
    derived, rebuilt = graph.derive(result), solve_onnx(prune_onnx(network, result))
    assert derived.params() == rebuilt.params() and derived.flops() == rebuilt.flops()
    assert result.flops_after == derived.flops()
    parameters = {n: i.shape for n, i in rebuilt.nodes.items() if i.kind == "parameter"}
    assert parameters == {n: i.shape for n, i in derived.nodes.items() if i.kind == "parameter"}
    # Where a cut leaves one slice, a view of the rebuilt graph has a factor less, and what gave
    # way to that factor is free again. The derived graph keeps it as it was: its answers are cuts
    # of the rebuilt graph still.
    freed = bool(np.any((derived.coupling.class_length == 1) & (graph.coupling.class_length > 1)))
    for name, shape in parameters.items():
        for dim, size in enumerate(shape):
            if size > 1:
                ours, theirs = (_answer(g, name, size // 2, dim) for g in (derived, rebuilt))
                if ours != theirs:
                    assert freed and (ours is None or _is_closed(rebuilt, ours)), (name, dim)


@settings(BOUNDED, max_examples=30)
@given(network=networks(), data=st.data())
def test_a_pruned_file_can_be_pruned_again(network, data):
    graph = solve_onnx(network)
    for _ in range(3):
        result = some_cut(data, network, graph)
        assert_right(network, graph, result, feeds_for(graph))
        network = prune_onnx(network, result)
        derived, graph = graph.derive(result), solve_onnx(network)
        assert derived.params() == graph.params() and derived.flops() == graph.flops()


def _answer(graph, name, index, dim):
    """Return what a cut takes of the parameters; ``None`` where it is refused."""
    try:
        result = graph.cut_analysis(name, [index], dim)
    except (OpaqueAxisError, EmptyAxisError):
        return None
    shown = result.to_dict()["terminal"]
    return {n: axes for n, axes in shown.items() if graph.nodes[n].kind == "parameter"}


def _is_closed(graph, answer) -> bool:
    """Return whether just what ``answer`` lists goes when all of it is asked for."""
    asked = [
        CutRequest(name, dim, tuple(decode_indices(gone).tolist()))
        for name, axes in answer.items()
        for dim, gone in enumerate(axes)
        if gone is not None
    ]
    shown = graph.cut_analysis_many(asked).to_dict()["terminal"]
    return answer == {n: axes for n, axes in shown.items() if graph.nodes[n].kind == "parameter"}
