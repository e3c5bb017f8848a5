"""Files that other exporters wrote: what they store is counted, grouped, named, pruned and replayed."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import torchpruner_core as tp
from benchmarks.zoo.wild import dialects
from torchpruner_core import TensorSpec, prune_onnx, solve_onnx
from torchpruner_core.errors import (
    CutMismatchError,
    InputSpecError,
    InvalidModelError,
    UnsupportedModelError,
)
from torchpruner_core.onnx_pruning import masked_onnx
from torchpruner_core.onnx_pruning.verification import verify_onnx
from torchpruner_core.running import run


def exported(model, x, **options):
    stream = io.BytesIO()
    if options.pop("dynamo", False):
        return torch.onnx.export(model, (x,), dynamo=True, **options).model_proto
    torch.onnx.export(model, (x,), stream, dynamo=False, **options)
    return onnx.load_model_from_string(stream.getvalue())


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 6)
    )
    return model.eval(), torch.randn(2, 5, 12)


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_the_default_exporters_rename_is_counted_and_named_after_its_module(dynamo):
    model, x = mlp()
    graph = solve_onnx(exported(model, x, dynamo=dynamo).SerializeToString())
    assert graph.params() == sum(p.numel() for p in model.parameters())
    names = {name for name, node in graph.nodes.items() if node.kind == "parameter"}
    assert {f"self.{k}.weight" for k in (0, 2, 4)} <= names
    half = graph.cut_analysis("self.0.weight", range(12), 1)
    assert half.params_removed == 12 * 12 + 12 + 12 * 24
    notes = " ".join(graph.metadata["notes"])
    assert "torch.onnx.export" in notes and "transposed" in notes


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_cut_of_transposed_weights_is_replayed_on_the_module(dynamo):
    model, x = mlp()
    data = exported(model, x, dynamo=dynamo).SerializeToString()
    # The second weight is square: its shape does not tell which way round it is.
    result = solve_onnx(data).cut_analysis("self.2.weight", [0, 3, 5], 1)
    result = tp.CutResult.from_json(result.to_json())
    assert "self.2.weight" in result.transposed
    before = model[2].weight.detach().clone()
    pruned, context = tp.set_cut(model, result)
    keep = [k for k in range(24) if k not in (0, 3, 5)]
    assert torch.equal(pruned[2].weight, before[keep]) and pruned[4].in_features == 21
    received = onnx.reference.ReferenceEvaluator(
        onnx.load_model_from_string(prune_onnx(data, result))
    ).run(None, {onnx.load_model_from_string(data).graph.input[0].name: x.numpy()})[0]
    np.testing.assert_allclose(pruned(x).detach().numpy(), received, rtol=1e-4, atol=1e-5)
    assert torch.equal(tp.recovery_cut(pruned, result, context)[2].weight, before)


def test_folded_norms_are_told_and_a_replay_is_refused_with_the_way_out():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    graph = solve_onnx(exported(model, torch.randn(1, 3, 8, 8)).SerializeToString())
    assert any("batch norms" in note for note in graph.metadata["notes"])
    result = graph.cut_analysis("self.0.weight", [0, 1], 0)
    with pytest.raises(CutMismatchError, match=r"batch norms \(1\).*PRESERVE"):
        tp.set_cut(model, result)
    assert model[0].out_channels == 8


def test_a_file_that_lost_nothing_has_no_notes():
    model, x = mlp()
    assert "notes" not in solve_onnx(tp.export_onnx(model, (x,))).metadata


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_dialects_have_all_their_weights_as_parameters(name):
    data = dialects.DIALECTS[name]()
    loaded = onnx.load_model_from_string(data)
    shapes = {
        "x": [1, *(d.dim_value for d in loaded.graph.input[0].type.tensor_type.shape.dim)][1:]
    }
    shapes["x"][0] = shapes["x"][0] or 1
    graph = solve_onnx(data, shapes)
    tensors = [
        *loaded.graph.initializer,
        *(n.attribute[0].t for n in loaded.graph.node if n.op_type == "Constant"),
    ]
    stored = sum(
        int(np.prod(t.dims))
        for t in tensors
        if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    )
    counted = sum(
        int(np.prod(n.shape)) for n in graph.nodes.values() if n.kind in ("parameter", "buffer")
    )
    quantised = sum(int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.INT8)
    assert stored <= counted <= stored + quantised and graph.groups()


def test_names_of_tensorflow_are_modules():
    graph = solve_onnx(dialects.tensorflow(), [1, 16, 16, 3])
    assert "self.StatefulPartitionedCall.model.conv2d.weight" in graph.nodes
    assert "self.StatefulPartitionedCall.model.dense.bias" in graph.nodes


def with_inputs(*shapes):
    infos = [
        helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, shape)
        for k, shape in enumerate(shapes)
    ]
    graph = helper.make_graph(
        [helper.make_node("Sum", [i.name for i in infos], ["y"])],
        "g",
        infos,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("shape", "proposed"),
    [
        (["batch", 3, "height", "width"], "x0=1x3x224x224"),
        ([-1, 3, 0, 0], "x0=1x3x224x224"),
        (["batch", "length", 64], "x0=1x16x64"),
        (None, "x0=1x3x224x224"),
    ],
)
def test_open_sizes_come_with_a_proposal_that_works(shape, proposed):
    with pytest.raises(InputSpecError, match=proposed) as caught:
        solve_onnx(with_inputs(shape))
    given = caught.value.fields["proposed"]
    assert solve_onnx(with_inputs(shape), given).nodes["x0"].shape == tuple(given["x0"])


def test_one_symbol_is_given_once():
    data = with_inputs(["batch", "n"], ["batch", "n"])
    graph = solve_onnx(data, {"x0": [2, 5]})
    assert graph.nodes["x1"].shape == (2, 5)
    with pytest.raises(InputSpecError, match="x1=2x"):
        solve_onnx(with_inputs(["batch", "n"], ["batch", "m"]), {"x0": [2, 5]})


def external(tmp_path):
    rng = np.random.default_rng(0)
    stored = {"a": rng.standard_normal((20, 30)), "b": rng.standard_normal((30, 10))}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("MatMul", ["h", "b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 10])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(made, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    return path


def packed(path, location=None, **changed):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location" and location is not None:
                    entry.value = location
                if entry.key in changed:
                    entry.value = changed[entry.key]
        archive.writestr("folder/model.onnx", model.SerializeToString())
        archive.write(path.parent / "data.bin", "folder/data.bin")
    return stream.getvalue()


def test_a_model_with_data_files_is_read_from_its_folder_or_from_a_zip(tmp_path):
    path = external(tmp_path)
    archive = packed(path)
    results = [solve_onnx(source).cut_analysis("self.a", [0, 7], 1) for source in (path, archive)]
    assert results[0] == results[1] and results[0].params_removed == 60
    pruned = onnx.load_model_from_string(prune_onnx(archive, results[0]))
    assert [list(t.dims) for t in pruned.graph.initializer] == [[20, 28], [28, 10]]
    whole = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    kept = numpy_helper.to_array(pruned.graph.initializer[0])
    np.testing.assert_array_equal(kept, np.delete(whole["a"], [0, 7], axis=1))


@pytest.mark.parametrize(
    ("location", "changed", "message"),
    [
        ("../data.bin", {}, "no name of a file"),
        ("/etc/passwd", {}, "no name of a file"),
        ("C:\\data.bin", {}, "no name of a file"),
        ("other.bin", {}, "not in the archive"),
        (None, {"offset": "999999999"}, "cut short"),
        (None, {"offset": "-4"}, "by its entry"),
        (None, {"length": "8"}, "by its entry"),
        (None, {"length": "many"}, "no number"),
    ],
)
def test_data_files_lead_nowhere_else(tmp_path, location, changed, message):
    archive = packed(external(tmp_path), location, **changed)
    result = solve_onnx(packed(external(tmp_path))).cut_analysis("self.a", [0], 1)
    with pytest.raises(InvalidModelError, match=message):
        prune_onnx(archive, result)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    path = external(tmp_path)
    (tmp_path / "data.bin").rename(tmp_path.parent / "elsewhere.bin")
    (tmp_path / "data.bin").symlink_to(tmp_path.parent / "elsewhere.bin")
    from torchpruner_core.importing.formats import read_model

    with pytest.raises(InvalidModelError, match="leads out"):
        read_model(path)


def test_a_graph_without_weights_and_an_output_that_is_one():
    graph = solve_onnx(with_inputs([2, 3], [2, 3]))
    assert graph.groups() == [] and graph.params() == 0
    made = onnx.load_model_from_string(with_inputs([2, 3]))
    made.graph.initializer.append(numpy_helper.from_array(np.ones((4, 2), np.float32), "w"))
    made.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 2]))
    solved = solve_onnx(made.SerializeToString())
    assert solved.cut_analysis("self.w", [0], 0).touches_outputs == ("self.w",)


def test_sparse_tensors_are_refused_in_words():
    made = onnx.load_model_from_string(with_inputs([2, 3]))
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    with pytest.raises(InvalidModelError, match="sparse"):
        solve_onnx(made.SerializeToString())


@pytest.mark.parametrize("element", [TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT4])
def test_other_dtypes_are_grouped_and_pruned(element):
    weight = helper.make_tensor("w", element, [6, 8], np.arange(48) % 7)
    kind = TensorProto.FLOAT if element == TensorProto.INT4 else element
    nodes = [helper.make_node("MatMul", ["x", "v"], ["y"])]
    stored = [weight, helper.make_tensor("u", kind, [8, 3], np.ones(24))]
    if element == TensorProto.INT4:
        nodes.insert(0, helper.make_node("DequantizeLinear", ["w", "s"], ["v"]))
        stored.append(numpy_helper.from_array(np.float32(0.5), "s"))
    else:
        nodes[0].input[1] = "w"
    nodes[-1].output[0] = "h"
    nodes.append(helper.make_node("MatMul", ["h", "u"], ["y"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, [2, 6])],
        [helper.make_tensor_value_info("y", kind, [2, 3])], stored,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data = made.SerializeToString()
    result = solve_onnx(data).cut_analysis("self.w", [1, 2, 5], 1)
    assert result.params_removed == 18 + 9
    pruned = {
        t.name: t for t in onnx.load_model_from_string(prune_onnx(data, result)).graph.initializer
    }
    assert list(pruned["w"].dims) == [6, 5] and pruned["w"].data_type == element
    kept = numpy_helper.to_array(pruned["w"])
    np.testing.assert_array_equal(kept, np.delete(numpy_helper.to_array(weight), [1, 2, 5], axis=1))


def test_a_value_of_an_input_survives_json():
    spec = TensorSpec("sr", (), "int64", (16000,))
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    assert "value" not in TensorSpec("x", (1,)).to_dict()


def test_numbers_in_a_list_attribute_are_stored_numbers():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Constant", [], ["b"], value_floats=[float(k) for k in range(8)]),
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    stored = {"w": np.ones((4, 8), np.float32), "v": np.ones((8, 3), np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = made.SerializeToString()
    solved = solve_onnx(data)
    assert solved.params() == 32 + 24 + 8
    result = solved.cut_analysis("self.w", [0, 5], 1)
    assert result.params_removed == 8 + 6 + 2
    onnx.checker.check_model(prune_onnx(data, result))


def test_a_graph_that_handles_text_is_built_and_its_text_stays():
    nodes = [
        helper.make_node("Equal", ["t", "words"], ["e"]),
        helper.make_node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"a", b"b", b"c"])
    stored = {"w": np.ones((3, 8), np.float32), "v": np.ones((8, 3), np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("t", TensorProto.STRING, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [words, *(numpy_helper.from_array(v, k) for k, v in stored.items())],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    data = made.SerializeToString()
    result = solve_onnx(data).cut_analysis("self.w", [1], 1)
    onnx.checker.check_model(prune_onnx(data, result))


def mlp_of(**options):
    """Return a network of two linears, as a message to be spoiled."""
    rng = np.random.default_rng(0)
    stored = {"w": (4, 8), "b": (8,), "v": (8, 3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["hb"]),
        helper.make_node("Relu", ["hb"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, 4])],
        [helper.make_tensor_value_info("y", 1, [2, 3])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
         for n, s in stored.items()],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", options.get("opset", 17))], ir_version=8
    )


def reverse_nodes(made):
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)


def repeat_tensor(made):
    first = numpy_helper.from_array(np.ones((4, 8), np.float32), "w")
    made.graph.initializer.insert(0, first)


def store_sparsely(made):
    values = numpy_helper.from_array(np.array([1, -2, 3], np.float32), "values")
    indices = numpy_helper.from_array(np.array([0, 9, 30]), "indices")
    sparse = helper.make_sparse_tensor(values, indices, [4, 8])
    del made.graph.initializer[0]
    made.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))


@pytest.mark.parametrize("spoil", [reverse_nodes, repeat_tensor, store_sparsely])
def test_what_runtimes_put_up_with_is_pruned(spoil):
    made = mlp_of()
    spoil(made)
    data = made.SerializeToString()
    cut = solve_onnx(data).cut_analysis("self.v", [1, 5], 0)
    verify_onnx(data, prune_onnx(data, cut), cut)


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (lambda m: m.opset_import.pop(), InvalidModelError, "does not state which operator set"),
        (lambda m: setattr(m.opset_import[0], "version", 99), UnsupportedModelError, "upgrade onnx"),
        (lambda m: setattr(m.opset_import[0], "version", 0), InvalidModelError, "the first is 1"),
        (lambda m: setattr(m.graph.node[0], "op_type", ""), InvalidModelError, "has no type"),
        (
            lambda m: setattr(m.graph.initializer[0], "data_type", 99),
            InvalidModelError,
            "'w' has the element type 99",
        ),
    ],
)  # fmt: skip
def test_what_no_runtime_reads_is_named(spoil, kind, said):
    made = mlp_of()
    spoil(made)
    with pytest.raises(kind, match=said):
        solve_onnx(made.SerializeToString())


def test_a_tensor_that_is_cut_short_is_named_when_it_is_pruned():
    made = mlp_of()
    cut = solve_onnx(made.SerializeToString()).cut_analysis("self.v", [1, 5], 0)
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-3]
    with pytest.raises(InvalidModelError, match="'w' does not hold the numbers of its shape"):
        prune_onnx(made.SerializeToString(), cut)


def test_old_operator_sets_are_converted_where_the_converter_is_right():
    made = mlp_of(opset=6)
    data = made.SerializeToString()
    cut = solve_onnx(data).cut_analysis("self.v", [1, 5], 0)
    pruned, feeds = prune_onnx(data, cut), {"x": np.ones((2, 4), np.float32)}
    assert onnx.load_model_from_string(pruned).opset_import[0].version == 7
    np.testing.assert_allclose(
        run(pruned, feeds)["y"], run(masked_onnx(data, cut), feeds)["y"], atol=1e-5
    )
    made.graph.node[1].attribute.extend(
        [helper.make_attribute("broadcast", 1), helper.make_attribute("axis", 1)]
    )
    graph = solve_onnx(made.SerializeToString())
    assert graph.cut_analysis("self.v", [1, 5], 0).terminal.keys() == cut.terminal.keys()
