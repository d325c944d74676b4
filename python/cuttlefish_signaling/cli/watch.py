"""`cuttlefish-signaling watch`: devices, clients, nodes and messages of a running server, as they come and go."""

from __future__ import annotations

import argparse
import select
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .. import Entry, RemoteServer
from .._entry import printable
from .._raw_json import on_one_line
from .._remote.native import entry_of
from ..errors import UnreachableError
from .control_target import INTERRUPTED, running_server
from .output import OutputError, print_answer


def watch(arguments: argparse.Namespace) -> int:
    """Prints events until the server stops. Returns 0, or the status of an interruption."""
    try:
        with running_server(arguments) as server:
            _watch(server, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _watch(server: RemoteServer, arguments: argparse.Namespace) -> None:
    is_json = arguments.json or not sys.stdout.isatty()
    query = {
        "device": arguments.device,
        "messages": False if arguments.no_messages else None,
        "after": arguments.after,
    }
    event: dict[str, Any] = {}
    for line, event in server._running().lines("/watch", query):
        if event["event"] == "alive":
            _check_reader()
        elif is_json:
            print_answer(on_one_line(line))
        elif (text := described(event, server.control_url)) is not None:
            print_answer(text)
    if event.get("event") != "stopping":
        raise UnreachableError(f"{server.control_url}: the server has ended the stream")


def _check_reader() -> None:
    """Raises OutputError where the reader of stdout has gone: a quiet server would keep the command forever."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        gone = bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return
    if gone:
        raise OutputError("cannot write to stdout: Broken pipe")


def described(event: Mapping[str, Any], url: str) -> str | None:
    """Returns the line of an event; None for one of a kind that this version does not know."""
    kind = event["event"]
    if kind == "start":
        return f"watching {url}: {event['devices']} devices, {event['clients']} clients"
    if kind == "stopping":
        return f"{url} stops"
    if kind == "lost":
        return f"too slow: {event.get('events', 0)} events and {event.get('entries', 0)} messages are missing"
    if kind == "message":
        entry = Entry._of(entry_of(event["entry"]))
        return f"{_clock(entry.at)}  {_message(entry)}"
    text = _change(kind, event)
    return None if text is None else f"{_clock(event['at'])}  {text}"


def _change(kind: str, event: Mapping[str, Any]) -> str | None:
    if kind == "device_registered":
        device = event["device"]
        group = f", group {printable(device['group'])}" if device.get("group") else ""
        node = f" on node {printable(device['node'])}" if device.get("node") else ""
        return f"device {printable(device['device_id'])} registered{node}{_from(device)}{group}"
    if kind == "client_connected":
        client = event["client"]
        return f"client {printable(client['device_id'])}#{client['client_id']} connected{_from(client)}"
    if kind == "client_left":
        return f"client {printable(event['device_id'])}#{event['client_id']} left"
    if kind == "node":
        return f"node {printable(event['node']['name'])} is {event['node']['state']}"
    if kind == "node_left":
        return f"node {printable(event['name'])} left"
    words = {
        "device_left": "device {} left",
        "client_waiting": "a client waits for {}",
        "client_stopped_waiting": "a client waits no longer for {}",
    }
    return words[kind].format(printable(event["device_id"])) if kind in words else None


def _from(peer: Mapping[str, Any]) -> str:
    return f" from {peer['address']}" if peer.get("address") else ""


def _message(entry: Entry) -> str:
    outcome = "" if entry.outcome == "passed" else {"gone": "receiver gone"}.get(entry.outcome, entry.outcome)
    notes = [note for note in (*entry.faults, outcome, entry.error) if note]
    return f"{printable(str(entry))}  ! {printable(', '.join(notes))}" if notes else printable(str(entry))


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "milliseconds")[11:]
