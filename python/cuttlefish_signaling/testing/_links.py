"""TCP connections that a test can cut: between the nodes of a cluster, and between nodes and engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ._loop import shared_loop

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

CHUNK = 64 * 1024


class Links:
    """Relays each connection to a node or to the engine, unless the pair of its ends is cut.

    A cut pair is a network that loses all packets: no byte passes, no connection ends, and what was sent arrives once
    the pair is healed. All runs on the loop of the synchronous fake peers.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        """`processes` returns the id of the process of each end, by which the source of a connection is found."""
        self._processes = processes
        self._servers: list[asyncio.Server] = []
        self._targets: dict[str, asyncio.Future[Address]] = {}
        self._gates: dict[frozenset[str], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        shared_loop.acquire()

    def listen(self, target: str) -> int:
        """Listens on a free port for connections to this end, and returns the port. `connect_to` tells its address."""
        return shared_loop.run(self._listen(target))

    async def _listen(self, target: str) -> int:
        self._targets[target] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._relay(target, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def connect_to(self, target: str, address: Address) -> None:
        """Tells where an end listens. Connections that came before have waited for it."""
        shared_loop.run(self._connect_to(target, address))

    async def _connect_to(self, target: str, address: Address) -> None:
        if self._targets[target].done():
            self._targets[target] = asyncio.get_running_loop().create_future()
        self._targets[target].set_result(address)

    def set_cut(self, one: str, other: str, is_cut: bool) -> None:
        """Cuts or heals the pair of two ends."""
        shared_loop.run(self._set_cut(frozenset((one, other)), is_cut))

    async def _set_cut(self, pair: frozenset[str], is_cut: bool) -> None:
        gate = self._gate(pair)
        if is_cut:
            gate.clear()
        else:
            gate.set()

    def cuts(self) -> list[tuple[str, str]]:
        """The pairs that are cut, sorted."""
        cut = [sorted(pair) for pair, gate in list(self._gates.items()) if not gate.is_set()]
        return sorted((pair[0], pair[-1]) for pair in cut)

    def close(self) -> None:
        """Ends all connections."""
        shared_loop.run(self._close())
        shared_loop.release()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _gate(self, pair: frozenset[str]) -> asyncio.Event:
        gate = self._gates.get(pair)
        if gate is None:
            gate = self._gates[pair] = asyncio.Event()
            gate.set()
        return gate

    async def _relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, own_port = writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]
        # A connection of the test itself has no source among the ends, and is never cut.
        gate = self._gate(frozenset((owner_of(port, own_port, self._processes()) or target, target)))
        writers, copies = [writer], []
        try:
            await gate.wait()
            address = await asyncio.shield(self._targets[target])
            if isinstance(address, str):
                far_reader, far_writer = await asyncio.open_unix_connection(address)
            else:
                far_reader, far_writer = await asyncio.open_connection(*address)
            writers.append(far_writer)
            pairs = [(reader, far_writer), (far_reader, writer)]
            copies = [asyncio.ensure_future(_copy(*pair, gate)) for pair in pairs]
            await asyncio.gather(*copies)
        except OSError:
            await gate.wait()  # A reset is lost as well.
        finally:
            for copy in copies:
                copy.cancel()
            for one in writers:
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    """Copies until the end of a stream. Nothing passes while the gate is closed, the end included."""
    while data := await reader.read(CHUNK):
        await gate.wait()
        writer.write(data)
        await writer.drain()
    await gate.wait()
    if writer.can_write_eof():
        writer.write_eof()


def owner_of(port: int, to_port: int, processes: Mapping[str, int]) -> str | None:
    """The name of the process that has the IPv4 socket from `port` to `to_port` of this machine, by `proc(5)`."""
    inode = _inode(port, to_port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for name, process in processes.items():
        folder = f"/proc/{process}/fd"
        try:
            numbers = os.listdir(folder)
        except OSError:
            continue  # It has ended.
        if any(_link(f"{folder}/{number}") == wanted for number in numbers):
            return name
    return None


def _inode(port: int, to_port: int) -> str | None:
    ends = [f":{port:04X}", f":{to_port:04X}"]
    with open("/proc/net/tcp", encoding="ascii") as file:
        next(file)
        for line in file:
            words = line.split()
            if words[1].endswith(ends[0]) and words[2].endswith(ends[1]):
                return words[9]
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
