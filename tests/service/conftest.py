"""One service for all tests of a folder that do not need one of their own, and small real models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.models import ModelFile, resnet18_onnx, resnet18_torchscript
from tests.service.running import RunningService, running_service


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@pytest.fixture(scope="session")
def guarded() -> Iterator[RunningService]:
    """A service that asks for keys, on which every test makes tenants of its own."""
    with running_service(TORCHPRUNER_AUTH="on", TORCHPRUNER_MAX_OPEN_UPLOADS="5") as running:
        yield running


@pytest.fixture(scope="session")
def torchscript() -> ModelFile:
    return resnet18_torchscript()


@pytest.fixture(scope="session")
def onnx_file() -> ModelFile:
    return resnet18_onnx()


@pytest.fixture(scope="session")
def model_id(service: RunningService, torchscript: ModelFile) -> str:
    """A ResNet-18, uploaded as TorchScript and ready."""
    shown = service.upload(torchscript.content, *torchscript.inputs)
    assert shown["state"] == "ready", shown
    return str(shown["id"])
