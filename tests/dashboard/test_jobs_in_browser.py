"""Jobs on the service page, and measurements that stay: a real ResNet-50."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.dashboard.running import Visitor
from tests.service.running import RunningService
from torchpruner_client import Client

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]
NODE = "self.layer2.0.conv3.weight"


@pytest.fixture
def measuring(service: RunningService, resnet_id: str) -> Iterator[list[str]]:
    """Two measurements that take minutes: one runs, one waits. Cancelled in the end."""
    jobs = []
    for _ in range(2):
        answer = service.client.post(f"/v1/models/{resnet_id}/latency", json={"runs": 1000})
        answer.raise_for_status()
        jobs.append(answer.json()["id"])
    yield jobs
    for job in jobs:
        service.client.delete(f"/v1/jobs/{job}")


def job_rows(page: Page) -> Locator:
    return page.locator("section[aria-label='Jobs'] tbody tr", has_text="Measure latency")


def in_state(page: Page, word: str) -> Locator:
    return job_rows(page).filter(has=page.locator(".tp-cell-state", has_text=word))


def state(service: RunningService, job: str) -> str:
    return str(service.client.get(f"/v1/jobs/{job}").json()["state"])


def test_jobs_are_cancelled_and_started_again(
    visit: Visit, service: RunningService, measuring: list[str]
) -> None:
    window = visit()
    page = window.go("/service", "section[aria-label='Jobs'] tbody tr")
    expect(in_state(page, "running")).to_have_count(1)
    expect(in_state(page, "queued")).to_have_count(1)
    expect(page.locator("section[aria-label='State']")).to_contain_text("1 running")
    window.screenshot("service-jobs", whole=True)
    cancelled = in_state(page, "cancelled")
    for count in (1, 2):
        page.get_by_role("button", name="Cancel").first.click()
        expect(page.get_by_text("The job is cancelled").first).to_be_visible()
        expect(cancelled).to_have_count(count)
    assert {state(service, job) for job in measuring} == {"cancelled"}
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_text("The job starts again")).to_be_visible()
    expect(cancelled).to_have_count(1)
    assert sorted(state(service, job) for job in measuring)[0] == "cancelled"
    assert sorted(state(service, job) for job in measuring)[1] in {"queued", "running"}


def test_failed_jobs_are_shown_with_their_reason(
    visit: Visit, service: RunningService, client: Client
) -> None:
    from tests.service.models import small_file

    service.upload(small_file(3).content, "1x5x8x8", params={"name": "cannot run"})
    page = visit().go("/service", "section[aria-label='Jobs'] tbody tr")
    jobs = page.locator("section[aria-label='Jobs']")
    jobs.get_by_role("button", name="Failed").click()
    rows = jobs.locator("tbody tr")
    expect(rows.first).to_contain_text("Build a graph")
    # The table lives: what it shows is read at one moment, once nothing else is left in it.
    expect(rows.filter(has_not_text="failed")).to_have_count(0)
    reasons = rows.locator(".tp-cell-line .tp-cell-value").all_inner_texts()
    assert reasons and all(len(reason) > 30 for reason in reasons)
    # The model itself is at fault: to try again would not help, and is not offered.
    expect(rows.first.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_measurement_stays_for_the_next_visit_and_for_colleagues(
    visit: Visit, resnet_id: str
) -> None:
    address = f"/models/{resnet_id}/cut?node={NODE}&dim=0&index=0-63"
    page = visit().go(address, ".tp-picture")
    expect(page.get_by_text("not measured")).to_be_visible()
    page.get_by_role("button", name="Measure latency").click()
    expect(page.get_by_text("measuring")).to_be_visible()
    medians = page.get_by_text(re.compile(r"^Before .+ ms \(.+\), after .+ ms \(.+\)\.$"))
    expect(medians).to_be_visible()
    said = medians.inner_text()
    page.reload()
    expect(page.get_by_text(said)).to_be_visible()
    colleague = visit()
    page = colleague.go(address, ".tp-picture")
    expect(page.get_by_text(said)).to_be_visible()
    page.get_by_label("Indices").fill("0-62")
    expect(page.get_by_text("not measured")).to_be_visible()
    page.get_by_label("Indices").fill("0-63")
    expect(page.get_by_text(said)).to_be_visible()

    # What was measured of the cut is the latency of the model that it leaves.
    page.get_by_role("button", name="Derive a model").click()
    page.get_by_label("Name").fill("measured")
    page.get_by_role("button", name="Derive it").click()
    page.get_by_role("link", name="Compare them").click()
    totals = page.locator("section[aria-label='Totals']")
    expect(totals.get_by_text("Latency", exact=True)).to_have_count(2)
    expect(page.get_by_role("button", name="Measure latency")).to_have_count(0)
    colleague.screenshot("compare-latency")
    page.reload()
    expect(totals.get_by_text("Latency", exact=True)).to_have_count(2)
