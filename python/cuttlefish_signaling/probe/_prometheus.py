"""A report in the text format of Prometheus, for the textfile collector of the node exporter."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from ._report import FAILED, SKIPPED, Report

PREFIX = "cuttlefish_signaling_probe_"

_OF_FACTS = (
    ("tls", "expires", "certificate_expiry_timestamp_seconds", "Expiry of the server's certificate, in Unix seconds."),
    ("ping", "median_seconds", "ping_seconds", "Median time from a ping to its pong."),
    ("devices", "count", "devices", "Devices that the server lists."),
    ("media", "first_frame_seconds", "first_frame_seconds", "Time from the request for an offer to the first frame."),
    ("media", "frames", "frames", "Video frames that were decoded."),
    ("media", "loss_ratio", "packet_loss_ratio", "Lost packets, from 0 to 1."),
)
"""The facts that are metrics: the stage, the fact, the name and the help of the metric."""


def metrics(report: Report) -> str:
    """Returns the metrics of a report."""
    common = {"target": report.target} | ({} if report.device_id is None else {"device": report.device_id})
    return "\n".join(_lines(report, common)) + "\n"


def _lines(report: Report, common: dict[str, str]) -> Iterator[str]:
    ran = [step for step in report.steps if step.status != SKIPPED]
    yield from _metric("success", "Whether no stage failed.", [(common, int(report.ok))])
    yield from _metric("timestamp_seconds", "Start of the probe, in Unix seconds.", [(common, report.started)])
    yield from _metric("duration_seconds", "Time that the probe took.", [(common, report.seconds)])
    stages = [({**common, "stage": step.stage}, int(step.status != FAILED)) for step in ran]
    yield from _metric("stage_success", "Whether a stage passed. Stages that did not run are missing.", stages)
    times = [({**common, "stage": step.stage}, step.seconds) for step in ran]
    yield from _metric("stage_duration_seconds", "Time that a stage took.", times)
    found = {(step.stage, one.cause, "error" if one.is_error else "warning") for step in ran for one in step.findings}
    findings = [
        ({**common, "stage": stage, "cause": cause, "severity": severity}, 1)
        for stage, cause, severity in sorted(found)
    ]
    yield from _metric("finding", "A finding; docs/probe.md lists the causes.", findings)
    for stage, fact, name, text in _OF_FACTS:
        values = [step.facts.get(fact) for step in ran if step.stage == stage]
        yield from _metric(name, text, [(common, value) for value in values if value is not None])


def _metric(name: str, text: str, samples: Iterable[tuple[dict[str, str], Any]]) -> Iterator[str]:
    samples = list(samples)
    if not samples:
        return
    yield f"# HELP {PREFIX}{name} {text}"
    yield f"# TYPE {PREFIX}{name} gauge"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{PREFIX}{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_atomically(path: str, text: str) -> None:
    """Writes a file by a rename, so that a collector never reads a part of it. Raises OSError."""
    folder = os.path.dirname(path) or "."
    # The collector reads *.prom: it skips the temporary file.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # The collector is another user.
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
