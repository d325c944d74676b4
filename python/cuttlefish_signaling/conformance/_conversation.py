"""Runs a transcript against a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ._cases import Case, expand, localized
from ._matching import Ids, check_error, check_message, check_text, is_reason, numbers_in
from ._model import Failed, NotApplicable
from ._peer import Heard, Peer, compact
from ._session import Session

SUBPROTOCOL = "webrtc-operator"

SETTLE = 0.25
"""Seconds after a peer has left, in the second attempt."""

COUNTED_FROM_ONE = ("client ids count up from 1", "client ids of another device begin at 1")
"""Cases whose client ids have to be those of the transcript."""


async def check_case(session: Session, case: Case) -> None:
    """Runs a case. Raises Failed or NotApplicable. A case in which a peer leaves has two attempts.

    The second one waits after the peer has left: a server may notice that a little later.
    """
    _check_settings(session, case)
    try:
        await Conversation(session, case).run()
    except Failed:
        if not any("leaves" in line for line in case.lines):
            raise
        session.end()
        session.peers.clear()
        session.transcript.lines.clear()
        session.settle, session.token = SETTLE, f"{session.token}r"
        await Conversation(session, case).run()


def _check_settings(session: Session, case: Case) -> None:
    """Raises NotApplicable if the server is not known to have the settings of the case."""
    for reason in _reasons(session, case):
        raise NotApplicable(reason)


def _reasons(session: Session, case: Case) -> Iterator[str]:
    wait, policy = session.setting("device_wait_timeout"), case.settings.get("on_duplicate")
    if case.settings.get("device_wait_timeout", 0) != 0 and wait == 0:
        yield "it needs a server with device_wait_timeout: --setting device_wait_timeout=SECONDS says so"
    if wait is None and any("Device not found" in str(line.get("hears")) for line in case.lines):
        yield "the server waits forever for a device"
    if policy is not None and session.setting("on_duplicate") != policy:
        yield f"it needs a server with on_duplicate={policy}: --setting on_duplicate={policy} says so"
    is_single = bool(case.settings.get("one_client_per_device"))
    if is_single and not session.setting("one_client_per_device"):
        yield "it needs a server with one_client_per_device: --setting one_client_per_device=true says so"
    if not is_single and sum(line.get("opens") == "client" for line in case.lines) > 1:
        session.needs_several_clients()
    if "held by a live socket" in case.title and session.setting("on_duplicate") == "replace":
        yield "the server has on_duplicate=replace"
    if "first_message_timeout" in case.settings and session.setting("first_message_timeout") is None:
        yield "the server has no first_message_timeout"
    fits_exactly = any("Message too large" in str(line.get("hears")) for line in case.lines)
    if session.setting("client_ids") == "unique" and (fits_exactly or case.title.startswith(COUNTED_FROM_ONE)):
        yield "the server has client_ids=unique"
    if "max_message_size" not in case.settings and _size(case) > session.setting("max_message_size"):
        yield "its messages are larger than max_message_size"


def _size(case: Case) -> int:
    """The bytes of the longest message, about."""
    return max(int(len(str(line)) + line.get("pad", 0) + 2 * line.get("nest", 0)) for line in case.lines)


_LEFT = Heard(other="it has left")


class Conversation:
    """One attempt."""

    def __init__(self, session: Session, case: Case) -> None:
        self._session = session
        self._case = localized(case, session.token)
        self._ids = Ids()
        self._peers: dict[str, Peer] = {}
        self._device_of: dict[str, str] = {}
        """The device id of each peer that has registered, connected or named a device in its request."""
        self._devices: dict[str, str] = {}
        """The peer that has registered last with each id."""
        self._clients: dict[str, list[str]] = {}
        """The clients of each device id, in the order in which they got the device info."""
        self._bare: set[str] = set()
        self._extra = self._time_of_settings()

    def _time_of_settings(self) -> float:
        """Seconds that the server may take longer, because the case is about a timeout of it."""
        names: list[str] = [name for name in ("first_message_timeout", "probe_timeout") if name in self._case.settings]
        names += ["device_wait_timeout"] if self._session.setting("device_wait_timeout") else []
        return sum(float(self._session.setting(name) or 0) for name in names)

    async def run(self) -> None:
        """Runs all lines. Raises Failed."""
        for line in self._case.lines:
            if "after" not in line:
                await self._act(line)
        for peer in self._peers.values():
            if peer.is_open:
                await self._check_silence(peer)
        if self._case.title.startswith(COUNTED_FROM_ONE) and (other := self._ids.differing()):
            wanted, found = other[0]
            raise Failed(
                "client ids are not counted from 1", expected=f"client_id {wanted}", heard=f"client_id {found}"
            )

    async def _check_silence(self, peer: Peer) -> None:
        known = self._session.known
        if known.answers_pings is None:
            known.answers_pings = await peer.ping(timeout=min(1.0, peer.timeout))
        for heard in await peer.unread(pings=bool(known.answers_pings)):
            raise peer.unexpected(heard, "no further message")

    async def _act(self, line: dict[str, Any]) -> None:
        name = line["peer"]
        (verb,) = line.keys() - {"peer", "of", "over", "pad", "nest", "only", "reason"}
        if verb == "opens":
            await self._open(name, line)
            return
        peer, value = self._peers[name], line[verb]
        if verb in ("says", "says_text", "says_binary"):
            await self._say(name, peer, verb, line)
        elif verb in ("hears", "hears_text"):
            await self._hear(name, peer, verb, line)
        elif verb == "closes":
            await self._close(peer, value, line.get("reason"))
        elif verb == "freezes":
            peer.freeze()
        else:
            await self._leave(peer, value)

    async def _open(self, name: str, line: dict[str, Any]) -> None:
        path = "/register_device" if line["opens"] == "device" else "/connect_client"
        if "of" in line:
            path = f"/devices/{line['of']}/connect"
            self._device_of[name] = line["of"]
            self._bare.add(name)
        offers = (SUBPROTOCOL,) if self._case.column == "cuttlefish" else ()
        self._peers[name] = await self._session.open(name, path, subprotocols=offers)

    async def _say(self, name: str, peer: Peer, verb: str, line: dict[str, Any]) -> None:
        if verb == "says_binary":
            await peer.send(line[verb].encode())
            return
        text = compact(line[verb]) if verb == "says" else expand(line[verb], self._padded(line))
        self._note(name, text)
        device = self._device_of.get(name, "")
        if self._devices.get(device) == name:
            for number in numbers_in(text):
                await self._learn(device, number)
            text = self._ids.in_text(device, text)
        await peer.send(text)

    def _padded(self, line: dict[str, Any]) -> dict[str, Any]:
        """The line with the padding of a message that is too large for the server, where the case is about that."""
        if "max_message_size" not in self._case.settings or "pad" not in line:
            return line
        return {**line, "pad": self._session.setting("max_message_size") + 1}

    def _note(self, name: str, text: str) -> None:
        """Keeps the device id that a peer registers or connects to."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if name in self._bare or not isinstance(message, dict) or not isinstance(message.get("device_id"), str):
            return
        kind, device = message.get("message_type"), message["device_id"]
        if kind in ("register", "connect") and name not in self._device_of:
            self._device_of[name] = device

    async def _learn(self, device: str, number: int) -> None:
        """Has a client forward a payload, if the device needs its id and the client has not forwarded yet."""
        clients = self._clients.get(device, [])
        if self._ids.knows(device, number) or not 0 < number <= len(clients):
            return
        name = clients[number - 1]
        client = self._peers[name]
        if not client.is_open:
            return
        await client.send('"id?"' if name in self._bare else '{"message_type":"forward","payload":"id?"}')
        holder = self._peers[self._devices[device]]
        expected = {"message_type": "client_msg", "client_id": number, "payload": "id?"}
        heard = await holder.receive()
        check_message(holder, heard, expected, self._ids, device, is_exact=self._session.is_exact)

    async def _hear(self, name: str, peer: Peer, verb: str, line: dict[str, Any]) -> None:
        heard = await peer.receive(peer.timeout + self._extra)
        device, exact = self._device_of.get(name, ""), self._session.is_exact
        if not self._session.has_texts and isinstance(line[verb], dict) and line[verb].keys() == {"error"}:
            check_error(peer, heard)
        elif verb == "hears":
            check_message(peer, heard, line[verb], self._ids, device, is_exact=exact)
        else:
            check_text(peer, heard, expand(line[verb], line), self._ids, device, is_exact=exact)
        value = heard.value
        if not isinstance(value, dict) or "error" in value:
            return
        if value.get("message_type") == "device_info" or (name in self._bare and "device_info" in value):
            self._clients.setdefault(device, []).append(name)
        elif value.get("message_type") == "config" and not self._is_client(name):
            self._devices[device] = name

    def _is_client(self, name: str) -> bool:
        return any(line.get("opens") == "client" and line["peer"] == name for line in self._case.lines)

    async def _close(self, peer: Peer, code: int, reason: str | None) -> None:
        heard = await peer.receive(peer.timeout + self._extra)
        wanted = f"close [{code}]" + ("" if reason is None else f" {reason!r}")
        if not self._session.is_exact:
            if not heard.is_end:
                raise peer.unexpected(heard, "a close")
            return
        if heard.code != code or (reason is not None and not is_reason(heard.reason, reason)):
            raise peer.unexpected(heard, wanted)

    async def _leave(self, peer: Peer, how: str) -> None:
        await self._check_silence(peer)
        if how == "drop":
            peer.drop()
        else:
            await peer.close()
        peer.ended = peer.ended or _LEFT
        await self._session.pause()
