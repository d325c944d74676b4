"""Mutants whose opening handshake or frames are wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.frames import Frame, Opcode

from mutants import mutant
from small_hub import Client, Refusal, Session
from small_server import HttpError, Request, SmallServer, WebSocketLink

# The opening handshake ------------------------------------------------------------------------------------------------


@mutant("1.3", sign=r"404|101")
def only_devices_have_an_endpoint(server: SmallServer) -> None:
    before = server.session_of

    def session_of(request: Request, link: WebSocketLink) -> Session | None:
        return None if request.path == "/connect_client" and "x-old" not in request.headers else before(request, link)

    server.session_of = session_of  # type: ignore[method-assign]


@mutant("3.4")
def a_query_is_part_of_the_path(server: SmallServer) -> None:
    before = server.session_of

    def session_of(request: Request, link: WebSocketLink) -> Session | None:
        request.path += "?" if "conform" in request.query else ""
        return before(request, link)

    server.session_of = session_of  # type: ignore[method-assign]


@mutant("5.3.18")
def paths_are_matched_as_they_are_sent(server: SmallServer) -> None:
    before = server.session_of

    def session_of(request: Request, link: WebSocketLink) -> Session | None:
        request.path = request.target.partition("?")[0]
        return before(request, link)

    server.session_of = session_of  # type: ignore[method-assign]


@mutant("5.3.27", "3.6")
def an_unknown_path_is_400(server: SmallServer) -> None:
    before = server.answer

    async def answer(request: Request, reader: asyncio.StreamReader) -> str:
        try:
            return await before(request, reader)
        except HttpError as error:
            raise HttpError(400, "bad request") if str(error) == "not found" else error from None

    server.answer = answer  # type: ignore[method-assign]


@mutant("3.6")
def a_plain_get_is_400(server: SmallServer) -> None:
    before = server.check_upgrade

    def check_upgrade(request: Request) -> None:
        if not request.has("upgrade", "websocket"):
            raise HttpError(400, "WebSocket only")
        before(request)

    server.check_upgrade = check_upgrade  # type: ignore[method-assign]


@mutant("3.6")
def a_bad_upgrade_is_accepted(server: SmallServer) -> None:
    before = server.check_upgrade

    def check_upgrade(request: Request) -> None:
        request.headers.setdefault("sec-websocket-key", "")
        request.headers["sec-websocket-version"] = "13"
        before(request)

    server.check_upgrade = check_upgrade  # type: ignore[method-assign]


@mutant("3.15")
def headers_are_no_lists(server: SmallServer) -> None:
    before = server.check_upgrade

    def check_upgrade(request: Request) -> None:
        if request.headers.get("connection", "upgrade").lower() != "upgrade":
            raise HttpError(400, "invalid upgrade")
        before(request)

    server.check_upgrade = check_upgrade  # type: ignore[method-assign]


@mutant("3.14")
def host_is_not_needed(server: SmallServer) -> None:
    def check_host(request: Request) -> None:
        request.headers.setdefault("host", "127.0.0.1")

    server.check_host = check_host  # type: ignore[method-assign]


@mutant("3.2")
def http_2_is_400(server: SmallServer) -> None:
    def check_version(request: Request) -> None:
        if request.version != "HTTP/1.1":
            raise HttpError(400, "bad request")

    server.check_version = check_version  # type: ignore[method-assign]


@mutant("3.7")
def no_subprotocol_is_selected(server: SmallServer) -> None:
    server.accepted_headers = lambda request: []  # type: ignore[method-assign]


@mutant("3.7")
def any_subprotocol_is_selected(server: SmallServer) -> None:
    def accepted_headers(request: Request) -> list[str]:
        offered = request.headers.get("sec-websocket-protocol", "")
        return [f"Sec-WebSocket-Protocol: {offered.split(',')[-1].strip()}"] if offered else []

    server.accepted_headers = accepted_headers  # type: ignore[method-assign]


@mutant("3.8")
def compression_is_used(server: SmallServer) -> None:
    before = server.accepted_headers

    def accepted_headers(request: Request) -> list[str]:
        has = "permessage-deflate" in request.headers.get("sec-websocket-extensions", "")
        return before(request) + (["Sec-WebSocket-Extensions: permessage-deflate"] if has else [])

    server.accepted_headers = accepted_headers  # type: ignore[method-assign]


@mutant("3.10")
def any_page_may_be_a_device(server: SmallServer) -> None:
    before = server.check_origin
    server.check_origin = (  # type: ignore[method-assign]
        lambda request: None if request.path == "/register_device" else before(request)
    )


@mutant("3.13")
def any_page_may_be_a_client(server: SmallServer) -> None:
    before = server.check_origin
    server.check_origin = (  # type: ignore[method-assign]
        lambda request: None if request.path != "/register_device" else before(request)
    )


@mutant("3.9")
def devices_with_an_origin_are_refused(server: SmallServer) -> None:
    before = server.check_origin

    def check_origin(request: Request) -> None:
        if request.path == "/register_device" and "origin" in request.headers:
            raise HttpError(403, "no pages")
        before(request)

    server.check_origin = check_origin  # type: ignore[method-assign]


# Frames ---------------------------------------------------------------------------------------------------------------


def linked(server: SmallServer, change: Any) -> None:
    """Changes each WebSocket connection."""
    before = server.accept

    def accept(request: Request, link: WebSocketLink, session: Session) -> bytes:
        change(link)
        return before(request, link, session)

    server.accept = accept  # type: ignore[method-assign]


@mutant("3.12")
def pings_are_not_answered(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        send = link.protocol.send_frame

        def send_frame(frame: Frame) -> None:
            if frame.opcode is not Opcode.PONG:
                send(frame)

        link.protocol.send_frame = send_frame  # type: ignore[method-assign]

    linked(server, change)


@mutant("3.12")
def pongs_have_other_data(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        send = link.protocol.send_frame

        def send_frame(frame: Frame) -> None:
            send(Frame(Opcode.PONG, b"other") if frame.opcode is Opcode.PONG and frame.data == b"conform" else frame)

        link.protocol.send_frame = send_frame  # type: ignore[method-assign]

    linked(server, change)


@mutant("2.8")
def large_messages_come_in_fragments(server: SmallServer) -> None:
    before = server.send_text

    def send_text(link: WebSocketLink, text: str) -> None:
        if len(text) < 60_000:
            before(link, text)
            return
        link.protocol.send_text(text[:30_000].encode(), fin=False)
        link.protocol.send_continuation(text[30_000:].encode(), fin=True)

    server.send_text = send_text  # type: ignore[method-assign]


@mutant("4.3.6")
def fragments_are_messages(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        before = link._on_frame

        async def on_frame(session: Session, frame: Frame, parts: list[bytes]) -> None:
            frame.fin = True
            await before(session, frame, parts)

        link._on_frame = on_frame  # type: ignore[method-assign]

    linked(server, change)


@mutant("4.3.7", "4.3.6")
def sizes_are_not_limited(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        link.protocol.max_message_size = link.protocol.max_fragment_size = None

    linked(server, change)


@mutant("4.3.6")
def fragments_are_not_counted(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        link.protocol.max_message_size = None
        link.protocol.max_fragment_size = 262_144

    linked(server, change)


@mutant("4.3.5")
def binary_messages_are_texts(server: SmallServer) -> None:
    def change(link: WebSocketLink) -> None:
        before = link._on_frame

        async def on_frame(session: Session, frame: Frame, parts: list[bytes]) -> None:
            if frame.opcode == 2:
                await link._on_data(session, bytes(frame.data))
                return
            await before(session, frame, parts)

        link._on_frame = on_frame  # type: ignore[method-assign]

    linked(server, change)


@mutant("2.7")
def an_invalid_frame_ends_all_connections(server: SmallServer) -> None:
    links: list[WebSocketLink] = []

    def change(link: WebSocketLink) -> None:
        links.append(link)
        receive = link.protocol.receive_data

        def receive_data(data: bytes | bytearray) -> None:
            receive(data)
            if data[:1] == b"\x83":
                for one in links:
                    one.close(1011, "")

        link.protocol.receive_data = receive_data  # type: ignore[method-assign]

    linked(server, change)


# Clients whose request names the device -------------------------------------------------------------------------------


@mutant("5.3.7", sign=r'\| .*"message_type":"config"')
def bare_clients_get_config_first(server: SmallServer) -> None:
    class WithConfig(Client):
        def open(self) -> None:
            if self.of is not None:
                self.link.send(self.hub.config())
            super().open()

    server.hub.client_class = WithConfig


@mutant("5.3.8")
def bare_clients_speak_envelopes(server: SmallServer) -> None:
    class Enveloped(Client):
        async def on_message(self, text: str) -> None:
            if self.of is not None and text.startswith('{"message_type"'):
                raise Refusal("Unknown message type: connect", None)
            await super().on_message(text)

    server.hub.client_class = Enveloped
