"""Upload by drag and drop: a file, its input shapes, a progress bar, the server's word on it."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from nicegui import events, run, ui

from torchpruner_client import ModelInfo, TensorSpec
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.notices import error_panel, toast
from torchpruner_dashboard.failures import Failure, failure_of
from torchpruner_dashboard.input_shapes import parse_shapes
from torchpruner_dashboard.visit import Visit

ENDINGS = (".pt", ".pth", ".ts", ".onnx", ".pt2", ".zip")

TRACED = (".pt", ".pth", ".ts")
"""Files that do not say the shapes of their inputs."""

PROPOSED = "1x3x224x224"


class UploadDialog:
    """``on_uploaded`` is awaited with the model as the service took it, its build still ahead."""

    def __init__(self, visit: Visit, on_uploaded: Callable[[ModelInfo], Awaitable[None]]) -> None:
        self._visit = visit
        self._on_uploaded = on_uploaded
        self._sent = Sent()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        with ui.dialog() as self._dialog, ui.card().classes("tp-card").style("max-width: 560px"):
            self._build()

    def open(self) -> None:
        if not self._visit.session.may("write"):
            toast("Your key may only read, so it cannot upload", "info")
            return
        self._dialog.open()

    def _build(self) -> None:
        ui.html('<h2 class="tp-title">Upload a model</h2>', sanitize=False)
        ui.label("TorchScript (.pt), ONNX (.onnx) or torch.export (.pt2).").classes("tp-soft")
        self._picker = ui.upload(
            label="Drop a file here, or press +",
            auto_upload=True,
            on_upload=self._received,
            on_rejected=self._rejected,
        )
        self._picker.props(f'accept="{",".join(ENDINGS)}" flat bordered no-thumbnails')
        self._picker.style("width: 100%")
        self._picker.on("start", lambda: self._say("Reading the file"))
        self._name = ui.input("Name", placeholder="resnet50").props("outlined dense")
        self._shapes = ui.textarea(
            "Input shapes", placeholder="1x3x224x224\nor  tokens:1x16:int64"
        ).props(
            'outlined dense autogrow hint="One input a line. ONNX and .pt2 files have their own."'
        )
        self._weights = ui.switch("Keep the weights on the service", value=True)
        self._weights.tooltip(
            "Needed for pruned weights, pruned ONNX and latency. Off: of an ONNX file only the "
            "graph is sent, which is enough for cuts."
        )
        for field in (self._name, self._shapes):
            field.style("width: 100%")
        self._progress = ui.linear_progress(0.0, show_value=False, size="8px")
        self._progress.props('rounded aria-label="Upload"').set_visibility(False)
        self._status = ui.label().classes("tp-soft")
        self._problem = ui.column().style("width: 100%")
        with ui.row():
            self._button = ui.button("Upload", icon="upload", on_click=self._upload)
            self._button.props("unelevated no-caps").set_enabled(False)
            ui.button("Close", on_click=self._dialog.close).props("flat no-caps")
        self._dialog.on("hide", self._forget)
        self._timer = ui.timer(0.15, self._advance, active=False)

    def _rejected(self) -> None:
        """The browser was given files that it does not even send."""
        self._say("")
        with self._problem:
            error_panel(
                Failure(
                    "This is no model's file",
                    f"Names of models end in {', '.join(ENDINGS)}.",
                    "Give one file at a time: TorchScript, ONNX or torch.export.",
                )
            )

    def _say(self, text: str) -> None:
        self._problem.clear()
        self._status.text = text

    def _advance(self) -> None:
        sent = self._sent
        self._progress.value = sent.done / sent.total if sent.total else 0.0
        if sent.total:
            self._status.text = (
                f"Sending {formatting.size(sent.done)} of {formatting.size(sent.total)}"
            )

    async def _received(self, event: events.UploadEventArguments) -> None:
        """The browser's file is here; what the service is told of it can still be changed."""
        self._forget()
        self._folder = tempfile.TemporaryDirectory(prefix="tp-dashboard-")
        await event.file.save(self._file)
        name, ending = Path(event.file.name).stem, Path(event.file.name).suffix
        self._name.value = str(self._name.value or "").strip() or name
        if ending in TRACED and not str(self._shapes.value or "").strip():
            self._shapes.value = PROPOSED
        size = formatting.size(self._file.stat().st_size)
        self._say(f"{event.file.name}, {size}: check the name and the shapes, then upload it.")
        self._button.set_enabled(True)
        self._picker.reset()

    @property
    def _file(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name, "upload")

    def _forget(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._button.set_enabled(False)
        self._status.text = ""

    async def _upload(self) -> None:
        """Send the file on in a thread, so that the page stays alive. It stays here until the service
        has taken it: a wrong shape is put right and sent again."""
        self._sent = Sent()
        self._problem.clear()
        self._button.set_enabled(False)
        self._progress.set_visibility(True)
        self._timer.active = True
        try:
            specs = parse_shapes(str(self._shapes.value or ""))
            name = str(self._name.value or "").strip()
            info = await run.io_bound(self._send, self._file, specs, name)
            if info is None:  # The dashboard is being stopped.
                return
        except Exception as error:
            self._status.text = ""
            self._button.set_enabled(True)
            with self._problem:
                error_panel(failure_of(error))
        else:
            self._dialog.close()
            toast(f"{name} is uploaded; its graph is being built")
            self._name.value = self._shapes.value = ""
            await self._on_uploaded(info)
        finally:
            self._timer.active = False
            self._progress.set_visibility(False)

    def _send(self, path: Path, specs: list[TensorSpec] | None, name: str) -> ModelInfo:
        with self._visit.session.blocking_client(self._sent) as client:
            weights = True if self._weights.value else None
            model = client.upload(path, specs, name=name, weights=weights, wait=False)
            return model.info


@dataclass
class Sent:
    """What the SDK tells while it sends; read by the page's timer."""

    done: float = 0.0
    total: float = 0.0

    def update(self, label: str, done: float, total: float, unit: str) -> None:
        self.done, self.total = done, total

    def close(self) -> None: ...
