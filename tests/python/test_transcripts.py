"""The transcripts, run from Python over sockets. See README.md beside them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from socket import SHUT_WR
from typing import Any

import pytest
from farms import started_engine
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cuttlefish_signaling import Cluster, Limits, SignalingServer
from cuttlefish_signaling.testing._engine import MISSING, Engine, find_engine

from peers import PATIENCE, SeqpacketPeer

FOLDER = Path(__file__).parents[2] / "python/cuttlefish_signaling/conformance/transcripts"
FILES = sorted(FOLDER.glob("*.jsonl"))
LIMITS = ("first_message_timeout", "probe_timeout", "max_message_size")


COLUMNS = ("others", "cuttlefish")
"""Devices that receive errors, and Cuttlefish's own, which offer the subprotocol and receive none."""


def cases() -> list[Any]:
    """Every case in both columns, with its place."""
    found: list[Any] = []
    for file in FILES:
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            line = json.loads(text)
            if "case" in line:
                found.append((line, []))
            else:
                found[-1][1].append((f"{file.name}:{number}", line))
    return [
        pytest.param(case, [entry for entry in lines if entry[1].get("only", column) == column], column, id=name)
        for case, lines in found
        for column, name in zip(COLUMNS, (case["case"], f"{case['case']} (Cuttlefish's own devices)"), strict=True)
    ]


def test_transcripts_are_found() -> None:
    assert len(FILES) >= 8
    assert len(cases()) > 250


def talks(lines: list[Any]) -> bool:
    """Whether there are devices and clients in a case."""
    opened = {"client" if "of" in line else line["opens"] for _, line in lines if "opens" in line}
    return {"device", "client"} <= opened


def between_nodes() -> list[Any]:
    """The cases with devices and clients, each in one column. tests/server/transcripts.rs has all."""
    return [case for case in cases() if talks(case.values[1]) and case.values[2] == COLUMNS[0]]


def test_transcripts_between_nodes_are_found() -> None:
    assert len(between_nodes()) > 40


def sockets_in(folder: Path) -> dict[str, Path]:
    """The paths of the local sockets."""
    return {"device": folder / "device", "control": folder / "control"}


def server_of(case: dict[str, Any], paths: dict[str, Path] | None, **more: Any) -> SignalingServer:
    """A server with the settings of a case, and with local sockets at these paths."""
    settings = dict(case.get("settings", {}))
    limits = {name: settings.pop(name) for name in LIMITS if name in settings}
    if paths is not None:
        more = {**more, "device_socket": paths["device"], "control_socket": paths["control"]}
    return SignalingServer(limits=Limits(**limits), **settings, **more)


@pytest.mark.parametrize(("case", "lines", "column"), cases())
def test_transcript(case: dict[str, Any], lines: list[Any], column: str, tmp_path: Path) -> None:
    paths = sockets_in(tmp_path)
    server = server_of(case, paths)
    asyncio.run(asyncio.wait_for(Run(server, paths, column).run(lines), 60))


@pytest.mark.parametrize(("case", "lines", "column"), cases())
def test_transcript_through_a_proxy(case: dict[str, Any], lines: list[Any], column: str, tmp_path: Path) -> None:
    paths = sockets_in(tmp_path)
    server = server_of(case, paths)
    asyncio.run(asyncio.wait_for(Run(server, paths, column, is_proxied=True).run(lines), 60))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A real engine. Each case has a cluster of its own on it."""
    with ExitStack() as stack:
        yield started_engine(stack)


@pytest.mark.skipif(find_engine() is None, reason=MISSING)
@pytest.mark.parametrize(("case", "lines", "column"), between_nodes())
def test_transcript_with_device_and_client_on_different_nodes(
    case: dict[str, Any], lines: list[Any], column: str, tmp_path: Path, engine: Engine
) -> None:
    paths = sockets_in(tmp_path)
    name = tmp_path.name
    server = server_of(case, paths, cluster=Cluster(engine.url, name=name, node="of-devices"))
    of_clients = server_of(case, None, cluster=Cluster(engine.url, name=name, node="of-clients"))
    asyncio.run(asyncio.wait_for(Run(server, paths, column, of_clients=of_clients).run(lines), 60))


class Run:
    """One case, on one server. `is_proxied`: WebSocket peers connect through a proxy.

    `of_clients`: another node of the same cluster, to which clients connect.
    """

    def __init__(
        self,
        server: SignalingServer,
        paths: dict[str, Path],
        column: str,
        *,
        is_proxied: bool = False,
        of_clients: SignalingServer | None = None,
    ) -> None:
        self.server = server
        self.of_clients = of_clients
        self.is_proxied = is_proxied
        self.entrance = server
        self.offers = [Subprotocol("webrtc-operator")] if column == "cuttlefish" else None
        self.paths = paths
        self.sockets: dict[str, ClientConnection] = {}
        self.packets: dict[str, SeqpacketPeer] = {}

    async def run(self, lines: list[Any]) -> None:
        async with self.server, AsyncExitStack() as stack:
            if self.is_proxied:
                self.entrance = SignalingServer(upstream=self.server.url, journal=True)
                await stack.enter_async_context(self.entrance)
            if self.of_clients is not None:
                await stack.enter_async_context(self.of_clients)
                for server in (self.server, self.of_clients):
                    await server.wait_for_nodes_async(2, timeout=PATIENCE)
            try:
                for place, line in lines:
                    try:
                        await self.act(line)
                    except (AssertionError, asyncio.TimeoutError, ConnectionClosed) as error:
                        raise AssertionError(f"{place}: {type(error).__name__}: {error}\n{line}") from error
                for peer, socket in self.sockets.items():
                    if socket.transport.is_reading():
                        assert await self.unread(socket) == [], f"{peer} received more than it should"
            finally:
                for socket in self.sockets.values():
                    socket.transport.abort()
        for peer, packets in self.packets.items():
            assert packets.receive() is None, f"{peer} received more than it should"
            packets.close()
        for server in (self.server, self.entrance, self.of_clients or self.server):
            stats = server.stats()
            assert stats.accepted == stats.delivered + stats.refused + stats.gone
            assert (stats.connections, stats.devices, stats.clients, stats.panics) == (0, 0, 0, 0)

    def connections(self) -> int:
        """The connections of peers, to both nodes if there are two."""
        other = self.of_clients.stats().connections if self.of_clients is not None else 0
        return self.server.stats().connections + other

    async def act(self, line: dict[str, Any]) -> None:
        if "after" in line:
            return  # The server takes this long before the next line.
        peer = line["peer"]
        (verb,) = line.keys() - {"peer", "of", "over", "pad", "nest", "only", "reason"}
        value = line[verb]
        if verb == "opens" and line.get("over") == "packets":
            self.packets[peer] = SeqpacketPeer(self.paths[value])
            return
        if peer in self.packets:
            await self.act_on_packets(peer, verb, value, line)
            return
        if verb == "opens":
            url = self.entrance.device_url if value == "device" else (self.of_clients or self.entrance).client_url
            if "of" in line:
                url = url.replace("/connect_client", f"/devices/{line['of']}/connect")
            self.sockets[peer] = await connect(
                url, subprotocols=self.offers, compression=None, max_size=None, close_timeout=1
            )
            return
        socket = self.sockets[peer]
        if verb == "says":
            await self.send(socket, compact(value))
        elif verb == "says_text":
            await self.send(socket, expand(value, line))
        elif verb == "says_binary":
            await self.send(socket, value.encode())
        elif verb == "hears":
            assert json.loads(await self.receive(socket)) == value
        elif verb == "hears_text":
            assert await self.receive(socket) == expand(value, line)
        elif verb == "closes":
            with pytest.raises(ConnectionClosed) as closed:
                await self.receive(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == value
            if "reason" in line:
                assert closed.value.rcvd.reason == line["reason"][:123]
            del self.sockets[peer]
        elif verb == "leaves":
            assert await self.unread(socket) == []
            connections = self.connections()
            if value == "drop":
                socket.transport.abort()
            else:
                await socket.close()
            del self.sockets[peer]
            await until(lambda: self.connections() < connections)
        elif verb == "freezes":
            socket.transport.pause_reading()
        else:
            raise AssertionError(f"not understood: {line}")

    async def act_on_packets(self, peer: str, verb: str, value: Any, line: dict[str, Any]) -> None:
        # Waits on another thread: the peers on this one have to answer pings.
        packets = self.packets[peer]
        if verb == "says":
            packets.send(compact(value).encode())
        elif verb == "says_text":
            packets.send(expand(value, line).encode())
        elif verb == "hears":
            assert json.loads(await asyncio.to_thread(packets.receive_text)) == value
        elif verb == "hears_text":
            assert await asyncio.to_thread(packets.receive_text) == expand(value, line)
        elif verb in ("ends", "leaves"):
            connections = self.connections()
            if verb == "leaves":
                packets.socket.shutdown(SHUT_WR)
            assert await asyncio.to_thread(packets.receive) is None
            self.packets.pop(peer).close()
            if verb == "leaves":
                await until(lambda: self.connections() < connections)
        else:
            raise AssertionError(f"not understood: {line}")

    async def send(self, socket: ClientConnection, message: str | bytes) -> None:
        try:
            await socket.send(message)
        except ConnectionClosed:
            pass  # The server has closed; its last messages are still to be read.

    async def receive(self, socket: ClientConnection) -> str:
        message = await asyncio.wait_for(socket.recv(), PATIENCE)
        assert isinstance(message, str)
        return message

    async def unread(self, socket: ClientConnection) -> list[Any]:
        """The messages that have not been read. After a pong, all of them have arrived."""
        await asyncio.wait_for(await socket.ping(), PATIENCE)
        received = []
        while True:
            try:
                received.append(await asyncio.wait_for(socket.recv(), 0.001))
            except asyncio.TimeoutError:
                return received


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def expand(text: str, line: dict[str, Any]) -> str:
    nest = line.get("nest", 0)
    return text.replace("%PAD%", "x" * line.get("pad", 0)).replace("%NEST%", "[" * nest + "]" * nest)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that a thread of the server makes true."""
    async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else _Patience():
        while not condition():
            await asyncio.sleep(0)


class _Patience:
    """No timeout, for Python 3.10: that of pytest applies."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
