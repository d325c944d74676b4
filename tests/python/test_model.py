"""Peers connect, send and disconnect in any order, against a model of the messages they must receive."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from websockets.sync.client import ClientConnection, connect

from cuttlefish_signaling import SignalingServer

from peers import PATIENCE, wait_until

PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
IDS = st.sampled_from(["cvd-1", "cvd-2", '\u00fc " \\ /', "x" * 256])


class Peer:
    """A connected peer, and the messages that it must still receive."""

    def __init__(self, url: str) -> None:
        self.socket: ClientConnection = connect(url, open_timeout=PATIENCE, close_timeout=PATIENCE).__enter__()
        self.expected: deque[dict[str, Any]] = deque()

    def send(self, message: Any) -> None:
        self.socket.send(json.dumps(message))

    def receive_expected(self) -> None:
        """Receives the expected messages, in order."""
        while self.expected:
            assert json.loads(self.socket.recv(timeout=PATIENCE)) == self.expected.popleft()

    def assert_nothing_more(self) -> None:
        """Receives the expected messages, and after them only the answer to an unknown message."""
        self.receive_expected()
        self.send({"message_type": "?"})
        assert json.loads(self.socket.recv(timeout=PATIENCE)) == {"error": "Unknown message type: ?"}


class Device(Peer):
    """A device, by the model."""

    def __init__(self, url: str, device_id: str) -> None:
        super().__init__(url)
        self.id = device_id
        self.clients: dict[int, Client] = {}
        self.last = 0


class Client(Peer):
    """A client, by the model."""

    def __init__(self, url: str, device: Device) -> None:
        super().__init__(url)
        self.device = device
        self.number = 0


CONFIG = {"message_type": "config", "ice_servers": []}


class Signaling(RuleBasedStateMachine):
    """One server, and its peers."""

    devices = Bundle("devices")
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.server = SignalingServer().start()
        self.registered: dict[str, Device] = {}
        self.connected: list[Peer] = []
        self.last_ids: dict[str, int] = {}

    @rule(target=devices, device_id=IDS, info=PAYLOADS)
    def register(self, device_id: str, info: Any) -> Any:
        device = Device(self.server.device_url, device_id)
        device.send({"message_type": "register", "device_id": device_id, "device_info": info})
        if device_id in self.registered:
            # The holder answers the probe.
            device.expected.append({"error": f"Device already registered: {device_id}"})
            device.receive_expected()
            device.socket.close()
            return multiple()
        device.expected.append(CONFIG)
        device.receive_expected()
        device.last = self.last_ids.get(device_id, 0)
        device.info = info  # type: ignore[attr-defined]
        self.registered[device_id] = device
        self.connected.append(device)
        return device

    @rule(target=clients, device=devices)
    def connect(self, device: Device) -> Any:
        client = Client(self.server.client_url, device)
        client.send({"message_type": "connect", "device_id": device.id})
        client.expected.append(CONFIG)
        current = self.registered.get(device.id)
        if current is None:
            client.expected.append({"error": f"Connection failed: Device not found: '{device.id}'"})
            client.receive_expected()
            client.socket.close()
            return multiple()
        client.device = current
        client.expected.append({"message_type": "device_info", "device_info": current.info})  # type: ignore[attr-defined]
        client.receive_expected()
        current.last += 1
        client.number = current.last
        current.clients[client.number] = client
        self.connected.append(client)
        return client

    @rule(client=clients, payload=PAYLOADS)
    def forward_to_device(self, client: Client, payload: Any) -> None:
        if client not in self.connected:
            return
        client.send({"message_type": "forward", "payload": payload})
        client.device.expected.append({"message_type": "client_msg", "client_id": client.number, "payload": payload})
        client.device.receive_expected()

    @rule(device=devices, number=st.integers(1, 6), payload=PAYLOADS)
    def forward_to_client(self, device: Device, number: int, payload: Any) -> None:
        if device not in self.connected:
            return
        device.send({"message_type": "forward", "client_id": number, "payload": payload})
        if (client := device.clients.get(number)) is not None:
            client.expected.append({"message_type": "device_msg", "payload": payload})
            client.receive_expected()
        elif number <= device.last:
            device.expected.append({"message_type": "client_disconnected", "client_id": number})
            device.receive_expected()
        else:
            device.expected.append({"error": f"Forward failed: Unknown client {number}"})
            device.receive_expected()

    @rule(client=consumes(clients))
    def client_disconnects(self, client: Client) -> None:
        if client not in self.connected:
            return
        client.socket.close()
        self.connected.remove(client)
        del client.device.clients[client.number]
        client.device.expected.append({"message_type": "client_disconnected", "client_id": client.number})
        client.device.receive_expected()

    @rule(device=consumes(devices))
    def device_disconnects(self, device: Device) -> None:
        if device not in self.connected:
            return
        device.socket.close()
        self.connected.remove(device)
        for client in device.clients.values():
            client.expected.append({"error": "Device disconnected"})
            client.receive_expected()
            client.socket.close()
            self.connected.remove(client)
        # Without clients, no message shows that the device has been unregistered.
        del self.registered[device.id]
        self.last_ids[device.id] = device.last
        wait_until(lambda: all(listed.device_id != device.id for listed in self.server.devices()))

    @invariant()
    def listed_peers_match_model(self) -> None:
        assert {device.device_id for device in self.server.devices()} == set(self.registered)
        known = {(device.id, number) for device in self.registered.values() for number in device.clients}
        assert {(client.device_id, client.client_id) for client in self.server.clients()} == known

    def teardown(self) -> None:
        for peer in self.connected:
            peer.assert_nothing_more()
        for peer in self.connected:
            peer.socket.close()
        self.server.stop()
        stats = self.server.stats()
        assert stats.balances, stats
        assert stats.panics == 0


TestSignaling = Signaling.TestCase
TestSignaling.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
