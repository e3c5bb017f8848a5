"""What people type and read: indices, addresses, numbers, errors. No browser, no service."""

from __future__ import annotations

import doctest
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchpruner_client import (
    CutRequest,
    CutResult,
    ServiceError,
    ServiceUnreachable,
    StoredLatency,
    WeightsRequired,
)
from torchpruner_core.errors import EmptyAxisError
from torchpruner_dashboard import formatting, input_shapes, palette
from torchpruner_dashboard.components import timings
from torchpruner_dashboard.components.timings import latency_notes
from torchpruner_dashboard.cuts import index_text
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.cuts.index_text import indices_text, parse_indices
from torchpruner_dashboard.failures import failure_of, problem_failure
from torchpruner_dashboard.latencies import of_cut
from torchpruner_dashboard.pages.login import _is_local
from torchpruner_dashboard.plans.plan_choice import PlanChoice
from torchpruner_dashboard.prometheus_text import Metrics
from torchpruner_dashboard.server import ASSETS
from torchpruner_dashboard.settings import DashboardSettings

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients/dashboard/torchpruner_dashboard"
INDICES = st.sets(st.integers(0, 5000), max_size=60)


@pytest.mark.parametrize("module", [formatting, index_text, input_shapes, timings])
def test_examples_in_docstrings_hold(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried and not failed


@given(INDICES)
def test_indices_are_read_as_they_are_written(indices: set[int]) -> None:
    assert parse_indices(indices_text(indices)) == tuple(sorted(indices))


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "1.5", "0-99999999"])
def test_what_is_no_index_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"index|backwards|longer"):
        parse_indices(text)


@given(INDICES, INDICES, st.sampled_from(["auto", "outer", "inner", "strict"]), st.booleans())
def test_an_address_gives_the_same_cut_back(
    index: set[int], basket: set[int], granularity: str, protect: bool
) -> None:
    from urllib.parse import parse_qs

    requests = (CutRequest("self.a.0.weight", 1, tuple(sorted(basket))),) if basket else ()
    address = CutAddress(
        "self.conv1.weight", 0, tuple(sorted(index)), granularity, protect, requests
    )
    query = parse_qs(address.query())
    read = CutAddress.of_query(
        query["node"][0],
        int(query["dim"][0]),
        query.get("index", [""])[0],
        query.get("granularity", ["auto"])[0],
        query.get("protect", ["false"])[0] == "true",
        query.get("add", []),
    )
    assert read == address


def test_errors_say_what_and_what_now() -> None:
    dead = failure_of(ServiceUnreachable("http://x does not answer"))
    assert dead.passing and "does not answer" in dead.title
    weights = failure_of(WeightsRequired({"type": "weights-required", "detail": "..."}))
    assert "ONNX" in weights.advice
    assert failure_of(ValueError("'x' is not a shape")).detail == "'x' is not a shape"
    refused = failure_of(ServiceError({"type": "odd", "title": "Odd", "detail": "it is odd"}))
    assert (refused.title, refused.detail) == ("Odd", "it is odd")
    assert problem_failure(None).title


def test_a_core_error_of_the_service_keeps_its_title() -> None:
    from torchpruner_client.errors import InvalidRequestError, failure

    problem = {"type": EmptyAxisError.slug, "title": "Too much", "detail": "all 4 slices"}
    shown = failure_of(failure(InvalidRequestError, problem))
    assert (shown.title, shown.detail) == ("Too much", "all 4 slices")


@pytest.mark.parametrize(
    ("target", "local"),
    [("/models", True), ("//evil", False), ("/\\evil", False), ("https://evil", False)],
)
def test_login_leads_to_this_site_only(target: str, local: bool) -> None:
    assert _is_local(target) is local


def test_settings_do_not_take_the_operators_own_key() -> None:
    found = DashboardSettings.from_environment(
        {"TORCHPRUNER_API_KEY": "tp_mine", "TORCHPRUNER_URL": "http://s:1/"}
    )
    assert found.shared_key == "" and found.service_url == "http://s:1"


def test_colours_of_states_have_signs_of_their_own() -> None:
    signs = list(palette.STATES.values())
    assert len({sign.icon for sign in signs}) == len({sign.word for sign in signs}) == len(signs)


def test_prometheus_text_is_read() -> None:
    metrics = Metrics(
        "# HELP x y\n"
        'n_total{route="/v1/a b",status="200"} 3\n'
        'n_total{route="/v1",status="500"} 1.0 1700000000\n'
        't_bucket{le="0.1"} 5\nt_bucket{le="1.0"} 10\nt_bucket{le="+Inf"} 10\n'
    )
    assert metrics.total("n_total") == 4
    assert metrics.total("n_total", status="200") == 3
    assert metrics.quantile("t", 0.5) == pytest.approx(0.1)
    assert metrics.quantile("t", 0.75) == pytest.approx(0.55)
    assert metrics.quantile("nothing", 0.5) is None


@pytest.mark.parametrize("theme", [":root", "body.body--dark"])
def test_text_is_readable_on_every_background(theme: str) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""
    css = (ASSETS / "dashboard.css").read_text()
    block = css[css.index(f"{theme} {{") :]
    colours = dict(re.findall(r"--tp-(\w+): (#[0-9a-f]{6})", block[: block.index("}")]))
    for text in ("text", "soft", "accent", "bad", "good"):
        for ground in ("surface", "page"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    primary = re.findall(r"--q-(?:primary|negative|positive): (#[0-9a-f]{6})", css)
    assert len(primary) == 5
    for colour in primary:
        assert contrast("#ffffff", colour) >= 4.5, colour


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def stored(params: int, flops: int, pruned: float, load: float = 0.5) -> StoredLatency:
    timings = {
        name: {"median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms}
        for name, ms in (("original", 2.0), ("pruned", pruned))
    }
    return StoredLatency.from_dict(
        {
            "id": "latency-1",
            "model": "m1",
            "measured_at": 1.0,
            "device": "AMD EPYC",
            "provider": "CPUExecutionProvider",
            "runtime": "onnxruntime 1.30",
            "threads": 1,
            "load": {"before": load, "after": 0.5, "cpus": 2},
            "inputs": [],
            "runs": 30,
            "warm_up": 5,
            "models": timings,
            "speedup": 2.0 / pruned,
            "cut": {"params_after": params, "flops_after": flops},
        }
    )


def test_a_measurement_stands_for_every_cut_of_its_size() -> None:
    known = [stored(10, 20, 1.0), stored(10, 30, 1.2)]
    result = CutResult(params_before=20, params_removed=10, flops_before=40, flops_after=30)
    assert of_cut(known, result) is known[1]
    assert of_cut(known, replace(result, flops_after=31)) is None


def test_a_latency_is_told_with_spread_machine_and_load() -> None:
    quick = " ".join(latency_notes(stored(10, 20, 1.0)))
    assert "1 ms (0.90 ms to 1.10 ms)" in quick and "2.00× as fast" in quick
    assert "AMD EPYC, onnxruntime 1.30, 1 thread; load 0.5 on 2 CPUs" in quick
    assert "within noise" not in quick and "busy" not in quick
    same = " ".join(latency_notes(stored(10, 20, 1.9, load=7.0)))
    assert "within noise of each other" in same and "a busy machine" in same
    assert "as fast" not in same


def test_a_plan_on_the_service_is_the_choice_that_asks_for_it() -> None:
    choice = PlanChoice((("flops", 50), ("latency", 80)), "magnitude", 8, ("self.fc",))
    rules = {"round_to": 8, "protect": ["self.fc"]}
    budget = {"latency": "80%", "flops": 0.5}
    assert PlanChoice.of_record(budget, "magnitude", rules) == choice
    assert PlanChoice.of_record({"flops": "2 GFLOPs"}, None, {}) is None
    assert PlanChoice.of_record({"flops": "50%"}, None, {"scope": "global"}) is None
    query = dict(parse_qsl(choice.query()))
    percents = {name: int(query[name]) for name in ("flops", "latency")}
    again = PlanChoice.of_query(percents, query["importance"], 8, query["protect"])
    assert again == choice and not choice.single and choice.measured


def test_code_to_copy_names_the_address_that_people_use() -> None:
    environment = {
        "TORCHPRUNER_URL": "http://api:8000",
        "TORCHPRUNER_DASHBOARD_PUBLIC_URL": "https://pruner.example.com/",
    }
    assert (
        DashboardSettings.from_environment(environment).public_url == "https://pruner.example.com"
    )


class Asked(dict[str, str]):
    """An environment that knows what was asked of it."""

    def get(self, key: str, default: object = None) -> None:  # type: ignore[override]
        self[key] = ""


def test_the_page_of_the_dashboard_names_its_settings_and_buttons() -> None:
    page = (ROOT / "docs/howto/dashboard.md").read_text()
    asked = Asked()
    DashboardSettings.from_environment(asked)
    rows = re.findall(r"^\| `(TORCHPRUNER_\w+)`", page, re.MULTILINE)
    assert set(rows) == set(asked)
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    buttons = re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", page)
    assert len(buttons) > 5
    for name in buttons:
        assert f'"{name}"' in source, name
    for picture in re.findall(r"\]\(\.\./images/([^)]+)\)", page):
        assert (ROOT / "docs/images" / picture).exists(), picture
