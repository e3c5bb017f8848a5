"""What commands take: options that several share, and how their texts are read."""

from __future__ import annotations

import json
import math
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from torchpruner_client.cli.output import fail, speaks_json
from torchpruner_client.errors import NotFoundError
from torchpruner_client.local_files import parse_value
from torchpruner_client.synchronous import RemoteModel
from torchpruner_core.cut_result import CutResult, TensorSpec


def _say_json(value: bool) -> bool:
    """Errors are JSON too, from the first that can happen on."""
    speaks_json.set(value)
    return value


Url = Annotated[str | None, typer.Option("--url", help="The service; default TORCHPRUNER_URL")]
Key = Annotated[str | None, typer.Option("--api-key", help="Default TORCHPRUNER_API_KEY")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, errors too", callback=_say_json, is_eager=True),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Run the pruned ONNX model beside the masked one; refuse a difference"
    ),
]
Cut = Annotated[
    str | None,
    typer.Option(
        "--cut", help="A file of `cut --save` or `plan --save`, or the name of a saved cut"
    ),
]
Model = Annotated[str, typer.Argument(help="A model's id or name")]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="NAME:SHAPE:DTYPE, like x:1x3x224x224:float32; with a value that never changes, "
        "sr:scalar:int64=16000. Repeatable",
    ),
]
Protect = Annotated[
    list[str] | None,
    typer.Option("--protect", help="A module, tensor, pattern or type that stays. Repeatable"),
]
RoundTo = Annotated[int, typer.Option("--round-to", help="Kept widths are multiples of this")]

_SPEC = re.compile(
    r"^(?:(?P<name>.+?):)?(?P<shape>\d+(?:[x,]\d+)*|scalar)(?::(?P<dtype>[a-z0-9]+))?"
    r"(?:=(?P<value>[-+.,0-9e]+))?$"
)

NAME_LENGTH = 200
MOST_INDICES = 10_000_000


class Granularity(StrEnum):
    """How an axis that splits into several is cut."""

    auto = "auto"
    outer = "outer"
    inner = "inner"
    strict = "strict"


class By(StrEnum):
    """What FLOPs are listed by."""

    module = "module"
    operator = "operator"


class Importance(StrEnum):
    """What the service scores slices by, from the model's weights."""

    magnitude = "magnitude"
    lamp = "lamp"
    fpgm = "fpgm"
    batchnorm = "batchnorm"
    random = "random"


def parse_index(text: str) -> tuple[int, ...]:
    """Return the indices of ``0,1,4-7``. Exits with an explanation for anything else."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            fail(f"--index {text!r} does not read as 0,1,2 or 0-3")
        start = int(match[1])
        stop = int(match[2] or start)
        if stop - start >= MOST_INDICES:
            fail(f"--index {text!r} asks for {stop - start + 1:,} slices, more than any axis has")
        if stop < start:
            fail(f"--index {text!r} counts backwards; write {stop}-{start}")
        found += range(start, stop + 1)
    return tuple(found)


def parse_share(text: str, width: int) -> tuple[int, ...]:
    """Return the first slices of ``25%`` of an axis, at least one. Exits for what is no share."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        fail(f"--index {text!r} is no share of an axis; write one between 0% and 100%")
    return tuple(range(max(1, math.floor(share * width))))


def default_name(path: Path) -> str:
    """Return a name the service takes, from a file's, which may be in no encoding and of any length."""
    return os.fsencode(path.stem).decode("utf-8", "replace")[:NAME_LENGTH]


def read_result(path: Path) -> CutResult:
    """Return the result in a file of ``cut --save``, or that of a plan. Exits where it holds none."""
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
        return CutResult.from_dict(data.get("result", data))
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror or error}")
    except (ValueError, TypeError, KeyError) as error:
        fail(
            f"{path} holds no result that `torchpruner cut --save` or `plan --save` wrote: {error}"
        )


def cut_of(remote: RemoteModel, cut: str) -> CutResult:
    """Return the result in a file, or that of a saved cut or plan of the model. Exits where there is
    neither."""
    if Path(cut).exists() or os.sep in cut or cut.endswith(".json"):
        return read_result(Path(cut))
    try:
        return remote.saved_plan(cut).result if cut.startswith("plan-") else remote.saved_cut(cut)
    except NotFoundError:
        fail(
            f"--cut {cut!r} is neither a file nor a saved cut of this model; `torchpruner cuts` lists "
            "those, and `torchpruner cut --save FILE` writes one"
        )


def parse_input(text: str) -> TensorSpec:
    """Return the spec of ``x:1x3x224x224:float32``."""
    match = _SPEC.match(text)
    if match is None:
        fail(f"--input {text!r} does not read as NAME:SHAPE:DTYPE, like x:1x3x224x224:float32")
    shape = () if match["shape"] == "scalar" else tuple(map(int, re.split("[x,]", match["shape"])))
    value = None if match["value"] is None else parse_value(f"{text[:40]}={match['value']}")[1]
    return TensorSpec(match["name"] or "", shape, match["dtype"] or "float32", value)
