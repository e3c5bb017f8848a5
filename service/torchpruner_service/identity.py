"""Content addresses: what makes two uploads, cuts or artifacts the same.

Every id is the url-safe base32 of a sha256 over the parts that decide the result, so that a second
request for the same thing finds the first one's answer on whichever machine. What follows from
uploaded bytes alone has the same id for everybody; what a tenant adds has the tenant among its parts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torchpruner_core.analysis.storage import FORMAT
from torchpruner_core.cut_result import CutResult, TensorSpec

GRAPH_REVISION = "1"
"""Raise this when the same file would give another graph, so that stored ones are rebuilt."""


@lru_cache(maxsize=1)
def engine_version() -> str:
    """The version of the engine that solved graphs depend on."""
    try:
        release = version("torchpruner-service")
    except PackageNotFoundError:
        release = "0"
    return f"{release}+{GRAPH_REVISION}.{FORMAT}"


def newer(engine: str, than: str) -> bool:
    """Whether an engine's version comes after another's."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)]

    return numbers(engine) > numbers(than)


def short(digest: bytes) -> str:
    """26 url-safe characters (130 bits) of a sha256."""
    return base64.b32encode(digest).decode().lower().rstrip("=")[:26]


def content_id(kind: str, *parts: Any) -> str:
    """Return the id of something decided by ``parts`` (plain JSON values)."""
    text = json.dumps([kind, *parts], sort_keys=True, separators=(",", ":"))
    return short(hashlib.sha256(text.encode()).digest())


def model_id(blob: str, inputs: Iterable[TensorSpec]) -> str:
    """The id of a model: its bytes, its input shapes and the engine's version."""
    return "m" + content_id("model", blob, [s.to_dict() for s in inputs], engine_version())


def derived_model_id(parent: str, result: CutResult) -> str:
    """The id of what is left of ``parent`` after ``result``."""
    return "m" + content_id("derived", parent, cut_key(result))


def artifact_id(
    tenant: str, kind: str, model: str, weights: str | None, result: CutResult | None
) -> str:
    """The id of a file made for a tenant from a model, its weights and a cut."""
    key = None if result is None else cut_key(result)
    return "a" + content_id("artifact", tenant, kind, model, weights, key, engine_version())


def plan_id(tenant: str, model: str, request: Any) -> str:
    """The id of a plan, and of the job that makes it: the same request gives the same plan."""
    return f"plan-{model}-{content_id('plan', tenant, model, request, engine_version())}"


def saved_cut_id(tenant: str, model: str, name: str) -> str:
    """The id of a cut that was given a name: a tenant has one of each name of a model."""
    return f"cut-{model}-{content_id('saved-cut', tenant, model, name)}"


def cut_key(result: CutResult) -> dict[str, Any]:
    """The part of a result that decides what is removed; costs and explanations are left out."""
    whole = result.to_dict()
    return {key: whole[key] for key in ("terminal", "operator")}
