"""The command line: `cuttlefish-signaling serve`, which is also `python -m cuttlefish_signaling serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._settings import FLAGS
from ..errors import SignalingError, StateDirError
from .flags import PROGRAM, parser
from .serve import serve

__all__ = ["FLAGS", "main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status.

    0, or 1 where the state directory cannot be used, or 2 where a setting or the address cannot.
    """
    parsed = parser().parse_args(arguments)
    try:
        return serve(parsed)
    except SignalingError as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, StateDirError) else 2
