"""`RemoteServer`: views, waits and tools of a server of another process, compared with those of the server itself."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import (
    ConfigError,
    ControlError,
    ExpectationError,
    FaultError,
    FilterError,
    IceServer,
    JournalOffError,
    NotOursError,
    NotRunningError,
    RemoteServer,
    SignalingServer,
    Tls,
    TurnRest,
    UnreachableError,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import AttachedServer, FakeClient, FakeDevice

from peers import PATIENCE, wait_until
from plugin_suite import server_process


@pytest.fixture
def lab() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True, control_api=["http://127.0.0.1:0"], device_wait_timeout=60) as server:
        yield server


@pytest.fixture
def remote(lab: SignalingServer) -> Iterator[RemoteServer]:
    with RemoteServer(str(lab.control_url), token=lab.control_token) as server:
        yield server


# Views ----------------------------------------------------------------------------------------------------------------


def test_views_equal_those_of_the_server(lab: SignalingServer, remote: RemoteServer) -> None:
    assert (remote.url, remote.urls) == (lab.url, lab.urls)
    assert (remote.device_url, remote.client_url) == (lab.device_url, lab.client_url)
    assert repr(remote) == f"<RemoteServer {lab.control_url}>"
    waiting = threading.Thread(target=lambda: FakeClient(lab, "later").start().close())
    waiting.start()
    with FakeDevice(remote, "a/ü", info={"n": [1.5]}), FakeDevice(remote, "b"), FakeClient(remote, "a/ü") as client:
        client.send({"type": "x"})
        assert remote.wait_for_client("later", waiting=True) == lab.waiting()[0]
        assert remote.devices() == lab.devices() and len(lab.devices()) == 2
        assert remote.wait_for_device("a/ü") == lab.wait_for_device("a/ü")
        assert remote.clients() == remote.clients("a/ü") == lab.clients() and len(lab.clients()) == 1
        assert remote.clients("b") == remote.clients("none") == []
        assert remote.nodes() == lab.nodes() == []
        wait_until(lambda: lab.stats().balances and remote.stats() == lab.stats())
        with FakeDevice(remote, "later"):
            waiting.join(PATIENCE)
    assert remote.journal.entries() == lab.journal.entries()
    assert remote.journal.count == lab.journal.count
    for format in ("text", "mermaid", "jsonl"):
        assert remote.journal.transcript(format) == lab.journal.transcript(format)
    assert (remote.hook_errors, remote.server_errors) == ([], [])


def test_long_journals_are_whole(lab: SignalingServer, remote: RemoteServer) -> None:
    with FakeDevice(lab, info={"text": "x" * 1000}) as device, FakeClient(lab) as client:
        for number in range(1100):
            client.send({"type": "n", "n": number})
        for _ in range(1100):
            device.recv()
        assert [entry.payload["n"] for entry in remote.journal.messages("n")] == list(range(1100))


def test_hook_errors_and_server_errors_are_told() -> None:
    def wrong(info: object, context: object) -> object:
        raise KeyError("mine")

    with SignalingServer(control_api=["http://127.0.0.1:0"], filter_device_info=wrong) as server:
        with RemoteServer(str(server.control_url), token=server.control_token) as remote:
            with FakeDevice(server), pytest.raises(ConnectionError):
                FakeClient(server).start()
            wait_until(lambda: remote.hook_errors)
            (failure,) = remote.hook_errors
            (own,) = server.hook_errors
            assert (failure.hook, failure.device_id, failure.peer) == (own.hook, own.device_id, own.peer)
            assert "mine" in str(failure.error)
            assert remote.stats().hook_failures == 1


# Waits ----------------------------------------------------------------------------------------------------------------


def test_waits_end_with_the_event_and_tell_of_a_failure(remote: RemoteServer) -> None:
    with pytest.raises(WaitTimeoutError, match=r"waited 0.01 s for device 'no' to register; no device is registered"):
        remote.wait_for_device("no", timeout=0.01)
    with pytest.raises(ExpectationError, match=r"expected a message with type='offer', within 0.01 s; it did not come"):
        remote.journal.expect("offer", timeout=0.01)
    with pytest.raises(FilterError, match="did you mean 'offer'"):
        remote.journal.expect("ofer")
    with pytest.raises(ConfigError, match=rf"cluster: is not set: the server at {remote.control_url} is no node"):
        remote.wait_for_nodes(1)
    peers: list[FakeDevice] = []
    coming = threading.Timer(0.05, lambda: peers.append(FakeDevice(remote, "late").start()))
    coming.start()
    assert remote.wait_for_device("late", timeout=None).device_id == "late"
    coming.join()
    peers[0].close()


def test_coroutines_wait_while_their_loop_runs(remote: RemoteServer) -> None:
    async def main() -> None:
        async def later() -> FakeDevice:
            await asyncio.sleep(0.05)
            return await asyncio.to_thread(FakeDevice(remote, "late").start)

        coming = asyncio.create_task(later())
        assert (await remote.wait_for_device_async("late", timeout=None)).device_id == "late"
        await asyncio.to_thread((await coming).close)
        with pytest.raises(WaitTimeoutError, match="device 'no'"):
            await remote.wait_for_device_async("no", timeout=0.01)
        await remote.journal.expect_async(message_type="register")
        endless = asyncio.create_task(remote.journal.expect_async("offer", timeout=None))
        await asyncio.sleep(0.05)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless

    asyncio.run(main())
    assert not [one for one in threading.enumerate() if one.name == "cuttlefish-wait"], "a cancelled wait has ended"


# Faults, clock and ICE servers ----------------------------------------------------------------------------------------


def test_faults_act_and_are_counted(lab: SignalingServer, remote: RemoteServer) -> None:
    with FakeDevice(remote) as device, FakeClient(remote) as client:
        with remote.faults.drop(to="client", type="a", nth=2) as fault:
            for number in range(3):
                device.send({"type": "a", "n": number}, client_id=1)
            assert [client.recv().payload["n"] for _ in range(2)] == [0, 2]
            assert (fault.matched, fault.hits) == (3, 1)
        fault.assert_struck(1)
        assert (fault.matched, fault.hits) == (3, 1), "the counts stay"
        with remote.faults.stall(to="client"):
            device.send({"type": "b"}, client_id=1)
            remote.journal.expect("b", check_type=False)
        assert client.recv().type == "b", "the end of a fault delivers the forwards that it holds"
        with remote.faults.truncate(0.5, to="client"), pytest.raises(ExpectationError, match="never struck"):
            remote.faults.seed(7)
            remote.faults.drop(to="client").arm().assert_struck()
    with pytest.raises(FaultError, match="device 'x' is not registered .registered: none."):
        remote.faults.drop(device="x").arm()


def test_close_undoes_faults_and_clock_of_its_own_only(lab: SignalingServer) -> None:
    one = RemoteServer(str(lab.control_url), token=lab.control_token)
    with RemoteServer(str(lab.control_url), token=lab.control_token) as two:
        kept = two.faults.drop(to="client").arm()
        one.faults.duplicate().arm()
        one.clock.freeze()
        one.close()
        assert not lab.clock.is_frozen
        assert kept.hits == 0 and kept.armed
        with FakeDevice(lab) as device, FakeClient(lab) as client:
            client.send(1)
            assert device.recv().payload == 1
            client.send(2)
            assert device.recv().payload == 2, "nothing is duplicated"
            device.send(3, client_id=1)
            wait_until(lambda: two.stats().dropped == 1)
        lab.clock.freeze()
        two.reset()
        assert not lab.clock.is_frozen
        assert kept._run.native.faults.stats(kept._id or 0) is None


def test_clock_is_frozen_and_advanced(lab: SignalingServer, remote: RemoteServer) -> None:
    with remote.clock.frozen() as clock:
        then = clock.now
        assert lab.clock.is_frozen and clock.is_frozen
        clock.advance(3600)
        assert lab.clock.now == clock.now == pytest.approx(then + 3600, abs=1e-3)
    assert not lab.clock.is_frozen
    with pytest.raises(ConfigError, match="seconds: must be a number of seconds, 0 or more, got -1"):
        remote.clock.advance(-1)


def test_ice_servers_are_replaced(remote: RemoteServer) -> None:
    with FakeDevice(remote) as device:
        remote.set_ice_servers([IceServer("stun:one"), {"urls": ["turn:two"], "username": "u", "credential": "c"}])
        device.recv(message_type="config")
        assert device.config is not None
        assert [one["urls"] for one in device.config["ice_servers"]] == [["stun:one"], ["turn:two"]]
    with pytest.raises(ConfigError, match=r"ice_servers\[0\]"):
        remote.set_ice_servers([{"urls": "http://x"}])
    others: list[Any] = [TurnRest("turn:x", secret="s" * 32), lambda context: []]
    for other in others:
        with pytest.raises(NotOursError, match="set_ice_servers takes a list here"):
            remote.set_ice_servers(other)


def test_peers_are_disconnected(remote: RemoteServer) -> None:
    with FakeDevice(remote) as device, FakeClient(remote) as client:
        assert remote.disconnect_client("cvd-1", 1)
        client.wait_closed()
        assert not remote.disconnect_client("cvd-1", 1)
        assert remote.disconnect_device("cvd-1")
        device.wait_closed()
        assert not remote.disconnect_device("cvd-1")
        assert not remote.disconnect_device("")


def test_watch_yields_events(remote: RemoteServer) -> None:
    events = remote.watch(device="cvd-1", messages=False)
    assert next(events)["event"] == "start"
    with FakeDevice(remote, "other"), FakeDevice(remote, "cvd-1"):
        found = next(event for event in events if event["event"] != "alive")
    assert (found["event"], found["device"]["device_id"]) == ("device_registered", "cvd-1")


# The server -----------------------------------------------------------------------------------------------------------


def test_server_that_stops_and_starts_again() -> None:
    server = SignalingServer(journal=True, control_api=["http://127.0.0.1:0"], control_token="x" * 20).start()
    port = str(server.control_url)
    with RemoteServer(port, token="x" * 20) as remote:
        journal = remote.journal
        assert remote.is_running
        server.stop()
        assert not remote.is_running
        with pytest.raises(UnreachableError, match="no server listens there|without an answer"):
            journal.expect("offer", timeout=1)
        with SignalingServer(control_api=[port], control_token="x" * 20):
            with pytest.raises(NotRunningError, match="has been started again"):
                journal.entries()
            assert remote.is_running
            with pytest.raises(
                JournalOffError, match=rf"the server at {port} writes no journal: start it with --journal"
            ):
                _ = remote.journal
            with pytest.raises(JournalOffError):
                remote.journal.count  # noqa: B018


def test_unix_socket_and_tls(tmp_path: Path) -> None:
    tls = Tls.self_signed()
    path = tmp_path / "control"
    with SignalingServer(tls=tls, control_api=["https://127.0.0.1:0", f"unix:{path}"]) as server:
        https, unix = server.control_urls
        token = server.control_token
        with RemoteServer(unix, token=token) as remote:
            assert remote.devices() == []
        with RemoteServer(https, token=token) as remote:
            assert remote.devices() == [], "the certificate of a server on loopback is not verified"
        with RemoteServer(https, token=token, ssl_context=tls.client_context()) as remote, FakeDevice(remote):
            assert len(remote.devices()) == 1
        other = Tls.self_signed().client_context()
        with pytest.raises(UnreachableError, match=r"its certificate is not trusted: .*; give ssl_context"):
            RemoteServer(https, token=token, ssl_context=other)
        with pytest.raises(UnreachableError, match="without an answer; for an address with TLS, write https:|HTTP"):
            RemoteServer(https.replace("https:", "http:"), token=token)


def test_tokens_and_addresses(lab: SignalingServer, tmp_path: Path) -> None:
    url = str(lab.control_url)
    (tmp_path / "token").write_text(f"{lab.control_token}\n")
    RemoteServer(url, token_file=tmp_path / "token").close()
    with pytest.raises(ControlError, match="it asks for a token: give token_file") as raised:
        RemoteServer(url)
    assert (raised.value.code, raised.value.status) == ("token_missing", 401)
    with pytest.raises(ControlError, match="the token is another one") as raised:
        RemoteServer(url, token="y" * 20)
    assert (raised.value.code, raised.value.status) == ("token_wrong", 401)
    assert "y" * 20 not in str(raised.value)
    with RemoteServer(url, token=lab.control_token) as server:
        assert str(lab.control_token) not in repr(server)
    with pytest.raises(UnreachableError, match=rf"{lab.url} is no control API .status 404.: give the address of"):
        RemoteServer(lab.url, token=lab.control_token)


def test_parts_of_another_process_are_errors(remote: RemoteServer) -> None:
    for name in ("start", "stop", "set_authorize", "launch_cvd_flags", "reload_tls"):
        with pytest.raises(NotOursError, match=rf"{name} is not available: the server at .* runs in another process"):
            getattr(remote, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = remote.nothing


def test_server_in_another_process(tmp_path: Path) -> None:
    with server_process(tmp_path) as variables:
        control = RemoteServer(
            variables["CUTTLEFISH_SIGNALING_CONTROL"],
            token_file=variables["CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE"],
        )
        with AttachedServer(variables["CUTTLEFISH_SIGNALING_URL"], control=control) as server, FakeDevice(server):
            assert server.wait_for_device("cvd-1") == server.devices()[0]
            assert server.wait_for_client_async is not None
            with server.faults.drop(), server.clock.frozen():
                assert server.stats().devices == 1
            server.journal.expect(message_type="register")
            assert [*server.nodes(), *server.clients(), *server.waiting()] == []
            assert server.reload() == []
            assert server.disconnect_device("cvd-1")


def test_nothing_of_pytest_or_websockets_is_imported() -> None:
    import sys

    code = "import sys, cuttlefish_signaling as c; c.RemoteServer; print({'pytest', 'websockets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "set()\n"
