"""Upload, analyse, prune, load, restore: one model of each torchvision CNN family, checked by the oracle."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.service.models import torchscript_of, torchvision_model
from tests.service.running import RunningService
from torchpruner_client import Client
from torchpruner_core.pruning import recovery_cut, set_cut, verify_cut

FAMILIES = {
    "alexnet": ("features.3", 224),
    "vgg11_bn": ("features.4", 224),
    "resnet18": ("layer2.0.conv2", 64),
    "resnext50_32x4d": ("layer2.0.conv1", 64),
    "mobilenet_v2": ("features.5.conv.0.0", 64),
    "mobilenet_v3_small": ("features.4.block.0.0", 64),
    "shufflenet_v2_x0_5": ("conv5.0", 64),
    "squeezenet1_1": ("features.3.squeeze", 64),
    "mnasnet0_5": ("layers.8.1.layers.0", 64),
    "densenet121": ("features.denseblock1.denselayer2.conv1", 64),
    "efficientnet_b0": ("features.3.0.block.0.0", 64),
    "regnet_y_400mf": ("trunk_output.block2.block2-0.f.a.0", 64),
    "googlenet": ("inception4a.branch2.0.conv", 64),
    "inception_v3": ("Mixed_5b.branch5x5_1.conv", 96),
}


WIDE = {"alexnet", "vgg11_bn"}


def sharp(module: torch.nn.Module) -> None:
    """Random affine parameters and statistics: with ones and zeros a wrong cut may go unseen."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 1.5)


def narrow(module: Any) -> None:
    """Let a classifier of a hundred million weights be a small one: it proves no less."""
    layers = [part for part in module.classifier if isinstance(part, torch.nn.Linear)]
    for place, layer in enumerate(layers):
        inputs = layer.in_features if place == 0 else 48
        outputs = layer.out_features if layer is layers[-1] else 48
        number = list(module.classifier).index(layer)
        module.classifier[number] = torch.nn.Linear(inputs, outputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_goes_the_whole_path(service: RunningService, name: str, tmp_path: Path) -> None:
    target, size = FAMILIES[name]
    module, example = torchvision_model(name, size)
    if name in WIDE:
        narrow(module)
    sharp(module)
    example = torch.randn(2, *example.shape[1:])
    file = tmp_path / f"{name}.pt"
    file.write_bytes(torchscript_of(module, example))
    original = {key: value.clone() for key, value in module.state_dict().items()}
    with Client(service.url, progress=False) as client:
        remote = client.upload(file, {"x": example}, name=name)
        result = remote.modules[f"self.{target}"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
        report = verify_cut(module, result, example)
        assert report.ok and report.equal is not False, str(report)
        weights = remote.download_pruned(result, tmp_path / "pruned.safetensors")
        remote.delete()
    pruned, context = set_cut(module, result)
    expected = {key: value.clone() for key, value in pruned.state_dict().items()}
    state: Any = OrderedDict(load_file(weights))
    # Some modules (MNASNet) look for their version, which no file of plain tensors has.
    state._metadata = pruned.state_dict()._metadata
    pruned.load_state_dict(state, strict=True)
    assert all(torch.equal(value, expected[key]) for key, value in state.items())
    restored = recovery_cut(pruned, result, context)
    assert all(torch.equal(value, original[key]) for key, value in restored.state_dict().items())
