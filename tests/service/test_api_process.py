"""API processes hold solved graphs and nothing heavier."""

from __future__ import annotations

import subprocess
import sys

import psutil

from tests.service.running import PATIENCE, RunningService

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "scipy")


def test_importing_the_application_imports_nothing_heavy() -> None:
    code = (
        "import sys; from torchpruner_service.api.app import create_app; create_app().openapi(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert found.stdout.strip() == "[]"


def test_a_serving_process_maps_no_torch_and_stays_small(
    service: RunningService, model_id: str
) -> None:
    service.cut(model_id, "self.conv1.weight", [0, 1])
    service.client.get(f"/v1/models/{model_id}/groups").raise_for_status()
    assert service.process is not None
    api = psutil.Process(service.process.pid)
    libraries = {entry.path for entry in api.memory_maps()}
    assert not [path for path in libraries if "libtorch" in path or "onnxruntime" in path]
    assert api.memory_info().rss < 200 * 2**20


def test_the_worker_process_that_holds_credentials_imports_no_torch(
    service: RunningService,
) -> None:
    (worker,) = service.processes("torchpruner_service.worker.rq_worker")
    assert not [entry.path for entry in worker.memory_maps() if "libtorch" in entry.path]


def test_the_nursery_that_imports_torch_has_no_credentials(service: RunningService) -> None:
    (nursery,) = service.processes("torchpruner_service.sandbox.nursery")
    names = set(nursery.environ())
    assert not {
        name for name in names if name.startswith(("REDIS", "STORAGE", "AWS", "TORCHPRUNER"))
    }


def test_liveness_readiness_and_documentation_answer(service: RunningService) -> None:
    assert service.client.get("/healthz").json() == {"status": "ok"}
    ready = service.client.get("/readyz").json()
    assert ready["ready"] and ready["workers"] == 1
    assert "text/html" in service.client.get("/docs").headers["content-type"]
    assert service.client.get("/openapi.json").json()["openapi"].startswith("3.1")
