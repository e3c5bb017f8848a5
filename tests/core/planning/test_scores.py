"""Scores are plain numbers by axis: read, refused, sent as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

import torchpruner_core as tp
from torchpruner_core.planning.errors import ScoresError

AXIS = ("self.conv.weight", 0)


def test_scores_survive_json_exactly():
    scores = tp.Scores({AXIS: np.random.default_rng(0).normal(size=100)}, "mine", {"p": 2})

    back = tp.Scores.from_dict(json.loads(json.dumps(scores.to_dict())))

    assert back == scores
    assert back.name == "mine" and back.meta == {"p": 2}


def test_a_plain_mapping_a_dict_of_json_and_scores_read_the_same():
    scores = tp.Scores({AXIS: [1.0, 2.0]})

    assert tp.Scores.read({AXIS: (1, 2)}) == scores
    assert tp.Scores.read(scores.to_dict()) == scores
    assert tp.Scores.read(scores) is scores


def test_scores_are_a_mapping_of_arrays_that_nobody_can_change():
    scores = tp.Scores({AXIS: [1.0, 2.0]})

    assert list(scores) == [AXIS] and len(scores) == 1
    with pytest.raises(ValueError):
        scores[AXIS][0] = 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({AXIS: [1.0, float("nan")]}, "nan at slice 1"),
        ({AXIS: [float("inf"), 0.0]}, "inf at slice 0"),
        ({AXIS: [[1.0]]}, r"shape \[1, 1\]"),
        ({AXIS: ["a"]}, "not numbers"),
        ({"self.conv.weight": [1.0]}, "belong to an axis"),
        ({("self.conv.weight", -1): [1.0]}, "counts from 0"),
        ({("self.conv.weight", True): [1.0]}, "counts from 0"),
        ([1.0], "not list"),
    ],
)
def test_what_is_no_score_is_named(values, said):
    with pytest.raises(ScoresError, match=said):
        tp.Scores(values)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"axes": [{"node": "a"}]},
        {"axes": 3},
        {"axes": [{"node": "a", "dim": 0, "values": [1]}] * 2},
        {"axes": [], "name": 3},
        {"axes": [], "meta": 3},
    ],
)
def test_json_that_is_no_scores_is_refused(data):
    with pytest.raises(ScoresError):
        tp.Scores.from_dict(data)
