"""A client that repeats a request without an answer, tested on a network that drops, delays and duplicates messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from cuttlefish_signaling import SignalingServer, WaitTimeoutError
from cuttlefish_signaling.testing import FakeClient, FakeDevice

Device: TypeAlias = Callable[..., FakeDevice]
Client: TypeAlias = Callable[..., FakeClient]


def ask(client: FakeClient, tries: int = 3, patience: float = 0.2) -> Any:
    """Asks for an offer, and repeats the request if none arrives. This function is under test."""
    for _ in range(tries):
        client.send({"type": "request-offer"})
        try:
            return client.recv(patience, type="offer").payload
        except WaitTimeoutError:
            continue
    raise TimeoutError(f"no offer after {tries} tries")


@pytest.fixture
def client(fake_device: Device, fake_client: Client) -> FakeClient:
    """A client whose device answers."""
    fake_device("cvd-1").on("request-offer", reply_with={"type": "offer", "sdp": "v=0"})
    return fake_client("cvd-1")


def test_all_is_well(client: FakeClient) -> None:
    assert ask(client, tries=1)["sdp"] == "v=0"


def test_the_first_offer_is_lost(signaling_server: SignalingServer, client: FakeClient) -> None:
    with signaling_server.faults.drop(to="client", type="offer", nth=1) as fault:
        assert ask(client)["sdp"] == "v=0"
    fault.assert_struck(1)
    assert len(signaling_server.journal.messages("request-offer")) == 2


def test_a_slow_network_is_asked_again_and_then_answers_twice(
    signaling_server: SignalingServer, client: FakeClient
) -> None:
    with signaling_server.faults.delay(ms=300, to="client"):
        assert ask(client)["sdp"] == "v=0"
    signaling_server.journal.expect_sequence("request-offer", "offer", "request-offer", "offer")


def test_half_of_everything_is_lost(signaling_server: SignalingServer, client: FakeClient) -> None:
    signaling_server.faults.seed(1)
    with signaling_server.faults.drop(probability=0.5):
        assert ask(client, tries=50, patience=0.05)["sdp"] == "v=0"


def test_it_gives_up_in_the_end(signaling_server: SignalingServer, client: FakeClient) -> None:
    fault = signaling_server.faults.drop(type="request-offer")
    with fault, pytest.raises(TimeoutError, match="no offer after 3 tries"):
        ask(client, patience=0.05)
    fault.assert_struck(3)
    signaling_server.journal.expect_none("offer", within=0.05)


def test_an_offer_that_comes_broken(signaling_server: SignalingServer, client: FakeClient) -> None:
    with signaling_server.faults.truncate(keep=0.5, type="offer", times=1):
        assert ask(client)["sdp"] == "v=0"
    assert client.recv(message_type="broken").text.startswith('{"message_type":"device_msg"')


def test_a_silent_device_is_found_dead_in_no_time(signaling_server: SignalingServer, fake_device: Device) -> None:
    """Keepalive takes 15 seconds of the server's clock, which the test controls."""
    device = fake_device("cvd-2")
    device.stall()
    with signaling_server.clock.frozen() as clock:
        clock.advance(10)  # The server pings the silent device.
        assert signaling_server.devices()
        clock.advance(5)  # The device has not answered.
        assert not signaling_server.devices()
