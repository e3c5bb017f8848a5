"""What a person should know is in the answers, and comes out of the client as Python's warnings."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.core.exporting.test_dynamic_axes import counted
from tests.service.running import RunningService
from torchpruner_client import Client
from torchpruner_core.errors import (
    ChangedStatisticsWarning,
    FixedSizesWarning,
    StaleStateWarning,
)


class Normed(nn.Module):
    """A norm over the axis that is cut, and a token that no inference reads."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(16))
        self.up, self.norm, self.down = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(self.norm(self.up(x)))
        return y


def test_the_build_and_a_cut_warn_of_what_no_graph_shows(service: RunningService) -> None:
    with Client(service.url, progress=False) as client:
        with pytest.warns(StaleStateWarning, match="never reads self.mask_token") as seen:
            remote = client.upload(Normed().eval(), [torch.zeros(2, 8)])
        assert __file__ in {each.filename for each in seen}
        assert [each["type"] for each in remote.info.warnings] == ["stale-state"]
        with pytest.warns(ChangedStatisticsWarning, match="norm") as seen:
            result = remote.modules["self.up"].cut_analysis("weight", [0, 1])
        assert {each.filename for each in seen} == {__file__}
        answer = service.cut(remote.id, "self.up.weight", [0, 1])
        assert [each["type"] for each in answer["warnings"]] == [
            "changed-statistics",
            "stale-state",
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = remote.derive(result)
        assert [each["type"] for each in child.info.warnings] == ["stale-state"]
        with pytest.warns(ChangedStatisticsWarning):
            remote.plan({"flops": "60%"})


def test_a_pruned_file_warns_of_sizes_it_no_longer_follows(
    service: RunningService, tmp_path: Path
) -> None:
    with Client(service.url, progress=False) as client:
        remote = client.upload(counted(), [torch.zeros(3, 4)], weights=True)
        result = remote.cut_analysis("self.up", [1])
        with pytest.warns(FixedSizesWarning, match="the input sizes of the analysis only") as seen:
            remote.download_onnx(result, tmp_path / "pruned.onnx")
        assert [each.filename for each in seen if each.category is FixedSizesWarning] == [__file__]
        # The same file again says the same, from the store.
        with pytest.warns(FixedSizesWarning):
            remote.download_onnx(result, tmp_path / "again.onnx")
