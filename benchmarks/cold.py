"""First answers: a cold ResNet-50 as TorchScript, and a Llama of 70 billion parameters."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.figures import Figure
from benchmarks.live_service import LiveService
from benchmarks.models import CASES

COLD_SECONDS = 5.0
LLAMA_SECONDS, LLAMA_MB, LLAMA_GB = 90.0, 5.0, 4.0


def cold_figures(service: LiveService, folder: Path) -> Iterator[Figure]:
    """Upload to first answer, for both models."""
    yield _resnet(service, folder)
    yield from _llama(service, folder)


def _resnet(service: LiveService, folder: Path) -> Figure:
    model, inputs = next(case for case in CASES if case.name == "resnet50").build()
    path = folder / "resnet50.pt"
    torch.jit.save(torch.jit.trace(model, inputs), path)
    data = path.read_bytes()
    start = time.perf_counter()
    view = service.upload(data, name="cold", input="x:1x3x224x224:float32")
    asked = {"node": "self.layer1.0.conv3.weight", "index": [0, 1, 2, 3], "dim": 0}
    service.client.post(f"/v1/models/{view['id']}/cut-analysis", json=asked).raise_for_status()
    return Figure.at_most(
        "cold ResNet-50 TorchScript, upload to first cut",
        time.perf_counter() - start,
        COLD_SECONDS,
        "s",
        f"{len(data):,} bytes",
    )


def _llama(service: LiveService, folder: Path) -> Iterator[Figure]:
    path = folder / "llama70b.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", str(path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        yield Figure("Llama-70B on meta: exported", 0, 1, "", False, done.stderr[-300:])
        return
    said = json.loads(done.stdout.splitlines()[-1])
    data = path.read_bytes()
    start = time.perf_counter()
    view = service.upload(data, name="llama-70b")
    groups = service.client.get(f"/v1/models/{view['id']}/groups?limit=1").json()["total"]
    answered = time.perf_counter() - start
    yield Figure.at_most(
        "Llama-70B on meta: export, upload and all groups",
        said["seconds"] + answered,
        LLAMA_SECONDS,
        "s",
        f"export {said['seconds']:.1f} s, service {answered:.1f} s, {groups} groups, "
        f"{view['counts']['params']:,} parameters",
    )
    yield Figure.at_most("Llama-70B on meta: uploaded", len(data) / 1e6, LLAMA_MB, "MB")
    yield Figure.at_most(
        "Llama-70B on meta: memory of the exporting process", said["gigabytes"], LLAMA_GB, "GB"
    )


def export_llama(path: Path) -> None:
    """Export the 70-billion-parameter configuration without weights and print time and memory."""
    import transformers

    import torchpruner_core
    from benchmarks.models import TokensToLogits

    start = time.perf_counter()
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        use_cache=False,
    )
    with torch.device("meta"):
        model = TokensToLogits(transformers.LlamaForCausalLM(config).eval())
        tokens = torch.zeros((1, 16), dtype=torch.int64)
    path.write_bytes(torchpruner_core.export_onnx(model, (tokens,), weights=False))
    said = {
        "seconds": time.perf_counter() - start,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    export_llama(Path(sys.argv[1]))
