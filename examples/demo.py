"""The main job from beginning to end, on ResNet-50: ``make demo``.

Starts the service on its embedded default, prunes through it, checks the result, and stops
everything. Exits with 1 where a step fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console()
SHAPE = (1, 3, 224, 224)
TARGET, ATTRIBUTE, INDEX = "self.layer1.0.conv3", "weight", [0, 1, 2, 3]


class StepFailed(Exception):
    """A step of the demonstration did not do what it says."""


def main() -> int:
    """Run every step; return the exit code."""
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tp-demo-") as name:
        folder = Path(name)
        try:
            with service(folder) as url:
                prune(url, folder)
        except Exception as error:
            console.print(f"[red bold]failed[/]: {type(error).__name__}: {error}")
            return 1
    console.print(f"\n[green bold]Every step held[/], in {time.perf_counter() - start:.1f} s.")
    return 0


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Start the embedded service on a free port; yield its address; stop it."""
    step("The service starts: a private Valkey, one worker, one API process")
    log = folder / "service.log"
    environment = {k: v for k, v in os.environ.items() if k not in ("REDIS_URL", "STORAGE_URL")}
    program = Path(sys.executable).with_name("torchpruner-service")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [program, "serve", "--port", "0", "--data-dir", folder / "data"],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        yield _address(process, log)
    except Exception:
        console.print(f"[dim]{log.read_text(errors='replace')[-3000:]}[/]", highlight=False)
        raise
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        console.print("[dim]service stopped[/]")


def _address(process: subprocess.Popen[bytes], log: Path, limit: float = 60.0) -> str:
    import httpx

    url = ""
    end = time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"torchpruner-service: (http://\S+)", log.read_text(errors="replace"))
        url = found[1] if found else ""
        if url and httpx.get(f"{url}/readyz").json()["workers"]:
            console.print(f"{url}   docs: {url}/docs")
            return url
        time.sleep(0.1)
    raise StepFailed("the service did not become ready")


def prune(url: str, folder: Path) -> None:
    """Everything between the service's start and its end."""
    import torch
    import torchvision

    from torchpruner_client import Client
    from torchpruner_core import recovery_cut, set_cut, verify_cut

    step("ResNet-50 becomes a TorchScript file")
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    x = torch.rand(SHAPE)
    path = folder / "resnet50.pt"
    torch.jit.save(torch.jit.trace(model, x), path)
    console.print(f"{path.name}: {path.stat().st_size:,} bytes")

    with Client(url) as client:
        step("It is uploaded, and a worker builds its graph in a sandbox")
        began = time.perf_counter()
        remote = client.upload(path, [x], name="resnet50", wait=False)
        uploaded = time.perf_counter()
        remote.wait()
        built = time.perf_counter()
        console.print(f"uploaded {path.stat().st_size:,} bytes in {uploaded - began:.2f} s")
        counts = ", ".join(f"{value:,} {key}" for key, value in remote.info.counts.items())
        console.print(f"graph built in {built - uploaded:.2f} s: {counts}")
        check(remote.info.state == "ready", "the graph is ready")

        step("Its modules, and what is pruned together")
        modules = [m for m in remote.modules.values() if m.type not in ("Parameter", "Buffer")]
        table = Table("module", "type", "parameters", "FLOPs")
        for module in modules[:4] + [m for m in modules if m.name.startswith(TARGET)][:1]:
            table.add_row(module.name, module.type, f"{module.params:,}", f"{module.flops:,}")
        console.print(table)
        groups = remote.groups()
        console.print(f"{len(modules)} modules, {len(groups)} groups")

        step(f"What else must go with channels {INDEX} of {TARGET}.{ATTRIBUTE}?")
        result = remote.modules[TARGET].cut_analysis(ATTRIBUTE, index=INDEX, dim=0)
        table = Table("parameter or buffer", "axis", "removed")
        for node, axes in result["terminal"].items():
            for dim, indices in enumerate(axes):
                if indices is not None:
                    table.add_row(node, str(dim), str(indices.tolist()))
        console.print(table)
        console.print(
            f"FLOPs {result.flops_before:,} -> {result.flops_after:,}; "
            f"parameters {result.params_before:,} -> {result.params_after:,}"
        )

        step("The oracle: does the pruned network compute what the masked one computes?")
        report = verify_cut(model, result, (x,))
        console.print(str(report))
        check(report.ok and report.equal is True, "the outputs are equal")

        step("The cut is replayed on the local model")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model, context = set_cut(model, result)
        parameters = sum(p.numel() for p in model.parameters())
        console.print(f"{parameters:,} parameters; output {tuple(model(x).shape)}")
        check(parameters == result.params_after, "as many parameters are left as was said")
        own = model(x)

        step("The pruned weights come from the service, and load with strict=True")
        from safetensors.torch import load_file

        target = remote.download_pruned(result, folder / "pruned.safetensors")
        model.load_state_dict(load_file(target), strict=True)
        console.print(f"{target.name}: {target.stat().st_size:,} bytes")
        check(torch.equal(model(x), own), "the service cut the same numbers")

        step("And back")
        model = recovery_cut(model, result, context)
        after = model.state_dict()
        same = all(torch.equal(before[name], after[name]) for name in before)
        check(same and before.keys() == after.keys(), "every tensor is restored bit for bit")

        step("The same upload again")
        began = time.perf_counter()
        again = client.upload(path, [x], name="resnet50")
        console.print(f"answered from the cache in {time.perf_counter() - began:.2f} s")
        check(again.id == remote.id, "it is the same model")

    step("The same question with curl, of an ONNX file")
    curl(url, folder, model, x, result.flops_after)


def curl(url: str, folder: Path, model: object, x: object, flops_after: int) -> None:
    """Show the HTTP behind all this."""
    import torchpruner_core

    file = folder / "resnet50.onnx"
    file.write_bytes(torchpruner_core.export_onnx(model, (x,)))
    if shutil.which("curl") is None:
        console.print("[yellow]curl is not installed: these requests are sent from here instead[/]")
    sent = _curl("--data-binary", f"@{file}", f"{url}/v1/models?name=resnet50-onnx")
    identifier = json.loads(sent)["id"]
    ready = json.loads(_curl(f"{url}/v1/models/{identifier}?wait=60"))
    console.print(f"[dim]{ready['state']}, {ready['counts']['groups']} groups[/]")
    body = json.dumps({"node": f"{TARGET}.{ATTRIBUTE}", "index": INDEX, "dim": 0})
    answer = _curl(
        *("-H", "Content-Type: application/json", "-d", body),
        f"{url}/v1/models/{identifier}/cut-analysis",
    )
    console.print(answer[:600] + " ...", highlight=False, markup=False)
    found = json.loads(answer)
    check(len(found["terminal"]) > 1, "the answer names every parameter that must change")
    check(found["flops_after"] == flops_after, "ONNX and TorchScript give the same FLOPs")


def _curl(*arguments: str) -> str:
    command = ["curl", "-fsS", *arguments]
    console.print(f"$ {shlex.join(command)}", style="cyan", highlight=False, markup=False)
    if shutil.which("curl") is None:
        return _same_as_curl(*arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise StepFailed(f"curl ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _same_as_curl(*arguments: str) -> str:
    import httpx

    options = dict(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
    if "--data-binary" in options:
        content = Path(options["--data-binary"].removeprefix("@")).read_bytes()
        answer = httpx.post(arguments[-1], content=content, timeout=120)
    elif "-d" in options:
        answer = httpx.post(
            arguments[-1], content=options["-d"], headers={"Content-Type": "application/json"}
        )
    else:
        answer = httpx.get(arguments[-1], timeout=120)
    answer.raise_for_status()
    return answer.text


def step(title: str) -> None:
    """Announce a step."""
    console.rule(f"[bold]{title}", align="left")


def check(holds: bool, what: str) -> None:
    """Say that something holds, or end the demonstration."""
    if not holds:
        raise StepFailed(f"it does not hold that {what}")
    console.print(f"[green]✓[/] {what}")


if __name__ == "__main__":
    sys.exit(main())
