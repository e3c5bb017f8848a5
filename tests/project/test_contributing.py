"""The worked examples of CONTRIBUTING.md work, each where it says that it belongs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fastapi import APIRouter
from onnx import TensorProto, helper, numpy_helper

import torchpruner_core as tp
from torchpruner_core.capture import registry as translations
from torchpruner_core.capture.translations import elementwise
from torchpruner_core.importance import weights
from torchpruner_core.operators import elementwise as rules
from torchpruner_core.operators.registry import describes, operator_register
from torchpruner_service.api.app import create_app
from torchpruner_service.api.routers import saved_cuts
from torchpruner_service.settings import Settings
from torchpruner_service.storage import layout

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def example(heading: str) -> str:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)\n```", section, re.DOTALL)
    assert len(code.splitlines()) <= 14, f"{heading} is no short example any more"
    return str(code)


def run(heading: str, place: object, **more: Any) -> dict[str, Any]:
    """Run an example with the names of the file that it would stand in; return all names."""
    names = {**vars(place), **more}
    exec(compile(example(heading), heading, "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an example registers is forgotten."""
    for holder, name in ((operator_register, "_classes"), (translations, "_TRANSLATIONS")):
        monkeypatch.setattr(holder, name, dict(getattr(holder, name)))
    yield


@pytest.mark.usefixtures("as_before")
def test_the_operator_couples_its_inputs() -> None:
    run("One operator", rules, describes=describes)
    stored = {"w": (3, 4), "gate": (4,), "v": (4, 2)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Gate", ["h", "gate"], ["g"], domain="my.domain"),
            helper.make_node("MatMul", ["g", "v"], ["y"]),
        ],
        "gated",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 2))],
        [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in stored.items()],
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    cut = tp.solve_onnx(model.SerializeToString()).cut_analysis("self.w", [1], 1)
    assert set(cut.terminal) == {"self.w", "self.gate", "self.v"}


@pytest.mark.usefixtures("as_before")
def test_the_translation_computes_what_the_module_does() -> None:
    run("One ATen translation", elementwise)

    class Degrees(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rad2deg(x)

    x = torch.randn(2, 3)
    data = tp.export_onnx(Degrees(), (x,))
    types = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert types == {"Mul"}
    from torchpruner_core.running import run as run_onnx

    (name,) = (info.name for info in onnx.load_model_from_string(data).graph.input)
    (found,) = run_onnx(data, {name: x.numpy()}).values()
    np.testing.assert_allclose(found, torch.rad2deg(x).numpy(), rtol=1e-6)


def test_the_importance_scores_every_slice() -> None:
    peak: Callable[..., tp.Scores] = run("One importance", weights)["peak"]
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    graph = tp.ONNXGraph(model)
    graph.build_graph((torch.randn(1, 4),))
    found = peak(model, graph)
    expected = model[0].weight.detach().abs().amax(1)
    np.testing.assert_allclose(found["self.0.weight", 0], expected.numpy(), rtol=1e-6)


def test_the_route_is_in_the_document_and_answers() -> None:
    names = run("One route", saved_cuts, layout=layout, router=APIRouter(prefix="/v1"))
    app = create_app(Settings())
    app.include_router(names["router"])
    shown = app.openapi()["paths"]["/v1/models/{model}/cut-count"]["get"]
    assert {"200", "401", "404"} <= set(shown["responses"])

    async def held_items(tenant: str, model: str, kind: str) -> list[str]:
        assert (tenant, model, kind) == ("them", "m1", layout.CUTS)
        return ["a", "b"]

    state = SimpleNamespace(catalog=SimpleNamespace(held_items=held_items))
    answer = asyncio.run(names["count_cuts"](state, SimpleNamespace(tenant="them"), "m1"))
    assert answer.body == b'{"count":2}'
