"""The zoo's rows as counts and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

MODULE_STATES = ("equal", "corrected", "refused", "wrong")
"""How the same cuts ended on the ``nn.Module``."""

LATER_STATES = ("trains", "told", "crashes", "untrainable")
"""How a training step went after each cut on the ``nn.Module``, and one after its recovery."""

STATES = ("equal", "refused", "wrong", "unproven")
"""Every cut has one of these; those of ``equal`` that renormalise are counted as ``approximate`` too."""


def summary(rows: Rows) -> dict[str, int]:
    """Return how many models there are and were built, and how their cuts ended.

    Every cut is counted once: ``equal`` to the masked original, ``refused``, ``wrong``, or ``unproven``
    where masking moves the output too little to show anything. ``approximate`` are those of the
    equal ones where a normalisation runs over the pruned axis, in the reference over the kept slices:
    without that they would only be near to the masked original.
    """
    cuts = [cut for row in rows for cut in row["cuts"]]
    counts = {state: sum(cut["status"] == state for cut in cuts) for state in STATES}
    counts["approximate"] = sum(map(_is_approximate, cuts))
    built = sum(bool(row["built"]) for row in rows)
    return {
        "models": len(rows), "built": built, "cuts": len(cuts), **counts,
        **{f"module_{s}": sum(c.get("module") == s for c in cuts) for s in MODULE_STATES},
        **{f"later_{s}": sum(c.get("later") == s for c in cuts) for s in LATER_STATES},
    }  # fmt: skip


def _is_approximate(cut: dict[str, Any]) -> bool:
    return cut["status"] == "equal" and bool(cut["renormalises"])


def write_json(path: Path, rows: Rows) -> None:
    """Write the counts and the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"summary": summary(rows), "rows": list(rows)}, indent=1) + "\n")


def write_markdown(path: Path, rows: Rows, catalogue: int) -> None:
    """Write the table, a section a source; ``catalogue`` is how many models there are to run."""
    lines = [*_HEADER, "", *_summary_table(rows), ""]
    if len(rows) < catalogue:
        lines += [f"{len(rows)} of the catalogue's {catalogue} models have been run so far.", ""]
    for source in dict.fromkeys(_source(row) for row in rows):
        lines += [f"## {source}", "", "| model | parameters | groups | cuts | Torch-Pruning |"]
        lines += ["| --- | ---: | ---: | --- | ---: |"]
        lines += [_line(row) for row in rows if _source(row) == source]
        lines.append("")
    path.write_text("\n".join(lines).rstrip() + "\n")


_HEADER = """\
# Coverage

Written by `make zoo`. Each model has random weights and small inputs, and runs in its own process.
Five cuts are spread over its depth and over the kinds of its axes: channels, whole blocks (attention
heads, groups of a convolution), strides (head dimensions), hidden features, embeddings. Each is made
on the ONNX model, where the pruned one must equal the masked one in onnxruntime, and on the
`nn.Module`, which must give the same and then come back bit for bit.
[Is it right?](explanation/oracle.md) says how this is compared,
[Capture](explanation/capture.md#differences-from-torchexports-program) where a captured program
differs from that of `torch.export`.

- **ok**: the pruned network equals the masked original.
- **approximate**: of those, the ones where a normalisation runs over the pruned axis, so that its
  statistics change: the pruned network equals the masked original with those statistics over the
  kept slices, and is only near to the original with zeros in it.
- **refused**: an error says why, and nothing was changed.
- **wrong**: the outputs differ, or the module did not come back.
- **unproven**: masking moves the output too little to show anything, rounding moves it as much, or data
  decides what the program holds fast, so that it is no reference.

On the `nn.Module` a cut may need a literal in a `forward()` changed. **Corrected** counts those where
`set_cut(correct_forward=True)` did so, **ONNX only** those that `set_cut` declines, where the pruned
ONNX model is what there is. **Trains on** counts the cuts after which the module took a training step
with its optimizer, and another after the cut was undone; **crashes later** those after which one failed
without a warning at the cut (a model that does not train on its example inputs is not counted). The
last column is what Torch-Pruning makes of the same requests: equal to its own masked reference, of
those tried.
""".splitlines()


def _source(row: dict[str, Any]) -> str:
    return str(row["family"]).partition("/")[0]


def _summary_table(rows: Rows) -> list[str]:
    head = [
        "source",
        "models",
        "built",
        "cuts",
        "ok",
        "of which approximate",
        "refused",
        "wrong",
        "unproven",
    ]
    head += [
        "module: equal",
        "corrected",
        "ONNX only",
        "trains on",
        "crashes later",
        "Torch-Pruning",
    ]
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    groups = {source: [r for r in rows if _source(r) == source] for source in map(_source, rows)}
    for name, part in [*groups.items(), ("**all**", list(rows))]:
        counts = summary(part)
        keys: tuple[str, ...] = ("models", "built", "cuts", "equal", "approximate", *STATES[1:])
        keys += (
            "module_equal",
            "module_corrected",
            "module_refused",
            "later_trains",
            "later_crashes",
        )
        numbers = [str(counts[key]) for key in keys]
        lines.append(f"| {name} | " + " | ".join([*numbers, _peer(part)]) + " |")
    return lines


def _peer(rows: Rows) -> str:
    tried = [result for row in rows for result in row.get("peer", [])]
    return f"{tried.count('equal')} of {len(tried)}" if tried else ""


def _line(row: dict[str, Any]) -> str:
    name = row["name"]
    family = str(row["family"]).partition("/")[2]
    if family and family != name:
        name = f"{name} ({family})"
    cuts = row["cuts"]
    counts = {state: sum(cut["status"] == state for cut in cuts) for state in STATES}
    words = {"equal": "ok"}
    cells = [f"{count} {words.get(state, state)}" for state, count in counts.items() if count]
    near = sum(map(_is_approximate, cuts))
    if near:
        cells[0] += f" ({near} approximate)"
    for state, word in (("corrected", "corrected"), ("refused", "ONNX only")):
        count = sum(cut.get("module") == state for cut in cuts)
        cells += [f"{count} {word}"] if count else []
    later = sum(cut.get("later") == "crashes" for cut in cuts)
    cells += [f"{later} crash later"] if later else []
    bad = [cut for cut in cuts if cut["status"] != "equal"]
    reasons = list(dict.fromkeys(_reason(cut) for cut in bad))
    text = ", ".join(cells) or ("no cut" if row["built"] else "not built")
    if row.get("error"):
        reasons.append(str(row["error"])[:200])
    if reasons:
        text += ": " + "; ".join(reasons)
    params = row.get("params")
    shown = f"{params / 1e6:.2f} M" if params else ""
    return f"| {name} | {shown} | {row.get('groups', '')} | {_escape(text)} | {_peer([row])} |"


def _reason(cut: dict[str, Any]) -> str:
    return (
        f"`{cut['node'].removeprefix('self.')}` ({cut['kind']}): {str(cut.get('reason', ''))[:200]}"
    )


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
