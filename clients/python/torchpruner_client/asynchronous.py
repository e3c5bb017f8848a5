"""The asynchronous client: the same operations, awaited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any

import httpx

from torchpruner_client import operations
from torchpruner_client.async_driver import AsyncDriver
from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.cut_requests import Indices, found_module, request_of, result_body
from torchpruner_client.operations import filters
from torchpruner_client.plan_requests import orders_of, plan_body, plan_of
from torchpruner_client.progress import Progress, showing
from torchpruner_client.records import (
    AuditEvent,
    Flops,
    FrontierPoint,
    Group,
    Job,
    Latency,
    LineageEntry,
    ModelInfo,
    PlanRecord,
    Readiness,
    Removed,
    SavedCut,
    ServiceInfo,
    StoredLatency,
    Worker,
)
from torchpruner_client.retrying import RetryPolicy
from torchpruner_client.sources import Dynamic, Source, source_of
from torchpruner_core.analysis.records import ModuleInfo, record_from_dict
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.cut_warnings import warn_of
from torchpruner_core.planning.budget import Budget
from torchpruner_core.planning.plan import Plan
from torchpruner_core.planning.rules import Rules
from torchpruner_core.planning.scores import Scores

PACKAGE = "torchpruner_client"


class AsyncClient:
    """A connection to one service. Close it, or use ``async with``.

    ``url`` and ``api_key`` default to the environment's TORCHPRUNER_URL and TORCHPRUNER_API_KEY.
    Connection errors and 503 are tried again with growing waits; ``retries`` says how often.
    ``progress`` shows bars on a terminal by default.

    Methods raise :class:`~torchpruner_client.errors.ServiceError` and its subclasses for what the
    service refuses, and ``ServiceUnreachable`` where nothing answers.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        retries: RetryPolicy | int | None = None,
        progress: Progress | bool | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = ConnectionSettings.of(url, api_key, timeout, retries)
        self._driver = AsyncDriver(self._settings, transport)
        self._progress = progress

    @property
    def url(self) -> str:
        return self._settings.url

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._driver.close()

    async def upload(
        self,
        model: Any,
        inputs: Any = None,
        *,
        name: str | None = None,
        weights: bool | None = None,
        dynamic: Dynamic | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> AsyncRemoteModel:
        """Upload a model, unless the service knows it, and wait until its graph is built.

        ``model`` is an ``nn.Module`` (exported here), a ``ScriptModule``, an ``ExportedProgram``,
        an ``onnx.ModelProto``, or the path or bytes of a TorchScript, ``.pt2`` or ONNX file.
        ``inputs`` are example tensors, shapes, or ``TensorSpec``s, in order or by name. Weights
        stay here where only analysis is asked (``weights=None``) and the model is a module or an
        ONNX file; ``download_pruned`` sends them when they are needed.

        ``dynamic`` marks axes of a module's inputs that the pruned ONNX model keeps symbolic, by the input's
        name or position: ``{'ids': {0: 'batch', 1: 'sequence'}}`` or ``{0: [0]}``. The graph has the sizes of
        ``inputs``.
        """
        source = source_of(model, inputs, weights, dynamic)
        with showing(self._progress) as shown:
            view = await self._driver.run(operations.upload(source, name, shown))
            if wait:
                view = await self._driver.run(operations.wait_ready(view["id"], timeout, shown))
        warn_of(view.get("warnings"), PACKAGE)
        return AsyncRemoteModel(self, view, source)

    async def model(self, identifier: str) -> AsyncRemoteModel:
        """Return the model with this id or name (the newest of that name that has not failed). Raises
        ``NotFoundError``."""
        if operations.is_model_id(identifier):
            return AsyncRemoteModel(self, await self._driver.run(operations.show(identifier)), None)
        return AsyncRemoteModel(self, await self._driver.run(operations.find(identifier)), None)

    async def models(self, *, name: str | None = None, tags: Sequence[str] = ()) -> list[ModelInfo]:
        """Every model of this tenant, newest first: those whose name holds ``name``, in either case, and
        that have all ``tags``."""
        flow = operations.listing("/v1/models", filters(name=name, tag=list(tags)))
        return [ModelInfo.from_dict(item) for item in await self._driver.run(flow)]

    async def models_page(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> tuple[list[ModelInfo], str | None]:
        """At most ``limit`` models, newest first, and the cursor of what follows (``None``: the
        end)."""
        given = filters(name=name, tag=list(tags))
        page = await self._driver.run(operations.listing_page("/v1/models", limit, cursor, given))
        return [ModelInfo.from_dict(item) for item in page["items"]], page["next"]

    async def delete_models(self, models: Sequence[str]) -> list[Removed]:
        """Remove models by id, with one request a thousand; return what came of each. One that cannot be
        removed keeps no other."""
        found = await self._driver.run(operations.delete_many(models))
        return [Removed.from_dict(item) for item in found]

    async def audit(
        self, *, model: str | None = None, limit: int | None = None
    ) -> list[AuditEvent]:
        """Who did what, when: the events of this tenant, newest first, about ``model`` (an id) where that
        is given, and at most ``limit``."""
        flow = operations.listing("/v1/audit", filters(model=model), limit)
        return [AuditEvent.from_dict(item) for item in await self._driver.run(flow)]

    async def audit_page(
        self, limit: int, cursor: str | None = None, *, model: str | None = None
    ) -> tuple[list[AuditEvent], str | None]:
        """At most ``limit`` events, newest first, and the cursor of what was before (``None``: the
        end)."""
        flow = operations.listing_page("/v1/audit", limit, cursor, filters(model=model))
        page = await self._driver.run(flow)
        return [AuditEvent.from_dict(item) for item in page["items"]], page["next"]

    async def jobs(
        self, *, state: str | None = None, kind: str | None = None, model: str | None = None
    ) -> list[Job]:
        """The newest jobs that this tenant started, newest first."""
        given = filters(state=state, kind=kind, model=model)
        found = await self._driver.run(operations.listing("/v1/jobs", given))
        return [Job.from_dict(item) for item in found]

    async def cancel_job(self, job: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        await self._driver.run(operations.cancel_job(job))

    async def retry_job(self, job: str) -> Job:
        """Start a job again. Raises ``ConflictError`` where that cannot help."""
        return Job.from_dict(await self._driver.run(operations.retry_job(job)))

    async def workers(self) -> list[Worker]:
        """The workers that live."""
        found = await self._driver.run(operations.listing("/v1/workers"))
        return [Worker.from_dict(item) for item in found]

    async def service_info(self) -> ServiceInfo:
        """Versions and limits, and as whom the service knows this client."""
        return ServiceInfo.from_dict(await self._driver.run(operations.service_info()))

    async def readiness(self) -> Readiness:
        """Which parts of the service answer."""
        return Readiness.from_dict(await self._driver.run(operations.readiness()))

    async def metrics(self) -> str:
        """The service's metrics in Prometheus' text form."""
        text: str = await self._driver.run(operations.metrics())
        return text

    async def run(self, flow: Any) -> Any:
        """Drive one operation; for this package's own objects."""
        return await self._driver.run(flow)

    @property
    def progress(self) -> Progress | bool | None:
        return self._progress


class AsyncRemoteModel:
    """A model on the service."""

    def __init__(self, client: AsyncClient, view: Mapping[str, Any], source: Source | None) -> None:
        self._client = client
        self._source = source
        self._info = ModelInfo.from_dict(view)
        self._modules: AsyncRemoteModules | None = None

    def __repr__(self) -> str:
        return f"AsyncRemoteModel({self.id!r}, name={self.name!r}, state={self._info.state!r})"

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def name(self) -> str | None:
        return self._info.name

    @property
    def info(self) -> ModelInfo:
        """What the service said last; :meth:`refresh` asks again."""
        return self._info

    @property
    def bytes_sent(self) -> tuple[int, int] | None:
        """What the upload takes and what the whole model would have, in bytes; unknown for a model
        looked up."""
        return None if self._source is None else (len(self._source), self._source.full_size)

    async def refresh(self) -> ModelInfo:
        self._info = ModelInfo.from_dict(await self._client.run(operations.show(self.id)))
        return self._info

    async def wait(self, timeout: float | None = None) -> AsyncRemoteModel:
        """Wait until the graph is built. Raises ``ModelFailed``, ``NoWorkerError`` or
        ``TimeoutError``."""
        with showing(self._client.progress) as shown:
            self._info = ModelInfo.from_dict(
                await self._client.run(operations.wait_ready(self.id, timeout, shown))
            )
        warn_of(self._info.warnings, PACKAGE)
        return self

    async def with_shapes(self, inputs: Sequence[TensorSpec]) -> AsyncRemoteModel:
        """Return the same file as a model for other input shapes; its graph may still be being
        built."""
        flow = operations.with_shapes(self.info.blob, inputs, self.name)
        return AsyncRemoteModel(self._client, await self._client.run(flow), None)

    async def rename(self, name: str | None) -> ModelInfo:
        """Give the model another name, or none."""
        return await self.describe(name=name)

    async def describe(
        self,
        *,
        name: str | EllipsisType | None = ...,
        note: str | EllipsisType | None = ...,
        tags: Sequence[str] | EllipsisType = ...,
        revision: str | None = None,
    ) -> ModelInfo:
        """Change the model's name, its note (free text) or its tags (all of them); what is not given stays,
        whatever others change at the same time. ``None`` takes a name or a note away.

        With ``revision``, the one that :attr:`info` had when it was read, nothing is changed where
        somebody else was faster: raises ``ChangedMeanwhile``.
        """
        given = {"name": name, "note": note, "tags": tags if tags is ... else list(tags)}
        changes = {key: value for key, value in given.items() if value is not ...}
        view = await self._client.run(operations.describe(self.id, changes, revision))
        self._info = ModelInfo.from_dict(view)
        return self._info

    async def delete(self) -> None:
        """Remove the model from the service; cancels its build."""
        await self._client.run(operations.delete(self.id))

    # sync: @property
    async def modules(self) -> AsyncRemoteModules:
        """The modules by name, parameters and buffers included, as in the core's graph."""
        if self._modules is None:
            items = await self._list("modules")
            self._modules = AsyncRemoteModules(
                self, [record_from_dict(ModuleInfo, item) for item in items]
            )
        return self._modules

    async def nodes(self) -> list[dict[str, Any]]:
        """Every tensor of the graph: name, shape, dtype, kind, module, producer, consumers."""
        return await self._list("nodes")

    async def operators(self) -> list[dict[str, Any]]:
        """Every operator in the order they run: name, type, module, inputs, outputs, flops,
        macs."""
        return await self._list("operators")

    async def groups(self) -> list[Group]:
        """What is pruned together, and what one slice of it saves."""
        return [Group.from_dict(item) for item in await self._list("groups")]

    async def flops(self, by: Sequence[str] = ()) -> Flops:
        """FLOPs of one forward pass; ``by`` adds them by ``"module"`` or ``"operator"``."""
        return Flops.from_dict(await self._client.run(operations.flops(self.id, by)))

    async def cut_analysis(
        self,
        node: str,
        index: Indices,
        dim: int = 0,
        *,
        granularity: str = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of ``node``.

        Raises the core's own errors (``UnknownNodeError``, ``CutIndexError``, ``CutDimError``,
        ``EmptyAxisError`` ...).
        """
        request = request_of((node, dim, index))
        return await self.cut_analysis_many(
            [request], granularity=granularity, protect_io=protect_io
        )

    async def cut_analysis_many(
        self, requests: Sequence[Any], *, granularity: str = "auto", protect_io: bool = False
    ) -> CutResult:
        """Return the smallest consistent cut that contains every request.

        A request is a ``CutRequest``, or ``(node, dim, index)``.
        """
        asked = [request_of(item) for item in requests]
        flow = operations.cut_analysis(self.id, asked, granularity, protect_io)
        answer = await self._client.run(flow)
        warn_of(answer.get("warnings"), PACKAGE)
        return CutResult.from_dict(answer)

    async def download_pruned(
        self,
        result: CutResult | None,
        path: str | Path,
        *,
        format: str = "safetensors",
        timeout: float | None = None,
    ) -> Path:
        """Download the weights without the slices of ``result`` (all of them, for ``None``) and
        return the path.

        ``format`` is ``"safetensors"`` or ``"npz"``; the keys are those of ``state_dict()``, so the
        pruned module loads them with ``strict=True``.
        """
        body = {"format": format, **result_body(result)}
        return await self._download("pruned-weights", body, path, timeout)

    async def download_onnx(
        self, result: CutResult | None, path: str | Path, *, timeout: float | None = None
    ) -> Path:
        """Download the model without the slices of ``result``, as ONNX, and return the path."""
        return await self._download("pruned-onnx", result_body(result), path, timeout)

    async def add_weights(self, model: Any = None) -> None:
        """Send the weights of a model that was uploaded without. ``model`` is its whole ONNX
        file."""
        content: Path | bytes
        if model is None:
            if self._source is None:
                raise ValueError("this model was not uploaded from here: give its whole ONNX file")
            content = self._source.whole()
        else:
            content = Path(model) if isinstance(model, (str, Path)) else bytes(model)
        with showing(self._client.progress) as shown:
            await self._client.run(operations.add_weights(self.id, content, shown))

    async def latency(
        self,
        result: CutResult | None = None,
        *,
        runs: int = 30,
        warm_up: int = 5,
        threads: int = 0,
        timeout: float | None = None,
    ) -> Latency:
        """Measure the forward pass of the original and of what ``result`` leaves, on the worker's
        device."""
        body = {"runs": runs, "warm_up": warm_up, "threads": threads, **result_body(result)}
        with showing(self._client.progress) as shown:
            flow = operations.latency(self.id, body, timeout, shown)
            return Latency.from_dict(await self._client.run(flow))

    async def latencies(self) -> list[StoredLatency]:
        """What was measured of this model, newest first, with spread, device and load."""
        return [StoredLatency.from_dict(item) for item in await self._list("latencies")]

    async def derive(self, result: CutResult, *, name: str | None = None) -> AsyncRemoteModel:
        """Return the model that is left after ``result``, ready at once: its graph is sliced, not
        rebuilt."""
        view = await self._client.run(operations.derive(self.id, result, name))
        return AsyncRemoteModel(self._client, view, self._source)

    async def plan(
        self,
        budget: Budget | Mapping[str, Any],
        scores: Scores | Mapping[Any, Any] | None = None,
        *,
        importance: str | None = None,
        rules: Rules | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Plan:
        """Return a plan that costs no more than ``budget``: widths and one joint cut.

        The arguments are those of ``torchpruner_core.plan``, and so is the result: ``plan.result`` goes
        to ``set_cut``, ``derive`` and the downloads, ``print(plan)`` shows the table. ``importance``
        (``"magnitude"``, ``"lamp"``, ``"fpgm"``, ``"batchnorm"``, ``"random"``) has the service compute
        the scores from the model's weights, which are sent first where they are here; ``scores`` need
        none. A latency is measured on a worker. The same request is the same plan.

        Raises the planner's own errors (``BudgetError``, ``InfeasibleBudgetError``, ``ScoresError``,
        ``RuleError`` ...).
        """
        body = plan_body(budget, scores, importance, rules, options, name=name)
        with showing(self._client.progress) as shown:
            flow = operations.plan(self.id, body, idempotency_key, self._source, timeout, shown)
            made = await self._client.run(flow)
        warn_of(made.get("warnings"), PACKAGE)
        return plan_of(made)

    async def frontier(
        self,
        budget: Budget | Mapping[str, Any],
        fractions: Sequence[float],
        scores: Scores | Mapping[Any, Any] | None = None,
        *,
        importance: str | None = None,
        rules: Rules | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> list[FrontierPoint]:
        """Return what plans for other shares of the cost come to, in what ``budget`` limits; the other
        arguments are :meth:`plan`'s."""
        body = plan_body(budget, scores, importance, rules, options, frontier=fractions)
        with showing(self._client.progress) as shown:
            flow = operations.plan(self.id, body, None, self._source, timeout, shown)
            made = await self._client.run(flow)
        return [FrontierPoint.from_dict(item) for item in made["frontier"]]

    async def plan_with_frontier(
        self,
        budget: Budget | Mapping[str, Any],
        fractions: Sequence[float],
        *,
        importance: str | None = None,
        rules: Rules | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> tuple[Plan, list[FrontierPoint]]:
        """Return :meth:`plan` and :meth:`frontier` from one request."""
        body = plan_body(budget, None, importance, rules, options, frontier=fractions)
        with showing(self._client.progress) as shown:
            flow = operations.plan(self.id, body, None, self._source, timeout, shown)
            made = await self._client.run(flow)
        return plan_of(made), [FrontierPoint.from_dict(item) for item in made["frontier"]]

    async def slice_orders(
        self, importance: str, *, timeout: float | None = None
    ) -> dict[tuple[str, int], tuple[int, ...]]:
        """Return, by ``(node, dim)``, the slices of each axis that can be pruned, the least important in
        front. ``importance`` is one of :meth:`plan`'s; the service computes it from the weights."""
        body = plan_body({"flops": "100%"}, None, importance, None, {}, order=True)
        with showing(self._client.progress) as shown:
            flow = operations.plan(self.id, body, None, self._source, timeout, shown)
            return orders_of(await self._client.run(flow))

    async def plans(self) -> list[PlanRecord]:
        """The plans that were asked for of this model, newest first."""
        return [PlanRecord.from_dict(item) for item in await self._list("plans")]

    async def saved_plan(self, plan: str) -> Plan:
        """Return a plan by its id. Raises ``NotFoundError``, and ``JobFailed`` where it failed."""
        return plan_of(await self._client.run(operations.show_plan(plan)))

    async def rename_plan(self, plan: str, name: str | None) -> PlanRecord:
        """Give a plan another name, or none."""
        return PlanRecord.from_dict(await self._client.run(operations.rename_plan(plan, name)))

    async def delete_plan(self, plan: str) -> None:
        """Remove a plan; cancels it where it is being made."""
        await self._client.run(operations.delete_plan(plan))

    async def save_cut(
        self,
        name: str,
        result: CutResult | None = None,
        *,
        requests: Sequence[Any] = (),
        note: str | None = None,
        granularity: str = "auto",
        protect_io: bool = False,
    ) -> SavedCut:
        """Keep a cut on the service under a name: a ``result``, or ``requests`` as for
        :meth:`cut_analysis_many` with its options, or both, so that it is known what was asked.

        Raises ``ConflictError`` where another cut of this model has the name.
        """
        asked = [request_of(item) for item in requests]
        options = {"granularity": granularity, "protect_io": protect_io}
        flow = operations.save_cut(self.id, name, result, asked, note, options)
        return SavedCut.from_dict(await self._client.run(flow))

    async def saved_cuts(self) -> list[SavedCut]:
        """The cuts that were saved of this model, newest first."""
        return [SavedCut.from_dict(item) for item in await self._list("cuts")]

    async def saved_cut(self, name: str) -> CutResult:
        """Return what a saved cut removes, by its name or id. Raises ``NotFoundError``."""
        found = await self._client.run(operations.saved_cut(self.id, name))
        return CutResult.from_dict(found["result"])

    async def delete_cut(self, name: str) -> None:
        """Forget a saved cut, by its name or id; what was made of it stays."""
        await self._client.run(operations.delete_cut(self.id, name))

    async def audit(self, *, limit: int | None = None) -> list[AuditEvent]:
        """Who did what to this model, newest first."""
        return await self._client.audit(model=self.id, limit=limit)

    async def lineage(self) -> list[LineageEntry]:
        """From the uploaded model (first) to this one (last)."""
        found = await self._client.run(operations.lineage(self.id))
        return [LineageEntry.from_dict(item) for item in found["ancestors"]]

    async def children(self) -> list[LineageEntry]:
        """The models that were derived from this one."""
        found = await self._client.run(operations.lineage(self.id))
        return [LineageEntry.from_dict(item) for item in found["children"]]

    async def family(self) -> tuple[list[LineageEntry], list[LineageEntry]]:
        """The lineage and the children, asked for together."""
        found = await self._client.run(operations.lineage(self.id))
        ancestors, children = (
            [LineageEntry.from_dict(item) for item in found[key]]
            for key in ("ancestors", "children")
        )
        return ancestors, children

    async def _list(self, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = await self._client.run(
            operations.listing(f"/v1/models/{self.id}/{kind}")
        )
        return items

    async def _download(
        self, kind: str, body: dict[str, Any], path: str | Path, timeout: float | None
    ) -> Path:
        with showing(self._client.progress) as shown:
            flow = operations.download(
                self.id, kind, body, Path(path), self._source, timeout, shown
            )
            artifact = await self._client.run(flow)
        warn_of(artifact.get("warnings"), PACKAGE)
        return Path(path)


class AsyncRemoteModules(Mapping[str, "AsyncRemoteModule"]):
    """The modules of a remote model, by dotted name from ``self``."""

    def __init__(self, model: AsyncRemoteModel, records: Sequence[ModuleInfo]) -> None:
        self._modules = {record.name: AsyncRemoteModule(model, record) for record in records}

    def __getitem__(self, name: str) -> AsyncRemoteModule:
        return found_module(self._modules, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class AsyncRemoteModule:
    """One module of a remote model; its record's members are its attributes' values."""

    def __init__(self, model: AsyncRemoteModel, record: ModuleInfo) -> None:
        self._model = model
        self.record = record

    def __repr__(self) -> str:
        return f"AsyncRemoteModule({self.record.name!r}, {self.record.type})"

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def type(self) -> str:
        return self.record.type

    @property
    def params(self) -> int:
        return self.record.params

    @property
    def flops(self) -> int:
        return self.record.flops

    async def cut_analysis(
        self,
        attribute_name: str = "weight",
        index: Indices = (),
        dim: int = 0,
        *,
        granularity: str = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Cut an attribute of this module: ``modules['self.conv1'].cut_analysis('weight', index=[0,
        1], dim=0)``."""
        node = f"{self.record.name}.{attribute_name}" if attribute_name else self.record.name
        return await self._model.cut_analysis(
            node, index, dim, granularity=granularity, protect_io=protect_io
        )
