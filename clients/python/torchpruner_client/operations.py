"""Everything the client does, written once: generators of steps that both clients drive."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from torchpruner_client.cut_requests import result_of
from torchpruner_client.download_target import check_target, part_of, put_in_place
from torchpruner_client.errors import (
    ConflictError,
    DownloadDamaged,
    JobFailed,
    ModelFailed,
    NotFoundError,
    NoWorkerError,
    ServiceError,
    WeightsRequired,
    failure,
)
from torchpruner_client.progress import Progress
from torchpruner_client.sources import Source, digest_of
from torchpruner_client.steps import Body, Call, Fetch, Flow, Watch
from torchpruner_core.cut_result import CutRequest, CutResult, TensorSpec

RESUMABLE = 128 << 20
"""Files from this size on are sent in parts, so that a broken connection costs one part."""
PART = 64 << 20
PAGE = 1000
NO_WORKER_PATIENCE = 10.0


def upload(source: Source, name: str | None, progress: Progress) -> Flow[dict[str, Any]]:
    """Send a model unless the service has it; return its view. A known file costs one round
    trip."""
    digest = source.sha256()
    inputs = [spec.to_dict() for spec in source.inputs]
    known: dict[str, Any] = {"blob": digest, "inputs": inputs}
    if name is not None:
        known["name"] = name
    try:
        return _json((yield Call("POST", "/v1/models", json=known)))
    except NotFoundError as error:
        if error.code != "unknown-blob":
            raise
    label = "uploading without weights" if source.weightless else "uploading"

    def sent(done: int) -> None:
        progress.update(label, done, len(source), "bytes")

    if len(source) > RESUMABLE:
        identifier = yield from _send_in_parts(source.content, digest, sent)
        body = {"upload": identifier, **{k: v for k, v in known.items() if k != "blob"}}
        return _json((yield Call("POST", "/v1/models", json=body)))
    params: dict[str, Any] = {} if name is None else {"name": name}
    if inputs:
        params["inputs"] = _compact(inputs)
    return _json(
        (
            yield Call(
                "POST",
                "/v1/models",
                params=params,
                headers={"Content-Digest": _content_digest(digest)},
                body=Body(source.content, 0, len(source), sent),
            )
        )
    )


def _send_in_parts(content: Path | bytes, digest: str, sent: Callable[[int], None]) -> Flow[str]:
    length = content.stat().st_size if isinstance(content, Path) else len(content)
    started = _json((yield Call("POST", "/v1/uploads", json={"length": length, "sha256": digest})))
    path = f"/v1/uploads/{started['id']}"
    offset = 0
    while offset < length:
        end = min(length, offset + PART)
        base = offset

        def part_sent(done: int, base: int = base) -> None:
            sent(base + done)

        try:
            answer = yield Call(
                "PATCH",
                path,
                headers={"Upload-Offset": str(offset)},
                body=Body(content, offset, end, part_sent),
                timeout=300.0,
            )
            offset = int(answer.headers["upload-offset"])
        except ConflictError as error:
            # A part arrived whose answer was lost: go on from where the service is.
            if error.code != "offset-mismatch":
                raise
            offset = int(error.fields["expected"])
    return str(started["id"])


def wait_ready(model: str, timeout: float | None, progress: Progress) -> Flow[dict[str, Any]]:
    """Follow a build to its end; return the model's view.

    Raises ``ModelFailed``, ``NoWorkerError``, or ``TimeoutError``.
    """
    shown = _json((yield Call("GET", f"/v1/models/{model}")))
    if shown["state"] in {"queued", "running"}:
        yield from _follow(f"/v1/models/{model}/events", "building the graph", timeout, progress)
        shown = _json((yield Call("GET", f"/v1/models/{model}")))
    if shown["state"] == "ready":
        return shown
    problem = shown.get("problem") or {
        "type": f"model-{shown['state']}",
        "detail": f"the build of {model} was {shown['state']}",
    }
    raise failure(ModelFailed, dict(problem))


def _follow(
    path: str, label: str, timeout: float | None, progress: Progress
) -> Flow[dict[str, Any]]:
    lonely_since: list[float] = []

    def on_event(job: dict[str, Any]) -> None:
        stage = job["stage"]
        progress.update(f"{label}: {stage}", job["percent"], 100.0, "percent")
        if job.get("message"):
            lonely_since.append(time.monotonic())
            if lonely_since[-1] - lonely_since[0] > NO_WORKER_PATIENCE:
                raise NoWorkerError(job["message"])
        else:
            lonely_since.clear()

    ended: dict[str, Any] = yield Watch(path, on_event, timeout)
    return ended


def show(model: str) -> Flow[dict[str, Any]]:
    return _json((yield Call("GET", f"/v1/models/{model}")))


def find(name: str) -> Flow[dict[str, Any]]:
    """Return the newest model called ``name``, one that failed only where no other is called so.
    Raises ``NotFoundError``."""
    named = [item for item in (yield from listing("/v1/models")) if item["name"] == name]
    for item in sorted(named, key=lambda item: item["state"] in ("failed", "cancelled")):
        found: dict[str, Any] = item
        return found
    raise NotFoundError(
        {
            "type": "unknown-model",
            "status": 404,
            "detail": f"no model has the id or name {name!r}; `torchpruner models` lists them",
        }
    )


def with_shapes(
    blob: str | None, inputs: Sequence[TensorSpec], name: str | None
) -> Flow[dict[str, Any]]:
    """Build a file that the service has for other input shapes."""
    body: dict[str, Any] = {"blob": blob, "inputs": [spec.to_dict() for spec in inputs]}
    if name is not None:
        body["name"] = name
    return _json((yield Call("POST", "/v1/models", json=body)))


def delete(model: str) -> Flow[None]:
    yield Call("DELETE", f"/v1/models/{model}", accept=frozenset({404}))


def listing(
    path: str, params: Mapping[str, Any] | None = None, most: int | None = None
) -> Flow[list[dict[str, Any]]]:
    """Return every item of a paged list, or the first ``most``."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        wanted = PAGE if most is None else max(1, min(PAGE, most - len(items)))
        query = {"limit": wanted, **(params or {})}
        if cursor is not None:
            query["cursor"] = cursor
        page = _json((yield Call("GET", path, params=query)))
        items += page["items"]
        cursor = page["next"]
        if cursor is None or (most is not None and len(items) >= most):
            return items[:most]


def describe(model: str, changes: Mapping[str, Any], expected: str | None) -> Flow[dict[str, Any]]:
    """Change a model's name, note or tags; only where they are still ``expected``, if that is given."""
    headers = {} if expected is None else {"If-Match": f'"{expected}"'}
    call = Call("PATCH", f"/v1/models/{model}", json=dict(changes), headers=headers)
    return _json((yield call))


def delete_many(models: Sequence[str]) -> Flow[list[dict[str, Any]]]:
    """Remove models, a thousand with each request; one result for each."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(models), PAGE):
        body = {"models": list(models[start : start + PAGE])}
        results += _json((yield Call("POST", "/v1/models/bulk-delete", json=body)))["results"]
    return results


def filters(**given: Any) -> dict[str, Any]:
    """The query of a list: what is given of these."""
    return {key: value for key, value in given.items() if value not in (None, [])}


def listing_page(
    path: str, limit: int, cursor: str | None, params: Mapping[str, Any] | None = None
) -> Flow[dict[str, Any]]:
    """Return one page of a list: ``items``, ``total``, ``next``."""
    query: dict[str, Any] = {"limit": limit, **(params or {})}
    if cursor is not None:
        query["cursor"] = cursor
    return _json((yield Call("GET", path, params=query)))


def cut_analysis(
    model: str, requests: Sequence[CutRequest], granularity: str, protect_io: bool
) -> Flow[dict[str, Any]]:
    """Ask for one joint cut."""
    body = {
        "cuts": [request.to_dict() for request in requests],
        "granularity": granularity,
        "protect_io": protect_io,
    }
    return _json((yield Call("POST", f"/v1/models/{model}/cut-analysis", json=body)))


def flops(model: str, by: Sequence[str]) -> Flow[dict[str, Any]]:
    return _json((yield Call("GET", f"/v1/models/{model}/flops", params={"by": list(by)})))


def derive(model: str, result: CutResult, name: str | None) -> Flow[dict[str, Any]]:
    body = {"result": result_of(result).to_dict(), **({} if name is None else {"name": name})}
    return _json((yield Call("POST", f"/v1/models/{model}/derive", json=body)))


def lineage(model: str) -> Flow[dict[str, Any]]:
    return _json((yield Call("GET", f"/v1/models/{model}/lineage")))


def add_weights(model: str, content: Path | bytes, progress: Progress) -> Flow[None]:
    """Send the whole file of a weightless model and wait until the service has compared it."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)

    def sent(done: int) -> None:
        progress.update("uploading the weights", done, size, "bytes")

    job = _json(
        (
            yield Call(
                "POST",
                f"/v1/models/{model}/weights",
                headers={"Content-Digest": _content_digest(digest_of(content))},
                body=Body(content, 0, size, sent),
                timeout=600.0,
            )
        )
    )
    yield from _job_result(job, "checking the weights", None, progress)


def download(
    model: str,
    kind: str,
    body: dict[str, Any],
    target: Path,
    source: Source | None,
    timeout: float | None,
    progress: Progress,
) -> Flow[dict[str, Any]]:
    """Have a file made and download it; return its view. Weights that the service lacks are sent
    first, where they are here.

    The file appears under its name when it is whole and its sha256 is right; of two downloads to one
    name the last stays. Raises ``DownloadTargetError`` before anything is made where it could not be
    written.
    """
    check_target(target)
    call = Call("POST", f"/v1/models/{model}/{kind}", json=body)
    try:
        artifact = _json((yield call))
    except WeightsRequired as error:
        if source is None:
            raise
        yield from add_weights(str(error.fields["model"]), source.whole(), progress)
        artifact = _json((yield call))
    path = f"/v1/artifacts/{artifact['id']}"
    if artifact["state"] not in {"ready", "failed", "cancelled"}:
        yield from _follow(f"{path}/events", "cutting", timeout, progress)
        artifact = _json((yield Call("GET", path)))
    if artifact["state"] != "ready":
        raise failure(JobFailed, _problem_of(artifact))
    # What a link points to is written, not the link.
    target_file = target.resolve() if target.is_symlink() else target
    partial = part_of(target_file)

    def received(done: int, total: int) -> None:
        progress.update("downloading", done, total, "bytes")

    try:
        digest = yield Fetch(artifact["content"], partial, received)
        if digest != artifact["sha256"]:
            raise DownloadDamaged(
                f"the download has the sha256 {digest}, the service announced "
                f"{artifact['sha256']}; "
                "download it again"
            )
        put_in_place(partial, target_file, digest)
    finally:
        partial.unlink(missing_ok=True)
    return artifact


def latency(
    model: str, body: dict[str, Any], timeout: float | None, progress: Progress
) -> Flow[dict[str, Any]]:
    job = _json((yield Call("POST", f"/v1/models/{model}/latency", json=body)))
    return (yield from _job_result(job, "measuring", timeout, progress))


def plan(
    model: str,
    body: dict[str, Any],
    key: str | None,
    source: Source | None,
    timeout: float | None,
    progress: Progress,
) -> Flow[dict[str, Any]]:
    """Have a plan made and return its view, cut and all. Weights that the service lacks are sent
    first, where it must judge them and they are here."""
    headers = {} if key is None else {"Idempotency-Key": key}
    call = Call("POST", f"/v1/models/{model}/plans", json=body, headers=headers)
    try:
        made = _json((yield call))
    except WeightsRequired as error:
        if source is None:
            raise
        yield from add_weights(str(error.fields["model"]), source.whole(), progress)
        made = _json((yield call))
    path = f"/v1/plans/{made['id']}"
    if made["state"] in {"queued", "running"}:
        yield from _follow(f"{path}/events", "planning", timeout, progress)
        made = _json((yield Call("GET", path)))
    if made["state"] != "ready":
        raise failure(JobFailed, _problem_of(made))
    return made


def show_plan(plan: str) -> Flow[dict[str, Any]]:
    made = _json((yield Call("GET", f"/v1/plans/{plan}")))
    if made["state"] in {"failed", "cancelled"}:
        raise failure(JobFailed, _problem_of(made))
    if made["state"] != "ready":
        raise ConflictError(
            {
                "type": "plan-not-ready",
                "status": 409,
                "detail": f"the plan is not made yet ({made['state']}); ask again in a moment",
            }
        )
    return made


def rename_plan(plan: str, name: str | None) -> Flow[dict[str, Any]]:
    return _json((yield Call("PATCH", f"/v1/plans/{plan}", json={"name": name})))


def save_cut(
    model: str,
    name: str,
    result: CutResult | None,
    requests: Sequence[CutRequest],
    note: str | None,
    options: Mapping[str, Any],
) -> Flow[dict[str, Any]]:
    """Keep a cut under a name: a result, or what to ask for."""
    body: dict[str, Any] = {"name": name}
    if note is not None:
        body["note"] = note
    if result is not None:
        body["result"] = result_of(result).to_dict()
    if requests:
        body["request"] = {"cuts": [request.to_dict() for request in requests], **options}
    return _json((yield Call("POST", f"/v1/models/{model}/cuts", json=body)))


def saved_cut(model: str, name: str) -> Flow[dict[str, Any]]:
    """Return a saved cut by its id, or by its name. Raises ``NotFoundError``."""
    identifier = name
    if not is_cut_id(name):
        found = yield from listing(f"/v1/models/{model}/cuts")
        identifier = next((each["id"] for each in found if each["name"] == name), "")
    if not identifier:
        raise NotFoundError(
            {
                "type": "unknown-cut",
                "status": 404,
                "detail": f"no saved cut of this model is called {name!r}; `torchpruner cuts MODEL` lists "
                "them",
            }
        )
    return _json((yield Call("GET", f"/v1/cuts/{identifier}")))


def delete_cut(model: str, name: str) -> Flow[None]:
    found = yield from saved_cut(model, name)
    yield Call("DELETE", f"/v1/cuts/{found['id']}")


def is_cut_id(text: str) -> bool:
    """Whether ``text`` has the form of a saved cut's id."""
    kind, _, rest = text.partition("-")
    return kind == "cut" and is_model_id(rest.partition("-")[0])


def delete_plan(plan: str) -> Flow[None]:
    yield Call("DELETE", f"/v1/plans/{plan}")


def is_model_id(text: str) -> bool:
    """Whether ``text`` has the form of a model's id."""
    return len(text) == 27 and text[0] == "m" and text.isalnum() and text.islower()


def service_info() -> Flow[dict[str, Any]]:
    return _json((yield Call("GET", "/v1")))


def readiness() -> Flow[dict[str, Any]]:
    return _json((yield Call("GET", "/readyz", accept=frozenset({503}), retry=False)))


def metrics() -> Flow[str]:
    """Prometheus' text; per API process but for what Redis counts."""
    return (yield Call("GET", "/metrics")).text  # type: ignore[no-any-return]


def retry_job(job: str) -> Flow[dict[str, Any]]:
    return _json((yield Call("POST", f"/v1/jobs/{job}/retry")))


def cancel_job(job: str) -> Flow[None]:
    yield Call("DELETE", f"/v1/jobs/{job}")


def _job_result(
    job: dict[str, Any], label: str, timeout: float | None, progress: Progress
) -> Flow[dict[str, Any]]:
    if job["state"] in {"queued", "running"}:
        yield from _follow(f"/v1/jobs/{job['id']}/events", label, timeout, progress)
        job = _json((yield Call("GET", f"/v1/jobs/{job['id']}")))
    if job["state"] != "ready":
        raise failure(JobFailed, _problem_of(job))
    result: dict[str, Any] = job["result"]
    return result


def _problem_of(job: Mapping[str, Any]) -> dict[str, Any]:
    return dict(job.get("problem") or {}) or {
        "type": f"job-{job['state']}",
        "detail": f"the job {job['id']} was {job['state']}",
    }


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError as error:
        raise _foreign(response.url, response.status_code, "not-json", "is not JSON") from error
    if not isinstance(value, dict):
        raise _foreign(response.url, response.status_code, "not-understood", "is no JSON object")
    return Answer(value, response.url, response.status_code)


class Answer(dict[str, Any]):
    """An answer's members; asking for one that it lacks says that somebody else answered."""

    def __init__(self, members: Mapping[str, Any], url: httpx.URL, status: int) -> None:
        super().__init__(members)
        self._url, self._status = url, status

    def __missing__(self, key: str) -> Any:
        raise _foreign(self._url, self._status, "not-understood", f"has no {key!r}")


def _foreign(url: httpx.URL, status: int, slug: str, lacks: str) -> ServiceError:
    asked = url.copy_with(query=None)
    detail = f"the answer of {asked} {lacks}; is this a torchpruner service, as new as this client?"
    return ServiceError({"type": slug, "status": status, "detail": detail})


def _compact(value: Any) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))


def _content_digest(digest: str) -> str:
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"
