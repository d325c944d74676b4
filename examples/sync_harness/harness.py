"""The program under test: a harness that asks devices for a bug report, in plain synchronous code."""

from __future__ import annotations

import json

from websockets.sync.client import connect


class DeviceDidNotAnswer(Exception):  # noqa: N818
    """The device did not answer in time, or left."""


def fetch_bug_report(client_url: str, device_id: str, timeout: float = 5.0) -> str:
    """Asks a device for its bug report, through the signaling server."""
    with connect(client_url, proxy=None) as socket:
        socket.send(json.dumps({"message_type": "connect", "device_id": device_id}))
        for _ in ("config", "device_info"):
            message = json.loads(socket.recv(timeout))
            if "error" in message:
                raise DeviceDidNotAnswer(message["error"])
        socket.send(json.dumps({"message_type": "forward", "payload": {"type": "bug-report"}}))
        try:
            answer = json.loads(socket.recv(timeout))
        except TimeoutError:
            raise DeviceDidNotAnswer(f"{device_id} said nothing for {timeout:g} s") from None
    if "error" in answer:
        raise DeviceDidNotAnswer(answer["error"])
    return str(answer["payload"]["report"])
