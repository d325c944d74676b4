"""`cuttlefish-signaling conform`: judges servers, devices and clients. The kit is imported when it is used."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .output import print_answer


def conform(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    try:
        from ..conformance import _command
    except ImportError as error:
        raise ConfigError("conform", str(error)) from None
    try:
        return _command.conform(arguments, print_answer)
    except KeyboardInterrupt:
        return 130
