"""A cut that a client sends is applied as it is, or refused with the first thing that is wrong."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch

from tests.service.models import onnx_of, small_file
from tests.service.running import RunningService
from torchpruner_core.importing.solving import solve_onnx
from torchpruner_service.api.cut_results import fitting_result
from torchpruner_service.api.schemas import Result
from torchpruner_service.problems import Conflict

Json = dict[str, Any]


class Grouped(torch.nn.Module):
    """A residual pair, a grouped convolution and a concatenation: ties, views and changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 16, 1)
        self.bn = torch.nn.BatchNorm2d(16)
        self.grouped = torch.nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.side = torch.nn.Conv2d(3, 8, 1)
        self.head = torch.nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.relu(self.bn(self.stem(x)))
        return self.head(torch.cat([y + self.grouped(y), self.side(x)], 1))


@pytest.fixture(scope="module")
def graph() -> Any:
    return solve_onnx(onnx_of(Grouped().eval(), torch.zeros(1, 3, 8, 8)))


CUTS = [
    ("self.stem.weight", [0], 0, "auto"),
    ("self.stem.weight", [0, 1, 2, 3], 0, "outer"),
    ("self.stem.weight", [1], 0, "inner"),
    ("self.side.weight", [1, 5], 0, "auto"),
    ("self.head.weight", [17], 1, "auto"),
]


DROPPED = object()


def edited(result: Json, *path: Any, value: Any = DROPPED) -> Json:
    """A copy of ``result`` whose member at ``path`` is ``value``, or is not there."""
    other = copy.deepcopy(result)
    *outer, last = path
    owner: Any = other
    for step in outer:
        owner = owner[step]
    if value is DROPPED:
        del owner[last]
    else:
        owner[last] = value
    return other


def posted(graph: Any, number: int) -> Json:
    node, index, dim, granularity = CUTS[number]
    return copy.deepcopy(graph.cut_analysis(node, index, dim, granularity=granularity).to_dict())


@pytest.mark.parametrize("number", range(len(CUTS)))
def test_what_the_analysis_said_fits_in_either_form(graph: Any, number: int) -> None:
    whole = posted(graph, number)
    expected = fitting_result(graph, Result(**whole), "m")
    assert expected is not None
    for key in ("terminal", "iner", "operator"):
        assert expected.to_dict()[key] == whole[key]
    plain = {"terminal": whole["terminal"]}
    assert fitting_result(graph, Result(**plain), "m") == expected


def test_two_cuts_joined_fit(graph: Any) -> None:
    requests = [{"node": n, "index": i, "dim": d} for n, i, d, _ in (CUTS[1], CUTS[3])]
    whole = graph.cut_analysis_many(requests, granularity="outer").to_dict()
    found = fitting_result(graph, Result(**whole), "m")
    assert found is not None and found.to_dict()["terminal"] == whole["terminal"]


@pytest.mark.parametrize("number", range(len(CUTS)))
def test_every_entry_that_is_dropped_or_changed_is_noticed(graph: Any, number: int) -> None:
    whole = posted(graph, number)
    broken: list[tuple[str, Json]] = []
    for key in ("terminal", "iner"):
        for name, axes in whole[key].items():
            broken.append((name, edited(whole, key, name)))
            for dim, axis in enumerate(axes):
                if axis is None:
                    continue
                indices = axis if isinstance(axis, list) else list(range(*axis["ranges"][0]))
                for other in (None, indices[:-1], [*indices[:-1], indices[-1] + 1]):
                    broken.append((name, edited(whole, key, name, dim, value=other)))
    for name, change in whole["operator"].items():
        broken.append((name, edited(whole, "operator", name)))
        for attribute in change:
            broken.append((name, edited(whole, "operator", name, attribute, value=99)))
    assert broken
    for name, result in broken:
        with pytest.raises(Conflict) as refused:
            fitting_result(graph, Result(**result), "m")
        assert refused.value.type == "cut-mismatch"
        assert refused.value.fields.get("node") or refused.value.fields.get("operator"), name


def test_what_is_not_removed_is_the_engine_s_word(graph: Any) -> None:
    whole = posted(graph, 0)
    forged = {**whole, "params_removed": -7, "outputs": [], "renormalises": ["nothing"]}
    assert fitting_result(graph, Result(**forged), "m") == fitting_result(
        graph, Result(**whole), "m"
    )


@pytest.mark.parametrize("kind", ["derive", "pruned-weights", "pruned-onnx", "latency"])
def test_an_inconsistent_cut_makes_nothing(service: RunningService, kind: str) -> None:
    file = small_file(41)
    model = service.upload(file.content, *file.inputs)["id"]
    result = service.cut(model, "self.conv1.weight", [0, 1])
    result.pop("model")
    result["terminal"].pop("self.bn.running_var")
    answer = service.client.post(f"/v1/models/{model}/{kind}", json={"result": result})
    assert (answer.status_code, answer.json()["type"]) == (409, "cut-mismatch")
    assert answer.json()["node"] == "self.bn.running_var"
    assert answer.json()["expected"] == 2
    lineage = service.client.get(f"/v1/models/{model}/lineage").json()
    assert lineage["children"] == []


def test_shapes_after_a_derivation_fit_together(service: RunningService) -> None:
    file = small_file(42)
    model = service.upload(file.content, *file.inputs)["id"]
    result = service.cut(model, "self.conv1.weight", [0, 1])
    plain = {"terminal": result["terminal"]}
    child = service.client.post(f"/v1/models/{model}/derive", json={"result": plain})
    assert child.status_code == 201, child.text
    made = service.artifact(child.json()["id"], "pruned-weights", format="npz")
    content = service.client.get(made["content"]).content
    state = np.load(io.BytesIO(content))
    assert state["conv1.weight"].shape[0] == state["bn.running_var"].shape[0] == 6
