"""Dashboards and alerts ask for metrics that the service has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/torchpruner.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
SOURCE = Path(__file__).parents[2] / "service/torchpruner_service/observability/metrics.py"

QUERIES = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
] + [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_for_a_metric_of_the_service(query: str) -> None:
    declared = set(re.findall(r'"(torchpruner_[a-z_]+)"', SOURCE.read_text()))
    known = declared | {
        name + suffix for name in declared for suffix in ("_bucket", "_count", "_sum", "_total")
    }
    asked = set(re.findall(r"torchpruner_[a-z_]+", query))
    assert asked <= known
    assert query.count("(") == query.count(")")


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_uses_the_source_that_is_provisioned() -> None:
    text = (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    uids = {source["uid"] for source in yaml.safe_load(text)["datasources"]}
    for panel in DASHBOARD["panels"]:
        if "datasource" in panel:
            assert panel["datasource"]["uid"] in uids


def test_prometheus_scrapes_the_service_and_reads_the_alerts() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "torchpruner-api"
    for name in config["rule_files"]:
        assert (DEPLOY / "prometheus" / name).exists()
