"""Operators with random attributes: whatever a cut of one removes, it computes what it should."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.operators.brute_force import check_all_cuts, ints, model, node

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)

STEM = node("MatMul", "x w", "h")
"""A projection, so that the axis under test is not that of an input alone."""


def factorised(draw, size: int) -> list[int]:
    """Draw a list of factors of ``size``, ones among them."""
    factors = []
    while size > 1 and draw(st.booleans()):
        factor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        factors.append(factor)
        size //= factor
    return [*factors, size]


@BOUNDED
@given(data=st.data())
def test_reshapes(data):
    size = data.draw(st.sampled_from([12, 16, 18, 24]))
    first = factorised(data.draw, 2 * size)
    second = factorised(data.draw, 2 * size)
    if data.draw(st.booleans()) and second[-1] != 1:
        second[-1] = -1
    nodes = [STEM, node("Reshape", "h s", "a"), node("Relu", "a", "b"), node("Reshape", "b r", "y")]
    stored = {"w": (3, size), "s": ints(*first), "r": ints(*second)}
    check_all_cuts(model(nodes, {"x": (2, 3)}, ["y"], stored), granularities=["auto", "outer"])


@BOUNDED
@given(
    start=st.integers(-9, 9),
    end=st.integers(-9, 9),
    step=st.sampled_from([1, 1, 2, 3, -1, -2]),
    size=st.integers(2, 8),
)
def test_slices(start, end, step, size):
    if len(range(*slice(start, end, step).indices(size))) == 0:
        return
    nodes = [STEM, node("Slice", "h s e a t", "y")]
    stored = {"w": (3, size), "s": ints(start), "e": ints(end), "a": ints(1), "t": ints(step)}
    check_all_cuts(model(nodes, {"x": (2, 3)}, ["y"], stored), granularities=["auto"])


@BOUNDED
@given(before=st.integers(-2, 2), after=st.integers(-2, 2), size=st.integers(5, 6))
def test_pads(before, after, size):
    nodes = [STEM, node("Pad", "h p", "y")]
    stored = {"w": (3, size), "p": ints(0, before, 0, after)}
    check_all_cuts(model(nodes, {"x": (2, 3)}, ["y"], stored), granularities=["auto"])


@BOUNDED
@given(data=st.data())
def test_transposes_and_squeezes(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(shape) + 1)))
    nodes = [
        STEM,
        node("Reshape", "h s", "a"),
        node("Transpose", "a", "b", perm=order),
        node("Squeeze", "b", "y"),
    ]
    stored = {"w": (3, prod(shape)), "s": ints(2, *shape)}
    moved = [[2, *shape][k] for k in order]
    shapes = {"y": [n for n in moved if n != 1]}
    check_all_cuts(
        model(nodes, {"x": (2, 3)}, ["y"], stored, shapes=shapes), granularities=["auto"]
    )


@BOUNDED
@given(data=st.data())
def test_einsums(data):
    sizes = {letter: data.draw(st.integers(2, 3)) for letter in "bijk"}
    terms = [
        data.draw(st.lists(st.sampled_from("bijk"), min_size=1, max_size=3, unique=True))
        for _ in range(2)
    ]
    seen = sorted({letter for term in terms for letter in term})
    kept = data.draw(st.lists(st.sampled_from(seen), unique=True))
    equation = f"{''.join(terms[0])},{''.join(terms[1])}->{''.join(kept)}"
    inputs = {"x": [sizes[letter] for letter in terms[0]]}
    stored = {"w": tuple(sizes[letter] for letter in terms[1])}
    shapes = {"y": [sizes[letter] for letter in kept]}
    nodes = [node("Einsum", "x w", "y", equation=equation)]
    check_all_cuts(model(nodes, inputs, ["y"], stored, shapes=shapes), granularities=["auto"])


@BOUNDED
@given(data=st.data())
def test_broadcast_products(data):
    batch = data.draw(st.lists(st.integers(2, 3), max_size=2))

    def side():
        kept = batch[data.draw(st.integers(0, len(batch))) :]
        return [size if data.draw(st.booleans()) else 1 for size in kept]

    inputs = {"x": [*side(), 2, 3]}
    stored = {"w": (*side(), 3, 4), "v": (*side(), 1, 4)}
    nodes = [node("MatMul", "x w", "h"), node("Add", "v h", "y")]
    check_all_cuts(model(nodes, inputs, ["y"], stored), granularities=["auto"])


@BOUNDED
@given(data=st.data())
def test_convolutions(data):
    groups = data.draw(st.sampled_from([1, 2, 3]))
    per_group, out = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    transposed = data.draw(st.booleans())
    strides = [data.draw(st.integers(1, 2)) for _ in range(2)]
    channels = groups * per_group
    kind = "ConvTranspose" if transposed else "Conv"
    shape = (channels, out, 2, 2) if transposed else (groups * out, per_group, 2, 2)
    nodes = [node("Conv", "x w0", "h"), node(kind, "h w b", "y", group=groups, strides=strides)]
    stored = {"w0": (channels, 2, 1, 1), "w": shape, "b": (groups * out,)}
    check_all_cuts(model(nodes, {"x": (1, 2, 4, 4)}, ["y"], stored))


@BOUNDED
@given(data=st.data())
def test_gathers_of_constants(data):
    size = data.draw(st.integers(2, 6))
    shape = data.draw(st.sampled_from([(), (3,), (1,), (2, 1), (2, 2)]))
    index = np.array(
        data.draw(st.lists(st.integers(-size, size - 1), min_size=4, max_size=4)), np.int64
    )
    nodes = [STEM, node("Gather", "h i", "y", axis=data.draw(st.sampled_from([1, -1])))]
    stored = {"w": (3, size), "i": index[: prod(shape)].reshape(shape)}
    check_all_cuts(model(nodes, {"x": (2, 3)}, ["y"], stored), granularities=["auto"])
