"""Every example runs, as a person would run it, and says what the documentation says it does."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.live_service import LiveService, live_service

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WITH_A_TEST_OF_THEIR_OWN = {
    "digits.py",
    "sdk.py",
    "demo.py",
    "granularity.py",
    "iterate.py",
    "plan_resnet50.py",
    "plan_yolov8.py",
    "plan_llama.py",
    "plan_vit.py",
}
PLAIN = sorted(p.name for p in EXAMPLES.glob("*.py") if p.name not in WITH_A_TEST_OF_THEIR_OWN)


@pytest.fixture(scope="module")
def service() -> Iterator[LiveService]:
    with live_service() as running:
        yield running


def run(*command: str | Path, **environment: str) -> str:
    """Run a command and return what it printed; fail with its error."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", PLAIN)
def test_the_example_runs(name: str) -> None:
    assert run(sys.executable, EXAMPLES / name)


def test_digits_lose_accuracy_when_pruned_and_regain_it_when_fine_tuned() -> None:
    said = run(sys.executable, EXAMPLES / "digits.py")
    found = re.findall(r"accuracy (before|after) ([\w-]+)\s+([\d.]+)", said)
    accuracy = {f"{when} {what}": float(value) for when, what, value in found}
    assert accuracy["after pruning"] < accuracy["before pruning"]
    assert accuracy["after restoring"] == accuracy["before pruning"]
    assert accuracy["after fine-tuning"] >= accuracy["before pruning"] - 0.02
    before, after = re.findall(r"parameters\s+([\d,]+) -> ([\d,]+)", said)[0]
    assert int(after.replace(",", "")) < int(before.replace(",", "")) / 2


def test_each_granularity_gives_its_own_answer() -> None:
    said = run(sys.executable, EXAMPLES / "granularity.py")
    rows = {name: int(count) for name, count in re.findall(r"(\w+): (\d+) rows", said)}
    assert rows["outer"] != rows["inner"]
    assert rows["auto"] in {rows["outer"], rows["inner"]}
    assert "strict: " in said


def test_the_sdk_example_prunes_through_a_service(service: LiveService) -> None:
    said = run(sys.executable, EXAMPLES / "sdk.py", TORCHPRUNER_URL=service.url)
    before, after = re.findall(r"([\d,]+) -> ([\d,]+) FLOPs", said)[0]
    assert int(after.replace(",", "")) < int(before.replace(",", ""))
    assert "torch.Size([1, 1000])" in said


def test_iterating_through_a_service_and_here_ends_with_the_same_parameters(
    service: LiveService,
) -> None:
    said = run(sys.executable, EXAMPLES / "iterate.py", TORCHPRUNER_URL=service.url)
    lineage = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) parameters  ", said)]
    assert len(lineage) == 4
    assert lineage == sorted(lineage, reverse=True)
    assert int(re.findall(r"(\d+) parameters here", said)[0]) == lineage[-1]


def pasted(page: str, number: int, service: LiveService, folder: Path) -> str:
    """Paste a block of a page into a shell that has this interpreter first, as an active `.venv`."""
    block = re.findall(
        r"^```bash\n(.*?)\n```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    done = subprocess.run(
        ["bash", "-e"],
        input=block[number],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TORCHPRUNER_URL": service.url,
        },
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_readmes_shell_blocks_run_as_they_stand(service: LiveService, tmp_path: Path) -> None:
    state, groups, cut, costs = pasted("README.md", 1, service, tmp_path).splitlines()
    assert json.loads(state)["state"] == "ready"
    assert json.loads(groups)["items"]
    assert "self.bn1.weight" in json.loads(cut)["terminal"]
    flops = ast.literal_eval(costs)["flops"]
    assert 0.45 < flops["after"] / flops["before"] <= 0.5
    said = pasted("README.md", 0, service, tmp_path)
    assert "half.onnx" in said and "self.layer1.0.conv1" in said
    assert (tmp_path / "half.onnx").stat().st_size < (tmp_path / "resnet18.onnx").stat().st_size
    made = json.loads((tmp_path / "plan.json").read_text())
    assert made["budget"] == {"flops": "50%"}


def cost(said: str, unit: str) -> float:
    """Return the share that is left of what an example says it pruned."""
    before, after = re.findall(rf"([\d,]+) -> ([\d,]+) {unit}", said)[-1]
    return int(after.replace(",", "")) / int(before.replace(",", ""))


@pytest.mark.slow
def test_resnet50_at_half_its_flops_becomes_an_onnx_file_that_computes_the_same() -> None:
    said = run(sys.executable, EXAMPLES / "plan_resnet50.py")
    assert 0.47 < cost(said, "FLOPs") <= 0.5
    before, after = map(float, re.findall(r"relative error of the outputs (\S+) -> (\S+)", said)[0])
    assert after < before
    assert float(re.findall(r"largest difference (\S+)", said)[0]) < 1e-3


@pytest.mark.slow
def test_yolov8_at_60_percent_trains_on_and_predicts_as_many_boxes() -> None:
    said = run(sys.executable, EXAMPLES / "plan_yolov8.py")
    assert 0.57 < cost(said, "FLOPs") <= 0.6
    assert len(re.findall(r"loss \d", said)) == 3
    assert "predictions (2, 84, 189)" in said


@pytest.mark.slow
def test_a_llama_at_70_percent_loses_heads_and_neurons_and_is_loaded_again() -> None:
    said = run(sys.executable, EXAMPLES / "plan_llama.py")
    assert 0.67 < cost(said, "parameters") <= 0.7
    query, shared, neurons = map(
        int, re.findall(r"(\d+) query heads, (\d+) key/value heads, (\d+) neurons", said)[0]
    )
    assert query == 2 * shared
    assert neurons < 192
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
    assert losses == sorted(losses, reverse=True)
    assert "loaded again: the same outputs" in said


@pytest.mark.slow
def test_a_vit_at_half_its_flops_regains_its_accuracy() -> None:
    said = run(sys.executable, EXAMPLES / "plan_vit.py")
    assert 0.47 < cost(said, "FLOPs") <= 0.5
    found = re.findall(r"accuracy (before|after) ([\w-]+)\s+([\d.]+)", said)
    accuracy = {f"{when} {what}": float(value) for when, what, value in found}
    assert accuracy["after recovery"] > accuracy["after pruning"]
    assert accuracy["after fine-tuning"] >= accuracy["before pruning"] - 0.03


@pytest.mark.slow
def test_the_demonstration_ends_with_every_step_held() -> None:
    said = run(sys.executable, EXAMPLES / "demo.py")
    assert "Every step held" in said
    assert "service stopped" in said


def test_images_health_checks_tell_a_live_service_from_a_dead_one(service: LiveService) -> None:
    from tests.project.test_images import one

    api = json.loads(one("api", "HEALTHCHECK").partition("CMD ")[2])
    api[-1] = api[-1].replace("http://127.0.0.1:8000", service.url)
    assert run(sys.executable, *api[1:]) == ""
    worker = json.loads(one("worker", "HEALTHCHECK").partition("CMD ")[2])
    url = f"unix://{service.data_dir}/valkey/valkey.sock"
    assert run(sys.executable, *worker[1:], REDIS_URL=url) == ""
    for command in (
        [*api[:-1], api[-1].replace(service.url, "http://127.0.0.1:9")],
        worker,
    ):
        dead = subprocess.run(
            [sys.executable, *command[1:]],
            env={**os.environ, "REDIS_URL": "redis://127.0.0.1:9/0"},
            capture_output=True,
        )
        assert dead.returncode != 0
