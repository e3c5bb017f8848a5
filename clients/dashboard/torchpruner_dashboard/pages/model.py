"""One model: its facts and lineage; groups, module tree and treemap."""

from __future__ import annotations

from dataclasses import dataclass

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, ModelInfo
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.build_progress import build_progress
from torchpruner_dashboard.components.description import Description
from torchpruner_dashboard.components.facts import facts
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.group_table import group_table
from torchpruner_dashboard.components.lineage import lineage_line
from torchpruner_dashboard.components.model_menu import model_menu
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.module_tree import module_tree
from torchpruner_dashboard.components.notices import Early, Region, promptly
from torchpruner_dashboard.components.treemap import treemap
from torchpruner_dashboard.cuts.cut_address import cut_url
from torchpruner_dashboard.model_graphs import ModelOutline
from torchpruner_dashboard.visit import Desk, Visit

TABS = {"groups": "Groups", "modules": "Modules", "treemap": "Treemap"}


@dataclass(frozen=True)
class Shown:
    """What the page needs; ``outline`` is ``None`` while there is no graph."""

    model: AsyncRemoteModel
    outline: ModelOutline | None


def install(desk: Desk) -> None:
    @ui.page("/models/{model}")
    async def page(model: str, tab: str = "groups") -> None:
        visit = desk.visit()
        shown = ModelPage(visit, model, tab if tab in TABS else "groups")
        early = await promptly(shown.fetch)
        with frame(visit, "Model", "Models"):
            shown.build(early)


class ModelPage:
    """Fetches the model, then shows its graph or how far that is."""

    def __init__(self, visit: Visit, model: str, tab: str) -> None:
        self._visit = visit
        self._id = model
        self._tab = tab
        self._description: Description | None = None
        self._region = Region(self.fetch, self._show, "Loading the model")

    def build(self, early: Early[Shown]) -> None:
        self._region.build(early)

    async def fetch(self) -> Shown:
        session = self._visit.session
        await session.check()
        model = await session.client.model(self._id)
        if model.info.state != "ready":
            return Shown(model, None)
        return Shown(model, await session.shelf.outline(model))

    def _show(self, shown: Shown) -> None:
        info = shown.model.info
        name = display_name(info)
        ui.page_title(f"{name} · torchpruner")
        with ui.row().classes("tp-row"):
            ui.label(name).classes("tp-title").props('role="heading" aria-level="1"')
            if self._visit.session.may("write"):
                pencil = ui.button(icon="edit", on_click=self._edit)
                pencil.props('flat round dense size=sm aria-label="Edit the description"')
                pencil.tooltip("Change name, note and tags")
            ui.element("div").classes("tp-grow")
            if shown.outline is not None:
                plan = ui.button(
                    "Make it cheaper",
                    icon="trending_down",
                    on_click=lambda: ui.navigate.to(f"/models/{info.id}/plan"),
                )
                plan.props("unelevated no-caps")
                cut = ui.button(
                    "Try a cut",
                    icon="content_cut",
                    on_click=lambda: ui.navigate.to(cut_url(info.id)),
                )
                cut.props("outline no-caps")
                kept = ui.button(
                    icon="bookmarks", on_click=lambda: ui.navigate.to(f"/models/{info.id}/kept")
                )
                kept.props('flat round dense aria-label="Kept plans and cuts"')
                kept.tooltip("Kept plans and cuts")
            model_menu(self._visit, shown.model)
        self._description = Description(self._visit, shown.model, self._region.reload)
        if shown.outline is None:
            build_progress(shown.model, self._region.reload)
            return
        self._facts(shown)
        lineage_line(shown.model)
        self._tabs(shown.model, shown.outline)

    def _edit(self) -> None:
        if self._description is not None:
            self._description.edit()

    def _facts(self, shown: Shown) -> None:
        info = shown.model.info
        outline = shown.outline
        assert outline is not None
        prunable = sum(group.prunable for group in outline.groups)
        inputs = ", ".join(f"{s.name} {formatting.shape(s.shape)}" for s in info.inputs)
        weights = "weights are here" if info.has_weights else "graph only, without weights"
        params, flops = info.counts.get("params"), info.counts.get("flops")
        with ui.column().classes("tp-card"):
            facts(
                [
                    ("Parameters", formatting.count(params), formatting.whole(params)),
                    ("FLOPs", formatting.flops(flops), "of one forward pass"),
                    ("Groups", str(len(outline.groups)), f"{prunable} can be pruned"),
                    ("Modules", str(self._modules(outline)), ""),
                    ("Format", info.format, weights),
                    ("Size", *_size(info)),
                    ("Owner", info.owner or formatting.NOTHING, formatting.age(info.created_at)),
                    ("Input", inputs or formatting.NOTHING, ""),
                ]
            )
            for note in info.notes:
                ui.label(note).classes("tp-soft tp-wrap")

    def _modules(self, outline: ModelOutline) -> int:
        return sum(not outline.is_tensor(name) for name in outline.modules)

    def _tabs(self, model: AsyncRemoteModel, outline: ModelOutline) -> None:
        drawn: set[str] = set()
        panels: dict[str, ui.element] = {}
        with ui.tabs().props("align=left no-caps dense") as tabs:
            for key, title in TABS.items():
                ui.tab(key, title)
        tabs.set_value(self._tab)
        for key in TABS:
            panels[key] = ui.column().classes("tp-stack")

        def show(key: str) -> None:
            """Draw a tab when it is looked at, so that the page does not wait for all three."""
            for name, panel in panels.items():
                panel.set_visibility(name == key)
            if key in drawn:
                return
            drawn.add(key)
            with panels[key]:
                if key == "groups":
                    group_table(model.id, outline)
                elif key == "modules":
                    module_tree(model.id, outline)
                else:
                    treemap(outline)

        def change(key: str) -> None:
            ui.navigate.history.replace(f"/models/{self._id}?tab={key}")
            show(key)

        tabs.on_value_change(lambda event: change(str(event.value)))
        show(self._tab)


def _size(info: ModelInfo) -> tuple[str, str]:
    if info.parent:
        return formatting.NOTHING, "derived: no file of its own"
    return formatting.size(info.size), ""
