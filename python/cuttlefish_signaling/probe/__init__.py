"""Finds out where a signaling session fails: name, TCP, TLS, HTTP, WebSocket, devices, TURN, ICE, media.

    from cuttlefish_signaling.probe import ProbeOptions, probe

    report = probe("wss://signal.lab:8443", "cvd-1", ProbeOptions(ca="ca.pem"))
    print(report.text())
    assert report.ok, report.failed_stage

The command `cuttlefish-signaling probe` is the same. It needs `websockets` (extra `probe`); TURN servers and sessions
with a device need the extra `aiortc`.
"""

from __future__ import annotations

from ._options import ProbeOptions
from ._prometheus import metrics, write_atomically
from ._report import EXIT_STATUS, Finding, Report, Step, step_lines
from ._run import probe, probe_async

__all__ = [
    "EXIT_STATUS",
    "Finding",
    "ProbeOptions",
    "Report",
    "Step",
    "metrics",
    "probe",
    "probe_async",
    "step_lines",
    "write_atomically",
]
