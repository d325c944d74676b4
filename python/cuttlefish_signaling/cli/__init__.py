"""The command line: `cuttlefish-signaling`, which is also `python -m cuttlefish_signaling`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._settings import FLAGS
from ..errors import BindError, SignalingError, StateDirError
from .flags import PROGRAM, parser
from .install import install_operator, uninstall_operator
from .serve import serve

__all__ = ["FLAGS", "main", "parser"]


COMMANDS = {"serve": serve, "install-operator": install_operator, "uninstall-operator": uninstall_operator}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status.

    0, or 1 where the server cannot start (an address, the state directory), or 2 where a setting is wrong.
    """
    parsed = parser().parse_args(arguments)
    try:
        return COMMANDS[parsed.command](parsed)
    except SignalingError as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, StateDirError | BindError) else 2
