"""An operator of one's own, described by ties."""

from __future__ import annotations

import pytest

from tests.core.operators.brute_force import ints, model, node
from torchpruner_core import OperatorNode, operator_reg, solve_onnx


class Gate(OperatorNode):
    """y = x * sigmoid(w * x), w one number a channel."""

    def ties(self, ties):
        x, w, y = self.in_data[0], self.in_data[1], self.out_data[0]
        for dim in range(x.rank):
            ties.same(x.axis(dim), y.axis(dim))
        ties.same(w.axis(0), x.axis(1))

    def fill_shape(self):
        self.out_data[0].shape = self.in_data[0].shape

    def zero_products(self):
        return ((0,),)


@pytest.fixture
def gate():
    operator_reg.regist("my.domain::Gate", Gate)
    yield
    operator_reg._classes.pop("my.domain::Gate")


def gated(kind="Gate"):
    return model(
        [
            node("MatMul", "x v", "h"),
            node(kind, "h w", "g", domain="my.domain"),
            node("ReduceSum", "g axis", "y"),
        ],
        {"x": (2, 3)},
        ["y"],
        {"v": (3, 4), "w": (4,), "axis": ints(1)},
        domains={"my.domain": 1},
        shapes={"y": (2, 1)},
    )


def test_it_takes_part_with_shapes_ties_and_zeros(gate):
    graph = solve_onnx(gated())
    result = graph.cut_analysis("self.w", [2], 0)
    assert result.terminal["self.v"][1].tolist() == [2] and not result.renormalises
    assert graph.operators["self.Gate"].type == "Gate"


def test_it_is_asked_in_its_own_domain_only(gate):
    assert operator_reg.get("Gate", "another") is OperatorNode
    assert operator_reg.get("Gate") is OperatorNode
