"""The plan page: budgets, rules, the frontier, and what is made of a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.dashboard.running import Visitor
from torchpruner_client import Client
from torchpruner_core.planning.plan import Plan

pytest.importorskip("playwright")
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


def costs(page: Page) -> Any:
    return page.get_by_role("region", name="Costs")


def test_a_plan_is_there_at_once_and_follows_the_slider(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(f"/models/{resnet_id}")
    page.get_by_role("button", name="Make it cheaper").click()
    page.wait_for_url("**/plan")
    expect(costs(page)).to_contain_text("50 % of the FLOPs")
    expect(costs(page)).to_contain_text("8.18 GFLOPs →")
    expect(page.locator("main")).to_contain_text("groups are cut")
    page.locator(".tp-slider [tabindex='0']").first.focus()
    page.keyboard.press("ArrowLeft")
    expect(costs(page)).to_contain_text("45 % of the FLOPs")
    page.wait_for_url(re.compile("flops=45"))
    window.screenshot("plan", whole=True)
    narrow = visit(narrow=True, theme="dark")
    narrow.go(f"/models/{resnet_id}/plan?flops=45", "svg.tp-picture")
    assert narrow.overflow() == 0


def test_rules_change_the_widths_and_say_why(visit: Visit, resnet_id: str) -> None:
    address = f"/models/{resnet_id}/plan?flops=50&round_to=32&protect=self.layer4.*"
    page = visit().go(address, "svg.tp-picture")
    page.get_by_label("Search groups").fill("layer4.0.conv1")
    row = page.locator(".tp-table tbody tr").first
    expect(row).to_contain_text("512 of 512")
    expect(row).to_contain_text("protect")


def test_a_plan_that_cannot_be_made_says_why(visit: Visit, resnet_id: str) -> None:
    page = visit().go(f"/models/{resnet_id}/plan?protect=self.nothing", "main [role=alert]")
    expect(page.locator("main [role=alert]")).to_contain_text("self.nothing")
    page.get_by_label("Leave alone").fill("")
    expect(costs(page)).to_contain_text("50 % of the FLOPs")


def test_a_plan_is_downloaded_copied_and_derived(
    visit: Visit, resnet_id: str, client: Client
) -> None:
    page = visit().go(f"/models/{resnet_id}/plan?flops=70&round_to=8", "svg.tp-picture")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
        page.get_by_text("Plan, JSON").click()
    plan = Plan.from_dict(json.loads(download.value.path().read_text()))
    assert plan.costs["flops"].share <= 0.7
    page.get_by_role("button", name="Copy as code").click()
    expect(page.locator(".nicegui-code").first).to_contain_text('tp.Budget(flops="70%")')
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Derive a model").click()
    page.wait_for_url(re.compile(r"/models/m[a-z2-7]{26}$"))
    expect(page.get_by_role("heading", name="resnet50 at 70 % of the FLOPs")).to_be_visible()
    derived = page.url.rpartition("/")[2]
    assert client.model(derived).flops().flops == plan.result.flops_after


def test_two_limits_hold_together_and_a_point_of_the_frontier_can_be_picked(
    visit: Visit, resnet_id: str
) -> None:
    page = visit().go(f"/models/{resnet_id}/plan?flops=50", "svg.tp-picture")
    expect(costs(page)).to_contain_text("of the importance", timeout=60_000)
    page.locator('.tp-point[data-percent="25"] circle').last.click()
    expect(costs(page)).to_contain_text("25 % of the FLOPs")
    page.get_by_role("checkbox", name="Parameters").click()
    expect(costs(page)).to_contain_text("25 % of the FLOPs, 50 % of the parameters", timeout=60_000)
    expect(page.get_by_role("region", name="Frontier")).to_be_hidden()
    page.wait_for_url(re.compile("flops=25&params=50"))


def test_a_latency_is_measured_when_asked_for_and_can_be_cancelled(
    visit: Visit, resnet_id: str, client: Client
) -> None:
    page = visit().go(f"/models/{resnet_id}/plan?latency=10", "[aria-label=Measuring]:visible")
    measuring = page.get_by_role("region", name="Measuring")
    expect(costs(page)).to_be_hidden()
    measuring.get_by_role("button", name="Measure and plan").click()
    expect(measuring.get_by_role("status")).to_contain_text("%")
    measuring.get_by_role("button", name="Cancel").click()
    expect(measuring.get_by_role("button", name="Measure and plan")).to_be_visible(timeout=60_000)
    assert not [p for p in client.model(resnet_id).plans() if p.state in {"queued", "running"}]


def test_kept_plans_stand_side_by_side(visit: Visit, resnet_id: str) -> None:
    page = visit().go(f"/models/{resnet_id}/plan?flops=60&importance=none", "svg.tp-picture")
    for percent in ("60", "55"):
        expect(costs(page)).to_contain_text(f"{percent} % of the FLOPs", timeout=60_000)
        page.get_by_role("button", name="Keep", exact=True).click()
        expect(page.get_by_text(f"Kept: {percent} % of the FLOPs")).to_be_visible(timeout=60_000)
        page.locator(".tp-slider [tabindex='0']").first.focus()
        page.keyboard.press("ArrowLeft")
    window = visit()
    page = window.go(f"/models/{resnet_id}/kept", "section[aria-label='Kept plans'] tbody tr")
    for box in page.locator("section[aria-label='Kept plans'] tbody .q-checkbox").all():
        box.click()
    widths = page.get_by_role("region", name="Widths side by side")
    expect(widths).to_contain_text("60 % of the FLOPs")
    expect(widths.locator("tbody tr").first).to_contain_text("of 64")
    window.screenshot("kept-plans", whole=True)
    page.get_by_role("link", name="60 % of the FLOPs").click()
    page.wait_for_url(re.compile("plan.flops=60"))


def test_a_cut_is_kept_opened_and_written_down(visit: Visit, resnet_id: str) -> None:
    node = "self.layer2.0.conv3.weight"
    window = visit()
    for indices, name in (("0-31", "a first cut"), ("0-63", "twice that")):
        page = window.go(
            f"/models/{resnet_id}/cut?node={node}&dim=0&index={indices}", ".tp-picture"
        )
        page.get_by_role("button", name="Keep", exact=True).click()
        page.get_by_label("Name of the cut").fill(name)
        page.get_by_role("button", name="Keep it").click()
        expect(page.get_by_text(f"Kept: {name}")).to_be_visible()
    page = window.go(f"/models/{resnet_id}/kept", "section[aria-label='Kept cuts'] tbody tr")
    for box in page.locator("section[aria-label='Kept cuts'] tbody .q-checkbox").all():
        box.click()
    axes = page.get_by_role("region", name="Axes side by side")
    expect(axes.locator("tbody tr").first).to_contain_text("448 of 512")
    expect(axes.locator("tbody tr").first).to_contain_text("480 of 512")
    row = page.locator("section[aria-label='Kept cuts'] tbody tr", has_text="a first cut")
    row.get_by_role("button", name="Open").click()
    page.wait_for_url(re.compile(r"index=0-31"))
    page = window.go(f"/audit?model={resnet_id}", ".tp-table tbody tr")
    event = page.locator(".tp-table tbody tr", has_text="Kept a cut").first
    expect(event).to_contain_text("twice that")
    expect(event).to_contain_text("64 slices of layer2.0.conv3.weight, axis 0")
    window.screenshot("audit")
    narrow = visit(narrow=True)
    narrow.go(f"/audit?model={resnet_id}", ".tp-table tbody tr")
    assert narrow.overflow() == 0
