"""Files of tokens: lines, TOML or JSON. An error names the line and the key, and never quotes what may be a token."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import _native
from ._checks import names
from ._models import Grant
from .errors import ConfigError

ROLES = ("device", "client", "http")

MANAGE = "+manage"
"""The word of a line that lets its token manage devices on the dashboard."""

TOML_TIME = "$__toml_private_datetime"
"""The key under which the JSON of a TOML document has a time."""

EXCLUSIVE = "+exclusive"
"""The word of a line that gives its token each of its devices for itself."""

RIGHTS = (MANAGE, EXCLUSIVE)
"""The words of a line that are rights."""

GRANT_KEYS = ("devices", "manage", "exclusive", "advertise_address")
KEYS = ("token", "sha256", "identity", "roles", "expires", *GRANT_KEYS)
TABLES = ("tokens", "needed_for")


@dataclass(frozen=True)
class KnownToken:
    """A token as the server knows it."""

    digest: bytes
    result: Any
    """The result of `authorize` for it."""
    roles: tuple[str, ...] = ROLES
    expires: float | None = None
    """Seconds since 1970."""


def digest(token: str) -> bytes:
    """Returns the SHA-256 of a token. Digests have the same length, so no comparison depends on that of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def checked_roles(setting: str, roles: Any) -> tuple[str, ...]:
    """Returns roles. Raises ConfigError for one that is unknown."""
    found = names(setting, roles)
    for role in found:
        if role not in ROLES:
            raise ConfigError(setting, f"{role!r} is not one of {', '.join(map(repr, ROLES))}")
    return found


def read_token_file(setting: str, path: str | os.PathLike[str]) -> tuple[tuple[KnownToken, ...], tuple[str, ...]]:
    """Returns the tokens of a file, and the roles that need one. Raises ConfigError, which names the setting.

    The name of the file tells the format: `.toml`, `.json`; every other one has lines.
    """
    try:
        name = os.fsdecode(path)
        with open(name, encoding="utf-8") as file:
            text = file.read()
    except TypeError:
        raise ConfigError(setting, f"must be the path of a file, got {path!r}") from None
    except (OSError, ValueError) as error:
        # The text of a UnicodeError would quote the file. Any other ValueError is that of a path.
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        if not isinstance(error, OSError | UnicodeError):
            raise ConfigError(setting, f"must be the path of a file, got {path!r}: {error}") from None
        raise ConfigError(setting, f"cannot read {name}: {why}") from None
    suffix = os.path.splitext(name)[1].lower()
    try:
        if suffix in (".toml", ".json"):
            known, roles = _Document(text, is_toml=suffix == ".toml").read()
        else:
            known, roles = tuple(_lines(text)), ROLES
        if not known:
            how = "one on each line" if suffix not in (".toml", ".json") else "an entry of `tokens` for each"
            raise ConfigError("", f"has no token; write {how}")
        _check_unique(known)
    except ConfigError as error:
        place = f"{name}: {error.setting}" if error.setting else name
        raise ConfigError(setting, f"{place} {error.what}") from None
    return tuple(one for _, one in known), roles


Numbered = tuple[str, KnownToken]
"""A token with its place, like `line 3`."""


def _check_unique(known: tuple[Numbered, ...]) -> None:
    seen = set()
    for place, one in known:
        if one.digest in seen:
            kind = "an entry" if "tokens" in place else "a line"
            raise ConfigError(place.removesuffix(":"), f"has the same token as {kind} before it")
        seen.add(one.digest)


def _lines(text: str) -> Iterator[Numbered]:
    """Reads lines of a token, its identity, and patterns of the device ids that it may use."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token, *rest = words
        identity = rest[0] if rest else None
        if identity in RIGHTS:
            raise ConfigError(f"line {number}", f"needs an identity before {identity}")
        devices = [word for word in rest[1:] if word not in RIGHTS]
        manage, exclusive = (right in rest[1:] for right in RIGHTS)
        grant = Grant(identity, devices=devices or None, manage=manage, exclusive=exclusive) if rest[1:] else identity
        yield f"line {number}", KnownToken(digest(token), grant)


class _Document:
    """A TOML or JSON document with tables of tokens."""

    def __init__(self, text: str, *, is_toml: bool) -> None:
        self._lines: dict[str, int] = {}
        """The lines of keys, like `tokens.0.devices`."""
        try:
            if is_toml:
                text, lines = _native.toml_to_json(text)
                self._lines = dict(lines)
            self._tables = json.loads(text, object_pairs_hook=_unique)
            if not is_toml:
                self._lines = _json_lines(text)
        except RecursionError:
            raise ConfigError("", "has too many brackets in each other") from None
        except ValueError as error:
            # The errors of JSON have their place behind, and those of TOML in front.
            found = re.match(r"(.*): (line \d+),? (column \d+)|(line \d+), (column \d+): (.*)", str(error))
            if found is None:
                raise ConfigError("", str(error)) from None
            place, why = f"{found[2] or found[4]}, {found[3] or found[5]}", found[1] or found[6]
            raise ConfigError(f"{place}:", why) from None

    def read(self) -> tuple[tuple[Numbered, ...], tuple[str, ...]]:
        """Returns the tokens and the roles that need one."""
        tables = self._tables
        if not isinstance(tables, Mapping):
            raise ConfigError("", 'must be an object, like {"tokens": [{"token": "...", "identity": "alice"}]}')
        self._check_keys("", tables, TABLES)
        entries = tables.get("tokens", [])
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise ConfigError(self._place("tokens"), "must be an array of tables: write `[[tokens]]` above each")
        needed = tables.get("needed_for", ROLES)
        roles = self._checked("needed_for", lambda: checked_roles("", needed))
        return tuple(self._token(f"tokens.{index}", entry) for index, entry in enumerate(entries)), roles

    def _token(self, path: str, entry: Mapping[str, Any]) -> Numbered:
        self._check_keys(path, entry, KEYS)
        roles, expires = entry.get("roles", ROLES), entry.get("expires")
        limits = {key: entry[key] for key in GRANT_KEYS if key in entry}
        result = entry.get("identity")
        self._checked(f"{path}.identity", lambda: _check_identity(result))
        if limits:
            result = self._grant(path, result, limits)
        known = KnownToken(
            self._digest(path, entry),
            result,
            self._checked(f"{path}.roles", lambda: checked_roles("", roles)),
            self._checked(f"{path}.expires", lambda: _time(expires)),
        )
        return self._place(path), known

    def _grant(self, path: str, identity: Any, limits: dict[str, Any]) -> Grant:
        for key in limits:
            self._checked(f"{path}.{key}", lambda key=key: Grant(identity, **{key: limits[key]}))
        return Grant(identity, **limits)

    def _digest(self, path: str, entry: Mapping[str, Any]) -> bytes:
        token, hashed = entry.get("token"), entry.get("sha256")
        if (token is None) == (hashed is None):
            raise ConfigError(self._place(path), "needs `token` or `sha256`, and not both")
        if hashed is not None:
            if not isinstance(hashed, str) or not re.fullmatch("[0-9a-fA-F]{64}", hashed):
                raise ConfigError(self._place(f"{path}.sha256"), "must be the SHA-256 of the token, 64 hex digits")
            return bytes.fromhex(hashed)
        if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
            raise ConfigError(self._place(f"{path}.token"), "must be a string that is not empty and has no spaces")
        return digest(token)

    def _check_keys(self, path: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                # The key is not quoted: a token may have been written there.
                line = self._lines.get(f"{path}.{key}" if path else key)
                place = f"line {line}:" if line else self._place(path) if path else ""
                raise ConfigError(place, f"has an unknown key; there are {', '.join(known)}")

    def _checked(self, path: str, check: Any) -> Any:
        try:
            return check()
        except ConfigError as error:
            raise ConfigError(self._place(path), error.what) from None

    def _place(self, path: str) -> str:
        """Returns `line 3: tokens[0].devices` for a path."""
        shown = re.sub(r"\.(\d+)", r"[\1]", path)
        # JSON has the lines of entries only.
        line = self._lines.get(path) or self._lines.get(path.rpartition(".")[0])
        return f"line {line}: {shown}:" if line else f"{shown}:"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has an object with the same key twice")
    return found


def _json_lines(text: str) -> dict[str, int]:
    """Returns the lines of the entries of `tokens` in a valid document."""
    lines: dict[str, int] = {}
    start = re.search(r'"tokens"\s*:\s*\[', text)
    at, decoder = start.end() if start else len(text), json.JSONDecoder()
    while (entry := re.compile(r"[\s,]*(?=\{)").match(text, at)) is not None:
        lines[f"tokens.{len(lines)}"] = text.count("\n", 0, entry.end()) + 1
        _, at = decoder.raw_decode(text, entry.end())
    return lines


def _check_identity(value: Any) -> None:
    try:
        if isinstance(value, bool):
            raise ValueError
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ConfigError("", "must be a name or another value of JSON, and neither true nor false") from None


def _time(value: Any) -> float | None:
    """Returns the seconds since 1970 of a time of TOML, or of a string like it."""
    if value is None:
        return None
    text: Any = value.get(TOML_TIME) if isinstance(value, Mapping) else value
    try:
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        if moment.tzinfo is None:
            raise ValueError
        return moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ConfigError("", f"must be a time with its offset, like 2026-12-31T18:00:00Z, got {text!r}") from None
