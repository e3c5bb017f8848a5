"""The forms of ids in paths. Anything else is "not found", whatever it is."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path

from torchpruner_service.problems import NotFound

_MODEL = re.compile(r"m[a-z2-7]{26}")
_ARTIFACT = re.compile(r"a[a-z2-7]{26}")
_UPLOAD = re.compile(r"u[a-z2-7]{26}")
_JOB = re.compile(r"[a-z]{1,10}-[a-z2-7]{27}(-[a-z2-7]{26})?")
_PLAN = re.compile(r"plan-m[a-z2-7]{26}-[a-z2-7]{26}")
_CUT = re.compile(r"cut-m[a-z2-7]{26}-[a-z2-7]{26}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_model_id(text: str) -> bool:
    """Whether a text that a body holds has the form of a model's id, so that it may become a key."""
    return _MODEL.fullmatch(text) is not None


def _checked(pattern: re.Pattern[str], text: str, kind: str, where: str) -> str:
    if not pattern.fullmatch(text):
        raise NotFound(
            f"there is no {kind} {text[:100]!a}; {where}",
            slug=f"unknown-{kind}",
            received=ascii(text[:100])[1:-1],
        )
    return text


def _model(
    model: Annotated[str, Path(description="The id of a model", examples=["m" + "a" * 26])],
) -> str:
    return _checked(_MODEL, model, "model", "upload it, or list the models for their ids")


def _artifact(artifact: Annotated[str, Path(description="The id of an artifact")]) -> str:
    return _checked(_ARTIFACT, artifact, "artifact", "ask for pruned weights to get one")


def _upload(upload: Annotated[str, Path(description="The id of a resumable upload")]) -> str:
    return _checked(_UPLOAD, upload, "upload", "start one with POST /v1/uploads")


def _job(job: Annotated[str, Path(description="The id of a job")]) -> str:
    return _checked(_JOB, job, "job", "a model or artifact names its job")


def _plan(plan: Annotated[str, Path(description="The id of a plan")]) -> str:
    return _checked(_PLAN, plan, "plan", "POST /v1/models/{model}/plans makes one")


def _cut(cut: Annotated[str, Path(description="The id of a saved cut")]) -> str:
    return _checked(_CUT, cut, "cut", "POST /v1/models/{model}/cuts saves one")


def _digest(digest: Annotated[str, Path(description="sha256 in hex")]) -> str:
    return _checked(_DIGEST, digest.removeprefix("sha256:"), "blob", "upload the file")


ModelId = Annotated[str, Depends(_model)]
ArtifactId = Annotated[str, Depends(_artifact)]
UploadId = Annotated[str, Depends(_upload)]
JobId = Annotated[str, Depends(_job)]
PlanId = Annotated[str, Depends(_plan)]
CutId = Annotated[str, Depends(_cut)]
Digest = Annotated[str, Depends(_digest)]
