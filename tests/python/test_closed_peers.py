"""Fake peers say the close code and the reason, whatever they do when the server closes, or afterwards."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from cuttlefish_signaling import (
    ExpectationError,
    PeerClosedError,
    PeerRefusedError,
    SignalingServer,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, FakeClient, FakeDevice

from peers import PATIENCE, wait_until

CODE, REASON = 1013, "slow consumer"
CONFIG = b'{"message_type":"config","ice_servers":[]}'
INFO = b'{"message_type":"device_info","device_info":{}}'
MORE_THAN_BUFFERS = "x" * (32 << 20)
"""A payload that no pair of socket buffers takes."""

SAYS = rf"the connection was closed \[{CODE}\] '{REASON}'"

KINDS = [FakeDevice, FakeClient, AsyncFakeDevice, AsyncFakeClient]
kinds = pytest.mark.parametrize("kind", KINDS)


class StuckServer:
    """Accepts one peer, reads nothing of it, and closes only by a close frame: TCP stays open."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted: socket.socket | None = None
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        self.accepted = accepted = self.listener.accept()[0]
        head = accepted.recv(4096)
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
        assert key is not None
        digest = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        accepted.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n"
        )
        for text in (CONFIG, INFO):
            self.send(0x81, text)

    def send(self, first: int, content: bytes) -> None:
        """Sends an unmasked frame."""
        assert self.accepted is not None
        self.accepted.sendall(bytes([first, len(content)]) + content)

    def close(self) -> None:
        """Sends the close frame. The TCP connection stays open."""
        self.send(0x88, CODE.to_bytes(2, "big") + REASON.encode())


@pytest.fixture
def stuck() -> Iterator[StuckServer]:
    server = StuckServer()
    yield server
    server.thread.join()
    server.listener.close()
    if server.accepted is not None:
        server.accepted.close()


async def call(method: Any, *arguments: Any, **options: Any) -> Any:
    """Calls a method of either kit."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


def asynchronous(peer: Any) -> Any:
    """The asynchronous peer within."""
    return getattr(peer, "_peer", peer)


def connection_of(peer: Any) -> Any:
    return asynchronous(peer)._socket


def arguments_of(peer: Any) -> tuple[Any, ...]:
    """The arguments of `send` after the payload."""
    return () if isinstance(asynchronous(peer), AsyncFakeClient) else (1,)


async def assert_closed(work: Any) -> None:
    """Checks that the work fails with code and reason."""
    with pytest.raises(PeerClosedError, match=SAYS) as closed:
        await work
    assert (closed.value.code, closed.value.reason) == (CODE, REASON)


async def until(condition: Any) -> None:
    await asyncio.to_thread(wait_until, condition)


@kinds
def test_blocked_send_raises_close_of_server_that_reads_nothing(kind: Any, stuck: StuckServer) -> None:
    async def main() -> None:
        peer = kind(stuck.url)
        await call(peer.start)
        sending = asyncio.ensure_future(call(peer.send, MORE_THAN_BUFFERS, *arguments_of(peer)))
        await until(lambda: connection_of(peer).transport.get_write_buffer_size() > 0)
        assert not sending.done()
        stuck.close()
        await assert_closed(sending)
        with suppress(PeerClosedError):
            await call(peer.close)

    asyncio.run(main())


@kinds
def test_waits_in_progress_raise_close(kind: Any, stuck: StuckServer) -> None:
    async def main() -> None:
        peer = kind(stuck.url)
        await call(peer.start)
        receiving = [asyncio.ensure_future(call(peer.recv, PATIENCE, **what)) for what in ({}, {"type": "offer"})]
        closing = asyncio.ensure_future(call(peer.wait_closed, PATIENCE))
        await asyncio.sleep(0)
        stuck.close()
        for work in receiving:
            await assert_closed(work)
        assert await closing == CODE
        await call(peer.close)

    asyncio.run(main())


@kinds
def test_calls_after_close_raise_close(kind: Any, stuck: StuckServer) -> None:
    async def main() -> None:
        peer = kind(stuck.url)
        await call(peer.start)
        stuck.close()
        # The close frame is there, the TCP connection is not closed yet.
        await until(lambda: not peer.is_open)
        await assert_closed(call(peer.send, 1, *arguments_of(peer)))
        await assert_closed(call(peer.send_raw, "x"))
        await assert_closed(call(peer.stall))
        assert await call(peer.wait_closed, PATIENCE) == CODE
        # Now it is.
        await assert_closed(call(peer.send, 1, *arguments_of(peer)))
        await assert_closed(call(peer.recv, PATIENCE))
        await assert_closed(call(peer.resume))
        await call(peer.close)
        await assert_closed(call(peer.send, 1, *arguments_of(peer)))
        await assert_closed(call(peer.recv, PATIENCE))

    asyncio.run(main())


@kinds
def test_reply_that_never_ends_hides_no_close(kind: Any, stuck: StuckServer) -> None:
    async def main() -> None:
        started, cancelled = threading.Event(), threading.Event()

        async def hang(message: Any) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        peer = kind(stuck.url)
        peer.on("offer", reply_with=hang)
        await call(peer.start)
        name = b"device_msg" if arguments_of(peer) == () else b"client_msg"
        message = b'{"message_type":"%s","client_id":1,"payload":{"type":"offer"}}' % name
        stuck.send(0x81, message)
        await until(started.is_set)
        for _ in range(20):  # More than `websockets` queues.
            stuck.send(0x81, message)
        stuck.close()
        for _ in range(21):
            assert (await call(peer.recv, PATIENCE)).type == "offer"
        await assert_closed(call(peer.recv, PATIENCE))
        await call(peer.close)
        assert cancelled.is_set()

    asyncio.run(main())


@kinds
def test_send_raises_error_of_server_before_it_is_read(kind: Any, stuck: StuckServer) -> None:
    async def main() -> None:
        peer = kind(stuck.url)
        await call(peer.start)
        stuck.send(0x81, b'{"error":"because"}')
        stuck.close()
        await until(lambda: not peer.is_open)
        with pytest.raises(PeerClosedError, match="the server's last error: 'because'") as closed:
            await call(peer.send, 1, *arguments_of(peer))
        assert closed.value.error == "because"
        await call(peer.close)

    asyncio.run(main())


def test_iteration_raises_unusual_close(stuck: StuckServer) -> None:
    with FakeClient(stuck.url) as client:
        stuck.close()
        with pytest.raises(PeerClosedError, match=SAYS):
            for _ in client:
                pass


def test_async_iteration_raises_unusual_close(stuck: StuckServer) -> None:
    async def main() -> None:
        async with AsyncFakeClient(stuck.url) as client:
            stuck.close()
            with pytest.raises(PeerClosedError, match=SAYS):
                async for _ in client:
                    pass

    asyncio.run(main())


def test_iteration_ends_with_ordinary_close(server: SignalingServer) -> None:
    with FakeDevice(server), FakeClient(server) as client:
        server.stop()
        assert list(client) == []
        assert client.close_code == 1001


def test_iteration_raises_end_without_close_frame(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        client.send({"type": "offer"})
        device.recv()
        with server.faults.disconnect(type="x"):
            device.send({"type": "x"})
            with pytest.raises(PeerClosedError) as closed:
                list(client)
    assert closed.value.code == client.close_code


@pytest.mark.parametrize("profile", ["legacy", "current"])
def test_reconnecting_device_says_last_close(server: SignalingServer, profile: Any) -> None:
    with FakeDevice(server, profile=profile, backoff=3600) as device:
        device.send_raw(b"\x00")
        assert device.wait_closed() == 1003
        how = r"the connection was closed \[1003\] 'Received a binary message'"
        with pytest.raises(PeerClosedError, match=f"cannot send: {how}") as closed:
            device.send(1, 1)
        assert (closed.value.code, closed.value.reason) == (1003, "Received a binary message")
        for wait in (device.recv, lambda timeout: device.wait_reconnected(1, timeout)):
            with pytest.raises(WaitTimeoutError, match=f"; {how}$"):
                wait(0.01)


def test_wait_of_reconnected_device_says_last_close(server: SignalingServer) -> None:
    with FakeDevice(server, profile="current", backoff=0) as device:
        device.send_raw(b"\x00")
        device.wait_reconnected()
        with pytest.raises(WaitTimeoutError, match=r"\[1003\] 'Received a binary message', then it connected again$"):
            device.recv(0.01)


def test_wait_of_stalled_peer_says_so(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        device.stall()
        for wait in (device.recv, device.wait_closed):
            with pytest.raises(WaitTimeoutError, match="it is stalled, so it reads nothing$"):
                wait(0.01)


@pytest.mark.parametrize(("kind", "first"), [(FakeDevice, {"device_id": ""}), (FakeClient, {"device_id": "nowhere"})])
def test_refusal_has_code_and_reason(server: SignalingServer, kind: Any, first: dict[str, str]) -> None:
    with pytest.raises(PeerRefusedError) as refused:
        kind(server, **first).start()
    assert refused.value.code == 1008
    assert refused.value.reason == refused.value.error != ""


def test_calls_on_peer_that_the_test_has_closed_say_so(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        client = FakeClient(server)
        with pytest.raises(PeerClosedError, match="is not started: use it in a with statement"):
            client.send(1)
        with client:
            client.close()
            with pytest.raises(PeerClosedError, match=r"is closed: the connection was closed \[1000\] ''"):
                client.send(1)
        with client:
            client.drop()
            with pytest.raises(PeerClosedError, match="is closed: the connection ended without a close frame"):
                client.recv()
        assert device.is_open


def test_expectation_of_journal_says_close() -> None:
    with SignalingServer(journal=True) as server, FakeDevice(server) as device, FakeClient(server) as client:
        client.send_raw("no JSON")
        assert client.wait_closed() == 1007
        with pytest.raises(ExpectationError, match=r"the server closed:\n  #\d+ .*\[1007 Received Invalid"):
            server.journal.expect("offer", timeout=0.01)
        device.close()
        with FakeDevice(server), pytest.raises(ExpectationError) as missing:
            server.journal.expect("offer", timeout=0.01, after=server.journal.entries()[-1])
        assert "the server closed" not in str(missing.value)
