"""The settings of the command line.

Each comes from its flag, else its environment variable, else the config file, else its default.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from .. import Keepalive, Limits, _native
from .._settings import ENVIRONMENT, FLAGS, GROUPS, Flag
from .._settings.server import SERVER
from ..errors import ConfigError
from .variables import understood

CONFIG = f"{ENVIRONMENT}CONFIG"
"""The variable that names the file."""


_KEYS = {name: row.flag.key for row in SERVER if row.flag for name in (row.name, row.flag.name, row.flag.key)}
"""The key of each setting by its names: the keyword, the flag and the key."""

_IN_PYTHON = "set `authorize`, or allow_unauthenticated"
_ON_THE_COMMAND_LINE = "give --token-file, or --hooks with `authorize`, or --allow-unauthenticated"
"""The fix of an open address, in Python and here."""

_COMMANDS = ("config", "print-ca", "dry-run")
"""Flags that are no settings."""


class Found(dict[str, Any]):
    """The settings by their keys."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}
        """The flag, variable or place in a file of each setting that was given; defaults are missing."""

        self.notices: list[str] = []
        """Lines for the log about variables that have no effect."""

    def origin(self, key: str) -> str:
        """The flag, variable or place in a file that has a setting; the flag for a default."""
        return self.origins.get(key) or f"--{key.replace('_', '-')}"

    def named(self, error: ConfigError) -> ConfigError:
        """Returns the error with the flag, variable or place in a file of its setting."""
        name, rest = re.fullmatch(r"([\w-]*)(.*)", error.setting, re.DOTALL).groups()  # type: ignore[union-attr]
        entry = re.match(r"\[([0-9]+)\]", rest)
        if name == "ice_servers" and entry and not self["turn"]:
            # The server has one list, of --stun and then of --ice-servers.
            number, before = int(entry[1]), len(self["stun"] or [])
            if number < before:
                return ConfigError(self.origin("stun"), error.what)
            rest = f"[{number - before}]{rest[entry.end() :]}"
        if (key := _KEYS.get(name)) is not None:
            what = error.what.replace(_IN_PYTHON, _ON_THE_COMMAND_LINE)
            what = re.sub(r"(?<=the path of )\w+", lambda other: self.origin(_KEYS.get(other[0], other[0])), what)
            return ConfigError(self.origin(key) + rest, what)
        if name == "tls":
            return ConfigError(f"{self.origin('tls_cert')}, {self.origin('tls_key')}", error.what)
        return ConfigError(f"--{name}{rest}", error.what) if name in _COMMANDS else error


def settings(arguments: argparse.Namespace, environment: dict[str, str]) -> Found:
    """Returns the settings by their keys. Raises ConfigError, which names the flag, variable or file."""
    path = arguments.config or environment.get(CONFIG)
    file = _read_file(path, "--config" if arguments.config else CONFIG) if path else {}
    tables = {name: file.pop(name, {}) for name in GROUPS}
    found = Found()
    environment, found.notices = understood(environment)
    found["limits"] = Limits(**_from_table(path, "limits", tables["limits"]))
    found["keepalive"] = Keepalive(**_from_table(path, "keepalive", tables["keepalive"]))
    for flag in FLAGS:
        from_file = file.pop(flag.key, None)
        if (given := getattr(arguments, flag.key)) is not None:
            # None is a flag that was not given: the parser leaves `none` as a text.
            value = None if flag.kind.optional and given == "none" else given
            found[flag.key], found.origins[flag.key] = value, f"--{flag.name}"
        elif (text := environment.get(flag.variable)) is not None:
            found[flag.key], found.origins[flag.key] = _from_environment(flag, text), flag.variable
        elif from_file is not None:
            place = f"{path}: {flag.key}"
            found[flag.key], found.origins[flag.key] = flag.kind.read(place, from_file), place
        else:
            found[flag.key] = flag.default
    if file:
        known = ", ".join([flag.key for flag in FLAGS] + [f"[{name}]" for name in GROUPS])
        raise ConfigError(f"{path}: {next(iter(file))}", f"unknown key {next(iter(file))!r}; there are {known}")
    return found


def _from_environment(flag: Flag, text: str) -> Any:
    kind = flag.kind
    try:
        value = [kind.parse(part) for part in text.split()] if kind.repeats else kind.parse(text)
    except ValueError:
        raise ConfigError(flag.variable, f"{text!r} is not {kind.wanted}") from None
    if kind.choices and value not in kind.choices:
        raise ConfigError(flag.variable, f"{text!r} is not {kind.wanted}")
    return value


def _from_table(path: str | None, name: str, values: Any) -> dict[str, Any]:
    """Returns the keyword arguments of `Limits` or `Keepalive`."""
    rows = {row.name: row for row in GROUPS[name]}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {name}", f"must be a table, got {values!r}")
    for key in values:
        if key not in rows:
            raise ConfigError(f"{path}: {name}.{key}", f"unknown key {key!r}; there are {', '.join(rows)}")
    return {key: rows[key].kind.read(f"{path}: {name}.{key}", value) for key, value in values.items()}


def _read_file(path: str, origin: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            table: dict[str, Any] = json.loads(_native.toml_to_json(file.read()))
    except (OSError, ValueError) as error:
        raise ConfigError(origin, f"cannot read {path}: {error}") from error
    _refuse_null(path, table)
    return table


def _refuse_null(place: str, value: Any) -> None:
    """Raises ConfigError for inf and nan, which have no JSON and come as null. TOML has no null of its own."""
    if value is None:
        raise ConfigError(place, 'is inf or nan, which no setting takes; write "none" for a time without an end')
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        _refuse_null(f"{place}: {key}" if ": " not in place else f"{place}.{key}", item)
