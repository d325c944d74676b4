"""A typical hand-written relay on aiohttp, with orjson and uvloop.

python aiohttp_relay.py PORT
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvloop
from aiohttp import web

CONFIG = '{"message_type":"config","ice_servers":[]}'
devices: dict[str, Device] = {}


class Device:
    """A registered device and its clients."""

    def __init__(self, socket: web.WebSocketResponse, info: Any) -> None:
        self.socket, self.info = socket, info
        self.clients: dict[int, web.WebSocketResponse] = {}
        self.last = 0


def text(message: Any) -> str:
    """Encodes a message as compact JSON."""
    return orjson.dumps(message).decode()


async def accept(request: web.Request) -> web.WebSocketResponse:
    """Upgrades a request, and serves the connection."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    return socket


async def register_device(request: web.Request) -> web.WebSocketResponse:
    """Serves a device from `register` to the end of its connection."""
    socket = await accept(request)
    message = orjson.loads(await socket.receive_str())
    name = message["device_id"]
    device = devices[name] = Device(socket, message.get("device_info"))
    await socket.send_str(CONFIG)
    async for frame in socket:
        message = orjson.loads(frame.data)
        client = device.clients.get(message["client_id"])
        if client is not None:
            await client.send_str(text({"message_type": "device_msg", "payload": message["payload"]}))
    if devices.get(name) is device:
        del devices[name]
    return socket


async def connect_client(request: web.Request) -> web.WebSocketResponse:
    """Serves a client from `connect` to the end of its connection."""
    socket = await accept(request)
    message = orjson.loads(await socket.receive_str())
    await socket.send_str(CONFIG)
    device = devices[message["device_id"]]
    device.last += 1
    number = device.last
    device.clients[number] = socket
    await socket.send_str(text({"message_type": "device_info", "device_info": device.info}))
    async for frame in socket:
        payload = orjson.loads(frame.data)["payload"]
        await device.socket.send_str(text({"message_type": "client_msg", "client_id": number, "payload": payload}))
    del device.clients[number]
    if not device.socket.closed:
        await device.socket.send_str(text({"message_type": "client_disconnected", "client_id": number}))
    return socket


uvloop.install()
app = web.Application()
app.router.add_get("/register_device", register_device)
app.router.add_get("/connect_client", connect_client)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
