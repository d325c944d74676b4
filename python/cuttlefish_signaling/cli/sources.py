"""The settings of the command line.

Each comes from its flag, else its environment variable, else the config file, else its default.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from .. import Keepalive, Limits, _native
from .._settings import ENVIRONMENT, FLAGS, GROUPS, SETTINGS, Flag
from ..errors import ConfigError
from .activation import Inherited
from .faults import FileFault
from .variables import understood

CONFIG = f"{ENVIRONMENT}CONFIG"
"""The variable that names the file."""


_KEYS = {name: row.flag.key for row in SETTINGS if row.flag for name in (row.path, row.flag.name, row.flag.key)}
"""The key of each setting by its names: the keyword or field (`limits.max_devices`), the flag and the key."""

_OF_PYTHON = (
    ("TurnRest.secret", "turn_secret"),
    ("TurnRest.ttl", "turn_ttl"),
    ("TurnRest.stun.urls", "stun"),
    ("TurnRest.urls", "turn"),
    ("IceCommand.argv", "ice_servers_command"),
    ("IceCommand.timeout", "ice_servers_timeout"),
    ("IceCommand.ttl", "ice_servers_ttl"),
    ("IceCommand.fallback", "ice_servers"),
    ("StaticTokens.tokens", "token_file"),
    ("Upstream.url", "upstream"),
    ("Upstream.ca", "upstream_ca"),
    ("Upstream.insecure", "upstream_insecure"),
    ("Upstream.timeout", "upstream_timeout"),
    ("Jwt.keys", "jwt_keys"),
    ("Jwt.issuer", "jwt_issuer"),
    ("Jwt.audience", "jwt_audience"),
    ("Jwt.leeway", "jwt_leeway"),
    ("Jwt.identity", "jwt_identity"),
    ("Jwt.devices", "jwt_devices"),
    ("Jwt.rights", "jwt_rights"),
    ("Jwt.values", "jwt_value"),
    ("Jwt.needed_for", "jwt_needed_for"),
    ("Jwt.max_token", "jwt_max_token"),
    ("Jwt.max_keys", "jwt_max_keys"),
    ("Jwt.check_interval", "jwt_check_interval"),
    ("Cluster.url", "cluster"),
    ("Cluster.name", "cluster_name"),
    ("Cluster.listen", "cluster_listen"),
    ("Cluster.address", "cluster_address"),
    ("Cluster.secret", "cluster_secret_file"),
    ("Cluster.ca", "cluster_ca"),
    ("Cluster.node", "node"),
    ("Cluster.device_id_template", "device_id_template"),
    ("Cluster.on_outage", "cluster_on_outage"),
)
"""The arguments of Python that are made of settings, and their names here."""

_IN_PYTHON = "set `authorize`, or allow_unauthenticated"
_ON_THE_COMMAND_LINE = "give --token-file or --jwt-keys, or --hooks with `authorize`, or --allow-unauthenticated"
"""The fix of an open address, in Python and here."""

_COMMANDS = ("config", "print-ca", "dry-run")
"""Flags that are no settings."""


class Found(dict[str, Any]):
    """The settings by their keys."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}
        """The flag, variable or place in a file of each setting that was given; defaults are missing."""

        self.inherited: list[Inherited] = []
        """The sockets that systemd has passed."""

        self.faults: list[FileFault] = []
        """The tables `[[faults]]` of the file."""

        self.notices: list[str] = []
        """Lines for the log about variables that have no effect."""

    def origin(self, key: str) -> str:
        """The flag, variable or place in a file that has a setting; the flag for a default."""
        return self.origins.get(key) or f"--{key.replace('_', '-')}"

    def is_preset(self, key: str) -> bool:
        """Whether a setting comes from `--operator`."""
        return key != "operator" and self.origins.get(key, "").startswith("--operator")

    def named(self, error: ConfigError) -> ConfigError:
        """Returns the error with the flag, variable or place in a file of its setting."""
        setting = next(
            (flag + error.setting[len(name) :] for name, flag in _OF_PYTHON if error.setting.startswith(name)),
            error.setting,
        )
        name, rest = re.fullmatch(r"((?:limits\.|keepalive\.)?[\w-]*)(.*)", setting, re.DOTALL).groups()  # type: ignore[union-attr]
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
            what = re.sub(r"(?<=must be at )(least|most) ([a-z_]+)", self._bound, what)
            if error.setting.startswith("Cluster."):
                what = re.sub("`([a-z_]+)`", lambda other: self._of_cluster(other[1]), what)
            return ConfigError(self.origin(key) + rest, what)
        if name == "sockets" and entry:
            return ConfigError(str(self.inherited[int(entry[1])]), error.what)
        if name == "tls":
            return ConfigError(f"{self.origin('tls_cert')}, {self.origin('tls_key')}", error.what)
        return ConfigError(f"--{name}{rest}", error.what) if name in _COMMANDS else error

    def _of_cluster(self, argument: str) -> str:
        """The name of another argument of `Cluster`, or the text itself."""
        key = dict(_OF_PYTHON).get(f"Cluster.{argument}")
        return f"`{argument}`" if key is None else self.origin(key)

    def _bound(self, found: re.Match[str]) -> str:
        """The name of another limit that bounds one."""
        key = _KEYS.get(f"limits.{found[2]}")
        return f"{found[1]} {found[2] if key is None else self.origin(key)}"


def _raise(error: ConfigError) -> None:
    raise error


def settings(
    arguments: argparse.Namespace, environment: dict[str, str], refuse: Callable[[ConfigError], None] = _raise
) -> Found:
    """Returns the settings by their keys. Raises ConfigError, which names the flag, variable or place in the file.

    With `refuse`, it is called for each error, and the setting has its default.
    """
    path = arguments.config or environment.get(CONFIG)
    file = _File("", {}, {})
    try:
        file = _File.read(path, "--config" if arguments.config else CONFIG) if path else file
    except ConfigError as error:
        refuse(error)
    found = Found()
    environment, found.notices = understood(environment)
    for flag in FLAGS:
        try:
            _find(found, flag, arguments, environment, file)
        except ConfigError as error:
            refuse(error)
            found[flag.key] = flag.default
    for number, table in enumerate(file.take_faults(refuse)):
        try:
            found.faults.append(FileFault.read(table, partial(file.place_of_fault, number)))
        except ConfigError as error:
            refuse(error)
    for unknown in file.unknown():
        refuse(unknown)
    for name, dataclass in (("limits", Limits), ("keepalive", Keepalive)):
        found[name] = dataclass(**{row.name: found[row.flag.key] for row in GROUPS[name] if row.flag})
    return found


def _find(found: Found, flag: Flag, arguments: argparse.Namespace, environment: dict[str, str], file: _File) -> None:
    """Reads one setting. Raises ConfigError."""
    from_file = file.take(flag)
    if (given := getattr(arguments, flag.key)) is not None:
        if isinstance(given, Unparsed):
            given = given.parsed(flag)
        # None is a flag that was not given: the parser leaves `none` as a text.
        value = None if flag.kind.optional and given == "none" else given
        found[flag.key], found.origins[flag.key] = value, f"--{flag.name}"
    elif (text := environment.get(flag.variable)) is not None:
        found[flag.key], found.origins[flag.key] = _from_environment(flag, text), flag.variable
    elif from_file is not None:
        place = file.place(flag.place)
        found[flag.key], found.origins[flag.key] = flag.kind.read(place, from_file), place
    else:
        found[flag.key] = flag.default


class Unparsed(list[str]):
    """The texts of a flag of `check`, which tells all errors and not only the first."""

    def parsed(self, flag: Flag) -> Any:
        """Returns the value. Raises ConfigError."""
        values = [_parsed(f"--{flag.name}", flag, text) for text in self]
        return values if flag.kind.repeats else values[-1]


class _File(NamedTuple):
    """A TOML file. Its values are taken one by one."""

    path: str
    values: dict[str, Any]
    lines: dict[str, int]
    """The line of each key, also of those in tables: `limits.max_devices`."""

    @classmethod
    def read(cls, path: str, origin: str) -> _File:
        """Reads the file. Raises ConfigError."""
        try:
            with open(path, encoding="utf-8") as file:
                text, lines = _native.toml_to_json(file.read())
        except (OSError, ValueError) as error:
            raise ConfigError(origin, f"cannot read {path}: {error}") from error
        found = cls(path, json.loads(text), dict(lines))
        found._refuse_null("", found.values)
        for name in GROUPS:
            if not isinstance(values := found.values.setdefault(name, {}), dict):
                raise ConfigError(found.place(name), f"must be a table, got {values!r}")
        return found

    def place(self, key: str) -> str:
        """The file, line and key, for errors."""
        line = self.lines.get(key)
        return f"{self.path}{'' if line is None else f', line {line}'}: {key}"

    def take(self, flag: Flag) -> Any:
        """Removes and returns the value of a flag; None if the file has none."""
        table = self.values.get(flag.table, {}) if flag.table else self.values
        return table.pop(flag.place.removeprefix(f"{flag.table}."), None)

    def take_faults(self, refuse: Callable[[ConfigError], None]) -> list[Any]:
        """Removes and returns the tables `[[faults]]`."""
        tables = self.values.pop("faults", [])
        if isinstance(tables, list):
            return tables
        refuse(ConfigError(self.place("faults"), f"must be written as [[faults]], once for each fault, got {tables!r}"))
        return []

    def place_of_fault(self, number: int, key: str) -> str:
        """The file, line, number of the table and key, for errors. The line of a missing key is that of the table."""
        table = f"faults.{number}"
        line = self.lines.get(f"{table}.{key}", self.lines.get(table, self.lines.get("faults")))
        return f"{self.path}, line {line}, [[faults]] {number + 1}{key and f': {key}'}"

    def unknown(self) -> Iterator[ConfigError]:
        """Returns an error for each key that no flag has taken."""
        for name, value in self.values.items():
            if name not in GROUPS:
                known = (
                    [flag.key for flag in FLAGS if not flag.table] + [f"[{group}]" for group in GROUPS] + ["[[faults]]"]
                )
                yield self._unknown(name, name, known)
                continue
            for key in value:
                yield self._unknown(f"{name}.{key}", key, [row.name for row in GROUPS[name]])

    def _unknown(self, place: str, key: str, known: list[str]) -> ConfigError:
        in_a_table = [flag.place for flag in FLAGS if flag.table and flag.place.split(".")[1] == key]
        near = get_close_matches(key, known, n=1)
        if in_a_table and place not in in_a_table:
            meant = f"its place is {' or '.join(in_a_table)}"
        else:
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        return ConfigError(self.place(place), f"unknown key {key!r}; {meant}")

    def _refuse_null(self, place: str, value: Any) -> None:
        """Raises ConfigError for inf and nan, which have no JSON and come as null. TOML has no null of its own."""
        if value is None:
            key = place
            while key not in self.lines and "." in key:
                key = key.rpartition(".")[0]  # Entries of a list have no line of their own.
            if in_table := re.fullmatch(r"faults\.([0-9]+)\.(.+)", key):
                place = self.place_of_fault(int(in_table[1]), in_table[2])
                raise ConfigError(place, "is inf or nan, which no fault takes")
            what = 'is inf or nan, which no setting takes; write "none" for a time without an end'
            raise ConfigError(self.place(key), what)
        items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        for name, item in items:
            self._refuse_null(f"{place}.{name}".lstrip("."), item)


def _from_environment(flag: Flag, text: str) -> Any:
    if flag.kind.repeats:
        return [_parsed(flag.variable, flag, part) for part in text.split()]
    return _parsed(flag.variable, flag, text)


def _parsed(place: str, flag: Flag, text: str) -> Any:
    """Returns the value of a text. Raises ConfigError, which names the place."""
    kind = flag.kind
    try:
        value = kind.parse(text)
    except ValueError:
        raise ConfigError(place, f"{text!r} is not {kind.wanted}") from None
    if kind.choices and value not in kind.choices:
        raise ConfigError(place, f"{text!r} is not {kind.wanted}")
    return value
