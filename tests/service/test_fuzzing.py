"""Schemathesis asks the live service whatever its OpenAPI document allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service.models import small_file
from tests.service.running import RunningService, running_service

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)
EXAMPLES = "8"


def config(service: RunningService) -> str:
    """Real ids for paths: a generated one is nearly always a 404."""
    kept, doomed = (service.upload(small_file(s).content, "x:1x3x8x8") for s in (1301, 1302))
    cut = service.cut(kept["id"], "self.conv1.weight", [0])
    cut.pop("model")
    artifact = service.artifact(kept["id"], "pruned-weights", result=cut)
    upload = service.client.post("/v1/uploads", json={"length": 1 << 40 >> 10}).json()
    doomed_upload = service.client.post("/v1/uploads", json={"length": 9}).json()
    parameters = {
        "path.model": kept["id"],
        "path.job": kept["job"],
        "path.artifact": artifact["id"],
        "path.upload": upload["id"],
        "path.digest": kept["blob"],
    }
    lines = ["[parameters]", *(f'"{name}" = "{value}"' for name, value in parameters.items())]
    for operation, name, value in (
        ("DELETE /v1/models/{model}", "path.model", doomed["id"]),
        ("DELETE /v1/uploads/{upload}", "path.upload", doomed_upload["id"]),
    ):
        lines += [
            "[[operations]]",
            f'include-name = "{operation}"',
            f'parameters = {{ "{name}" = "{value}" }}',
        ]
    return "\n".join(lines) + "\n"


def test_no_request_breaks_the_contract(tmp_path: Path) -> None:
    with running_service(TORCHPRUNER_JOB_TIMEOUT="20") as service:
        file = tmp_path / "schemathesis.toml"
        file.write_text(config(service))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(file), "run", f"{service.url}/openapi.json"),
                *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing"),
                *("--max-examples", EXAMPLES, "--generation-deterministic"),
                *("--request-timeout", "60"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=550,
        )
        found = done.stdout.partition("= FAILURES =")[2].partition("= WARNINGS =")[0]
        lines = [line[:400] for line in found.splitlines()]
        assert done.returncode == 0, "\n".join(lines[:200]) or done.stderr[-2000:]
        assert "Tested:" in done.stdout
        # The service is as before.
        assert service.upload(small_file(1303).content, "x:1x3x8x8")["state"] == "ready"
