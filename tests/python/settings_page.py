"""Writes docs/settings.md from the table of settings.

python tests/python/settings_page.py    # what `make settings` does
"""

from __future__ import annotations

import sys
from pathlib import Path

from cuttlefish_signaling._settings import GROUPS, KEYWORDS, SETTINGS, Setting
from cuttlefish_signaling._settings.kinds import Strings, Switch

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

`make settings` writes this page from the table in `python/cuttlefish_signaling/_settings`. Do not edit it.

A setting can be given

- in Python, as a keyword argument of `SignalingServer`, or as a field of `Limits` or `Keepalive`,
- in tests, as an argument of `@pytest.mark.signaling(...)`, with the names of Python,
- on the command line, with a flag,
- in an environment variable: `--device-socket` is `CUTTLEFISH_SIGNALING_DEVICE_SOCKET`,
- in a TOML file that `--config` names: `--device-socket` is the key `device_socket`. Limits and keepalive are in the
  tables `[limits]` and `[keepalive]`, with the names of Python. Tables `[[faults]]` are for tests: see
  [testing.md](testing.md#faults).

On the command line the flag has precedence over the variable, and the variable over the file. A variable with several
values separates them by spaces. `none` is Python's None. Unknown variables are logged.

```python
from cuttlefish_signaling import Keepalive, Limits, SignalingServer

limits = Limits(write_timeout=5, max_clients_per_device=8)
with SignalingServer(device_wait_timeout=30, limits=limits, keepalive=Keepalive(interval=3)) as server:
    print(server.url)
```

The column Reload tells what `server.reload(...)` and SIGHUP do with a setting (see [service.md](service.md)). *at
once*: the next request, connection or call is under the new value. *new connections*: those that are open keep the old
value. *restart*: a server that runs cannot change it.

A value that is not allowed is a `ConfigError`, which names the setting, before the server starts. Numbers in brackets,
like [1008], are codes of close frames.
"""


def values(row: Setting) -> str:
    """The type, range and unit, and the special values."""
    kind, special = row.kind.values, [f"{value}: {meaning}" for value, meaning in row.special]
    if row.kind.choices and len(row.kind.choices) == len(special):
        return "; ".join(special)
    if any(value == "None" for value, _ in row.special):
        kind = kind.removesuffix(", or None")
    return "; ".join([kind, *special])


def number(value: object) -> str:
    """A default as it is written in Python."""
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`"
    return f"`{value}`"


def flag(row: Setting) -> str:
    """The flag, and its default where that is another one."""
    if row.flag is None:
        return ""
    kind, text = row.flag.kind, f"`--{row.flag.name}`"
    if isinstance(row.kind, Strings):
        text += ", may be repeated"
    if kind.choices and kind.choices != row.kind.choices:
        text += f": {' or '.join(f'`{choice}`' for choice in kind.choices)}"
    if not isinstance(kind, Switch) and row.flag.default not in (None, row.default):
        text += f"; default `{row.flag.default}`"
    return text


def table(rows: tuple[Setting, ...]) -> str:
    """A table of these rows."""
    head = ["Setting", "Values", "Default", "Flag", "Reload", "Meaning"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        meaning = " ".join(part for part in (row.help, row.reason) if part)
        if row.on_command_line:
            meaning += f" On the command line: {row.on_command_line}"
        if row.instead:
            meaning += f" {'In Python' if row.group == 'serve' else 'On the command line'}: {row.instead}"
        default = f"`{type(row.default).__name__}()`" if row.name in GROUPS else number(row.default)
        lines.append([f"`{row.name}`", values(row), default, flag(row), row.reload, meaning])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def page() -> str:
    """The text of docs/settings.md."""
    only = tuple(row for row in SETTINGS if row.group == "serve")
    sections = [
        INTRODUCTION,
        "## `SignalingServer`\n\n" + table(KEYWORDS),
        "## Only on the command line\n\n" + table(only),
        "## `Limits`\n\nTimes are in seconds.\n\n" + table(GROUPS["limits"]),
        "## `Keepalive`\n\nTimes are in seconds.\n\n" + table(GROUPS["keepalive"]),
    ]
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
