"""Rules for device programs: the kit is the server, and its clients."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from ._host import SUBPROTOCOL, Guest
from ._model import Failed
from ._program_registry import MAY, MUST, SHOULD, fact, program_rule
from ._registry import readme, rfc
from ._stage import CONFIG, Stage

REQUEST = {"type": "request-offer", "ice_servers": []}
CANDIDATE = {
    "type": "ice-candidate",
    "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 1 typ host", "sdpMid": "0", "sdpMLineIndex": 0},
}
CLIENT = 7

FORWARD = readme('{"message_type": "forward", "client_id": <Integer>, "payload": <Any>}')
CLIENT_MSG = readme('{"message_type": "client_msg", "client_id": <Integer>, "payload": <Any>}')


async def client_msg(guest: Guest, payload: Any, client_id: int = CLIENT) -> None:
    """Sends a message of a client."""
    await guest.say({"message_type": "client_msg", "client_id": client_id, "payload": payload})


async def disconnected(guest: Guest, client_id: int = CLIENT) -> None:
    """Tells that a client has left."""
    await guest.say({"message_type": "client_disconnected", "client_id": client_id})


def check_forward(guest: Guest, message: dict[str, Any], *clients: int) -> None:
    """Raises Failed unless the message is a forward to one of the clients."""
    client_id = message.get("client_id")
    is_id = isinstance(client_id, int) and not isinstance(client_id, bool)
    if message["message_type"] != "forward" or not is_id or "payload" not in message:
        expected = '{"message_type":"forward","client_id":N,"payload":...}'
        raise Failed("the message is no valid forward", expected=expected, heard=str(message))
    if client_id not in clients:
        expected = f"a client_id of {', '.join(map(str, clients)) or 'none'}"
        raise Failed("the forward is for a client that is not there", expected=expected, heard=f"client_id {client_id}")


async def only_forwards(guest: Guest, *clients: int) -> None:
    """Raises Failed unless the device stays, and sends only valid forwards to these clients."""
    for message in await guest.stays():
        check_forward(guest, message, *clients)


async def serves(guest: Guest, client_id: int) -> None:
    """Raises Failed unless the device stays after a further client has asked for an offer."""
    await client_msg(guest, REQUEST, client_id)
    await guest.stays()


# Connection and registration ------------------------------------------------------------------------------------------


async def registers(stage: Stage) -> None:
    """The first message is a valid registration."""
    guest = await stage.opened()
    message = await stage.register(guest)
    device_id = message["device_id"]
    if not 0 < len(device_id.encode("utf-8", "replace")) <= 256 or re.search(
        "[\0-\x1f\x7f-\x9f\u2028\u2029]", device_id
    ):
        raise Failed(
            "the device id is invalid", expected="1 to 256 bytes, no control characters", heard=repr(device_id)
        )
    await guest.stays()


program_rule(
    "device.registers",
    "the device connects to /register_device, and its first message is a valid registration",
    readme('{"message_type": "register", "device_id": <String>, "device_info": <Any>}'),
    device=MUST,
)(registers)


async def has_info(stage: Stage) -> None:
    """`device_info` is there."""
    message = await stage.register(await stage.opened())
    if "device_info" not in message:
        raise Failed("the registration has no device_info", expected='"device_info":...', heard=str(message))


program_rule(
    "device.info",
    "the registration has `device_info`",
    readme('{"message_type": "register", "device_id": <String>, "device_info": <Any>}'),
    device=SHOULD,
)(has_info)


async def subprotocol(stage: Stage) -> None:
    """The sub-protocol tells the server that it is a Cuttlefish device."""
    guest = await stage.registered()
    offered = guest.request.headers.get("Sec-WebSocket-Protocol", "")
    if SUBPROTOCOL not in [one.strip() for one in offered.split(",")]:
        heard = offered or "none"
        raise Failed("the sub-protocol is not offered", expected=SUBPROTOCOL, heard=heard, stage="websocket")


program_rule(
    "device.subprotocol",
    "the device offers the sub-protocol `webrtc-operator`",
    fact("3.7", "a legacy device offers webrtc-operator"),
    cuttlefish_device=MUST,
)(subprotocol)


async def origin(stage: Stage) -> None:
    """A server refuses devices with another origin, as it refuses pages."""
    guest = await stage.registered()
    found = guest.request.headers.get("Origin")
    host = guest.request.headers.get("Host", "").rpartition(":")[0]
    if found is not None and host not in found:
        raise Failed("`Origin` is another host", expected=f"none, or one with {host}", heard=found, stage="http")


program_rule(
    "device.origin",
    "`Origin` is absent, or has the host of the server",
    fact("3.9", "devices send an Origin header that equals the address of the server"),
    device=SHOULD,
    cuttlefish_device=MUST,
)(origin)


async def answers_ping(stage: Stage) -> None:
    """Before and after a message."""
    guest = await stage.registered()
    await guest.stays()
    await client_msg(guest, REQUEST)
    await guest.stays()


program_rule(
    "device.answers-ping",
    "the device answers pings",
    rfc("5.5.2", "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response"),
    device=MUST,
)(answers_ping)


async def pings(stage: Stage) -> None:
    """A device that sends no pings does not notice a dead server."""
    guest = await stage.registered()
    until = asyncio.get_running_loop().time() + max(stage.timeout, 5.0)
    while not guest.pings and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.02)
    if not guest.pings:
        raise Failed("the device sends no pings", expected="a ping each 3 s", heard="none", stage="websocket")


program_rule(
    "device.pings",
    "the device sends pings, and so notices a server that is gone",
    fact("3.12", "real devices ping every 3 s, and hang up after 10 s without a pong"),
    device=MAY,
    cuttlefish_device=SHOULD,
)(pings)


# Messages -------------------------------------------------------------------------------------------------------------


async def answers(stage: Stage) -> None:
    """The answer is a forward to this client."""
    guest = await stage.registered()
    await client_msg(guest, REQUEST)
    check_forward(guest, await guest.message(), CLIENT)
    await only_forwards(guest, CLIENT)


program_rule("device.answers", "the device answers a request for an offer", FORWARD, device=SHOULD)(answers)


async def own_clients(stage: Stage) -> None:
    """Two clients, of which one has not spoken."""
    guest = await stage.registered()
    await only_forwards(guest)
    await client_msg(guest, REQUEST)
    await only_forwards(guest, CLIENT)
    await client_msg(guest, REQUEST, CLIENT + 1)
    await only_forwards(guest, CLIENT, CLIENT + 1)


program_rule(
    "device.own-clients",
    "the device forwards only to clients that have sent a message, with valid forwards",
    readme("at this point the device knows about the client and can send forward messages intended for it"),
    device=MUST,
)(own_clients)


async def config_again(stage: Stage) -> None:
    """Credentials of TURN are renewed in this way."""
    guest = await stage.registered()
    await guest.say(
        {**CONFIG, "ice_servers": [{"urls": ["turn:turn.conform.invalid"], "username": "u", "credential": "c"}]}
    )
    await guest.say({**CONFIG, "ice_servers": []})
    await serves(guest, CLIENT)


program_rule(
    "device.config-again",
    "a later `config` does not disturb the device",
    fact("6.2", "a legacy device reads the ICE servers again from any later config"),
    device=MUST,
)(config_again)


async def config_extra(stage: Stage) -> None:
    """A field that the device does not know."""
    guest = await stage.opened()
    await stage.register(guest, {**CONFIG, "x_conform": {"deep": [1]}})
    await serves(guest, CLIENT)


program_rule(
    "device.config-fields",
    "further fields of `config` do not disturb the device",
    readme('{"message_type": "config", "ice_servers": <Array of IceServer dictionaries>, ...}'),
    device=MUST,
)(config_extra)


async def early_message(stage: Stage) -> None:
    """A client may be faster than `config`."""
    guest = await stage.opened()
    message = await guest.message()
    if message["message_type"] != "register":
        raise Failed("the first message is no registration", expected="register", heard=str(message))
    await client_msg(guest, REQUEST)
    await guest.say(CONFIG)
    await guest.stays()


program_rule(
    "device.message-before-config",
    "a message that comes before `config` does not disturb the device",
    fact("6.1", "a legacy device does not wait for config"),
    device=SHOULD,
)(early_message)


async def payload_kinds(stage: Stage) -> None:
    """Payloads that no WebRTC client sends."""
    guest = await stage.registered()
    payloads: tuple[Any, ...] = (None, 1, "text", [], {}, {"type": "x-conform"}, {"type": 5}, {"type": "answer"})
    for number, payload in enumerate(payloads, CLIENT):
        await client_msg(guest, payload, number)
        await guest.stays()


program_rule(
    "device.payload-kinds", "any JSON value as a payload does not disturb the device", CLIENT_MSG, device=MUST
)(payload_kinds)


async def large_frame(stage: Stage) -> None:
    """One unfragmented frame of 65,536 bytes."""
    guest = await stage.registered()
    head, tail = f'{{"message_type":"client_msg","client_id":{CLIENT},"payload":{{"type":"x-conform","x":"', '"}}'
    await guest.send(head + "x" * (65_536 - len(head) - len(tail)) + tail)
    await guest.stays()
    await serves(guest, CLIENT)


program_rule(
    "device.large-frame",
    "an unfragmented message of 65,536 bytes does not disturb the device",
    fact("2.8", "every message to a WebSocket device is one unfragmented text frame of at most 65,536 bytes"),
    device=MUST,
)(large_frame)


async def unknown_type(stage: Stage) -> None:
    """An extension of another application."""
    guest = await stage.registered()
    await guest.say({"message_type": "x-conform"})
    await guest.stays()


program_rule(
    "device.unknown-type",
    "a message of an unknown type does not disturb the device",
    readme("The same holds true for creating new message types"),
    device=MAY,
)(unknown_type)


async def error(stage: Stage) -> None:
    """An error without a close."""
    guest = await stage.registered()
    await guest.say({"error": "Forward failed: Unknown client 99"})
    await guest.stays()


program_rule(
    "device.error",
    "an error without a close does not end the connection",
    readme('The server sends the device these types of messages: ... {"error": <String>}'),
    device=SHOULD,
)(error)


# Clients that leave, and messages that come late, twice or not at all -----------------------------------------------


async def client_leaves(stage: Stage) -> None:
    """Nothing is for it any more."""
    guest = await stage.registered()
    await client_msg(guest, REQUEST)
    await guest.stays()
    await disconnected(guest)
    await guest.stays()  # Messages that crossed the notice are no fault.
    await client_msg(guest, REQUEST, CLIENT + 1)
    await only_forwards(guest, CLIENT + 1)


program_rule(
    "device.client-disconnected",
    "after `client_disconnected` the device sends that client nothing, and serves others",
    fact("1.8", "the server tells a device of a client that has left"),
    device=MUST,
)(client_leaves)


async def unknown_client_leaves(stage: Stage) -> None:
    """A client that never sent a message, and the same one again."""
    guest = await stage.registered()
    await disconnected(guest, 99)
    await disconnected(guest, 99)
    await serves(guest, CLIENT)


program_rule(
    "device.unknown-client-disconnected",
    "`client_disconnected` for a client that the device never saw, twice, does not disturb it",
    fact("6.4", "client_disconnected for an id that a legacy device never saw is harmless"),
    device=MUST,
)(unknown_client_leaves)


async def late_message(stage: Stage) -> None:
    """A candidate of a client that has left."""
    guest = await stage.registered()
    await client_msg(guest, REQUEST)
    await disconnected(guest)
    await client_msg(guest, CANDIDATE)
    await guest.stays()
    await serves(guest, CLIENT + 1)


program_rule(
    "device.late-message", "a message of a client that has left does not disturb the device", CLIENT_MSG, device=MUST
)(late_message)


async def duplicates(stage: Stage) -> None:
    """Each message comes twice."""
    guest = await stage.registered()
    for payload in (REQUEST, {"type": "answer", "sdp": "v=0"}, CANDIDATE):
        await client_msg(guest, payload)
        await client_msg(guest, payload)
    await only_forwards(guest, CLIENT)
    await serves(guest, CLIENT + 1)


program_rule("device.duplicates", "messages that come twice do not disturb the device", CLIENT_MSG, device=MUST)(
    duplicates
)


async def reordered(stage: Stage) -> None:
    """Candidates come first, and then none."""
    guest = await stage.registered()
    await client_msg(guest, CANDIDATE)
    await client_msg(guest, {"type": "answer", "sdp": "v=0"})
    await client_msg(guest, REQUEST)
    await only_forwards(guest, CLIENT)
    await serves(guest, CLIENT + 1)


program_rule(
    "device.reordered", "candidates that come first, or not at all, do not disturb the device", CLIENT_MSG, device=MUST
)(reordered)
