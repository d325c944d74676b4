"""`cuttlefish-signaling check`: reads the settings of `serve` with all that they name, and tells each mistake."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TypeVar

from .. import StaticTokens, Tls, _native
from .._settings import KEYWORDS
from ..errors import ConfigError, SignalingError, StateDirError
from .cluster import cluster
from .control_token import control_token
from .hooks import load_hooks
from .jwt import jwt
from .listeners import all_listeners, keywords
from .operator import apply_preset
from .outcome import settings_as_toml
from .output import print_answer, print_to_stderr
from .secrets import hide_arguments
from .serve import ice_servers, same, server, wants_dashboard
from .sources import Found, settings
from .tls import certificate, default_directory
from .upstream import upstream

T = TypeVar("T")


class Mistakes:
    """The mistakes that were found, each once, in the order in which they were found."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._settings: Found | None = None

    def of(self, found: Found) -> None:
        """Names settings as these do from now on."""
        self._settings = found

    def add(self, error: BaseException) -> None:
        """Adds one."""
        if isinstance(error, ConfigError) and self._settings is not None:
            error = self._settings.named(error)
        text = " ".join(str(error).split())
        if text not in self.found:
            self.found.append(text)

    def of_step(self, step: Callable[[], T]) -> T | None:
        """Returns the result of a step; None if it has made a mistake."""
        try:
            return step()
        except (SignalingError, OSError) as error:
            self.add(error)
            return None


def check(arguments: argparse.Namespace) -> int:
    """Prints each setting and where it comes from, and each mistake. Returns 0 if there is none, and otherwise 2."""
    mistakes = Mistakes()
    found = settings(arguments, dict(os.environ), mistakes.add)
    hide_arguments([*(arguments.turn_secret or ()), *(arguments.ice_servers or ()), *(arguments.cluster or ())])
    mistakes.of(found)
    notices = [*found.notices, *(mistakes.of_step(lambda: apply_preset(found)) or ())]
    print_answer(*settings_as_toml(found, defaults=True))
    notices += _without_sockets(found)
    # The code of hooks may print. stdout is for the settings.
    with redirect_stdout(sys.stderr):
        _check_parts(found, mistakes)
        if not mistakes.found:
            mistakes.of_step(lambda: _check_together(found))
    for notice in notices:
        print_to_stderr(f"warning: {notice}")
    for mistake in mistakes.found:
        print_to_stderr(f"error: {mistake}")
    return 2 if mistakes.found else 0


def _without_sockets(found: Found) -> list[str]:
    """Replaces listeners whose sockets come from systemd, which this process does not have. Returns a line for each."""
    notices = []
    for index, text in enumerate(found["listen"] or ()):
        scheme, mark, name = text.partition("+fd:")
        if mark and scheme in ("http", "https") and name:
            found["listen"] = [*found["listen"][:index], f"{scheme}://127.0.0.1:0", *found["listen"][index + 1 :]]
            notices.append(f"{found.origin('listen')}: {text!r} is a socket of systemd, which was not checked")
    return notices


def _check_parts(found: Found, mistakes: Mistakes) -> None:
    """Checks what does not depend on each other, so that one mistake does not hide another one."""
    if mistakes.of_step(lambda: all_listeners(found)) is not None:
        mistakes.of_step(lambda: _certificate(found))
        values = (
            mistakes.of_step(
                lambda: {
                    **same(found),
                    **keywords(found),
                    "dashboard": wants_dashboard(found),
                    "cluster": None,
                    "upstream": None,
                    "jwt": None,
                }
            )
            or {}
        )
        for row in KEYWORDS:
            if row.name in values:
                mistakes.of_step(lambda row=row: row.kind.check(row.path, values[row.name]))  # type: ignore[misc]
    if found["hooks"]:
        mistakes.of_step(lambda: load_hooks(found["hooks"]))
    mistakes.of_step(lambda: ice_servers(found))
    mistakes.of_step(lambda: cluster(found))
    mistakes.of_step(lambda: upstream(found))
    mistakes.of_step(lambda: control_token(found))
    mistakes.of_step(lambda: jwt(found))
    if found["token_file"]:
        mistakes.of_step(lambda: StaticTokens._from_file("token-file", found["token_file"]))
    if found["assets_dir"] and not os.path.isdir(found["assets_dir"]):
        mistakes.add(ConfigError("assets-dir", f"{found['assets_dir']} is not a directory"))
    mistakes.of_step(lambda: _check_log_file(found["log_file"]))


def _certificate(found: Found) -> tuple[Tls | None, Callable[[], None]]:
    """Returns the certificate as `serve` has it. A state directory that is missing stays so, and is only looked at."""
    makes = not (found["tls_cert"] or found["tls_key"]) and any(one.is_tls for one in all_listeners(found))
    if makes and (directory := found["state_dir"]) and not os.path.lexists(directory):
        parent = os.path.dirname(os.path.abspath(directory))
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not (os.path.isdir(parent) and os.access(parent, os.W_OK)):
            raise ConfigError(
                "state-dir", f"{directory} cannot be made: {parent} is not a directory that can be written"
            )
    if makes and not os.path.lexists(found["state_dir"] or _default_directory()):
        return Tls.self_signed(), lambda: None
    return certificate(found)


def _default_directory() -> str:
    try:
        return default_directory(os.environ)
    except StateDirError:
        return ""  # The certificate is in memory.


def _check_log_file(path: str | None) -> None:
    if not path:
        return
    place = path if os.path.exists(path) else os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(place, os.W_OK):
        reason = (
            "Is a directory"
            if os.path.isdir(path)
            else "Permission denied"
            if os.path.exists(place)
            else "No such directory"
        )
        raise ConfigError("log-file", f"cannot write {path}: {reason}")


def _check_together(found: Found) -> None:
    """Makes the server, and lets the core check it. It listens nowhere and writes nothing."""
    running, _ = server(found, _certificate)
    checked: dict[str, Any] = {**running._settings.resolved(), "ice_servers": "[]"}
    _native.check_settings(checked, running._settings.authorize is not None)
