"""The table of settings. A new setting is one row here and the code that uses it; `test_settings.py` names the rest."""

from __future__ import annotations

from .keepalive import KEEPALIVE
from .limits import LIMITS
from .row import ENVIRONMENT, Flag, Setting
from .server import SERVER

SETTINGS: tuple[Setting, ...] = (*SERVER, *LIMITS, *KEEPALIVE)
"""All rows."""

KEYWORDS: tuple[Setting, ...] = tuple(row for row in SERVER if row.group == "server")
"""The keyword arguments of `SignalingServer`, which are also those of `@pytest.mark.signaling`."""

GROUPS: dict[str, tuple[Setting, ...]] = {"limits": LIMITS, "keepalive": KEEPALIVE}
"""The fields of `Limits` and `Keepalive`, which are also tables of the TOML file."""

FLAGS: tuple[Flag, ...] = tuple(flag for row in SETTINGS if (flag := row.typed_flag) is not None)
"""The flags of the command line, which are also environment variables and keys of the TOML file."""

__all__ = ["ENVIRONMENT", "FLAGS", "GROUPS", "KEYWORDS", "SETTINGS", "Flag", "Setting"]
