"""An ONNX file from anywhere: what it lost, an input that always holds one value, a smaller file."""

# --8<-- [start:example]
import io

import torch
from torch import nn

import torchpruner_core as tp

model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 8)).eval()
file = io.BytesIO()
torch.onnx.export(model, (torch.rand(2, 5, 16),), file, dynamo=False)  # as people export

graph = tp.solve_onnx(file.getvalue())
for note in graph.metadata.get("notes", ()):
    print("note:", note)

result = graph.cut_analysis("self.0.weight", range(32), 1)  # stored as (in, out)
smaller = tp.prune_onnx(file.getvalue(), result)
print(f"{len(file.getvalue()):,} -> {len(smaller):,} bytes")

pruned, context = tp.set_cut(model, result)  # the module has (out, in): turned round
print(pruned)
# --8<-- [end:example]
