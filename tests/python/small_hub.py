"""A small signaling server for the tests of the conformance kit: devices, clients and their messages.

It follows docs/protocol.md as far as the profile `strict` can see it. A mutant replaces some of its methods.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from cuttlefish_signaling._raw_json import RawJson, members, parse

MOST_TO_DEVICE = 65_536
MOST_ID = 2**31 - 1


class Refusal(Exception):  # noqa: N818
    """An error for the peer; with a code, its connection is closed as well."""

    def __init__(self, text: str, code: int | None = 1008) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Link(Protocol):
    """A connection to a peer."""

    is_cuttlefish: bool

    def send(self, text: str) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    async def answers(self, timeout: float) -> bool: ...


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def envelope(**members_: Any) -> str:
    """A message; raw JSON stays as it is."""
    parts = (f'"{key}":{value if isinstance(value, RawJson) else compact(value)}' for key, value in members_.items())
    return "{" + ",".join(parts) + "}"


class SmallHub:
    """The registry, and all of the answers."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.last_ids: dict[str, int] = {}
        self.polled: dict[str, PolledClient] = {}
        self.device_class: type[Device] = Device
        self.client_class: type[Client] = Client
        self.polled_class: type[PolledClient] = PolledClient
        self.ice_servers: list[Any] = [{"urls": ["stun:stun.lab"]}]
        self.first_message_timeout = 3.0
        self.probe_timeout = 0.2
        self.max_message_size = 262_144

    # Messages ---------------------------------------------------------------------------------------------------------

    def config(self) -> str:
        return envelope(message_type="config", ice_servers=self.ice_servers)

    def device_info(self, info: RawJson) -> str:
        return envelope(message_type="device_info", device_info=info)

    def client_msg(self, client_id: int, payload: RawJson) -> str:
        return envelope(message_type="client_msg", client_id=client_id, payload=payload)

    def device_msg(self, payload: RawJson) -> str:
        return envelope(message_type="device_msg", payload=payload)

    def client_disconnected(self, client_id: int) -> str:
        return envelope(message_type="client_disconnected", client_id=client_id)

    def error(self, text: str) -> str:
        return envelope(error=text)

    # Parsing ----------------------------------------------------------------------------------------------------------

    def parse(self, text: str) -> dict[str, RawJson]:
        """The members of a message. Raises Refusal."""
        if not self.is_json(text) or self.depth(text) > 128:
            raise Refusal("Received Invalid JSON", 1007)
        if text.lstrip(" \t\r\n")[:1] != "{" or self.has_duplicates(text):
            raise Refusal("Invalid message format")
        return members(text)

    def is_json(self, text: str) -> bool:
        try:
            parse(text)
        except (ValueError, RecursionError):
            return False
        return True

    def depth(self, text: str) -> int:
        depth = deepest = 0
        for mark in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
            depth += (mark in "[{" and 1) or ((mark in "]}" and -1) or 0) if len(mark) == 1 else 0
            deepest = max(deepest, depth)
        return deepest

    def has_duplicates(self, text: str) -> bool:
        keys: list[str] = []

        def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            keys[:] = [key for key, _ in pairs]
            return dict(pairs)

        json.loads(text, object_pairs_hook=take)
        return len(keys) != len(set(keys))

    def type_of(self, message: dict[str, RawJson]) -> str:
        value = message["message_type"].value if "message_type" in message else None
        if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
            raise Refusal("Invalid message format")
        return value

    def unknown_type(self, name: str) -> Refusal:
        return Refusal(f"Unknown message type: {name if len(name) <= 1024 else f'{name[:1024]}…'}", None)

    def is_valid_id(self, device_id: str) -> bool:
        controls = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"
        return len(device_id.encode()) <= 256 and not re.search(controls, device_id)

    def client_id(self, message: dict[str, RawJson]) -> int:
        value = message["client_id"].value if "client_id" in message else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refusal("Forward failed: Missing or invalid client id")
        if value != int(value) or not 0 <= value <= MOST_ID:
            raise Refusal("Forward failed: Missing or invalid client id")
        return int(value)

    # The registry -----------------------------------------------------------------------------------------------------

    async def register(self, device: Device, device_id: str) -> None:
        holder = self.devices.get(device_id)
        if holder is not None:
            if await holder.link.answers(self.probe_timeout):
                raise Refusal(f"Device already registered: {device_id}")
            holder.leave()
        self.devices[device_id] = device

    def next_id(self, device: Device) -> int:
        self.last_ids[device.id] = self.last_ids.get(device.id, 0) + 1
        return self.last_ids[device.id]

    def unregister(self, device: Device) -> None:
        if self.devices.get(device.id) is device:
            del self.devices[device.id]

    def refuse(self, link: Link, refusal: Refusal) -> None:
        if not link.is_cuttlefish:
            link.send(self.error(refusal.text))
        if refusal.code is not None:
            link.close(refusal.code, refusal.text)


class Session:
    """The messages of one peer."""

    def __init__(self, hub: SmallHub, link: Link) -> None:
        self.hub = hub
        self.link = link
        self.has_begun = False
        self.is_asked = False
        self.is_done = False

    async def on_text(self, text: str) -> None:
        if self.is_done:
            return
        try:
            await self.on_message(text)
        except Refusal as refusal:
            self.refuse(refusal)

    def refuse(self, refusal: Refusal) -> None:
        self.hub.refuse(self.link, refusal)
        if refusal.code is not None:
            self.leave()

    async def on_message(self, text: str) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        """The peer is gone."""
        self.is_done = True

    def on_silence(self) -> None:
        if not (self.has_begun or self.is_asked or self.is_done):
            self.refuse(Refusal("Timed out waiting for the first message"))


class Device(Session):
    """A device."""

    def __init__(self, hub: SmallHub, link: Link) -> None:
        super().__init__(hub, link)
        self.id = ""
        self.info = RawJson("null")
        self.clients: dict[int, Client] = {}

    async def on_message(self, text: str) -> None:
        message = self.hub.parse(text)
        kind = self.hub.type_of(message)
        if kind == "register":
            await self.register(message)
        elif kind == "forward":
            self.forward(message)
        else:
            raise self.hub.unknown_type(kind)

    async def register(self, message: dict[str, RawJson]) -> None:
        if self.has_begun:
            raise Refusal(f"Device already registered: {self.id}")
        device_id = message["device_id"].value if "device_id" in message else None
        if not isinstance(device_id, str) or not device_id:
            raise Refusal("Missing device id in registration request")
        if not self.hub.is_valid_id(device_id):
            raise Refusal("Invalid device id")
        self.info, self.is_asked = message.get("device_info", RawJson("null")), True
        await self.hub.register(self, device_id)
        self.id, self.has_begun = device_id, True
        self.link.send(self.hub.config())

    def forward(self, message: dict[str, RawJson]) -> None:
        if not self.has_begun:
            raise Refusal("Forward failed: Device not registered")
        client_id = self.hub.client_id(message)
        if "payload" not in message:
            raise Refusal("Forward failed: Missing payload")
        client = self.clients.get(client_id)
        if client is not None:
            client.receive(message["payload"])
        elif 0 < client_id <= self.hub.last_ids.get(self.id, 0) or self.link.is_cuttlefish:
            self.link.send(self.hub.client_disconnected(client_id))
        else:
            raise Refusal(f"Forward failed: Unknown client {client_id}", None)

    def leave(self) -> None:
        if self.is_done:
            return
        self.is_done = True
        self.hub.unregister(self)
        for client in list(self.clients.values()):
            client.lose_device()


class Client(Session):
    """A client. With a device id, its texts are payloads."""

    def __init__(self, hub: SmallHub, link: Link, of: str | None = None) -> None:
        super().__init__(hub, link)
        self.device: Device | None = None
        self.client_id = 0
        self.of = of

    def open(self) -> None:
        """The first message of a client whose request names the device."""
        if self.of is not None:
            self.has_begun = True
            try:
                self.attach(self.of)
            except Refusal as refusal:
                self.refuse(refusal)

    async def on_message(self, text: str) -> None:
        if self.of is not None:
            if not self.hub.is_json(text) or self.hub.depth(text) > 127:
                raise Refusal("Received Invalid JSON", 1007)
            self.forward(RawJson(text.strip(" \t\r\n")))
            return
        message = self.hub.parse(text)
        kind = self.hub.type_of(message)
        if kind == "connect":
            self.connect(message)
        elif kind == "forward":
            if self.device is None:
                raise Refusal("Forward failed: No device associated to client")
            if "payload" not in message:
                raise Refusal("Forward failed: No payload present in message")
            self.forward(message["payload"])
        else:
            raise self.hub.unknown_type(kind)

    def connect(self, message: dict[str, RawJson]) -> None:
        if self.has_begun:
            raise Refusal("Attempt to connect to multiple devices over same websocket")
        device_id = message["device_id"].value if "device_id" in message else None
        if not isinstance(device_id, str):
            raise Refusal("Invalid connection request: Missing device id")
        self.has_begun = True
        self.link.send(self.hub.config())
        self.attach(device_id)

    def attach(self, device_id: str) -> None:
        device = self.hub.devices.get(device_id)
        if device is None:
            raise Refusal(f"Connection failed: Device not found: '{device_id}'")
        self.device, self.client_id = device, self.hub.next_id(device)
        device.clients[self.client_id] = self
        self.link.send(self.hub.device_info(device.info) if self.of is None else envelope(device_info=device.info))

    def forward(self, payload: RawJson) -> None:
        assert self.device is not None
        text = self.hub.client_msg(self.client_id, payload)
        if (size := len(text.encode())) > MOST_TO_DEVICE:
            most = f"{size} bytes for the device, which takes at most {MOST_TO_DEVICE}"
            raise Refusal(f"Forward failed: Message too large: {most}", None)
        self.device.link.send(text)

    def receive(self, payload: RawJson) -> None:
        self.link.send(self.hub.device_msg(payload))

    def lose_device(self) -> None:
        self.device, self.is_done = None, True
        self.link.send(self.hub.error("Device disconnected"))
        self.link.close(1000, "Device disconnected")

    def leave(self) -> None:
        self.is_done = True
        if self.device is not None and self.device.clients.pop(self.client_id, None) is not None:
            self.device.link.send(self.hub.client_disconnected(self.client_id))
        self.device = None


class PolledClient(Client):
    """A client that polls. It is its own link."""

    is_cuttlefish = False

    def __init__(self, hub: SmallHub, device_id: str) -> None:
        super().__init__(hub, self)
        self.id = secrets.token_urlsafe(16)
        self.begin = 0
        self.pending: list[RawJson] = []
        self.on_arrival: Callable[[], None] = lambda: None
        self.attach(device_id)
        hub.polled[self.id] = self

    def send(self, text: str) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    async def answers(self, timeout: float) -> bool:
        return True

    def receive(self, payload: RawJson) -> None:
        self.pending.append(payload)
        self.on_arrival()

    def take(self, start: int | None, count: int | None) -> list[RawJson]:
        """The messages from `start` on, which acknowledges those before it."""
        start = self.begin if start is None else start
        if start - self.begin > len(self.pending):
            return []
        del self.pending[: start - self.begin]
        self.begin = start
        return self.pending[:count]
