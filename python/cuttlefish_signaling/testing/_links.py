"""TCP connections that a test can cut, slow and reset: between the nodes of a cluster, and between nodes and engine."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ._loop import shared_loop

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

CHUNK = 64 * 1024

CHUNKS = 16
"""Chunks that are under way on one connection, at most. The sender waits then, as for a full socket."""

STEP = 0.05
"""Seconds between two parts of a chunk on a way with a bandwidth."""

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which the end of a connection is a TCP RST."""


@dataclass
class Way:
    """The network from one end to another one."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: all packets are lost."""
    delay: float = 0.0
    """Seconds for which each byte is on its way."""
    bandwidth: float | None = None
    """Bytes a second."""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def is_slow(self) -> bool:
        """Whether bytes arrive later than they were sent."""
        return self.delay > 0 or self.bandwidth is not None

    async def carry(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Passes bytes on."""
        size = len(data) if self.bandwidth is None else max(1, int(self.bandwidth * STEP))
        for at in range(0, len(data), size):
            await self.gate.wait()
            writer.write(data[at : at + size])
            await writer.drain()
            if self.bandwidth is not None:
                await asyncio.sleep(len(data[at : at + size]) / self.bandwidth)


class Link:
    """One connection that is relayed."""

    def __init__(self, ends: tuple[str, str], writers: list[asyncio.StreamWriter]) -> None:
        self.ends = ends
        self.writers = writers
        self.breaks = False
        """Whether it is reset amid the next bytes."""

    def reset(self) -> None:
        """Ends both connections by a TCP RST."""
        for writer in self.writers:
            made = writer.get_extra_info("socket")
            if made is not None and made.family != socket.AF_UNIX:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


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
        self._ways: dict[tuple[str, str], Way] = {}
        self._open: set[Link] = set()
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

    def set_cut(self, one: str, other: str, is_cut: bool, *, one_way: bool = False) -> None:
        """Cuts or heals the pair of two ends, or only the way from the first to the second."""
        shared_loop.run(self._set_cut([(one, other)] if one_way else [(one, other), (other, one)], is_cut))

    async def _set_cut(self, ways: list[tuple[str, str]], is_cut: bool) -> None:
        for way in ways:
            gate = self._way(*way).gate
            if is_cut:
                gate.clear()
            else:
                gate.set()
                self._take_back_resets(set(way))

    def _take_back_resets(self, pair: set[str]) -> None:
        """Spares the connections of a pair on which nothing has passed since `reset`."""
        for link in self._open:
            link.breaks = link.breaks and set(link.ends) != pair

    def set_speed(self, one: str, other: str, delay: float, bandwidth: float | None) -> None:
        """Sets the delay and the bandwidth of each of the two ways, for bytes that are sent from now on."""
        shared_loop.run(self._set_speed([(one, other), (other, one)], delay, bandwidth))

    async def _set_speed(self, ways: list[tuple[str, str]], delay: float, bandwidth: float | None) -> None:
        for way in ways:
            found = self._way(*way)
            found.delay, found.bandwidth = delay, bandwidth

    def reset(self, one: str, other: str) -> int:
        """Lets each connection of the pair end by a TCP RST amid its next bytes. Returns the number of connections."""
        return shared_loop.run(self._reset({one, other}))

    async def _reset(self, pair: set[str]) -> int:
        links = [link for link in self._open if set(link.ends) == pair]
        for link in links:
            link.breaks = True
        return len(links)

    def cuts(self) -> list[tuple[str, str]]:
        """The pairs that are cut, sorted, each once."""
        return _pairs([ends for ends, way in list(self._ways.items()) if not way.gate.is_set()])

    def breaking(self) -> list[tuple[str, str]]:
        """The pairs with connections that are reset amid their next bytes, sorted, each once."""
        return _pairs([link.ends for link in list(self._open) if link.breaks])

    def slow(self) -> list[tuple[str, str]]:
        """The pairs with a delay or a bandwidth, sorted, each once."""
        return _pairs([ends for ends, way in list(self._ways.items()) if way.is_slow])

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

    def _way(self, one: str, other: str) -> Way:
        return self._ways.setdefault((one, other), Way())

    async def _relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, own_port = writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]
        # A connection of the test itself has no source among the ends, and is never cut.
        source = owner_of(port, own_port, self._processes()) or target
        there, back = self._way(source, target), self._way(target, source)
        link = Link((source, target), [writer])
        copies: list[asyncio.Future[None]] = []
        try:
            await _open(there, back)
            address = await asyncio.shield(self._targets[target])
            if isinstance(address, str):
                far_reader, far_writer = await asyncio.open_unix_connection(address)
            else:
                far_reader, far_writer = await asyncio.open_connection(*address)
            link.writers.append(far_writer)
            self._open.add(link)
            for source_of_bytes, sink, way in ((reader, far_writer, there), (far_reader, writer, back)):
                under_way: UnderWay = asyncio.Queue(CHUNKS)
                copies += [asyncio.ensure_future(_depart(source_of_bytes, under_way, way))]
                copies += [asyncio.ensure_future(_arrive(under_way, sink, way, link))]
            await asyncio.gather(*copies)
        except OSError:
            await _open(there, back)  # A reset is lost as well.
        finally:
            self._open.discard(link)
            for copy in copies:
                copy.cancel()
            for one in link.writers:
                one.transport.abort()


async def _open(there: Way, back: Way) -> None:
    """Waits until packets pass both ways."""
    while not (there.gate.is_set() and back.gate.is_set()):
        await there.gate.wait()
        await back.gate.wait()


UnderWay: TypeAlias = asyncio.Queue[tuple[float, bytes]]
"""Chunks with the time at which each arrives. The last one is empty: the end of the stream."""


async def _depart(reader: asyncio.StreamReader, under_way: UnderWay, way: Way) -> None:
    """Reads until the end of a stream."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK):
        await under_way.put((loop.time() + way.delay, data))
    await under_way.put((loop.time() + way.delay, b""))


async def _arrive(under_way: UnderWay, writer: asyncio.StreamWriter, way: Way, link: Link) -> None:
    """Passes on what is under way. Nothing passes while the gate is closed, the end included."""
    loop = asyncio.get_running_loop()
    while True:
        at, data = await under_way.get()
        if (left := at - loop.time()) > 0:
            await asyncio.sleep(left)
        await way.gate.wait()
        if not data:
            break
        if link.breaks:
            writer.write(data[: len(data) // 2])
            link.reset()
            raise ConnectionResetError
        await way.carry(data, writer)
    if writer.can_write_eof():
        writer.write_eof()


def _pairs(ways: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted({(min(ends), max(ends)) for ends in ways})


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
