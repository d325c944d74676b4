"""The server behind a proxy, of the command line."""

from __future__ import annotations

from .. import Upstream
from ..errors import ConfigError
from .sources import Found

_OTHERS = ("upstream_ca", "upstream_insecure", "upstream_timeout")
"""The settings that need `--upstream`."""


def upstream(found: Found) -> Upstream | None:
    """Returns the server behind the proxy of these settings. Raises ConfigError."""
    if not found["upstream"]:
        for key in _OTHERS:
            if key in found.origins and found[key]:
                raise ConfigError(key, "has no use without --upstream URL, the server behind a proxy")
        return None
    return Upstream(
        found["upstream"],
        ca=found["upstream_ca"] or None,
        insecure=found["upstream_insecure"],
        timeout=found["upstream_timeout"],
    )
