"""People who write TypeScript generate their client: the document must suit the usual generator."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "service" / "openapi.json"
GENERATOR, COMPILER = "openapi-typescript@7.10.1", "typescript@5.9.3"

UNREACHABLE = re.compile(
    r"E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|HOSTUNREACH|NETUNREACH)|E[45]\d\d"
)
"""What npm says where it gets no package, whatever the reason."""

USE = """\
import type { components, paths } from "./client";

type Model = components["schemas"]["ModelView"];
type Cut = paths["/v1/models/{model}/cut-analysis"]["post"];
type Asked = Cut["requestBody"]["content"]["application/json"];
type Answer = Cut["responses"][200]["content"]["application/json"];

export const asked: Asked = { node: "self.conv1.weight", index: [0, 1], dim: 0 };
export const cheaper = (answer: Answer): string[] => Object.keys(answer.terminal);
export const failed = (model: Model): boolean => model.state === "failed";
// @ts-expect-error a state that there is not
export const nonsense = (model: Model): boolean => model.state === "exploded";
"""


def npm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a package of the registry; skip where there is no npm, or npm gets no package."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed, so no TypeScript client can be generated")
    try:
        done = subprocess.run(
            ["npm", "exec", "--yes", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry did not give the generator in five minutes")
    if done.returncode and "npm error" in done.stderr and UNREACHABLE.search(done.stderr):
        pytest.skip(f"the npm registry is out of reach: {done.stderr.strip()[:300]}")
    return done


def test_the_document_generates_a_typescript_client_without_warnings(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "use.ts").write_text(USE)
    generate = f"openapi-typescript '{DOCUMENT}' -o client.ts"
    check = "tsc --noEmit --strict client.ts use.ts"
    packages = [f"--package={GENERATOR}", f"--package={COMPILER}"]
    done = npm(tmp_path, *packages, "-c", f"{generate} && {check}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"warn|error|⚠|✘", said.replace("npm warn", ""), re.IGNORECASE), said
    client = (tmp_path / "client.ts").read_text()
    assert "/v1/models/{model}/plans" in client and "ModelView: {" in client
    assert not re.search(r":\s*any\b", client)
