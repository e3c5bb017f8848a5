"""Other values for tensors of a pruned model, each step of which can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from torchpruner_core.pruning.context import CutContext, Repair
from torchpruner_core.pruning.tensors.journal import Journal
from torchpruner_core.pruning.tensors.targets import LocalModel


class Repairs:
    """Tensors of the pruned model that get other values, each step of which can be taken back."""

    def __init__(self, root: nn.Module) -> None:
        self.local = LocalModel(root)
        self.before: dict[str, torch.Tensor] = {}
        self._steps: list[tuple[Journal, list[str]]] = []

    def write(self, values: Mapping[str, torch.Tensor]) -> None:
        """Overwrite tensors by name, as one step."""
        journal = Journal()
        fresh: list[str] = []
        self._steps.append((journal, fresh))
        with torch.no_grad():
            for name, new in values.items():
                tensor = self.local.tensors[name]
                journal.overwrite(tensor)
                if name not in self.before:
                    self.before[name] = tensor.detach().clone()
                    fresh.append(name)
                tensor.detach().copy_(new)

    def take_back(self) -> None:
        """Undo the last step."""
        journal, fresh = self._steps.pop()
        journal.rollback()
        for name in fresh:
            del self.before[name]

    def take_all_back(self) -> None:
        while self._steps:
            self.take_back()


@contextmanager
def repairing(root: nn.Module, context: CutContext) -> Iterator[Repairs]:
    """Give the repairs made inside to the cut's context, or take them back if anything fails."""
    repairs = Repairs(root)
    try:
        yield repairs
        records = {
            name: Repair.of(repairs.local.tensors[name], before, context.repairs.get(name))
            for name, before in repairs.before.items()
        }
    except BaseException:
        repairs.take_all_back()
        raise
    context.repairs.update(records)
