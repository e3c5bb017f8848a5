"""Where things are in the object store.

The store is the truth: Redis can lose everything and be rebuilt from these keys. A model's manifest
and its pending job are written before an upload is acknowledged.

``blobs/`` and ``models/`` hold what follows from uploaded bytes alone and are shared between tenants
who have proven that they hold the bytes. Everything a tenant adds lies under ``tenants/<tenant>/``,
``uploads/<tenant>/``, or under an id that the tenant's name is part of.
"""

from __future__ import annotations

from typing import Literal

WEIGHTS = "weights"
"""The kind of holding that names the blob with a weightless model's weights."""


PLANS, PLANNED, KEYS_SEEN = "plans", "planned", "idempotency"
"""The kinds of holdings that are a plan's request, its outcome, and the keys that requests came with."""

LATENCIES, CUTS, CUT_RESULTS = "latencies", "cuts", "cut-results"
"""The kinds of holdings that are measurements, and cuts that were given a name with what they remove."""

MADE_BY_HAND = (PLANS, PLANNED, LATENCIES, CUTS, CUT_RESULTS)
"""The kinds of holdings whose bytes count in a quota."""


def blob(digest: str) -> str:
    """Uploaded bytes by their sha256 (64 hex digits)."""
    return f"blobs/{digest[:2]}/{digest}"


def manifest(model: str) -> str:
    """What a model is made of: blob, inputs, format, parent."""
    return f"models/{model}/manifest.json"


def solved(model: str) -> str:
    """The solved graph of a model."""
    return f"models/{model}/solved.bin"


def facts(model: str) -> str:
    """Counts of a solved graph, and whether its model came without weights."""
    return f"models/{model}/facts.json"


def failure(model: str) -> str:
    """Why a model has no graph. Present: do not try again."""
    return f"models/{model}/failure.json"


def artifact(identifier: str) -> str:
    """A file made by a job for one tenant, who is part of the id."""
    return f"artifacts/{identifier}/content"


def artifact_facts(identifier: str) -> str:
    """Size, sha256 and media type; written after the content, so that present means whole."""
    return f"artifacts/{identifier}/facts.json"


Kind = Literal["models", "blobs", "artifacts"]


def all_owned(tenant: str, kind: Kind) -> str:
    """The folder of what this tenant has of one kind."""
    return f"tenants/{tenant}/{kind}/"


def owned(tenant: str, kind: Kind, item: str) -> str:
    """This tenant may see this model, has proven that it holds this blob, or asked for this file."""
    return f"{all_owned(tenant, kind)}{item}"


def all_holdings(tenant: str) -> str:
    """The folder of everything else that this tenant added to its models."""
    return f"tenants/{tenant}/holdings/"


def holdings(tenant: str, model: str) -> str:
    """The folder of everything else that this tenant added to this model."""
    return f"{all_holdings(tenant)}{model}/"


def holding(tenant: str, model: str, kind: str, item: str = "only") -> str:
    """One thing that this tenant added to this model, such as its weights."""
    return f"{holdings(tenant, model)}{kind}/{item}"


def is_holding(key: str) -> bool:
    """Whether a key is of something that a tenant added to a model."""
    parts = key.split("/")
    return len(parts) == 6 and parts[0] == "tenants" and parts[2] == "holdings"


def audit(tenant: str) -> str:
    """The folder of what a tenant's keys did, one object for each event."""
    return f"tenants/{tenant}/audit/"


def pending(job: str) -> str:
    """The request of a job that has not ended."""
    return f"pending/{job}.json"


def uploads(tenant: str) -> str:
    """The folder of a tenant's resumable uploads."""
    return f"uploads/{tenant}/"


def upload(tenant: str, identifier: str) -> str:
    """The facts of a resumable upload."""
    return f"{uploads(tenant)}{identifier}/facts.json"


def upload_parts(tenant: str, identifier: str) -> str:
    return f"{uploads(tenant)}{identifier}/parts/"


def upload_part(tenant: str, identifier: str, offset: int, size: int, name: str) -> str:
    """A part by where it starts and how long it is; ``name`` keeps two that arrive at once apart."""
    return f"{upload_parts(tenant, identifier)}{offset:020d}-{size:020d}-{name}"


TRASH = "trash/"
"""The folder of what had no owner, until it is deleted or put back."""


def all_discarded(key: str) -> str:
    """The folder of each time that an object was put into the trash."""
    return f"{TRASH}{key}/"


def discarded(key: str, moment: float, token: str) -> str:
    """Where an object lies in the trash; ``token`` keeps each time apart."""
    return f"{all_discarded(key)}{moment:.3f}-{token}"


def undiscarded(place: str) -> tuple[str, float]:
    """The key of something in the trash, and when (Unix seconds) it was put there."""
    key, _, name = place.removeprefix(TRASH).rpartition("/")
    return key, float(name.partition("-")[0])


def api_key(key: str) -> str:
    return f"keys/{key}.json"
