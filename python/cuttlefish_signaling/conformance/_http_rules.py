"""Rules about HTTP: lists, and clients that poll (docs/protocol.md 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._handshake_rules import check_status
from ._matching import fault_of_config
from ._model import Failed
from ._peer import Peer, compact
from ._registry import MAY, MUST, SHOULD, code_rule
from ._session import Session
from ._wire import Answer


def check_body(answer: Answer, wanted: Any) -> None:
    """Raises Failed for another body."""
    if answer.json != wanted:
        raise Failed("the body is another one", expected=compact(wanted), heard=str(answer), stage="http")


def check_error(answer: Answer, status: int, **more: str) -> None:
    """Raises Failed unless it is a JSON error with this status."""
    check_status(answer, status)
    body = answer.json
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        raise Failed("the error is not JSON", expected='{"error":"..."}', heard=str(answer), stage="http")
    if any(body.get(key) != value for key, value in more.items()):
        raise Failed("the error has another text", expected=compact(more), heard=str(answer), stage="http")


async def get(session: Session, path: str, status: int = 200) -> Answer:
    """GET, which has to have this status."""
    answer = await session.http("GET", path)
    check_status(answer, status)
    return answer


async def post(session: Session, path: str, body: Any, status: int = 200) -> Answer:
    """POST of JSON, which has to have this status."""
    answer = await session.http("POST", path, body)
    check_status(answer, status)
    return answer


# Lists ----------------------------------------------------------------------------------------------------------------


async def infra_config(session: Session) -> None:
    """Its ICE servers are those of a WebSocket peer."""
    answer = await get(session, "/infra_config")
    body = answer.json
    if not isinstance(body, dict) or body.get("message_type") != "config" or fault_of_config(body, is_exact=True):
        expected = '{"message_type":"config","ice_servers":[...]}'
        raise Failed("the body is not a config", expected=expected, heard=str(answer), stage="http")


code_rule("http.infra-config", "`GET /infra_config` is the `config` message", "5.3.1", operator=MUST)(infra_config)


async def listed(session: Session, query: str = "") -> list[dict[str, Any]]:
    """The devices of this rule in `GET /devices`."""
    answer = await get(session, f"/devices{query}")
    body = answer.json
    if not isinstance(body, list) or not all(isinstance(one, dict) and "device_id" in one for one in body):
        expected = '[{"device_id":"...","group_name":"..."},...]'
        raise Failed("the body is not a list of devices", expected=expected, heard=str(answer), stage="http")
    return [one for one in body if str(one["device_id"]).startswith(session.token)]


async def devices(session: Session) -> None:
    """Two devices, the second one first, and none once they have left."""
    for name in ("b", "a"):
        await session.device(name, name)
    found = await listed(session)
    wanted = [f"{session.token}-a", f"{session.token}-b"]
    if [one["device_id"] for one in found] != wanted:
        raise Failed("other devices are listed", expected=compact(wanted), heard=compact(found), stage="http")
    if not all(isinstance(one.get("group_name"), str) for one in found):
        expected = "a `group_name` that is a string"
        raise Failed("a device has no group_name", expected=expected, heard=compact(found), stage="http")


code_rule("http.devices", "`GET /devices` lists registered devices, sorted by id", "5.3.2", operator=MUST)(devices)


async def devices_filter(session: Session) -> None:
    """An empty filter is none. The group is that of the device info."""
    await session.device("a", "a", {"group_id": f"{session.token}-group"})
    await session.device("b", "b")
    for query, count in ((f"?groupId={session.token}-group", 1), ("?groupId=", 2), ("?groupId=conform-none", 0)):
        found = await listed(session, query)
        if len(found) != count:
            heard = compact(found)
            raise Failed(f"{query} has other devices", expected=f"{count} devices", heard=heard, stage="http")


code_rule(
    "http.devices-filter", "`GET /devices?groupId=` lists the devices of a group", "5.3.3", "5.3.4", operator=SHOULD
)(devices_filter)


async def devices_ids(session: Session) -> None:
    """A list of strings."""
    await session.device()
    answer = await get(session, "/devices?format=ids")
    if f"{session.token}-a" not in answer.json:
        raise Failed("the device is not listed", expected=f'["{session.token}-a",...]', heard=str(answer), stage="http")


code_rule("http.devices-ids", "`GET /devices?format=ids` is the list of ids of the reference server", "5.3.5")(
    devices_ids
)


async def device_info(session: Session) -> None:
    """A device and none."""
    await session.device(info={"n": [1]})
    answer = await get(session, f"/devices/{session.token}-a")
    body = answer.json
    if not isinstance(body, dict) or body.get("registration_info") != {"n": [1]}:
        expected = '"registration_info":{"n":[1]}'
        raise Failed("the device info is another one", expected=expected, heard=str(answer), stage="http")
    await get(session, f"/devices/{session.token}-none", 404)


code_rule(
    "http.device", "`GET /devices/ID` has the device info; an unknown id is 404", "5.3.6", "5.3.23", operator=MUST
)(device_info)


async def json_errors(session: Session) -> None:
    """An unknown path, a wrong method and bad JSON."""
    check_error(await session.http("GET", f"/{session.token}"), 404)
    check_error(await session.http("DELETE", "/infra_config"), 405)
    check_error(await session.http("POST", "/polled_connections", b"{"), 400)


code_rule("http.json-errors", "errors are JSON: 404, 405 and 400", "5.3.22", "5.3.25", "5.3.27", operator=MAY)(
    json_errors
)


async def too_large(session: Session) -> None:
    """The head alone tells it: the body is not sent."""
    answer = await session.http("POST", "/polled_connections", headers={"Content-Length": "1000000000"})
    check_error(answer, 413)


code_rule("http.too-large", "a body that is too large is 413, by its head", "5.3.26", operator=MAY, risky=True)(
    too_large
)


async def decoded(session: Session) -> None:
    """A path with an escape, and a WebSocket path."""
    await get(session, "/infra%5Fconfig")
    await session.open("d", "/register%5Fdevice")


code_rule("http.decoded-paths", "paths are matched decoded", "5.3.18", operator=SHOULD)(decoded)


# Polled clients -------------------------------------------------------------------------------------------------------


async def polled(session: Session) -> tuple[Peer, str]:
    """A device, and the id of a polled connection to it."""
    device = await session.device(info={"polled": 1})
    answer = await post(session, "/polled_connections", {"device_id": f"{session.token}-a"})
    body = answer.json
    connection = body.get("connection_id") if isinstance(body, dict) else None
    if not isinstance(connection, str) or body.get("device_info") != {"polled": 1}:
        expected = '{"connection_id":"...","device_info":{"polled":1}}'
        raise Failed("the answer is another one", expected=expected, heard=str(answer), stage="http")
    return device, connection


async def forwarded(session: Session, device: Peer, connection: str, payload: Any, colon: str = ":") -> Any:
    """Forwards a payload of the polled client; returns the client id that the device hears."""
    answer = await post(session, f"/polled_connections/{connection}/{colon}forward", {"payload": payload})
    check_body(answer, "ok")
    heard = await device.receive()
    if not isinstance(heard.value, dict) or heard.value.get("payload", ...) != payload:
        raise device.unexpected(heard, f'a "client_msg" with the payload {compact(payload)}')
    return heard.value["client_id"]


def device_msgs(*payloads: Any) -> list[Mapping[str, Any]]:
    """The messages of a polled client."""
    return [{"message_type": "device_msg", "payload": payload} for payload in payloads]


async def relay(session: Session) -> None:
    """Forward and messages, until they are acknowledged."""
    device, connection = await polled(session)
    client_id = await forwarded(session, device, connection, {"n": 1})
    for number in (1, 2):
        await device.say({"message_type": "forward", "client_id": client_id, "payload": number})
    await device.ping()
    messages = f"/polled_connections/{connection}/messages"
    check_body(await get(session, f"{messages}?start=0"), device_msgs(1, 2))
    check_body(await get(session, f"{messages}?start=0&count=1"), device_msgs(1))
    check_body(await get(session, f"{messages}?start=1"), device_msgs(2))


code_rule("polling.relay", "a polled client relays both ways", "5.3.10", "5.3.11", "5.3.12", operator=MUST)(relay)


async def acknowledged(session: Session) -> None:
    """A later `start` acknowledges; one past the end is empty."""
    device, connection = await polled(session)
    client_id = await forwarded(session, device, connection, 0)
    await device.say({"message_type": "forward", "client_id": client_id, "payload": 1})
    await device.ping()
    messages = f"/polled_connections/{connection}/messages"
    check_body(await get(session, f"{messages}?start=0"), device_msgs(1))
    check_body(await get(session, f"{messages}?start=1"), [])
    await get(session, f"{messages}?start=0", 410)


code_rule("polling.acknowledged", "an acknowledged message is gone: 410", "5.3.13", "5.3.14", operator=SHOULD)(
    acknowledged
)


async def empty_queries(session: Session) -> None:
    """The page of the current operator sends them."""
    device, connection = await polled(session)
    client_id = await forwarded(session, device, connection, 0)
    await device.say({"message_type": "forward", "client_id": client_id, "payload": 1})
    await device.ping()
    for query in ("?start=&count=", "?count=-1", ""):
        check_body(await get(session, f"/polled_connections/{connection}/messages{query}"), device_msgs(1))


code_rule(
    "polling.empty-queries", "empty `start=` and `count=`, and `count=-1`, are as if not given", "5.3.15", operator=MUST
)(empty_queries)


async def device_left(session: Session) -> None:
    """The device leaves. A server may take a moment to notice."""
    device, connection = await polled(session)
    await device.close()
    for _ in range(MOST_POLLS):
        answer = await session.http("GET", f"/polled_connections/{connection}/messages?start=0")
        if answer.status == 404:
            return
        await session.wait(0.02)
    check_status(answer, 404)


code_rule(
    "polling.device-left", "when the device has gone and all was fetched, a poll is 404", "5.3.16", operator=SHOULD
)(device_left)


MOST_POLLS = 50
"""Polls until a server has to have noticed that a device left."""


async def decoded_forward(session: Session) -> None:
    """Some clients escape the colon."""
    device, connection = await polled(session)
    await forwarded(session, device, connection, 1, "%3A")


code_rule("polling.decoded", "`%3Aforward` is `:forward`", "5.3.18", operator=MUST)(decoded_forward)


async def unknown(session: Session) -> None:
    """Neither is there."""
    session.needs_answer_for_unknown_device()
    check_error(await session.http("POST", "/polled_connections", {"device_id": f"{session.token}-none"}), 404)
    check_error(await session.http("GET", "/polled_connections/none/messages"), 404)
    check_error(await session.http("POST", "/polled_connections/none/:forward", {"payload": 1}), 404)


code_rule(
    "polling.unknown", "an unknown device or connection is 404, with JSON", "5.3.10", "5.3.23", "5.3.24", operator=MUST
)(unknown)


async def connection_ids(session: Session) -> None:
    """128 bits take 22 characters of Base64."""
    session.needs_several_clients()
    await session.device()
    found: list[str] = []
    for _ in range(4):
        answer = await post(session, "/polled_connections", {"device_id": f"{session.token}-a"})
        body = answer.json
        found.append(str(body.get("connection_id", "")) if isinstance(body, dict) else "")
    if min(map(len, found)) < 22 or len(set(found)) < len(found):
        expected = "128 random bits, 22 characters or more"
        raise Failed("connection ids can be guessed", expected=expected, heard=compact(found), stage="http")


code_rule("polling.ids", "connection ids are long, and never the same", "5.3.29", operator=MUST)(connection_ids)


async def judged(session: Session) -> None:
    """A body without a payload, and one that is not JSON."""
    _, connection = await polled(session)
    bodies: tuple[Any, ...] = ({}, b"{")
    for body in bodies:
        check_error(await session.http("POST", f"/polled_connections/{connection}/:forward", body), 400)


code_rule("polling.judged", "a forward is judged before it is answered", "5.3.22", "5.3.32", operator=SHOULD)(judged)


async def wait(session: Session) -> None:
    """The message comes after the request."""
    device, connection = await polled(session)
    client_id = await forwarded(session, device, connection, 0)
    path = f"/polled_connections/{connection}/messages?start=0&wait=30"
    asked = session.start(session.http("GET", path))
    await get(session, "/infra_config")  # The poll was sent before it.
    await device.say({"message_type": "forward", "client_id": client_id, "payload": 1})
    check_body(await asked, device_msgs(1))


code_rule("polling.wait", "with `wait=SECONDS` a poll is held until there is a message", "5.3.17", strict=MAY)(wait)


async def reference(session: Session) -> None:
    """`/connect`, `/forward` and `/poll_messages`."""
    device = await session.device(info=1)
    answer = await post(session, "/connect", {"device_id": f"{session.token}-a"})
    body = answer.json
    if not isinstance(body, dict) or body.get("device_info") != 1 or "connection_id" not in body:
        expected = '{"connection_id":"...","message_type":"device_info","device_info":1}'
        raise Failed("the answer is another one", expected=expected, heard=str(answer), stage="http")
    connection = {"connection_id": body["connection_id"]}
    check_body(await post(session, "/forward", {**connection, "payload": "x"}), [])
    client_id = (await device.expect_type("client_msg"))["client_id"]
    await device.say({"message_type": "forward", "client_id": client_id, "payload": ["y"]})
    await device.ping()
    check_body(await post(session, "/poll_messages", connection), [["y"]])


code_rule("polling.reference", "the polling of the reference server works", "5.3.20", "5.3.21", reference=MUST)(
    reference
)


async def reference_errors(session: Session) -> None:
    """An unknown device and an unknown connection."""
    session.needs_answer_for_unknown_device()
    device_id = f"{session.token}-none"
    text = f"Connection failed: Device not found: '{device_id}'"
    check_error(await session.http("POST", "/connect", {"device_id": device_id}), 404, error=text, type="error")
    answer = await session.http("POST", "/poll_messages", {"connection_id": "none"})
    check_error(answer, 401, error="Error: Unknown connection ID", type="error")


code_rule(
    "polling.reference-errors", "errors of the reference's polling have its texts", "5.3.24", "5.3.28", reference=SHOULD
)(reference_errors)
