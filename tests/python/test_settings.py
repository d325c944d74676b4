"""The table of settings, compared with Python, Rust, the command line and docs. A new setting fails where it lacks."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path as FilePath
from typing import Any

import pytest

import cuttlefish_signaling
from cuttlefish_signaling import ConfigError, Keepalive, Limits, SignalingServer, _native
from cuttlefish_signaling._checks import MAX_SECONDS
from cuttlefish_signaling._config import Settings
from cuttlefish_signaling._settings import FLAGS, GROUPS, KEYWORDS, SETTINGS, Flag, Setting
from cuttlefish_signaling._settings.kinds import Choice, Integer, Seconds, Strings, Switch
from cuttlefish_signaling.cli import main, parser
from cuttlefish_signaling.cli.sources import settings as merged

from settings_page import PAGE, page

CORE = {row.path: row for row in SETTINGS if row.is_core and row.group != "serve"}
BOUNDED = [row for row in CORE.values() if isinstance(row.kind, Integer)]
TIMES = [row for row in CORE.values() if isinstance(row.kind, Seconds)]
NO_FLAG = {"jwt", "control_token", "tls", "sockets", "filter_device_info", "authorize", "limits", "keepalive"}
"""Settings without a flag: the command line has other flags or `--hooks` for them."""


def spaced(text: str | None) -> str:
    return " ".join((text or "").split())


def native(**changes: Any) -> dict[str, Any]:
    """The settings as the core reads them: the defaults, and these changes."""
    settings = Settings.of({row.name: row.default for row in KEYWORDS})
    return {**settings.native, "host": "127.0.0.1", "ice_servers": "[]", **changes}


# Python ---------------------------------------------------------------------------------------------------------------


def test_signature_of_the_server_is_the_table() -> None:
    parameters = dict(inspect.signature(SignalingServer.__init__).parameters)
    del parameters["self"]
    assert {name: (str(item.annotation).replace("'", '"'), item.default) for name, item in parameters.items()} == {
        row.name: (row.kind.annotation, row.default) for row in KEYWORDS
    }


def test_docstring_of_the_server_is_the_table() -> None:
    arguments = (inspect.getdoc(SignalingServer) or "").partition("Args:\n")[2].partition("\n\nRaises:")[0]
    entries = re.split(r"^    (?=\w+: )", arguments, flags=re.MULTILINE)[1:]
    told = dict(spaced(entry).split(": ", 1) for entry in entries)
    assert told == {row.name: row.text for row in KEYWORDS}


@pytest.mark.parametrize("dataclass", [Limits, Keepalive])
def test_dataclass_is_the_table(dataclass: type) -> None:
    rows = GROUPS[dataclass.__name__.lower()]
    found = [(item.name, item.type, item.default) for item in dataclasses.fields(dataclass)]
    assert found == [(row.name, row.kind.annotation, row.default) for row in rows]
    (tree,) = ast.parse(inspect.getsource(dataclass)).body
    assert isinstance(tree, ast.ClassDef)
    told = {
        field.target.id: spaced(text.value.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
    assert told == {row.name: row.text for row in rows}


# The Rust core --------------------------------------------------------------------------------------------------------


def test_defaults_of_the_core_are_the_table() -> None:
    defaults = _native.default_settings()
    ice = json.loads(defaults["ice_servers"])
    assert ice == {"message_type": "config", "ice_servers": list(CORE["ice_servers"].default)}
    expected = {path: list(row.default) if row.default == () else row.default for path, row in CORE.items()}
    assert defaults | {"ice_servers": []} == expected
    for path, value in expected.items():
        assert type(defaults[path]) is type(value) or path == "ice_servers", path


def serve(settings: dict[str, Any]) -> _native.Server:
    """A server of the core without hooks."""
    return _native.Server(settings, [], _native.Events(1, 1))


@pytest.mark.parametrize("path", CORE)
def test_core_reads_each_setting(path: str) -> None:
    settings = native()
    del settings[path]
    with pytest.raises(ConfigError, match=f"^{path}: is missing$"):
        serve(settings)


def test_core_reads_no_other_setting() -> None:
    settings = native()
    assert set(settings) == set(CORE)
    server = serve(settings)
    assert server.stop(1)


@pytest.mark.parametrize("row", [row for row in BOUNDED if row.kind.least > 1], ids=lambda row: row.path)  # type: ignore[attr-defined]
def test_core_refuses_less_than_the_least(row: Setting) -> None:
    assert isinstance(row.kind, Integer)
    with pytest.raises(ConfigError, match=f"^{row.path}: must be at least {row.kind.least}, got {row.kind.least - 1}$"):
        serve(native(**{row.path: row.kind.least - 1}))


@pytest.mark.parametrize("row", [row for row in BOUNDED if row.path != "port"], ids=lambda row: row.path)
def test_core_refuses_more_than_the_most(row: Setting) -> None:
    assert isinstance(row.kind, Integer)
    with pytest.raises(ConfigError, match=f"^{row.path}: (must be at most {row.kind.most}|[0-9]+ is out of range)"):
        serve(native(**{row.path: row.kind.most + 1}))


@pytest.mark.parametrize("row", TIMES, ids=lambda row: row.path)
def test_core_refuses_times_that_the_table_refuses(row: Setting) -> None:
    for value in (MAX_SECONDS * 1.001, 1e18, 1e300):
        with pytest.raises(ConfigError, match=f"^{row.path}: must be "):
            serve(native(**{row.path: value}))
        with pytest.raises(ConfigError, match=f"^{row.path}: must be "):
            row.kind.check(row.path, value)


def test_each_number_has_an_upper_limit() -> None:
    for row in SETTINGS:
        if row.kind.annotation in ("int", "float", "float | None"):
            assert isinstance(row.kind, Integer | Seconds), row.path
            is_rate = row.name.endswith(("_per_second", "_burst"))
            assert isinstance(row.kind, Seconds) or row.kind.most <= (2**32 - 1 if is_rate else 2**30), row.path


@pytest.mark.parametrize("row", TIMES, ids=lambda row: row.path)
def test_core_refuses_the_zero_and_the_none_that_the_table_refuses(row: Setting) -> None:
    assert isinstance(row.kind, Seconds)
    for value, is_allowed in ((0.0, row.kind.zero), (None, row.kind.optional)):
        if is_allowed:
            assert serve(native(**{row.path: value})).stop(1)
        else:
            with pytest.raises(ConfigError, match=f"^{row.path}: "):
                serve(native(**{row.path: value}))


@pytest.mark.parametrize("row", [row for row in CORE.values() if row.kind.choices], ids=lambda row: row.path)
def test_core_takes_each_choice_and_no_other(row: Setting) -> None:
    for choice in row.kind.choices:
        assert serve(native(**{row.path: choice})).stop(1)
    with pytest.raises(ConfigError, match=f'^{row.path}: "other" is not a choice$'):
        serve(native(**{row.path: "other"}))


@pytest.mark.parametrize("end", ["least", "most"])
def test_core_takes_both_ends_of_all_ranges(end: str) -> None:
    # The port of `most` may be taken, and `workers` are threads.
    ends = {row.path: getattr(row.kind, end) for row in BOUNDED if row.path not in ("port", "workers")}
    assert len(ends) > 20
    assert serve(native(**ends)).stop(1)


# The command line -----------------------------------------------------------------------------------------------------


def test_each_setting_has_a_flag_and_a_keyword_or_says_what_takes_its_place() -> None:
    assert {row.name for row in SETTINGS if row.flag is None} == NO_FLAG
    for row in SETTINGS:
        assert bool(row.instead) == (row.flag is None or row.group == "serve"), row.path


def test_each_flag_is_an_option_with_its_help() -> None:
    arguments = parser().parse_args(["serve"])
    assert set(vars(arguments)) == {flag.key for flag in FLAGS} | {"command", "config", "dry_run", "print_ca"}
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    assert all(flag.help and flag.kind.annotation for flag in FLAGS)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_flag_variable_and_file_give_the_same_value(flag: Flag, tmp_path: FilePath) -> None:
    value: Any
    toml, texts = '"x"', ["x"]
    if isinstance(flag.kind, Strings):
        value, toml, texts = ["x", "y"], '["x", "y"]', ["x", "y"]
    elif isinstance(flag.kind, Switch):
        value, toml, texts = True, "true", []
    elif isinstance(flag.kind, Choice):
        value = flag.kind.choices[-1]
        toml, texts = f'"{value}"', [value]
    elif isinstance(flag.kind, Integer | Seconds):
        value = max(7, flag.kind.least) if isinstance(flag.kind, Integer) else 7
        toml, texts = str(value), [str(value)]
    else:
        value = "x"
    assert value != flag.default
    given = [f"--{flag.name}={text}" for text in texts] or [f"--{flag.name}"]
    file = tmp_path / "server.toml"
    table, _, key = flag.place.rpartition(".")
    file.write_text(f"[{table}]\n{key} = {toml}\n" if table else f"{key} = {toml}\n")
    serve = parser().parse_args
    assert merged(serve(["serve"]), {})[flag.key] == flag.default
    assert merged(serve(["serve", *given]), {})[flag.key] == value
    assert merged(serve(["serve"]), {flag.variable: " ".join(texts) or "yes"})[flag.key] == value
    assert merged(serve(["serve", "--config", str(file)]), {})[flag.key] == value


@pytest.mark.parametrize("group", GROUPS)
def test_file_has_a_table_of_each_group(group: str, tmp_path: FilePath) -> None:
    file = tmp_path / "server.toml"
    values = {row.name: None if row.kind.optional else getattr(row.kind, "most", 70_000) for row in GROUPS[group]}
    lines = [f"{name} = " + ('"none"' if value is None else str(value)) for name, value in values.items()]
    file.write_text("\n".join([f"[{group}]", *lines]))
    found = merged(parser().parse_args(["serve", "--config", str(file)]), {})[group]
    assert found == getattr(cuttlefish_signaling, group.capitalize())(**values)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--allow-host", "lab", "--allow-origin", "x"], "--allow-origin: 'x' is not an origin"),
        (["--device-socket", "/" + "x" * 100], "--device-socket: '/x"),
        (["--workers", "0"], "--workers: '0' is not a whole number from 1 to 1024"),
        (["--hook-timeout", "0"], "--hook-timeout: '0' is not a number of seconds, more than 0"),
        (["--no-tls", "--assets-dir", "/nowhere/at/all"], "--assets-dir: /nowhere/at/all is not a directory"),
    ],
)
def test_flags_reach_the_keywords(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main(["serve", "--port", "0", *arguments]))
    assert end.value.code == 2
    assert error in capsys.readouterr().err


# The reference --------------------------------------------------------------------------------------------------------


def test_page_of_settings_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make settings`"


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.path)
def test_row_is_complete(row: Setting) -> None:
    for sentence in (row.help, row.reason, row.on_command_line):
        assert sentence == sentence.strip() and not sentence.endswith(" ")
    assert row.help.endswith("."), "help is made of sentences"
    assert row.kind.annotation and row.kind.values
    assert (row.group == "serve") <= (row.flag is not None), "a setting of the command line has a flag"
    assert row.text.count("`") % 2 == 0
    if row.group != "serve" and row.name != "ice_servers":
        row.kind.check(row.path, row.default)
