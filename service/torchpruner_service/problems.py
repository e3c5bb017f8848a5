"""Every error the service answers with, as RFC 9457 problem details.

::

    Problem                     status, slug, title; the fields a person needs
    ├── InvalidRequest     422  the request does not parse
    ├── InvalidUpload      422  the bytes are not a model (see ``sniffing``)
    ├── NotFound           404
    ├── Conflict           409  ``weights-required``, ``model-not-ready``, ``model-failed`` ...
    ├── TooLarge           413
    ├── Unauthorized       401
    ├── Forbidden          403
    ├── RateLimited        429
    ├── StorageFull        507
    └── Unavailable        503  Redis or the object store is away; try again

The core's own errors keep their slugs and map to a status here, so each is written once.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torchpruner_core.errors import (
    CutError,
    GraphError,
    PlanError,
    TorchPrunerError,
    UnknownModuleError,
    UnknownNodeError,
)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An error with a stable ``slug`` and an HTTP status."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong in the service"

    def __init__(
        self,
        detail: str,
        *,
        slug: str | None = None,
        title: str | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.type = slug or self.slug
        self.summary = title or self.title
        self.headers = headers or {}
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "title": self.summary,
            "status": self.status,
            "detail": self.detail,
            **self.fields,
        }


class InvalidRequest(Problem):
    status = 422
    slug = "invalid-request"
    title = "The request is not valid"


class InvalidUpload(Problem):
    status = 422
    slug = "invalid-model"
    title = "The file is not a valid model"


class NotFound(Problem):
    status = 404
    slug = "not-found"
    title = "There is no such resource"


class Conflict(Problem):
    status = 409
    slug = "conflict"
    title = "The resource is not in a state that allows this"


class TooLarge(Problem):
    status = 413
    slug = "too-large"
    title = "The request is larger than this service allows"


class Unauthorized(Problem):
    status = 401
    slug = "unauthorized"
    title = "A valid API key is needed"


class Forbidden(Problem):
    status = 403
    slug = "forbidden"
    title = "The API key does not allow this"


class RateLimited(Problem):
    status = 429
    slug = "rate-limited"
    title = "Too many requests"


class StorageFull(Problem):
    status = 507
    slug = "storage-full"
    title = "The service has no room to store this"


class Unavailable(Problem):
    status = 503
    slug = "unavailable"
    title = "A part of the service is away"

    def __init__(self, detail: str, **fields: Any) -> None:
        fields.setdefault("headers", {"Retry-After": "1"})
        super().__init__(detail, **fields)


def status_of(error: TorchPrunerError) -> int:
    """The HTTP status of one of the core's errors."""
    if isinstance(error, (UnknownNodeError, UnknownModuleError)):
        return 404
    if isinstance(error, (CutError, GraphError, PlanError)):
        return 422
    return 500


def problem_of(error: BaseException) -> dict[str, Any]:
    """Return any error as problem members; one that nobody foresaw tells its type and no more."""
    if isinstance(error, Problem):
        return error.to_dict()
    if isinstance(error, TorchPrunerError):
        return {**jsonable(error.to_problem()), "status": status_of(error)}
    return {
        "type": "internal-error",
        "title": Problem.title,
        "status": 500,
        "detail": f"{type(error).__name__}; the log has the details under this request's id",
    }


def jsonable(value: Any) -> Any:
    """Return ``value`` as plain JSON types, whatever an error's fields hold."""
    if isinstance(value, str):
        # A lone surrogate, which JSON can send, is no text that UTF-8 can answer with.
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {jsonable(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)
