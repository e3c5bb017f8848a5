"""Every page at both widths and in both themes: readable, complete, from this host alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.dashboard.running import Visitor
from torchpruner_client import Client

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def pages(resnet_id: str, vit_id: str, client: Client) -> dict[str, tuple[str, str]]:
    """Address, and what is there when the page is."""
    model = client.model(resnet_id)
    derived = model.derive(
        model.cut_analysis("self.layer3.0.conv3.weight", range(256)), name="slim"
    )
    cut = f"/models/{resnet_id}/cut?node=self.layer2.0.conv3.weight&index=0-63"
    return {
        "models": ("/", ".tp-table tbody tr"),
        "model-groups": (f"/models/{resnet_id}", ".tp-table tbody tr"),
        "model-modules": (f"/models/{vit_id}?tab=modules", ".tp-cell-tree"),
        "model-treemap": (f"/models/{resnet_id}?tab=treemap", "canvas"),
        "model-derived": (f"/models/{derived.id}", ".tp-table tbody tr"),
        "cut": (cut, ".tp-picture"),
        "compare": (f"/compare?models={resnet_id},{derived.id}", "canvas"),
        "service": ("/service", ".tp-table tbody tr"),
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("narrow", [False, True], ids=["1280", "390"])
def test_no_page_is_wider_than_the_window(
    visit: Visit, pages: dict[str, tuple[str, str]], narrow: bool, theme: str
) -> None:
    window = visit(narrow=narrow, theme=theme)
    for name, (address, there) in pages.items():
        page = window.go(address, there)
        assert window.overflow() <= 0, name
        assert page.title().endswith("torchpruner"), name
        window.screenshot(f"{name}-{390 if narrow else 1280}-{theme}", whole=not narrow)


def test_the_module_tree_is_searched_and_leads_to_a_cut(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(f"/models/{resnet_id}?tab=modules", ".tp-cell-tree")
    page.get_by_role("button", name="self.layer1", exact=True).click()
    expect(page.get_by_role("button", name="self.layer1.0", exact=True)).to_be_visible()
    page.get_by_label("Search modules").fill("layer3.5.conv3")
    row = page.locator(".tp-table tbody tr", has_text="conv3").first
    expect(row).to_be_visible()
    row.get_by_role("link", name="Cut").click()
    page.wait_for_url("**/cut?node=self.layer3.5.conv3.weight**")


def test_the_group_list_is_searched_by_any_member(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(f"/models/{resnet_id}", ".tp-table tbody tr")
    page.get_by_label("Search parameters").fill("layer2.0.downsample")
    rows = page.locator(".tp-table tbody tr")
    # Its input and its output channels: two groups.
    expect(rows).to_have_count(2)


def test_models_are_searched_sorted_and_chosen_to_compare(
    visit: Visit, pages: dict[str, tuple[str, str]]
) -> None:
    window = visit()
    page = window.go("/", ".tp-table tbody tr")
    page.get_by_label("Search models").fill("slim")
    expect(page.locator(".tp-table tbody tr").first).to_contain_text("slim")
    page.get_by_label("Search models").fill("")
    page.get_by_role("columnheader", name="Parameters").click()
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    for number in (0, 1):
        page.locator(".tp-table tbody tr").nth(number).get_by_role("checkbox").click()
    compare.click()
    page.wait_for_url("**/compare?models=**,**")


def test_models_are_chosen_on_a_narrow_screen(
    visit: Visit, pages: dict[str, tuple[str, str]]
) -> None:
    page = visit(narrow=True).go("/", ".tp-table tbody tr")
    for number in (0, 1):
        box = page.locator(".tp-table tbody tr").nth(number).get_by_role("checkbox")
        place = box.bounding_box()
        assert place is not None and place["x"] + place["width"] <= 390
        box.click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?models=**,**")


def test_the_keyboard_alone_is_enough(visit: Visit, pages: dict[str, tuple[str, str]]) -> None:
    window = visit()
    page = window.go("/", ".tp-table tbody tr")
    page.keyboard.press("Shift+?")
    expect(page.locator(".q-dialog")).to_contain_text("Keyboard")
    page.keyboard.press("Escape")
    expect(page.locator(".q-dialog")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_label("Search models")).to_be_focused()
    page.keyboard.type("slim")
    expect(page.locator(".tp-table tbody tr").first).to_contain_text("slim")
    page.locator("main").click(position={"x": 4, "y": 4})
    page.keyboard.press("s")
    page.wait_for_url("**/service")
    page.wait_for_selector(".tp-table tbody tr")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()


def test_the_theme_is_remembered(visit: Visit, pages: dict[str, tuple[str, str]]) -> None:
    window = visit()
    page = window.go("/", ".tp-table tbody tr")
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    theme.click()
    expect(page.locator("body.body--dark")).to_be_attached()
    page.reload()
    expect(page.locator("body.body--dark")).to_be_attached()


def test_a_name_is_text_and_never_markup(visit: Visit, client: Client, resnet_id: str) -> None:
    model = client.model(resnet_id)
    result = model.cut_analysis("self.layer4.2.conv2.weight", range(8))
    name = "<img src=x onerror=\"document.title='taken'\">"
    derived = model.derive(result, name=name)
    window = visit()
    for address in ("/", f"/models/{derived.id}", f"/models/{derived.id}/cut", "/compare"):
        page = window.go(address)
        page.wait_for_timeout(700)
        assert page.locator("img[src=x]").count() == 0
        assert not page.title().startswith("taken")
    derived.delete()


def test_the_service_page_shows_workers_jobs_and_times(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go("/service", ".tp-table tbody tr")
    expect(page.locator("section[aria-label='State']")).to_contain_text("1 worker")
    expect(page.locator("section[aria-label='State']")).to_contain_text("Graph cache")
    expect(page.locator("section[aria-label='Workers']")).to_contain_text("CPU")
    jobs = page.locator("section[aria-label='Jobs']")
    expect(jobs).to_contain_text("Build a graph")
    jobs.get_by_role("button", name="Failed").click()
    routes = page.locator("section[aria-label='Routes']")
    expect(routes).to_contain_text("/v1/")


def test_an_unknown_model_is_explained(visit: Visit) -> None:
    window = visit()
    for address in ("/models/m" + "a" * 26, "/models/m" + "a" * 26 + "/cut"):
        page = window.go(address, "main [role=alert]")
        expect(page.locator("main [role=alert]")).to_contain_text("There is no model")


def test_an_address_that_is_not_one_is_explained(visit: Visit, resnet_id: str) -> None:
    window = visit()
    page = window.go(f"/models/{resnet_id}/cut?node=self.fc.weight&index=a-b", "main [role=alert]")
    expect(page.locator("main [role=alert]").first).to_contain_text("'a-b' is not an index")
