"""The threads and event loops in which hooks run."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import json
import logging
import socket
import struct
import sys
import threading
from typing import Any

import pytest

from cuttlefish_signaling import (
    FilterContext,
    HookError,
    HookTimeoutError,
    IceContext,
    Limits,
    SignalingServer,
    Tls,
    UnsupportedError,
)

from hook_kinds import both
from peers import PATIENCE, peers_of, wait_until


def test_async_hook_runs_on_loop_that_started_server() -> None:
    loops: list[Any] = []

    async def ice(ctx: IceContext) -> list[Any]:
        loops.append(asyncio.get_running_loop())
        return []

    async def main() -> None:
        from websockets.asyncio.client import connect

        async with SignalingServer(ice_servers=ice) as server, connect(server.device_url) as device:
            await device.send('{"message_type":"register","device_id":"cvd-1"}')
            assert json.loads(await device.recv())["ice_servers"] == []
            assert loops == [asyncio.get_running_loop()]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_async_hook_without_loop_runs_on_hook_loop() -> None:
    threads: list[str] = []

    async def ice(ctx: IceContext) -> list[Any]:
        threads.append(threading.current_thread().name)
        return []

    with SignalingServer(ice_servers=ice) as server, peers_of(server) as peers:
        peers.device("a")
        peers.device("b")
    assert threads == ["cuttlefish-hook-loop"] * 2


def test_async_hooks_run_concurrently() -> None:
    """With one hook thread: a coroutine that waits does not block it."""
    arrived: list[IceContext] = []
    all_arrived = asyncio.Event()

    async def ice(ctx: IceContext) -> list[Any]:
        arrived.append(ctx)
        if len(arrived) == 20:
            all_arrived.set()
        await all_arrived.wait()
        return []

    limits = Limits(hook_threads=1)
    with SignalingServer(ice_servers=ice, limits=limits) as server, peers_of(server) as peers:
        devices = [peers.connect(server.device_url) for _ in range(20)]
        for number, device in enumerate(devices):
            device.send({"message_type": "register", "device_id": f"cvd-{number}"})
        for device in devices:
            assert device.receive()["message_type"] == "config"


def test_hooks_over_tls() -> None:
    with (
        SignalingServer(
            tls=Tls.self_signed(), authorize=lambda ctx: "me", filter_device_info=lambda i, c: c.client.identity
        ) as server,
        peers_of(server) as peers,
    ):
        peers.device()
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"message_type": "device_info", "device_info": "me"}


def test_hook_may_stop_server() -> None:
    def stop(ctx: IceContext) -> Any:
        server.stop()
        return []

    server = SignalingServer(ice_servers=stop).start()
    with peers_of(server) as peers:
        device = peers.pending_device()
        assert device.wait_closed() == 1001
    assert not server.is_running


@both
def test_hook_that_raises_cancelled_error_is_a_failure(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    def ice(ctx: IceContext) -> Any:
        raise asyncio.CancelledError("mine")

    with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
        assert peers.pending_device().receive() == {"error": "Internal error"}
        wait_until(lambda: server.hook_errors)
        (failure,) = server.hook_errors
        assert isinstance(failure.error, HookError | asyncio.CancelledError)
        assert (failure.hook, failure.device_id, server.stats().hook_failures) == ("ice_servers", "cvd-1", 1)
        wait_until(lambda: "CancelledError" in caplog.text)


@both
def test_hook_that_raises_system_exit_ends_no_loop(way: Any) -> None:
    def ice(ctx: IceContext) -> Any:
        if ctx.device_id == "exits":
            raise SystemExit(3)
        return []

    with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
        for _ in range(2):
            assert peers.pending_device("exits").receive() == {"error": "Internal error"}
            peers.device("other").close()
        wait_until(lambda: len(server.hook_errors) == 2)
        assert all("SystemExit" in repr(failure.error) for failure in server.hook_errors)


def test_coroutine_that_comes_late_is_cancelled() -> None:
    """The `def` part of the hook takes longer than the hook has. The coroutine that it returns then must not run on."""
    asked, release, outcome = threading.Event(), threading.Event(), threading.Event()

    def show(info: Any, ctx: FilterContext) -> Any:
        asked.set()
        release.wait(PATIENCE)
        return late()

    class Late:
        def __await__(self) -> Any:
            yield from asyncio.Event().wait().__await__()

        def __del__(self) -> None:
            outcome.set()

    def late() -> Any:
        return Late()

    with SignalingServer(filter_device_info=show, hook_timeout=5) as server, peers_of(server) as peers:
        peers.device()
        with server.clock.frozen() as clock:
            client = peers.pending_client()
            client.receive()
            assert asked.wait(PATIENCE)
            clock.advance(5)
            assert client.receive() == {"error": "Internal error"}
        release.set()
        assert outcome.wait(PATIENCE)


def test_cancelled_coroutine_is_freed_at_once() -> None:
    """Its exception, the task and the coroutine form no cycle, which would keep them until the next collection."""
    started, freed = threading.Event(), threading.Event()

    class Held:
        def __del__(self) -> None:
            freed.set()

    async def show(info: Any, ctx: FilterContext) -> Any:
        held = Held()
        started.set()
        await asyncio.Event().wait()
        return held

    gc.disable()
    try:
        with SignalingServer(filter_device_info=show) as server, peers_of(server) as peers:
            peers.device()
            client = peers.pending_client()
            client.receive()
            assert started.wait(PATIENCE)
            client.close()
            assert freed.wait(PATIENCE)
    finally:
        gc.enable()


def test_async_hook_of_a_loop_that_does_not_run_says_so() -> None:
    async def ice(ctx: IceContext) -> list[Any]:
        return []

    loop = asyncio.new_event_loop()
    server = SignalingServer(ice_servers=ice, hook_timeout=0.2)
    loop.run_until_complete(server.__aenter__())
    try:
        with peers_of(server) as peers:
            assert peers.pending_device().receive() == {"error": "Internal error"}
            wait_until(lambda: server.hook_errors)
            (failure,) = server.hook_errors
            assert isinstance(failure.error, HookTimeoutError)
            assert failure.device_id == "cvd-1"
            assert str(failure.error).endswith(
                "within 0.2 s: the event loop that started the server does not run, "
                "so the coroutine of the hook has not started"
            )
    finally:
        loop.run_until_complete(server.stop_async())
        loop.close()


def test_async_hook_of_a_busy_loop_says_so() -> None:
    async def ice(ctx: IceContext) -> list[Any]:
        return []

    async def main() -> None:
        async with SignalingServer(ice_servers=ice, hook_timeout=0.2) as server:
            with peers_of(server) as peers:  # Synchronous: the loop does not turn.
                assert peers.pending_device().receive() == {"error": "Internal error"}
                wait_until(lambda: server.hook_errors)
                assert "its event loop is busy" in str(server.hook_errors[0].error)

    asyncio.run(main())


def test_coroutines_that_wait_wake_their_loop_once() -> None:
    from cuttlefish_signaling._coroutines import HookLoop

    woken: list[Any] = []
    began: list[str] = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
            woken.append(callback)
            return super().call_soon(callback, *args)

    class Begins:
        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self) -> None:
            began.append(self.name)
            if self.name == "first":
                queue.begin(Begins("later"))  # type: ignore[arg-type]

    def run() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    loop = Loop()
    queue = HookLoop(loop)
    for name in ("first", "second", "third"):
        queue.begin(Begins(name))  # type: ignore[arg-type]
    assert len(woken) == 1
    run()
    assert (began, len(woken)) == (["first", "second", "third"], 2)
    run()
    assert (began[3:], len(woken)) == (["later"], 2)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        queue.begin(Begins("late"))  # type: ignore[arg-type]


def test_each_coroutine_has_the_context_of_its_call() -> None:
    """The `def` part of a hook sets a variable, which no other call sees, also of those that begin together."""
    caller: contextvars.ContextVar[str | None] = contextvars.ContextVar("caller", default=None)

    async def later() -> list[Any]:
        return [{"urls": f"stun:{caller.get()}"}]

    def ice(ctx: IceContext) -> Any:
        caller.set(ctx.device_id)
        return later()

    async def main() -> None:
        limits = Limits(hook_threads=1)
        async with SignalingServer(ice_servers=ice, limits=limits) as server:
            with peers_of(server) as peers:
                devices = {name: peers.pending_device(name) for name in ("a", "b", "c")}  # The loop does not turn.
                for device in devices.values():
                    assert device.socket.ping().wait(PATIENCE)

                def told() -> dict[str, Any]:
                    return {name: device.receive()["ice_servers"][0]["urls"] for name, device in devices.items()}

                assert await asyncio.to_thread(told) == {name: [f"stun:{name}"] for name in devices}

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_task_that_cannot_be_created_ends_its_call_alone() -> None:
    async def ice(ctx: IceContext) -> list[Any]:
        return []

    def refuse_once(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if "HookCoroutine" in repr(coroutine) and not refused:
            refused.append(coroutine)
            raise ValueError("no task")
        return asyncio.Task(coroutine, loop=loop, **options)

    refused: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(refuse_once)
        async with SignalingServer(ice_servers=ice) as server:
            with peers_of(server) as peers:
                devices = [peers.pending_device(name) for name in ("a", "b")]  # Both wait: the loop does not turn.
                for device in devices:
                    assert device.socket.ping().wait(PATIENCE)
                answers = await asyncio.to_thread(lambda: [next(iter(device.receive())) for device in devices])
            assert sorted(answers) == ["error", "message_type"]
            assert [str(failure.error) for failure in server.hook_errors] == ["no task"]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@both
def test_failure_is_recorded_before_its_peer_hears_of_it_and_logged_after(way: Any) -> None:
    heard = threading.Event()
    waited: list[bool] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waited.append(heard.wait(PATIENCE))

    def ice(ctx: IceContext) -> Any:
        raise ValueError("mine")

    logger, handler = logging.getLogger("cuttlefish_signaling"), Slow(logging.ERROR)
    logger.addHandler(handler)
    try:
        with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
            assert peers.pending_device().receive() == {"error": "Internal error"}
            assert len(server.hook_errors) == server.stats().hook_failures == 1
            heard.set()
        assert waited == [True]
    finally:
        heard.set()
        logger.removeHandler(handler)


def test_call_that_waits_for_the_interpreter_lock_says_so() -> None:
    libc, switch_interval = ctypes.PyDLL(None), sys.getswitchinterval()  # `PyDLL` does not release the lock.
    with SignalingServer(authorize=lambda ctx: None, hook_timeout=0.2) as server:
        with socket.create_connection((server.host, server.port)) as connection:
            request = b"GET /devices HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(PATIENCE), 0))
            answer = ctypes.create_string_buffer(100)
            sys.setswitchinterval(100)
            try:
                libc.send(connection.fileno(), request, len(request), 0)
                libc.recv(connection.fileno(), answer, len(answer), 0)
            finally:
                sys.setswitchinterval(switch_interval)
            assert answer.raw.startswith(b"HTTP/1.1 500")
        wait_until(lambda: server.hook_errors)
        assert "was not called" in str(server.hook_errors[0].error)
        assert "another thread holds the interpreter's lock" in str(server.hook_errors[0].error)


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_in_place_of_threads_are_refused(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patched:
        def is_module_patched(self, name: str) -> bool:
            return name == "threading"

        def is_monkey_patched(self, name: str) -> bool:
            return name == "thread"

    module = {"gevent": "gevent.monkey", "eventlet": "eventlet.patcher"}[library]
    monkeypatch.setitem(sys.modules, module, Patched())
    server = SignalingServer(authorize=lambda ctx: None)
    with pytest.raises(UnsupportedError, match=f"{library} has replaced Python's threads.*thread=False"):
        server.start()
    monkeypatch.setattr(Patched, "is_module_patched", lambda *_: False)
    monkeypatch.setattr(Patched, "is_monkey_patched", lambda *_: False)
    with server:
        assert server.is_running
