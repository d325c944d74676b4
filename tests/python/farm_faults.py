"""A node that is killed under its pairs, and an engine that is away: `make soak`, or short forms.

    python tests/python/farm_faults.py kill --times 100 --pairs 300 [--json FILE]
    python tests/python/farm_faults.py outage --minutes 10 --pairs 300 [--json FILE]

`kill` prints for how long the clients of a killed node wait until they are told, and its devices until they are back on
another node and can be found from a third one. `outage` takes the engine away: no pair may end, devices that boot
meanwhile have to work on their node, and all is well again after its return.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from farm_cluster import SETTINGS, DirectCluster, ledger, options, run_farm, summary
from farm_peers import LOST, Books, Client, Device, connect_to, dial, hear

from cuttlefish_signaling.testing import SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode

HANG = 100.0
"""Seconds after which something that has to happen counts as missing."""


FOUND = "until all devices are found, s"
"""The figure that `--within` bounds."""


AT_ONCE = 20
"""Clients that connect at once."""


@contextlib.asynccontextmanager
async def devices_on(nodes: list[ClusterNode], names: list[str], books: Books) -> AsyncIterator[list[Device]]:
    """Devices, by turns on these nodes. Each is registered once, and does not come back."""
    devices = [Device(name, books) for name in names]
    tasks = [asyncio.create_task(_serve(device, nodes[at % len(nodes)])) for at, device in enumerate(devices)]
    try:
        for device in devices:
            await asyncio.wait_for(device.registered.wait(), HANG)
        yield devices
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(device: Device, node: ClusterNode) -> None:
    while not device.registered.is_set():
        with contextlib.suppress(*LOST):
            await device.serve(node)


# A node that is killed ------------------------------------------------------------------------------------------------


async def kills(cluster: SignalingCluster, times: int, pairs: int) -> dict[str, Any]:
    """Kills one node after the other, each with all devices on it. Returns the figures."""
    books, told, back, found = Books(), list[float](), list[float](), list[float]()
    for round_ in range(times):
        victim = cluster.nodes[round_ % len(cluster.nodes)]
        others = [node for node in cluster.nodes if node is not victim]
        names = [f"cvd-{round_}-{number}" for number in range(pairs)]
        async with devices_on([victim], names, books), AsyncExitStack() as stack:
            some = asyncio.Semaphore(AT_ONCE)
            meetings = [_met(stack, others[at % 2], name, books, some) for at, name in enumerate(names)]
            clients = await asyncio.wait_for(asyncio.gather(*meetings), HANG)
            pid = victim.pid
            assert pid is not None
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            news = [asyncio.create_task(_told(client, books, began)) for client in clients]
            comebacks = [
                asyncio.create_task(_back(name, others[(at + 1) % 2], others[at % 2], books, began, some))
                for at, name in enumerate(names)
            ]
            told += await asyncio.wait_for(asyncio.gather(*news), HANG)
            both = await asyncio.wait_for(asyncio.gather(*comebacks), HANG)
            back += [one for one, _ in both]
            found += [other for _, other in both]
        await asyncio.get_running_loop().run_in_executor(None, _again, cluster, victim)
        print(f"kill {round_ + 1}: told {max(told[-pairs:]):.3f} s, found {max(found[-pairs:]):.2f} s", flush=True)
    times_of = {"told": summary(told), "back": summary(back), "findable": summary(found)}
    return {"kills": times, "pairs": pairs, **times_of, FOUND: round(max(found), 2), "broken": books.broken[:10]}


def _again(cluster: SignalingCluster, victim: ClusterNode) -> None:
    cluster.restart(victim)
    cluster.wait_for_nodes(timeout=HANG)


async def _met(stack: AsyncExitStack, node: ClusterNode, name: str, books: Books, some: asyncio.Semaphore) -> Any:
    """A client that has its device, and has heard an answer of it. It asks until the device is found."""
    session = None
    while session is None:
        async with some:
            socket = await stack.enter_async_context(dial(node.client_url))
            session = await connect_to(socket, name, books)
    payload = {"client": id(socket), "session": session, "at": 0}
    await _say(socket, payload)
    assert (await hear(socket))["payload"] == payload
    # On its way while the node is killed.
    await _say(socket, {**payload, "at": 1})
    return socket


async def _say(socket: Any, payload: dict[str, Any]) -> None:
    await socket.send(json.dumps({"message_type": "forward", "payload": payload}))


async def _told(socket: Any, books: Books, began: float) -> float:
    """Returns when the client hears that its device is gone."""
    while True:
        message = await hear(socket)
        if "payload" in message:
            continue  # The answer was on its way.
        books.check(message == {"error": "Device disconnected"}, f"a client of the killed node hears {message}")
        return time.monotonic() - began


async def _back(
    name: str, node: ClusterNode, from_node: ClusterNode, books: Books, began: float, some: asyncio.Semaphore
) -> tuple[float, float]:
    """A device registers with another node. Returns when it is admitted, and when a client of a third node has it."""
    device = Device(name, books)
    task = asyncio.create_task(device.serve(node))
    try:
        registered = asyncio.create_task(device.registered.wait())
        await asyncio.wait({task, registered}, return_when=asyncio.FIRST_COMPLETED)
        books.check(device.registered.is_set(), f"{name} was not admitted by {node.name}")
        registered.cancel()
        back = time.monotonic() - began
        async with AsyncExitStack() as stack:
            await _met(stack, from_node, name, books, some)
            return back, time.monotonic() - began
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# An engine that is away -----------------------------------------------------------------------------------------------


async def outage(cluster: SignalingCluster, given: argparse.Namespace) -> dict[str, Any]:
    """Takes the engine away, and brings it back. Returns the figures."""
    books, pids = Books(), [node.pid for node in cluster.nodes]
    names = [f"cvd-{number}" for number in range(given.pairs)]
    async with devices_on(cluster.nodes, names, books):
        # A third of the clients are on the node of their device.
        clients = [Client(books, given.think) for _ in names]
        talks = [
            asyncio.create_task(client.talk(cluster.nodes[(at + at // 3) % 3], names[at], sys.maxsize))
            for at, client in enumerate(clients)
        ]
        await asyncio.wait_for(books.until(lambda: books.connected == len(names)), HANG)
        await apart_call(lambda: _take_engine(cluster, given.empty))
        began = time.monotonic()
        boots = [f"boot-{number}" for number in range(given.boots)]
        async with devices_on(cluster.nodes, boots, books):
            admitted = time.monotonic() - began
            await asyncio.wait_for(meet_all(cluster, boots, books, shift=0), HANG)
            unknown = await _refusal(cluster.nodes[0], "never-seen")
            target = books.answered + given.answers
            await asyncio.wait_for(books.until(lambda: books.answered >= target), HANG)
            await asyncio.sleep(max(0.0, began + 60 * given.minutes - time.monotonic()))
            away = time.monotonic() - began
            await apart_call(cluster.engine.launch)
            returned = time.monotonic()
            await asyncio.wait_for(meet_all(cluster, boots, books, shift=1), HANG)
            well = time.monotonic() - returned
            for client in clients:
                client.halted = True
            await asyncio.wait_for(asyncio.gather(*talks), HANG)
    restarted = [node.name for node, pid in zip(cluster.nodes, pids, strict=True) if node.pid != pid]
    return {
        "engine away, s": round(away, 1),
        "engine comes back": "empty" if given.empty else "with the registry",
        "pairs": len(names),
        "pairs that ended": books.ended,
        "payloads": books.sent,
        "silent": books.silent,
        "devices that booted meanwhile": len(boots),
        "until all of them were admitted, s": round(admitted, 2),
        "client of an unknown device hears": unknown,
        FOUND: round(well, 2),
        "nodes that were restarted": restarted,
        "ledgers": [ledger(node) for node in cluster.nodes],
        "broken": books.broken[:10],
    }


def _take_engine(cluster: SignalingCluster, is_empty: bool) -> None:
    """Kills the engine, which comes back with the registry of this moment, or without."""
    if not is_empty:
        cluster.engine.call("SAVE")
    cluster.engine.kill()


async def apart_call(call: Any) -> Any:
    """Returns what a function that waits for a process returns, while the peers go on."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


async def meet_all(cluster: SignalingCluster, names: list[str], books: Books, shift: int) -> None:
    """A client meets each device: on its own node, or on another one."""
    async with AsyncExitStack() as stack:
        some = asyncio.Semaphore(AT_ONCE)
        meetings = [_met(stack, cluster.nodes[(at + shift) % 3], name, books, some) for at, name in enumerate(names)]
        await asyncio.gather(*meetings)


async def _refusal(node: ClusterNode, name: str) -> str:
    """The error that the client of an unknown device hears."""
    async with dial(node.client_url) as socket:
        await socket.send(f'{{"message_type":"connect","device_id":"{name}"}}')
        message = await hear(socket)
        while "error" not in message:
            message = await hear(socket)
        return str(message["error"])


def failures(figures: dict[str, Any]) -> list[str]:
    """The rules that were broken."""
    wrong = list(figures["broken"])
    for name in ("pairs that ended", "silent", "nodes that were restarted"):
        if figures.get(name):
            wrong.append(f"{name}: {figures[name]}")
    within = figures.get("within, s", HANG)
    if figures.get(FOUND, 0) > within:
        wrong.append(f"{FOUND}: {figures[FOUND]}, and not {within}")
    expected = "Connection failed: Cluster unavailable"
    if figures.get("client of an unknown device hears", expected) != expected:
        wrong.append(f"a client of an unknown device hears: {figures['client of an unknown device hears']}")
    return wrong


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Reads the options."""
    parser = options(__doc__, times=100, pairs=300, minutes=10.0, boots=30, answers=1_000, think=1.0, within=HANG)
    parser.add_argument("what", choices=["kill", "outage"])
    parser.add_argument("--empty", action="store_true", help="the engine comes back without the registry")
    return parser.parse_args(words)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Runs one of the two with three nodes."""
    with DirectCluster(3, **{**SETTINGS, "device_wait_timeout": 20 if given.what == "kill" else 5}) as cluster:
        is_kill = given.what == "kill"
        figures = asyncio.run(kills(cluster, given.times, given.pairs) if is_kill else outage(cluster, given))
        return {**figures, "within, s": given.within}


def main() -> None:
    """Runs it, and fails where a rule was broken."""
    given = arguments()
    run_farm(given.what, given, run, failures)


if __name__ == "__main__":
    main()
