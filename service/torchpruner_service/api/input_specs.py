"""Input shapes as callers write them: JSON, or ``name:1x3x224x224:float32`` for a command line.

``sr:scalar:int64=16000`` gives the value as well that an input always holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

from pydantic import TypeAdapter, ValidationError

from torchpruner_core.cut_result import TensorSpec
from torchpruner_service.api.schemas import InputSpec
from torchpruner_service.problems import InvalidRequest

DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8,
}  # fmt: skip

_SHORT = re.compile(
    r"(?:(?P<name>.{1,200}?):)?(?P<shape>[0-9]{1,18}(?:[x,][0-9]{1,18})*|scalar)"
    r"(?::(?P<dtype>[a-z0-9]{1,20}))?(?:=(?P<value>[-+.,0-9e]{1,1000}))?"
)
_LIST = TypeAdapter(list[InputSpec])


def parse_inputs(text: str | None, short: Sequence[str]) -> list[TensorSpec]:
    """Return the inputs of a query string: ``text`` is a JSON list, ``short`` the short forms."""
    if text:
        try:
            found = _LIST.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InvalidRequest(
                f"inputs is a JSON list like "
                f'[{{"name": "x", "shape": [1, 3, 224, 224], "dtype": "float32"}}]: '
                f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the start'}",
                slug="invalid-inputs",
            ) from error
        return to_specs(found)
    return to_specs([_parse_short(item) for item in short])


def to_specs(inputs: Sequence[InputSpec]) -> list[TensorSpec]:
    """Return checked specs. Raises ``InvalidRequest`` for an unknown dtype or a repeated name."""
    specs = []
    for item in inputs:
        if item.dtype not in DTYPES:
            raise InvalidRequest(
                f"input {item.name!r} has the dtype {item.dtype!r}; known are {', '.join(DTYPES)}",
                slug="invalid-inputs",
                input=item.name,
                received=item.dtype,
            )
        value = None if item.value is None else tuple(item.value)
        if value is not None and len(value) != prod(item.shape):
            raise InvalidRequest(
                f"input {item.name!r} has the shape {item.shape}, and its value {len(value)} numbers",
                slug="invalid-inputs",
                input=item.name,
            )
        specs.append(TensorSpec(item.name, tuple(item.shape), item.dtype, value))
    names = [spec.name for spec in specs if spec.name]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidRequest(
            f"input {repeated[0]!r} is given twice", slug="invalid-inputs", input=repeated[0]
        )
    return specs


def check_sizes(specs: Sequence[TensorSpec], limit: int) -> None:
    """Refuse inputs that no worker could hold, before anything is loaded."""
    for spec in specs:
        size = prod(spec.shape) * DTYPES[spec.dtype]
        if size > limit:
            raise InvalidRequest(
                f"input {spec.name!r} of shape {list(spec.shape)} takes {size} bytes; a worker "
                f"allows {limit}. Use a smaller batch or resolution",
                slug="input-too-large",
                input=spec.name,
                size=size,
                limit=limit,
            )


def _parse_short(text: str) -> InputSpec:
    match = _SHORT.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"input {text[:200]!a} does not read as NAME:SHAPE:DTYPE, like x:1x3x224x224:float32",
            slug="invalid-inputs",
            received=ascii(text[:200])[1:-1],
        )
    shape = match["shape"]
    sizes = [] if shape == "scalar" else [int(size) for size in re.split("[x,]", shape)]
    try:
        value = None if match["value"] is None else [_number(n) for n in match["value"].split(",")]
        return InputSpec(
            name=match["name"] or "", shape=sizes, dtype=match["dtype"] or "float32", value=value
        )
    except ValidationError as error:
        raise InvalidRequest(
            f"input {text[:200]!a}: {error.errors(include_url=False)[0]['msg']}",
            slug="invalid-inputs",
        ) from error
    except ValueError as error:
        raise InvalidRequest(
            f"input {text[:200]!a}: its value is no number", slug="invalid-inputs"
        ) from error


def _number(text: str) -> int | float:
    return float(text) if "." in text or "e" in text else int(text)
