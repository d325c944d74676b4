"""The command line: `cuttlefish-signaling`, which is also `python -m cuttlefish_signaling`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._settings import FLAGS
from ..errors import ConfigError, SignalingError
from .flags import parser
from .install import install_operator, uninstall_operator
from .output import PROGRAM, flush_output, open_standard_streams
from .serve import serve

__all__ = ["FLAGS", "main", "parser"]


COMMANDS = {"serve": serve, "install-operator": install_operator, "uninstall-operator": uninstall_operator}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: without arguments that of the process. Returns the exit status.

    0, or 1 where something of the system fails (an address, the state directory, stdout), or 2 where the usage or a
    setting is wrong.
    """
    if arguments is not None:
        return _run(arguments, is_process=False)
    open_standard_streams()
    try:
        return _run(sys.argv[1:], is_process=True)
    finally:
        flush_output()


def _run(arguments: Sequence[str], *, is_process: bool) -> int:
    top = parser()
    if not arguments:
        top.print_help(sys.stderr)
        return 2
    parsed = top.parse_args(arguments)
    parsed.until_exit = is_process
    try:
        return COMMANDS[parsed.command](parsed)
    except (SignalingError, OSError) as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
