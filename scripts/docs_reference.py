"""The pages of the site's reference that are made from the code: command line, settings, Python, rules, control API."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cuttlefish_signaling
from cuttlefish_signaling import conformance, errors, faults, probe, testing, webrtc
from cuttlefish_signaling._settings import ENVIRONMENT, SETTINGS, Setting
from cuttlefish_signaling.cli import COMMANDS, parser
from cuttlefish_signaling.conformance import PROFILES, PROGRAM_PROFILES, Rule, program_rules_of, rules_of

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

SHARES_SETTINGS = ("proxy", "check", "health")
"""Commands with the flags of `serve`."""


def cell(text: str) -> str:
    """A text as a cell of a table: `<`, `|` and `*` stand for themselves."""
    return re.sub(r"([<|*_\\[\]])", r"\\\1", " ".join(text.split())).replace(r"\<", "&lt;")


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown; `head` has its columns, separated by bars."""
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# The command line -----------------------------------------------------------------------------------------------------


def subparser(command: str, within: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The parser of a command."""
    return commands_of(within or parser(command))[command]


def commands_of(one: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser."""
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def flags_of(group: argparse._ArgumentGroup, one: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Each argument of a group, with its meaning."""
    rows, formatter = [], one._get_formatter()
    for action in group._group_actions:
        if action.help == argparse.SUPPRESS or isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
        name = (
            ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{action.metavar or action.dest}`"
        )
        rows.append((name, cell(formatter._expand_help(action))))
    return rows


def prose(text: str | None) -> str:
    """The description of a parser, which has blank lines between its paragraphs."""
    return cell_free("\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n")).strip())


def cell_free(text: str) -> str:
    """A text in which `<` and `*` stand for themselves, outside of code."""
    return re.sub(r"`[^`]*`|[<*]", lambda found: found[0] if found[0][0] == "`" else f"\\{found[0]}", text)


def command_section(name: str, one: argparse.ArgumentParser, level: int) -> str:
    """The section of a command: usage, description, examples, and a table for each group of flags."""
    usage = one.format_usage().removeprefix("usage: ")
    if name in ("serve", *SHARES_SETTINGS):
        usage = f"{one.prog} [--FLAG VALUE ...]\n"
    parts = [f"{'#' * level} {one.prog}", f"```text\n{usage}```", prose(one.description)]
    if one.epilog:
        parts.append(f"```text\n{one.epilog.strip()}\n```")
    for group in one._action_groups:
        rows = flags_of(group, one)
        if name in SHARES_SETTINGS and group.title not in ("options", "positional arguments"):
            continue
        if rows:
            title = group.title or "settings"
            parts += [f"{'#' * (level + 1)} {title[0].upper()}{title[1:]}", table("argument|meaning", rows)]
    if name in SHARES_SETTINGS:
        parts.append("The other flags are those of [serve](#cuttlefish-signaling-serve).")
    parts += [command_section(command, sub, level + 1) for command, sub in commands_of(one).items()]
    return "\n\n".join(part for part in parts if part)


def cli_page() -> str:
    """The reference of the command line."""
    parts = [
        "# Command line",
        "`--version` (`-V`) prints the version. Each command has `--help`.",
        "`python -m cuttlefish_signaling` is the same program. This page is made from its parser, as `--help` is.",
        "[Settings](settings.md) has the ranges and reasons of the flags that are settings.",
        "[Every door](doors.md) has their variables and keys.",
        *(command_section(command, subparser(command), 2) for command in COMMANDS),
    ]
    return "\n\n".join(parts) + "\n"


# Settings -------------------------------------------------------------------------------------------------------------


def door(row: Setting) -> tuple[str, ...]:
    """The names of a setting in Python, on the command line, in the environment and in TOML, and its default."""
    python = {"server": f"`SignalingServer({row.name}=)`", "serve": ""}.get(
        row.group, f"`{row.group.capitalize()}({row.name}=)`"
    )
    default = (
        f"`{row.default!r}`"
        if not isinstance(row.default, (cuttlefish_signaling.Limits, cuttlefish_signaling.Keepalive))
        else ""
    )
    flag = row.typed_flag
    if flag is None:
        return f"`{row.name}`", python, "", "", "", default
    variable = f"{ENVIRONMENT}{flag.name.replace('-', '_').upper()}"
    key = (
        f"`{row.name}` in `[{row.group}]`"
        if row.group in ("limits", "keepalive")
        else f"`{flag.name.replace('-', '_')}`"
    )
    return f"`{row.name}`", python, f"`--{flag.name}`", f"`{variable}`", key, default


def doors_page() -> str:
    """The names of each setting through every door."""
    return f"""\
# Settings by every door

This page is made from the table of settings. It has the names of each setting in Python, on the command line, in the
environment and in a file for `--config`. [Settings](settings.md) has the values, ranges and reasons.

A flag takes precedence over a variable, and a variable over a file. `@pytest.mark.signaling(...)` has the names of
Python. A setting without a flag is a Python object, or is made of several flags: its row in
[Settings](settings.md) says which.

{table("setting|Python|flag|environment|TOML|default in Python", map(door, SETTINGS))}"""


# Python ---------------------------------------------------------------------------------------------------------------


def objects(module: str, names: Iterable[str]) -> str:
    """The places at which mkdocstrings writes the documentation of these objects."""
    return "\n".join(f"::: {module}.{name}\n" for name in names)


def python_page() -> str:
    """The public names of the package, without the exceptions."""
    kinds = vars(errors)
    names = [name for name in cuttlefish_signaling.__all__ if name not in kinds and not name.startswith("_")]
    first = ["SignalingServer", "Limits", "Keepalive"]
    rest = [name for name in names if name not in first]
    return f"""\
# Python: the server

The names of `cuttlefish_signaling`. The exceptions have [a page of their own](python-errors.md), and so have
[the tools for tests](python-testing.md). `help()` shows the same texts.

{objects("cuttlefish_signaling", [*first, *rest])}"""


def python_testing_page() -> str:
    """Fake peers, cassettes, faults, media, and the other modules for tests."""
    parts = [
        "# Python: tests",
        "The guide is [Testing](testing.md). pytest finds the fixtures by itself.",
        "## cuttlefish_signaling.testing",
        objects("cuttlefish_signaling.testing", testing.__all__),
        "## cuttlefish_signaling.faults",
        objects("cuttlefish_signaling.faults", faults.__all__),
        "## cuttlefish_signaling.webrtc",
        objects("cuttlefish_signaling.webrtc", webrtc.__all__),
        "## cuttlefish_signaling.probe",
        objects("cuttlefish_signaling.probe", probe.__all__),
        "## cuttlefish_signaling.conformance",
        objects("cuttlefish_signaling.conformance", (n for n in conformance.__all__ if not hasattr(errors, n))),
        "## cuttlefish_signaling.mobly",
        "::: cuttlefish_signaling.mobly",
    ]
    return "\n\n".join(parts) + "\n"


def python_errors_page() -> str:
    """All exceptions."""
    names = [
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    return f"""\
# Python: exceptions

All are in `cuttlefish_signaling.errors`, and in `cuttlefish_signaling` too. [Errors and close codes](errors.md) has
their causes and cures.

{objects("cuttlefish_signaling.errors", names)}"""


# The conformance kit --------------------------------------------------------------------------------------------------


def rules_page() -> str:
    """All rules of the conformance kit."""
    profiles = {f"server {name}": rules_of(name) for name in PROFILES}
    for kind in ("device", "client"):
        profiles |= {f"{kind} {name}": program_rules_of(kind, name) for name in PROGRAM_PROFILES}
    named: dict[str, list[str]] = {}
    rules: dict[str, Rule] = {}
    for profile, members in profiles.items():
        for rule in members:
            rules.setdefault(rule.id, rule)
            named.setdefault(rule.id, []).append(profile)
    rows = (
        (
            f"`{name}`",
            rule.severity.value,
            ", ".join(named[name]),
            cell(rule.title),
            ", ".join(map(section, rule.numbers)),
        )
        for name, rule in sorted(rules.items())
    )
    return f"""\
# Conformance rules

This page is made from the [conformance kit](conformance.md). `--only` and `--skip` take the name of a rule, a pattern
with `*`, or a number of the [protocol](protocol.md). The severity is that of the first profile.

{table("rule|severity|profiles|behaviour|protocol", rows)}"""


def section(number: str) -> str:
    """The number of a rule as a link to the protocol, if it is one of a table."""
    is_rule = number.count(".") >= 1 and f'id="rule-{number.replace(".", "-")}"' in PROTOCOL
    return f"[{number}](protocol.md#rule-{number.replace('.', '-')})" if is_rule else number


# The control API ------------------------------------------------------------------------------------------------------


def shape(schema: Mapping[str, Any]) -> str:
    """A schema in short: the name of a shape, the fields of an object, the items of a list."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return " or ".join(map(shape, schema[several]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"[{shape(schema.get('items', {}))}, ...]"
    if "properties" in schema:
        needed = schema.get("required", ())
        fields = (f"{name}{'' if name in needed else '?'}: {shape(one)}" for name, one in schema["properties"].items())
        return "{" + ", ".join(fields) + "}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def content(part: Mapping[str, Any]) -> str:
    """The shape of a body, with its type if it is not JSON."""
    shapes = []
    for media, one in part.get("content", {}).items():
        text = shape(one.get("schema", {}))
        shapes.append(f"`{text}`" if media == "application/json" else f"{media}: `{text}`")
    return "; ".join(shapes).replace("|", "\\|")


def control_routes_page() -> str:
    """The routes and shapes of the control API, from its OpenAPI document."""
    api = json.loads((ROOT / "src/server/control/openapi.json").read_text(encoding="utf-8"))
    rows = []
    for path, methods in api["paths"].items():
        for method, one in methods.items():
            if method == "parameters":
                continue
            query = [f"`{field['name']}`" for field in one.get("parameters", ()) if field.get("in") == "query"]
            body = content(one.get("requestBody", {}))
            good = "; ".join(content(answer) for code, answer in one["responses"].items() if code.startswith("2"))
            sent = " ".join(part for part in (", ".join(query), body) if part)
            rows.append((f"`{method.upper()} {path}`", cell(one.get("summary", "")), sent, good))
    shapes = api["components"]["schemas"].items()
    return f"""\
# Routes of the control API

This page is made from the OpenAPI document of the server, `GET /control/v1/openapi.json`. [Control API](control-api.md)
is the guide, with the errors. A `?` marks a field that may be missing.

{table("route|meaning|query and body|answer", rows)}
## Shapes

{table("name|fields", ((f"`{name}`", f"`{shape(one)}`") for name, one in shapes))}"""


REFERENCE: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "conformance-rules.md": rules_page,
    "control-routes.md": control_routes_page,
    "doors.md": doors_page,
    "python-api.md": python_page,
    "python-errors.md": python_errors_page,
    "python-testing.md": python_testing_page,
}
"""The pages, by their names in the site."""
