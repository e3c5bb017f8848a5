"""Recurrent layers: hidden units go from every gate, state and direction."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, cut, model, node
from torchpruner_core import solve_onnx

SEQ = {"x": (3, 2, 5)}

CASES = [
    case(
        "lstm_bidirectional",
        "x:12 w:12 r:12 b:1 y:23 h:12 c:12",
        [node("LSTM", "x w r b", "y h c", hidden_size=4, direction="bidirectional")],
        SEQ,
        "y h c",
        {"w": (2, 16, 5), "r": (2, 16, 4), "b": (2, 32)},
    ),
    case(
        "lstm_states_and_peepholes",
        "x:12 h0:12 c0:12 w:12 r:12 b:1 p:1 y:23 h:12 c:12",
        [node("LSTM", "x w r b - h0 c0 p", "y h c", hidden_size=4)],
        {**SEQ, "h0": (1, 2, 4), "c0": (1, 2, 4)},
        "y h c",
        {"w": (1, 16, 5), "r": (1, 16, 4), "b": (1, 32), "p": (1, 12)},
    ),
    case(
        "lstm_last_state_only",
        "x:12 w:12 r:12 h:12",
        [node("LSTM", "x w r", "- h", hidden_size=4)],
        SEQ,
        "h",
        {"w": (1, 16, 5), "r": (1, 16, 4)},
    ),
    case(
        "lstm_lengths",
        "x:12 l:0 w:12 r:12 y:23",
        [node("LSTM", "x w r - l", "y", hidden_size=4)],
        {**SEQ, "l": ((2,), np.int32)},
        "y",
        {"w": (1, 16, 5), "r": (1, 16, 4)},
        feeds={"l": np.array([3, 2], np.int32)},
    ),
    case(
        "gru_reset_after",
        "x:12 w:12 r:12 b:1 y:23 h:12",
        [node("GRU", "x w r b", "y h", hidden_size=4, linear_before_reset=1)],
        SEQ,
        "y h",
        {"w": (1, 12, 5), "r": (1, 12, 4), "b": (1, 24)},
    ),
    case(
        "gru_reverse",
        "x:12 w:12 r:12 y:23",
        [node("GRU", "x w r", "y", hidden_size=4, direction="reverse")],
        SEQ,
        "y",
        {"w": (1, 12, 5), "r": (1, 12, 4)},
    ),
    case(
        "rnn_relu",
        "x:12 w:12 r:12 b:1 y:23 h:12",
        [node("RNN", "x w r b", "y h", hidden_size=4, activations=["Relu"])],
        SEQ,
        "y h",
        {"w": (1, 4, 5), "r": (1, 4, 4), "b": (1, 8)},
    ),
    case(
        "two_layers",
        "x:12 w:12 r:12 0:23 1:12 w2:12 r2:12 y:23",
        [
            node("GRU", "x w r", "a", hidden_size=4),
            node("Squeeze", "a one", "b"),
            node("RNN", "b w2 r2", "y", hidden_size=3),
        ],
        SEQ,
        "y",
        {"w": (1, 12, 5), "r": (1, 12, 4), "one": np.array([1]), "w2": (1, 3, 4), "r2": (1, 3, 3)},
    ),
    case(
        "sum_over_units",
        "x:12 w:12 r:12 0:23 y:2",
        [node("LSTM", "x w r", "a", hidden_size=4), node("ReduceSum", "a d", "y")],
        SEQ,
        "y",
        {"w": (1, 16, 5), "r": (1, 16, 4), "d": np.array([-1])},
    ),
    case(
        "sum_over_sigmoid_units",
        "x:12 w:12 r:12 0:23 y:2",
        [
            node("RNN", "x w r", "a", hidden_size=4, activations=["Sigmoid"]),
            node("ReduceSum", "a d", "y"),
        ],
        SEQ,
        "y",
        {"w": (1, 4, 5), "r": (1, 4, 4), "d": np.array([-1])},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_a_unit_is_a_row_of_each_gate():
    data = model(
        [node("LSTM", "x w r b", "y", hidden_size=4)],
        SEQ,
        ["y"],
        {"w": (1, 16, 5), "r": (1, 16, 4), "b": (1, 32)},
    )
    found = cut(data, "y", [1], 3)
    assert found["w"] == {1: [1, 5, 9, 13]} and found["r"] == {1: [1, 5, 9, 13], 2: [1]}
    assert found["b"] == {1: list(range(1, 32, 4))}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_batch_first_layouts_are_read(kind):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    data = model(
        [node(kind, "x w r", "y h", hidden_size=4, layout=1)],
        {"x": (2, 3, 5)},
        ["y", "h"],
        {"w": (1, 4 * gates, 5), "r": (1, 4 * gates, 4)},
    )
    result = solve_onnx(data).cut_analysis("self.r", [2], 2)
    assert result.iner["y"][3].tolist() == [2] and result.iner["h"][2].tolist() == [2]
    batch = solve_onnx(data).cut_analysis("x", [1], 0)
    assert batch.iner["y"][0].tolist() == [1] and batch.iner["h"][0].tolist() == [1]
