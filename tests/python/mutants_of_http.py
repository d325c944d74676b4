"""Mutants whose HTTP or polling are wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cuttlefish_signaling._raw_json import RawJson

from mutants import mutant
from small_hub import PolledClient, compact, envelope
from small_server import HttpError, Request, SmallServer

# HTTP -----------------------------------------------------------------------------------------------------------------


@mutant("5.3.1")
def infra_config_is_a_list(server: SmallServer) -> None:
    before = server.answer

    async def answer(request: Request, reader: asyncio.StreamReader) -> str:
        if request.path == "/infra_config" and request.method == "GET":
            return compact(server.hub.ice_servers)
        return await before(request, reader)

    server.answer = answer  # type: ignore[method-assign]


@mutant("5.3.2")
def devices_are_not_sorted(server: SmallServer) -> None:
    server.ordered = lambda listed: listed  # type: ignore[method-assign]


@mutant("5.3.4", "5.3.2")
def devices_have_no_group_name(server: SmallServer) -> None:
    server.group = lambda _: None  # type: ignore[method-assign, assignment, return-value]


@mutant("5.3.4")
def the_filter_of_devices_is_ignored(server: SmallServer) -> None:
    before = server.devices

    def devices(request: Request) -> str:
        request.query.pop("groupId", None)
        return before(request)

    server.devices = devices  # type: ignore[method-assign]


@mutant("5.3.5")
def the_format_of_devices_is_ignored(server: SmallServer) -> None:
    before = server.devices

    def devices(request: Request) -> str:
        request.query.pop("format", None)
        return before(request)

    server.devices = devices  # type: ignore[method-assign]


@mutant("5.3.6")
def a_device_has_no_registration_info(server: SmallServer) -> None:
    server.device = lambda device_id: envelope(device_id=device_id, group_name="")  # type: ignore[method-assign]


@mutant("5.3.27", sign=r"JSON")
def errors_are_plain_text(server: SmallServer) -> None:
    before = server.answer

    async def answer(request: Request, reader: asyncio.StreamReader) -> str:
        try:
            return await before(request, reader)
        except HttpError as error:
            error.body = str(error)
            raise

    server.answer = answer  # type: ignore[method-assign]


@mutant("5.3.27")
def a_wrong_method_is_404(server: SmallServer) -> None:
    before = server.answer

    async def answer(request: Request, reader: asyncio.StreamReader) -> str:
        if request.method == "DELETE":
            raise HttpError(404, "not found")
        return await before(request, reader)

    server.answer = answer  # type: ignore[method-assign]


@mutant("5.3.26")
def a_large_body_is_waited_for(server: SmallServer) -> None:
    async def body(request: Request, reader: asyncio.StreamReader) -> dict[str, RawJson]:
        data = await reader.readexactly(int(request.headers.get("content-length", "0")))
        return server.hub.parse(data.decode())

    server.body = body  # type: ignore[method-assign]


# Polled clients -------------------------------------------------------------------------------------------------------


@mutant("5.3.12", sign=r'"device_msg"')
def messages_are_taken_by_the_first_poll(server: SmallServer) -> None:
    class Taking(PolledClient):
        def take(self, start: int | None, count: int | None) -> list[RawJson]:
            found = super().take(start, count)
            self.begin += len(found)
            del self.pending[: len(found)]
            return found

    server.hub.polled_class = Taking


@mutant("5.3.14")
def acknowledged_messages_are_empty(server: SmallServer) -> None:
    before = server.messages

    async def messages(client: PolledClient, request: Request) -> str:
        try:
            return await before(client, request)
        except HttpError as error:
            if error.status == 410:
                return "[]"
            raise

    server.messages = messages  # type: ignore[method-assign]


@mutant("5.3.15")
def empty_queries_are_400(server: SmallServer) -> None:
    before = server.messages

    async def messages(client: PolledClient, request: Request) -> str:
        if "" in request.query.values() or request.query.get("count") == "-1":
            raise HttpError(400, "not a number")
        return await before(client, request)

    server.messages = messages  # type: ignore[method-assign]


@mutant("5.3.16")
def polls_are_empty_when_the_device_left(server: SmallServer) -> None:
    before = server.messages

    async def messages(client: PolledClient, request: Request) -> str:
        return "[]" if client.device is None else await before(client, request)

    server.messages = messages  # type: ignore[method-assign]


@mutant("5.3.18")
def the_colon_of_forward_is_not_decoded(server: SmallServer) -> None:
    before = server.answer

    async def answer(request: Request, reader: asyncio.StreamReader) -> str:
        if "%3A" in request.target:
            raise HttpError(404, "not found")
        return await before(request, reader)

    server.answer = answer  # type: ignore[method-assign]


@mutant("5.3.24")
def an_unknown_connection_is_401(server: SmallServer) -> None:
    def polled(client_id: str) -> PolledClient:
        if client_id not in server.hub.polled:
            raise HttpError(401, "Unknown connection")
        return server.hub.polled[client_id]

    server.polled = polled  # type: ignore[method-assign]


@mutant("5.3.29")
def connection_ids_are_counted(server: SmallServer) -> None:
    class Counted(PolledClient):
        count = 0

        def __init__(self, hub: Any, device_id: str) -> None:
            super().__init__(hub, device_id)
            Counted.count += 1
            del hub.polled[self.id]
            self.id = f"{id(server)}-{Counted.count}"
            hub.polled[self.id] = self

    server.hub.polled_class = Counted


@mutant("5.3.32")
def a_polled_forward_is_always_ok(server: SmallServer) -> None:
    before = server.post

    async def post(path: list[str], body: dict[str, RawJson]) -> str:
        return compact("ok") if "payload" not in body and path[-1] == ":forward" else await before(path, body)

    server.post = post  # type: ignore[method-assign]


@mutant("5.3.21")
def polls_of_the_reference_have_envelopes(server: SmallServer) -> None:
    before = server.post

    async def post(path: list[str], body: dict[str, RawJson]) -> str:
        text = await before(path, body)
        if path == ["poll_messages"]:
            return "[" + ",".join(map(server.hub.device_msg, map(RawJson, map(compact, json.loads(text))))) + "]"
        return text

    server.post = post  # type: ignore[method-assign]


@mutant("5.3.28")
def errors_of_the_reference_are_those_of_today(server: SmallServer) -> None:
    def reference_client(body: dict[str, RawJson]) -> PolledClient:
        return server.polled(json.loads(body["connection_id"]))

    server.reference_client = reference_client  # type: ignore[method-assign]
