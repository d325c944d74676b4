"""The steps of a session."""

from typing import Any

from behave import given, then, when

from cuttlefish_signaling.testing import FakeClient, FakeDevice


@given('a device "{device_id}"')
def register(context: Any, device_id: str) -> None:
    context.device = context.peers.enter_context(FakeDevice(context.server, device_id))
    context.device.on("request-offer", reply_with={"type": "offer", "sdp": "v=0"})


@when('a client asks "{device_id}" for an offer')
def ask(context: Any, device_id: str) -> None:
    context.client = context.peers.enter_context(FakeClient(context.server, device_id))
    context.client.send({"type": "request-offer"})


@then("it gets an offer")
def get_offer(context: Any) -> None:
    assert context.client.recv(type="offer").payload["sdp"] == "v=0"
    context.server.journal.expect_sequence("request-offer", "offer")
