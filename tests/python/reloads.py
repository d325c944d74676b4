"""Reloads under load: pairs relay numbered messages while all settings are replaced again and again.

python tests/python/reloads.py 500    # what `make soak` runs
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from cuttlefish_signaling import IceServer, Keepalive, Limits, SignalingServer, StaticTokens, Tls

from peers import PATIENCE, unverified_context
from test_tls import made_elsewhere

PAIRS = 100

PATIENT = Limits(
    tls_handshake_timeout=60,
    opening_silence=60,
    request_head_timeout=60,
    first_message_timeout=60,
    write_timeout=60,
    borrow_timeout=60,
)
"""For a busy machine, on which both ends of a handshake share one processor."""


def write_certificate(folder: Path) -> Tls:
    """Writes a new certificate and its key."""
    certificate, key = made_elsewhere()
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(certificate)
    return Tls.from_files(folder / "cert.pem", folder / "key.pem")


async def receive(socket: ClientConnection, kind: str) -> dict[str, object]:
    """The next message of a type. Only messages that a reload causes may come before it."""
    while True:
        message: dict[str, object] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        if message["message_type"] == kind:
            return message
        assert message["message_type"] == "config", message


class Course:
    """How far the pairs are, and whether they end."""

    def __init__(self) -> None:
        self.ready = 0
        self.is_over = False
        self.few = asyncio.Semaphore(8)


async def pair(server: SignalingServer, number: int, course: Course) -> int:
    """A device and its client, which send each other numbered messages. Returns how many came back."""

    def dial(url: str) -> connect:
        headers = {"Authorization": "Bearer a"}
        return connect(
            url, ssl=unverified_context(), additional_headers=headers, open_timeout=PATIENCE, ping_interval=None
        )

    async with AsyncExitStack() as stack:
        async with course.few:
            device = await stack.enter_async_context(dial(server.device_url))
            client = await stack.enter_async_context(dial(server.client_url))
        await device.send(json.dumps({"message_type": "register", "device_id": f"cvd-{number}"}))
        await receive(device, "config")
        await client.send(json.dumps({"message_type": "connect", "device_id": f"cvd-{number}"}))
        await receive(client, "device_info")
        sent = 0
        course.ready += 1
        while not course.is_over:
            await client.send(json.dumps({"message_type": "forward", "payload": sent}))
            came = await receive(device, "client_msg")
            assert (came["client_id"], came["payload"]) == (1, sent)
            await device.send(json.dumps({"message_type": "forward", "client_id": 1, "payload": -sent}))
            assert (await receive(client, "device_msg"))["payload"] == -sent
            sent += 1
            await asyncio.sleep(0)
        return sent


def reload(server: SignalingServer, turn: int, folder: Path) -> None:
    """Replaces settings of each kind: a limit, hooks, ICE servers, allowances and the certificate."""
    changed = server.reload(
        limits=replace(PATIENT, max_first_message=65_536 + turn, outbox_budget=2**28 + turn, hook_queue=4096 + turn),
        keepalive=Keepalive(interval=20 + turn),
        authorize=StaticTokens(["a", f"b{turn}"]),
        ice_servers=[IceServer(f"stun:{turn}.lab")] if turn % 10 == 0 else [],
        allowed_hosts=[f"host{turn}"],
        tls=write_certificate(folder),
    )
    assert {"tls", "authorize", "allowed_hosts", "limits.max_first_message", "keepalive.interval"} <= set(changed)


async def reloads(count: int, pairs: int = PAIRS) -> int:
    """Reloads so many times under so many pairs. Returns the messages of clients that were answered."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = SignalingServer(
            tls=write_certificate(folder), authorize=StaticTokens(["a"]), limits=PATIENT, keepalive=Keepalive(None)
        )
        course = Course()
        async with server:
            tasks = [asyncio.create_task(pair(server, number, course)) for number in range(pairs)]
            while course.ready < pairs:
                assert not any(task.done() for task in tasks), await asyncio.gather(*tasks)
                await asyncio.sleep(0)
            registered = {(device.device_id, device.since) for device in server.devices()}
            for turn in range(1, count + 1):
                await asyncio.to_thread(reload, server, turn, folder)
            assert {(device.device_id, device.since) for device in server.devices()} == registered
            course.is_over = True
            answered = await asyncio.gather(*tasks)
            stats = server.stats()
        assert min(answered) > 0
        assert stats.accepted == stats.delivered == 2 * sum(answered), stats
        assert stats.refused == stats.gone == stats.dropped == 0, stats
        assert len(registered) == pairs
        return sum(answered)


if __name__ == "__main__":
    began = time.monotonic()
    messages = asyncio.run(reloads(int(sys.argv[1])))
    print(f"{sys.argv[1]} reloads in {time.monotonic() - began:.0f} s: {messages} messages of {PAIRS} pairs, none lost")
