"""The settings of the command line.

Each comes from its flag, else its environment variable, else the config file, else its default.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import Keepalive, Limits, _native
from .._settings import ENVIRONMENT, FLAGS, GROUPS, Flag
from ..errors import ConfigError


class Found(dict[str, Any]):
    """The settings by their keys."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}
        """The flag, variable or place in a file of each setting that was given; defaults are missing."""

    def origin(self, key: str) -> str:
        """The flag, variable or place in a file that has a setting; the flag for a default."""
        return self.origins.get(key) or f"--{key.replace('_', '-')}"


def settings(arguments: argparse.Namespace, environment: dict[str, str]) -> Found:
    """Returns the settings by their keys. Raises ConfigError, which names the flag, variable or file."""
    path = arguments.config or environment.get(f"{ENVIRONMENT}CONFIG")
    file = _read_file(path) if path else {}
    tables = {name: file.pop(name, {}) for name in GROUPS}
    found = Found()
    found["limits"] = Limits(**_from_table("limits", tables["limits"]))
    found["keepalive"] = Keepalive(**_from_table("keepalive", tables["keepalive"]))
    for flag in FLAGS:
        from_file = file.pop(flag.key, None)
        if (given := getattr(arguments, flag.key)) is not None:
            found[flag.key], found.origins[flag.key] = given, f"--{flag.name}"
        elif (text := environment.get(flag.variable)) is not None:
            found[flag.key], found.origins[flag.key] = _from_environment(flag, text), flag.variable
        elif from_file is not None:
            place = f"{path}: {flag.key}"
            found[flag.key], found.origins[flag.key] = flag.kind.read(place, from_file), place
        else:
            found[flag.key] = flag.default
    if file:
        known = ", ".join([flag.key for flag in FLAGS] + [f"[{name}]" for name in GROUPS])
        raise ConfigError("config", f"{path}: unknown key {next(iter(file))!r}; there are {known}")
    return found


def _from_environment(flag: Flag, text: str) -> Any:
    kind = flag.kind
    try:
        value = [kind.parse(part) for part in text.split()] if kind.repeats else kind.parse(text)
    except ValueError:
        raise ConfigError(flag.variable, f"{text!r} makes no sense") from None
    if kind.choices and value not in kind.choices:
        raise ConfigError(flag.variable, f"{text!r} is none of {', '.join(kind.choices)}")
    return value


def _from_table(name: str, values: Any) -> dict[str, Any]:
    """Returns the keyword arguments of `Limits` or `Keepalive`. The server checks their values."""
    rows = {row.name: row for row in GROUPS[name]}
    if not isinstance(values, dict):
        raise ConfigError(name, f"must be a table, got {values!r}")
    for key in values:
        if key not in rows:
            raise ConfigError(name, f"unknown key {key!r}; there are {', '.join(rows)}")
    return {key: None if value == "none" and rows[key].kind.optional else value for key, value in values.items()}


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            table: dict[str, Any] = json.loads(_native.toml_to_json(file.read()))
    except (OSError, ValueError) as error:
        raise ConfigError("config", f"cannot read {path}: {error}") from error
    return table
