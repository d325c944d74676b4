"""Rules for client programs: the kit is the server, and the device."""

from __future__ import annotations

from typing import Any

from ._host import Guest
from ._model import Failed
from ._program_registry import MAY, MUST, SHOULD, fact, program_rule
from ._registry import readme, rfc
from ._stage import CONFIG, Stage

OFFER = {"type": "offer", "sdp": "v=0"}
CANDIDATE = {
    "type": "ice-candidate",
    "mid": "0",
    "mLineIndex": 0,
    "candidate": "candidate:1 1 udp 1 192.0.2.1 1 typ host",
}

DEVICE_MSG = readme('{"message_type": "device_msg", "payload": <Any>}')
INFO = readme('{"message_type": "device_info", "device_info": <Any>}')


async def device_msg(guest: Guest, payload: Any) -> None:
    """Sends a message of the device."""
    await guest.say({"message_type": "device_msg", "payload": payload})


async def only_forwards(guest: Guest) -> list[dict[str, Any]]:
    """The forwards of the client. Raises Failed for another message, or if it does not stay."""
    messages = await guest.stays()
    for message in messages:
        if message["message_type"] != "forward" or "payload" not in message:
            expected = '{"message_type":"forward","payload":...}'
            raise Failed("the message is no valid forward", expected=expected, heard=str(message))
    return messages


async def connects(stage: Stage) -> None:
    """The first message is a valid request, for the device that the kit names."""
    guest = await stage.opened()
    await stage.connect(guest)
    await guest.stays()


program_rule(
    "client.connects",
    "the client connects to /connect_client, and its first message is a valid request",
    readme('{"message_type": "connect", "device_id": <String>}'),
    client=MUST,
)(connects)


async def named_device(stage: Stage) -> None:
    """It is the id of `{device_id}`."""
    message = await stage.connect(await stage.opened())
    if message["device_id"] != stage.device_id:
        expected, heard = stage.device_id, message["device_id"]
        raise Failed("the client asks for another device", expected=expected, heard=heard)


program_rule(
    "client.device-id",
    "the client asks for the device of `{device_id}`",
    readme('{"message_type": "connect", "device_id": <String>}'),
    client=SHOULD,
)(named_device)


async def waits(stage: Stage) -> None:
    """`config` alone is no connection to the device."""
    guest = await stage.opened()
    await stage.connect(guest)
    await guest.say(CONFIG)
    messages = [*await guest.stays(), *await guest.stays()]
    if messages:
        raise Failed("the client forwards before `device_info`", expected="nothing", heard=str(messages[0]))
    await guest.say({"message_type": "device_info", "device_info": {}})
    await only_forwards(guest)


program_rule(
    "client.waits-for-device-info",
    "the client forwards nothing before `device_info`, which may come late",
    readme("only after the Device has sent the register message the Server sends the device_info message"),
    client=MUST,
)(waits)


async def answers_ping(stage: Stage) -> None:
    """Before and after `device_info`."""
    guest = await stage.opened()
    await stage.connect(guest)
    await guest.stays()
    await guest.say(CONFIG)
    await guest.say({"message_type": "device_info", "device_info": None})
    await only_forwards(guest)


program_rule(
    "client.answers-ping",
    "the client answers pings",
    rfc("5.5.2", "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response"),
    client=MUST,
)(answers_ping)


async def config_fields(stage: Stage) -> None:
    """A new `config` with further fields, before `device_info`."""
    guest = await stage.opened()
    await stage.connect(guest)
    await guest.say(CONFIG)
    await guest.say({**CONFIG, "ice_servers": [], "x_conform": {"deep": [1]}})
    await guest.say({"message_type": "device_info", "device_info": {}, "x_conform": 1})
    await only_forwards(guest)


program_rule(
    "client.config-again",
    "a second `config`, and further fields, do not disturb the client",
    readme('{"message_type": "config", "ice_servers": <Array of IceServer dictionaries>, ...}'),
    client=MUST,
)(config_fields)


async def info_kinds(stage: Stage) -> None:
    """`device_info` may be any JSON value."""
    guest = await stage.connected(None)
    await only_forwards(guest)


program_rule("client.device-info-null", "`device_info` of null does not disturb the client", INFO, client=MUST)(
    info_kinds
)


async def payload_kinds(stage: Stage) -> None:
    """Payloads that no device sends."""
    guest = await stage.connected({})
    payloads: tuple[Any, ...] = (None, 1, "text", [], {}, {"type": "x-conform"}, {"type": 5}, {"type": "error"})
    for payload in payloads:
        await device_msg(guest, payload)
        await only_forwards(guest)


program_rule(
    "client.payload-kinds", "any JSON value as a payload does not disturb the client", DEVICE_MSG, client=MUST
)(payload_kinds)


async def disorder(stage: Stage) -> None:
    """Candidates come before the offer, twice, and then none."""
    guest = await stage.connected({})
    for payload in (CANDIDATE, CANDIDATE, OFFER, OFFER):
        await device_msg(guest, payload)
    await only_forwards(guest)


program_rule(
    "client.disorder",
    "candidates that come first, and messages that come twice, do not disturb the client",
    DEVICE_MSG,
    client=MUST,
)(disorder)


async def large(stage: Stage) -> None:
    """A message to a client may be larger than one to a device."""
    guest = await stage.connected({})
    await device_msg(guest, {"type": "x-conform", "x": "x" * 200_000})
    await only_forwards(guest)


program_rule("client.large-message", "a message of 200,000 bytes does not disturb the client", DEVICE_MSG, client=MUST)(
    large
)


async def unknown_type(stage: Stage) -> None:
    """An extension of another application."""
    guest = await stage.connected({})
    await guest.say({"message_type": "x-conform"})
    await only_forwards(guest)


program_rule(
    "client.unknown-type",
    "a message of an unknown type does not disturb the client",
    readme("The same holds true for creating new message types"),
    client=MAY,
)(unknown_type)


# The end --------------------------------------------------------------------------------------------------------------

STORM = 10
"""Connections in a second that are a storm."""


async def _ends(stage: Stage, guest: Guest, error: str, code: int) -> None:
    """Sends an error and a close. Raises Failed if the client does not close, or connects in a storm."""
    await guest.say({"error": error})
    stage.transcript.add(guest.name, "sends", f"close [{code}] {error!r}")
    await guest.connection.close(code, error)
    if guest.connection.protocol.close_rcvd is None:
        expected, heard = "the close frame of the client", "none"
        raise Failed("the client did not answer the close", expected=expected, heard=heard, stage="websocket")
    await _no_storm(stage)


async def _no_storm(stage: Stage) -> None:
    stage.host.attempts.clear()
    stage.host.statuses = [503] * 1000
    found = await stage.attempts_within(1.0)
    if found >= STORM:
        heard = f"{found} opening handshakes within a second"
        raise Failed("the client connects in a storm", expected=f"fewer than {STORM}", heard=heard, stage="connect")


async def no_device(stage: Stage) -> None:
    """`config`, an error, a close."""
    guest = await stage.opened()
    await stage.connect(guest)
    await guest.say(CONFIG)
    await _ends(stage, guest, f"Connection failed: Device not found: '{stage.device_id}'", 1008)


program_rule(
    "client.device-not-found",
    "the client answers the close behind an error, and does not connect again in a storm",
    fact("4.2.2", "connect to an unknown device: config first, then the error [1008]"),
    client=MUST,
)(no_device)


async def device_left(stage: Stage) -> None:
    """The same in a conversation."""
    guest = await stage.connected({})
    await device_msg(guest, OFFER)
    await guest.stays()
    await _ends(stage, guest, "Device disconnected", 1000)


program_rule(
    "client.device-disconnected",
    "the client answers the close when its device has gone, and does not connect again in a storm",
    fact("4.2.7", "the device goes away: Device disconnected, then a close [1000], at once"),
    client=MUST,
)(device_left)


async def lost(stage: Stage) -> None:
    """Without a close frame."""
    guest = await stage.connected({})
    await guest.stays()
    guest.drop()
    await _no_storm(stage)


program_rule(
    "client.lost-connection",
    "the client does not connect in a storm when its connection is lost",
    fact("4.3.9", "no pong: the TCP connection is dropped"),
    client=MUST,
)(lost)
