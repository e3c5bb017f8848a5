"""The client is light: numpy, httpx, and nothing that learns."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest


@pytest.mark.parametrize("module", ["torchpruner_client", "torchpruner_client.cli"])
def test_importing_the_client_imports_no_framework(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy', 'fastapi', 'torchpruner_service'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_is_typed() -> None:
    assert files("torchpruner_client").joinpath("py.typed").is_file()


def test_both_clients_have_the_same_methods() -> None:
    from torchpruner_client import AsyncClient, AsyncRemoteModel, Client, RemoteModel

    for sync, asynchronous in ((Client, AsyncClient), (RemoteModel, AsyncRemoteModel)):
        public = {name for name in vars(sync) if not name.startswith("_")}
        assert public == {name for name in vars(asynchronous) if not name.startswith("_")}
