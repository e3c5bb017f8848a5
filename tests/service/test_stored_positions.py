"""Stored indices in pruned weights hold the positions that their axis has after the cut."""

from __future__ import annotations

import numpy as np

from torchpruner_core import CutResult
from torchpruner_core.cut_result import Renumbering
from torchpruner_service.sandbox.state_cutting import cut_tensors
from torchpruner_service.sandbox.state_reading import StoredTensor


def stored(value: np.ndarray) -> StoredTensor:
    return StoredTensor("I64", value.shape, lambda: value)


def test_a_buffer_of_positions_is_shortened_and_renumbered() -> None:
    removed = np.array([1, 5])
    cut = CutResult(
        terminal={"self.keep": [np.array([2])]},
        renumbers={"self.keep": Renumbering(8, removed), "self.back": Renumbering(8, removed)},
    )
    cut = CutResult.from_json(cut.to_json())
    state = {"keep": stored(np.array([0, 3, 5, 7])), "back": stored(np.array([-1, 2, 6]))}
    pruned = cut_tensors(state, [cut])
    assert pruned["keep"].shape == (3,)
    assert pruned["keep"].bits().tolist() == [0, 2, 5]
    assert pruned["back"].bits().tolist() == [-1, 1, 4]
