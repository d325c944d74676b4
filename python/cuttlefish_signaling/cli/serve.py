"""`cuttlefish-signaling serve`: makes the server of the settings and runs it until a signal."""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, TypeAlias

from .. import IceCommand, IceServer, SignalingServer, StaticTokens, Tls, TurnRest, __version__, _native
from .._log import log
from .._settings import KEYWORDS
from .._settings.kinds import Path, Strings
from ..errors import BindError, ConfigError, EngineUnreachableError, SignalingError, StateDirError
from .activation import Inherited, take_sockets
from .armed_faults import ArmedFaults
from .cluster import cluster
from .control_token import control_token
from .hooks import load_hooks
from .jwt import jwt
from .listeners import all_listeners, apply_sockets, is_reached_from_here_only, keywords, listeners, with_flags
from .log import logging_to_stderr
from .operator import apply_preset
from .outcome import settings_as_toml, settings_digest
from .output import print_answer, print_if_possible
from .process import Interrupted, StopSignals, raise_descriptor_limit, stop_signals
from .reload import Reloader
from .secrets import hide_arguments, read_secret
from .sources import Found, settings
from .systemd import notify, watchdog_interval
from .tls import authority_pem, certificate, fingerprints
from .upstream import upstream

Certify: TypeAlias = Callable[[Found], tuple[Tls | None, Callable[[], None]]]
"""Returns the certificate of settings, and a function that writes its new files."""

SLACK = 5.0
"""Seconds beyond a stop in which the process ends."""


def serve(arguments: argparse.Namespace) -> int:
    """Runs the server until SIGINT or SIGTERM; SIGHUP reloads. Returns the exit status; raises SignalingError."""
    with stop_signals(until_exit=arguments.until_exit) as signals:
        inherited, notices = take_sockets(os.environ)
        found = settings(arguments, dict(os.environ))
        found.notices += notices
        try:
            _answer(arguments, found, signals, inherited)
        except ConfigError as error:
            raise found.named(error) from None
        except StateDirError as error:
            raise StateDirError(f"{found.origin('state_dir')}: {error.path}", error.what) from None
    return 0


def proxy(arguments: argparse.Namespace) -> int:
    """Runs a proxy, as `serve` runs a server. Raises ConfigError without `--upstream`."""
    return serve(arguments)


def _answer(arguments: argparse.Namespace, found: Found, signals: StopSignals, inherited: list[Inherited]) -> None:
    notices = [*found.notices, *apply_preset(found)]
    apply_sockets(found, inherited)
    all_listeners(found)
    if arguments.command == "proxy" and not found["upstream"]:
        raise ConfigError("upstream", "is missing: the server to which all is passed on, like wss://localhost:1443")
    serves = not (arguments.dry_run or arguments.print_ca)
    with _logging(found, serves=serves):
        hide_arguments([arguments.turn_secret, arguments.ice_servers, arguments.cluster])
        if serves:
            made = _server_and_first_records(found, notices)
            _serve(arguments, found, signals, inherited, made)
            return
        _log_notices(notices)
        print_answer(*(settings_as_toml(found) if arguments.dry_run else [authority_pem(found)]))


def _server_and_first_records(found: Found, notices: list[str]) -> tuple[SignalingServer, Callable[[], None]]:
    """Makes the server, and logs the first records. Settings that are wrong are an error without a first record."""
    try:
        made = server(found)
    except SignalingError:
        _log_notices(notices)
        raise
    _log_settings(found)
    _log_notices(notices)
    return made


def _log_notices(notices: list[str]) -> None:
    for notice in notices:
        log(logging.WARNING, "%s", notice, event="setting_ignored", reason=notice)


def _log_settings(found: Found) -> None:
    """Logs the first record: the version, the listeners and the digest of the settings."""
    fields: dict[str, Any] = {
        "version": __version__,
        "listeners": " ".join(one.url for one in all_listeners(found)),
        "settings_digest": settings_digest(found),
    }
    text = "cuttlefish-signaling %s starts on %s, with settings %s"
    log(logging.INFO, text, *fields.values(), event="starting", **fields)


def _serve(
    arguments: argparse.Namespace,
    found: Found,
    signals: StopSignals,
    inherited: list[Inherited],
    made: tuple[SignalingServer, Callable[[], None]],
) -> None:
    running, save_files = made
    signals.take()
    raise_descriptor_limit()
    try:
        running._start(None)
    except BindError as error:
        raise BindError(error.errno, with_flags(error, found)) from None
    try:
        # Before the addresses are told. The server listens already: forwards of its first milliseconds may pass.
        faults = ArmedFaults(running)
        faults.replace(found.faults)
        _wait_for_engine(found, signals, running)
        urls = " ".join([*running.urls, *running.metrics_urls, *running.control_urls])
        log(logging.INFO, "listening on %s", urls, event="listening", listeners=urls)
        save_files()
        if reason := print_if_possible(*_addresses(running, found)):
            text = "the URLs cannot be written to stdout: %s"
            log(logging.WARNING, text, reason, event="stdout_failed", reason=reason)
        notify("READY=1")
        _feed_watchdog(running)
        running._on_reload = signals.request_reload
        reason = signals.wait(Reloader(arguments, inherited, found, running, server_keywords, faults))
        signals.end_drain = partial(_end_drain, running)
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(1_000_000 * _stop_time(found))}")
        log(logging.INFO, "stopping: %s", reason, event="stopping", reason=reason)
        running.stop()
    finally:
        running.stop(drain=0, drain_spread=0)


def _wait_for_engine(found: Found, signals: StopSignals, running: SignalingServer) -> None:
    """Waits for the engine of a node that needs it, or for a signal that stops the server."""
    try:
        with suppress(Interrupted), signals.interruptible():
            running._wait_for_engine()
    except EngineUnreachableError as error:
        what = error.what.replace("Cluster.on_outage", found.origin("cluster_on_outage"))
        raise EngineUnreachableError(error.engine, what) from None


def _feed_watchdog(running: SignalingServer) -> None:
    """Tells systemd, if it has a watchdog, each time that the runtime has made progress and Python has noticed it."""
    interval = watchdog_interval(os.environ)
    if interval is None:
        return
    try:
        faulthandler.enable()  # The watchdog sends SIGABRT: the log then tells where each thread was.
    except (AttributeError, OSError, ValueError):
        pass  # stderr is closed.
    notify("WATCHDOG=1")
    running._running().beat(interval, partial(notify, "WATCHDOG=1"))


def _end_drain(running: SignalingServer) -> bool:
    ended = running._end_drain()
    if ended:
        log(logging.INFO, "another signal: the drain ends, the connections are closed now", event="drain_ended")
    return ended


def _stop_time(found: Found) -> float:
    """Returns the longest time that a stop takes. `TimeoutStopSec=` may be shorter: systemd is told."""
    return float(found["drain"] + found["drain_spread"] + found["stop_timeout"] + SLACK)


def _logging(found: Found, *, serves: bool) -> AbstractContextManager[logging.Logger]:
    file = found["log_file"] if serves else None
    return logging_to_stderr(found["log_level"], found["log_format"], file, found["log_file_size"])


def _addresses(running: SignalingServer, found: Found) -> list[str]:
    """Returns the lines that tell where the server is reached."""
    lines = []
    if any(listener.scheme != "unix" for listener in listeners(found)):
        # Of a listener on all addresses, that of the machine, which others can use.
        url = next(url for url in running.urls if url.startswith("http"))
        socket = f"ws{url.removeprefix('http')}"
        lines += [f"devices: {socket}/register_device", f"clients: {socket}/connect_client"]
        if wants_dashboard(found):
            lines.append(f"people: {url}/{'_proxy/' if found['upstream'] else ''}")
        elif found["dashboard"] == "auto":
            lines.append("people: the page is off here: --dashboard on")
    lines += [f"listening: {url}" for url in running.urls]
    lines += [f"metrics: {url}" for url in running.metrics_urls]
    lines += [f"control: {url}" for url in running.control_urls]
    if (address := running._running().native.node_address) is not None:
        lines.append(f"cluster: {address}")
    return lines + ([fingerprints(running.tls)] if running.tls else [])


def server(found: Found, certify: Certify = certificate) -> tuple[SignalingServer, Callable[[], None]]:
    """Returns the server of these settings, and a function that writes new files after its start.

    Raises ConfigError, or StateDirError where `--state-dir` cannot be used.
    """
    given, save_files = server_keywords(found, certify)
    return SignalingServer(**given), save_files


def server_keywords(found: Found, certify: Certify = certificate) -> tuple[dict[str, Any], Callable[[], None]]:
    """Returns the arguments of `SignalingServer`, and the same function. Raises the same errors."""
    hooks = load_hooks(found["hooks"]) if found["hooks"] else {}
    if hooks.get("ice_servers") is None:
        hooks["ice_servers"] = ice_servers(found)
    elif given := [found.origin(key) for key in ("stun", "turn", "ice_servers") if found[key]]:
        raise ConfigError("hooks", f"{found['hooks']} has ice_servers, which contradicts {' and '.join(given)}")
    if found["token_file"]:
        if hooks.get("authorize") is not None:
            raise ConfigError("hooks", f"{found['hooks']} has authorize, which contradicts --token-file")
        hooks["authorize"] = StaticTokens._from_file("token-file", found["token_file"])
    joined, (token, save_token) = cluster(found), control_token(found)
    # Last: it locks the state directory, and hooks may take long to load.
    tls, save_certificate = certify(found)
    keyword_arguments = {
        **same(found),
        **keywords(found),
        **hooks,
        "tls": tls,
        "control_token": token,
        "cluster": joined,
        "upstream": upstream(found),
        "jwt": jwt(found),
        "dashboard": wants_dashboard(found),
        "limits": found["limits"],
        "keepalive": found["keepalive"],
    }

    def save_files() -> None:
        save_certificate()
        save_token()

    return keyword_arguments, save_files


def same(found: Found) -> dict[str, Any]:
    """Returns the keyword arguments that are the values of flags."""
    same = {}
    for row in KEYWORDS:
        if row.flag is not None:
            value = found[row.flag.key]
            # An empty text is not a path, and a flag that may be repeated may be missing.
            same[row.name] = value or row.default if isinstance(row.kind, Path | Strings) else value
    return same


def wants_dashboard(found: Found) -> bool:
    """Whether the server has the dashboard page: by default only if it is reached from this machine only."""
    if found["dashboard"] != "auto":
        return bool(found["dashboard"] == "on")
    return is_reached_from_here_only(found)


def _turn_secret(found: Found) -> str | None:
    secret: str | None = found["turn_secret"]
    if not found["turn_secret_file"]:
        return secret
    if secret is not None:
        raise ConfigError("turn-secret-file", "contradicts --turn-secret: give one of them")
    return read_secret("turn-secret-file", found["turn_secret_file"])


def ice_servers(found: Found) -> Any:
    """Returns the ICE servers of the flags, as `SignalingServer` takes them. Raises ConfigError."""
    stun, turn, given = found["stun"] or [], found["turn"] or [], found["ice_servers"]
    secret = _turn_secret(found)
    if turn or secret:
        if not (turn and secret):
            missing, there = ("turn", "turn-secret") if secret else ("turn-secret", "turn")
            raise ConfigError(missing, f"is missing: --{there} needs it. Fixed credentials go into --ice-servers")
        if found["ice_servers_command"]:
            raise ConfigError(
                "ice-servers-command", "cannot be combined with --turn: the command can print TURN servers"
            )
        if given:
            raise ConfigError("ice-servers", "cannot be combined with --turn; put everything into a hook instead")
        return TurnRest(turn, secret=secret, ttl=found["turn_ttl"], stun=stun)
    servers = [IceServer(url) for url in stun] + _listed(given)
    if not found["ice_servers_command"]:
        return servers
    try:
        argv = shlex.split(found["ice_servers_command"])
    except ValueError as error:
        raise ConfigError("ice-servers-command", f"cannot be split into words: {error}") from error
    timeout, ttl = found["ice_servers_timeout"], found["ice_servers_ttl"]
    return IceCommand(argv, timeout=timeout, ttl=ttl, fallback=servers)


def _listed(given: str | None) -> list[Any]:
    """Returns the entries of `ice_servers`."""
    if given:
        if given.startswith("@"):
            try:
                with open(given[1:], encoding="utf-8") as file:
                    given = file.read()
            except (OSError, UnicodeError) as error:
                raise ConfigError("ice-servers", f"cannot read {given[1:]}: {error}") from error
        try:
            listed: list[Any] = json.loads(_native.checked_ice_servers(given))
        except ConfigError as error:
            raise ConfigError(error.setting.replace("ice_servers", "ice-servers", 1), error.what) from None
        return listed
    return []
