"""Cutting with the browser: a real ResNet-50 and a real ViT."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors import safe_open

from tests.dashboard.running import Visitor
from torchpruner_client import Client
from torchpruner_dashboard.cuts.index_text import indices_text

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]
STREAM = "self.layer2.0.conv3.weight"


def cut_address(model: str, node: str = STREAM, index: str = "0-31") -> str:
    return f"/models/{model}/cut?node={node}&dim=0&index={index}"


def test_the_slider_shows_what_else_must_go(visit: Visit, resnet_id: str, client: Client) -> None:
    window = visit()
    page = window.go(f"/models/{resnet_id}/cut?node={STREAM}&dim=0", ".tp-empty:visible")
    expect(page.get_by_role("slider", name="Slices to remove")).to_be_visible()
    page.locator(".tp-slider [tabindex='0']").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Remove 3 of 512")).to_be_visible()
    expect(page.get_by_text("Least important first: magnitude")).to_be_visible()
    least = sorted(client.model(resnet_id).slice_orders("magnitude")[STREAM, 0][:3])
    # What the slider took before the service had judged the slices is taken anew.
    expect(page.get_by_label("Indices")).to_have_value(indices_text(least), timeout=60_000)
    result = client.model(resnet_id).cut_analysis(STREAM, least)
    expect(page.get_by_text(f"{len(result.terminal)} parameters in")).to_be_visible()
    row = page.locator("section[aria-label='Affected parameters'] tbody tr").first
    expect(row).to_contain_text("3 of 512")
    page.wait_for_url(lambda url: f"index={indices_text(least).replace(' ', '')}" in url)


def test_a_shared_address_shows_the_same_cut(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id), ".tp-picture")
    expect(page.get_by_label("Indices")).to_have_value("0-31")
    expect(page.locator(".tp-picture")).to_contain_text("join (Add)")
    expect(page.locator("section[aria-label='Savings']")).to_contain_text("−0.31 %")
    window.screenshot("cut-resnet50", whole=True)


def test_typed_indices_and_mistakes(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id), ".tp-picture")
    field = page.get_by_label("Indices")
    field.fill("5, 9-11")
    expect(page.get_by_text("Remove 4 of 512")).to_be_visible()
    field.fill("5, nine")
    expect(page.get_by_text("'nine' is not an index")).to_be_visible()
    field.fill("600")
    alert = page.locator("main .tp-error")
    expect(alert).to_contain_text("600")
    field.fill("0-511")
    expect(alert).to_be_visible()
    window.screenshot("cut-refused")


def test_a_basket_is_analysed_as_one_cut(visit: Visit, resnet_id: str, client: Client) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id), ".tp-picture")
    page.get_by_role("button", name="Add to the basket").click()
    basket = page.locator("section[aria-label='Basket']")
    expect(basket).to_contain_text("Basket: 1 cut")
    choose_module(page, "layer1.0.conv1")
    page.get_by_label("Indices").fill("0-7")
    expect(page.get_by_text("2 cuts together")).to_be_visible()
    result = client.model(resnet_id).cut_analysis_many(
        [(STREAM, 0, range(32)), ("self.layer1.0.conv1.weight", 0, range(8))]
    )
    expect(page.get_by_text(f"{len(result.terminal)} parameters in")).to_be_visible()
    page.wait_for_url(re.compile(r"add=self\.layer2\.0\.conv3\.weight:0:0-31"))
    window.screenshot("cut-basket")
    basket.get_by_role("button", name=re.compile("Remove")).click()
    expect(page.get_by_text("This cut")).to_be_visible()


def choose_module(page: Page, name: str) -> None:
    field = page.get_by_role("combobox", name="Module")
    field.click()
    field.fill(name)
    page.get_by_role("option", name=f"{name} ·").first.click()


def test_a_vit_tells_of_its_heads(visit: Visit, vit_id: str) -> None:
    node = "self.encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    window = visit(theme="dark")
    page = window.go(cut_address(vit_id, node, "0-31"), ".tp-picture")
    expect(page.locator(".tp-notice").first).to_contain_text("more than you chose must go")
    expect(page.get_by_text("An axis is 12×64 here")).to_be_visible()
    expect(page.get_by_text("The model's weights are not on the service")).to_be_visible()
    expect(page.locator(".tp-picture")).to_contain_text("heads or groups")
    window.screenshot("cut-vit-dark", whole=True)
    page.get_by_role("button", name="exact only").click()
    expect(page.locator("main .tp-error")).to_be_visible()
    page.get_by_role("button", name="whole heads").click()
    expect(page.get_by_text("whole ones go")).to_be_visible()
    page.wait_for_url(re.compile("granularity=outer"))


def test_what_is_affected_is_folded_by_module(visit: Visit, resnet_id: str) -> None:
    window = visit(narrow=True)
    page = window.go(cut_address(resnet_id, "self.layer1.0.conv3.weight", "0-3"), ".tp-picture")
    section = page.locator("section[aria-label='Affected parameters']")
    rows = section.locator("tbody tr")
    expect(rows.first).to_contain_text("you chose this")
    expect(rows).to_have_count(5)  # what was chosen, and four blocks
    place = section.bounding_box()
    assert place is not None and place["height"] < 1800
    assert window.overflow() == 0
    section.get_by_role("button", name="layer1.1", exact=True).click()
    expect(section.get_by_text("layer1.1.conv1")).to_be_visible()
    page.get_by_label("Search affected").fill("layer2.0.downsample")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("layer2.0.downsample.0")


def test_trying_a_cut_begins_where_pruning_pays(visit: Visit, resnet_id: str) -> None:
    page = visit().go(f"/models/{resnet_id}/cut", ".tp-picture")
    expect(page.get_by_text("Remove 128 of 1024")).to_be_visible()
    expect(page.get_by_text("Choose slices to remove")).to_be_hidden()


def test_a_mistyped_index_takes_the_old_answer_away(visit: Visit, resnet_id: str) -> None:
    page = visit().go(cut_address(resnet_id, "self.layer1.0.conv3.weight", "0-3"), ".tp-picture")
    expect(page.get_by_text("This cut", exact=True)).to_be_visible()
    page.get_by_label("Indices").fill("0-x")
    expect(page.get_by_text("Choose slices to remove")).to_be_visible()
    expect(page.get_by_text("This cut", exact=True)).to_be_hidden()


def test_an_address_without_a_page_says_so_in_the_dashboards_words(visit: Visit) -> None:
    window = visit()
    page = window.go("/nothing/here")
    expect(page.get_by_text("There is no page at this address")).to_be_visible()
    page.get_by_role("button", name="All models").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    window.complaints.clear()  # the browser notes the 404 itself


def test_what_a_cut_affects_is_saved_as_csv(visit: Visit, resnet_id: str) -> None:
    page = visit().go(cut_address(resnet_id, "self.layer1.0.conv3.weight", "0-3"), ".tp-picture")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "Module,Parameters,Axis,Removed,Elements gone,Indices"
    assert len(lines) == 13 and lines[1].startswith("layer1.0.conv3,weight,0,4,")


def test_a_vit_stream_lists_what_is_renormalised(visit: Visit, vit_id: str) -> None:
    window = visit()
    page = window.go(cut_address(vit_id, "self.conv_proj.weight", "0-7"), ".tp-picture")
    expect(page.get_by_text("25 normalisations will compute")).to_be_visible()
    expect(page.locator(".tp-picture")).to_contain_text("concatenation")
    window.screenshot("cut-vit-stream")


def test_inputs_and_outputs_can_be_kept(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id, "self.fc.weight", "0-9"), ".tp-picture")
    expect(page.get_by_text("Changes the shape of the model's output")).to_be_visible()
    page.get_by_role("switch", name="Keep inputs and outputs as they are").click()
    expect(page.locator("main .tp-error")).to_be_visible()


def test_pruned_weights_are_downloaded(
    visit: Visit, resnet_id: str, resnet50: torch.nn.Module
) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id), ".tp-picture")
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as waiting:
        page.get_by_text("Weights, safetensors").click()
    path = waiting.value.path()
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(resnet50.state_dict())
        kept = file.get_tensor("layer2.0.conv3.weight")
    assert torch.equal(kept, resnet50.state_dict()["layer2.0.conv3.weight"][32:])


def test_missing_weights_are_asked_for(visit: Visit, vit_id: str) -> None:
    window = visit()
    page = window.go(cut_address(vit_id, "self.conv_proj.weight", "0-7"), ".tp-picture")
    page.get_by_role("button", name="Download").click()
    page.get_by_text("Weights, safetensors").click()
    expect(page.get_by_text("The model's weights are needed").first).to_be_visible()
    expect(page.locator(".q-dialog")).to_contain_text("Add the weights")


def test_a_model_is_derived_and_compared(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(cut_address(resnet_id, index="0-127"), ".tp-picture")
    page.get_by_role("button", name="Derive a model").click()
    page.get_by_label("Name").fill("resnet50-slim")
    page.get_by_role("button", name="Derive it").click()
    expect(page.get_by_role("heading", name="resnet50-slim")).to_be_visible()
    expect(page.get_by_text("25.2 M", exact=True)).to_be_visible()
    lineage = page.get_by_text("Lineage")
    expect(lineage).to_be_visible()
    page.get_by_role("link", name="Compare them").click()
    expect(page.locator("section[aria-label='Totals']")).to_contain_text("−1.2 %")
    widths = page.locator("section[aria-label='Widths']")
    expect(widths).to_contain_text("layer2.0.conv3")
    expect(widths).to_contain_text("384×128×1×1")
    expect(widths).to_contain_text("▼ 128")
    expect(page.locator("canvas").first).to_be_visible()
    window.screenshot("compare")
