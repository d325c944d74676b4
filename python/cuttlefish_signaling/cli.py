"""The command line: `cuttlefish-signaling serve`, which is also `python -m cuttlefish_signaling serve`.

A setting comes from its flag, else its environment variable, else the config file, else its default.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import ipaddress
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from . import IceServer, Keepalive, Limits, SignalingServer, TurnRest, __version__, _native
from ._notify import notify
from ._serve_tls import authority_pem, certificate, fingerprints
from .errors import ConfigError, SignalingError, StateDirError

PROGRAM = "cuttlefish-signaling"
ENVIRONMENT = "CUTTLEFISH_SIGNALING_"
HOOKS = ("authorize", "filter_device_info", "ice_servers")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_TIMEOUT = 10.0
"""Seconds peers get to say goodbye after the first SIGINT or SIGTERM."""

EXAMPLES = """\
examples:
  cuttlefish-signaling serve
      wss on 127.0.0.1:8443 with a certificate made on the spot, as a legacy device expects
  cuttlefish-signaling serve --print-ca > ca.pem
      the authority of that certificate, for browsers and other clients that verify
  cuttlefish-signaling serve --host 0.0.0.0 --allow-host signal.lab --hooks farm.py:hooks --stun stun:stun.lab:3478
  cuttlefish-signaling serve --no-tls --port 8080 --device-wait-timeout 30
  cuttlefish-signaling serve --turn turn:turn.lab:3478 --turn-secret "$SECRET"
  cuttlefish-signaling serve --hooks farm.py:hooks --log-format json

--hooks names an object with any of authorize, filter_device_info and ice_servers, as functions or methods, def or
async def. A FILE.toml for --config has the names of the flags with underscores, and tables [limits] and [keepalive].
"""


@dataclass(frozen=True)
class Flag:
    """One setting of the command line: its flag, its environment variable and its key in the config file."""

    name: str
    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    repeats: bool = False
    switch: bool = False

    @property
    def key(self) -> str:
        """Its name in Python and in the config file."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT + self.key.upper()


def _seconds(text: str) -> float | None:
    return None if text == "none" else float(text)


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(text)


FLAGS = (
    Flag("host", "address to listen on", "127.0.0.1"),
    Flag("port", "port to listen on; 0 is a free one", 8443, int),
    Flag("no-tls", "plain ws and http instead of wss and https", False, _switch, switch=True),
    Flag("tls-cert", "certificate chain, PEM; without one, a certificate is made on the spot", metavar="FILE"),
    Flag("tls-key", "its private key, PEM", metavar="FILE"),
    Flag(
        "state-dir",
        "where a certificate made on the spot is kept, with its authority; by default systemd's $STATE_DIRECTORY, or "
        "$XDG_STATE_HOME/cuttlefish-signaling, or ~/.local/state/cuttlefish-signaling",
        metavar="DIR",
    ),
    Flag("device-socket", "a local socket for devices of today's Cuttlefish", metavar="PATH"),
    Flag("control-socket", "a local socket on which devices are announced", metavar="PATH"),
    Flag("stun", "a STUN server to tell peers of", metavar="URL", repeats=True),
    Flag("turn", "a URL of the TURN server to tell peers of; needs --turn-secret", metavar="URL", repeats=True),
    Flag("turn-secret", "the secret shared with the TURN server (coturn: static-auth-secret)", metavar="SECRET"),
    Flag("turn-ttl", "seconds for which TURN credentials are good", 3600.0, float, "SECONDS"),
    Flag("ice-servers", "ICE servers as a JSON list of RTCIceServer", metavar="JSON|@FILE"),
    Flag(
        "device-wait-timeout",
        "seconds a client may wait for a device that is not there; 0 refuses at once, none is for ever",
        0.0,
        _seconds,
        "SECONDS",
    ),
    Flag("on-duplicate", "who gets an id that two want", "reject", choices=("reject", "replace")),
    Flag(
        "client-ids",
        "where client ids of a registration begin: at 1, or, for real devices, at a number made from the time of day",
        "from_one",
        choices=("from_one", "unique"),
    ),
    Flag("allow-host", "a name by which the server may be reached, beside addresses", metavar="NAME", repeats=True),
    Flag("allow-origin", "an origin whose pages may use the server", metavar="ORIGIN", repeats=True),
    Flag(
        "allow-unauthenticated",
        "listen on other addresses than loopback without an authorize hook",
        False,
        _switch,
        switch=True,
    ),
    Flag("hooks", "hooks, from a Python file or module", metavar="FILE_OR_MODULE:OBJECT"),
    Flag("hook-timeout", "seconds a hook may take", 5.0, float, "SECONDS"),
    Flag(
        "dashboard",
        "a page for people at /; auto is on where only this machine reaches it",
        "auto",
        choices=("auto", "on", "off"),
    ),
    Flag("journal", "keep what is said, for conversations on that page", False, _switch, switch=True),
    Flag("assets-dir", "serve these files as well: the web client of a host package", metavar="DIR"),
    Flag(
        "proxy-device-files",
        "let /devices/ID/files/ reach the web servers of devices on the device socket",
        False,
        _switch,
        switch=True,
    ),
    Flag(
        "devices-format",
        "what GET /devices lists by default; ids is what the page of the reference server expects",
        "full",
        choices=("full", "ids"),
    ),
    Flag("workers", "threads that relay", 1, int),
    Flag("log-level", "least level to log", "info", choices=("debug", "info", "warning", "error")),
    Flag("log-format", "how to log, on stderr", "text", choices=("text", "json")),
)


class Parser(argparse.ArgumentParser):
    """Errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and ends."""
        self.exit(2, f"{PROGRAM}: error: {' '.join(message.split())}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog=PROGRAM, description="A signaling server for Android Cuttlefish devices over WebRTC.")
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the server",
        description="Runs the server until SIGINT or SIGTERM, then lets its peers go and exits with 0.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--config", metavar="FILE.toml", help=f"a file with settings [env: {ENVIRONMENT}CONFIG]")
    serve.add_argument(
        "--print-ca", action="store_true", help="print the authority of the certificate made on the spot, PEM, and exit"
    )
    for flag in FLAGS:
        default = "" if flag.default is None or flag.switch else f"; default {flag.default}"
        text = f"{flag.help}{default} [env: {flag.variable}]".replace("%", "%%")
        if flag.switch:
            serve.add_argument(f"--{flag.name}", action="store_true", default=None, help=text)
        else:
            serve.add_argument(
                f"--{flag.name}",
                type=_argument(flag),
                metavar=flag.metavar,
                choices=flag.choices,
                action="append" if flag.repeats else "store",
                help=text + ("; may be repeated" if flag.repeats else ""),
            )
    return top


def _argument(flag: Flag) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return flag.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} makes no sense") from None

    return parse


def settings(arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """The settings from all the places there are. Raises ConfigError, which names the place."""
    path = arguments.config or environment.get(f"{ENVIRONMENT}CONFIG")
    file = _read_config(path) if path else {}
    found = {"limits": file.pop("limits", {}), "keepalive": file.pop("keepalive", {})}
    for flag in FLAGS:
        from_file = file.pop(flag.key, None)
        if (given := getattr(arguments, flag.key)) is not None:
            found[flag.key] = given
        elif (text := environment.get(flag.variable)) is not None:
            found[flag.key] = _from_environment(flag, text)
        elif from_file is not None:
            found[flag.key] = _from_file(flag, from_file, str(path))
        else:
            found[flag.key] = flag.default
    if file:
        known = ", ".join([flag.key for flag in FLAGS] + ["[limits]", "[keepalive]"])
        raise ConfigError("config", f"{path}: unknown key {next(iter(file))!r}; there are {known}")
    return found


def _from_environment(flag: Flag, text: str) -> Any:
    try:
        value = [flag.parse(part) for part in text.split()] if flag.repeats else flag.parse(text)
    except ValueError:
        raise ConfigError(flag.variable, f"{text!r} makes no sense") from None
    if flag.choices and value not in flag.choices:
        raise ConfigError(flag.variable, f"{text!r} is none of {', '.join(flag.choices)}")
    return value


def _from_file(flag: Flag, value: Any, path: str) -> Any:
    place = f"{path}: {flag.key}"
    if flag.key == "device_wait_timeout" and value == "none":
        # TOML has no null; this is what the flag says too.
        return None
    if flag.key == "ice_servers" and isinstance(value, list):
        return json.dumps(value)
    if flag.repeats:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(place, f"must be a list of strings, got {value!r}")
        return value
    if flag.choices and value not in flag.choices:
        raise ConfigError(place, f"{value!r} is none of {', '.join(flag.choices)}")
    wanted: tuple[type, ...] = (str,) if flag.parse is str else (bool,) if flag.switch else (int, float)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not flag.switch):
        raise ConfigError(place, f"must be {' or '.join(kind.__name__ for kind in wanted)}, got {value!r}")
    return value


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            table: dict[str, Any] = json.loads(_native.toml_to_json(file.read()))
    except (OSError, ValueError) as error:
        raise ConfigError("config", f"can not read {path}: {error}") from error
    return table


def server(found: dict[str, Any]) -> tuple[SignalingServer, Callable[[], None]]:
    """The server of these settings, and a call for when it has started, which writes and logs a new certificate.

    Raises ConfigError, or StateDirError where `--state-dir` cannot be used.
    """
    hooks = _hooks(found["hooks"]) if found["hooks"] else {}
    ice = hooks.get("ice_servers")
    if ice is None:
        ice = _ice_servers(found)
    elif given := [key.replace("_", "-") for key in ("stun", "turn", "ice_servers") if found[key]]:
        raise ConfigError("hooks", f"{found['hooks']} has ice_servers, which contradicts {' and '.join(given)}")
    # Last: it locks the state directory, and code of hooks may take its time.
    tls, save_certificate = certificate(found)
    running = SignalingServer(
        host=found["host"],
        port=found["port"],
        device_socket=found["device_socket"] or None,
        control_socket=found["control_socket"] or None,
        tls=tls,
        ice_servers=ice,
        filter_device_info=hooks.get("filter_device_info"),
        authorize=hooks.get("authorize"),
        device_wait_timeout=found["device_wait_timeout"],
        on_duplicate=found["on_duplicate"],
        client_ids=found["client_ids"],
        hook_timeout=found["hook_timeout"],
        limits=_group("limits", Limits, found["limits"]),
        keepalive=_group("keepalive", Keepalive, found["keepalive"]),
        allowed_hosts=found["allow_host"] or (),
        allowed_origins=found["allow_origin"] or (),
        allow_unauthenticated=bool(found["allow_unauthenticated"]),
        dashboard=_wants_dashboard(found),
        assets_dir=found["assets_dir"] or None,
        proxy_device_files=bool(found["proxy_device_files"]),
        devices_format=found["devices_format"],
        journal=bool(found["journal"]),
        workers=found["workers"],
        stop_timeout=DRAIN_TIMEOUT,
    )
    return running, save_certificate


def _wants_dashboard(found: dict[str, Any]) -> bool:
    if found["dashboard"] != "auto":
        return bool(found["dashboard"] == "on")
    try:
        return ipaddress.ip_address(found["host"]).is_loopback
    except ValueError:
        return bool(found["host"] == "localhost")


def _group(name: str, kind: Callable[..., Any], values: Any) -> Any:
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(name, f"must be a table, got {values!r}")
    for key in values:
        if key not in known:
            raise ConfigError(name, f"unknown key {key!r}; there are {', '.join(known)}")
    return kind(**{key: None if value == "none" else value for key, value in values.items()})


def _ice_servers(found: dict[str, Any]) -> Any:
    stun, turn, secret, given = found["stun"] or [], found["turn"] or [], found["turn_secret"], found["ice_servers"]
    if turn or secret:
        if not (turn and secret):
            missing, there = ("turn", "turn-secret") if secret else ("turn-secret", "turn")
            raise ConfigError(missing, f"is missing: {there} needs it. Fixed credentials go into ice-servers")
        if given:
            raise ConfigError("ice-servers", "can not be combined with turn; put everything into a hook instead")
        return TurnRest(turn, secret=secret, ttl=found["turn_ttl"], stun=stun)
    servers: list[Any] = [IceServer(url) for url in stun]
    if given:
        if given.startswith("@"):
            try:
                with open(given[1:], encoding="utf-8") as file:
                    given = file.read()
            except (OSError, UnicodeError) as error:
                raise ConfigError("ice-servers", f"can not read {given[1:]}: {error}") from error
        try:
            listed = json.loads(given)
        except ValueError as error:
            raise ConfigError("ice-servers", f"is no valid JSON: {error}") from error
        if not isinstance(listed, list):
            raise ConfigError("ice-servers", "must be a JSON list")
        servers += listed
    return servers


def _hooks(target: str) -> dict[str, Any]:
    """The hooks of `FILE.py:OBJECT`, `module:OBJECT`, or of the whole file or module."""
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    owner: Any = _load(place, target)
    for part in filter(None, name.split(".")):
        try:
            owner = getattr(owner, part)
        except AttributeError:
            raise ConfigError("hooks", f"{target}: there is no {part!r} in {place}") from None
    if inspect.isclass(owner):
        owner = owner()
    found = {hook: getattr(owner, hook) for hook in HOOKS if getattr(owner, hook, None) is not None}
    if not found:
        raise ConfigError("hooks", f"{target} has none of {', '.join(HOOKS)}")
    return found


def _load(place: str, target: str) -> Any:
    try:
        if not (place.endswith(".py") or os.sep in place):
            sys.path.insert(0, os.getcwd())
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location("cuttlefish_signaling_hooks", place)
        if spec is None or spec.loader is None:
            raise ConfigError("hooks", f"{place} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except SignalingError:
        raise
    except Exception as error:  # A user's file can fail in every way there is.
        raise ConfigError("hooks", f"can not load {target}: {type(error).__name__}: {error}") from error
    return module


class TextFormatter(logging.Formatter):
    """Text, in which nothing that a peer said can move the cursor, change colours or begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines; a traceback has several."""
        head, *rest = super().format(record).split("\n")
        message = record.getMessage()
        if not record.exc_info and "\n" in message:
            head, rest = "\\n".join([head, *rest]), []
        return "\n".join("".join(c if c.isprintable() else _escaped(c) for c in line) for line in [head, *rest])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def _logging(level: str, form: str) -> Iterator[logging.Logger]:
    """Logs to stderr, for as long as this process is the server's."""
    handler = logging.StreamHandler()
    text = TextFormatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logger = logging.getLogger("cuttlefish_signaling")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _serve(arguments: argparse.Namespace) -> int:
    found = settings(arguments, dict(os.environ))
    with _logging(found["log_level"], found["log_format"]) as logger, _stop_signals() as wait_for_signal:
        if arguments.print_ca:
            print(authority_pem(found), end="", flush=True)
            return 0
        running, save_certificate = server(found)
        _raise_descriptor_limit()
        running.start()
        try:
            save_certificate()
            people = f"\npeople: {running.url}/" if _wants_dashboard(found) else ""
            shown = f"\n{fingerprints(running.tls)}" if running.tls else ""
            print(f"devices: {running.device_url}\nclients: {running.client_url}{people}{shown}", flush=True)
            notify("READY=1")
            wait_for_signal()
            logger.info("stopping")
            notify("STOPPING=1")
        finally:
            running.stop()
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], None]]:
    """Yields a function that waits for the first SIGINT or SIGTERM. The next one ends the process at once.

    The interpreter writes each signal to a socket, from which the function reads. A handler that set an event could run
    while the same thread holds the event's lock, and wait for it forever.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def restore_default(_number: int, _frame: object) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def wait() -> None:
        while not set(receiver.recv(64)) & set(STOP_SIGNALS):
            pass  # Another signal, of a handler that hooks have set.

    with receiver, sender:
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, restore_default) for number in STOP_SIGNALS}
        try:
            yield wait
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


def _raise_descriptor_limit() -> None:
    """Each connection is a descriptor: as many as the system lets us have, not as many as a shell begins with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # Then it is what it was; running out of them is logged.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    0, or 1 where the state directory cannot be used, or 2 where a setting or the address cannot.
    """
    parsed = parser().parse_args(arguments)
    try:
        return _serve(parsed)
    except SignalingError as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, StateDirError) else 2
