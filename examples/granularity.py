"""One request, three answers: heads, head dimensions, or neither without being told."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp

layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, batch_first=True)
layer.train()  # the fused inference path of torch is one opaque operator
graph = tp.ONNXGraph(layer)
graph.build_graph((torch.rand(2, 5, 64),), fill_value=False, training=True)

node = "self.self_attn.in_proj_weight"
for granularity in ("outer", "inner", "auto"):
    result = graph.solved.cut_analysis(node, [0, 1], 0, granularity=granularity)
    removed = result["terminal"][node][0]
    print(f"{granularity:>6}: {len(removed)} rows of {node} go, {result.params_removed} parameters")
    for choice in result.choices:
        print(f"        {choice.operator} {choice.factors}: {choice.taken}")

try:
    graph.solved.cut_analysis(node, [0, 1], 0, granularity="strict")
except tp.errors.AmbiguousCutError as error:
    print(f"strict: {error}")
# --8<-- [end:example]
