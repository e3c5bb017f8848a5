"""A Llama of 70 billion parameters on the ``meta`` device: from the ``nn.Module`` to every group."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figures import Figure

SECONDS, MEMORY_GB = 8.0, 2.0
LIMIT = 600.0

# Its own process, whose peak memory is that of the analysis and of nothing else.
PROGRAM = """
import json, time
import torch, torchpruner_core
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
config = LlamaConfig(
    num_hidden_layers=80, hidden_size=8192, intermediate_size=28672, num_attention_heads=64,
    num_key_value_heads=8, vocab_size=128256, use_cache=False,
)
with torch.device("meta"):
    model = LlamaForCausalLM(config).eval()
ids = torch.zeros(1, 16, dtype=torch.int64, device="meta")
wall, cpu = time.perf_counter(), time.process_time()
graph = torchpruner_core.ONNXGraph(model).build_graph({"input_ids": ids}, fill_value=False)
groups = graph.solved.groups()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({
    "params": graph.solved.params(), "groups": len(groups), "wall": wall, "cpu": cpu, "peak": peak,
    "entrance": graph.program.entrance.name,
}))
"""


def large_figures() -> Iterator[Figure]:
    """Yield time, imports of ONNX and SciPy included, and the peak memory of the whole process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode:
        yield Figure("Llama-70B on meta: measured", 0, 1, "", False, done.stderr[-300:])
        return
    found = json.loads(done.stdout.splitlines()[-1])
    note = (
        f"{found['params'] / 1e9:.1f} billion parameters, {found['groups']} groups, by "
        f"{found['entrance']}; {found['cpu']:.2f} s of CPU"
    )
    yield Figure.at_most(
        "Llama-70B on meta: nn.Module to all groups", found["wall"], SECONDS, "s", note
    )
    yield Figure.at_most("Llama-70B on meta: peak memory", found["peak"] / 1e9, MEMORY_GB, "GB")
