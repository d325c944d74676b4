"""A session through 1:1 NAT: media and data between two network namespaces (docs/protocol.md 5.5, docs/nat.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nat_network import ADDRESSES, NatNetwork, reason_to_skip
from peers import PATIENCE

PEERS = Path(__file__).with_name("nat_peers.py")
REASON = reason_to_skip()

pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

RULE = {family: f"{addresses.plain().device}={addresses.plain().outer}" for family, addresses in ADDRESSES.items()}


def session(network: NatNetwork, **options: Any) -> dict[str, Any]:
    """Runs a server and a client on one machine and a device on the other. Returns the result of the client."""
    command = [sys.executable, str(PEERS)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    given = [network.addresses.client, json.dumps(options)]
    with subprocess.Popen([*network.on("client"), *command, "client", *given], **pipes) as client:
        assert client.stdout is not None
        line = client.stdout.readline()
        assert line, client.communicate(timeout=PATIENCE)
        url = json.loads(line)["url"]
        with subprocess.Popen([*network.on("device"), *command, "device", url], **pipes) as device:
            told, client_errors = client.communicate(timeout=6 * PATIENCE)
            _, device_errors = device.communicate(timeout=PATIENCE)
    assert (client.returncode, device.returncode) == (0, 0), client_errors + device_errors
    result: dict[str, Any] = json.loads(told)
    return result


@pytest.mark.parametrize("family", [4, 6])
def test_media_reaches_a_device_behind_nat_at_the_outer_address(family: int) -> None:
    with NatNetwork(family) as network:
        result = session(network, advertise_address=[RULE[family]])
        outer = network.addresses.outer
        assert result["reply"] == "hello yourself"
        assert result["rewritten"] == len(result["candidates"]) > 0
        assert all(f" {outer} " in candidate for candidate in result["candidates"])
        assert network.exchanges()["to_device"] > 0


@pytest.mark.parametrize("family", [4, 6])
def test_media_does_not_reach_a_device_behind_nat_without_a_rule(family: int) -> None:
    """The network of the other tests lets nothing through but datagrams to the outer address."""
    with NatNetwork(family) as network:
        result = session(network, short_checks=True)
        inner = network.addresses.device
        assert "the media connection is failed" in result["error"]
        assert result["rewritten"] == 0 < len(result["candidates"])
        assert all(f" {inner} " in candidate for candidate in result["candidates"])
        exchanges = network.exchanges()
        assert exchanges["to_device"] == 0 < exchanges["from_device"]


@pytest.mark.parametrize("way", ["grant", "pre_register"])
def test_rule_of_one_device_takes_the_place_of_the_setting(way: str) -> None:
    with NatNetwork(4) as network:
        wrong = f"{network.addresses.device}=192.0.2.99"
        result = session(network, advertise_address=[wrong], **{way: [RULE[4]]})
        assert result["reply"] == "hello yourself"
        assert network.exchanges()["to_device"] > 0
