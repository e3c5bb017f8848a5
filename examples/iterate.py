"""Prune step by step through a service, which keeps the lineage. TORCHPRUNER_URL says where it is."""

# --8<-- [start:example]
import torch
import torchvision

from torchpruner_client import Client
from torchpruner_core import set_cut

model = torchvision.models.resnet18().eval()
inputs = (torch.rand(1, 3, 64, 64),)

with Client() as client:
    remote = client.upload(model, inputs, name="resnet18")
    for name in ("self.layer1.0.conv1", "self.layer2.0.conv1", "self.layer3.0.conv1"):
        result = remote.modules[name].cut_analysis("weight", index=list(range(16)), dim=0)
        model, _ = set_cut(model, result)
        remote = remote.derive(result)  # indices of the next cut refer to what is left
    for entry in remote.lineage():
        print(f"{entry.id}  {entry.params:,} parameters  {entry.flops:,} FLOPs")

print(sum(p.numel() for p in model.parameters()), "parameters here")
# --8<-- [end:example]
