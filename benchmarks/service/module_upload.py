"""A ResNet-50 as the ``nn.Module`` that it is in somebody's notebook: from ``upload`` to the first answer."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.live_service import told_by_client

SECONDS, MEMORY_PERCENT = 0.5, 10.0

# Its own process, whose memory is that of the client side alone. The first upload, of another model, imports
# what is needed; clear_refs lets the peak begin at what is there then.
CLIENT = """
import json, sys, time
import torch, torchvision
from torchpruner_client import Client

def memory(kind):
    status = open("/proc/self/status").read()
    return int(status.partition(kind + ":")[2].split()[0]) * 1024

torch.set_num_threads(2)
torch.manual_seed(time.time_ns() % 2**31)
inputs = (torch.zeros(1, 3, 224, 224),)
model = torchvision.models.resnet50().eval()
own = sum(t.nbytes for t in model.state_dict().values())
with Client(sys.argv[1], progress=False, timeout=300) as client:
    def first_answer(model):
        start = time.perf_counter()
        remote = client.upload(model, inputs)
        uploaded = time.perf_counter()
        remote.cut_analysis("self.layer1.0.conv3.weight", [0, 1, 2, 3])
        return uploaded - start, time.perf_counter() - start, remote.bytes_sent[0]

    small = torchvision.models.resnet34().eval()
    start = time.perf_counter()
    client.upload(small, inputs)
    before = time.perf_counter() - start
    del small
    open("/proc/self/clear_refs", "w").write("5")
    resident = memory("VmRSS")
    uploaded, answered, sent = first_answer(model)
    grown = memory("VmHWM") - resident
print(json.dumps({"first": before, "uploaded": uploaded, "seconds": answered, "sent": sent,
                  "own": own, "grown": grown}))
"""


def module_upload_figures() -> Iterator[Figure]:
    """Yield time, bytes sent and how far the client's memory rises above what the model takes."""
    found = told_by_client(CLIENT)
    yield Figure.shown("first upload of all, imports included (ResNet-34)", found["first"], "s")
    yield Figure.shown("ResNet-50 module: upload until the graph is built", found["uploaded"], "s")
    yield Figure.at_most(
        "ResNet-50 module: upload to first answer",
        found["seconds"],
        SECONDS,
        "s",
        f"{found['sent']:,} bytes sent",
    )
    yield Figure.at_most(
        "ResNet-50 module: memory above the model's own",
        100 * found["grown"] / found["own"],
        MEMORY_PERCENT,
        "%",
        f"{found['grown'] / 1e6:.1f} MB on {found['own'] / 1e6:.0f} MB",
    )
