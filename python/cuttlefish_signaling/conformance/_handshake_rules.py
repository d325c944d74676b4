"""Rules about the opening handshake, the request and the frames (docs/protocol.md 3)."""

from __future__ import annotations

import asyncio

from ._model import Failed, NotApplicable
from ._peer import Peer, compact
from ._registry import MUST, SHOULD, code_rule, readme, rfc
from ._session import Session
from ._target import ENDPOINTS
from ._wire import UPGRADE, Answer, exchange

SUBPROTOCOL = "webrtc-operator"


async def handshake(session: Session, path: str, **headers: str) -> Answer:
    """Sends an opening handshake, and returns the answer to it."""
    return await session.http("GET", path, headers={**UPGRADE, **{k.replace("_", "-"): v for k, v in headers.items()}})


def check_status(answer: Answer, *wanted: int) -> None:
    """Raises Failed for another status."""
    if answer.status not in wanted:
        expected = f"HTTP status {' or '.join(map(str, wanted))}"
        raise Failed(f"expected {expected}", expected=expected, heard=str(answer), stage="http")


async def endpoints(session: Session) -> None:
    """Opens both."""
    for path in ENDPOINTS:
        await session.open(path[1:2], path)


code_rule(
    "handshake.endpoints",
    "the server has both WebSocket endpoints",
    "1.2",
    "1.3",
    source=readme("The signaling server MUST expose two (different) websocket endpoints"),
    spec=MUST,
    reference=MUST,
)(endpoints)


async def query(session: Session) -> None:
    """Opens both with a query."""
    for path in ENDPOINTS:
        await session.open(path[1:2], f"{path}?conform=1")


code_rule("handshake.query", "a query string does not change the route", "3.4")(query)


async def unknown_path(session: Session) -> None:
    """Asks for it in both ways."""
    check_status(await session.http("GET", f"/{session.token}"), 404)
    check_status(await handshake(session, f"/{session.token}"), 404)


code_rule("handshake.unknown-path", "an unknown path is 404, also for an upgrade", "3.5", "3.6")(unknown_path)


async def plain_get(session: Session) -> None:
    """On both paths."""
    for path in ENDPOINTS:
        check_status(await session.http("GET", path), 426)


code_rule("handshake.plain-get", "a plain GET on a WebSocket path is 426", "3.5", "3.6")(plain_get)


async def bad_upgrade(session: Session) -> None:
    """Without a key, and with an invalid version."""
    without_key = {name: value for name, value in UPGRADE.items() if name != "Sec-WebSocket-Key"}
    check_status(await session.http("GET", ENDPOINTS[0], headers=without_key), 400)
    check_status(await handshake(session, ENDPOINTS[0], Sec_WebSocket_Version="12"), 400, 426)


code_rule("handshake.bad-upgrade", "an invalid upgrade is 400", "3.5", "3.6")(bad_upgrade)


def check_selected(answer: Answer, wanted: str | None) -> None:
    """Raises Failed if the sub-protocol is another one."""
    check_status(answer, 101)
    found = answer.headers.get("sec-websocket-protocol")
    if found != wanted:
        raise Failed(
            f"expected the sub-protocol {wanted or 'none'}",
            expected=f"Sec-WebSocket-Protocol: {wanted}" if wanted else "no Sec-WebSocket-Protocol",
            heard=f"Sec-WebSocket-Protocol: {found}" if found is not None else "no Sec-WebSocket-Protocol",
            stage="websocket",
        )


async def subprotocol_operator(session: Session) -> None:
    """Alone, and among others."""
    for offered in (SUBPROTOCOL, f"other, {SUBPROTOCOL}"):
        check_selected(await handshake(session, ENDPOINTS[0], Sec_WebSocket_Protocol=offered), SUBPROTOCOL)


code_rule(
    "handshake.subprotocol-operator",
    "the sub-protocol `webrtc-operator` is selected where it is offered",
    "3.7",
    "3.15",
)(subprotocol_operator)


async def subprotocol_other(session: Session) -> None:
    """A sub-protocol that no server has, and none."""
    check_selected(await handshake(session, ENDPOINTS[0], Sec_WebSocket_Protocol="x-conform"), None)
    check_selected(await handshake(session, ENDPOINTS[1]), None)


code_rule("handshake.subprotocol-other", "another sub-protocol is not selected, and the connection opens", "3.7")(
    subprotocol_other
)


async def no_compression(session: Session) -> None:
    """Offers it."""
    answer = await handshake(session, ENDPOINTS[0], Sec_WebSocket_Extensions="permessage-deflate")
    check_status(answer, 101)
    if "sec-websocket-extensions" in answer.headers:
        heard = f"Sec-WebSocket-Extensions: {answer.headers['sec-websocket-extensions']}"
        raise Failed("an extension was selected", expected="no extension", heard=heard, stage="websocket")


code_rule("handshake.no-compression", "permessage-deflate is not used", "3.8")(no_compression)


async def header_lists(session: Session) -> None:
    """Several members."""
    check_status(await handshake(session, ENDPOINTS[0], Connection="keep-alive, upgrade", Upgrade="WebSocket"), 101)


code_rule("handshake.header-lists", "`Connection` and `Upgrade` are lists, in any case of letters", "3.15")(
    header_lists
)


async def origin_own(session: Session) -> None:
    """Scheme and port do not count."""
    host = session.target.authority.rpartition(":")[0] or session.target.authority
    for origin in (session.target.origin(), f"http://{host}:1"):
        check_status(await handshake(session, ENDPOINTS[0], Origin=origin), 101)


code_rule("handshake.origin-own", "a device may send the server's host as `Origin`, with any scheme and port", "3.9")(
    origin_own
)


async def origin_other(session: Session) -> None:
    """A foreign origin on the endpoint of devices."""
    check_status(await handshake(session, ENDPOINTS[0], Origin="https://foreign.example"), 401, 403)


code_rule("handshake.origin-other", "a page of another site cannot become a device", "3.10")(origin_other)


async def origin_client(session: Session) -> None:
    """A foreign origin on the endpoint of clients."""
    check_status(await handshake(session, ENDPOINTS[1], Origin="https://foreign.example"), 401, 403)


code_rule("handshake.origin-client", "a page of another site cannot become a client", "3.13")(origin_client)


async def host(session: Session) -> None:
    """A request that no library sends."""
    check_status(await session.http("GET", ENDPOINTS[0], headers=UPGRADE, host=False), 400)


code_rule("handshake.host", "a request without `Host` is 400", "3.14")(host)


async def http2(session: Session) -> None:
    """The preface of HTTP/2."""
    session.transcript.add("http", "sends", "PRI * HTTP/2.0, the preface of HTTP/2")
    answer = await exchange(session.target, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", session.timeout)
    session.transcript.add("http", "receives", str(answer))
    check_status(answer, 505)


code_rule("handshake.http2", "HTTP/2 without negotiation is answered with 505", "3.2")(http2)


# Frames ---------------------------------------------------------------------------------------------------------------


async def ping(session: Session) -> None:
    """On each endpoint. The library compares the data."""
    device = await session.open("d", ENDPOINTS[0])
    client = await session.open("c", ENDPOINTS[1])
    for peer in (device, client):
        await _ping(session, peer)
    await device.say({"message_type": "register", "device_id": f"{session.token}-a", "device_info": None})
    await device.expect_type("config")
    await _ping(session, device)


code_rule(
    "frames.ping",
    "a ping is answered at once, before and after the first message, with its data",
    "3.12",
    source=rfc("5.5.2", "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response"),
    spec=MUST,
    reference=MUST,
    operator=MUST,
)(ping)


async def _ping(session: Session, peer: Peer) -> None:
    session.transcript.add(peer.name, "sends", "a ping with the data 'conform'")
    if not await peer.ping("conform"):
        heard = f"no pong within {session.timeout:g} s"
        raise Failed(
            "a ping was not answered", expected="a pong with the data 'conform'", heard=heard, stage="websocket"
        )
    session.transcript.add(peer.name, "receives", "the pong")


async def fragments(session: Session) -> None:
    """Registers in three fragments."""
    device = await session.open("d", ENDPOINTS[0])
    text = f'{{"message_type":"register","device_id":"{session.token}-a","device_info":0}}'
    session.transcript.add("d", "sends", "the next message, in three fragments")
    await device.send([text[:10], text[10:30], text[30:]])
    await device.expect_type("config")


code_rule(
    "frames.fragments",
    "fragments are joined, also with a ping between them",
    "4.3.6",
    source=rfc("5.4", "A receiver that supports fragments joins them to one message"),
    spec=MUST,
    reference=MUST,
    risky=True,
)(fragments)


async def fragments_are_counted(session: Session) -> None:
    """A message of many fragments, without its end."""
    device = await session.open("d", ENDPOINTS[0])
    most = int(session.setting("max_message_size"))
    piece = "x" * max(1, most // 8 + 1)
    session.transcript.add("d", "sends", f"fragments of {len(piece)} bytes, without a last one")

    async def pieces() -> object:
        for _ in range(9):
            yield piece
        await asyncio.sleep(3600)  # No last fragment: the server has to close before it.

    sending = asyncio.ensure_future(device.connection.send(pieces()))  # type: ignore[arg-type]
    try:
        heard = await device.receive()
        if heard.code != 1009:
            raise device.unexpected(heard, "close [1009]")
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


code_rule("frames.fragments-are-counted", "fragments count against the size limit as they come", "4.3.6", risky=True)(
    fragments_are_counted
)


async def one_frame(session: Session) -> None:
    """A forward that fills the frame."""
    if session.setting("max_message_size") < 65_100:
        raise NotApplicable("its message is larger than max_message_size")
    device, client = await session.pair()
    payload = "x" * 65_000
    await client.say({"message_type": "forward", "payload": payload})
    heard = await device.receive()
    if not isinstance(heard.value, dict) or heard.value.get("payload") != payload:
        raise device.unexpected(heard, 'a "client_msg" with 65,000 characters')
    if heard.fragments != 1:
        expected, found = "one unfragmented frame", f"{heard.fragments} fragments"
        raise Failed("a message to a device came in fragments", expected=expected, heard=found, stage="websocket")


code_rule("frames.one-frame", "a message to a device is one unfragmented frame, up to 65,536 bytes", "2.8")(one_frame)


async def compact_json(session: Session) -> None:
    """The messages of a conversation and an error."""
    device = await session.open("d", ENDPOINTS[0])
    await device.say({"message_type": "register", "device_id": f"{session.token}-a", "device_info": 1})
    client = await session.open("c", ENDPOINTS[1])
    heard = [await device.receive()]
    await client.say({"message_type": "connect", "device_id": f"{session.token}-a"})
    heard += [await client.receive(), await client.receive()]
    await client.say({"message_type": "forward", "payload": 1})
    heard.append(await device.receive())
    await client.say({"message_type": "x-conform"})
    heard.append(await client.receive())
    for one in heard:
        if one.value is ... or one.text != compact(one.value):
            raise Failed("a message is not compact JSON", expected="JSON without white space", heard=str(one))


code_rule("frames.compact-json", "each message of the server is compact JSON", "2.9")(compact_json)


async def utf_8(session: Session) -> None:
    """A text frame with the byte FF."""
    device = await session.open("d", ENDPOINTS[0])
    session.transcript.add("d", "sends", "a text frame with the byte FF")
    device.connection.transport.write(b"\x81\x81\0\0\0\0\xff")
    heard = await device.expect_end()
    if heard.code not in (1002, 1007):
        raise device.unexpected(heard, "close [1007]")


code_rule("frames.utf-8", "invalid UTF-8 in a text ends the connection with 1007 or 1002", "4.3.3", strict=SHOULD)(
    utf_8
)


async def isolation(session: Session) -> None:
    """A pair relays on, beside peers that send invalid frames, a reset, and half of a handshake."""
    device, client = await session.pair()
    for name in ("x", "y"):
        hostile = await session.open(name, ENDPOINTS[0])
        session.transcript.add(name, "sends", "a frame with a reserved opcode")
        hostile.connection.transport.write(b"\x83\x80\0\0\0\0")
        hostile.abort()
    await client.say({"message_type": "forward", "payload": "on"})
    message = await device.expect_type("client_msg")
    await device.say({"message_type": "forward", "client_id": message["client_id"], "payload": "on"})
    await client.expect({"message_type": "device_msg", "payload": "on"})


code_rule("isolation.invalid-frames", "a peer that breaks RFC 6455 does not touch the others", "2.7", risky=True)(
    isolation
)
