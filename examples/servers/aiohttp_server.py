"""A signaling server as people write it, on aiohttp. docs/conformance.md lists its faults.

python examples/servers/aiohttp_server.py [PORT]
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from aiohttp import WSMsgType, web

devices: dict[str, dict[str, Any]] = {}
client_ids = itertools.count(1)
CONFIG = {"message_type": "config", "ice_servers": [{"urls": "stun:stun.lab:3478"}]}


async def register_device(request: web.Request) -> web.WebSocketResponse:
    """A device registers, and forwards to its clients."""
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    device_id = ""
    async for message in socket:
        if message.type != WSMsgType.TEXT:
            break
        data = message.json()
        if data["message_type"] == "register":
            device_id = data["device_id"]
            devices[device_id] = {"socket": socket, "info": data.get("device_info", {}), "clients": {}}
            await socket.send_json(CONFIG)
        elif data["message_type"] == "forward":
            client = devices[device_id]["clients"].get(data["client_id"])
            if client:
                await client.send_json({"message_type": "device_msg", "payload": data["payload"]})
    devices.pop(device_id, None)
    return socket


async def connect_client(request: web.Request) -> web.WebSocketResponse:
    """A client connects, and forwards to its device."""
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    device: dict[str, Any] = {}
    client_id = next(client_ids)
    async for message in socket:
        data = message.json()
        if data["message_type"] == "connect":
            if data["device_id"] not in devices:
                await socket.send_json({"error": f"Device not found: {data['device_id']}"})
                await socket.close()
                break
            device = devices[data["device_id"]]
            device["clients"][client_id] = socket
            await socket.send_json(CONFIG)
            await socket.send_json({"message_type": "device_info", "device_info": device["info"]})
        elif data["message_type"] == "forward" and data.get("payload"):
            await device["socket"].send_json(
                {"message_type": "client_msg", "client_id": client_id, "payload": data["payload"]}
            )
    device.get("clients", {}).pop(client_id, None)
    return socket


async def main(port: int) -> None:
    """Runs the server."""
    app = web.Application()
    app.add_routes([web.get("/register_device", register_device), web.get("/connect_client", connect_client)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"ws://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
