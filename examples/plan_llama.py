"""A grouped-query Llama at 70 % of its parameters, by heads and neurons; the text is Python's own help.

The residual stream stays as wide as it is, so embeddings and norms are protected. The configuration is
small and the weights are random: ``AutoModelForCausalLM.from_pretrained`` takes the place of both.
"""

from __future__ import annotations

import pydoc_data.topics
from tempfile import mkdtemp

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import torchpruner_core as tp

torch.manual_seed(0)

# --8<-- [start:data]
text = pydoc_data.topics.topics["compound"].encode("ascii", "replace")
ids = torch.tensor(list(text[: 16 * 65])).view(16, 65)
batches = [{"input_ids": part, "labels": part} for part in ids.split(4)]
# --8<-- [end:data]

# --8<-- [start:plan]
config = LlamaConfig(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    use_cache=False,
)
model = LlamaForCausalLM(config)

graph = tp.ONNXGraph(model)
graph.build_graph({"input_ids": ids[:1, :64]}, fill_value=False)
scores = tp.importance.taylor(model, graph, batches)
plan = tp.plan(
    graph,
    tp.Budget(params="70%"),
    scores,
    scope="isomorphic",
    protect=["self.model.embed_tokens", "self.lm_head", "self.model.norm"],
)
print(plan)

model, context = tp.set_cut(model, plan.result)
print(tp.recover(model, plan, [{"input_ids": batch["input_ids"]} for batch in batches]))
attention = model.model.layers[0].self_attn
print(
    f"{attention.q_proj.out_features // attention.head_dim} query heads, "
    f"{attention.k_proj.out_features // attention.head_dim} key/value heads, "
    f"{model.model.layers[0].mlp.gate_proj.out_features} neurons"
)
# --8<-- [end:plan]

# --8<-- [start:train]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
for _ in range(3):
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.3f}")
model.eval()
# --8<-- [end:train]

# --8<-- [start:save]
folder = mkdtemp()
tp.save_pretrained(model, folder, plan)
again = tp.load_pretrained(LlamaForCausalLM, folder)
same = torch.equal(again(input_ids=ids[:1]).logits, model(input_ids=ids[:1]).logits)
# --8<-- [end:save]
print(f"{plan.result.params_before:,} -> {plan.result.params_after:,} parameters")
print("loaded again:", "the same outputs" if same else "OTHER OUTPUTS")
