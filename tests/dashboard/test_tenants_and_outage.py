"""A dead service, an API key, and a second tenant."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.dashboard.running import WIDE, Visitor, running_dashboard
from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, environment, unused_port
from torchpruner_client import Client
from torchpruner_service.auth.api_keys import CACHE_SECONDS, create_key, revoke_key
from torchpruner_service.storage.objects import Objects

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def port() -> int:
    return unused_port()


@pytest.fixture(scope="module")
def stage(
    browser: Any, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, RunningService]]:
    """A dashboard of a service that does not run yet, and the service, with keys."""
    folder = Path(tmp_path_factory.mktemp("service"))
    service = RunningService(folder, environment(TORCHPRUNER_AUTH="on"))
    with ExitStack() as stack:
        url = stack.enter_context(running_dashboard(f"http://127.0.0.1:{port}"))
        stack.callback(service.stop)
        yield url, service


@pytest.fixture
def window(browser: Any, stage: tuple[str, RunningService]) -> Iterator[Visitor]:
    visitor = Visitor(browser, stage[0], WIDE, "light")
    yield visitor
    visitor.close()
    assert visitor.elsewhere == []


def key_of(service: RunningService, tenant: str, scopes: str) -> str:
    objects = Objects((service.data_dir / "objects").resolve().as_uri())
    return create_key(objects, tenant, scopes.split(","))[1]


def log_in(window: Visitor, key: str) -> None:
    window.page.get_by_label("API key").fill(key)
    window.page.get_by_role("button", name="Log in").click()


def test_a_dead_service_is_said_in_plain_words_and_comes_back(
    window: Visitor, stage: tuple[str, RunningService], port: int
) -> None:
    for address in ("/", "/models/m" + "a" * 26, "/compare", "/service"):
        page = window.go(address, "main [role=alert]")
        alert = page.locator("main [role=alert]")
        expect(alert).to_contain_text("The service does not answer")
        assert "Traceback" not in alert.inner_text()
    window.screenshot("service-dead")
    stage[1].start(port=port)
    stage[1].wait_ready()
    # Nobody presses anything: the page asks again by itself.
    page.wait_for_url("**/login?to=%2Fservice")


def test_a_wrong_key_is_refused_and_a_right_one_leads_back(
    window: Visitor, stage: tuple[str, RunningService]
) -> None:
    page = window.go("/compare")
    page.wait_for_url("**/login?to=%2Fcompare")
    log_in(window, "tp_wrong")
    expect(page.locator("[role=alert]")).to_contain_text("This key is not valid")
    window.screenshot("login")
    log_in(window, key_of(stage[1], "blue", "read,write"))
    page.wait_for_url("**/compare")


def test_a_login_link_does_not_lead_to_another_site(
    window: Visitor, stage: tuple[str, RunningService]
) -> None:
    page = window.go("/login?to=//example.org/", "input")
    log_in(window, key_of(stage[1], "blue", "read,write"))
    page.wait_for_url(f"{window.base}/")


def test_a_second_tenant_sees_nothing_of_the_first(
    browser: Any, window: Visitor, stage: tuple[str, RunningService]
) -> None:
    url, service = stage
    key = key_of(service, "blue", "read,write")
    with Client(service.url, api_key=key, progress=False) as client:
        model = client.upload(small_file(1).content, [(1, 3, 8, 8)], name="blue-secret")
    page = window.go("/login", "input")
    log_in(window, key)
    expect(page.locator(".tp-table")).to_contain_text("blue-secret")
    expect(page.locator(".tp-table")).to_contain_text("blue")

    other = Visitor(browser, url, WIDE, "light")
    page = other.go("/login", "input")
    log_in(other, key_of(service, "green", "read"))
    expect(page.locator(".tp-empty")).to_contain_text("No models yet")
    other.screenshot("models-empty")
    for address in (
        f"/models/{model.id}",
        f"/models/{model.id}/cut",
        f"/compare?models={model.id}",
    ):
        page = other.go(address, "main [role=alert]")
        expect(page.locator("main [role=alert]")).to_contain_text("There is no model")
        assert "blue-secret" not in page.content()
    page = other.go("/service", "section[aria-label='Jobs']")
    expect(page.locator("section[aria-label='State']")).to_contain_text("green")
    assert model.id not in page.content()
    # A key that only reads is told so.
    page = other.go("/", ".tp-empty")
    page.get_by_role("button", name="Upload a model").first.click()
    expect(page.get_by_text("may only read")).to_be_visible()
    page.get_by_role("button", name="Account").click()
    expect(page.get_by_text("Tenant green")).to_be_visible()
    page.get_by_text("Log out").click()
    page.wait_for_url("**/login")
    assert other.page.goto("/") is not None
    page.wait_for_url("**/login?to=%2F")
    other.close()


def test_a_revoked_key_leads_to_the_login_and_back(
    window: Visitor, stage: tuple[str, RunningService]
) -> None:
    """On a page that is open, as soon as something is asked."""
    service = stage[1]
    objects = Objects((service.data_dir / "objects").resolve().as_uri())
    known, key = create_key(objects, "blue", ["read", "write"])
    with Client(service.url, api_key=key, progress=False) as client:
        model = client.upload(small_file(1).content, [(1, 3, 8, 8)], name="blue-secret")
    page = window.go("/login", "input")
    log_in(window, key)
    page.get_by_role("heading", name="Models").wait_for()
    page = window.go(f"/models/{model.id}/cut", ".tp-slider")
    revoke_key(objects, known.id)
    page.wait_for_timeout(1000 * CACHE_SECONDS + 500)
    field = page.get_by_label("Indices")
    expect(field.or_(page.get_by_label("API key"))).to_be_visible()
    if field.is_visible():  # unless something that the page was still asking led there already
        field.fill("1")
    page.wait_for_url("**/login?to=**")
    log_in(window, key_of(service, "blue", "read,write"))
    page.wait_for_url(f"**/models/{model.id}/cut**")
    expect(page.locator(".tp-slider")).to_be_visible()


def test_logging_out_in_one_tab_ends_the_other(
    window: Visitor, stage: tuple[str, RunningService]
) -> None:
    page = window.go("/login?to=/service", "input")
    log_in(window, key_of(stage[1], "blue", "read,write"))
    expect(page.locator("section[aria-label='State']")).to_contain_text("worker")
    other = window.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Account").click()
    other.get_by_text("Log out").click()
    other.wait_for_url("**/login")
    page.wait_for_url("**/login?to=%2Fservice")


def test_a_service_that_dies_under_an_open_page_is_noticed_and_so_is_its_return(
    window: Visitor, stage: tuple[str, RunningService], port: int
) -> None:
    """Last: it kills the service."""
    service = stage[1]
    page = window.go("/login?to=/service", "input")
    log_in(window, key_of(service, "blue", "read,write"))
    expect(page.locator("section[aria-label='State']")).to_contain_text("worker")
    with Client(service.url, api_key=key_of(service, "blue", "read"), progress=False) as client:
        model = client.model("blue-secret")
    listed = window.context.new_page()
    listed.goto("/")
    expect(listed.locator(".tp-table")).to_contain_text("blue-secret")
    cut = window.context.new_page()
    cut.goto(f"/models/{model.id}/cut")
    cut.locator(".tp-slider").wait_for()
    plan = window.context.new_page()
    plan.goto(f"/models/{model.id}/plan?flops=50")
    expect(plan.locator("section[aria-label='Costs']")).to_contain_text("of the FLOPs")
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGTERM)
    service.process.wait(PATIENCE)
    cut.get_by_label("Indices").fill("0-1")
    listed.reload()
    for open_page in (page, cut, listed):
        alert = open_page.locator("main [role=alert]")
        expect(alert).to_contain_text("The service does not answer")
        assert "Traceback" not in alert.inner_text()
    window.screenshot("service-died")
    expect(cut.get_by_role("button", name="Try again")).to_be_visible()
    plan.get_by_role("checkbox", name="Parameters").click()
    expect(plan.locator("main [role=alert]")).to_contain_text("The service does not answer")
    service.start(port=port)
    # Nobody presses anything: what was asked meanwhile is answered.
    expect(cut.locator(".tp-picture")).to_be_visible()
    expect(cut.get_by_label("Indices")).to_have_value("0-1")
    expect(plan.locator("section[aria-label='Costs']")).to_be_visible()
    for open_page in (page, cut, listed, plan):
        expect(open_page.locator("main [role=alert]")).to_have_count(0)
