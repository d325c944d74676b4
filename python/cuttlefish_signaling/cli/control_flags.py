"""The commands that ask a running server through its control API, and their flags."""

from __future__ import annotations

import argparse
from typing import Any

from .._settings import ENVIRONMENT
from .argument_types import seconds

FOOTER = f"""\
The server is found by --control-api and --control-token-file, which have the values of those of `serve`; else by the
variables {ENVIRONMENT}CONTROL_API and {ENVIRONMENT}CONTROL_TOKEN_FILE; else by the FILE.toml of the server.

Exit status 1: the server cannot be reached or refuses. 2: a flag or a setting is wrong. 130: interrupted by Ctrl-C.
"""

DEVICES = "Prints the devices that are registered with a running server, in all of its cluster."

DISCONNECT = """\
Closes the connection of a device, whose clients hear `Device disconnected`, or that of one of its clients. In a cluster
the device may be on any node. Exit status 1 for a device or a client that is not there.
"""

WATCH = """\
Prints devices, clients, nodes and messages of a running server as they come and go, until the server stops or Ctrl-C.
On a terminal an event is a line of text; otherwise it is a line of JSON, as docs/control-api.md describes it.
"""

RELOAD = """\
Lets a running server read its settings, hooks, tokens and certificates again, as SIGHUP does, and prints the settings
that have changed. Connections stay. Where a setting is invalid, all old ones stay, and the exit status is 2.
"""

JOURNAL = """\
Writes the journal of a running server as JSON lines, as `Journal.transcript("jsonl")` does: the oldest entry first,
up to that of now. The server needs --journal.
"""

SINCE = "only entries from this time on: seconds, minutes, hours or days ago (90s, 10m, 2h, 1d), or 2026-01-31T13:00"


def add_control(commands: Any) -> None:
    """Adds the commands to the parser."""
    devices = _command(commands, "devices", "list the devices of a running server", DEVICES)
    devices.add_argument("--json", action="store_true", help="print one list of JSON objects")

    disconnect = _command(commands, "disconnect", "close the connection of a device or a client", DISCONNECT)
    disconnect.add_argument("device", metavar="ID", help="the id of the device")
    disconnect.add_argument("--client", metavar="N", type=_whole, help="only its client with this id")
    disconnect.add_argument("--json", action="store_true", help="print a JSON object")

    watch = _command(commands, "watch", "print devices, nodes and messages as they come", WATCH)
    watch.add_argument("--device", metavar="ID", help="only this device and its clients")
    watch.add_argument("--no-messages", action="store_true", help="no messages; there are none without --journal")
    watch.add_argument("--after", metavar="N", type=_whole, help="also the messages behind the journal's entry N")
    watch.add_argument("--json", action="store_true", help="lines of JSON, also on a terminal")

    reload = _command(commands, "reload", "let a running server read its settings again", RELOAD)
    reload.add_argument("--json", action="store_true", help="print a JSON object")

    journal = commands.add_parser("journal", help="export the journal of a running server", description=JOURNAL)
    actions = journal.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = _command(actions, "export", "write it as JSON lines", JOURNAL)
    export.add_argument("--since", metavar="WHEN", help=SINCE)
    export.add_argument("--after", metavar="N", type=_whole, help="only entries behind the one with this number")
    export.add_argument("--device", metavar="ID", help="only entries of this device and its clients")
    export.add_argument("--client", metavar="N", type=_whole, help="only entries of the client with this id")
    export.add_argument(
        "-o", "--output", metavar="FILE", help="the file, which is replaced once all is written; default stdout"
    )


def _command(commands: Any, name: str, text: str, description: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=description,
        epilog=FOOTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = command.add_argument_group("server")
    group.add_argument(
        "--control-api",
        metavar="URL",
        action="append",
        help=f"the control API: http://HOST:PORT, https://HOST:PORT or unix:PATH [env: {ENVIRONMENT}CONTROL_API]",
    )
    group.add_argument("--control-token-file", metavar="FILE", help=f"its token [env: {ENVIRONMENT}CONTROL_TOKEN_FILE]")
    group.add_argument("--config", metavar="FILE.toml", help=f"the settings of the server [env: {ENVIRONMENT}CONFIG]")
    group.add_argument(
        "--ca",
        metavar="FILE",
        help=f"the authority of its certificate, PEM, which is verified then [env: {ENVIRONMENT}CA]",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=10.0,
        help="seconds for an answer; default 10, at most 3600",
    )
    return command


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)
