"""The pruned model beside a whole copy of what it was before the cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.batches import Batches, call
from torchpruner_core.calibration.errors import NotFiniteError
from torchpruner_core.cut_result import CutResult
from torchpruner_core.pruning.context import CutContext
from torchpruner_core.pruning.cut import recovery_cut
from torchpruner_core.pruning.forward.boundaries import (
    cut_inputs,
    flatten_outputs,
    less_cut_outputs,
)
from torchpruner_core.pruning.forward.comparison import copied
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.targets import LocalModel

CHECKED = 2
"""How many batches the outputs of both are compared on."""


class Pair:
    """``root`` is the pruned model, ``whole`` the copy; ``axes`` what the cut took from each
    tensor, by name.
    """

    def __init__(self, root: nn.Module, cut: CutResult, context: CutContext, run: Batches) -> None:
        self.root, self.cut, self.run = root, cut, run
        self.whole = recovery_cut(copied(root), cut, context)
        self.local = LocalModel(self.whole)
        self.pruned_tensors = LocalModel(root).tensors
        self.axes = context.axes(cut)
        for names in self.local.names.values():
            known = next((self.axes[name] for name in names if name in self.axes), None)
            if known is not None:
                for name in names:
                    self.axes.setdefault(name, known)

    def pruned(self, batch: Any) -> Any:
        """Run the pruned model, whose inputs may be shorter."""
        if not self.cut.touches_inputs or self.run.forward is not call:
            return self.run.run(self.root, batch)
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(batch, Mapping):
            kwargs = dict(batch)
        else:
            args = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        args, kwargs = cut_inputs(self.cut, args, kwargs)
        return self.run.run(self.root, kwargs or args)

    def run_pruned(self) -> None:
        """Run every batch through the pruned model."""
        for batch in self.run:
            self.pruned(batch)

    def shortened(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return whole tensors without the slices that the cut takes."""
        return {
            name: slices.cut_data(tensor, self.axes[name])[0] if name in self.axes else tensor
            for name, tensor in tensors.items()
        }

    def error(self) -> float:
        """Return the root mean square of what separates both outputs, over that of the whole model's.

        Raises ``NotFiniteError`` where the pruned model's outputs are not finite.
        """
        gap = size = 0.0
        quiet = Batches(self.root, self.run.source, self.run.forward)
        with as_found(self.root), as_found(self.whole), torch.no_grad():
            for number, batch in enumerate(quiet):
                if number == CHECKED:
                    break
                expected = less_cut_outputs(self.cut, flatten_outputs(quiet.run(self.whole, batch)))
                received = flatten_outputs(self.pruned(batch))
                for x, y in zip(expected, received, strict=True):
                    if x.is_floating_point() and x.shape == y.shape:
                        wanted, found = x.double(), y.double()
                        usable = torch.isfinite(wanted)
                        gap += float((wanted - found)[usable].square().sum())
                        size += float(wanted[usable].square().sum())
        if gap != gap or gap == float("inf"):
            raise NotFiniteError(
                "the pruned model's outputs hold NaN or infinity on these batches: look at the batches, or "
                "run it in float32"
            )
        return float((gap / size) ** 0.5) if size else 0.0
