"""The original's own results, where it was right: format, indices and operator changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from torchpruner_core import ONNXGraph


def analysed(name: str, node: str, index: list[int]) -> Any:
    model = getattr(torchvision.models, name)().eval()
    x = torch.zeros(1, 3, 64, 64)
    graph = ONNXGraph(torch.jit.trace(model, x))
    graph.build_graph((x,), fill_value=False)
    return graph.solved.cut_analysis(node, index, 0, granularity="inner")


def removed(result: Any) -> dict[str, tuple[int, list[int]]]:
    """Return each terminal's cut axis and indices, checking the format on the way."""
    found = {}
    for name, entries in result["terminal"].items():
        cut = [(axis, e) for axis, e in enumerate(entries) if e is not None]
        assert len(cut) == 1 and cut[0][1].dtype == np.int64 and cut[0][1].ndim == 1
        assert cut[0][1].tolist() == sorted(cut[0][1].tolist())
        found[name] = (cut[0][0], cut[0][1].tolist())
    return found


def norm(name: str, indices: list[int]) -> dict[str, tuple[int, list[int]]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (0, indices) for part in parts}


def test_resnet18_layer1_conv1() -> None:
    result = analysed("resnet18", "self.layer1.0.conv1.weight", [0, 1])
    assert list(result) == ["terminal", "iner", "operator"]
    assert removed(result) == {
        "self.layer1.0.conv1.weight": (0, [0, 1]),
        **norm("self.layer1.0.bn1", [0, 1]),
        "self.layer1.0.conv2.weight": (1, [0, 1]),
    }
    assert len(result["iner"]) == 3
    assert all(e[1].tolist() == [0, 1] and len(e) == 4 for e in result["iner"].values())
    assert result["operator"] == {}


def test_resnext50_takes_the_same_positions_of_every_group() -> None:
    result = analysed("resnext50_32x4d", "self.layer2.2.conv2.weight", [0, 1])
    inner = [8 * group + i for group in range(32) for i in (0, 1)]
    assert removed(result) == {
        "self.layer2.2.conv2.weight": (0, inner),
        **norm("self.layer2.2.bn2", inner),
        "self.layer2.2.conv3.weight": (1, inner),
    }
    assert result["operator"] == {}


def test_resnext50_takes_a_whole_group() -> None:
    result = analysed("resnext50_32x4d", "self.layer2.2.conv2.weight", list(range(8)))
    group = list(range(8))
    assert removed(result) == {
        "self.layer2.2.conv2.weight": (0, group),
        **norm("self.layer2.2.bn2", group),
        "self.layer2.2.conv3.weight": (1, group),
        **norm("self.layer2.2.bn1", group),
        "self.layer2.2.conv1.weight": (0, group),
    }
    assert result["operator"] == {"self.layer2.2.conv2.Conv": {"group": 1}}


def test_mobilenet_v2_takes_a_depthwise_convolution_along() -> None:
    result = analysed("mobilenet_v2", "self.features.5.conv.1.0.weight", [0, 1])
    assert len(result["terminal"]) == 12 - 1
    assert result["operator"] == {"self.features.5.conv.1.0.Conv": {"group": 2}}


@pytest.mark.parametrize(
    ("model", "node", "millions", "normalised"),
    [
        ("resnet18", "self.layer1.0.conv1.weight", 1823.909 - 1809.421, 4 * 56 * 56),
        ("mobilenet_v2", "self.features.1.conv.0.0.weight", 320.454 - 317.543, 2 * 4 * 112 * 112),
    ],
)
def test_the_savings_are_those_of_the_original(
    model: str, node: str, millions: float, normalised: int
) -> None:
    net = getattr(torchvision.models, model)().eval()
    x = torch.zeros(1, 3, 224, 224)
    graph = ONNXGraph(torch.jit.trace(net, x))
    graph.build_graph((x,), fill_value=False)
    result = graph.solved.cut_analysis(node, [0, 1, 2, 3], 0)
    # The original counts multiply-accumulates, 2 an element of a batch norm and 1 of an activation.
    saved = result.macs_before - result.macs_after + 3 * normalised
    assert saved / 1e6 == pytest.approx(millions, abs=2e-3)
