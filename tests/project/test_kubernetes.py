"""The Kubernetes manifests: valid, hardened, and scaled by the queue."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

BASE = Path(__file__).parents[2] / "deploy/k8s/base"
GPU = BASE.parents[0] / "overlays/gpu"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((BASE / "kustomization.yaml").read_text())
DOCUMENTS: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((BASE / name).read_text())
]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in DOCUMENTS if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def workloads() -> list[dict[str, Any]]:
    return [d for d in DOCUMENTS if d["kind"] in {"Deployment", "StatefulSet"}]


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_each_object_fits_its_schema(document: dict[str, Any]) -> None:
    if document["apiVersion"].startswith("keda.sh/"):
        assert document["spec"]
    else:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_every_file_of_the_folder_is_used() -> None:
    files = {p.name for p in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_builds_it(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout)}
    (container,) = built["Deployment", "worker"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(":0.1.0")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (folder == GPU)


@pytest.mark.parametrize("workload", workloads(), ids=lambda d: d["metadata"]["name"])
def test_each_workload_has_probes_resources_and_no_privileges(workload: dict[str, Any]) -> None:
    spec = workload["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert "livenessProbe" in container
        assert {"requests", "limits"} <= container["resources"].keys()
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_network_is_closed_by_default_and_workers_accept_nobody() -> None:
    assert named("NetworkPolicy", "default-deny")["spec"]["podSelector"] == {}
    assert "ingress" not in named("NetworkPolicy", "worker")["spec"]


def test_workers_scale_with_the_queues_that_the_service_has() -> None:
    from torchpruner_service.settings import Settings
    from torchpruner_service.state.keys import Keys

    keys = Keys(Settings().redis_prefix)
    triggers = named("ScaledObject", "worker")["spec"]["triggers"]
    lists = {trigger["metadata"]["listName"] for trigger in triggers}
    assert lists == {keys.waiting(name) for name in Settings().queues}
    assert "replicas" not in named("Deployment", "worker")["spec"]


def test_settings_in_the_manifests_are_ones_the_service_reads() -> None:
    from torchpruner_service.settings import Settings

    known = {f"TORCHPRUNER_{name.upper()}" for name in Settings.model_fields}
    for line in (BASE / "config.env").read_text().split():
        name = line.split("=")[0]
        assert name in known or not name.startswith("TORCHPRUNER_"), name
