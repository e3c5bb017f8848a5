"""What operators declare, as it is kept for the solver."""

from __future__ import annotations

import numpy as np
import pytest

from torchpruner_core.coupling.ties import Change, Selection, Ties, View


@pytest.fixture
def ties() -> Ties:
    """Axes 0 to 4 of 6, 6, 2, 3 and 1 slices; operator 7 is declaring."""
    made = Ties()
    assert made.new_axes((6, 6, 2, 3)) == 0 and made.new_axis(1) == 4
    made.begin(7)
    return made


def test_axes_are_numbered_as_they_are_made(ties):
    assert ties.new_axis(np.int64(5)) == 5 and ties.new_axes(np.array([4, 4])) == 6
    assert ties.lengths == [6, 6, 2, 3, 1, 5, 4, 4]
    assert all(type(length) is int for length in ties.lengths)


def test_before_an_operator_begins_none_is_declaring():
    made = Ties()
    assert made.operator == -1 and made.mentioned == set()


def test_axes_of_one_length_are_tied_and_others_cannot_be_shortened(ties):
    ties.same(0, 1)
    ties.same(0, 0)
    assert ties.same_pairs == [(0, 1)] and ties.opaque_axes == {}
    ties.same(2, 3)
    unknown = "its size is not known before the model runs"
    assert ties.same_pairs == [(0, 1)] and ties.opaque_axes == {2: unknown, 3: unknown}
    assert ties.mentioned == {0, 1, 2, 3}


def test_a_run_of_two_whole_axes_is_a_tie_of_both(ties):
    ties.run(0, 0, 1, 0, 6)
    assert ties.same_pairs == [(0, 1)] and ties.runs == []
    assert ties.mentioned == {0, 1}


@pytest.mark.parametrize(
    "run",
    [(0, 1, 1, 1, 5), (0, 0, 1, 0, 5), (0, 0, 3, 0, 3), (3, 0, 0, 0, 3), (0, 0, 1, 1, 1)],
)
def test_a_run_of_a_part_is_kept_as_such(ties, run):
    ties.run(*run)
    assert ties.runs == [run] and ties.same_pairs == []


def test_a_run_of_one_slice_that_starts_later_is_no_tie_of_whole_axes(ties):
    ties.new_axis(1)
    ties.run(4, 0, 5, 0, 1)
    assert ties.same_pairs == [(4, 5)]
    ties.run(0, 1, 4, 0, 1)
    assert ties.runs == [(0, 1, 4, 0, 1)]


@pytest.mark.parametrize("length", [0, -1])
def test_a_run_of_nothing_ties_nothing_but_was_said(ties, length):
    ties.run(0, 2, 1, 2, length)
    assert ties.runs == [] and ties.same_pairs == [] and ties.mentioned == {0, 1}


def test_pairs_are_kept_as_given(ties):
    left, right = np.array([0, 2]), np.array([1, 0])
    ties.pairs(0, left, 3, right)
    assert len(ties.index_pairs) == 1 and ties.mentioned == {0, 3}
    a, a_index, b, b_index = ties.index_pairs[0]
    assert (a, b) == (0, 3) and a_index is left and b_index is right


def test_factors_of_one_slice_drop_out_of_a_view(ties):
    ties.view(0, (2, 4, 3))
    assert ties.views == [View(0, (2, 3), 7)] and ties.mentioned == {0, 2, 3, 4}
    ties.view(0, (4, 1))
    assert ties.same_pairs == [(0, 1)] and len(ties.views) == 1
    ties.view(4, (4,))
    assert ties.same_pairs == [(0, 1)] and len(ties.views) == 1


def test_the_first_reason_why_an_axis_stays_is_kept(ties):
    ties.opaque(2, "first")
    ties.opaque(2, "second")
    index = np.array([1])
    ties.opaque_at(3, index, "third")
    assert ties.opaque_axes == {2: "first"}
    assert ties.opaque_slices == [(3, index, "third")] and ties.mentioned == {2, 3}


def test_copies_and_free_axes_are_mentioned_and_sources_are_not(ties):
    ties.copy(0)
    ties.free(1, 2)
    ties.source(3)
    assert ties.copies == {0} and ties.sources == {3} and ties.mentioned == {0, 1, 2}


def test_a_constant_counts_all_of_an_axis_unless_told_otherwise(ties):
    ties.change("group", 3)
    ties.change("shape", 0, 2, 4, 1, 5, sign=-1)
    assert ties.changes == [
        Change(7, "group", None, 1, 3, 0, 3, 1),
        Change(7, "shape", 2, 4, 0, 1, 5, -1),
    ]


def test_a_constant_of_indices_keeps_its_entries_and_who_stores_them(ties):
    entries = np.array([[0, 5]])
    ties.selection("indices", 0, [4, 2], entries)
    ties.selection("indices", 0, [4, 2], entries, ["table"])
    plain, stored = ties.selections
    assert plain == Selection(7, "indices", 0, (4, 2), entries, ())
    assert stored == Selection(7, "indices", 0, (4, 2), entries, ("table",))


def test_statistics_and_sums_name_the_operator_and_the_axis(ties):
    ties.renormalises(1)
    ties.contracts(0, 2)
    ties.contracts(0, 2, over=3)
    assert ties.renormalised == [(7, 1)]
    assert ties.contracted == [(7, (0, 2), 0), (7, (0, 2), 3)]
    assert ties.mentioned == {0, 1, 2}


def test_a_cost_is_a_factor_times_lengths(ties):
    ties.cost(2, [0, 3])
    assert ties.costs == [(7, 2, (0, 3))]


def test_an_operators_links_are_those_it_declared_itself(ties):
    index = np.array([0])
    ties.same(0, 1)
    ties.run(0, 1, 1, 0, 2)
    ties.pairs(0, index, 2, index)
    ties.view(0, (2, 3))
    ties.begin(8)
    assert ties.operator == 8 and ties.mentioned == set()
    ties.same(1, 0)
    ties.run(1, 1, 0, 0, 2)
    ties.pairs(3, index, 2, index)
    ties.view(1, (3, 2))
    assert ties.links(7) == [(0, 1), (0, 1), (0, 2), (0, 2, 3)]
    assert ties.links(8) == [(1, 0), (1, 0), (3, 2), (1, 3, 2)]
    ties.begin(9)
    assert ties.links(8) == [(1, 0), (1, 0), (3, 2), (1, 3, 2)] and ties.links(9) == []
