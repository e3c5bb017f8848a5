"""One service with a ResNet-50 and a ViT, one dashboard, one browser for a file of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from tests.dashboard.running import NARROW, WIDE, Visitor, chromium, running_dashboard
from tests.service.models import torchscript_of
from tests.service.running import PATIENCE, RunningService, running_service
from torchpruner_client import Client

NO_BROWSER = "the dashboard's browser tests did not run: no browser; sudo apt-get install chromium"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture is made; from this one place, so that the summary has one line of it."""
    if item.get_closest_marker("browser") and chromium() is None:
        pytest.skip(NO_BROWSER)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for one file: while it is open, no other asyncio loop can run in this thread."""
    from playwright.sync_api import expect, sync_playwright

    from tests.dashboard.running import ARGUMENTS

    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@pytest.fixture(scope="session")
def dashboard(service: RunningService) -> Iterator[str]:
    with running_dashboard(service.url) as url:
        yield url


@pytest.fixture(scope="session")
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.url, progress=False) as found:
        yield found


@pytest.fixture(scope="session")
def resnet50() -> torch.nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: torch.nn.Module = torchvision.models.resnet50(weights=None).eval()
    return model


@pytest.fixture(scope="session")
def resnet50_file(resnet50: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript file of 100 MB, weights included."""
    path = tmp_path_factory.mktemp("models") / "resnet50.pt"
    path.write_bytes(torchscript_of(resnet50, torch.zeros(1, 3, 224, 224)))
    return path


@pytest.fixture(scope="session")
def resnet_id(client: Client, resnet50_file: Path) -> str:
    """A ResNet-50 on the service, weights included."""
    return client.upload(resnet50_file, [(1, 3, 224, 224)], name="resnet50").id


@pytest.fixture(scope="session")
def vit_id(client: Client) -> str:
    """A ViT-B/16 on the service, without its weights."""
    torch.set_num_threads(1)
    model = torchvision.models.vit_b_16(weights=None).eval()
    return client.upload(model, [torch.zeros(1, 3, 224, 224)], name="vit_b_16").id


@pytest.fixture
def visit(browser: Any, dashboard: str) -> Iterator[Callable[..., Visitor]]:
    """Opens windows; afterwards none of them may have complained or asked another host."""
    visitors: list[Visitor] = []

    def open_window(*, narrow: bool = False, theme: str = "light") -> Visitor:
        visitors.append(Visitor(browser, dashboard, NARROW if narrow else WIDE, theme))
        return visitors[-1]

    yield open_window
    for visitor in visitors:
        visitor.close()
    assert [visitor.complaints for visitor in visitors] == [[] for _ in visitors]
    assert [visitor.elsewhere for visitor in visitors] == [[] for _ in visitors]
