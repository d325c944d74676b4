"""The token of the control API, which is in a file."""

from __future__ import annotations

import os
from collections.abc import Callable

from .._config import random_token
from .._settings.kinds import ControlToken
from ..errors import ConfigError
from .secrets import read_secret
from .sources import Found

FLAG = "control-token-file"


def control_token(found: Found) -> tuple[str | None, Callable[[], None]]:
    """Returns the token, and a function that makes a file that is missing. Raises ConfigError, which names the flag.

    Without a control API there is no token, and the file is not read: the other commands use the same variable.
    """
    if not found["control_api"]:
        return None, lambda: None
    path = found["control_token_file"]
    if not path:
        raise ConfigError(FLAG, f"is missing: {found.origin('control_api')} needs it. A file that is missing is made")
    if os.path.lexists(path):
        return ControlToken().check(FLAG, read_secret(FLAG, path)), lambda: None
    directory = os.path.dirname(path) or "."
    if not (os.path.isdir(directory) and os.access(directory, os.W_OK)):
        raise ConfigError(FLAG, f"{path} cannot be made: {directory} is not a directory that can be written")
    token = random_token()
    return token, lambda: _make(path, token)


def _make(path: str, token: str) -> None:
    """Makes the file, for its owner alone. Raises ConfigError if it is there, or cannot be made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise ConfigError(FLAG, f"cannot make {path}: {error.strerror}") from None
