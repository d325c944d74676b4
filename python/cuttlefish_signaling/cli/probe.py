"""`cuttlefish-signaling probe`: tells where signaling, TURN, ICE or media of a server fails."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from .._settings import ENVIRONMENT
from .._turn import TurnRest
from ..errors import ConfigError
from ..probe import EXIT_STATUS, ProbeOptions, Report, Step, metrics, step_lines, write_atomically
from ..probe import probe as run_probe
from .output import print_answer, print_to_stderr
from .secrets import read_secret

INTERRUPTED = 130
"""The exit status of a probe that Ctrl-C ends, as a shell has it."""


def probe(arguments: argparse.Namespace) -> int:
    """Prints the report. Returns 0, the status of the stage that failed, or that of an interruption."""
    progress = Progress(is_json=arguments.json)
    try:
        options = _options(arguments)
        report = run_probe(
            arguments.url, arguments.device, options, on_step=progress.on_step, on_stage=progress.on_stage
        )
    except ConfigError as error:
        raise _named(error) from None
    except KeyboardInterrupt:
        progress.clear()
        print_to_stderr(f"interrupted at {progress.stage or 'the start'}")
        return INTERRUPTED
    finally:
        progress.clear()
    _print(report, arguments)
    return report.exit_status


def _print(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.prometheus:
        try:
            write_atomically(arguments.prometheus, metrics(report))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"--prometheus: cannot write {arguments.prometheus}: {reason}") from None
    print_answer(report.json() if arguments.json else report.last_line())


class Progress:
    """Prints each step when it has ended, and the stage that runs, on a line of a terminal."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._has_line = False
        self.stage: str = ""

    def on_stage(self, stage: str, seconds: float) -> None:
        """Shows the stage that begins."""
        self.stage = stage
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r\x1b[K{stage} ... (at most {seconds:g} s)", end="", file=sys.stderr, flush=True)
            self._has_line = True

    def on_step(self, step: Step) -> None:
        """Prints the lines of a step."""
        self.clear()
        if not self._is_json:
            print_answer(*step_lines(step))

    def clear(self) -> None:
        """Removes the line of the stage."""
        if self._has_line:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._has_line = False


def _options(arguments: argparse.Namespace) -> ProbeOptions:
    default, timeouts = _timeouts(arguments.timeout)
    return ProbeOptions(
        token=read_secret("--token-file", arguments.token_file) if arguments.token_file else None,
        origin=arguments.origin,
        ca=arguments.ca or os.environ.get(f"{ENVIRONMENT}CA"),
        insecure=arguments.insecure,
        timeout=default,
        timeouts=timeouts,
        pings=arguments.pings,
        seconds=arguments.seconds,
        max_loss=arguments.max_loss / 100,
        expiry_days=arguments.expiry_days,
        turn=arguments.turn,
        turn_servers=_turn_servers(arguments),
    )


def _timeouts(texts: list[str]) -> tuple[float, dict[str, float]]:
    """Returns the seconds for each stage, and those for some."""
    default, found = 10.0, {}
    for text in texts:
        stage, separator, number = text.rpartition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 3600:
            raise ConfigError("--timeout", f"{text!r} is not a number of seconds, more than 0, at most 3600")
        if separator and stage not in EXIT_STATUS:
            raise ConfigError("--timeout", f"there is no stage {stage!r}; there are {', '.join(EXIT_STATUS)}")
        if separator:
            found[stage] = seconds
        else:
            default = seconds
    return default, found


def _turn_servers(arguments: argparse.Namespace) -> tuple[dict[str, Any], ...]:
    urls, name = arguments.turn_server, arguments.turn_username
    credential, secret = arguments.turn_credential_file, arguments.turn_secret_file
    if (name or credential or secret) and not urls:
        raise ConfigError("--turn-server", "is missing: the TURN servers of the server bring their own credentials")
    if bool(name) != bool(credential):
        raise ConfigError("--turn-username", "and --turn-credential-file belong together")
    if secret and name:
        raise ConfigError("--turn-secret-file", "makes username and password: leave out --turn-username")
    if not urls:
        return ()
    if secret:
        config = TurnRest(urls, secret=read_secret("--turn-secret-file", secret), ttl=600, name="probe").config()
        servers: list[dict[str, Any]] = json.loads(config)["ice_servers"]
        return tuple(servers)
    if not name:
        return ({"urls": urls},)
    return ({"urls": urls, "username": name, "credential": read_secret("--turn-credential-file", credential)},)


def _named(error: ConfigError) -> ConfigError:
    """Returns the error with the flag in the place of the option."""
    names = {
        "token": "--token-file",
        "ca": "--ca",
        "origin": "--origin",
        "URL": "URL",
        "TurnRest.urls": "--turn-server",
    }
    name = next((flag for option, flag in names.items() if error.setting.startswith(option)), error.setting)
    return ConfigError(name, error.what)
