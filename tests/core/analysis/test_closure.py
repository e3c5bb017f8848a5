"""What a cut decides where axes split: granularity, its costs, and the refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import ints, model, node
from torchpruner_core import CutRequest, CutResult, solve_onnx
from torchpruner_core.analysis.closure import MANY_CLASSES, Closure
from torchpruner_core.coupling.solve import solve
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import (
    AmbiguousCutError,
    CutDimError,
    CutError,
    CutIndexError,
    EmptyAxisError,
    OpaqueAxisError,
    ProtectedIOError,
    UnknownNodeError,
)


@pytest.fixture(scope="module")
def grouped():
    """Six channels in two groups of three, with wide outputs: strides are cheap, blocks dear."""
    nodes = [
        node("Conv", "x w0", "h"),
        node("Conv", "h w b", "g", group=2),
        node("Conv", "g v", "y"),
    ]
    stored = {"w0": (6, 3, 1, 1), "w": (20, 3, 1, 1), "b": (20,), "v": (4, 20, 1, 1)}
    return solve_onnx(model(nodes, {"x": (1, 3, 4, 4)}, ["y"], stored))


@pytest.fixture(scope="module")
def heads():
    """Two layers of three heads by four, whose head dimensions share one table."""
    nodes, value = [], "x"
    stored = {"table": (4,), "s": ints(2, 5, 3, 4), "r": ints(2, 5, 12)}
    for k in "ab":
        nodes += [
            node("MatMul", f"{value} {k}.w", f"{k}h"),
            node("Reshape", f"{k}h s", f"{k}q"),
            node("Mul", f"{k}q table", f"{k}t"),
            node("Reshape", f"{k}t r", f"{k}m"),
            node("MatMul", f"{k}m {k}.v", f"{k}y"),
        ]
        stored |= {f"{k}.w": (12, 12), f"{k}.v": (12, 12)}
        value = f"{k}y"
    return solve_onnx(model(nodes, {"x": (2, 5, 12)}, ["by"], stored))


def cut_of(result, name, dim=0):
    return result.terminal[name][dim].tolist()


def test_a_whole_block_is_taken_as_such(grouped):
    result = grouped.cut_analysis("self.w0", [0, 1, 2], 0)
    assert not result.choices and not result.added
    assert result.operator["self.Conv_1"] == {"group": 1}
    assert cut_of(result, "self.w") == list(range(10))


def test_a_whole_stride_is_taken_as_such(grouped):
    result = grouped.cut_analysis("self.w0", [1, 4], 0)
    assert not result.choices and cut_of(result, "self.w", 1) == [1] and not result.operator


def test_auto_takes_the_cheaper_completion_and_says_what_the_other_costs(grouped):
    result = grouped.cut_analysis("self.w0", [0], 0)
    (choice,) = result.choices
    assert choice.taken == "inner" and choice.rejected == "outer"
    assert choice.operator == "self.Conv_1" and choice.factors == (2, 3)
    assert choice.taken_cost == result.params_removed == 2 * 3 + 20
    other = grouped.cut_analysis("self.w0", [0], 0, granularity="outer")
    assert choice.other_cost == other.params_removed == 3 * 3 + 10 * 3 + 10 + 10 * 4
    assert result.added["self.w0"][0].tolist() == [3]


def test_outer_takes_blocks_and_inner_takes_strides(grouped):
    outer = grouped.cut_analysis("self.w0", [1], 0, granularity="outer")
    inner = grouped.cut_analysis("self.w0", [1], 0, granularity="inner")
    assert cut_of(outer, "self.w0") == [0, 1, 2] and cut_of(inner, "self.w0") == [1, 4]


def test_a_granularity_that_was_asked_for_is_a_choice_with_both_costs(grouped):
    (choice,) = grouped.cut_analysis("self.w0", [1], 0, granularity="outer").choices
    assert (choice.taken, choice.rejected) == ("outer", "inner")
    assert (choice.taken_cost, choice.other_cost) == (89, 26)


@pytest.mark.parametrize("count", [MANY_CLASSES - 1, MANY_CLASSES, MANY_CLASSES + 5])
def test_what_is_left_of_many_axes_is_counted_as_that_of_few(count):
    ties = Ties()
    ties.new_axes([3 + k % 4 for k in range(count)])
    for axis in range(1, count):
        ties.run(0, 0, axis, axis % 2, 2)
    coupling = solve(ties, (), count)
    closure = Closure(coupling, [(k,) for k in range(count)])
    removal = closure.close(coupling.components_of(0)[:1], "auto")
    left = {k: 2 + k % 4 for k in range(count)}
    assert len(removal.classes) == count and closure._left(removal) == left
    assert closure.params_removed(removal) == count
    assert closure.indices(removal, 1).tolist() == [1]


def test_a_cut_that_reaches_what_stays_says_the_first_reason():
    ties = Ties()
    ties.new_axis(4)
    ties.opaque_at(0, np.array([1]), "is read by its index")
    ties.opaque_at(0, np.array([2]), "reaches a spatial axis")
    coupling = solve(ties, (), 1)
    closure = Closure(coupling, [(0,)])
    for asked, reason in (([0, 1, 2], "is read by its index"), ([2], "reaches a spatial axis")):
        with pytest.raises(OpaqueAxisError) as caught:
            closure.close(coupling.components_of(0)[asked], "auto")
        assert caught.value.detail == f"the cut reaches an axis that cannot be pruned: {reason}"
        assert caught.value.fields == {"reason": reason}
    assert closure.indices(closure.close(coupling.components_of(0)[[0, 3]], "auto"), 0).size == 2


def test_strict_lists_both_completions_with_their_cost(grouped):
    with pytest.raises(AmbiguousCutError) as caught:
        grouped.cut_analysis("self.w0", [0], 0, granularity="strict")
    fields = caught.value.fields
    assert fields["outer_cost"] == 89 and fields["inner_cost"] == 26
    assert fields["operator"] == "self.Conv_1" and fields["factors"] == [2, 3]
    assert "89" in caught.value.detail and "26" in caught.value.detail
    aligned = grouped.cut_analysis("self.w0", [0, 3], 0, granularity="strict")
    assert cut_of(aligned, "self.w", 1) == [0]


def test_a_shared_table_makes_a_head_dimension_dearer_than_a_head(heads):
    result = heads.cut_analysis("self.a.w", [0], 1)
    assert [choice.taken for choice in result.choices] == ["outer"]
    assert cut_of(result, "self.a.w", 1) == [0, 1, 2, 3] and "self.b.w" not in result.terminal
    (choice,) = result.choices
    assert choice.taken_cost < choice.other_cost
    inner = heads.cut_analysis("self.a.w", [0], 1, granularity="inner")
    assert cut_of(inner, "self.b.w", 1) == [0, 4, 8] and cut_of(inner, "self.table") == [0]


def test_a_block_beside_a_stride_needs_no_choice(grouped):
    result = grouped.cut_analysis("self.w0", [0, 1, 2, 4], 0)
    assert cut_of(result, "self.w0")[:3] == [0, 1, 2] and 4 in cut_of(result, "self.w0")


def test_when_one_completion_is_impossible_the_other_is_taken(grouped):
    result = grouped.cut_analysis("self.w0", [0, 4], 0)
    (choice,) = result.choices
    assert choice.taken == "inner" and choice.other_cost is None
    with pytest.raises(EmptyAxisError):
        grouped.cut_analysis("self.w0", [0, 4], 0, granularity="outer")


def test_cutting_every_slice_is_refused(grouped):
    with pytest.raises(EmptyAxisError, match="leave at least one"):
        grouped.cut_analysis("self.v", range(4), 0)
    with pytest.raises(EmptyAxisError):
        grouped.cut_analysis("self.w0", [0, 1, 5], 0, granularity="outer")


def test_inputs_and_outputs_are_named_and_can_be_protected(grouped):
    result = grouped.cut_analysis("self.v", [0], 0)
    assert result.touches_outputs == ("y",) and not result.touches_inputs
    with pytest.raises(ProtectedIOError, match="y") as caught:
        grouped.cut_analysis("self.v", [0], 0, protect_io=True)
    assert caught.value.fields["touches_outputs"] == ["y"]
    with pytest.raises(ProtectedIOError):
        grouped.cut_analysis("self.w0", [0], 1, protect_io=True)
    assert grouped.cut_analysis("self.w", [0, 10], 0, protect_io=True).params_removed


def test_an_opaque_axis_names_the_operator(grouped):
    with pytest.raises(OpaqueAxisError, match=r"self\.Conv") as caught:
        grouped.cut_analysis("x", [0], 2)
    assert caught.value.fields["dim"] == 2


def test_a_joint_cut_is_closed_as_one(grouped):
    requests = [
        CutRequest("self.w0", 0, (0,)),
        CutRequest("self.w0", 0, (3,)),
        CutRequest("self.v", 0, (1,)),
    ]
    joint = grouped.cut_analysis_many(requests)
    assert (
        not joint.choices and cut_of(joint, "self.w", 1) == [0] and cut_of(joint, "self.v") == [1]
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("self.w1", [0], 0), UnknownNodeError),
        (("self.w0", [0], 4), CutDimError),
        (("self.w0", [0], -5), CutDimError),
        (("self.w0", [0], True), CutDimError),
        (("self.w0", [6], 0), CutIndexError),
        (("self.w0", [-1], 0), CutIndexError),
        (("self.w0", [], 0), CutIndexError),
        (("self.w0", [1, 1], 0), CutIndexError),
        (("self.w0", [0.0], 0), CutIndexError),
        (("self.w0", "01", 0), CutIndexError),
        (("self.w0", 3, 0), CutIndexError),
    ],
)
def test_a_bad_request_says_what_is_allowed(grouped, arguments, error):
    with pytest.raises(error) as caught:
        grouped.cut_analysis(*arguments)
    problem = caught.value.to_problem()
    assert problem["type"] == error.slug and problem["detail"]


def test_a_negative_dim_counts_from_the_end(grouped):
    assert (
        grouped.cut_analysis("self.w0", [0], -4).to_json()
        == grouped.cut_analysis("self.w0", [0], 0).to_json()
    )


def test_an_unknown_granularity_or_no_request_is_refused(grouped):
    with pytest.raises(CutError, match="granularity"):
        grouped.cut_analysis("self.w0", [0], 0, granularity="finest")
    with pytest.raises(CutIndexError, match="no cut"):
        grouped.cut_analysis_many([])


def test_a_near_name_is_suggested(grouped):
    with pytest.raises(UnknownNodeError, match=r"self\.w0"):
        grouped.cut_analysis("self.w00", [0], 0)


def test_a_cut_is_derived_once_and_only_from_its_own_graph(grouped):
    result = grouped.cut_analysis("self.w0", [0], 0)
    derived = grouped.derive(result)

    with pytest.raises(CutError, match="made for"):
        derived.derive(result)
    for wrong in (None, {}, [], {"terminal": 3}):
        with pytest.raises(CutError):
            grouped.derive(wrong)
    assert grouped.derive(result.to_dict()).params() == derived.params()


def test_a_results_indices_cannot_be_written_over(grouped):
    for result in (
        grouped.cut_analysis("self.w0", [0], 0),
        CutResult.from_json(grouped.cut_analysis("self.w0", [0], 0).to_json()),
    ):
        with pytest.raises(ValueError, match="read-only"):
            result.terminal["self.w0"][0][0] = 3


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        3,
        {"terminal": None},
        {"terminal": []},
        {"terminal": {"a": 3}},
        {"terminal": {"a": [["x"]]}},
        {"terminal": {}, "operator": {"a": 3}},
        {"terminal": {}, "operator": {"a": {"group": "b"}}},
        {"terminal": {}, "iner": 3},
    ],
    ids=repr,
)
def test_a_dict_that_is_no_result_is_refused(wrong):
    with pytest.raises(ValueError):
        CutResult.from_dict(wrong)
