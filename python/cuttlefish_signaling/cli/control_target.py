"""The running server that a command asks: its control API, from flags, variables or the file of its settings."""

from __future__ import annotations

import argparse
import os
import ssl

from .. import RemoteServer
from .._settings import ENVIRONMENT, FLAGS
from ..errors import ConfigError
from .sources import CONFIG, Found, settings

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ends, as a shell has it."""

_NAMES = ("control-api", "control_api", "CONTROL_API", "control-token", "control_token", "CONTROL_TOKEN")


def running_server(arguments: argparse.Namespace) -> RemoteServer:
    """Returns the server. Raises ConfigError, which names the flag, variable or place in the file."""
    found = _settings(arguments)
    urls = found["control_api"]
    if not urls:
        raise ConfigError(
            "--control-api",
            f"is missing: the control API of the server, as for `serve`; or set {ENVIRONMENT}CONTROL_API, or name the "
            "settings of the server with --config",
        )
    token_file, context = found["control_token_file"], _context(arguments, urls[0])
    try:
        return RemoteServer(urls[0], token_file=token_file or None, ssl_context=context, timeout=arguments.timeout)
    except ConfigError as error:
        origins = {"control_url": "control_api", "token_file": "control_token_file"}
        raise ConfigError(found.origin(origins.get(error.setting, error.setting)), error.what) from None


def _settings(arguments: argparse.Namespace) -> Found:
    """Returns the settings of the server. Mistakes in others than those of the control API do not matter."""
    every = {flag.key: None for flag in FLAGS}
    given = {name: value for name, value in vars(arguments).items() if name in ("control_api", "control_token_file")}

    def refuse(error: ConfigError) -> None:
        if error.setting in ("--config", CONFIG) or any(name in error.setting for name in _NAMES):
            raise error

    return settings(argparse.Namespace(**{**every, **given}, config=arguments.config), dict(os.environ), refuse)


def _context(arguments: argparse.Namespace, url: str) -> ssl.SSLContext | None:
    """Returns what verifies the certificate of an https address, if that is given."""
    place, ca = ("--ca", arguments.ca) if arguments.ca else (f"{ENVIRONMENT}CA", os.environ.get(f"{ENVIRONMENT}CA"))
    if not ca or not url.startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise ConfigError(place, f"{ca} cannot be used: {getattr(error, 'strerror', None) or error}") from None
