"""The list of many models, and what can be done with one: a real ResNet-50 and forty cuts of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.running import Visitor
from torchpruner_client import Client, NotFoundError

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]
MANY = 40
ROWS = ".tp-table tbody tr"
NODE = "self.layer4.1.conv1.weight"


@pytest.fixture(scope="module")
def many(client: Client, resnet_id: str) -> Iterator[list[str]]:
    """``cut-00`` removes one channel, ``cut-01`` two, and so on: each has fewer parameters."""
    model = client.model(resnet_id)
    made = [
        model.derive(model.cut_analysis(NODE, range(number + 1)), name=f"cut-{number:02}")
        for number in range(MANY)
    ]
    yield [model.id for model in made]
    for model in made:
        model.delete()


def column(page: Page, place: int) -> list[str]:
    """The texts of a column, counted from the first after the boxes to tick."""
    return page.locator(f"{ROWS} td:nth-child({place + 1}) .tp-cell-value").all_inner_texts()


def found(page: Page, text: str) -> None:
    page.get_by_label("Search models").fill(text)


def test_many_models_are_paged(visit: Visit, many: list[str]) -> None:
    page = visit().go("/", ROWS)
    found(page, "cut-")
    expect(page.locator(ROWS)).to_have_count(25)
    expect(page.get_by_text("1-25 of 40")).to_be_visible()
    first = column(page, 1)
    page.get_by_role("button", name="Next page").click()
    expect(page.locator(ROWS)).to_have_count(MANY - 25)
    assert sorted(first + column(page, 1)) == [f"cut-{number:02}" for number in range(MANY)]
    # A search starts at the first page again.
    found(page, "cut-3")
    expect(page.locator(ROWS)).to_have_count(10)


def test_models_are_sorted_by_what_a_column_means(visit: Visit, many: list[str]) -> None:
    page = visit().go("/", ROWS)
    found(page, "cut-")
    expect(page.get_by_text("1-25 of 40")).to_be_visible()
    page.get_by_role("columnheader", name="Parameters").click()
    expect(page.locator(ROWS).first).to_contain_text("cut-39")
    page.get_by_role("columnheader", name="Parameters").click()
    expect(page.locator(ROWS).first).to_contain_text("cut-00")
    page.get_by_role("columnheader", name="Name").click()
    expect(page.locator(ROWS).first).to_contain_text("cut-00")
    assert column(page, 1) == [f"cut-{number:02}" for number in range(25)]


def test_a_search_without_a_hit_says_so(visit: Visit, many: list[str]) -> None:
    page = visit().go("/", ROWS)
    found(page, "no model is called this")
    expect(page.locator(".tp-table")).to_contain_text("No model matches")


def test_the_list_follows_what_others_do(visit: Visit, client: Client, resnet_id: str) -> None:
    """A page shows what its visitor saw last, and asks again at once."""
    window = visit()
    window.go("/", ROWS)
    model = client.model(resnet_id)
    fresh = model.derive(model.cut_analysis(NODE, range(300)), name="fresh")
    page = window.go("/", ROWS)
    expect(page.locator(ROWS).first).to_contain_text("fresh")
    fresh.delete()
    page = window.go("/", ROWS)
    expect(page.locator(ROWS).first).not_to_contain_text("fresh")


def test_a_model_is_deleted_after_a_question(visit: Visit, client: Client, resnet_id: str) -> None:
    model = client.model(resnet_id)
    doomed = model.derive(model.cut_analysis(NODE, range(200)), name="doomed")
    page = visit().go(f"/models/{doomed.id}", ROWS)
    page.get_by_role("button", name="More").click()
    page.get_by_text("Delete", exact=True).click()
    dialog = page.locator(".q-dialog")
    expect(dialog).to_contain_text("Delete doomed?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    assert client.model(doomed.id).id == doomed.id
    page.get_by_role("button", name="More").click()
    page.get_by_text("Delete", exact=True).click()
    dialog.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    expect(page.locator(ROWS).first).to_be_visible()
    expect(page.locator(".tp-table")).not_to_contain_text("doomed")
    with pytest.raises(NotFoundError):
        client.model(doomed.id)


def test_a_model_deleted_elsewhere_is_explained_on_its_open_page(
    visit: Visit, client: Client, resnet_id: str
) -> None:
    model = client.model(resnet_id)
    doomed = model.derive(model.cut_analysis(NODE, range(201)), name="doomed too")
    page = visit().go(f"/models/{doomed.id}/cut?node=self.fc.weight&dim=1", ".tp-slider")
    doomed.delete()
    page.get_by_label("Indices").fill("0-3")
    alert = page.locator("main [role=alert]")
    expect(alert).to_contain_text("There is no model")
    expect(alert).to_contain_text("It may have been deleted")


def test_the_id_of_a_model_is_copied(visit: Visit, resnet_id: str) -> None:
    window = visit()
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = window.go(f"/models/{resnet_id}", ROWS)
    page.get_by_role("button", name="More").click()
    page.get_by_text("Copy the id").click()
    expect(page.get_by_text("The model's id is copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == resnet_id


def test_name_note_and_tags_are_changed_where_they_stand(
    visit: Visit, many: list[str], client: Client
) -> None:
    window = visit()
    page = window.go(f"/models/{many[0]}", ".tp-table")
    page.get_by_role("button", name="Edit the description").click()
    form = page.get_by_role("form", name="Description")
    form.get_by_label("Name").fill("the smallest cut")
    form.get_by_label("Tags").fill("sweep, may")
    form.get_by_label("Note").fill("one channel")
    # Somebody else is faster: nothing of theirs is lost.
    client.model(many[0]).describe(note="theirs")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Somebody else was faster")).to_be_visible()
    expect(page.get_by_text("theirs")).to_be_visible()
    page.get_by_role("button", name="Edit the description").click()
    form.get_by_label("Name").fill("the smallest cut")
    form.get_by_label("Tags").fill("sweep, may")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="the smallest cut")).to_be_visible()
    info = client.model(many[0]).info
    assert (info.name, info.note, info.tags) == ("the smallest cut", "theirs", ("sweep", "may"))
    page.get_by_role("link", name="sweep").click()
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("the smallest cut")
    expect(page.get_by_text(re.compile("^1 of "))).to_be_visible()
    window.screenshot("models-tag")
    client.model(many[0]).describe(name="cut-00", note=None, tags=[])


def test_models_are_saved_as_csv_and_deleted_together(
    visit: Visit, client: Client, resnet_id: str
) -> None:
    model = client.model(resnet_id)
    for number in range(2):
        made = model.derive(model.cut_analysis(NODE, [500 + number]), name=f"goes-{number}")
    page = visit().go("/", ROWS)
    found(page, "goes-")
    expect(page.locator(ROWS)).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("Name,State") and len(lines) == 3
    for box in page.locator(f"{ROWS} .q-checkbox").all():
        box.click()
    page.get_by_role("button", name="Delete the selected models").click()
    expect(page.get_by_text("Delete 2 models?")).to_be_visible()
    page.get_by_role("button", name="Delete them").click()
    expect(page.get_by_text("2 models deleted")).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(0)
    with pytest.raises(NotFoundError):
        client.model(made.id)
