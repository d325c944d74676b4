"""`--dry-run`: the settings that were given, as a TOML file for `--config`."""

from __future__ import annotations

import json
from typing import Any

from .._settings import FLAGS, GROUPS
from .._settings.kinds import Json, Secret
from .sources import Found


def settings_as_toml(found: Found) -> list[str]:
    """Returns the lines. Each has the flag, variable or place from which its setting comes."""
    tables: dict[str, list[str]] = {name: [] for name in ("", *GROUPS)}
    for flag in FLAGS:
        if (origin := found.origins.get(flag.key)) is None:
            continue
        value = found[flag.key]
        is_secret = isinstance(flag.kind, Secret | Json) and not str(value).startswith("@")
        shown = '"..."' if is_secret else _toml(value)
        tables[flag.table].append(f"{flag.place.rpartition('.')[2]} = {shown}  # {origin}")
    lines = tables.pop("")
    for name, given in tables.items():
        lines += ["", f"[{name}]", *given] if given else []
    return lines


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    # Booleans, numbers, lists and strings are written alike. TOML has no \\/ and knows \\u.
    return json.dumps(value, ensure_ascii=False)
