"""Tensors of positions: a buffer of indices gets other values when the axis it addresses is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchpruner_core.cut_result import CutResult, Renumbering
from torchpruner_core.errors import CutMismatchError
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.targets import LocalModel, Target

WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(eq=False)
class Positions:
    """One tensor of positions of the model, and how its entries follow."""

    name: str
    tensor: torch.Tensor
    renumbering: Renumbering

    def after(self, left: torch.Tensor) -> torch.Tensor:
        """Return the entries that a cut leaves, as they are afterwards."""
        return _mapped(self.renumbering.apply, left)

    def before(self, now: torch.Tensor, noted: torch.Tensor) -> torch.Tensor:
        """Return entries as they were: those noted at the cut, unless somebody has changed them since."""
        if torch.equal(self.after(noted), now):
            return noted
        return _mapped(self.renumbering.undo, now)


def find_positions(local: LocalModel, cut: CutResult, targets: Sequence[Target]) -> list[Positions]:
    """Return the model's tensors of positions whose values change with ``cut``.

    One that is written in the program has no tensor here. Raises :class:`CutMismatchError` where
    a tensor's entries are not those that the cut was made for.
    """
    of_tensor = {id(target.tensor): target for target in targets}
    found: dict[int, Positions] = {}
    for name, renumbering in cut.renumbers.items():
        tensor = local.tensors.get(name)
        if tensor is None:
            if renumbering.values is None and name not in cut.literals:
                raise local.missing(name)
            continue
        if tensor.dtype not in WHOLE_NUMBERS:
            raise CutMismatchError(
                f"{name} should hold positions, and its dtype is {tensor.dtype}: is this the model that "
                "was analysed?",
                node=name,
                received=str(tensor.dtype),
            )
        found.setdefault(id(tensor), Positions(name, tensor, renumbering))
    for key, positions in found.items():
        _check(positions, of_tensor.get(key))
    return list(found.values())


def renumber(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Write ``values`` into a tensor of positions; no gradient is concerned."""
    with torch.no_grad():
        tensor.detach().copy_(values)


def _mapped(mapping: object, entries: torch.Tensor) -> torch.Tensor:
    if entries.is_meta:
        return entries
    changed = mapping(entries.detach().cpu().numpy())  # type: ignore[operator]
    return torch.from_numpy(changed).to(entries.device)


def _check(positions: Positions, target: Target | None) -> None:
    tensor = positions.tensor
    if tensor.is_meta or not positions.renumbering.whole:
        return
    left = tensor.detach()
    if target is not None:
        left, _ = slices.cut_data(left, target.axes)
    if positions.renumbering.names_removed(left.cpu().numpy()):
        raise CutMismatchError(
            f"{positions.name} holds positions that the cut removes, which were others when the model was "
            "analysed: analyse it as it is now",
            node=positions.name,
        )
