"""The flags of the command line, made from the table of settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__
from .._conform_arguments import add_conform
from .._settings import ENVIRONMENT, FLAGS, Flag
from .._settings.kinds import Switch
from .argument_types import seconds
from .control_flags import add_control
from .output import PROGRAM
from .probe_flags import add_probe
from .sources import Unparsed

DESCRIPTION = """\
Runs the server until SIGINT or SIGTERM. Then it drains (--drain, --drain-spread), closes its connections and ends with
status 0. Another signal ends the drain; without one, a signal that comes more than a second after the first ends the
process at once. SIGHUP reloads: all settings, hooks, tokens, secrets and certificates are read again, and connections
stay. Where SIGHUP is ignored (nohup), it stays ignored.

Exit status 1: it cannot start (an address in use, the state directory). 2: a flag or another setting is wrong.
"""

EXAMPLES = """\
examples:
  cuttlefish-signaling serve
      wss on 127.0.0.1:8443 with a certificate that the server makes, as a legacy device expects
  cuttlefish-signaling serve --print-ca > ca.pem
      the authority of that certificate, for browsers and other clients that verify it
  cuttlefish-signaling serve --host 0.0.0.0 --allow-host signal.lab --hooks farm.py:hooks --stun stun:stun.lab:3478
  cuttlefish-signaling serve --no-tls --port 8080 --device-wait-timeout 30
  cuttlefish-signaling serve --turn turn:turn.lab:3478 --turn-secret-file turn.secret --token-file tokens
  cuttlefish-signaling serve --hooks farm.py:hooks --log-format json

--hooks names an object with any of authorize, filter_device_info and ice_servers, as functions or methods, def or
async def. A FILE.toml for --config has the names of the flags with underscores. Limits are in its table [limits], and
keepalive is in its table [keepalive], as interval and timeout. Tables [[faults]] drop or delay messages, for tests.
"""


PROXY = """\
Stands between peers and a server that is not to be replaced, whichever it is: passes every connection and request on to
--upstream, unchanged, and has the journal, the faults, the metrics and the page of a server. Peers connect to the proxy
in the place of the server, with the same paths. The page is at /_proxy/. All else is as with `serve`.
"""

PROXY_EXAMPLES = """\
examples:
  cuttlefish-signaling proxy --upstream wss://localhost:1443 --upstream-insecure --journal
      between the operator of a Cuttlefish host and its devices and clients, with their messages on the page
  cuttlefish-signaling proxy --upstream ws://signal.lab:8080 --no-tls --port 8080 --config faults.toml
"""

CHECK = """\
Reads the flags, variables and FILE.toml of `serve`, loads the hooks, certificates and files that they name, and tells
all mistakes. It prints every setting, as a FILE.toml, with the flag, variable or line from which it comes, and no
secrets. It listens nowhere and writes no file. Exit status 0: the settings are right; 2: they are not.
"""

HEALTH = """\
Asks a server for /healthz, prints one line, and ends with status 0 if it is healthy, and otherwise with 1.

Without --url it asks the server of the same flags, environment variables and FILE.toml as `serve`: the first listener
of http, https and unix. A certificate is verified if --ca is given, or if --url is not on this machine's loopback.
"""


GROUP_TITLES = {
    "host": "addresses",
    "no-tls": "certificate",
    "device-socket": "local sockets",
    "stun": "ICE servers",
    "device-wait-timeout": "devices and clients",
    "allow-host": "access",
    "cluster": "cluster",
    "upstream": "proxy",
    "dashboard": "page, files and adb",
    "workers": "process and log",
    "max-message-size": "limits, in the table [limits] of a file",
    "keepalive-interval": "keepalive, in the table [keepalive] of a file",
}
"""The title of each group of `--help`, by its first flag in the order of the table of settings."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit status 2."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parses all arguments. An error names unknown flags without their values, which may be secrets."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(flags) or 'a value without a flag'}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits."""
        self.exit(2, f"{PROGRAM}: error: {' '.join(message.removeprefix('argument ').split())}\n")


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of the command line. With `only`, the other commands have no settings: it is made faster."""
    top = Parser(prog=PROGRAM, description="A signaling server for Android Cuttlefish devices over WebRTC.")
    top.add_argument("-V", "--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # The error of an ambiguous flag would quote its value, and a new flag would change the meaning of a short one.
        allow_abbrev=False,
    )
    serve.add_argument(
        "--print-ca", action="store_true", help="print the authority of the server's own certificate, PEM, and exit"
    )
    serve.add_argument(
        "--dry-run", action="store_true", help="print the settings that were given and where they come from, and exit"
    )
    _add_settings(serve, only in (None, "serve"))
    _add_proxy(commands, only in (None, "proxy"))
    _add_check(commands, only in (None, "check"))
    _add_health(commands, only in (None, "health"))
    add_probe(commands)
    add_control(commands)
    _add_installers(commands)
    add_conform(commands)
    return top


def _add_settings(command: argparse.ArgumentParser, is_wanted: bool, *, unparsed: bool = False) -> None:
    command.add_argument("--config", metavar="FILE.toml", help=f"a file with settings [env: {ENVIRONMENT}CONFIG]")
    group = command.add_argument_group()
    for flag in FLAGS if is_wanted else ():
        if flag.name in GROUP_TITLES:
            group = command.add_argument_group(GROUP_TITLES[flag.name])
        _add(group, flag, unparsed)


def _add_proxy(commands: Any, is_wanted: bool) -> None:
    command = commands.add_parser(
        "proxy",
        help="stand between peers and another server, with journal, faults and page",
        description=PROXY,
        epilog=PROXY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(print_ca=False, dry_run=False)
    _add_settings(command, is_wanted)


def _add_check(commands: Any, is_wanted: bool) -> None:
    command = commands.add_parser(
        "check",
        help="check the settings of `serve` and all that they name, and start nothing",
        description=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_settings(command, is_wanted, unparsed=True)


class _KeepTexts(argparse.Action):
    """Keeps the texts of a flag as they are."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _option: object = None) -> None:
        setattr(namespace, self.dest, Unparsed([*(getattr(namespace, self.dest) or ()), values]))


def _add_health(commands: Any, is_wanted: bool) -> None:
    command = commands.add_parser(
        "health",
        help="ask a running server whether it is alive, for HEALTHCHECK and probes",
        description=HEALTH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--url", metavar="URL", help="http://HOST:PORT, https://HOST:PORT or unix:PATH; default: the server's own"
    )
    command.add_argument("--ready", action="store_true", help="whether it is to be sent peers: /readyz, not /healthz")
    command.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="seconds for the whole answer, more than 0, at most 3600; default 5",
    )
    command.add_argument(
        "--ca",
        metavar="FILE",
        help=f"the authority of the certificate, PEM, which is verified then [env: {ENVIRONMENT}CA]",
    )
    _add_settings(command, is_wanted)


def _add_installers(commands: Any) -> None:
    for name, doing in (("install-operator", "puts"), ("uninstall-operator", "removes")):
        command = commands.add_parser(
            name,
            help=f"{doing[:-1]} a systemd unit in the place of the operator's",
            description=f"{doing.capitalize()} the systemd unit of a server in the place of a host's operator.",
        )
        command.add_argument("--root", default="/", metavar="DIR", help="the root of the system; default /")
        command.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
        command.add_argument("--force", action="store_true", help="also where the unit was changed or is another one")
        if name == "install-operator":
            command.add_argument(
                "--command",
                metavar="PATH",
                dest="program",
                help="the path of cuttlefish-signaling, within the root; default: where this one is installed",
            )


def _add(serve: argparse._ArgumentGroup, flag: Flag, unparsed: bool) -> None:
    is_switch = isinstance(flag.kind, Switch)
    default = "" if flag.default is None or is_switch else f"; default {flag.default}"
    text = f"{flag.help}{default} [env: {flag.variable}]".replace("%", "%%")
    if is_switch:
        serve.add_argument(f"--{flag.name}", action="store_true", default=None, help=text)
        return
    text += "; may be repeated" if flag.kind.repeats else ""
    if unparsed:
        shown = flag.metavar or "|".join(flag.kind.choices) or None
        serve.add_argument(f"--{flag.name}", action=_KeepTexts, metavar=shown, help=text)
        return
    serve.add_argument(
        f"--{flag.name}",
        type=_argument(flag),
        metavar=flag.metavar,
        choices=flag.kind.choices or None,
        action="append" if flag.kind.repeats else "store",
        help=text,
    )


def _argument(flag: Flag) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = flag.kind.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {flag.kind.wanted}") from None
        return text if value is None else value  # None is the mark of a flag that was not given.

    return parse
