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
from ._model import Line, Outcome, Problem, Report, Result, Rule, Severity, Source, UnreachableError
from ._profiles import PROFILES, rules_of
from ._program_rules import PROGRAM_PROFILES, program_rules_of
from ._report import as_json, as_junit, as_markdown, as_table, failure_lines
from ._server import ServerCheck, check_server, check_server_async, server_check, settings_of, token_of
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
    "ServerCheck",
    "Severity",
    "Source",
    "UnreachableError",
    "as_json",
    "as_junit",
    "as_markdown",
    "as_table",
    "check_client",
    "check_device",
    "check_program_async",
    "check_server",
    "check_server_async",
    "failure_lines",
    "program_rules_of",
    "rules_of",
    "server_check",
    "settings_of",
    "tls_context",
    "token_of",
]
