"""A row of the table of settings."""

from __future__ import annotations

from typing import Any, NamedTuple

from .kinds import Kind
from .reload import RELOAD

ENVIRONMENT = "CUTTLEFISH_SIGNALING_"
"""The beginning of environment variables."""


class Flag(NamedTuple):
    """The names of a setting on the command line: its flag, its environment variable and its key in a TOML file."""

    name: str
    """The flag without dashes in front."""
    help: str
    """The text of `--help`."""
    default: Any = None
    """The default of the command line."""
    metavar: str | None = None
    kind: Kind = Kind("")
    """The type on the command line. A `Setting` gives its own type to a flag that has none."""
    table: str = ""
    """The table of a TOML file that has its key; empty for the top level."""

    @property
    def key(self) -> str:
        """The name of its value: the flag with underscores."""
        return self.name.replace("-", "_")

    @property
    def place(self) -> str:
        """The key in a TOML file, with its table: `port`, `keepalive.interval`."""
        return f"{self.table}.{self.key.removeprefix(f'{self.table}_')}" if self.table else self.key

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT + self.key.upper()


class Setting(NamedTuple):
    """One setting. Checks, flags, variables, TOML keys and the reference are made from it.

    A test compares it with the signature and the docstring of `SignalingServer`, with `Limits` and `Keepalive`, and
    with the defaults and keys of the Rust core.
    """

    name: str
    """The keyword of `SignalingServer`, `Limits` or `Keepalive`; in the group `serve` the key in TOML."""
    kind: Kind
    default: Any
    """The default in Python and in Rust."""
    help: str
    """The meaning: sentences for the docstring and the reference."""
    reason: str = ""
    """The reason for the setting or for its default."""
    special: tuple[tuple[str, str], ...] = ()
    """Values that are more than a number or a name, each with its meaning."""
    group: str = "server"
    """`server`, `limits`, `keepalive`, or `serve`: only on the command line."""
    flag: Flag | None = None
    on_command_line: str = ""
    """The difference on the command line, for the reference."""
    instead: str = ""
    """For a setting without a flag, or without a keyword: the way that takes its place, for the reference."""
    is_core: bool = True
    """Whether the Rust core reads it."""

    @property
    def path(self) -> str:
        """The name in errors, and for the Rust core: `port`, `limits.max_devices`."""
        return f"{self.group}.{self.name}" if self.group in ("limits", "keepalive") else self.name

    @property
    def reload(self) -> str:
        """The effect of a reload on it: `at once`, `new connections` or `restart`. Empty for a group of settings."""
        return RELOAD.get(self.path, "")

    @property
    def text(self) -> str:
        """The docstring."""
        special = [f"{value}: {meaning}." for value, meaning in self.special]
        return " ".join(part for part in (self.help, *special, self.reason) if part)

    @property
    def typed_flag(self) -> Flag | None:
        """The flag with its type."""
        if self.flag is None or self.flag.kind.annotation:
            return self.flag
        return self.flag._replace(kind=self.kind)
