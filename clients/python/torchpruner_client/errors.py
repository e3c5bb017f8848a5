"""Typed errors, made from the service's problem details.

::

    ServiceError                 any answer that is an error; ``code`` never changes
    ├── NotFoundError            no such model, artifact, job
    ├── ConflictError            the model is not in a state that allows this
    │   ├── WeightsRequired      the model was uploaded without its weights
    │   └── ChangedMeanwhile     somebody else changed it since it was read
    ├── InvalidRequestError      the request, or the uploaded file, is not valid
    ├── UnauthorizedError, ForbiddenError, RateLimitedError
    ├── UnavailableError         a part of the service is away; retries did not help
    ├── ModelFailed              the graph could not be built
    └── JobFailed                another job failed, or was cancelled
    ServiceUnreachable           nothing answers at the address
    NoWorkerError                the service has no worker to do the job
    DownloadDamaged              the bytes that arrived are not those announced
    DownloadTargetError          the download cannot be written where it was asked for (an OSError)

An error about a cut is also the core's own class: ``except torchpruner_core.errors.CutIndexError``
catches it whether the analysis ran here or on a service.
"""

from __future__ import annotations

from typing import Any

import httpx

from torchpruner_core import errors as core_errors
from torchpruner_core.errors import TorchPrunerError
from torchpruner_core.planning import errors as planning_errors


class ServiceError(TorchPrunerError):
    """An error that the service answered with. ``problem`` is its body, ``status`` the HTTP
    status."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.status = int(problem.get("status", 0))
        self.request_id = str(problem.get("request_id", ""))
        known = {"type", "title", "status", "detail", "request_id"}
        fields = {key: value for key, value in problem.items() if key not in known}
        detail = str(problem.get("detail") or problem.get("title") or "the request failed")
        TorchPrunerError.__init__(self, detail, **fields)

    @property
    def code(self) -> str:
        """The problem's slug, like ``unknown-node``."""
        return str(self.problem.get("type", "error"))


class NotFoundError(ServiceError):
    """There is no such model, artifact, job or upload."""


class ConflictError(ServiceError):
    """The resource is not in a state that allows this."""


class WeightsRequired(ConflictError):
    """The model was uploaded without its weights; ``add_weights`` sends them."""


class ChangedMeanwhile(ConflictError):
    """Somebody else changed the resource since it was read; read it again."""


class InvalidRequestError(ServiceError):
    """The request, or the uploaded file, is not valid."""


class UnauthorizedError(ServiceError):
    """A valid API key is needed: ``Client(url, api_key=...)``."""


class ForbiddenError(ServiceError):
    """The API key does not allow this."""


class RateLimitedError(ServiceError):
    """Too many requests, or a quota is used up."""


class UnavailableError(ServiceError):
    """A part of the service is away."""


class ModelFailed(ServiceError):
    """The graph of a model could not be built."""


class JobFailed(ServiceError):
    """A job failed or was cancelled."""


class ServiceUnreachable(Exception):
    """Nothing answers at the service's address, or the connection broke again and again."""


class NoWorkerError(Exception):
    """The service is there and has no worker that could do the job."""


class DownloadDamaged(Exception):
    """The bytes that arrived are not those that the service announced."""


class DownloadTargetError(OSError):
    """A download cannot be written where it was asked for."""


_BY_SLUG: dict[str, type[ServiceError]] = {
    "weights-required": WeightsRequired,
    "model-failed": ModelFailed,
    "artifact-failed": JobFailed,
}
_BY_STATUS: dict[int, type[ServiceError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: ChangedMeanwhile,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


def _core_classes() -> dict[str, type[TorchPrunerError]]:
    found = {}
    for value in (*vars(core_errors).values(), *vars(planning_errors).values()):
        if isinstance(value, type) and issubclass(value, TorchPrunerError):
            found[value.slug] = value
    return found


_CORE = _core_classes()
_MIXED: dict[tuple[type, type], type[ServiceError]] = {}


def error_of(response: httpx.Response) -> ServiceError:
    """Return the error that an answer of 400 or more stands for."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"type": "http-error", "detail": response.text[:300] or response.reason_phrase}
    problem = {**problem, "status": response.status_code}
    slug = str(problem.get("type"))
    base = _BY_SLUG.get(slug) or _BY_STATUS.get(response.status_code, ServiceError)
    return failure(base, problem)


def failure(base: type[ServiceError], problem: dict[str, Any]) -> ServiceError:
    """Return an error of class ``base``, which is also the core's class for the problem's slug."""
    core = _CORE.get(str(problem.get("type")))
    if core is None or core is TorchPrunerError or issubclass(base, core):
        return base(problem)
    key = (base, core)
    if key not in _MIXED:
        _MIXED[key] = type(core.__name__, (base, core), {"__doc__": core.__doc__})
    return _MIXED[key](problem)
