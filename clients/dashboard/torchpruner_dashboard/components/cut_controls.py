"""The left side of the cut page: module, axis, slider, indices, granularity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nicegui import ui

from torchpruner_client import CutResult
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.hand_slider import HandSlider
from torchpruner_dashboard.components.slice_rule import Orders, SliceRule
from torchpruner_dashboard.cuts.cut_address import GRANULARITIES, CutAddress
from torchpruner_dashboard.cuts.index_text import indices_text, parse_indices
from torchpruner_dashboard.model_graphs import Axis, ModelGraph

MEANINGS = {
    "auto": "Where an axis is heads × size or groups × channels: whole heads, or the same places in "
    "each, if that is exactly what you chose; else what removes fewer parameters.",
    "outer": "Whole heads or groups: of 12 heads × 64, some of the 12.",
    "inner": "The same places in every head or group: of 12 heads × 64, some of the 64.",
    "strict": "Only choices that are exactly one or the other; the rest is an error that shows both.",
}
WORDS = {
    "auto": "automatic",
    "outer": "whole heads",
    "inner": "in each head",
    "strict": "exact only",
}
"""What the buttons say; the address keeps the terms of the API."""


LONG_NAME = 30
"""Characters that the module's field shows."""


class CutControls:
    """Calls ``on_change`` with a new address whenever the person changes something."""

    def __init__(
        self,
        graph: ModelGraph,
        start: CutAddress,
        on_change: Callable[[CutAddress], Awaitable[None]],
        on_add: Callable[[], Awaitable[None]],
        judge: Callable[[str], Awaitable[Orders]] | None,
        why_not: str,
        *,
        proposed: bool,
    ) -> None:
        """``judge`` gives the order of slices by an importance; ``why_not`` says why there is none.
        ``proposed`` is whether nobody chose the indices of ``start``."""
        self._graph = graph
        self._judge, self._why_not = judge, why_not
        self._slid = proposed
        self._on_change = on_change
        self._quiet = False
        self._start = start
        self._axis = self._first_axis(start)
        with ui.element("section").classes("tp-card tp-stack").props('aria-label="Cut"'):
            self._build(start, on_add)

    def address(self, known: CutAddress) -> CutAddress:
        """``known`` with what the controls say."""
        return replace(
            known,
            node=self._axis.node,
            dim=self._axis.dim,
            index=self._index,
            granularity=str(self._granularity.value),
            protect_io=bool(self._protect.value),
        )

    def clear_index(self) -> None:
        """Choose no slices, without calling back."""
        self._set_index(())

    def _first_axis(self, start: CutAddress) -> Axis:
        axes = self._graph.outline.axes
        for axis in (axis for found in axes.values() for axis in found):
            if not start.node or (axis.node, axis.dim) == (start.node, start.dim):
                return axis
        # A node that no group lists; the service says what is wrong with it, if anything is.
        tensor = self._graph.tensors.get(start.node)
        width = tensor.shape[start.dim] if tensor and start.dim < len(tensor.shape) else 1
        return Axis(start.node, start.dim, width, 1, -1)

    def _build(self, start: CutAddress, on_add: Callable[[], Awaitable[None]]) -> None:
        outline = self._graph.outline
        names = {
            name: f"{name.removeprefix('self.')} · {outline.modules[name].type}"
            for name in outline.axes
            if name in outline.modules
        }
        holder = outline.holder(self._axis.node)
        names.setdefault(holder, holder)
        self._module = ui.select(
            names, label="Module", value=holder, with_input=True, on_change=self._module_changed
        )
        # The field cuts a long name off at its end, where names differ.
        self._whole_name = ui.label().classes("tp-small tp-soft tp-wrap")
        self._axes = ui.select(
            self._axis_names(holder), label="Axis", value=0, on_change=self._axis_changed
        )
        self._axes.set_value(self._axis_position(holder))
        for field in (self._module, self._axes):
            field.props("outlined dense options-dense").style("width: 100%")
        self._index = start.index
        with ui.column().style("width: 100%; gap: 0"):
            self._chosen = ui.label().classes("tp-small")
            self._slider = HandSlider(min=0, max=1, value=0, on_change=self._slider_changed)
            self._slider.props('aria-label="Slices to remove" color=primary').classes("tp-slider")
        self._rule = SliceRule(self._judge, self._why_not, self._order_changed)
        self._text = ui.input("Indices", placeholder="0-3, 8", validation=_mistake)
        self._text.props('outlined dense debounce="120"').style("width: 100%")
        self._text.on_value_change(self._text_changed)
        with ui.column().style("width: 100%; gap: 4px"):
            ui.label("Heads and groups").classes("tp-small tp-soft")
            self._granularity = ui.toggle(
                {key: WORDS[key] for key in GRANULARITIES}, value=start.granularity
            )
            self._granularity.props('no-caps dense unelevated spread aria-label="Granularity"')
            self._granularity.style("width: 100%")
            self._meaning = ui.label(MEANINGS[start.granularity]).classes("tp-small tp-soft")
            self._met = ui.label().classes("tp-small")
        self._granularity.on_value_change(self._granularity_changed)
        self._protect = ui.switch("Keep inputs and outputs as they are", value=start.protect_io)
        self._protect.on_value_change(self._tell)
        self._add = ui.button("Add to the basket", icon="add", on_click=on_add)
        self._add.props("outline no-caps").style("width: 100%")
        self._fit_slider()
        self._set_index(start.index)

    def _axis_names(self, module: str) -> dict[int, str]:
        return {
            position: f"{axis.node.rpartition('.')[2]}, axis {axis.dim} · "
            f"{formatting.plural(axis.width, 'slice')}"
            for position, axis in enumerate(self._module_axes(module))
        }

    def _module_axes(self, module: str) -> list[Axis]:
        found = self._graph.outline.axes.get(module, [])
        return found if self._axis in found or module != self._holder() else [self._axis, *found]

    def _holder(self) -> str:
        return self._graph.outline.holder(self._axis.node)

    def _axis_position(self, module: str) -> int:
        axes = self._module_axes(module)
        return axes.index(self._axis) if self._axis in axes else 0

    # The handlers below are plain functions that return what is to be awaited: a coroutine would
    # start later, when `_quiet` says nothing any more of the change that caused it.

    def _module_changed(self) -> Awaitable[None] | None:
        module = str(self._module.value or "")
        if self._quiet or not self._graph.outline.axes.get(module):
            return None
        self._axis = self._graph.outline.axes[module][0]
        with self._silence():
            self._axes.set_options(self._axis_names(module), value=0)
        return self._axis_chosen()

    def _axis_changed(self) -> Awaitable[None] | None:
        if self._quiet or self._axes.value is None:
            return None
        axis = self._module_axes(str(self._module.value))[int(self._axes.value)]
        if self._axis == axis:
            return None
        self._axis = axis
        return self._axis_chosen()

    def _axis_chosen(self) -> Awaitable[None]:
        self._fit_slider()
        self._rule.say(self._axis)
        if self._slid:
            count = min(len(self._index), self._axis.width - 1)
            with self._silence():
                self._slider.value = count
            return self._take(count)
        self._set_index(tuple(index for index in self._index if index < self._axis.width))
        return self._tell()

    def _slider_changed(self) -> Awaitable[None] | None:
        if self._quiet:
            return None
        self._slid = True
        return self._take(int(self._slider.value or 0))

    def _take(self, count: int) -> Awaitable[None]:
        self._index = self._rule.take(self._axis, count)
        with self._silence():
            self._text.value = indices_text(self._index)
        self._say()
        return self._tell()

    async def _order_changed(self) -> None:
        """What the slider took is taken anew; what somebody typed stays."""
        self._rule.say(self._axis)
        if self._slid and self._index != self._rule.take(self._axis, len(self._index)):
            await self._take(len(self._index))

    def _text_changed(self) -> Awaitable[None] | None:
        if self._quiet:
            return None
        text = str(self._text.value or "")
        if _mistake(text) is not None:
            # What was found for other indices must not stand beside the mistake.
            self._index = ()
            self._say()
            return self._tell()
        if parse_indices(text) == self._index:
            return None
        self._slid = False
        self._index = parse_indices(text)
        with self._silence():
            self._slider.value = min(len(self._index), self._axis.width - 1)
        self._say()
        return self._tell()

    async def _granularity_changed(self) -> None:
        self._meaning.text = MEANINGS[str(self._granularity.value)]
        await self._tell()

    def say_splits(self, result: CutResult | None) -> None:
        """Name the sizes that the latest cut's axes split into, under the buttons."""
        met = dict.fromkeys(choice.factors for choice in result.choices) if result else {}
        sizes = ", ".join(formatting.shape(factors) for factors in met)
        self._met.text = f"This cut meets {sizes}." if sizes else ""

    def _fit_slider(self) -> None:
        name = self._holder().removeprefix("self.")
        self._whole_name.text = name
        self._whole_name.set_visibility(len(name) > LONG_NAME)
        self._slider.props["max"] = max(1, self._axis.width - 1)

    def _set_index(self, index: tuple[int, ...]) -> None:
        self._index = index
        with self._silence():
            self._slider.value = min(len(index), self._axis.width - 1)
            self._text.value = indices_text(index)
        self._say()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Change controls without taking that for a person's change."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _say(self) -> None:
        self._chosen.text = f"Remove {len(self._index)} of {self._axis.width}"
        self._add.set_enabled(bool(self._index))

    async def _tell(self) -> None:
        await self._on_change(self.address(self._start))


def _mistake(text: str | None) -> str | None:
    """What is wrong with typed indices, if anything is."""
    try:
        parse_indices(text or "")
    except ValueError as error:
        return str(error)
    return None
