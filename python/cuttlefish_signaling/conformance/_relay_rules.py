"""Rules about relaying that a transcript cannot express: many messages, and values that only a server knows."""

from __future__ import annotations

import asyncio
from typing import Any

from ._matching import fault_of_config
from ._model import Failed
from ._peer import Peer, compact
from ._registry import MAY, MUST, SHOULD, code_rule, readme
from ._session import Session

ANY = readme('{"message_type": "forward", "payload": <Any>}')

PAYLOADS: tuple[Any, ...] = (None, True, 0, -1.5, "", 'é\u2028\U0001f600\\"', [], [[], {}], {}, {"": {"type": None}})
"""Each kind of JSON value."""

COUNT = 50
"""Messages each way in the rule about the order."""


async def ice_servers(session: Session) -> None:
    """To a device and to a client."""
    device = await session.open("d", "/register_device")
    await device.say({"message_type": "register", "device_id": f"{session.token}-a", "device_info": None})
    client = await session.open("c", "/connect_client")
    configs = [await device.expect_type("config")]
    await client.say({"message_type": "connect", "device_id": f"{session.token}-a"})
    configs.append(await client.expect_type("config"))
    for config in configs:
        if fault := fault_of_config(config, is_exact=session.is_exact):
            expected = '{"message_type":"config","ice_servers":[{"urls":["stun:..."]}]}'
            raise Failed(f"an invalid config: {fault}", expected=expected, heard=compact(config))


code_rule(
    "config.ice-servers",
    "`ice_servers` of each `config` is an array of RTCIceServer dictionaries, `urls` an array of strings",
    "1.6",
    "1.12",
    "1.16",
    source=readme('{"message_type": "config", "ice_servers": <Array of IceServer dictionaries>, ...}'),
    spec=MUST,
    reference=MUST,
)(ice_servers)


async def kinds(session: Session) -> None:
    """All kinds, in both directions."""
    device, client = await session.pair()
    for payload in PAYLOADS:
        await client.say({"message_type": "forward", "payload": payload})
        heard = await device.receive()
        value = heard.value
        if not isinstance(value, dict) or "payload" not in value or compact(value["payload"]) != compact(payload):
            raise device.unexpected(heard, f'a "client_msg" with the payload {compact(payload)}')
        await device.say({"message_type": "forward", "client_id": value["client_id"], "payload": payload})
        heard = await client.receive()
        if heard.value != {"message_type": "device_msg", "payload": payload}:
            raise client.unexpected(heard, f'a "device_msg" with the payload {compact(payload)}')


code_rule(
    "payload.kinds",
    "each kind of JSON value is a payload, both ways",
    "1.1",
    "1.5",
    "1.11",
    source=ANY,
    spec=MUST,
    reference=MUST,
)(kinds)


async def order(session: Session) -> None:
    """Both send without waiting."""
    device, client = await session.pair()
    for number in range(1, COUNT + 1):
        await client.say({"message_type": "forward", "payload": number})
    client_id: Any = None
    for number in range(1, COUNT + 1):
        heard = await device.receive()
        if not isinstance(heard.value, dict) or heard.value.get("payload") != number:
            raise device.unexpected(heard, f'a "client_msg" with the payload {number}')
        client_id = heard.value["client_id"]
    for number in range(1, COUNT + 1):
        await device.say({"message_type": "forward", "client_id": client_id, "payload": number})
    for number in range(1, COUNT + 1):
        await client.expect({"message_type": "device_msg", "payload": number})


code_rule(
    "order.both-ways",
    f"{COUNT} messages each way arrive once, and in order",
    "2.2",
    source=readme("Server sends client_msg message to Device ... Server sends device_msg message to client"),
    spec=MUST,
    reference=MUST,
)(order)


async def notice_is_last(session: Session) -> None:
    """A client forwards, and is cut off at once."""
    device, client = await session.pair()
    for number in range(1, 11):
        await client.say({"message_type": "forward", "payload": number})
    await client.close()
    seen = 0
    for _ in range(11):
        heard = await device.receive()
        value = heard.value if isinstance(heard.value, dict) else {}
        if value.get("message_type") == "client_disconnected":
            break
        if value.get("payload") != seen + 1:
            raise device.unexpected(heard, f'a "client_msg" with the payload {seen + 1}, or "client_disconnected"')
        seen += 1
    else:
        raise device.unexpected(heard, '"client_disconnected"')
    if seen != 10:
        raise Failed("forwards before a close were lost", expected="10 forwards", heard=f"{seen} forwards")
    for heard in await device.unread(pings=session.known.answers_pings is not False):
        raise device.unexpected(heard, 'nothing behind "client_disconnected"')


code_rule(
    "order.notice-is-last", "`client_disconnected` comes once, behind all forwards of the client", "2.4", "4.2.8"
)(notice_is_last)


async def old_client(session: Session) -> None:
    """A device registers again, and forwards to the id of a client of before."""
    device, client = await session.pair()
    await client.say({"message_type": "forward", "payload": "old"})
    old = (await device.expect_type("client_msg"))["client_id"]
    await device.close()
    await client.expect_end()
    again = await _register_again(session)
    other = await session.client("c2")
    await other.say({"message_type": "forward", "payload": "new"})
    new = (await again.expect_type("client_msg"))["client_id"]
    if new == old:
        raise Failed("a client id was used again", expected="an id that was not given out", heard=f"client_id {new}")
    await again.say({"message_type": "forward", "client_id": old, "payload": "late"})
    for heard in await other.unread(pings=session.known.answers_pings is not False):
        if isinstance(heard.value, dict) and heard.value.get("message_type") == "device_msg":
            raise other.unexpected(heard, "nothing: the message was for a client of before")


code_rule("sessions.old-client", "a client of an old registration is not a client of the new one", "2.6", "2.5.1")(
    old_client
)


async def _register_again(session: Session) -> Peer:
    """Registers with an id that was just left. A server may take a moment to notice that."""
    until = asyncio.get_running_loop().time() + session.timeout
    while True:
        try:
            return await session.device("d2")
        except Failed:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(0.02)


async def unknown_device(session: Session) -> None:
    """An error, or `config` in the waiting flow."""
    client = await session.open("c", "/connect_client")
    await client.say({"message_type": "connect", "device_id": f"{session.token}-none"})
    heard = await client.receive()
    value = heard.value
    if not isinstance(value, dict) or not ("error" in value or value.get("message_type") == "config"):
        raise client.unexpected(heard, '{"error":"..."}, or a config')
    if "error" in value and not isinstance(value["error"], str):
        raise client.unexpected(heard, "an error that is a string")


code_rule(
    "connect.unknown-device",
    "a client that asks for an unknown device gets a message, and not only a close or nothing",
    "4.2.2",
    source=readme('The server sends the clients these types of messages: ... {"error": <String>}'),
    strict=MUST,
    spec=SHOULD,
)(unknown_device)


async def waiting(session: Session) -> None:
    """The client comes first."""
    client = await session.open("c", "/connect_client")
    await client.say({"message_type": "connect", "device_id": f"{session.token}-a"})
    await client.expect_type("config")
    for heard in await client.unread(pings=session.known.answers_pings is not False):
        raise client.unexpected(heard, "nothing until the device registers")
    await session.device(info={"late": True})
    await client.expect({"message_type": "device_info", "device_info": {"late": True}})


code_rule(
    "waiting.flow",
    "a client may connect before its device: it gets `config`, and `device_info` later",
    "1.18",
    source=readme("In an alternative flow ... allowed by the design, the Client connects first"),
    strict=MAY,
    spec=MAY,
)(waiting)
