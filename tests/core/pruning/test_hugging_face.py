"""Models whose sizes are in a config: attributes follow, and the config where it can say the result."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from torchpruner_core import ONNXGraph, recovery_cut, set_cut, verify_cut
from torchpruner_core.errors import LiteralInForwardError

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[5, 17, 42, 8, 77, 3]])


def analysed(model: Any) -> Any:
    graph = ONNXGraph(model.eval())
    graph.build_graph({"input_ids": IDS}, fill_value=False)
    return graph


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=48, use_cache=False,
    )  # fmt: skip
    return analysed(transformers.LlamaForCausalLM(config))


@pytest.fixture(scope="module")
def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    )
    return analysed(transformers.BertModel(config))


def reloaded(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


def test_a_narrower_residual_stream_is_saved_and_loaded(llama: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(llama.model)
    result = llama.solved.cut_analysis("self.model.embed_tokens.weight", [0, 9, 30, 31], 1)
    before = model.config.to_dict()
    model, context = set_cut(model, result)
    assert model.config.hidden_size == 28
    twin = reloaded(copy.deepcopy(model), tmp_path)
    assert torch.equal(twin(IDS).logits, model(IDS).logits)
    recovery_cut(model, result, context)
    assert model.config.to_dict() == before


def test_sizes_that_no_config_may_have_leave_it_as_it_is(llama: Any) -> None:
    model = copy.deepcopy(llama.model)
    result = llama.solved.cut_analysis("self.model.embed_tokens.weight", [0], 1)
    model, _ = set_cut(model, result)
    assert model.config.hidden_size == 32  # 31 is no multiple of the number of heads
    assert model(IDS).logits.shape == (1, 6, 99)


def test_the_same_cut_of_every_layer_ends_up_in_the_config(llama: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(llama.model)
    for layer in range(2):
        name = f"self.model.layers.{layer}.mlp.gate_proj.weight"
        model, _ = set_cut(model, llama.solved.cut_analysis(name, [1, 2, 40], 0))
        assert model.config.intermediate_size == (48 if layer == 0 else 45)
    twin = reloaded(model, tmp_path)
    assert torch.equal(twin(IDS).logits, model(IDS).logits)


def test_a_key_value_head_of_every_layer_ends_up_in_the_config(llama: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(llama.model)
    for layer in range(2):
        name = f"self.model.layers.{layer}.self_attn.k_proj.weight"
        result = llama.solved.cut_analysis(name, list(range(8)), 0)
        assert verify_cut(model, result, {"input_ids": IDS}).equal
        model, _ = set_cut(model, result)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    twin = reloaded(model, tmp_path)
    torch.testing.assert_close(twin(IDS).logits, model(IDS).logits)


def test_a_head_of_one_layer_changes_its_module_and_not_the_config(bert: Any) -> None:
    model = copy.deepcopy(bert.model)
    name = "self.encoder.layer.0.attention.self.query.weight"
    result = bert.solved.cut_analysis(name, list(range(8, 16)), 0)
    assert verify_cut(model, result, {"input_ids": IDS}).equal
    model, context = set_cut(model, result)
    attention = model.encoder.layer[0].attention.self
    assert (attention.num_attention_heads, attention.all_head_size) == (3, 24)
    assert attention.attention_head_size == 8
    assert model.config.num_attention_heads == 4
    recovery_cut(model, result, context)
    assert (attention.num_attention_heads, attention.all_head_size) == (4, 32)


def test_a_head_size_that_queries_and_values_share_in_the_code_is_refused(bert: Any) -> None:
    model = copy.deepcopy(bert.model)
    name = "self.encoder.layer.0.attention.self.query.weight"
    result = bert.solved.cut_analysis(name, [0, 1], 0, granularity="inner")
    with pytest.raises(LiteralInForwardError, match="correct_forward=True"):
        set_cut(model, result)
    report = verify_cut(model, result, {"input_ids": IDS}, correct_forward=True)
    assert report.equal, str(report)


def test_a_layer_whose_attribute_gives_the_output_shape_follows() -> None:
    config = transformers.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=16, use_cache=False
    )
    graph = analysed(transformers.GPT2LMHeadModel(config))
    model = graph.model
    result = graph.solved.cut_analysis("self.transformer.h.0.mlp.c_fc.weight", [0, 7], 1)
    assert verify_cut(model, result, {"input_ids": IDS}).equal
    set_cut(model, result)
    assert model.transformer.h[0].mlp.c_fc.nf == 126
