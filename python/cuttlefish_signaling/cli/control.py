"""`devices`, `disconnect`, `reload` and `journal`: commands that ask a running server through its control API."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

from .. import Device, Entry, RemoteServer
from .._entry import printable
from .._raw_json import RawJson, on_one_line, write
from .._remote.native import entry_of
from .._transcript import as_jsonl
from ..errors import ConfigError, SignalingError
from .control_target import INTERRUPTED, running_server
from .output import print_answer, print_to_stderr

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AbsentError(SignalingError):
    """The device or the client is not connected."""


def _asked(arguments: argparse.Namespace, work: Callable[[RemoteServer, argparse.Namespace], None]) -> int:
    """Does the work of a command. Returns 0, or the status of an interruption."""
    try:
        with running_server(arguments) as server:
            work(server, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


# Devices --------------------------------------------------------------------------------------------------------------


def devices(arguments: argparse.Namespace) -> int:
    """Prints the devices that are registered. Returns the exit status."""
    return _asked(arguments, _devices)


def _devices(server: RemoteServer, arguments: argparse.Namespace) -> None:
    found = server.devices()
    if arguments.json:
        print_answer(write([_as_json(device) for device in found]))
    elif found:
        print_answer(*_table(found))
    else:
        print_answer("no device is registered")


def _as_json(device: Device) -> dict[str, Any]:
    facts = {name: value for name, value in vars(device).items() if name != "info_json"}
    return {**facts, "info": on_one_line(RawJson._of(device.info_json))}


def _table(found: list[Device]) -> Iterator[str]:
    """Yields the lines of a table. Columns without a value are left out."""
    columns: dict[str, list[str]] = {
        "DEVICE": [device.device_id for device in found],
        "CLIENTS": ["?" if device.clients is None else str(device.clients) for device in found],
        "SINCE": [_time(device.since) for device in found],
        "ADDRESS": [_address(device.address, device.port) for device in found],
        "GROUP": [device.group_name for device in found],
        "OWNER": [device.owner for device in found],
        "NAME": [device.name for device in found],
        "NODE": [device.node or "" for device in found],
    }
    shown = {name: [printable(text) for text in texts] for name, texts in columns.items() if any(texts)}
    widths = [max(map(len, [name, *texts])) for name, texts in shown.items()]
    for row in [tuple(shown), *zip(*shown.values(), strict=True)]:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _address(address: str | None, port: int | None) -> str:
    if address is None or port is None:
        return address or ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# Disconnect and reload ------------------------------------------------------------------------------------------------


def disconnect(arguments: argparse.Namespace) -> int:
    """Closes the connection of a device or of a client. Returns the exit status."""
    return _asked(arguments, _disconnect)


def _disconnect(server: RemoteServer, arguments: argparse.Namespace) -> None:
    device_id, client_id = arguments.device, arguments.client
    named = f"device {device_id!r}" if client_id is None else f"client {client_id} of device {device_id!r}"
    if client_id is None:
        was_there = server.disconnect_device(device_id)
    else:
        was_there = server.disconnect_client(device_id, client_id)
    if not was_there:
        raise AbsentError(f"{named} is not connected")
    if arguments.json:
        print_answer(write({"disconnected": True, "device_id": device_id, "client_id": client_id}))
    else:
        print_answer(f"disconnected {named}")


def reload(arguments: argparse.Namespace) -> int:
    """Lets the server read its settings again. Returns the exit status."""
    return _asked(arguments, _reload)


def _reload(server: RemoteServer, arguments: argparse.Namespace) -> None:
    try:
        answer = server._reload()
    except ConfigError as error:
        raise ConfigError("not reloaded, all settings of the server stay", str(error)) from None
    print_answer(json.dumps(answer) if arguments.json else f"reloaded: {answer['text']}")


# The journal ----------------------------------------------------------------------------------------------------------


def journal(arguments: argparse.Namespace) -> int:
    """Writes the journal of the server. Returns the exit status."""
    return _asked(arguments, _export)


def _export(server: RemoteServer, arguments: argparse.Namespace) -> None:
    since = None if arguments.since is None else _since(arguments.since, lambda: server.clock.now)
    query = {"after": arguments.after, "device": arguments.device, "client": arguments.client}
    entries = _entries(server._running().lines("/journal/export", query), since)
    if arguments.output in (None, "-"):
        for entry in entries:
            print_answer(as_jsonl([entry]).rstrip("\n"))
        return
    count = 0
    with _replaced(arguments.output) as file:
        for entry in entries:
            file.write(as_jsonl([entry]))
            count += 1
    print_answer(f"wrote {count} entries to {arguments.output}")


def _entries(lines: Iterable[tuple[str, dict[str, Any]]], since: float | None) -> Iterator[Entry]:
    """Yields the entries of an export. Those that the server has lost meanwhile are told on stderr."""
    for _, fact in lines:
        if "number" not in fact:
            lost = f"{fact.get('forgotten')} entries were dropped while they were written (--journal-entries)"
            print_to_stderr(f"warning: {lost}")
        elif since is None or fact["at"] >= since:
            yield Entry._of(entry_of(fact))


def _since(text: str, now: Callable[[], float]) -> float:
    """Returns a time in seconds since 1970. Raises ConfigError."""
    if (ago := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)) is not None:
        return now() - float(ago[1]) * UNITS[ago[2]]
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            "--since", f"{text!r} is no time: write 90s, 10m, 2h or 1d for a time ago, or 2026-01-31T13:00"
        ) from None


@contextmanager
def _replaced(path: str) -> Iterator[IO[str]]:
    """A file that takes its place once it is whole. A pipe or a device is written as it is. Raises OSError."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "w", encoding="utf-8") as file:
                yield file
            return
        folder = os.path.dirname(os.path.abspath(path))
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, delete=False) as file:
            try:
                yield file
                file.flush()
                os.chmod(file.name, _mode(path))
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        if isinstance(error, SignalingError):
            raise
        raise OSError(f"--output: cannot write {path}: {error.strerror or error}") from None


def _mode(path: str) -> int:
    """Returns the permissions of a file, or those that a new one has."""
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
