"""Compares what a server sent with what a transcript expects."""

from __future__ import annotations

import json
import re
from typing import Any

from ._model import Failed
from ._peer import Heard, Peer, compact

_CLIENT_ID = re.compile(r'("client_id":)([0-9]+)((?:\.0|e0)?)(?=[,}])')

MOST_ID = 2**31 - 1

CONFIG = '{"message_type":"config","ice_servers":[...]}'


class Ids:
    """The client ids of a conversation: the number in the transcript, and the one that the server gave."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], int] = {}

    def bind(self, device: str, number: int, found: Any) -> bool:
        """Takes the id that the server gave. Whether it is an id, and that of this client alone."""
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MOST_ID:
            return False
        known = self._found.get((device, number))
        if known is not None:
            return known == found
        if found in [other for (owner, _), other in self._found.items() if owner == device]:
            return False
        self._found[device, number] = found
        return True

    def knows(self, device: str, number: int) -> bool:
        """Whether the server's number is known."""
        return (device, number) in self._found

    def of(self, device: str, number: int) -> int:
        """The server's number. A small number that stands for no client is counted from that of the first client."""
        if (found := self._found.get((device, number))) is not None:
            return found
        first = self._found.get((device, 1), 1)
        return number + first - 1 if 0 < number < 1000 else number

    def differing(self) -> list[tuple[int, int]]:
        """The numbers of the transcript for which the server gave other ones."""
        return [(number, found) for (_, number), found in self._found.items() if number != found]

    def in_text(self, device: str, text: str) -> str:
        """A text of a device with the server's numbers."""
        return _CLIENT_ID.sub(lambda part: f"{part[1]}{self.of(device, int(part[2]))}{part[3]}", text, count=1)


def numbers_in(text: str) -> list[int]:
    """The client ids in the text of a device."""
    return [int(part[2]) for part in _CLIENT_ID.finditer(text)][:1]


def is_config(value: Any) -> bool:
    """Whether a value is a `config` message, as far as its type tells."""
    return isinstance(value, dict) and value.get("message_type") == "config"


def fault_of_config(value: Any, *, is_exact: bool) -> str:
    """The fault of a `config` message; empty if it has none (docs/protocol.md 1.6 and 1.16)."""
    if not is_config(value):
        return "it is not a `config` message"
    servers = value.get("ice_servers", ...)
    if not isinstance(servers, list):
        return "`ice_servers` is not an array"
    for server in servers:
        if not isinstance(server, dict):
            return "an ICE server is not an object"
        urls = server.get("urls")
        is_list = isinstance(urls, list) and all(isinstance(url, str) for url in urls) and urls
        if not is_list and (is_exact or not isinstance(urls, str)):
            return "`urls` of an ICE server is not an array of strings"
        if not all(isinstance(server.get(key, ""), str) for key in ("username", "credential")):
            return "`username` or `credential` of an ICE server is not a string"
    return ""


def check_error(peer: Peer, heard: Heard) -> None:
    """Any error will do. Raises Failed."""
    value = heard.value
    if not isinstance(value, dict) or not isinstance(value.get("error"), str):
        raise peer.unexpected(heard, '{"error":"..."}')


def check_message(peer: Peer, heard: Heard, expected: Any, ids: Ids, device: str, *, is_exact: bool) -> None:
    """Compares a message by its meaning. Raises Failed."""
    value = heard.value
    if is_config(expected):
        # Its ICE servers are those of the server, and rules of their own judge them.
        if not is_config(value):
            raise peer.unexpected(heard, CONFIG)
        return
    wanted = expected
    if isinstance(expected, dict) and "client_id" in expected and isinstance(value, dict):
        if not ids.bind(device, expected["client_id"], value.get("client_id")):
            raise _because(peer.unexpected(heard, compact(expected)), "`client_id` is not that of this client")
        wanted = {**expected, "client_id": value["client_id"]}
    if not _means(value, wanted, is_exact=is_exact):
        raise peer.unexpected(heard, compact(wanted))


def check_text(peer: Peer, heard: Heard, expected: str, ids: Ids, device: str, *, is_exact: bool) -> None:
    """Compares a text byte for byte, or by its meaning if that is all a profile asks for. Raises Failed."""
    try:
        meaning = json.loads(expected)
    except ValueError:
        meaning = ...
    if is_config(meaning) and (fault := fault_of_config(heard.value, is_exact=is_exact)):
        raise _because(peer.unexpected(heard, CONFIG), fault)
    if is_config(meaning) or not is_exact:
        check_message(peer, heard, meaning, ids, device, is_exact=is_exact)
        return
    if isinstance(meaning, dict) and "client_id" in meaning and isinstance(heard.value, dict):
        if not ids.bind(device, meaning["client_id"], heard.value.get("client_id")):
            raise _because(peer.unexpected(heard, expected), "`client_id` is not that of this client")
        expected = ids.in_text(device, expected)
    if heard.text != expected:
        raise peer.unexpected(heard, expected)


def _because(failed: Failed, fault: str) -> Failed:
    failed.reason = f"{failed.reason}: {fault}"
    return failed


def _means(value: Any, expected: Any, *, is_exact: bool) -> bool:
    """Whether two values are the same. If not exact, a message may have fields that are not expected."""
    if not is_exact and isinstance(expected, dict) and isinstance(value, dict):
        return {key: value.get(key, ...) for key in expected} == expected
    return type(value) is type(expected) and bool(value == expected)


def is_reason(heard: str, expected: str) -> bool:
    """Whether a close reason is this text, or its beginning where it does not fit a close frame (123 bytes)."""
    whole = expected.encode()
    return heard == expected or (len(whole) > 123 and len(heard.encode()) >= 120 and whole.startswith(heard.encode()))
