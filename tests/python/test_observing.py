"""The alert rules and the dashboard of Grafana: their queries parse, and name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from farms import Farm
from test_metrics import busy_server, promtool, scrape

from cuttlefish_signaling import Cluster
from cuttlefish_signaling.testing._engine import find_engine

from observing_page import PAGE, page

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "alerts.yml"
CASES = ROOT / "tests" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

OWN = re.compile(r"\bcuttlefish_signaling_[a-z_]+")
LABEL = re.compile(r'\b(\w+)=~?"([^"$]+)"')


def queries() -> list[str]:
    """The queries of all panels, and of the marks of starts."""
    marks = [mark["expr"] for mark in DASHBOARD["annotations"]["list"]]
    return [target["expr"] for panel in PANELS for target in panel["targets"]] + marks


def filled(query: str) -> str:
    """A query as Grafana sends it."""
    found = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$job", "cuttlefish-signaling")
    assert "$" not in found, query
    return found


def alerts() -> dict[str, str]:
    """The alerts with their expressions."""
    rules = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", ALERTS.read_text(), re.DOTALL)
    return {name: re.split(r"\n        (?:for|labels):", rule.partition("expr: ")[2])[0] for name, rule in rules}


@pytest.fixture(scope="module")
def samples() -> dict[str, float]:
    """All samples of a node of a cluster that has answered one request of each class."""
    if find_engine() is None:
        pytest.skip("redis-server is not installed")
    with ExitStack() as stack:
        farm = Farm(stack)
        node = Cluster(farm.engine.url, name="lab", node="c")
        with busy_server(cluster=node) as server:
            scrape(server)
            return scrape(server)


def test_page_has_all_metrics_and_events() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make settings`"


def test_alerts_fire_as_their_cases_tell() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(CASES))
    # Each alert has a case in which it fires, and stays silent for a healthy server.
    healthy, *firing = re.split(
        r"\n  - name: ", CASES.read_text().partition("\ntests:")[2].strip("\n").removeprefix("  - name: ")
    )
    assert len(alerts()) > 10
    assert re.findall(r"alertname: (\w+)", healthy) == list(alerts())
    assert [case.partition("\n")[0] for case in firing] == list(alerts())
    assert all("exp_alerts:\n" in case for case in firing)


def test_queries_of_panels_parse(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": filled(query)} for number, query in enumerate(queries())]
    assert len(rules) > 25
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML.
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("query", [*dict.fromkeys(queries()), *alerts().values()])
def test_query_names_metrics_and_labels_that_exist(query: str, samples: dict[str, float]) -> None:
    names = {f"cuttlefish_signaling_{sample.partition('{')[0]}" for sample in samples}
    own = set(OWN.findall(query))
    assert own <= names
    assert own or "up{" in query
    for label, values in LABEL.findall(query):
        if label in ("job", "instance"):
            continue
        for value in values.split("|"):
            of_metric = [
                name for name in samples for metric in own if f"cuttlefish_signaling_{name}".startswith(f"{metric}{{")
            ]
            known = {found for name in of_metric for found in re.findall(rf'{label}="([^"]*)"', name)}
            assert value in known or (label == "status" and re.fullmatch("[1-5]xx", value)), (label, value)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_each_metric_is_in_the_dashboard(samples: dict[str, float]) -> None:
    """A new metric is shown, or is named here with the reason."""
    shown = {name for query in queries() for name in OWN.findall(query)}
    families = {re.sub(r"_(bucket|sum|count)$", "_bucket", sample.partition("{")[0]) for sample in samples}
    hidden = {"renderings_total"}  # The work of lists and pages, for those who measure the server.
    assert {f"cuttlefish_signaling_{name}" for name in families - hidden} == shown
