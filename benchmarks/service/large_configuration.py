"""A Llama of 70 billion parameters on the ``meta`` device: exported, sent weightless, all groups."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.live_service import told_by_client

SECONDS, SENT_MB, MEMORY_GB = 30.0, 5.0, 2.0

# Its own process, so that the peak memory is that of the whole client side and of nothing else.
CLIENT = """
import json, sys, time
import torch
from torchpruner_client import Client
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_num_threads(2)
config = LlamaConfig(
    num_hidden_layers=80, hidden_size=8192, intermediate_size=28672, num_attention_heads=64,
    num_key_value_heads=8, vocab_size=128256, use_cache=False,
)
with torch.device("meta"):
    model = LlamaForCausalLM(config).eval()
params = sum(p.numel() for p in model.parameters())
start = time.perf_counter()
with Client(sys.argv[1], progress=False, timeout=300) as client:
    ids = torch.zeros(1, 16, dtype=torch.int64, device="meta")
    remote = client.upload(model, {"input_ids": ids})
    uploaded = time.perf_counter()
    groups = remote.groups()
end = time.perf_counter()
# Not getrusage: a child inherits the peak of the process that started it.
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({
    "params": params, "seconds": end - start, "upload": uploaded - start,
    "sent": remote.bytes_sent[0], "groups": len(groups),
    "rss": peak * 1024,
}))
"""


def large_configuration_figures() -> Iterator[Figure]:
    """Yield time, bytes sent and the client's peak memory."""
    found = told_by_client(CLIENT)
    billions = found["params"] / 1e9
    note = f"{billions:.1f} billion parameters, {found['groups']} groups"
    yield Figure.shown("Llama-70B: export and upload until ready", found["upload"], "s")
    yield Figure.at_most("Llama-70B: until all groups", found["seconds"], SECONDS, "s", note)
    yield Figure.at_most("Llama-70B: bytes sent", found["sent"] / 1e6, SENT_MB, "MB")
    yield Figure.at_most("Llama-70B: client's memory", found["rss"] / 1e9, MEMORY_GB, "GB")
