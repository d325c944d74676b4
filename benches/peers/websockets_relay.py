"""A typical hand-written relay on `websockets`.

python websockets_relay.py PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

CONFIG = json.dumps({"message_type": "config", "ice_servers": []})
devices: dict[str, Device] = {}


class Device:
    """A registered device and its clients."""

    def __init__(self, socket: ServerConnection, info: Any) -> None:
        self.socket, self.info = socket, info
        self.clients: dict[int, ServerConnection] = {}
        self.last = 0


async def serve_device(socket: ServerConnection) -> None:
    """Serves a device from `register` to the end of its connection."""
    message = json.loads(await socket.recv())
    name = message["device_id"]
    device = devices[name] = Device(socket, message.get("device_info"))
    await socket.send(CONFIG)
    try:
        async for text in socket:
            message = json.loads(text)
            client = device.clients.get(message["client_id"])
            if client is not None:
                with suppress(ConnectionClosed):
                    await client.send(json.dumps({"message_type": "device_msg", "payload": message["payload"]}))
    finally:
        if devices.get(name) is device:
            del devices[name]


async def serve_client(socket: ServerConnection) -> None:
    """Serves a client from `connect` to the end of its connection."""
    message = json.loads(await socket.recv())
    await socket.send(CONFIG)
    device = devices[message["device_id"]]
    device.last += 1
    number = device.last
    device.clients[number] = socket
    await socket.send(json.dumps({"message_type": "device_info", "device_info": device.info}))
    try:
        async for text in socket:
            payload = json.loads(text)["payload"]
            await device.socket.send(
                json.dumps({"message_type": "client_msg", "client_id": number, "payload": payload})
            )
    finally:
        del device.clients[number]
        await device.socket.send(json.dumps({"message_type": "client_disconnected", "client_id": number}))


async def main() -> None:
    """Serves until the process ends."""

    async def handle(socket: ServerConnection) -> None:
        request = socket.request
        assert request is not None
        try:
            await (serve_device if request.path == "/register_device" else serve_client)(socket)
        except ConnectionClosed:
            pass

    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
        await server.serve_forever()


asyncio.run(main())
