"""What one can do with a plan: take it along, derive a model, download what it leaves."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import AsyncRemoteModel
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import copy, toast, toast_failure
from torchpruner_dashboard.plans.plan_choice import PlanChoice
from torchpruner_dashboard.plans.plan_snippets import plan_snippets
from torchpruner_dashboard.visit import Visit

FILES = {
    "json": "Plan, JSON",
    "safetensors": "Weights, safetensors",
    "npz": "Weights, NumPy .npz",
    "onnx": "Model, ONNX",
}


class PlanActions:
    """The buttons beneath the costs; each asks for the plan of the chosen point, which is exact."""

    def __init__(self, visit: Visit, model: AsyncRemoteModel, box: ui.row) -> None:
        self._visit = visit
        self._model = model
        self._choice = PlanChoice()
        self._copy = ui.dialog()
        self._copy.on("hide", self._copy.clear)
        with box:
            ui.button("Copy as code", icon="code", on_click=self._open_copy).props(
                "outline no-caps dense padding='4px 12px'"
            )
            if visit.session.may("write"):
                with ui.button("Download", icon="download").props(
                    "outline no-caps dense"
                ) as button:
                    button.props("padding='4px 12px'")
                    with ui.menu():
                        for form, title in FILES.items():
                            ui.menu_item(title, lambda form=form: self._download(form))
                keep = ui.button("Keep", icon="bookmark_add", on_click=self._keep)
                keep.props("outline no-caps dense padding='4px 12px'")
                keep.tooltip("Keep this plan on the service, to compare it with others")
                derive = ui.button("Derive a model", icon="account_tree", on_click=self._derive)
                derive.props("unelevated no-caps dense padding='4px 12px'")

    def show(self, choice: PlanChoice) -> None:
        """The choice that the buttons are about from now on."""
        self._choice = choice

    async def _plan(self) -> Plan:
        return await self._model.plan(self._choice.budget, **self._choice.options)

    async def _keep(self) -> None:
        """Give the plan a name on the service: the named ones are kept in sight."""
        choice = self._choice
        name = choice.name
        if "importance" in choice.options:
            name += f", {choice.importance}"
        try:
            await self._model.plan(choice.budget, name=name, **choice.options)
        except Exception as error:
            toast_failure(error)
        else:
            toast(f"Kept: {name}")

    async def _derive(self) -> None:
        name = f"{display_name(self._model.info)} at {self._choice.name}"
        try:
            made = await self._model.derive((await self._plan()).result, name=name)
        except Exception as error:
            toast_failure(error)
        else:
            ui.navigate.to(f"/models/{made.id}")

    async def _download(self, form: str) -> None:
        percents = "-".join(f"{limit}{percent}" for limit, percent in self._choice.limits)
        name = f"{display_name(self._model.info)}-{percents}.{form}"
        address, path = self._visit.desk.downloads.place(self._visit.browser, name)
        waiting = ui.notification(f"Making {name}", spinner=True, timeout=None)
        try:
            plan = await self._plan()
            if form == "json":
                plan.save(path)
            elif form == "onnx":
                await self._model.download_onnx(plan.result, path)
            else:
                await self._model.download_pruned(plan.result, path, format=form)
        except Exception as error:
            self._visit.desk.downloads.discard(address)
            toast_failure(error)
        else:
            ui.download.from_url(address, name)
        finally:
            waiting.dismiss()

    def _open_copy(self) -> None:
        self._copy.clear()
        settings = self._visit.desk.settings
        url = settings.public_url or settings.service_url
        found = plan_snippets(url, self._model.id, self._choice)
        with self._copy, ui.card().classes("tp-card").style("max-width: 760px"):
            with ui.tabs().props("no-caps align=left dense") as tabs:
                for snippet in found:
                    ui.tab(snippet.title)
            with ui.tab_panels(tabs, value=found[0].title).style("width: 100%"):
                for snippet in found:
                    with ui.tab_panel(snippet.title).style("padding: 8px 0"):
                        ui.code(snippet.text, language=snippet.language)
                        ui.button(
                            f"Copy {snippet.title}",
                            icon="content_copy",
                            on_click=lambda text=snippet.text, what=snippet.title: copy(text, what),
                        ).props("flat no-caps")
            ui.button("Close", on_click=self._copy.close).props("flat no-caps")
        self._copy.open()
