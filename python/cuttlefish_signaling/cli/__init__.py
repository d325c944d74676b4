"""The command line: `cuttlefish-signaling`, which is also `python -m cuttlefish_signaling`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from .._settings import FLAGS
from ..errors import ConfigError, SignalingError
from .flags import parser
from .output import flush_output, open_standard_streams, print_to_stderr

__all__ = ["FLAGS", "main", "parser"]


COMMANDS = {
    "serve": ("serve", "serve"),
    "proxy": ("serve", "proxy"),
    "check": ("check", "check"),
    "health": ("health", "health"),
    "probe": ("probe", "probe"),
    "conform": ("conform", "conform"),
    "devices": ("control", "devices"),
    "disconnect": ("control", "disconnect"),
    "watch": ("watch", "watch"),
    "reload": ("control", "reload"),
    "journal": ("control", "journal"),
    "install-operator": ("install", "install_operator"),
    "uninstall-operator": ("install", "uninstall_operator"),
}
"""The module and the function of each command. It is imported when it is needed: `health` starts faster."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: without arguments that of the process. Returns the exit status.

    0, or 1 where something of the system fails (an address, the state directory, stdout), or 2 where the usage or a
    setting is wrong. `probe` has more of them, one for each stage.
    """
    if arguments is not None:
        return _run(arguments, is_process=False)
    open_standard_streams()
    try:
        return _run(sys.argv[1:], is_process=True)
    finally:
        flush_output()


def _run(arguments: Sequence[str], *, is_process: bool) -> int:
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    top = parser(command)
    if not arguments:
        top.print_help(sys.stderr)
        return 2
    try:
        parsed = top.parse_args(arguments)
    except SystemExit as end:
        # Docker reserves the status 2 of a health check.
        if command == "health" and end.code:
            return 1
        raise
    parsed.until_exit = is_process
    try:
        module, function = COMMANDS[parsed.command]
        status: int = getattr(import_module(f".{module}", __name__), function)(parsed)
        return status
    except (SignalingError, OSError) as error:
        print_to_stderr(f"error: {' '.join(str(error).split())}")
        return 2 if isinstance(error, ConfigError) else 1
