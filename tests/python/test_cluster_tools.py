"""The tools for tests on one node, for a device of another node: each works there, or names that node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from control_requests import Control
from farms import Farm

from cuttlefish_signaling import (
    ExpectationError,
    FaultError,
    FilterError,
    NodeUnreachableError,
    RemoteServer,
    SignalingServer,
    WaitTimeoutError,
)
from cuttlefish_signaling.cli.armed_faults import ArmedFaults
from cuttlefish_signaling.cli.faults import FileFault
from cuttlefish_signaling.testing import AsyncFakeClient, FakeClient, FakeDevice, RawJson
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

INFO = '{"group_id":"g","exact":1.10,"great":1e400}'

HAS_FORWARDS = "device 'far' is on node 'a', and the journal of that node has its forwards: ask the server that is node"


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with ExitStack() as stack:
        made = Farm(stack, journal=True, control_api=["http://127.0.0.1:0"])
        made.a.wait_for_nodes(2, timeout=PATIENCE)
        made.b.wait_for_nodes(2, timeout=PATIENCE)
        yield made


@pytest.fixture(params=["of this process", "of another process"])
def b(farm: Farm, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The node `b`, as a server of this process, or through its control API."""
    if request.param == "of this process":
        yield farm.b
        return
    with remote(farm.b) as server:
        yield server


@contextmanager
def remote(server: SignalingServer) -> Iterator[RemoteServer]:
    """A server through its control API."""
    assert server.control_url is not None
    with RemoteServer(server.control_url, token=server.control_token) as made:
        yield made


@contextmanager
def far_device(farm: Farm) -> Iterator[FakeDevice]:
    """A device of the node `a`, which both nodes know."""
    with FakeDevice(farm.a, "far", info=RawJson(INFO), timeout=PATIENCE) as device:
        farm.b.wait_for_device("far", timeout=PATIENCE)
        yield device
    # The next test registers it again.
    asyncio.run(gone(farm))


async def gone(farm: Farm) -> None:
    while farm.a.device("far") or farm.b.device("far"):
        await asyncio.sleep(0)


def test_fault_for_a_device_of_another_node_is_refused(farm: Farm, b: Any) -> None:
    error = (
        r"^drop\(to='client', device='far'\): device 'far' is on node 'a', and faults act on the node of the device: "
        r"arm it on the server that is node 'a', or pass absent_ok=True for a device that registers here later$"
    )
    with far_device(farm):
        fault = b.faults.drop(to="client", device="far")
        with pytest.raises(FaultError, match=error):
            fault.arm()
        assert not fault.armed
        with b.faults.drop(device="far", absent_ok=True) as allowed:
            assert allowed.armed
    with pytest.raises(FaultError, match=r"device 'far' is not registered \(registered: none\)"):
        b.faults.drop(device="far").arm()


UNMATCHED = (
    r"^drop\(type='offer'\) matched no forward: faults act on the node of a device, and this node has none; "
    r"devices of other nodes: 'far' \(node 'a'\)$"
)


def test_fault_without_device_says_that_all_devices_are_on_other_nodes(farm: Farm, b: Any) -> None:
    with far_device(farm) as device, FakeClient(farm.b, "far", timeout=PATIENCE) as client:
        fault = b.faults.drop(type="offer").arm()
        client.send({"type": "offer"})
        device.recv(type="offer", timeout=PATIENCE)
        with pytest.warns(RuntimeWarning, match=UNMATCHED):
            fault.remove()
        with pytest.raises(ExpectationError) as error:
            fault.assert_struck()
        assert str(error.value).splitlines()[:2] == [
            "drop(type='offer') never struck; forwards that matched: 0",
            "faults act on the node of a device; devices of other nodes: 'far' (node 'a')",
        ]
        with FakeDevice(farm.b, "near", timeout=PATIENCE), b.faults.drop(type="offer") as beside:
            pass  # No warning: a device here could have sent an offer.
        with pytest.raises(ExpectationError, match=r"devices of other nodes: 'far' \(node 'a'\)"):
            beside.assert_struck()


def test_faults_of_a_file_name_the_devices_that_they_act_on(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    armed = ArmedFaults(farm.b)
    armed.replace([FileFault({"fault": "drop"}, "")])
    armed.replace([])
    assert caplog.messages == ["faults are armed, which are for tests (on devices of this node alone): drop()"]


def test_fault_on_the_node_of_the_device_hits_clients_of_other_nodes(farm: Farm) -> None:
    with far_device(farm) as device, FakeClient(farm.b, "far", timeout=PATIENCE) as client:
        with farm.a.faults.drop(type="offer", device="far") as fault:
            client.send({"type": "offer"})
            client.send({"type": "answer"})
            assert device.recv(timeout=PATIENCE).payload == {"type": "answer"}
        fault.assert_struck(1)


def test_control_api_refuses_a_fault_for_a_device_of_another_node(farm: Farm) -> None:
    assert farm.b.control_url is not None
    control = Control(farm.b.control_url, farm.b.control_token)
    with far_device(farm):
        refused = control.answer("POST", "/faults", {"fault": "drop", "device": "far"})
        assert (refused.status, refused.json["code"], refused.json["node"]) == (409, "other_node", "a")
        assert refused.json["error"].startswith(
            'Device "far" is on node "a", and faults act on the node of the device: '
        )
        assert control("GET", "/faults") == {"faults": []}
        armed = control("POST", "/faults", {"fault": "drop", "device": "far", "absent_ok": True})
        (listed,) = control("GET", "/faults")["faults"]
        assert listed["fault"] == {"fault": "drop", "device": "far"}
        control("DELETE", f"/faults/{armed['id']}")


def test_refusal_of_the_control_api_is_a_fault_error(farm: Farm) -> None:
    """Also where the device has come to another node since Python looked."""
    with far_device(farm), remote(farm.b) as server:
        with pytest.raises(
            FaultError, match='^Device "far" is on node "a", and faults act on the node of the device: '
        ):
            server._running().native.faults.arm("drop", device="far")


def test_device_and_clients_of_another_node(farm: Farm, b: Any) -> None:
    with far_device(farm):
        here = farm.a.device("far")
        assert here is not None and here.info_json == INFO
        assert b.device("far") == here == b.wait_for_device("far", timeout=PATIENCE)
        assert b.clients("far") == []
        with pytest.raises(WaitTimeoutError, match=r"^waited 0.05 s for a client to connect to device 'far'"):
            b.wait_for_client("far", timeout=0.05)
        with FakeClient(farm.b, "far", timeout=PATIENCE), FakeClient(farm.a, "far", timeout=PATIENCE):
            clients = farm.a.clients("far")
            assert len(clients) == 2
            assert b.clients("far") == clients
            assert b.wait_for_client("far", timeout=PATIENCE) == clients[0]
            assert asyncio.run(b.wait_for_client_async("far", timeout=PATIENCE)) == clients[0]
    assert b.device("far") is None
    assert b.clients("far") == []


def test_wait_for_a_client_of_another_node_ends_when_it_comes(farm: Farm, b: Any) -> None:
    async def main() -> None:
        waiting = asyncio.ensure_future(b.wait_for_client_async("far", timeout=PATIENCE))
        await asyncio.sleep(0)
        async with AsyncFakeClient(farm.a, "far"):
            assert (await waiting).device_id == "far"

    with far_device(farm):
        asyncio.run(main())


def test_disconnect_reaches_peers_of_another_node(farm: Farm, b: Any) -> None:
    with far_device(farm) as device, FakeClient(farm.a, "far", timeout=PATIENCE) as client:
        (there,) = farm.a.clients("far")
        assert not b.disconnect_client("far", there.client_id + 1)
        assert b.disconnect_client("far", there.client_id)
        client.wait_closed(PATIENCE)
        assert b.disconnect_device("far")
        device.wait_closed(PATIENCE)


def test_journal_without_the_forwards_of_a_device_names_its_node(farm: Farm, b: Any) -> None:
    with far_device(farm) as device, FakeClient(farm.b, "far", timeout=PATIENCE) as client:
        client.send({"type": "offer"})
        device.recv(type="offer", timeout=PATIENCE)
        assert len(farm.a.journal.messages("offer", device="far")) >= 1
        # The messages of the server to its own client are here.
        assert b.journal.messages(device="far", message_type="device_info")
        assert b.journal.messages(device="far", message_type="error") == []
        with pytest.raises(FilterError, match=f"^{HAS_FORWARDS}"):
            b.journal.messages("offer", device="far")
        with pytest.raises(FilterError, match=f"^{HAS_FORWARDS}"):
            b.journal.expect_none("offer", device="far", within=0.0)
        with pytest.raises(FilterError, match=f"^{HAS_FORWARDS}"):
            asyncio.run(b.journal.expect_none_async("offer", device="far", within=0.0))
        with pytest.raises(ExpectationError, match=HAS_FORWARDS):
            b.journal.expect("offer", device="far", timeout=0.01)
        assert b.journal.messages("offer", device="never") == []


def test_transcript_of_a_device_of_another_node_names_the_node(farm: Farm, b: Any) -> None:
    with FakeDevice(farm.a, "quiet", timeout=PATIENCE):
        farm.b.wait_for_device("quiet", timeout=PATIENCE)
        with pytest.raises(FilterError, match="^device 'quiet' is on node 'a', and the journal of that node has"):
            b.journal.transcript(device="quiet")
        assert "quiet" in farm.a.journal.transcript(device="quiet")


@pytest.mark.signaling(allow_errors=True)
def test_control_api_names_a_node_that_does_not_answer() -> None:
    from test_cluster_views import lost_node

    with lost_node(control_api=["http://127.0.0.1:0"]) as server, remote(server) as b:
        for call in (b.device, b.clients):
            with pytest.raises(NodeUnreachableError, match="^node 'node1': ") as error:
                call("far")
            assert error.value.node == "node1"
        for wait in (b.wait_for_device, b.wait_for_client):
            with pytest.raises(NodeUnreachableError, match="^node 'node1': "):
                wait("far", timeout=1.0)
