"""The flags of `cuttlefish-signaling probe`."""

from __future__ import annotations

import argparse
from typing import Any

from .._settings import ENVIRONMENT

DESCRIPTION = """\
Goes from the name of a server to the picture of a device, stage by stage, and tells in plain words where it fails and
what to do: dns, tcp, tls, http, websocket (both endpoints, sub-protocol), ping, devices; with --turn the TURN servers;
with a DEVICE connect, offer, answer, ice, dtls, media, data. It registers no device, and prints no token and no
credential.

Exit status 0: no stage failed, warnings aside. 1: the output cannot be written. 2: a flag is wrong, or an extra is not
installed. 10 dns, 11 tcp, 12 tls, 13 http, 14 websocket, 15 ping, 16 devices, 17 connect, 18 turn, 19 offer, 20 answer,
21 ice, 22 dtls, 23 media, 24 data: the first stage that failed. 130: interrupted by Ctrl-C.
"""

EXAMPLES = """\
examples:
  cuttlefish-signaling probe wss://signal.lab:8443 --ca ca.pem --token-file token
  cuttlefish-signaling probe wss://signal.lab:8443 cvd-1 --ca ca.pem --turn --seconds 30
  cuttlefish-signaling probe ws://127.0.0.1:8080 cvd-1 --json
  cuttlefish-signaling probe wss://signal.lab --prometheus /var/lib/node_exporter/signaling.prom
  cuttlefish-signaling probe wss://signal.lab --turn-server turn:turn.lab:3478 --turn-secret-file turn.secret

It needs the extra `probe` (websockets); a DEVICE and TURN servers need the extra `aiortc`.
"""


def add_probe(commands: Any) -> None:
    """Adds the command to the parser."""
    command: argparse.ArgumentParser = commands.add_parser(
        "probe",
        help="find out where signaling, TURN, ICE or media of a server fails",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("url", metavar="URL", help="ws://, wss://, http:// or https://HOST[:PORT][/PREFIX]")
    command.add_argument("device", metavar="DEVICE", nargs="?", help="the id of a device, for a session with it")
    _add_access(command.add_argument_group("access"))
    _add_bounds(command.add_argument_group("bounds"))
    _add_turn(command.add_argument_group("TURN servers"))
    output = command.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the report as JSON in the place of text")
    output.add_argument(
        "--prometheus",
        metavar="FILE",
        help="also write the report as metrics, for a textfile collector: FILE is replaced whole",
    )


def _add_access(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--token-file", metavar="FILE", help="a file with the token for `Authorization: Bearer`")
    group.add_argument("--origin", metavar="ORIGIN", help="the Origin that a page would send: https://farm.lab")
    group.add_argument(
        "--ca",
        metavar="FILE",
        help=f"the authorities that are trusted, PEM, in the place of the system's [env: {ENVIRONMENT}CA]",
    )
    group.add_argument(
        "--insecure", action="store_true", help="a faulty certificate is a warning, and the probe goes on"
    )


def _add_bounds(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--timeout",
        metavar="[STAGE=]SECONDS",
        action="append",
        default=[],
        help="seconds for each stage, or for one, more than 0, at most 3600; default 10; may be repeated",
    )
    group.add_argument(
        "--seconds",
        metavar="SECONDS",
        type=_number(0, 3600, zero=False),
        default=5.0,
        help="seconds for which frames and losses are counted, more than 0, at most 3600; default 5",
    )
    group.add_argument(
        "--max-loss",
        metavar="PERCENT",
        type=_number(0, 100),
        default=5.0,
        help="the percentage of lost packets above which `media` fails, from 0 to 100; default 5",
    )
    group.add_argument(
        "--expiry-days",
        metavar="DAYS",
        type=_number(0, 3650),
        default=14.0,
        help="warn of a certificate that expires within so many days, from 0 to 3650; default 14",
    )
    group.add_argument(
        "--pings", metavar="N", type=_count, default=3, help="pings to the server, from 1 to 1000; default 3"
    )


def _add_turn(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--turn", action="store_true", help="check the TURN servers that the server hands out, by an allocation at each"
    )
    group.add_argument(
        "--turn-server",
        metavar="URL",
        action="append",
        default=[],
        help="check this one in their place: turn:HOST:PORT?transport=udp|tcp or turns:HOST:PORT; may be repeated",
    )
    group.add_argument("--turn-username", metavar="NAME", help="the username for --turn-server")
    group.add_argument("--turn-credential-file", metavar="FILE", help="a file with the password for --turn-username")
    group.add_argument(
        "--turn-secret-file",
        metavar="FILE",
        help="a file with the secret of --turn-server (static-auth-secret of coturn), to make a credential from",
    )


def _number(least: float, most: float, *, zero: bool = True) -> Any:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most or (value == 0 and not zero):
            begin = f"from {least:g} to {most:g}" if zero else f"more than {least:g}, at most {most:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number, {begin}")
        return value

    return parse


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)
