"""The program under test: asks a device for a screenshot through the signaling server.

python viewer.py ws://signal.lab:8080/connect_client cvd-1 > screenshot.txt
"""

from __future__ import annotations

import json
import sys
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


class ViewerError(Exception):
    """The device gave no screenshot."""


def receive(socket: ClientConnection, timeout: float) -> dict[str, Any]:
    """The next message of the server. Raises ViewerError if it is an error, or does not come in time."""
    try:
        message: dict[str, Any] = json.loads(socket.recv(timeout))
    except TimeoutError:
        raise ViewerError(f"no answer within {timeout:g} s") from None
    except ConnectionClosed as closed:
        raise ViewerError(f"the connection was closed: {closed.rcvd.reason if closed.rcvd else 'lost'}") from None
    if "error" in message:
        raise ViewerError(message["error"])
    return message


def screenshot(url: str, device_id: str, timeout: float = 10.0) -> str:
    """Asks a device for a screenshot, and returns its text."""
    with connect(url, proxy=None) as socket:
        socket.send(json.dumps({"message_type": "connect", "device_id": device_id}))
        while receive(socket, timeout)["message_type"] != "device_info":
            pass
        socket.send(json.dumps({"message_type": "forward", "payload": {"type": "screenshot"}}))
        parts: list[str] = []
        while True:
            payload = receive(socket, timeout).get("payload", {})
            if payload.get("type") == "screenshot-part":
                parts.append(payload["data"])
                if payload["last"]:
                    return "".join(parts)


if __name__ == "__main__":
    print(screenshot(sys.argv[1], sys.argv[2]))
