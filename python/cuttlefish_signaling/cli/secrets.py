"""Secrets of the command line: files that hold them, and the arguments of the process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from ..errors import ConfigError


def hide_arguments(secrets: Iterable[str | None]) -> None:
    """Overwrites secrets in the arguments of this process, which every user of the machine can list.

    Python has its own copy of them. Logs a warning where the system does not let a process do that.
    """
    wanted = {os.fsencode(secret) for secret in secrets if secret and not secret.startswith("@")}
    if wanted and not _overwrite(wanted):
        logging.getLogger("cuttlefish_signaling").warning(
            "the process list shows a secret of the command line: use --turn-secret-file, @FILE for --ice-servers, or "
            "a variable or a file for --cluster"
        )


def _overwrite(secrets: set[bytes]) -> bool:
    """Overwrites the arguments that are a secret, or end in `=` and a secret. Returns whether none is left."""
    try:
        import ctypes

        with open("/proc/self/stat", "rb") as file:
            # proc(5): `arg_start` and `arg_end` are fields 48 and 49; the one behind the name in brackets is field 3.
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if not 0 < start < end:
            return False
        place = start
        for argument in ctypes.string_at(start, end - start).split(b"\0"):
            for secret in secrets:
                if argument == secret or argument.endswith(b"=" + secret):
                    ctypes.memset(place + len(argument) - len(secret), ord("x"), len(secret))
            place += len(argument) + 1
        with open("/proc/self/cmdline", "rb") as file:
            left = file.read().split(b"\0")
    except (ImportError, OSError, ValueError, IndexError):
        return False
    kept = [secret for secret in secrets if secret.strip(b"x")]
    return not any(argument == secret or argument.endswith(b"=" + secret) for argument in left for secret in kept)


def read_secret(flag: str, path: str) -> str:
    """Returns the text of a file without the end of its line. Raises ConfigError, which names the flag."""
    secret = _read(flag, path).rstrip("\r\n")
    if not secret or "\n" in secret:
        raise ConfigError(flag, f"{path} must have one line, with the secret")
    return secret


def read_secrets(flag: str, path: str) -> list[str]:
    """Returns the lines of a file that are not empty. Raises ConfigError, which names the flag."""
    secrets = [line.strip() for line in _read(flag, path).splitlines() if line.strip()]
    if not secrets:
        raise ConfigError(flag, f"{path} is empty; write a secret of at least 32 bytes, the same on all nodes")
    return secrets


def _read(flag: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeError) as error:
        # The text of a UnicodeError would quote the file.
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(flag, f"cannot read {path}: {why}") from None
