"""A brute-force reading of what a cut is, for small ONNX graphs.

A cut is right when the slices are removed for real (``prune_onnx``), the result runs, and every
output equals the original with the listed slices masked. Where the cut lists nothing under
``renormalises``, masking the stored tensors alone must be enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from torchpruner_core import CutResult, prune_onnx, solve_onnx
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.errors import EmptyAxisError, OpaqueAxisError
from torchpruner_core.importing.plain_form import plain_form
from torchpruner_core.onnx_pruning import masked_onnx
from torchpruner_core.onnx_pruning.sliced import zero_array

Arrays = dict[str, np.ndarray]

OPSET = 21

NO_KERNEL = ("NOT_IMPLEMENTED", "is under development", "is not a registered function")


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int] | tuple[Sequence[int], type]],
    outputs: Sequence[str],
    stored: Mapping[str, Any] | None = None,
    *,
    opset: int = OPSET,
    domains: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """Return the bytes of a checked ONNX model.

    ``inputs`` maps a name to a float32 shape or to ``(shape, dtype)``; ``stored`` maps a name to an
    array, or to a tuple: the shape of a random float32 tensor. ``shapes`` gives the shapes of float32
    outputs that ONNX does not infer.
    """
    rng = np.random.default_rng(7)
    tensors = []
    for name, value in (stored or {}).items():
        if isinstance(value, tuple):
            value = rng.uniform(0.5, 1.5, value).astype(np.float32) * rng.choice([-1, 1], value)
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensors.append(numpy_helper.from_array(array, name))
    infos = []
    for name, given in inputs.items():
        shape, dtype = given if _typed(given) else (given, np.float32)  # type: ignore[misc]
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        infos.append(helper.make_tensor_value_info(name, element, list(shape)))
    outs = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", infos, outs, tensors)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10 if opset < 24 else 12)
    inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
    types = {o.name: o.type for o in (*inferred.graph.output, *inferred.graph.value_info)}
    for out in made.graph.output:
        if shapes and out.name in shapes:
            out.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, shapes[out.name]))
        else:
            out.type.CopyFrom(types[out.name])
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def _typed(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], type)


def node(
    op_type: str, inputs: str | Sequence[str], outputs: str | Sequence[str], **attributes: Any
) -> Any:
    """Return a node; names may be given as one string with spaces, ``-`` for a missing input."""
    ins = inputs.split() if isinstance(inputs, str) else inputs
    outs = outputs.split() if isinstance(outputs, str) else outputs
    ins, outs = (["" if n == "-" else n for n in names] for names in (ins, outs))
    return helper.make_node(op_type, ins, outs, **attributes)


def run(data: bytes, feeds: Arrays) -> Arrays:
    """Run a model in onnxruntime, or in ONNX's reference where onnxruntime has no kernel."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not any(text in str(error) for text in NO_KERNEL):
            raise
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(onnx.load_model_from_string(data))
        names = [o for o in evaluator.output_names if o]
        return dict(zip(names, evaluator.run(None, feeds), strict=True))
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def feeds_for(graph: SolvedGraph, given: Arrays | None = None) -> Arrays:
    """Return random inputs of a graph: normal floats, small integers, random booleans."""
    rng = np.random.default_rng(11)
    feeds = dict(given or {})
    for name in graph.inputs:
        info = graph.nodes[name]
        if name in feeds:
            continue
        if info.dtype == "bool":
            feeds[name] = rng.random(info.shape) < 0.5
        elif info.dtype.startswith("float"):
            feeds[name] = rng.standard_normal(info.shape).astype(info.dtype)
        else:
            feeds[name] = rng.integers(0, 3, info.shape).astype(info.dtype)
    return feeds


def cut_arrays(arrays: Arrays, result: CutResult) -> Arrays:
    """Return arrays without what the cut removes from them."""
    found = {}
    for name, value in arrays.items():
        for dim, gone in enumerate(result.iner.get(name, result.terminal.get(name, []))):
            if gone is not None:
                value = np.delete(value, gone, axis=dim)
        found[name] = value
    return found


def stored_masked(data: bytes, result: CutResult) -> bytes:
    """Return the model with the listed slices of its stored tensors set to zero, nothing else."""
    loaded = plain_form(onnx.load_model_from_string(data))  # an old operator set runs nowhere
    names = {name.removeprefix("self."): axes for name, axes in result.terminal.items()}
    for tensor in loaded.graph.initializer:
        if tensor.name in names:
            value = zero_array(numpy_helper.to_array(tensor), names[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    masked: bytes = loaded.SerializeToString()
    return masked


def assert_right(data: bytes, graph: SolvedGraph, result: CutResult, feeds: Arrays) -> None:
    """Assert that the cut is consistent: removed for real, it computes what the masked model does."""
    result = CutResult.from_json(result.to_json())
    pruned = run(prune_onnx(data, result), cut_arrays(feeds, result))
    references = [masked_onnx(data, result)]
    if not result.renormalises and not result.literals:
        references.append(stored_masked(data, result))
    for reference in references:
        expected = cut_arrays(run(reference, feeds), result)
        assert expected.keys() == pruned.keys()
        for name, value in pruned.items():
            np.testing.assert_allclose(
                value,
                expected[name],
                rtol=2e-4,
                atol=2e-5,
                err_msg=f"{name} after {result.requested}",
            )


def index_choices(size: int) -> list[list[int]]:
    """Return index sets worth asking for on an axis of ``size`` slices."""
    found = [[0], [size - 1], list(range(size // 2)), list(range(0, size, 2)), [size // 2]]
    return [list(c) for c in dict.fromkeys(map(tuple, found)) if 0 < len(c) < size]


def axes_of(graph: SolvedGraph) -> Iterator[tuple[str, int, int]]:
    """Yield ``(node, dim, size)`` of every axis with something to cut."""
    for name, info in graph.nodes.items():
        for dim, size in enumerate(info.shape):
            if size > 1:
                yield name, dim, size


def check_all_cuts(
    data: bytes,
    feeds: Arrays | None = None,
    *,
    granularities: Sequence[str] = ("auto", "outer", "inner"),
) -> dict[str, list[int]]:
    """Try cuts of every axis of every tensor and assert that each is right.

    Returns the axes of which some cut is possible, by node. The others were refused as opaque.
    """
    graph = solve_onnx(data)
    all_feeds = feeds_for(graph, feeds)
    prunable: dict[str, list[int]] = {}
    seen: set[str] = set()
    for name, dim, size in axes_of(graph):
        for index, granularity in product(index_choices(size), granularities):
            try:
                result = graph.cut_analysis(name, index, dim, granularity=granularity)  # type: ignore[arg-type]
            except (OpaqueAxisError, EmptyAxisError) as error:
                assert not isinstance(error, OpaqueAxisError) or error.detail
                continue
            dims = prunable.setdefault(name.removeprefix("self."), [])
            if dim not in dims:
                dims.append(dim)
            key = repr(
                (sorted(result.terminal), result.to_dict()["terminal"], result.to_dict()["iner"])
            )
            if key not in seen:
                seen.add(key)
                assert_right(data, graph, result, all_feeds)
    return prunable


def cut(
    data: bytes, name: str, index: Sequence[int], dim: int, **options: Any
) -> dict[str, dict[int, list[int]]]:
    """Return a cut as plain lists, ``{node: {dim: indices}}``, after asserting that it is right."""
    graph = solve_onnx(data)
    result = graph.cut_analysis(name, index, dim, **options)
    assert_right(data, graph, result, feeds_for(graph))
    return {
        node_name.removeprefix("self."): {
            d: c.tolist() for d, c in enumerate(axes) if c is not None
        }
        for node_name, axes in (*result.terminal.items(), *result.iner.items())
    }


def case(
    name: str,
    prunable: str,
    nodes: Sequence[Any],
    inputs: Mapping[str, Any],
    outputs: str,
    stored: Mapping[str, Any] | None = None,
    feeds: Arrays | None = None,
    **options: Any,
) -> Any:
    """Return one parametrisation of a table of small graphs.

    ``prunable`` lists which axes can be cut: ``'x:1 w:01 y:1'``.
    """
    made = (nodes, inputs, outputs.split(), stored)
    return pytest.param(made, options, feeds, prunable, id=name)


def check_case(
    made: tuple[Any, ...], options: dict[str, Any], feeds: Arrays | None, prunable: str
) -> None:
    """Assert that every cut of a case is right, and that just the listed axes can be cut."""
    found = check_all_cuts(model(*made, **options), feeds)
    shown = " ".join(f"{name}:{''.join(map(str, sorted(dims)))}" for name, dims in found.items())
    assert shown == prunable, shown


def ints(*values: int) -> np.ndarray:
    """Return an int64 vector."""
    return np.array(values, dtype=np.int64)
