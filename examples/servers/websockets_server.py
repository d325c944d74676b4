"""A signaling server as people write it, on the websockets library. docs/conformance.md lists its faults.

python examples/servers/websockets_server.py [PORT]
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

devices: dict[str, Device] = {}


class Device:
    """A registered device with its clients."""

    def __init__(self, socket: ServerConnection, info: Any) -> None:
        self.socket = socket
        self.info = info
        self.clients: list[ServerConnection] = []


async def send(socket: ServerConnection, **message: Any) -> None:
    """Sends a message."""
    await socket.send(json.dumps(message))


async def on_device(socket: ServerConnection) -> None:
    """A device registers, and forwards to its clients."""
    message = json.loads(await socket.recv())
    device_id = message["device_id"]
    device = devices[device_id] = Device(socket, message["device_info"])
    await send(socket, message_type="config", ice_servers=[])
    try:
        async for text in socket:
            message = json.loads(text)
            client = device.clients[message["client_id"] - 1]
            await send(client, message_type="device_msg", payload=message["payload"])
    finally:
        del devices[device_id]


async def on_client(socket: ServerConnection) -> None:
    """A client connects, and forwards to its device."""
    message = json.loads(await socket.recv())
    await send(socket, message_type="config", ice_servers=[])
    device = devices.get(message["device_id"])
    if device is None:
        await send(socket, error="Device not found")
        return
    device.clients.append(socket)
    await send(socket, message_type="device_info", device_info=device.info)
    client_id = len(device.clients)
    async for text in socket:
        message = json.loads(text)
        await send(device.socket, message_type="client_msg", client_id=client_id, payload=message["payload"])


async def on_connection(socket: ServerConnection) -> None:
    """Chooses by the path."""
    assert socket.request is not None
    if socket.request.path == "/register_device":
        await on_device(socket)
    elif socket.request.path == "/connect_client":
        await on_client(socket)


async def main(port: int) -> None:
    """Runs the server."""
    async with serve(on_connection, "127.0.0.1", port) as server:
        print(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
