"""Questions about a graph, over HTTP."""

from __future__ import annotations

import re

from tests.service.models import ModelFile
from tests.service.running import RunningService
from torchpruner_core import solve_onnx
from torchpruner_core.cut_result import CutResult


def test_the_answer_is_the_engine_s_own(service: RunningService, onnx_file: ModelFile) -> None:
    model = service.upload(onnx_file.content)["id"]
    expected = solve_onnx(onnx_file.content).cut_analysis("self.layer1.0.conv1.weight", [0, 1], 0)
    answer = service.cut(model, "self.layer1.0.conv1.weight", [0, 1])
    assert CutResult.from_dict(answer) == expected
    assert set(expected["terminal"]) == {
        "self.layer1.0.conv1.weight",
        "self.layer1.0.bn1.weight",
        "self.layer1.0.bn1.bias",
        "self.layer1.0.bn1.running_mean",
        "self.layer1.0.bn1.running_var",
        "self.layer1.0.conv2.weight",
    }


def test_many_cuts_are_one_joint_cut(service: RunningService, model_id: str) -> None:
    body = {
        "cuts": [
            {"module": "self.layer1.0.conv1", "index": [0]},
            {"node": "self.layer2.0.conv1.weight", "index": {"ranges": [[0, 4]]}, "dim": 0},
        ]
    }
    answer = service.client.post(f"/v1/models/{model_id}/cut-analysis", json=body).json()
    assert answer["terminal"]["self.layer1.0.conv1.weight"][0] == [0]
    assert answer["terminal"]["self.layer2.0.conv1.weight"][0] == [0, 1, 2, 3]
    assert len(answer["requested"]) == 2


def test_every_list_is_paged_and_complete(service: RunningService, model_id: str) -> None:
    for kind in ("modules", "nodes", "operators", "groups"):
        whole = service.client.get(f"/v1/models/{model_id}/{kind}", params={"limit": 1000}).json()
        assert whole["next"] is None and whole["total"] == len(whole["items"])
        seen, cursor = [], None
        while True:
            params = {"limit": 50, **({"cursor": cursor} if cursor else {})}
            page = service.client.get(f"/v1/models/{model_id}/{kind}", params=params).json()
            seen += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == whole["items"]


def test_lists_can_be_filtered(service: RunningService, model_id: str) -> None:
    found = service.client.get(
        f"/v1/models/{model_id}/modules", params={"type": "Conv2d", "prefix": "self.layer1"}
    ).json()
    assert {item["type"] for item in found["items"]} == {"Conv2d"}
    assert found["total"] == 4


def test_a_cursor_that_was_not_given_is_refused(service: RunningService, model_id: str) -> None:
    answer = service.client.get(f"/v1/models/{model_id}/modules", params={"cursor": "zzz"})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-cursor")


def test_flops_add_up(service: RunningService, model_id: str) -> None:
    answer = service.client.get(
        f"/v1/models/{model_id}/flops", params={"by": ["module", "operator"]}
    ).json()
    assert answer["flops"] == 2 * answer["macs"]
    assert answer["by_module"]["self"] == answer["flops"] == sum(answer["by_operator"].values())


def test_flops_before_and_after_a_cut_by_module(service: RunningService, model_id: str) -> None:
    answer = service.client.post(
        f"/v1/models/{model_id}/cut-analysis",
        params={"flops": "module"},
        json={"node": "self.layer1.0.conv1.weight", "index": [0, 1]},
    ).json()
    by_module = answer["flops_by_module"]
    assert by_module["self"] == {"before": answer["flops_before"], "after": answer["flops_after"]}
    assert by_module["self.layer1.0.conv1"]["after"] < by_module["self.layer1.0.conv1"]["before"]
    assert by_module["self.layer3.0.conv1"]["after"] == by_module["self.layer3.0.conv1"]["before"]


def test_groups_say_what_a_slice_saves(service: RunningService, model_id: str) -> None:
    groups = service.client.get(f"/v1/models/{model_id}/groups").json()["items"]
    widths = {tuple(g["members"][0].values()): g for g in groups}
    group = widths["self.layer1.0.conv1.weight", 0]
    assert (group["width"], group["prunable"], group["step"]) == (64, True, 1)
    cut = service.cut(model_id, "self.layer1.0.conv1.weight", [0])
    assert group["params_per_slice"] == cut["params_removed"]
    assert group["flops_per_slice"] == cut["flops_before"] - cut["flops_after"]


def test_a_warm_cut_reads_no_graph_again(service: RunningService, model_id: str) -> None:
    def counted(kind: str) -> float:
        text = service.client.get("/metrics").text
        found = re.search(rf"^torchpruner_graph_cache_{kind}(?:_total)? (\S+)", text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    service.cut(model_id, "self.layer1.0.conv1.weight", [0])
    hits, misses = counted("hits"), counted("misses")
    for number in range(10):
        service.cut(model_id, "self.layer1.0.conv1.weight", [0, 1 + number])
    assert (counted("hits") - hits, counted("misses") - misses) == (10, 0)
