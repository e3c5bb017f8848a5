"""Ties by hand, and the coupling that they are solved to."""

from __future__ import annotations

import numpy as np
import pytest

from torchpruner_core.analysis.coupling import ClassChange, ClassView, Coupling
from torchpruner_core.coupling.solve import ALL_OF_AN_AXIS, IN_VIEW, solve
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import GraphTooLargeError


def ties_of(*lengths: int) -> Ties:
    made = Ties()
    made.new_axes(lengths)
    made.begin(5)
    return made


def solved(ties: Ties, inputs: tuple[int, ...] = ()) -> Coupling:
    return solve(ties, inputs, len(ties.lengths))


def groups(coupling: Coupling) -> list[list[int]]:
    """Return the component of each slice, a list an axis; a frozen axis has one entry."""
    return [coupling.components_of(owner).tolist() for owner in coupling.axis_class]


def reasons(coupling: Coupling) -> list[list[str | None]]:
    """Return why each slice of each axis stays, or ``None``; a frozen axis has one entry."""
    words = [*coupling.reasons, None]
    return [[words[coupling.component_reason[c]] for c in axis] for axis in groups(coupling)]


def frozen(coupling: Coupling) -> list[bool]:
    return coupling.class_frozen[coupling.axis_class].tolist()


def test_a_graph_without_axes_is_solved():
    coupling = solved(Ties())
    assert coupling.axis_class.shape == coupling.component.shape == (0,)
    assert coupling.class_length.shape == coupling.class_start.shape == (0,)
    assert coupling.component_reason.shape == (0,) and coupling.reasons == ()
    assert coupling.views == coupling.changes == coupling.selections == ()


def test_axes_tied_whole_are_one_class():
    ties = ties_of(3, 2, 3, 4)
    ties.same(2, 0)
    coupling = solve(ties, (), 3)
    assert coupling.axis_class.tolist() == [0, 1, 0] and coupling.axis_class.dtype == np.int32
    assert coupling.class_length.tolist() == [3, 2, 4]
    assert coupling.class_length.dtype == np.int64
    assert coupling.class_start.tolist() == [0, 3, 5] and coupling.class_start.dtype == np.int64
    assert coupling.class_frozen.tolist() == [False] * 3
    assert coupling.class_frozen.dtype == np.bool_
    assert coupling.component.tolist() == list(range(9))
    assert coupling.component.dtype == coupling.component_reason.dtype == np.int32
    assert coupling.component_reason.tolist() == [-1] * 9 and coupling.reasons == ()


def test_a_concatenation_ties_each_part_to_its_place():
    ties = ties_of(2, 3, 5, 2)
    ties.run(0, 0, 2, 0, 2)
    ties.run(1, 0, 2, 2, 3)
    ties.run(2, 3, 3, 0, 2)
    assert groups(solved(ties)) == [[0, 1], [2, 3, 4], [0, 1, 2, 3, 4], [3, 4]]


def test_index_pairs_tie_what_they_name():
    ties = ties_of(3, 4)
    ties.pairs(0, np.array([0, 2]), 1, np.array([3, 1]))
    assert groups(solved(ties)) == [[0, 1, 2], [3, 2, 4, 0]]


def test_an_axis_that_no_rule_can_shorten_is_one_slice_with_its_reason():
    ties = ties_of(3, 3, 2, 2)
    ties.same(0, 1)
    ties.opaque(1, "later in the alphabet")
    ties.opaque(0, "never shown: the class has a reason")
    ties.opaque(3, "earlier")
    coupling = solved(ties)
    assert frozen(coupling) == [True, True, False, True]
    assert coupling.component.tolist() == [0, 1, 2, 3] and groups(coupling)[2] == [1, 2]
    assert coupling.reasons == ("earlier", "later in the alphabet")
    assert coupling.component_reason.tolist() == [1, -1, -1, 0]


def test_what_is_tied_to_a_frozen_axis_stays_and_the_rest_may_go():
    ties = ties_of(2, 5, 3)
    ties.opaque(0, "is an input")
    ties.run(0, 0, 1, 1, 2)
    ties.pairs(2, np.array([2]), 1, np.array([2]))
    coupling = solved(ties)
    why = "is an input"
    assert reasons(coupling) == [[why], [None, why, why, None, None], [None, None, why]]
    assert frozen(coupling) == [True, False, False]


def test_single_slices_can_be_held_back():
    ties = ties_of(4, 4)
    ties.same(0, 1)
    ties.opaque_at(1, np.array([1, 2]), "is read by its index")
    ties.opaque_at(0, np.array([2]), "never shown: the slice has a reason")
    why = "is read by its index"
    assert reasons(solved(ties)) == [[None, why, why, None]] * 2
    assert solved(ties).reasons == (why,)


def test_an_axis_whose_every_slice_is_held_back_is_frozen():
    ties = ties_of(2, 3)
    ties.opaque_at(0, np.array([0, 1]), "is read by its index")
    coupling = solved(ties)
    assert frozen(coupling) == [True, False] and reasons(coupling)[0] == ["is read by its index"]


def test_an_axis_that_is_frozen_by_its_slices_freezes_its_view():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    ties.opaque_at(0, np.arange(6), "is read by its index")
    coupling = solved(ties)
    assert frozen(coupling) == [True, True, True] and coupling.views == ()
    assert reasons(coupling) == [["is read by its index"]] * 3


def test_a_slice_with_which_a_whole_axis_would_go_stays():
    ties = ties_of(2, 3, 1, 1)
    ties.pairs(0, np.array([0, 1]), 1, np.array([1, 1]))
    ties.pairs(2, np.array([0]), 3, np.array([0]))
    coupling = solved(ties)
    assert reasons(coupling) == [[ALL_OF_AN_AXIS], [None, ALL_OF_AN_AXIS, None], [None], [None]]
    assert frozen(coupling) == [True, False, False, False]


def test_an_axis_of_one_slice_beside_a_longer_one_holds_that_slice():
    ties = ties_of(1, 3)
    ties.run(0, 0, 1, 2, 1)
    assert reasons(solved(ties))[1] == [None, None, ALL_OF_AN_AXIS]
    ties = ties_of(1, 2)
    ties.run(0, 0, 1, 1, 1)
    assert reasons(solved(ties))[1] == [None, ALL_OF_AN_AXIS]


def test_an_axis_without_slices_holds_nothing_wherever_it_stands():
    for lengths in ((2, 0, 3), (2, 3, 0), (0, 2, 3)):
        ties = ties_of(*lengths)
        ties.opaque_at(lengths.index(2), np.array([1]), "is read by its index")
        coupling = solved(ties)
        assert frozen(coupling) == [False] * 3
        assert reasons(coupling)[lengths.index(3)] == [None] * 3
        assert reasons(coupling)[lengths.index(0)] == []


def test_axes_behind_a_frozen_one_are_frozen_by_their_slices():
    ties = ties_of(2, 3)
    ties.opaque(0, "is an input")
    ties.opaque_at(1, np.array([0, 1, 2]), "is read by its index")
    assert frozen(solved(ties)) == [True, True]


def test_a_view_of_two_free_factors_stays_a_choice_and_is_listed_once():
    ties = ties_of(6, 2, 3, 6)
    ties.view(0, (1, 2))
    ties.begin(6)
    ties.same(3, 0)
    ties.view(3, (1, 2))
    coupling = solved(ties)
    assert coupling.views == (ClassView(0, (1, 2), 5),)
    assert groups(coupling)[:3] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]


@pytest.mark.parametrize(("fixed", "tied"), [(1, [[0, 1, 2] * 2, [0, 1, 2]]), (2, None)])
def test_a_view_with_one_free_factor_is_a_plain_tie(fixed, tied):
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    ties.opaque(fixed, "is spatial")
    coupling = solved(ties)
    whole, left = groups(coupling)[0], groups(coupling)[3 - fixed]
    assert coupling.views == () and frozen(coupling) == [False, fixed == 1, fixed == 2]
    assert [whole, left] == (tied or [[0, 0, 0, 1, 1, 1], [0, 1]])


def test_a_frozen_factor_leaves_a_view_of_three():
    ties = ties_of(12, 2, 3, 2, 3)
    ties.opaque(2, "is spatial")
    ties.opaque(4, "is spatial")
    ties.view(0, (1, 2, 3))
    ties.begin(6)
    ties.view(0, (1, 4, 3))
    coupling = solved(ties)
    assert coupling.class_length.tolist() == [12, 2, 3, 2, 3, 4]
    assert coupling.class_frozen.tolist() == [False, False, True, False, True, False]
    assert coupling.views == (ClassView(5, (1, 3), 5),)
    assert groups(coupling)[0] == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    assert coupling.components_of(5).tolist() == [0, 1, 2, 3]


def test_two_wholes_that_lose_a_factor_keep_a_product_each():
    ties = ties_of(12, 12, 2, 3, 2)
    ties.opaque(3, "is spatial")
    ties.view(0, (2, 3, 4))
    ties.view(1, (3, 2, 4))
    coupling = solved(ties)
    assert coupling.class_length.tolist()[5:] == [4, 4]
    assert coupling.views == (ClassView(5, (2, 4), 5), ClassView(6, (2, 4), 5))
    assert groups(coupling)[1] == coupling.components_of(6).tolist() * 3


def test_a_whole_that_stays_holds_its_factors():
    ties = ties_of(6, 2, 3, 6, 6)
    ties.view(0, (1, 2))
    ties.opaque(0, "is an output")
    ties.opaque(2, "has its own reason")
    coupling = solved(ties)
    assert coupling.views == () and frozen(coupling)[:3] == [True, True, True]
    assert reasons(coupling)[:3] == [["is an output"], ["is an output"], ["has its own reason"]]


def test_factors_that_all_stay_hold_their_whole_for_the_first_ones_reason():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    ties.opaque(1, "first")
    ties.opaque(2, "second")
    assert reasons(solved(ties)) == [["first"], ["first"], ["second"]]


def test_freezing_goes_through_views_of_views_in_any_order():
    ties = ties_of(12, 2, 6, 2, 3, 12)
    ties.view(2, (3, 4))
    ties.view(0, (1, 2))
    ties.view(5, (1, 2))
    ties.opaque(0, "is an output")
    coupling = solved(ties)
    assert frozen(coupling) == [True] * 6 and set(coupling.reasons) == {"is an output"}


def test_a_whole_frozen_by_a_later_view_freezes_its_own_factors():
    ties = ties_of(12, 2, 6, 2, 3, 6, 2, 3)
    ties.view(2, (3, 4))
    ties.view(0, (1, 2))
    ties.view(5, (6, 7))
    ties.opaque(0, "is an output")
    assert frozen(solved(ties)) == [True] * 5 + [False] * 3
    # Views that have nothing to add do not end the search.
    assert frozen(solved(ties, inputs=(5, 6, 7))) == [True] * 5 + [False] * 3


def test_a_factor_that_gives_way_in_a_later_view_freezes_what_it_is_made_of():
    ties = ties_of(12, 4, 3, 2, 2)
    ties.view(1, (3, 4))
    ties.view(0, (1, 2))
    assert frozen(solved(ties, inputs=(1,))) == [False, True, False, True, True]


def test_each_view_is_reduced_whatever_became_of_those_before():
    ties = ties_of(6, 2, 3, 4, 2, 2, 6, 2, 3, 12, 2, 3, 2, 6, 3, 2)
    ties.opaque(0, "is an output")
    ties.opaque(7, "is spatial")
    ties.opaque(11, "is spatial")
    ties.view(0, (1, 2))
    ties.view(3, (4, 5))
    ties.view(6, (7, 8))
    ties.view(9, (10, 11, 12))
    ties.view(13, (14, 15))
    coupling = solved(ties)
    assert [(view.whole, view.factors) for view in coupling.views] == [
        (3, (4, 5)),
        (16, (10, 12)),
        (13, (14, 15)),
    ]
    assert groups(coupling)[6] == groups(coupling)[8] * 2


def test_a_factor_that_reaches_an_input_gives_way_to_the_other():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    coupling = solved(ties, inputs=(1,))
    assert frozen(coupling) == [False, True, False] and reasons(coupling)[1] == [IN_VIEW]
    assert groups(coupling)[0] == groups(coupling)[2] * 2


def test_an_input_that_is_a_whole_leaves_the_choice():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    coupling = solved(ties, inputs=(0,))
    assert coupling.views == (ClassView(0, (1, 2), 5),) and frozen(coupling) == [False] * 3


def test_factors_that_all_reach_an_input_leave_the_choice():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    coupling = solved(ties, inputs=(1, 2))
    assert coupling.views == (ClassView(0, (1, 2), 5),) and frozen(coupling) == [False] * 3


def test_what_reaches_an_input_through_a_view_gives_way_in_the_next():
    ties = ties_of(6, 2, 3, 6, 2)
    ties.view(3, (1, 4, 2))
    ties.lengths[3] = 12
    ties.view(0, (1, 2))
    coupling = solved(ties, inputs=(0,))
    assert frozen(coupling) == [True, True, True, False, False]
    assert groups(coupling)[3] == [c for c in groups(coupling)[4] for _ in range(3)] * 2


def test_an_axis_made_by_repeating_gives_way_unless_it_carries_data():
    ties = ties_of(6, 2, 3, 3)
    ties.view(0, (1, 2))
    ties.copy(1)
    ties.copy(2)
    ties.same(3, 2)
    ties.source(3)
    coupling = solved(ties)
    assert frozen(coupling) == [False, True, False, False]
    assert groups(coupling)[0] == groups(coupling)[2] * 2


def test_a_frozen_factor_beside_one_of_an_input_leaves_the_latter_free():
    ties = ties_of(6, 2, 3)
    ties.view(0, (1, 2))
    ties.opaque(1, "is spatial")
    coupling = solved(ties, inputs=(2,))
    assert frozen(coupling) == [False, True, False]
    assert groups(coupling)[0] == groups(coupling)[2] * 2


def test_what_operators_count_names_classes_and_leaves_out_what_stays():
    ties = ties_of(4, 4, 3, 2)
    ties.same(1, 0)
    ties.opaque(2, "is spatial")
    entries = np.array([0, 3])
    for axis in (0, 1, 2):
        ties.change("shape", axis, axis, 3, 1, 2, sign=-1)
        ties.selection("indices", axis, [3, 2], entries, ["table"])
        ties.renormalises(axis)
        ties.cost(axis, [axis, 3])
    coupling = solved(ties)
    assert coupling.changes == (
        ClassChange(5, "shape", 0, 3, 0, 1, 2, -1),
        ClassChange(5, "shape", 1, 3, 0, 1, 2, -1),
    )
    assert len(coupling.selections) == 2 and coupling.renormalised == ((5, 0),)
    for selection in coupling.selections:
        assert (selection.operator, selection.key, selection.owner) == (5, "indices", 0)
        assert selection.along == (2, 1) and selection.values is entries
        assert selection.sources == ("table",)
    assert coupling.costs == ((5, 0, (0, 2)), (5, 1, (0, 2)), (5, 2, (1, 2)))


def test_a_graph_larger_than_allowed_is_refused_with_its_size():
    ties = ties_of(40, 30, 7)
    ties.opaque(1, "does not count")
    ties.run(0, 0, 2, 0, 7)
    assert solve(ties, (), 3, max_slices=47).component.shape == (48,)
    with pytest.raises(GraphTooLargeError) as caught:
        solve(ties, (), 3, max_slices=46)
    assert caught.value.detail == (
        "the model's axes have 47 slices in all, tied in 7 places; 46 slices are allowed. Give the "
        "inputs smaller shapes (a batch of one, short sequences), or allow more"
    )
    assert caught.value.fields == {"slices": 47, "ties": 7, "limit": 46}


def test_a_graph_with_more_ties_than_its_slices_explain_is_refused():
    ties = ties_of(2, 2, 3)
    index = np.zeros(50, dtype=np.int64)
    ties.pairs(0, index, 1, index)
    ties.pairs(1, index, 0, index)
    ties.run(0, 0, 2, 0, 2)
    ties.run(0, 0, 2, 1, 2)
    ties.runs += [(0, 0, 2, 0, 2)] * 4
    assert solve(ties, (), 3, max_slices=7).class_length.tolist() == [2, 2, 3]
    with pytest.raises(GraphTooLargeError) as caught:
        ties.runs.append((0, 0, 2, 1, 1))
        solve(ties, (), 3, max_slices=7)
    assert caught.value.fields == {"slices": 7, "ties": 113, "limit": 7}
