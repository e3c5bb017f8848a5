"""Ask a service about a model, and apply the answer here. TORCHPRUNER_URL says where it is."""

# --8<-- [start:example]
import torch
import torchvision

from torchpruner_client import Client
from torchpruner_core import recovery_cut, set_cut

model = torchvision.models.resnet50().eval()
inputs = (torch.rand(1, 3, 224, 224),)

with Client() as client:  # Client("http://host:8000", api_key="...")
    remote = client.upload(model, inputs)  # shapes only: the weights stay here
    for group in remote.groups()[:5]:
        print(group.width, "x", group.members[0], group.flops_per_slice, "FLOPs a slice")
    conv = remote.modules["self.layer1.0.conv3"]
    result = conv.cut_analysis("weight", index=[0, 1, 2, 3], dim=0)

print(f"{result.flops_before:,} -> {result.flops_after:,} FLOPs")
model, context = set_cut(model, result)
print(model(*inputs).shape)
model = recovery_cut(model, result, context)
# --8<-- [end:example]
