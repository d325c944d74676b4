"""A small device and a small client for the tests of the conformance kit, with one fault each if wanted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

Subject = Callable[[str], Awaitable[None]]

BACKOFF = 0.05


def device(fault: str = "") -> Subject:
    """A device that comes back after each end of its connection."""

    async def run(url: str) -> None:
        wait, registrations = BACKOFF, 0
        path = "/wrong" if fault == "path" else "/register_device"
        while True:
            try:
                offers = None if fault == "subprotocol" else [Subprotocol("webrtc-operator")]
                size = 10_000 if fault == "large" else None
                async with connect(url + path, subprotocols=offers, max_size=size, ping_interval=0.2) as connection:
                    wait = BACKOFF
                    registrations += 1
                    await _Device(connection, fault, registrations).serve()
            except (ConnectionClosed, InvalidStatus) as end:
                if fault == "gives up":
                    return
                wait = wait * 2 if isinstance(end, InvalidStatus) and fault != "no back-off" else wait
            await asyncio.sleep(0 if fault == "storm" else wait)

    return run


class _Device:
    def __init__(self, connection: ClientConnection, fault: str, registrations: int) -> None:
        self.connection, self.fault = connection, fault
        self.id = f"cvd-{registrations}" if fault == "other id" else "cvd-1"
        self.clients: list[int] = []

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def serve(self) -> None:
        if self.fault == "pong":
            _drop_pongs(self.connection)
        if self.fault == "first":
            await self.say(message_type="forward", client_id=1, payload=1)
        device_id = {"empty id": "", "long id": "x" * 300}.get(self.fault, self.id)
        await self.say(message_type="register", device_id=device_id, device_info={})
        if self.fault == "binary":
            await self.connection.send(b"{}")
        if self.fault == "early":
            await self.say(message_type="forward", client_id=1, payload=1)
        configs = 0
        async for text in self.connection:
            message = json.loads(text)
            configs += message.get("message_type") == "config"
            if self.fault == "config again" and configs > 1:
                return
            if self.fault == "config fields" and "x_conform" in message:
                return
            await self.handle(message)

    async def handle(self, message: dict[str, Any]) -> None:
        kind, client_id = message.get("message_type"), message.get("client_id")
        if kind == "client_msg":
            payload = message["payload"]
            is_fatal = {
                "null": payload is None,
                "candidates": isinstance(payload, dict) and "candidate" in payload and client_id not in self.clients,
                "twice": client_id in self.clients and isinstance(payload, dict) and "ice_servers" in payload,
            }
            if is_fatal.get(self.fault):
                await self.connection.close()
            if client_id not in self.clients:
                self.clients.append(client_id)  # type: ignore[arg-type]
            other = {"string id": str(client_id), "other client": 1}.get(self.fault, client_id)
            if isinstance(payload, dict) and "ice_servers" in payload:
                for receiver in self.clients if self.fault == "all clients" else [other]:
                    await self.say(message_type="forward", client_id=receiver, payload={"type": "offer", "sdp": "v=0"})
        elif kind == "client_disconnected":
            if self.fault == "unknown client" and client_id not in self.clients:
                await self.connection.close()
            if self.fault != "all clients" and client_id in self.clients:
                self.clients.remove(client_id)
        elif kind is None and self.fault == "error":
            await self.connection.close()


def _drop_pongs(connection: ClientConnection) -> None:
    send = connection.protocol.send_frame

    def send_frame(frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG:
            send(frame)

    connection.protocol.send_frame = send_frame  # type: ignore[method-assign]


def client(fault: str = "") -> Subject:
    """A client that asks for an offer, and ends with its connection."""

    async def run(url: str) -> None:
        path = "/wrong" if fault == "path" else "/connect_client"
        while True:
            try:
                size = 10_000 if fault == "large" else None
                async with connect(url + path, max_size=size) as connection:
                    if fault == "pong":
                        _drop_pongs(connection)
                    await _converse(connection, fault)
            except (ConnectionClosed, InvalidStatus):
                pass
            if fault != "storm":
                await asyncio.Event().wait()
            await asyncio.sleep(0)

    return run


async def _converse(connection: ClientConnection, fault: str) -> None:
    async def say(**message: Any) -> None:
        await connection.send(json.dumps(message))

    if fault == "first":
        await say(message_type="forward", payload=1)
    await say(message_type="connect", device_id="other" if fault == "other device" else "cvd-1")
    configs, offered = 0, False
    async for text in connection:
        message = json.loads(text)
        kind, payload = message.get("message_type"), message.get("payload")
        configs += kind == "config"
        offered = offered or (isinstance(payload, dict) and payload.get("type") == "offer")
        if fault == "early" and kind == "config":
            await say(message_type="forward", payload=1)
        if kind == "device_info":
            await say(
                message_type="forward", **({} if fault == "no payload" else {"payload": {"type": "request-offer"}})
            )
        is_fatal = {
            "config again": configs > 1,
            "null info": kind == "device_info" and message["device_info"] is None,
            "null": kind == "device_msg" and payload is None,
            "candidates": isinstance(payload, dict) and "candidate" in payload and not offered,
        }
        if is_fatal.get(fault):
            return
