"""What one can do with a cut: take it along, download, measure, derive a model."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, CutResult, StoredLatency, WeightsRequired
from torchpruner_dashboard.components.cut_outcome import CutOutcome
from torchpruner_dashboard.components.model_menu import weights_dialog
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import copy, error_panel, toast, toast_failure
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.cuts.snippets import snippets
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.latencies import of_cut
from torchpruner_dashboard.visit import Visit

FORMATS = {
    "safetensors": "Weights, safetensors",
    "npz": "Weights, NumPy .npz",
    "onnx": "Model, ONNX",
}


class CutActions:
    """The buttons beneath the savings."""

    def __init__(self, visit: Visit, model: AsyncRemoteModel, outcome: CutOutcome) -> None:
        self._visit = visit
        self._model = model
        self._outcome = outcome
        self._address = CutAddress()
        self._result: CutResult | None = None
        derived = bool(model.info.parent)
        self._before_is = "Before is the model as it was uploaded." if derived else ""
        self._weights = weights_dialog(visit, model)
        self._copy = ui.dialog()
        self._copy.on("hide", self._copy.clear)
        self._derive = self._derive_dialog()
        self._keep = self._keep_dialog()
        self._stored: list[StoredLatency] = []
        ui.timer(0, self._load_latencies, once=True)
        with outcome.actions:
            ui.button("Copy as code", icon="code", on_click=self._open_copy).props(
                "outline no-caps dense padding='4px 12px'"
            )
            if visit.session.may("write"):
                self._write_buttons()

    def show(self, address: CutAddress, result: CutResult | None) -> None:
        """The cut that the buttons are about from now on."""
        self._address, self._result = address, result
        self._outcome.savings.show_latency(self._known_latency(), self._before_is)

    async def _load_latencies(self) -> None:
        """What was measured of this model before, by anybody of the tenant."""
        try:
            self._stored = await self._model.latencies()
        except Exception as error:
            toast_failure(error)
        else:
            self._outcome.savings.show_latency(self._known_latency(), self._before_is)

    def _known_latency(self) -> StoredLatency | None:
        return None if self._result is None else of_cut(self._stored, self._result)

    def _write_buttons(self) -> None:
        with ui.button("Download", icon="download").props("outline no-caps dense") as download:
            download.props("padding='4px 12px'")
            with ui.menu():
                for form, title in FORMATS.items():
                    ui.menu_item(title, lambda form=form: self._download(form))
        self._measure = ui.button("Measure latency", icon="timer", on_click=self._latency)
        self._measure.props("outline no-caps dense padding='4px 12px'")
        keep = ui.button("Keep", icon="bookmark_add", on_click=self._keep.open)
        keep.props("outline no-caps dense padding='4px 12px'")
        keep.tooltip("Keep this cut on the service, to open and compare it later")
        derive = ui.button("Derive a model", icon="account_tree", on_click=self._derive.open)
        derive.props("unelevated no-caps dense padding='4px 12px'")

    def _open_copy(self) -> None:
        self._copy.clear()
        settings = self._visit.desk.settings
        url = settings.public_url or settings.service_url
        found = snippets(url, self._model.id, self._address, self._result)
        with self._copy, ui.card().classes("tp-card").style("max-width: 760px"):
            with ui.tabs().props("no-caps align=left dense") as tabs:
                for snippet in found:
                    ui.tab(snippet.title)
            with ui.tab_panels(tabs, value=found[0].title).style("width: 100%"):
                for snippet in found:
                    with ui.tab_panel(snippet.title).style("padding: 8px 0"):
                        # A long result is copied whole, and shown from its beginning.
                        ui.code(_shown(snippet.text), language=snippet.language)
                        ui.button(
                            f"Copy {snippet.title}",
                            icon="content_copy",
                            on_click=lambda text=snippet.text, what=snippet.title: copy(text, what),
                        ).props("flat no-caps")
            ui.button("Close", on_click=self._copy.close).props("flat no-caps")
        self._copy.open()

    async def _download(self, form: str) -> None:
        result = self._result
        name = f"{display_name(self._model.info)}-pruned.{form}"
        address, path = self._visit.desk.downloads.place(self._visit.browser, name)
        waiting = ui.notification(f"Making {name}", spinner=True, timeout=None)
        try:
            if form == "onnx":
                await self._model.download_onnx(result, path)
            else:
                await self._model.download_pruned(result, path, format=form)
        except WeightsRequired as error:
            self._visit.desk.downloads.discard(address)
            self._ask_for_weights(error)
        except Exception as error:
            self._visit.desk.downloads.discard(address)
            toast_failure(error)
        else:
            ui.download.from_url(address, name)
        finally:
            waiting.dismiss()

    async def _latency(self) -> None:
        address = self._address
        savings = self._outcome.savings
        self._measure.props(add="loading")
        savings.say_latency("measuring …")
        try:
            await self._model.latency(self._result)
        except Exception as error:
            savings.show_latency(None)
            if isinstance(error, WeightsRequired):
                self._ask_for_weights(error)
            else:
                toast_failure(error)
        else:
            if address == self._address:
                await self._load_latencies()
        finally:
            self._measure.props(remove="loading")

    def _ask_for_weights(self, error: WeightsRequired) -> None:
        toast_failure(error)
        if self._model.info.format == "onnx" and not self._model.info.parent:
            self._weights.open()

    def _keep_dialog(self) -> ui.dialog:
        with ui.dialog() as dialog, ui.card().classes("tp-card").style("max-width: 460px"):
            ui.label("Keep this cut").classes("tp-h2")
            name = ui.input("Name of the cut").props("outlined dense").style("width: 100%")
            note = ui.input("Note").props("outlined dense").style("width: 100%")
            problem = ui.column().style("width: 100%")

            async def keep() -> None:
                problem.clear()
                if self._result is None:
                    return
                try:
                    kept = await self._model.save_cut(
                        str(name.value or "").strip(),
                        self._result,
                        requests=self._address.requests,
                        note=str(note.value or "").strip() or None,
                        granularity=self._address.granularity,
                        protect_io=self._address.protect_io,
                    )
                except Exception as error:
                    with problem:
                        error_panel(failure_of(error))
                else:
                    dialog.close()
                    name.value = note.value = ""
                    toast(f"Kept: {kept.name}")

            with ui.row():
                ui.button("Keep it", on_click=keep).props("unelevated no-caps")
                ui.button("Close", on_click=dialog.close).props("flat no-caps")
        return dialog

    def _derive_dialog(self) -> ui.dialog:
        with ui.dialog() as dialog, ui.card().classes("tp-card").style("max-width: 460px"):
            ui.label("Derive a model").classes("tp-h2")
            ui.label(
                "What is left after this cut becomes a model of its own, at once, and remembers "
                "where it came from. Cut it further from there."
            ).classes("tp-soft")
            name = ui.input("Name", value=f"{display_name(self._model.info)}-pruned")
            name.props("outlined dense").style("width: 100%")
            problem = ui.column().style("width: 100%")

            async def derive() -> None:
                problem.clear()
                if self._result is None:
                    return
                button.props(add="loading")
                try:
                    wanted = str(name.value or "").strip() or None
                    made = await self._model.derive(self._result, name=wanted)
                except Exception as error:
                    with problem:
                        error_panel(failure_of(error))
                else:
                    dialog.close()
                    ui.navigate.to(f"/models/{made.id}")
                finally:
                    button.props(remove="loading")

            with ui.row():
                button = ui.button("Derive it", on_click=derive).props("unelevated no-caps")
                ui.button("Close", on_click=dialog.close).props("flat no-caps")
        return dialog


def _shown(text: str, most: int = 6000) -> str:
    return text if len(text) <= most else f"{text[:most]}\n… {len(text) - most} characters more"
