"""The arguments of `conform`. This module needs nothing but the standard library: it is read for `--help`."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """\
Judges a signaling server, or a device or client program, by the rules of the protocol, and prints a table with the
transcript of each failure.

Exit status 0: no rule with the severity `must` failed. 1: one did. 2: the subject cannot be reached, or the usage is
wrong.
"""

SERVER = """\
Connects as devices and clients, and sends valid and invalid messages. All device ids begin with `conform-` and are new
in each run. Some messages have ended other servers, so do not use it on a server that others depend on.

Profiles: spec (the README of the protocol), reference (webrtc_operator, the C++ server), operator (the current
operator: /devices/ID/connect, lists, polled clients), strict (all of docs/protocol.md).
"""

PROGRAM = """\
Is a signaling server for one program, plays the other side of the conversation, and judges the program. It starts CMD
for each rule. In CMD, {{url}} stands for the URL of this server, {{device_url}} and {{client_url}} for its endpoints,
{{host}} and {{port}} for its address, {{device_id}} for the device to connect to. The environment has the URL and the
id as well: CUTTLEFISH_SIGNALING_URL and CUTTLEFISH_SIGNALING_DEVICE_ID. Write -- before a CMD with flags. Without CMD
it prints its URL, and waits for {subject} for each rule.
"""

SERVER_SETTINGS = (
    "a setting that the server is known to have, as NAME=VALUE, where it is not the default of this server: "
    "client_ids, device_wait_timeout, first_message_timeout, max_message_size, on_duplicate, probe_timeout; "
    "may be repeated"
)


def add_conform(commands: Any) -> None:
    """Adds `conform` with its commands to the subparsers of the command line."""
    top = commands.add_parser(
        "conform",
        help="judge a signaling server, a device or a client by the protocol",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_subjects(top)


def add_subjects(top: argparse.ArgumentParser) -> None:
    """Adds `server`, `device` and `client`."""
    subjects = top.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    server = _subject(subjects, "server", "judge a server at a URL", SERVER)
    server.add_argument("url", metavar="URL", nargs="?", help="ws, wss, http or https, with or without a path prefix")
    profiles = ("spec", "reference", "operator", "strict")
    server.add_argument("--profile", choices=profiles, default="spec", help="the rules; default spec")
    _add_common(server)
    server.add_argument("--token", metavar="TOKEN", help="sent as `Authorization: Bearer`; @FILE reads it from a file")
    server.add_argument(
        "--header", metavar="NAME:VALUE", action="append", default=[], help="a header of each request; may be repeated"
    )
    server.add_argument("--setting", metavar="NAME=VALUE", action="append", default=[], help=SERVER_SETTINGS)
    server.add_argument("--jobs", metavar="N", type=int, default=8, help="rules that run at the same time; default 8")
    server.add_argument("--ca", metavar="FILE", help="the authority of the certificate, PEM")
    server.add_argument("--insecure", action="store_true", help="accept any certificate")
    server.add_argument("--cert", metavar="FILE", help="a client certificate, PEM")
    server.add_argument("--key", metavar="FILE", help="its private key, PEM; default: in --cert")
    for name, waits in (("device", "a device to register"), ("client", "a client to connect")):
        program = _subject(subjects, name, f"judge a {name} program", PROGRAM.format(subject=waits))
        program.add_argument(
            "--profile", choices=("spec", "cuttlefish"), default="spec", help="the rules; default spec"
        )
        _add_common(program)
        program.add_argument(
            "--listen", metavar="HOST:PORT", default="127.0.0.1:0", help="default 127.0.0.1:0, a free port"
        )
        program.add_argument("--cert", metavar="FILE", help="serve TLS with this certificate, PEM, and its chain")
        program.add_argument("--key", metavar="FILE", help="its private key, PEM; default: in --cert")
        program.add_argument("--device-id", metavar="ID", default="cvd-1", help="{device_id} in CMD; default cvd-1")
        program.add_argument("--show-output", action="store_true", help="show what CMD prints")
        program.add_argument("cmd", metavar="CMD", nargs=argparse.REMAINDER, help="the program with its arguments")


def _subject(subjects: Any, name: str, text: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subjects.add_parser(
        name,
        help=text,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    pattern = "the id of a rule, a pattern with *, or a number of docs/protocol.md; may be repeated"
    parser.add_argument("--list", action="store_true", help="print the rules with their sources, and exit")
    parser.add_argument("--only", metavar="RULE", action="append", default=[], help=f"only this rule: {pattern}")
    parser.add_argument("--skip", metavar="RULE", action="append", default=[], help="leave this rule out; as --only")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="seconds for each message; default 5, at most 3600",
    )
    for name in ("junit", "json", "markdown"):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"also write the report as {name} to a file")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, more than 0, at most 3600")
    return seconds
