"""Errors in plain words: what went wrong, and what to do now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchpruner_client import (
    ChangedMeanwhile,
    DownloadDamaged,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NoWorkerError,
    RateLimitedError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
    UnavailableError,
    WeightsRequired,
)
from torchpruner_core.errors import CutError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """``title`` in a few words, ``detail`` as the service said it, ``advice`` what to do next.

    ``passing`` is true where trying again later can help.
    """

    title: str
    detail: str
    advice: str = ""
    passing: bool = False


def failure_of(error: BaseException) -> Failure:
    """Return what to show for ``error``; one that nobody foresaw is logged."""
    text = str(error)
    if isinstance(error, ServiceUnreachable):
        return Failure(
            "The service does not answer",
            text,
            "Start it, or wait for it to come back; pages ask again by themselves.",
            passing=True,
        )
    if isinstance(error, NoWorkerError):
        advice = "Ask its operator to start one; your job waits in the queue."
        return Failure("The service has no worker", text, advice, passing=True)
    if isinstance(error, TimeoutError):
        return Failure("This takes longer than expected", text, "The job goes on.", passing=True)
    if isinstance(error, DownloadDamaged):
        return Failure("The download was damaged", text, "Ask for it again.", passing=True)
    if isinstance(error, ServiceError):
        return _service_failure(error)
    if isinstance(error, (ValueError, FileNotFoundError)):
        return Failure("That cannot be used", text)
    log.error("unforeseen error", exc_info=error)
    return Failure(
        "The dashboard made a mistake",
        f"{type(error).__name__}: {text}",
        "It is written to the dashboard's log.",
    )


def problem_failure(problem: Mapping[str, Any] | None) -> Failure:
    """Return what to show for a problem that a model or a job carries."""
    facts = problem or {}
    title = str(facts.get("title") or "This failed")
    return Failure(title, _detail(facts), "Upload a corrected file." if _is_file(facts) else "")


def _service_failure(error: ServiceError) -> Failure:
    detail = _detail(error.problem)
    title = str(error.problem.get("title") or "")
    if isinstance(error, UnauthorizedError):
        return Failure("The service wants an API key", detail, "Log in with a valid key.")
    if isinstance(error, ForbiddenError):
        return Failure("Your key does not allow this", detail, "Log in with a key that may.")
    if isinstance(error, ChangedMeanwhile):
        return Failure(
            "Somebody else was faster",
            "Name, note or tags were changed since you opened this page; nothing of yours was saved.",
            "What is there now is shown: make your change again.",
        )
    if isinstance(error, WeightsRequired):
        return Failure(
            "The model's weights are needed",
            "It was uploaded without its weights, which is enough for analysis but not for this.",
            "Add the whole ONNX file that the model came from, then ask again.",
        )
    if isinstance(error, CutError):
        return Failure(title or "This cut is not possible", detail)
    if isinstance(error, NotFoundError):
        return Failure(
            title or "There is no such thing here",
            detail,
            "It may have been deleted; the models page lists what there is.",
        )
    if isinstance(error, RateLimitedError):
        return Failure("Too many requests", detail, "Wait a moment.", passing=True)
    if isinstance(error, UnavailableError):
        return Failure("A part of the service is away", detail, "Try again soon.", passing=True)
    if isinstance(error, InvalidRequestError):
        return Failure(title or "The service does not accept this", detail)
    return Failure(title or "The service refused this", detail)


def _detail(problem: Mapping[str, Any]) -> str:
    return str(problem.get("detail") or problem.get("title") or "No reason was given.")


def _is_file(problem: Mapping[str, Any]) -> bool:
    return str(problem.get("type")) in {"invalid-model", "unsupported-model", "export-error"}
