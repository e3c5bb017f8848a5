"""Every operator of ONNX's operator sets is described or opaque; there is no third kind."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from tests.core.operators.brute_force import model, node
from torchpruner_core import solve_onnx
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import OpaqueAxisError
from torchpruner_core.operators import onnxruntime_opaque, operator_register
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.opaque import REASONS, Opaque

SCHEMAS = sorted({(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()})


@pytest.mark.parametrize(("domain", "name"), SCHEMAS, ids=[f"{d}::{n}" for d, n in SCHEMAS])
def test_every_operator_is_described_or_opaque(domain, name):
    family = operator_register.get(name, domain)
    assert family is not OperatorNode
    if issubclass(family, Opaque):
        assert family.reason
    else:
        assert family.ties is not OperatorNode.ties


def test_no_operator_is_both_described_and_opaque():
    opaque = [name for names in REASONS.values() for name in names]
    assert len(opaque) == len(set(opaque))
    known = {f"{d}::{n}" if d else n for d, n in SCHEMAS}
    assert set(opaque) <= known
    own = {name for name in operator_register.names() if not name.startswith("com.m")}
    assert own <= known
    for name in opaque:
        domain, _, plain = name.rpartition("::")
        assert issubclass(operator_register.get(plain, domain), Opaque)


def test_every_described_operator_has_a_small_graph_in_these_tests():
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name in operator_register.names():
        domain, _, plain = name.rpartition("::")
        family = operator_register.get(plain, domain)
        if not issubclass(family, Opaque) and not family.__module__.endswith("elementwise"):
            assert plain in text, name


CONTRIBUTED = sorted(
    {(s.domain, s.name) for s in get_all_operator_schema() if s.domain.startswith("com.m")}
)


@pytest.mark.parametrize(("domain", "name"), CONTRIBUTED, ids=[f"{d}::{n}" for d, n in CONTRIBUTED])
def test_every_operator_that_onnxruntime_adds_is_described_or_opaque(domain, name):
    family = operator_register.get(name, domain)
    assert family is not OperatorNode
    assert family.reason if issubclass(family, Opaque) else family.ties is not OperatorNode.ties


def test_no_operator_of_onnxruntime_is_both_described_and_opaque():
    names = [name for group in onnxruntime_opaque.REASONS.values() for name in group]
    assert len(names) == len(set(names))
    for name in names:
        domain, _, plain = name.rpartition("::")
        assert issubclass(operator_register.get(plain, domain or "com.microsoft"), Opaque), name


def test_another_domain_does_not_inherit_a_rule_by_its_name():
    assert operator_register.get("Attention", "my.domain") is OperatorNode
    assert operator_register.get("Conv", "ai.onnx") is operator_register.get("Conv")


def test_an_undescribed_operator_names_itself_its_module_and_the_way_out():
    data = model(
        [
            node("MatMul", "x w", "h"),
            node("Mystery", "h", "z", domain="my.domain", name="/block/Mystery"),
            node("Relu", "h", "y"),
        ],
        {"x": (2, 3)},
        ["y"],
        {"w": (3, 4)},
        domains={"my.domain": 1},
    )
    graph = solve_onnx(data)
    with pytest.raises(OpaqueAxisError) as caught:
        graph.cut_analysis("self.w", [0], 1)
    for part in ("Mystery", "self.block.Mystery", "operator_reg.regist('Mystery'"):
        assert part in caught.value.detail
    assert graph.cut_analysis("self.w", [0], 0).touches_inputs == ("x",)


def test_an_operator_of_a_users_own_domain_can_be_registered(caplog):
    class Doubled(OperatorNode):
        def ties(self, ties: Ties) -> None:
            x = self.in_data[0]
            for dim in range(x.rank):
                ties.same(x.axis(dim), self.out_data[0].axis(dim))

    operator_register.regist("Doubled", Doubled)
    try:
        assert operator_register.get("Doubled", "mine") is Doubled
        with caplog.at_level(logging.WARNING):
            operator_register.regist("Doubled", OperatorNode)
        assert "Doubled" in caplog.text
        with pytest.raises(TypeError, match="OperatorNode"):
            operator_register.regist("Doubled", int)
    finally:
        operator_register._classes.pop("Doubled")


def test_sequences_and_what_comes_out_of_them_are_opaque_not_fatal():
    data = model(
        [
            node("MatMul", "x w", "h"),
            node("SequenceConstruct", "h h", "s"),
            node("SequenceAt", "s i", "e"),
            node("Conv", "e v", "y"),
        ],
        {"x": (1, 3, 4, 4), "i": ((), np.int64)},
        ["y"],
        {"w": (4, 4), "v": (2, 3, 1, 1)},
        shapes={"y": (1, 2, 4, 4)},
    )
    with pytest.raises(OpaqueAxisError, match="SequenceConstruct"):
        solve_onnx(data).cut_analysis("self.w", [0], 1)
