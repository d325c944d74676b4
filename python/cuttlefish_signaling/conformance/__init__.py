"""Judges signaling servers, devices and clients by the protocol. Needs the extra `testing` (`websockets`), and no Rust.

    from cuttlefish_signaling.conformance import check_server

    report = check_server("wss://signal.lab", profile="spec")
    assert report.passed, report

The command line has the same: `cuttlefish-signaling conform server URL`. docs/conformance.md is the guide.
"""

try:
    import websockets.asyncio.client as _client
except ImportError as _error:  # pragma: no cover
    raise ImportError(
        "cuttlefish_signaling.conformance needs websockets 15 or later: pip install 'cuttlefish-signaling[testing]'"
    ) from _error

from ._judge_program import check_client, check_device, check_program_async
from ._model import Line, Outcome, Problem, Report, Result, Rule, Severity, Source
from ._profiles import PROFILES, rules_of
from ._program_rules import PROGRAM_PROFILES, program_rules_of
from ._server import check_server, check_server_async
from ._target import tls_context

del _client

__all__ = [
    "PROFILES",
    "PROGRAM_PROFILES",
    "Line",
    "Outcome",
    "Problem",
    "Report",
    "Result",
    "Rule",
    "Severity",
    "Source",
    "check_client",
    "check_device",
    "check_program_async",
    "check_server",
    "check_server_async",
    "program_rules_of",
    "rules_of",
    "tls_context",
]
