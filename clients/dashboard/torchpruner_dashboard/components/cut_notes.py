"""What one should know before making a cut: choices, additions, statistics, inputs and outputs."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import CutResult
from torchpruner_core.cut_result import Choice
from torchpruner_dashboard import formatting
from torchpruner_dashboard.cuts.index_text import indices_text


def cut_notes(result: CutResult) -> None:
    """A line for each thing worth knowing; nothing for a plain cut."""
    if result.touches_inputs:
        names = formatting.listed(result.touches_inputs)
        _note(
            "input",
            f"Changes the shape of the model's input {names}.",
            "Whoever calls it must follow.",
        )
    if result.touches_outputs:
        names = formatting.listed(result.touches_outputs)
        _note(
            "output", f"Changes the shape of the model's output {names}.", "Classes or features go."
        )
    for node, axes in result.added.items():
        for dim, indices in enumerate(axes):
            if indices is not None and len(indices):
                _note(
                    "playlist_add",
                    f"{formatting.plural(len(indices), 'slice')} more than you chose must go from "
                    f"{node}, axis {dim}.",
                    _short(indices_text(indices.tolist())),
                )
    for choice in result.choices:
        _note("call_split", _choice_text(choice), f"at {choice.operator}")
    if result.renormalises:
        _note(
            "functions",
            f"{formatting.plural(len(result.renormalises), 'normalisation')} will compute their "
            "statistics over fewer slices, so outputs change a little beyond the cut.",
            formatting.listed(result.renormalises),
        )
    if result.literals:
        _note(
            "code",
            f"{formatting.plural(len(result.literals), 'constant')} of the program change with it.",
            formatting.listed(result.literals),
        )


def _choice_text(choice: Choice) -> str:
    factors = formatting.shape(choice.factors)
    words = {"outer": "whole ones", "inner": "the same places in each"}
    taken = words.get(choice.taken, choice.taken)
    text = f"An axis is {factors} here, heads or groups of slices; {taken} go."
    if choice.taken_cost is not None:
        text += f" That removes {formatting.count(choice.taken_cost)} parameters"
        if choice.other_cost is not None:
            rejected = words.get(choice.rejected, choice.rejected)
            text += f", {rejected} would remove {formatting.count(choice.other_cost)}"
        text += "."
    return text


def _note(icon: str, text: str, detail: str = "") -> None:
    with ui.element("div").classes("tp-card tp-notice").style("padding: 8px 12px"):  # noqa: SIM117
        with ui.row().classes("tp-row").style("flex-wrap: nowrap; align-items: flex-start"):
            ui.icon(icon, size="20px").classes("tp-soft")
            with ui.column().classes("tp-grow").style("gap: 0"):
                ui.label(text)
                if detail:
                    ui.label(detail).classes("tp-soft tp-small tp-wrap")


def _short(text: str, longest: int = 160) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
