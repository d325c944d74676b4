"""`--dry-run` and `check`: the settings as a TOML file for `--config`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .._settings import FLAGS, GROUPS, Flag
from .._settings.kinds import Json, Secret
from .sources import Found


def settings_as_toml(found: Found, *, defaults: bool = False) -> list[str]:
    """Returns the lines. Each has the flag, variable or place from which its setting comes, or `default` if wanted."""
    tables: dict[str, list[str]] = {name: [] for name in ("", *GROUPS)}
    for flag in FLAGS:
        origin, value = found.origins.get(flag.key), found[flag.key]
        if origin is None:
            if defaults:
                tables[flag.table].append(_default(flag, value))
            continue
        is_secret = isinstance(flag.kind, Secret | Json) and not str(value).startswith("@")
        shown = '"..."' if is_secret else _toml(value)
        tables[flag.table].append(f"{flag.place.rpartition('.')[2]} = {shown}  # {origin}")
    lines = tables.pop("")
    for name, given in tables.items():
        lines += ["", f"[{name}]", *given] if given else []
    for fault in found.faults:
        keys = [f"{key} = {_toml(value)}" for key, value in {"fault": "", **fault.table}.items()]
        lines += ["", f"[[faults]]  # {fault.place}", *keys]
    return lines


def _default(flag: Flag, value: Any) -> str:
    name = flag.place.rpartition(".")[2]
    if value is None and not flag.kind.optional:
        return f"# {name} is not set"
    return f"{name} = {_toml(value)}  # default"


def settings_digest(found: Found) -> str:
    """Returns 16 hexadecimal digits, which differ if the effective value of a setting differs.

    Secrets do not count: a digest of a short secret would tell it to a reader who tries many.
    """
    values = {flag.place: found[flag.key] for flag in FLAGS if not isinstance(flag.kind, Secret | Json)}
    if found.faults:
        values["faults"] = [fault.table for fault in found.faults]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    # Booleans, numbers, lists and strings are written alike. TOML has no \\/ and knows \\u.
    return json.dumps(value, ensure_ascii=False)
