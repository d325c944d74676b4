"""Addresses of devices' candidates are rewritten, for devices behind 1:1 NAT (docs/protocol.md 5.5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import ConfigError, Grant, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from http_requests import request
from peers import SeqpacketPeer

RULE = "172.17.0.2=192.0.2.7"


def candidate(address: str) -> dict[str, Any]:
    text = f"candidate:1 1 udp 2122260223 {address} 43210 typ host"
    return {"type": "ice-candidate", "mid": "0", "mLineIndex": 0, "candidate": text}


def heard(server: SignalingServer, **options: Any) -> Any:
    """Sends a candidate of the inner address, and returns the client's message."""
    with FakeDevice(server, "cvd-1", **options) as device, FakeClient(server, "cvd-1") as client:
        client.send("hello")
        device.send(candidate("172.17.0.2"), device.recv().client_id)
        return client.recv().payload


def test_candidates_get_the_outer_address_and_are_counted_and_marked() -> None:
    with SignalingServer(advertise_address=[RULE], journal=True) as server:
        assert heard(server) == candidate("192.0.2.7")
        [entry] = server.journal.messages(direction="device->client")
        assert entry.rewritten == 1
        assert entry.payload == candidate("192.0.2.7")
        [other] = server.journal.messages(direction="client->device")
        assert other.rewritten == 0
        page = request(server, "GET", "/metrics").body.decode()
        assert "cuttlefish_signaling_addresses_rewritten_total 1\n" in page


def test_payloads_stay_byte_for_byte_but_for_the_address() -> None:
    text = '{ "candidate" :"candidate:1 1 udp 1 172.17.0.2 5 typ host \\/ \\u00e4",\t"n":1e999,"n":1.0}'
    with SignalingServer(advertise_address=[RULE]) as server, FakeDevice(server, "cvd-1") as device:
        with FakeClient(server, "cvd-1") as client:
            client.send("hello")
            number = device.recv().client_id
            device.send_raw(f'{{"message_type":"forward","client_id":{number},"payload":{text}}}')
            message = client.recv().text
            assert message == f'{{"message_type":"device_msg","payload":{text.replace("172.17.0.2", "192.0.2.7")}}}'


def test_grant_of_a_device_takes_the_place_of_the_setting() -> None:
    def authorize(context: Any) -> Grant | None:
        given = context.headers.get("x-nat")
        return None if given is None else Grant(advertise_address=json.loads(given))

    with SignalingServer(advertise_address=[RULE], authorize=authorize) as server:
        for given, outer in [('["172.17.0.0/16=198.51.0.0/16"]', "198.51.0.2"), ("[]", "172.17.0.2")]:
            assert heard(server, headers={"x-nat": given}) == candidate(outer)
        assert heard(server) == candidate("192.0.2.7")


def test_pre_registration_takes_the_place_of_all_others(tmp_path: Path) -> None:
    control_socket = tmp_path / "control"
    with SignalingServer(advertise_address=[RULE], control_socket=control_socket) as server:
        control = SeqpacketPeer(control_socket)
        devices = [
            {"id": "cvd-1", "advertise_address": ["172.17.0.2=203.0.113.5"]},
            {"id": "cvd-2", "advertise_address": ["172.17.0.2"]},
        ]
        control.send({"message_type": "pre-register", "devices": devices})
        assert [(one["status"], one["message"]) for one in control.receive()] == [
            ("accepted", ""),
            ("failed", "Invalid advertise_address"),
        ]
        assert heard(server) == candidate("203.0.113.5")
        control.close()


def test_reload_counts_for_devices_that_connect_later() -> None:
    with SignalingServer() as server:
        assert heard(server) == candidate("172.17.0.2")
        assert server.reload(advertise_address=[RULE]) == ["advertise_address"]
        assert heard(server) == candidate("192.0.2.7")


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (["172.17.0.2"], '"172.17.0.2" has no `=`: write INNER=OUTER'),
        (["10.0.0.1=10.0.0.2", "10.0.0.2=10.0.0.3"], "leads to an inner address of 10.0.0.2=10.0.0.3"),
        (["10.0.0.0/8=192.0.2.1", "10.1.0.0/16=192.0.2.2"], "10.0.0.0/8=192.0.2.1 and 10.1.0.0/16=192.0.2.2 overlap"),
        ([RULE] * 257, "257 rules, and at most 256 are allowed"),
        ("172.17.0.2=192.0.2.7", "must be a list of strings"),
    ],
)
def test_rules_that_are_wrong_are_named(rules: Any, reason: str) -> None:
    for make in (lambda: SignalingServer(advertise_address=rules), lambda: Grant(advertise_address=rules)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert "advertise_address: " in str(caught.value)
        assert reason in str(caught.value)
