"""Puts a job's output into the object store so that it is either whole or absent."""

from __future__ import annotations

import time
from typing import Any

from torchpruner_service.storage import layout
from torchpruner_service.worker.context import HashedFile, JobContext

MEDIA_TYPES = {
    "safetensors": "application/vnd.safetensors",
    "npz": "application/vnd.numpy.npz",
    "onnx": "application/vnd.onnx",
}


def store_artifact(
    context: JobContext, identifier: str, file: HashedFile, form: str, extra: dict[str, Any]
) -> dict[str, Any]:
    """Store ``file`` as an artifact and return its facts.

    The facts are written last: a reader that finds them finds the whole content.
    """
    digest = file.close()
    facts = {
        "id": identifier,
        "model": context.record.model,
        "format": form,
        "media_type": MEDIA_TYPES[form],
        "size": file.size,
        "sha256": digest,
        "created_at": time.time(),
        **extra,
    }
    context.objects.put_file(layout.artifact(identifier), file.path)
    context.objects.put_json(layout.artifact_facts(identifier), facts)
    return facts
