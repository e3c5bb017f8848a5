"""Pictures and snippets of cuts, on graphs that a real service solved. No browser."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.service.running import PATIENCE, RunningService
from torchpruner_client import AsyncClient, AsyncRemoteModel, Client, CutRequest, CutResult
from torchpruner_dashboard.components.affected_table import PAGE, affected_rows, shown_rows
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.cuts.layers import places_of
from torchpruner_dashboard.cuts.picture import picture
from torchpruner_dashboard.cuts.reach import Box, Reach, reach_of, removed_elements
from torchpruner_dashboard.cuts.snippets import curl_text, python_text
from torchpruner_dashboard.model_graphs import GraphShelf, ModelGraph


def graph_and_cut(
    service: RunningService, model: str, node: str, index: range
) -> tuple[ModelGraph, CutResult]:
    async def ask() -> tuple[ModelGraph, CutResult]:
        async with AsyncClient(service.url, progress=False) as client:
            remote: AsyncRemoteModel = await client.model(model)
            return await GraphShelf().graph(remote), await remote.cut_analysis(node, index)

    # A thread of its own: a browser that another file has open keeps a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask()).result()


def test_a_residual_stream_shows_its_joins(service: RunningService, resnet_id: str) -> None:
    graph, result = graph_and_cut(service, resnet_id, "self.layer2.0.conv3.weight", range(8))
    reach = reach_of(result, graph)
    roles = [box.role for box in reach.boxes.values()]
    assert roles.count("join") == 4 and roles.count("source") == 1
    cut = {name for box in reach.boxes.values() for name, *_ in box.removed}
    assert cut == set(result.terminal) - set(result.literals)
    into = {b for a, b in reach.edges if a == "self.layer2.3.Add"}
    assert into == {"self.layer3.0.conv1", "self.layer3.0.downsample.0"}


def test_no_two_boxes_share_a_cell_and_values_flow_down(
    service: RunningService, vit_id: str
) -> None:
    graph, result = graph_and_cut(service, vit_id, "self.conv_proj.weight", range(8))
    for most in (500, 90, 20):
        reach = reach_of(result, graph, most)
        places = places_of(reach, 4)
        assert len(set(places.values())) == len(places) == len(reach.boxes)
        assert max(place.column for place in places.values()) < 4
        if not reach.merged:
            assert all(places[a].row < places[b].row for a, b in reach.edges)


def test_rows_add_up_to_the_parameters_removed(service: RunningService, resnet_id: str) -> None:
    node = "self.layer3.1.conv2.weight"
    graph, result = graph_and_cut(service, resnet_id, node, range(16))
    rows = affected_rows(result, graph)
    assert rows[0]["module"] == "layer3.1.conv2" and rows[0]["removed_text"] == "16 of 256"
    parameters = [n for n in result.terminal if graph.tensors[n].kind == "parameter"]
    assert sum(removed_elements(result, n) for n in parameters) == result.params_removed


def test_rows_of_a_wide_cut_are_folded_and_none_is_lost(
    service: RunningService, resnet_id: str
) -> None:
    graph, result = graph_and_cut(service, resnet_id, "self.layer3.0.conv3.weight", range(16))
    rows = affected_rows(result, graph)
    folded = shown_rows(rows, set())
    assert len(folded) <= PAGE < len(rows) and folded[0] == rows[0]
    assert sum(row["elements"] for row in folded) == sum(row["elements"] for row in rows)
    folds = {row["id"] for row in folded if "module_open" in row}
    opened = shown_rows(rows, folds)
    assert {row["id"] for row in opened} - folds == {row["id"] for row in rows}
    found = shown_rows(rows, set(), "layer3.1.conv1")
    assert [row["module"] for row in found] == ["layer3.1.conv1"]
    assert shown_rows(rows[:PAGE], set()) == rows[:PAGE]


def test_names_in_a_picture_are_text() -> None:
    evil = '<script>alert(1)</script>"'
    box = Box("a", f"self.{evil}", evil, "source", [(evil, 0, 1, 2)])
    drawn = picture(Reach({"a": box}, frozenset()))
    assert "<script" not in drawn and "&lt;script" in drawn


def address() -> CutAddress:
    basket = (CutRequest("self.layer1.0.conv1.weight", 0, (1, 5)),)
    return CutAddress("self.layer2.0.conv3.weight", 0, tuple(range(32)), basket=basket)


def test_the_python_snippet_cuts_ones_own_module(
    service: RunningService, resnet_id: str, resnet50: torch.nn.Module, client: Client
) -> None:
    import copy

    module = copy.deepcopy(resnet50)
    scope: dict[str, Any] = {"module": module}
    exec(python_text(service.url, resnet_id, address()), scope)
    assert module.get_parameter("layer2.0.conv3.weight").shape[0] == 480
    assert module.get_parameter("layer1.0.conv1.weight").shape[0] == 62
    with torch.no_grad():
        assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    asked = client.model(resnet_id).cut_analysis_many(address().requests)
    assert scope["result"] == asked


def test_the_curl_snippet_gives_the_same_cut(
    service: RunningService, resnet_id: str, client: Client
) -> None:
    text = curl_text(service.url, resnet_id, address())
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True, timeout=PATIENCE)
    asked = client.model(resnet_id).cut_analysis_many(address().requests)
    assert CutResult.from_dict(json.loads(done.stdout)) == asked


def test_the_dashboard_brings_everything_along() -> None:
    """No address of another host in what it serves of its own."""
    from torchpruner_dashboard.server import ASSETS

    for path in ASSETS.iterdir():
        hosts = set(re.findall(r"https?://([\w.]+)", path.read_text()))
        assert hosts <= {"www.w3.org"}, path


@pytest.mark.parametrize("module", ["torch", "onnx", "torchpruner_service"])
def test_the_dashboard_needs_no_engine(module: str) -> None:
    import sys

    program = (
        "import sys, torchpruner_dashboard.pages.cut, torchpruner_dashboard.pages.service; "
        f"sys.exit({module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode == 0
