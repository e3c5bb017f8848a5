"""Where things are in the object store.

The store is the truth: Redis can lose everything and be rebuilt from these keys. A model's manifest
and its pending job are written before an upload is acknowledged.
"""

from __future__ import annotations


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


def weights(model: str) -> str:
    """Which blob gives a weightless model its weights."""
    return f"models/{model}/weights.json"


def artifact(identifier: str) -> str:
    """A file made by a job."""
    return f"artifacts/{identifier}/content"


def artifact_facts(identifier: str) -> str:
    """Size, sha256 and media type; written after the content, so that present means whole."""
    return f"artifacts/{identifier}/facts.json"


def owned_model(tenant: str, model: str) -> str:
    """This tenant may see this model."""
    return f"tenants/{tenant}/models/{model}"


def owned_blob(tenant: str, digest: str) -> str:
    """This tenant has proven that it holds these bytes."""
    return f"tenants/{tenant}/blobs/{digest}"


def owned_artifact(tenant: str, identifier: str) -> str:
    return f"tenants/{tenant}/artifacts/{identifier}"


def pending(job: str) -> str:
    """The request of a job that has not ended."""
    return f"pending/{job}.json"


def upload(identifier: str) -> str:
    """The facts of a resumable upload."""
    return f"uploads/{identifier}/facts.json"


def upload_parts(identifier: str) -> str:
    return f"uploads/{identifier}/parts/"


def upload_part(identifier: str, offset: int) -> str:
    return f"{upload_parts(identifier)}{offset:020d}"


def api_key(key: str) -> str:
    return f"keys/{key}.json"
