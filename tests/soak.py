"""Many devices at once, then ten minutes of churn and faults: `make soak`, or `tests/soak.py --minutes 1 --pairs 200`.

The server runs in a process of its own. First, devices are held, and each has to answer a client. Then devices dial at
once, beside as many connections that send half a request; a client sends a burst, and HTTP answers are not read. All
devices have to register, and each message of the burst has to arrive. Then pairs of peers connect, relay through
faults, and disconnect, with or without a close frame. Meanwhile other peers are stuck in hooks
of both kinds, which hang longer than a hook may. At the end the ledger has to balance, descriptors and threads have to
be as before, no call of a hook may be left, and the slope of memory is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

HOOK_THREADS = 32
"""More than `STUCK` calls can keep."""

STUCK = 8
"""Peers that are stuck in a hook, of each kind."""

KINDS = ("def", "async")

SERVER = """
import asyncio, json, logging, resource, sys, threading
from cuttlefish_signaling import Limits, SignalingServer
logging.getLogger("cuttlefish_signaling").setLevel(logging.CRITICAL)
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
many = 10**6

async def never():
    await asyncio.Event().wait()

def authorize(ctx):
    '''`hang=def` keeps its thread for longer than a hook may take, `hang=async` waits until it is cancelled.'''
    hang = ctx.query.get("hang")
    if hang == "def":
        threading.Event().wait(7)
    return never() if hang == "async" else None

limits = Limits(
    max_devices=many, max_connections=many, new_per_second=many, hook_threads=HOOK_THREADS, hook_queue=10_000,
    opening_silence=0.5, write_timeout=2
)
server = SignalingServer(limits=limits, authorize=authorize, hook_timeout=5).start()
faults = [
    server.faults.delay(20, jitter=20, probability=0.1), server.faults.duplicate(probability=0.05),
    server.faults.drop(probability=0.05), server.faults.reorder(window=3, hold=0.05, probability=0.1),
    server.faults.truncate(probability=0.01),
    server.faults.disconnect(after=10**5), server.faults.reset(after=2 * 10**5),
]
print(json.dumps([server.device_url, server.client_url]), flush=True)
for line in sys.stdin:
    if line == "storm\\n":
        for fault in faults:
            fault.arm()
    if line == "calm\\n":
        for fault in faults:
            fault.remove()
    stats = server.stats()
    hooks = {"coroutines": server._run.hooks.coroutine_count, "kept_failures": len(server.hook_errors)}
    hits = [fault.hits for fault in faults]
    print(json.dumps({**vars(stats), **hooks, "balances": stats.balances, "hits": hits}), flush=True)
server.stop()
""".replace("HOOK_THREADS", str(HOOK_THREADS))


class Server:
    """The process, and questions to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.device_url, self.client_url = self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, word: str = "stats") -> Any:
        """Its counters."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._read()

    def footprint(self) -> dict[str, int]:
        """Memory in KiB, threads and descriptors."""
        with open(f"/proc/{self.process.pid}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return {
            "kib": int(status["VmRSS"].split()[0]),
            "threads": int(status["Threads"]),
            "descriptors": descriptors,
        }


async def pair(server: Server, name: str, until: float) -> None:
    """A device and a client, again and again."""
    while time.monotonic() < until:
        with suppress(ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
            await converse(server, name)


async def converse(server: Server, name: str) -> None:
    """One session, and one way to end it."""
    async with connect(server.device_url, close_timeout=1, proxy=None) as device:
        await device.send(json.dumps({"message_type": "register", "device_id": name, "device_info": {}}))
        await asyncio.wait_for(device.recv(), 30)
        async with connect(server.client_url, close_timeout=1, proxy=None) as client:
            await client.send(json.dumps({"message_type": "connect", "device_id": name}))
            for number in range(random.randrange(5, 50)):
                await client.send(json.dumps({"message_type": "forward", "payload": {"type": "offer", "n": number}}))
                await device.send(json.dumps({"message_type": "forward", "client_id": 1, "payload": number}))
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(device.recv(), 0.05)
                    await asyncio.wait_for(client.recv(), 0.05)
            if random.random() < 0.3:
                random.choice([device, client]).transport.abort()


async def stuck(server: Server, kind: str, until: float) -> int:
    """A device whose `authorize` hangs, again and again. Returns how often it was refused."""
    refused = 0
    while time.monotonic() < until:
        try:
            async with connect(f"{server.device_url}?hang={kind}", open_timeout=30, proxy=None):
                raise AssertionError("a hook that hangs has admitted a device")
        except InvalidStatus as error:
            refused += error.response.status_code == 500
        except (OSError, InvalidHandshake):
            pass
    return refused


async def register(server: Server, name: str) -> ClientConnection:
    """A device."""
    device = await connect(server.device_url, close_timeout=1, proxy=None, compression=None)
    await device.send(json.dumps({"message_type": "register", "device_id": name, "device_info": {}}))
    await asyncio.wait_for(device.recv(), 60)
    return device


async def answers(server: Server, name: str, device: ClientConnection) -> bool:
    """Whether a client reaches the device, and the device the client."""
    async with connect(server.client_url, close_timeout=1, proxy=None, compression=None) as client:
        await client.send(json.dumps({"message_type": "connect", "device_id": name}))
        await client.recv()
        await client.recv()
        await client.send(json.dumps({"message_type": "forward", "payload": name}))
        received = json.loads(await asyncio.wait_for(device.recv(), 60))
        await device.send(json.dumps({**received, "message_type": "forward"}))
        return bool(json.loads(await asyncio.wait_for(client.recv(), 60))["payload"] == name)


async def hold(server: Server, devices: int) -> dict[str, float]:
    """Holds this many devices at once, all of which have to answer."""
    before = server.footprint()["kib"]
    held = {}
    for first in range(0, devices, 100):
        names = [f"held-{number}" for number in range(first, min(first + 100, devices))]
        held.update(zip(names, await asyncio.gather(*(register(server, name) for name in names)), strict=True))
    there, kib = server.ask()["devices"], server.footprint()["kib"] - before
    answered = 0
    for first in range(0, devices, 100):
        some = list(held.items())[first : first + 100]
        answered += sum(await asyncio.gather(*(answers(server, name, device) for name, device in some)))
    still_there = server.ask()["devices"]
    for first in range(0, devices, 100):
        await asyncio.gather(*(device.close() for device in list(held.values())[first : first + 100]))
    assert there == still_there == answered == devices, (there, answered, still_there)
    return {"held": devices, "answered": answered, "kib_each": round(kib / devices, 2)}


def dial(server: Server) -> socket.socket:
    """A connection that has sent nothing, and takes little."""
    address, connection = urlsplit(server.device_url), socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    return connection


async def storm(server: Server, devices: int) -> dict[str, int]:
    """Devices dial at once beside slow peers. All of them have to register. Then answers are not read."""
    slow = [dial(server) for _ in range(devices)]
    for connection in slow:
        connection.sendall(b"GET /register_device HT")
    registered = await asyncio.gather(*(register(server, f"storm-{number}") for number in range(devices)))
    there = server.ask()["devices"]
    assert there == len(registered) == devices, (there, len(registered), devices)
    burst = await send_burst(server, "storm-0", registered[0])
    cut, unread = server.ask()["slow_consumers"], [dial(server) for _ in range(20)]
    for connection in unread:
        # More than the buffers of the system hold.
        connection.sendall(b"GET /devices HTTP/1.1\r\nHost: localhost\r\n\r\n" * (400_000 // devices))
    while server.ask()["slow_consumers"] < cut + len(unread):
        await asyncio.sleep(0.1)
    await asyncio.gather(*(device.close() for device in registered))
    for connection in (*slow, *unread):
        connection.close()
    return {"dialled_at_once": devices, "slow": len(slow), "unread": len(unread), "burst": burst}


async def send_burst(server: Server, name: str, device: ClientConnection, messages: int = 2000) -> int:
    """A client sends all its messages at once. Each has to arrive, in order."""
    async with connect(server.client_url, close_timeout=1, proxy=None, compression=None) as client:
        await client.send(json.dumps({"message_type": "connect", "device_id": name}))
        await client.recv()
        await client.recv()
        for number in range(messages):
            await client.send(json.dumps({"message_type": "forward", "payload": number}))
        for number in range(messages):
            received = json.loads(await asyncio.wait_for(device.recv(), 60))
            assert received["payload"] == number, received
    return messages


async def soak(server: Server, minutes: float, pairs: int) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Runs it; returns the footprints, one every few seconds, and the number of refusals by hooks of each kind."""
    until = time.monotonic() + minutes * 60
    running = [asyncio.create_task(pair(server, f"cvd-{number}", until)) for number in range(pairs)]
    hanging = {kind: [asyncio.create_task(stuck(server, kind, until)) for _ in range(STUCK)] for kind in KINDS}
    samples = []
    while any(not task.done() for task in running):
        samples.append(server.footprint())
        await asyncio.sleep(max(1.0, minutes))
    await asyncio.gather(*running)
    return samples, {kind: sum(await asyncio.gather(*tasks)) for kind, tasks in hanging.items()}


async def warm_up(server: Server) -> None:
    """Calls a hook of each kind once, so that its thread or event loop is there before anything is compared."""
    await asyncio.gather(*(stuck(server, kind, time.monotonic() + 0.1) for kind in KINDS))


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--held", type=int, default=10_000)
    parser.add_argument("--dialled", type=int, default=5_000, help="devices of the storm")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = Server()
    asyncio.run(warm_up(server))
    before = server.footprint()
    print(json.dumps(asyncio.run(hold(server, options.held))), flush=True)
    print(json.dumps(asyncio.run(storm(server, options.dialled))), flush=True)
    server.ask("storm")
    samples, refused = asyncio.run(soak(server, options.minutes, options.pairs))
    server.ask("calm")
    deadline = time.monotonic() + 30
    while (stats := server.ask())["connections"] + stats["coroutines"] and time.monotonic() < deadline:
        time.sleep(0.1)
    after = server.footprint()
    half = samples[len(samples) // 2 :]
    slope = (half[-1]["kib"] - half[0]["kib"]) / (options.minutes / 2)
    print(json.dumps({"stats": stats, "before": before, "after": after, "slope_kib_per_minute": round(slope, 1)}))
    print(json.dumps({"refused_by_stuck_hooks": refused}))
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.wait(30)
    wrong = []
    if not stats["balances"] or stats["connections"]:
        wrong.append("the ledger does not balance, or a peer is still connected")
    if stats["panics"]:
        wrong.append("a connection panicked")
    if after["descriptors"] > before["descriptors"] or after["threads"] > before["threads"] + HOOK_THREADS:
        wrong.append("descriptors or threads are left")
    if not all(refused.values()) or stats["hook_failures"] < sum(refused.values()):
        wrong.append("a hook that hangs was not refused and counted")
    if stats["coroutines"]:
        wrong.append("a coroutine of a hook is left")
    print("\n".join(wrong) or "all is well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
