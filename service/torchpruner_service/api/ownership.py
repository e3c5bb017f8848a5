"""Dependencies that end a request for what the tenant does not have, before any answer starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends

from torchpruner_service.api.access import Reader, State
from torchpruner_service.api.jobs_service import find_job
from torchpruner_service.api.models_service import manifest_of
from torchpruner_service.api.path_ids import ArtifactId, CutId, JobId, ModelId, PlanId
from torchpruner_service.problems import NotFound
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.storage import layout


@dataclass(frozen=True, slots=True)
class OwnedPlan:
    """A plan of a tenant: its id, its model, and what was asked (``request``, ``name``, ``created_at``)."""

    id: str
    model: str
    asked: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OwnedCut:
    """A saved cut of a tenant: its id, its model, and its ``facts`` (name, note, costs, time)."""

    id: str
    model: str
    facts: dict[str, Any]


async def own_model(state: State, who: Reader, model: ModelId) -> str:
    """The id of a model that the tenant may see."""
    await manifest_of(state, who.tenant, model)
    return model


async def own_job(state: State, who: Reader, job: JobId) -> JobRecord:
    """A job that is for the tenant: the build of a model that it has, or one that it started."""
    record = await find_job(state, job)
    shared = record is not None and record.kind == "build"
    if (
        record is None
        or not (shared or record.tenant == who.tenant)
        or not await state.catalog.owns_model(who.tenant, record.model)
    ):
        raise NotFound(
            f"there is no job {job}; a model or artifact names its job, and ended ones are "
            "forgotten after some days",
            slug="unknown-job",
            job=job,
        )
    return record


async def own_artifact(state: State, who: Reader, artifact: ArtifactId) -> str:
    """The id of an artifact that the tenant has asked for."""
    if not await state.catalog.owns_artifact(who.tenant, artifact):
        raise NotFound(
            f"there is no artifact {artifact}; ask for pruned weights to get one",
            slug="unknown-artifact",
            artifact=artifact,
        )
    return artifact


async def _held(
    state: State, who: Reader, kind: str, thing: str
) -> tuple[str, dict[str, Any] | None]:
    """The model that an id names, and what is kept under the id where the tenant has both."""
    model = thing.split("-")[1]
    if not await state.catalog.owns_model(who.tenant, model):
        return model, None
    return model, await state.catalog.held(who.tenant, model, kind, thing)


async def own_plan(state: State, who: Reader, plan: PlanId) -> OwnedPlan:
    """A plan that the tenant asked for, of a model that it has."""
    model, asked = await _held(state, who, layout.PLANS, plan)
    if asked is None:
        raise unknown_plan(plan)
    return OwnedPlan(plan, model, asked)


def unknown_plan(plan: str) -> NotFound:
    return NotFound(
        f"there is no plan {plan}; POST /v1/models/{{model}}/plans makes one",
        slug="unknown-plan",
        plan=plan,
    )


async def own_cut(state: State, who: Reader, cut: CutId) -> OwnedCut:
    """A cut that the tenant saved, of a model that it has."""
    model, facts = await _held(state, who, layout.CUTS, cut)
    if facts is None:
        raise unknown_cut(cut)
    return OwnedCut(cut, model, facts)


def unknown_cut(cut: str) -> NotFound:
    return NotFound(
        f"there is no saved cut {cut}; POST /v1/models/{{model}}/cuts saves one",
        slug="unknown-cut",
        cut=cut,
    )


async def artifact_facts(
    state: State, artifact: Annotated[str, Depends(own_artifact)]
) -> dict[str, Any] | None:
    """The facts of an artifact that is whole, else ``None``."""
    facts: dict[str, Any] | None = await state.objects.aget_json(layout.artifact_facts(artifact))
    return facts


OwnModel = Annotated[str, Depends(own_model)]
OwnJob = Annotated[JobRecord, Depends(own_job)]
OwnPlan = Annotated[OwnedPlan, Depends(own_plan)]
OwnCut = Annotated[OwnedCut, Depends(own_cut)]
OwnArtifact = Annotated[str, Depends(own_artifact)]
ArtifactFacts = Annotated[dict[str, Any] | None, Depends(artifact_facts)]
