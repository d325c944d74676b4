"""An hour of churn and faults on three nodes: `make soak`, or a short form.

    python tests/python/farm_soak.py --minutes 60 --devices 1000 --clients 2000 [--seed 1] [--json FILE]

Each client sends payloads with numbers in bursts, and waits for all answers. Meanwhile a fault begins every 5 s, unless
the last one has not ended: a node is killed, paused, cut from another or from the engine; the engine is paused, killed,
emptied; peers vanish. No payload may be lost in silence, come twice, out of order or at another registration. At the
end the ledger of each node has to balance, and its descriptors have to be as before. The memory of the node that is
never killed has to be flat: in the last quarter of the faults at most a quarter more than in the second one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from farm_cluster import SETTINGS, footprint, ledger, options, run_farm, running
from farm_peers import Books, Client, Device

from cuttlefish_signaling.testing import SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode

SPARE = 10
"""Descriptors that a node may have more at the end than at the begin."""

GROWTH = 1.25
"""The memory of a node in the last quarter of the faults, at most, as a multiple of that in the second quarter."""

JUDGED = 40
"""Faults from which on memory is judged. In fewer, buffers and tables are still growing to their size."""


@dataclass
class Farm:
    """A cluster with its peers."""

    cluster: SignalingCluster
    devices: list[Device]
    clients: list[Client]
    books: Books
    rng: random.Random
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Starts all peers."""
        self.tasks = [asyncio.create_task(device.run(self._node)) for device in self.devices]
        self.clients_running = [asyncio.create_task(client.run(self._pair)) for client in self.clients]

    def _node(self) -> ClusterNode:
        return self.rng.choice(running(self.cluster) or self.cluster.nodes)

    def _pair(self) -> tuple[ClusterNode, str]:
        return self._node(), self.rng.choice(self.devices).name

    async def answered(self, more: int) -> None:
        """Waits until this many more payloads have their answers."""
        target = self.books.answered + more
        await self.books.until(lambda: self.books.answered >= target)

    async def registered(self) -> None:
        """Waits until all devices are registered at the same time."""
        for device in self.devices:
            await device.registered.wait()

    async def halt(self) -> None:
        """Lets each client hear its answers and leave."""
        for client in self.clients:
            client.halted = True
        await asyncio.wait(self.clients_running)

    def steps(self) -> dict[str, int]:
        """The steps that the clients are at, and the devices that are registered."""
        steps = Counter(client.at for client in self.clients)
        return {**steps, "registered devices": sum(device.registered.is_set() for device in self.devices)}

    async def close(self) -> None:
        """Ends all peers. A peer that has failed breaks a rule."""
        tasks = [*self.tasks, *self.clients_running]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        self.books.broken += [f"a peer failed: {end!r}" for end in ends if isinstance(end, Exception)]


async def apart(call: Callable[..., object], *values: object) -> None:
    """Calls a function that waits for a process, while the peers go on."""
    await asyncio.get_running_loop().run_in_executor(None, call, *values)


class Faults:
    """The faults, each with its end. The first node is never killed."""

    def __init__(self, farm: Farm) -> None:
        self.farm, self.cluster, self.rng = farm, farm.cluster, farm.rng
        self.last = ""
        """The last fault that began."""

    def order(self) -> list[str]:
        """All faults, in random order."""
        names = [name for name in dir(self) if name.startswith("fault_")]
        self.rng.shuffle(names)
        return names

    async def run(self, name: str, during: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins a fault, waits, and ends it."""
        self.last = name
        end = await getattr(self, name)()
        await during()
        if end is not None:
            await end()

    async def fault_kill(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """A node is killed, and starts again."""
        node = self.rng.choice(self.cluster.nodes[1:])
        await apart(self.cluster.kill, node)
        return lambda: apart(self.cluster.restart, node)

    async def fault_pause(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """A node is stopped for a while."""
        node = self.rng.choice(self.cluster.nodes)
        self.cluster.pause(node)
        return lambda: apart(self.cluster.resume, node)

    async def fault_cut_nodes(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Two nodes are cut from each other."""
        pair = self.rng.sample(self.cluster.nodes, 2)
        await apart(self.cluster.partition, *pair)
        return lambda: apart(self.cluster.heal, *pair)

    async def fault_cut_engine(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """A node is cut from the engine."""
        node = self.rng.choice(self.cluster.nodes)
        await apart(self.cluster.partition, node, "engine")
        return lambda: apart(self.cluster.heal, node, "engine")

    async def fault_engine_pause(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """The engine is stopped for a while."""
        self.cluster.engine.pause()
        return lambda: apart(self.cluster.engine.resume)

    async def fault_engine_kill(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """The engine is killed, and comes back empty."""
        await apart(self.cluster.engine.kill)
        return lambda: apart(self.cluster.engine.launch)

    async def fault_engine_empty(self) -> None:
        """The engine loses its data under the feet of the nodes."""
        await apart(self.cluster.engine.call, "FLUSHALL")

    async def fault_peers_vanish(self) -> None:
        """One in ten devices loses its connection without a close frame."""
        for device in self.farm.devices[:: max(1, len(self.farm.devices) // 10)]:
            if device.socket is not None:
                device.socket.transport.abort()


async def soak(cluster: SignalingCluster, given: argparse.Namespace) -> dict[str, Any]:
    """Runs the faults, and returns the figures."""
    books, rng = Books(), random.Random(given.seed)
    devices = [Device(f"cvd-{number}", books) for number in range(given.devices)]
    clients = [Client(books, given.think) for _ in range(given.clients)]
    before = [footprint(node)["descriptors"] for node in cluster.nodes]
    farm, samples = Farm(cluster, devices, clients, books, rng), list[int]()
    faults = Faults(farm)
    farm.start()
    try:
        await asyncio.wait_for(farm.registered(), given.hang)
        end = time.monotonic() + 60 * given.minutes
        while not books.broken and (not samples or time.monotonic() < end):
            samples += await _each(faults, given)
        if not books.broken:
            await asyncio.wait_for(farm.registered(), given.hang)
            await asyncio.wait_for(farm.halt(), given.hang)
    except asyncio.TimeoutError:
        books.broken.append(f"after {given.hang:g} s something is missing after {faults.last}: {farm.steps()}")
    finally:
        await farm.close()
    figures = {"faults": len(samples), **_counts(books)}
    figures["ledgers"] = await balanced(cluster, given.hang)
    after = await closed(cluster, before, given.hang)
    return {**figures, "descriptors": {"before": before, "after": after}, "memory": _slope(samples)}


async def _each(faults: Faults, given: argparse.Namespace) -> list[int]:
    """Runs each fault once. Returns the memory of the first node after each of them."""
    samples, farm = [], faults.farm
    for name in faults.order():
        next_fault = time.monotonic() + given.every
        await asyncio.wait_for(faults.run(name, lambda: _during(farm, given)), given.hang)
        await asyncio.wait_for(farm.answered(given.answers), given.hang)
        await asyncio.sleep(max(0.0, next_fault - time.monotonic()))
        samples.append(footprint(farm.cluster.nodes[0])["kib"])
        if farm.books.broken:
            break
    return samples


async def _during(farm: Farm, given: argparse.Namespace) -> None:
    """The time of a fault: some seconds in the long form, and until peers have gone on."""
    await asyncio.sleep(given.pause)
    await farm.answered(given.answers)


def _counts(books: Books) -> dict[str, Any]:
    names = ("sent", "arrived", "answered", "told", "silent", "registered", "connected", "ended")
    return {**{name: getattr(books, name) for name in names}, "refused": books.refused, "broken": books.broken[:10]}


def _slope(samples: list[int]) -> dict[str, int]:
    """Memory of the first node, in KiB: the median of the second quarter of the faults, and of the last one."""
    if not samples:
        return {}
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    medians = {"early": int(statistics.median(early)), "late": int(statistics.median(late))}
    return {**medians, "most": max(samples), "samples": len(samples)}


async def balanced(cluster: SignalingCluster, hang: float) -> list[tuple[int, int]]:
    """The ledger of each node, once it balances and the connections of the peers are gone."""
    deadline = time.monotonic() + hang
    while True:
        ledgers = [ledger(node) for node in cluster.nodes]
        if all(accepted == ended for accepted, ended in ledgers) or time.monotonic() > deadline:
            return ledgers
        await asyncio.sleep(0.05)


async def closed(cluster: SignalingCluster, before: list[int], hang: float) -> list[int]:
    """The descriptors of each node, once the connections of the peers and those between nodes are closed."""
    deadline = time.monotonic() + hang
    while True:
        now = [footprint(node)["descriptors"] for node in cluster.nodes]
        if not _grown(before, now) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.05)


def _grown(before: list[int], after: list[int]) -> list[tuple[int, int]]:
    """Nodes keep a few connections to each other for the next request."""
    return [(b, a) for b, a in zip(before, after, strict=True) if a > b + SPARE]


def failures(figures: dict[str, Any]) -> list[str]:
    """The rules that were broken."""
    found = list(figures["broken"])
    if figures["silent"] and not found:
        # A rule that was broken ends the peers amid their talk.
        found.append(f"{figures['silent']} payloads are lost in silence")
    found += [f"a ledger does not balance: {one}" for one in figures["ledgers"] if one[0] != one[1]]
    before, after = (figures["descriptors"][time] for time in ("before", "after"))
    found += [f"descriptors: {b} before, {a} after" for b, a in _grown(before, after)]
    memory = figures["memory"]
    if memory and memory["samples"] >= JUDGED and memory["late"] > GROWTH * memory["early"]:
        found.append(f"memory grows: {memory['early']} KiB early, {memory['late']} KiB late")
    return found


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Reads the options."""
    seed = random.SystemRandom().randrange(2**32)
    sizes = {"minutes": 60.0, "devices": 1_000, "clients": 2_000, "think": 2.0}
    return options(__doc__, **sizes, every=5.0, pause=2.5, answers=1, seed=seed, hang=180.0).parse_args(words)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Runs it with three nodes."""
    with SignalingCluster(3, **SETTINGS) as cluster:
        return asyncio.run(soak(cluster, given))


def main() -> None:
    """Runs it, and fails where a rule was broken."""
    given = arguments()
    print(f"seed {given.seed}", flush=True)
    run_farm("soak", given, run, failures)


if __name__ == "__main__":
    main()
