"""Cuttlefish's own devices, which must never be sent an error, and client ids for them (docs/protocol.md 2.5 and 4)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from cuttlefish_signaling import ConfigError, Limits, Refused, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import PATIENCE, SeqpacketPeer

OPERATOR = [Subprotocol("webrtc-operator")]
CONFIG = {"message_type": "config", "ice_servers": []}


def dial(url: str) -> ClientConnection:
    """A peer that offers the sub-protocol of Cuttlefish's own devices."""
    return connect(url, subprotocols=OPERATOR, open_timeout=PATIENCE, close_timeout=1)


@contextmanager
def registers(server: SignalingServer, device_id: str = "cvd-1") -> Iterator[ClientConnection]:
    """A device that has its config."""
    with dial(server.device_url) as device:
        says(device, message_type="register", device_id=device_id)
        assert hears(device) == CONFIG
        yield device


def says(peer: ClientConnection, **message: Any) -> None:
    peer.send(json.dumps(message))


def hears(peer: ClientConnection) -> Any:
    return json.loads(peer.recv(timeout=PATIENCE))


def closes(peer: ClientConnection) -> tuple[int, str]:
    """The code and the reason of the close frame, before which nothing comes."""
    with pytest.raises(ConnectionClosed) as closed:
        raise AssertionError(f"it heard {peer.recv(timeout=PATIENCE)!r}")
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_disconnected_device_is_closed_without_error() -> None:
    with SignalingServer() as server, registers(server) as device:
        server.disconnect_device("cvd-1")
        assert closes(device) == (1008, "Disconnected by the server's operator")


def test_hook_failure_and_refusal_close_device_without_error() -> None:
    def ice_servers(ctx: Any) -> list[Any]:
        if ctx.device_id == "broken":
            raise RuntimeError("no TURN server")
        raise Refused("not " + "today" * 40)

    with SignalingServer(ice_servers=ice_servers) as server:
        for device_id, close in (
            ("broken", (1011, "Internal error")),
            ("refused", (1008, ("not " + "today" * 40)[:123])),
        ):
            with dial(server.device_url) as device:
                says(device, message_type="register", device_id=device_id)
                assert closes(device) == close


def test_limits_close_device_without_error() -> None:
    limits = Limits(error_burst=3, error_per_second=1, max_devices=1)
    with SignalingServer(limits=limits) as server, dial(server.device_url) as late, registers(server) as device:
        says(late, message_type="register", device_id="other")
        assert closes(late) == (1013, "Registration failed: Too many devices")
        for _ in range(4):
            says(device, message_type="?")
        assert closes(device) == (1008, "Too many errors: at most 1 a second")
        assert server.stats().errors_withheld == 4


def test_server_stop_closes_device_without_error() -> None:
    with SignalingServer() as server, registers(server) as device:
        server.stop()
        assert closes(device) == (1001, "server stopping")


def test_forwards_to_unknown_clients_do_not_count_as_errors() -> None:
    """The peers of a real device outlive a restart of the server: it forwards for all clients of before."""
    with SignalingServer(limits=Limits(error_burst=1, error_per_second=1)) as server, registers(server) as device:
        for client_id in range(1, 50):
            says(device, message_type="forward", client_id=client_id, payload={})
        for client_id in range(1, 50):
            assert hears(device) == {"message_type": "client_disconnected", "client_id": client_id}
        assert server.stats().refused == 49


def test_client_with_operator_subprotocol_receives_errors() -> None:
    with SignalingServer() as server, dial(server.client_url) as client:
        says(client, message_type="connect", device_id="nowhere")
        assert hears(client) == CONFIG
        assert hears(client) == {"error": "Connection failed: Device not found: 'nowhere'"}
        assert closes(client) == (1008, "Connection failed: Device not found: 'nowhere'")


def test_device_port_is_accepted_on_device_socket_only(tmp_path: Path) -> None:
    """A device that hears no errors is not for that one to be trusted with a port."""
    options: dict[str, Any] = {"device_socket": tmp_path / "devices", "proxy_device_files": True}
    with SignalingServer(**options) as server, dial(server.device_url) as device:
        says(device, message_type="register", device_id="remote", device_port=22)
        assert hears(device) == CONFIG
        local = SeqpacketPeer(tmp_path / "devices")
        local.send({"message_type": "register", "device_id": "local", "device_port": 1})
        assert local.receive() == CONFIG
        statuses = [get(server, f"/devices/{device_id}/files/client.html") for device_id in ("remote", "local")]
        assert statuses == [404, 502]
        local.close()


def get(server: SignalingServer, path: str) -> int:
    """The status of a request."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


# Client ids -----------------------------------------------------------------------------------------------------------


def unique_id() -> int:
    """The first id that a registration has now, by the rule."""
    return 1 + time.time_ns() // 10_000_000 % 2**30


def client_id(server: SignalingServer) -> int:
    """The id of a new client of `cvd-1`."""
    with FakeClient(server):
        (client,) = server.clients("cvd-1")
        return client.client_id


def test_from_one_client_ids_continue_after_reregistration() -> None:
    with SignalingServer() as server:
        with FakeDevice(server):
            assert [client_id(server), client_id(server)] == [1, 2]
        with FakeDevice(server):
            assert client_id(server) == 3


def test_unique_client_ids_start_at_time_of_day() -> None:
    with SignalingServer(client_ids="unique") as server:
        least = unique_id()
        with FakeDevice(server):
            first = client_id(server)
            assert least <= first <= unique_id()
            assert client_id(server) == first + 1


def test_unique_client_ids_use_system_clock() -> None:
    """A real device does not know of the clock that a test turns."""
    with SignalingServer(client_ids="unique") as server, server.clock.frozen() as clock:
        clock.advance(100_000.0)
        with FakeDevice(server):
            assert client_id(server) <= unique_id()


def test_client_ids_setting_is_validated() -> None:
    with pytest.raises(ConfigError, match="client_ids: must be 'from_one' or 'unique', got 'random'"):
        SignalingServer(client_ids="random")  # type: ignore[arg-type]
