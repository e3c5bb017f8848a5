"""Timing models in onnxruntime: one profile by operator, then original and pruned in turn."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import ExportError, TorchPrunerError
from torchpruner_core.exporting import read_model
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.importing.importer import read_graph
from torchpruner_core.onnx_pruning import prune_onnx
from torchpruner_core.planning.errors import BudgetError, MeasurementError
from torchpruner_core.planning.records import Timing
from torchpruner_core.running import DEVICES, providers
from torchpruner_core.runtimes.attribution import Attribution
from torchpruner_core.runtimes.random_weights import with_random_weights


@dataclass(frozen=True)
class OnnxRuntime:
    """onnxruntime on this machine, for ``Budget(latency=..., runtime=OnnxRuntime())``.

    ``device`` is ``"CPU"`` or ``"GPU"``, ``threads`` how many the CPU may use (1, so that little else on
    the machine disturbs the figure). A timing takes at least ``runs`` runs of each model and about
    ``seconds``, and a run repeats the model until it takes a few milliseconds. ``model`` is the ONNX
    model as bytes or a path, needed where the graph is a ``SolvedGraph``; without weights it is timed
    with random ones.

    With one thread on the CPU it is the thread's processor time that counts, which is the time on the
    clock while nothing else runs; otherwise the time on the clock.

    Raises ``BudgetError`` for settings that mean nothing.
    """

    device: str = "CPU"
    threads: int = 1
    runs: int = 15
    seconds: float = 2.0
    model: bytes | str | Path | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise BudgetError(f"the device is one of {', '.join(DEVICES)}, not {self.device!r}")
        if self.threads < 0 or self.runs < 3 or not self.seconds > 0:
            raise BudgetError(
                "a runtime has 0 (all) or more threads, 3 or more runs, and more than 0 seconds; not "
                f"{self.threads}, {self.runs} and {self.seconds}"
            )

    def session(self, graph: Any) -> OnnxSession:
        """Return a session of the model of an ``ONNXGraph``, or of ``model``.

        Raises ``BudgetError`` where there is neither, ``MeasurementError`` where it does not run.
        """
        return OnnxSession(self, self._bytes(graph), graph)

    def _bytes(self, graph: Any) -> bytes:
        if self.model is not None:
            found = self.model if isinstance(self.model, bytes) else read_model(Path(self.model))
            try:
                return with_random_weights(bytes(found))
            except Exception as error:
                raise MeasurementError(f"the runtime's model is no ONNX model: {error}") from error
        program = getattr(graph, "program", None)
        if program is None:
            raise BudgetError(
                "a solved graph has no model to time: OnnxRuntime(model=the ONNX bytes or path)"
            )
        try:
            return with_random_weights(program.with_weights())
        except ExportError:  # a model on the meta device
            return with_random_weights(program.weightless())


class OnnxSession:
    """One model in onnxruntime."""

    def __init__(self, runtime: OnnxRuntime, data: bytes, graph: Any) -> None:
        self.runtime = runtime
        self.data = data
        self.graph: GraphData = getattr(graph, "solved", graph)
        self.feeds = _feeds(tuple(self.graph.spec(name) for name in self.graph.inputs))
        self.original = self._open(data)
        self._run(self.original)

    def profile(self) -> Mapping[str, float]:
        """Return the seconds of each operator by its name in the graph, ``""`` for what has none.

        Of operators that onnxruntime merged, the one that multiplies has the time of all.
        """
        import onnx

        model = onnx.load_model_from_string(self.data)
        imported = read_graph(self.data)
        if len(imported.operators) != len(model.graph.node):
            return {"": 1.0}  # functions were inlined, so that names tell nothing
        values = [
            [node.value_name for node in operator.out_data]
            for operator in imported.operators.values()
        ]
        attribution = Attribution(self.graph, values)
        for position, node in enumerate(model.graph.node):
            node.name = f"operator_{position}_"
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._open(model.SerializeToString(), options)
            for _ in range(self.runtime.runs):
                self._run(session)
            events = json.loads(Path(session.end_profiling()).read_text())
        kernels = [
            event
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]
        return {
            name: float(np.median(times)) * max(1, round(len(times) / self.runtime.runs))
            for name, times in attribution.seconds(kernels).items()
        }

    def compare(self, cut: CutResult | None) -> tuple[Timing, Timing]:
        """Return the timings of the original and of the model after ``cut``, taken in turn."""
        pruned = self.original
        if cut is not None and cut.terminal:
            try:
                pruned = self._open(prune_onnx(self.data, cut))
            except MeasurementError:
                raise
            except TorchPrunerError as error:
                raise MeasurementError(f"the pruned model cannot be timed: {error}") from error
        alone = self.runtime.device == "CPU" and self.runtime.threads == 1
        clock = time.thread_time if alone else time.perf_counter
        sessions = (self.original, pruned)
        for session in sessions:
            self._run(session)
        began = clock()
        self._run(self.original)
        once = max(clock() - began, 1e-6)
        repeats = max(1, int(0.003 / once))
        rounds = max(self.runtime.runs, int(self.runtime.seconds / (2 * once * repeats)))
        rounds = min(rounds, 20 * self.runtime.runs)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            # Which comes first changes, so that neither always finds the caches of the other.
            for k in (0, 1) if number % 2 else (1, 0):
                began = clock()
                for _ in range(repeats):
                    self._run(sessions[k])
                times[k].append((clock() - began) / repeats)
        return _timing(times[0]), _timing(times[1])

    def _options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.runtime.threads
        options.log_severity_level = 3
        return options

    def _open(self, data: bytes, options: Any = None) -> Any:
        import onnxruntime

        try:
            return onnxruntime.InferenceSession(
                data, options or self._options(), providers=providers(self.runtime.device)
            )
        except Exception as error:
            raise MeasurementError(
                f"onnxruntime cannot load the model: {str(error).splitlines()[0][:300]}"
            ) from error

    def _run(self, session: Any) -> None:
        wanted = {node.name for node in session.get_inputs()}
        feeds = {name: value for name, value in self.feeds.items() if name in wanted}
        try:
            session.run(None, feeds)
        except Exception as error:
            raise MeasurementError(
                f"the model did not run: {str(error).splitlines()[0][:300]}"
            ) from error


def _timing(times: list[float]) -> Timing:
    low, median, high = np.percentile(times, (25, 50, 75)).tolist()
    return Timing(median, low, high, len(times))


def _feeds(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for spec in specs:
        dtype = np_dtype(spec.dtype)
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            feeds[spec.name] = np.ones(spec.shape, dtype)
        else:
            feeds[spec.name] = random.random(spec.shape, np.float32).astype(dtype)
    return feeds
