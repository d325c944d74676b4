"""The optional packages of a probe."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import ConfigError


def require(package: str, extra: str, what: str) -> None:
    """Raises ConfigError if a package is not installed."""
    if find_spec(package) is None:
        raise ConfigError("probe", f"{what} needs {package}: pip install 'cuttlefish-signaling[{extra}]'")
