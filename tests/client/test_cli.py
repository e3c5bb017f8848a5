"""The command line, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService


def run(service: RunningService, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torchpruner_client.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={"TORCHPRUNER_URL": service.url, "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def uploaded(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("cli") / "small.pt"
    file.write_bytes(small_file(401).content)
    done = run(service, "upload", str(file), "-i", "x:1x3x8x8", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["state"] == "ready" and shown["name"] == "small"
    return str(shown["id"])


@pytest.mark.parametrize("command", ["modules", "groups", "flops"])
def test_every_listing_prints_a_table_and_json(
    service: RunningService, uploaded: str, command: str
) -> None:
    table = run(service, command, "small")
    assert table.returncode == 0 and table.stdout.strip(), table.stderr
    assert json.loads(run(service, command, uploaded, "--json").stdout)


def test_modules_can_be_filtered(service: RunningService, uploaded: str) -> None:
    found = json.loads(run(service, "modules", uploaded, "--type", "Conv2d", "--json").stdout)
    assert [item["name"] for item in found] == ["self.conv1", "self.conv2"]


def test_a_cut_is_shown_saved_and_downloaded(
    service: RunningService, uploaded: str, tmp_path: Path
) -> None:
    saved = tmp_path / "cut.json"
    arguments = ("cut", uploaded, "self.conv1.weight", "--index", "0-2,5", "--save", str(saved))
    table = run(service, *arguments)
    assert "self.conv2.weight" in table.stdout and "parameters" in table.stdout, table.stderr
    shown = json.loads(run(service, *arguments, "--json").stdout)
    assert shown["terminal"]["self.bn.weight"] == [[0, 1, 2, 5]]
    weights = tmp_path / "pruned.safetensors"
    done = run(service, "download", uploaded, str(weights), "--cut", str(saved), "--json")
    assert done.returncode == 0, done.stderr
    assert load_file(weights)["conv1.weight"].shape[0] == 4
    model = tmp_path / "pruned.onnx"
    assert run(service, "download", uploaded, str(model), "--cut", str(saved)).returncode == 0
    assert model.stat().st_size > 0
    # Compared with the original here, and put in place only then.
    verified = tmp_path / "verified.onnx"
    arguments = ("download", uploaded, str(verified), "--cut", str(saved), "--verify")
    done = run(service, *arguments)
    assert done.returncode == 0 and "verified: " in done.stderr, done.stderr
    assert verified.read_bytes() == model.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "cut.json", "pruned.safetensors", "pruned.onnx", "verified.onnx",
    }  # fmt: skip
    refused = run(service, "download", uploaded, str(weights), "--cut", str(saved), "--verify")
    assert refused.returncode == 1 and "path.onnx" in refused.stderr


def test_errors_are_one_line_and_exit_1(service: RunningService, uploaded: str) -> None:
    done = run(service, "cut", uploaded, "self.nope", "--index", "0")
    assert done.returncode == 1
    assert "unknown-node" in done.stderr and "Traceback" not in done.stderr
    assert run(service, "cut", uploaded, "self.conv1.weight", "--index", "a").returncode == 1
    assert run(service, "flops", "nothing of that name").returncode == 1


def test_names_with_brackets_are_text(service: RunningService, uploaded: str) -> None:
    for arguments in (
        ("cut", uploaded, "[/x].weight", "--index", "0"),
        ("flops", "[/bold]"),
    ):
        done = run(service, *arguments)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "[/" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--index", "0-99999999999"), "more than any axis has"),
        (("--index", "3-1"), "write 1-3"),
        (("--index", "0", "--granularity", "foo"), "'foo' is not one of"),
        (("--index", "0", "--save", "/"), "/"),
    ],
)
def test_a_cut_that_does_not_read_is_explained(
    service: RunningService, uploaded: str, arguments: tuple[str, ...], words: str
) -> None:
    done = run(service, "cut", uploaded, "self.conv1.weight", *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr and "Traceback" not in done.stderr


def test_files_that_hold_no_result_and_endings_that_say_nothing(
    service: RunningService, uploaded: str, tmp_path: Path
) -> None:
    for content in (b"not json", b"[]", b"\xff\xfe"):
        (tmp_path / "cut.json").write_bytes(content)
        target, cut = str(tmp_path / "w.npz"), str(tmp_path / "cut.json")
        done = run(service, "download", uploaded, target, "--cut", cut)
        assert done.returncode == 1
        assert "holds no result" in done.stderr and "Traceback" not in done.stderr
    done = run(service, "download", uploaded, str(tmp_path / "w.xyz"))
    assert "does not end in one of" in done.stderr
    assert not list(tmp_path.glob("w.*"))


def test_a_file_name_in_no_encoding_and_of_any_length_is_uploaded(
    service: RunningService, tmp_path: Path
) -> None:
    for name in (b"n\xff\xfe.pt", b"n" * 240 + b".pt"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(small_file(402).content)
        done = run(service, "upload", str(path), "-i", "x:1x3x8x8", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"].startswith("n")


def test_a_plan_is_made_saved_and_applied(
    service: RunningService, uploaded: str, tmp_path: Path
) -> None:
    saved = tmp_path / "plan.json"
    arguments = ("plan", uploaded, "--flops", "60%", "--save", str(saved), "--frontier", "75,50")
    table = run(service, *arguments)
    assert table.returncode == 0, table.stderr
    assert "conv1" in table.stdout and "75%" in table.stdout
    shown = json.loads(run(service, *arguments, "--json").stdout)
    assert shown["costs"]["flops"]["after"] <= 0.6 * shown["costs"]["flops"]["before"]
    assert [point["fraction"] for point in shown["frontier"]] == [0.75, 0.5]
    derived = run(service, "derive", uploaded, "--cut", str(saved), "--name", "sixty", "--json")
    assert derived.returncode == 0, derived.stderr
    made = json.loads(derived.stdout)
    assert made["counts"]["flops"] == shown["costs"]["flops"]["after"]
    assert "sixty" in run(service, "models").stdout
    assert run(service, "delete", "sixty", "--yes").returncode == 0
    assert "sixty" not in run(service, "models").stdout
    timed = run(service, "latency", uploaded, "--cut", str(saved), "--runs", "3", "--json")
    assert json.loads(timed.stdout)["original"]["median_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--flops 50%"),
        (("--flops", "0%"), "leaves nothing"),
        (("--flops", "50 apples"), "no unit of flops"),
        (("--flops", "50%", "--protect", "self.nope"), "self.nope"),
        (("--flops", "50%", "--scope", "everywhere"), "global, local, isomorphic"),
        (("--flops", "1"), "can go down to"),
        (("--flops", "50%", "--scores", "/no/such/file"), "cannot be read"),
        (("--flops", "50%", "--frontier", "much"), "75,50,25"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(
    service: RunningService, uploaded: str, arguments: tuple[str, ...], words: str
) -> None:
    done = run(service, "plan", uploaded, *arguments)
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


def test_what_people_write_about_a_model_is_shown_and_found(
    service: RunningService, tmp_path: Path
) -> None:
    file = tmp_path / "tagged.pt"
    file.write_bytes(small_file(403).content)
    run(service, "upload", str(file), "-i", "x:1x3x8x8")
    assert "new name" in run(service, "rename", "tagged", "new name").stdout
    run(service, "tag", "new name", "a", "[/b]")
    assert "[/b]" in run(service, "tag", "new name", "c", "--remove", "a").stdout
    shown = json.loads(run(service, "note", "new name", "two\nlines", "--json").stdout)
    assert (shown["note"], shown["tags"]) == ("two\nlines", ["[/b]", "c"])
    listed = json.loads(run(service, "models", "--tag", "c", "--name", "NEW", "--json").stdout)
    assert [item["id"] for item in listed] == [shown["id"]]
    assert "two" in run(service, "note", "new name").stdout
    refused = run(service, "rename", "new name", "a\nb")
    assert refused.returncode == 1 and "control characters" in refused.stderr

    # A cut is kept under a name, and used by it.
    cut = ("cut", "new name", "self.conv1.weight", "--index", "0-1", "--name", "two of it")
    assert run(service, *cut).returncode == 0
    assert "two of it" in run(service, "cuts", "new name").stdout
    (saved,) = json.loads(run(service, "cuts", "new name", "--json").stdout)
    timed = ("latency", "new name", "--cut", "two of it", "--runs", "2")
    assert run(service, *timed).returncode == 0
    (measured,) = json.loads(run(service, "latencies", "new name", "--json").stdout)
    assert measured["cut"]["fingerprint"] == saved["fingerprint"]
    assert "CPUs" in run(service, "latencies", "new name").stdout
    done = run(service, "derive", "new name", "--cut", "two of it", "--name", "child", "--json")
    assert json.loads(done.stdout)["counts"]["flops"] == saved["flops_after"]
    for name in ("three of it", str(tmp_path / "absent")):
        missed = run(service, "derive", "new name", "--cut", name)
        assert missed.returncode == 1 and name in missed.stderr and "Traceback" not in missed.stderr
    assert run(service, "cuts", "new name", "--delete", "two of it", "--json").stdout == "[]\n"

    gone = run(service, "delete", "new name", "child", "--yes")
    assert gone.returncode == 0 and gone.stdout.count("deleted") == 2
    told = json.loads(run(service, "audit", shown["id"], "--json").stdout)
    assert [event["action"] for event in told if event["action"] != "cut.analyse"] == [
        "model.delete", "cut.delete", "model.derive", "latency.measure", "cut.save",
        "model.describe", "model.describe", "model.describe", "model.describe", "model.upload",
    ]  # fmt: skip
    assert "model.delete" in run(service, "audit", "--limit", "3").stdout


def test_shares_of_an_axis_are_cut_and_savings_have_percentages(
    service: RunningService, uploaded: str
) -> None:
    done = run(service, "cut", uploaded, "self.conv1.weight", "--index", "50%")
    assert done.returncode == 0, done.stderr
    assert "%)" in done.stdout and "parameters" in done.stdout
    assert run(service, "cut", uploaded, "self.conv1.weight", "--index", "150%").returncode == 1


def test_errors_are_json_where_json_was_asked_for(service: RunningService, uploaded: str) -> None:
    done = run(service, "cut", uploaded, "self.nope", "--index", "0", "--json")
    told = json.loads(done.stderr)
    assert done.returncode == 1 and told["type"] == "unknown-node" and "self.nope" in told["detail"]


def test_the_version_and_completion_are_there(service: RunningService) -> None:
    assert run(service, "--version").stdout.strip()
    assert "--install-completion" in run(service, "--help").stdout


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("ftp://x", "http or https"),
        ("http://", "host"),
    ],
)
def test_an_address_that_is_none_is_explained(
    service: RunningService, url: str, words: str
) -> None:
    done = run(service, "models", "--url", url)
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("package", "lacks", "extra"),
    [("torchpruner_service", "rq", "service"), ("torchpruner_dashboard", "nicegui", "dashboard")],
)
def test_a_program_of_an_extra_that_is_not_installed_names_it(
    package: str, lacks: str, extra: str
) -> None:
    code = f"""
import sys
for name in ("{lacks}", "typer", "pydantic_settings"):
    sys.modules[name] = None
from {package}.entry import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert f"torchpruner-service[{extra}]" in done.stderr and "Traceback" not in done.stderr
