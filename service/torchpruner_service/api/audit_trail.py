"""Who changed what, and when: every route that changes something writes an event, by itself.

:class:`Recorded` is the class of all routes. What a route did is taken from its path, its answer and
what the services :func:`note` on the way; bodies and headers are never kept, so no secret is. A
question about a cut changes nothing; who asks many in a row has the first and then their number
written.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import anyio.to_thread
import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.problems import Problem
from torchpruner_service.settings import Settings
from torchpruner_service.storage import layout
from torchpruner_service.storage.audit_log import event_name, trim
from torchpruner_service.storage.objects import Objects

ACTIONS = {
    "create_model": "model.upload",
    "describe_model": "model.describe",
    "delete_model": "model.delete",
    "delete_models": "model.delete",
    "add_weights": "weights.add",
    "derive_model": "model.derive",
    "pruned_weights": "weights.prune",
    "pruned_onnx": "onnx.prune",
    "delete_artifact": "artifact.delete",
    "save_model_cut": "cut.save",
    "delete_cut": "cut.delete",
    "cut_analysis": "cut.analyse",
    "make_plan": "plan.make",
    "rename_plan": "plan.rename",
    "delete_plan": "plan.delete",
    "retry_plan": "plan.retry",
    "derive_plan": "plan.derive",
    "plan_weights": "plan.weights",
    "plan_onnx": "plan.onnx",
    "plan_latency": "plan.latency",
    "measure_latency": "latency.measure",
    "cancel_job": "job.cancel",
    "retry_job": "job.retry",
    "delete_blob": "blob.delete",
    "create_upload": "upload.start",
    "append_to_upload": None,
    "delete_upload": "upload.cancel",
}
"""What each route that changes something is called in the trail; parts of an upload are not events."""

QUESTION = "cut.analyse"
BURST_SECONDS = 30.0
"""Questions of one key about one model within so long after the first are told as one event."""

TRIM_EVERY = 256
"""Events of a tenant, as one process writes them, between two looks at the bounds."""

log = structlog.get_logger(__name__)

_notes: ContextVar[dict[str, Any] | None] = ContextVar("audit notes", default=None)


def note(**details: Any) -> None:
    """Add what a person should read later to the event of this request, if it becomes one; ``model`` is
    the model that it is about, where neither path nor answer say so."""
    notes = _notes.get()
    if notes is not None:
        notes |= details


class Recorded(APIRoute):
    """A route that writes an event when it has changed something."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        action = ACTIONS.get(self.name)
        if action is None:
            return handle

        async def recorded(request: Request) -> Response:
            notes: dict[str, Any] = {}
            _notes.set(notes)
            response = await handle(request)
            if response.status_code < 400:
                trail: AuditTrail = request.app.state.pruner.audit
                who: Principal = request.state.principal
                if action == QUESTION:
                    trail.ask(who, request.path_params["model"], notes)
                else:
                    model = notes.pop("model", None)
                    for subject in _subjects(request, response):
                        subject["model"] = subject["model"] or model
                        await trail.append(who, action, **subject, details=notes)
            return response

        return recorded


class AuditTrail:
    """Writes events; one for each process."""

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self._objects = objects
        self._settings = settings
        self._written: dict[str, int] = {}
        self._bursts: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(
        self,
        who: Principal,
        action: str,
        *,
        model: str | None,
        subject: str | None = None,
        name: str | None = None,
        details: dict[str, Any],
    ) -> None:
        """Write an event. What it tells of has been done: where the store does not take it, the log
        has it."""
        if not self._settings.audit_events:
            return
        event = {
            "at": time.time(),
            "action": action,
            "key": who.key,
            "model": model,
            "subject": subject,
            "name": name,
            "details": details,
            "request_id": current_request_id(),
        }
        try:
            key = layout.audit(who.tenant) + event_name(model)
            await self._objects.aput_json(key, event)
            await self._keep_bounds(who.tenant)
        except Problem as problem:
            log.error("an audit event was not stored", **event, problem=problem.detail)

    def ask(self, who: Principal, model: str, details: dict[str, Any]) -> None:
        """Note a question, behind its answer: the first of a burst at once, the others together."""
        if not self._settings.audit_events:
            return
        burst = (who.tenant, who.key, model)
        if burst in self._bursts:
            waiting = self._bursts[burst]
            waiting |= details
            waiting["questions"] = waiting.get("questions", 0) + 1
            return
        self._bursts[burst] = {}
        task = asyncio.create_task(self._tell_burst(who, model, burst, details))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_burst(
        self,
        who: Principal,
        model: str,
        burst: tuple[str, str, str],
        first: dict[str, Any],
    ) -> None:
        try:
            await self.append(who, QUESTION, model=model, details={**first, "questions": 1})
            await asyncio.sleep(BURST_SECONDS)
        finally:
            others = self._bursts.pop(burst)
            if others:
                await self.append(who, QUESTION, model=model, details=others)

    async def close(self) -> None:
        """Write what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_bounds(self, tenant: str) -> None:
        self._written[tenant] = self._written.get(tenant, 0) + 1
        if self._written[tenant] % TRIM_EVERY == 0:
            settings = self._settings

            def cut_off() -> None:
                trim(self._objects, tenant, most=settings.audit_events, days=settings.audit_days)

            await anyio.to_thread.run_sync(cut_off)


def _subjects(request: Request, response: Response) -> list[dict[str, Any]]:
    """What an event is about: the model, what was made or removed of it, and its name."""
    path = request.path_params
    try:
        shown = json.loads(bytes(response.body) or b"null")
    except ValueError:
        shown = None
    if not isinstance(shown, dict):
        shown = {}
    if "results" in shown:
        return [{"model": each["id"]} for each in shown["results"] if each["removed"]]
    subject = shown.get("id") or next(
        (
            path[key]
            for key in ("plan", "cut", "artifact", "job", "upload", "digest")
            if key in path
        ),
        None,
    )
    model = path.get("model") or shown.get("model") or _model_in(subject)
    if model is None and str(subject).startswith("m"):
        model = subject
    return [
        {
            "model": model,
            "subject": None if subject == model else subject,
            "name": shown.get("name"),
        }
    ]


def _model_in(subject: str | None) -> str | None:
    """The model that the id of a plan, a saved cut or a job names."""
    parts = (subject or "").split("-")
    return parts[1] if len(parts) > 1 and parts[1].startswith("m") else None
