"""All specimens, and the sample of them that the tests run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.zoo import (
    recurrent_models,
    timm_models,
    torchvision_models,
    transformers_models,
    ultralytics_models,
)
from benchmarks.zoo.specimen import Specimen

SOURCES = (
    recurrent_models,
    transformers_models,
    ultralytics_models,
    timm_models,
    torchvision_models,
)


def every() -> Iterator[Specimen]:
    """Yield every specimen of every source."""
    for source in SOURCES:
        yield from source.specimens()
