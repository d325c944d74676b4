"""Writes the tables of docs/observing.md: the metrics, of a server that runs, and the log events."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from farms import Farm
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cuttlefish_signaling._log_events import EVENTS, FIELDS
from cuttlefish_signaling.testing._engine import find_engine

from http_requests import request

PAGE = Path(__file__).parents[2] / "docs" / "observing.md"


def labels_of(family: Metric) -> str:
    """The labels of a family, each with its values, if they are few."""
    values: dict[str, set[str]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            values.setdefault(name, set()).add(value)
    values.pop("le", None)
    few = {"hook", "outcome", "of", "direction", "kind", "cause", "handshake"}
    shown = []
    for name, found in values.items():
        listed = ", ".join(f"`{value}`" for value in sorted(found))
        shown.append(f"`{name}`: {listed}" if name in few else f"`{name}`")
    return "; ".join(shown)


def metrics_table(text: str) -> str:
    """The table of metrics of an answer."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(text):
        name = family.name + "_total" * (family.type == "counter")
        rows.append(f"| `{name}` | {family.type} | {labels_of(family)} | {family.documentation} |")
    return "\n".join(rows)


def cluster_table() -> str:
    """The table of the metrics that a node of a cluster alone has. It needs redis-server."""
    with ExitStack() as stack:
        answer = request(Farm(stack).a, "GET", "/metrics").body.decode()
    title, line, *rows = metrics_table(answer).splitlines()
    return "\n".join([title, line, *(row for row in rows if "cuttlefish_signaling_cluster_" in row)])


def events_table() -> str:
    """The table of log events."""
    rows = ["| event | level | fields | meaning |", "|---|---|---|---|"]
    for event in EVENTS:
        fields = ", ".join(f"`{field}`" for field in event.fields.split())
        rows.append(f"| `{event.name}` | {event.level} | {fields} | {event.text} |")
    return "\n".join(rows)


def fields_table() -> str:
    """The table of the fields of log events."""
    return "\n".join(["| field | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in FIELDS.items())])


def with_table(page: str, name: str, table: str) -> str:
    """The page with this table between its marks."""
    marks = (f"<!-- {name} -->\n", f"<!-- /{name} -->")
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    assert rest and after, f"the page has no marks for {name}"
    return f"{before}{marks[0]}\n{table}\n\n{marks[1]}{after}"


def page() -> str:
    """The page as it should be."""
    from test_metrics import busy_server

    with busy_server() as server:
        request(server, "GET", "/metrics")
        text = request(server, "GET", "/metrics").body.decode()
    assert not re.search(r"^(?!#|cuttlefish_signaling_|$)", text, re.MULTILINE)
    written = with_table(PAGE.read_text(encoding="utf-8"), "metrics", metrics_table(text))
    if find_engine() is not None:
        written = with_table(written, "cluster", cluster_table())
    return with_table(with_table(written, "events", events_table()), "fields", fields_table())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
