"""The names and texts that a reader looks for, taken from the code: settings, flags, errors, metrics, events and more.

A metric is read from `GET /metrics`, an error text from the Rust sources.
"""

from __future__ import annotations

import argparse
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cuttlefish_signaling
from cuttlefish_signaling import SignalingServer, errors
from cuttlefish_signaling._log_events import EVENTS, FIELDS
from cuttlefish_signaling._settings import FLAGS, SETTINGS
from cuttlefish_signaling.cli import COMMANDS, parser
from cuttlefish_signaling.conformance import PROFILES, PROGRAM_PROFILES, program_rules_of, rules_of

ROOT = Path(__file__).resolve().parents[1]

PACKAGE = ROOT / "python" / "cuttlefish_signaling"

ANSWERS = (
    "src/protocol/refusal.rs",
    "src/access/adb.rs",
    "src/core",
    "src/server/http",
    "src/server/ws",
    "src/server/mod.rs",
)
"""The sources of texts that peers get. Nodes of a cluster (`src/server/nodes`) answer each other alone."""

LITERAL = r'"((?:[^"\\]|\\.)*)"'
CLOSE = re.compile(rf"(?:End::close|refuse|close::close)\(\s*(\d{{4}}),\s*(?:format!\()?{LITERAL}")
CODE = re.compile(r"\b(?:Some\(|close\(|refuse\(|code: |unwrap_or\()(1\d{3})\b")
STARTS = re.compile(r"[A-Z][\w-]*:? [\w'{]|' \w|adb (?!of device)|start=")
"""The beginning of a text for a peer. Lines of the log begin with a small letter."""


def code_lines(path: Path) -> str:
    """A source without comments, attributes, tests, and lines whose text is none of an answer."""
    text = path.read_text(encoding="utf-8").partition("#[cfg(test)]")[0]
    other = re.compile(r"^\s*(?://|#\[|\"\w+ *=)|expect\(|tracing::|\"RFC |\bhelp\b|format_args!|panic!|debug_assert")
    return "\n".join(line for line in text.splitlines() if not other.search(line))


def sources(root: Path) -> Iterator[Path]:
    """The files of ANSWERS."""
    for name in ANSWERS:
        path = root / name
        for file in sorted(path.rglob("*.rs")) if path.is_dir() else (path,):
            if "metrics" not in file.parts:
                yield file


def error_texts(root: Path = ROOT) -> set[str]:
    """The texts that the server sends peers. A `{}` stands for a value."""
    texts = set()
    for path in sources(root):
        code = code_lines(path)
        texts |= {text for _, text in CLOSE.findall(code)}
        texts |= {text for text in re.findall(LITERAL, code) if re.match(STARTS, text)}
    for path in sorted((root / "src" / "access").rglob("error.rs")):
        texts |= set(re.findall(rf"#\[error\({LITERAL}", path.read_text(encoding="utf-8")))
    return texts - {""}


def close_codes(root: Path = ROOT) -> set[str]:
    """The codes of close frames that the server sends."""
    return {code for path in sources(root) for code in CODE.findall(code_lines(path))}


def routes(root: Path = ROOT) -> set[str]:
    """The paths of the server."""
    text = (root / "src/observe/request_counts.rs").read_text(encoding="utf-8")
    listed = text.partition("const ENDPOINTS")[2].partition("];")[0]
    return set(re.findall(r'"(/[^"]*)"', listed)) - {"/"}


CONTROL = "/control/v1"
"""The path of the control API. Its page names the paths below it."""


def routes_of_control_api() -> set[str]:
    """The paths below that of the control API, and that itself."""
    return {path.removeprefix(CONTROL) or path for path in routes() if path.startswith(CONTROL)}


def flags_of_commands() -> set[str]:
    """The flags of all commands."""
    found, left = set(), [parser(command) for command in COMMANDS]
    while left:
        for action in left.pop()._actions:
            found |= {option for option in action.option_strings if option.startswith("--")}
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
    return found


def metrics() -> set[str]:
    """The names of the metrics."""
    with SignalingServer() as server, urllib.request.urlopen(f"{server.url}/metrics") as answer:
        text = answer.read().decode()
    # A server alone has no metrics of a cluster.
    collector = (ROOT / "src/server/http/metrics/collector.rs").read_text(encoding="utf-8")
    cluster = re.findall(r'(\w+)\(\s*"(cluster_\w+)"', collector)
    names = {f"cuttlefish_signaling_{name}{'_total' * (kind == 'counters')}" for kind, name in cluster}
    return names | set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def exceptions() -> set[str]:
    """The exceptions of the package."""
    return {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }


def conformance_rules() -> set[str]:
    """The rules of the conformance kit, for servers, devices and clients."""
    programs = (program_rules_of(kind, profile) for kind in ("device", "client") for profile in PROGRAM_PROFILES)
    return {rule.id for rules in (*map(rules_of, PROFILES), *programs) for rule in rules}


def python_names() -> set[str]:
    """The public names of the package that are no exceptions, and the public members of a server."""
    names = set(cuttlefish_signaling.__all__) - exceptions() - {"__version__"}
    return names | {name for name in dir(SignalingServer) if not name.startswith("_")}


def terms() -> dict[str, set[str]]:
    """All names and texts, by their kind."""
    plugin = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "pytest_plugin").glob("*.py"))
    return {
        "setting": {row.name for row in SETTINGS},
        "flag": flags_of_commands(),
        "variable": {flag.variable for flag in FLAGS},
        "option of pytest": set(re.findall(r"--signaling-[a-z]+", plugin)),
        "error text": error_texts(),
        "close code": close_codes(),
        "exception": exceptions(),
        "name of Python": python_names(),
        "route": {path for path in routes() if not path.startswith(CONTROL)},
        "route of the control API": routes_of_control_api(),
        "metric": metrics(),
        "log event": {event.name for event in EVENTS},
        "field of log events": set(FIELDS),
        "conformance rule": conformance_rules(),
    }
