"""The transport of the small signaling server: HTTP/1.1 and WebSocket on asyncio's streams."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from cuttlefish_signaling._raw_json import RawJson

from small_hub import Client, Device, PolledClient, Refusal, Session, SmallHub, compact, envelope

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Request:
    """The head of a request."""

    def __init__(self, head: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = line.split(" ", 2)
        self.headers = {key.strip().lower(): value.strip() for key, _, value in (one.partition(":") for one in lines)}
        parts = urlsplit(self.target)
        self.path = unquote(parts.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}

    def has(self, name: str, member: str) -> bool:
        """Whether a list has a member."""
        return member in [one.strip().lower() for one in self.headers.get(name, "").split(",")]


class HttpError(Exception):
    """A response that is an error."""

    def __init__(self, status: int, text: str, **more: str) -> None:
        super().__init__(text)
        self.status = status
        self.body = envelope(error=text, **more)


class WebSocketLink:
    """A WebSocket connection of the server."""

    def __init__(self, server: SmallServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_cuttlefish = False
        self.protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=server.hub.max_message_size)
        self._reader, self._writer = reader, writer
        self._pongs: list[asyncio.Future[None]] = []
        self.server = server

    def send(self, text: str) -> None:
        if self.protocol.state is State.OPEN:
            self.server.send_text(self, text)
            self.flush()

    def close(self, code: int, reason: str) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(code, reason.encode()[:123].decode("utf-8", "ignore"))
            self.flush()

    async def answers(self, timeout: float) -> bool:
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        if self.protocol.state is State.OPEN:
            self.protocol.send_ping(b"probe")
            self.flush()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(pong, timeout)
        return pong.done() and not pong.cancelled()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif not self._writer.is_closing():
                self._writer.close()

    async def run(self, session: Session) -> None:
        """Reads until the end of the connection."""
        timer = asyncio.get_running_loop().call_later(self.server.hub.first_message_timeout, session.on_silence)
        try:
            parts: list[bytes] = []
            while data := await self._reader.read(65536):
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    assert isinstance(event, Frame)
                    await self._on_frame(session, event, parts)
                self.flush()
        finally:
            timer.cancel()
            session.leave()
            self._writer.transport.abort()

    async def _on_frame(self, session: Session, frame: Frame, parts: list[bytes]) -> None:
        self.flush()
        if frame.opcode is Opcode.PONG:
            for pong in self._pongs:
                if not pong.done():
                    pong.set_result(None)
        elif frame.opcode is Opcode.CLOSE:
            session.leave()
        elif frame.opcode is Opcode.BINARY:
            session.refuse(Refusal("Received a binary message", 1003))
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            parts.append(bytes(frame.data))
            if frame.fin:
                data, parts[:] = b"".join(parts), []
                await self._on_data(session, data)

    async def _on_data(self, session: Session, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.protocol.fail(1007, "invalid UTF-8")
            return
        await session.on_text(text)


class SmallServer:
    """HTTP and WebSocket on a free port."""

    def __init__(self) -> None:
        self.hub = SmallHub()
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Runs it; the URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"ws://127.0.0.1:{self.port}"
        finally:
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, with one request."""
        try:
            request = Request((await reader.readuntil(b"\r\n\r\n"))[:-4])
            session = self.session_of(request, link := WebSocketLink(self, reader, writer))
            if session is not None:
                writer.write(self.accept(request, link, session))
                if isinstance(session, Client):
                    session.open()
                await link.run(session)
                return
            status, body = 200, await self.answer(request, reader)
        except HttpError as error:
            status, body = error.status, error.body
        except Refusal as refusal:
            status, body = 400, envelope(error=refusal.text)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode())
        await writer.drain()

    # The opening handshake --------------------------------------------------------------------------------------------

    def session_of(self, request: Request, link: WebSocketLink) -> Session | None:
        """The session of a WebSocket path; None for another path."""
        self.check_version(request)
        self.check_host(request)
        device = request.path.removeprefix("/devices/").removesuffix("/connect")
        is_bare = request.path == f"/devices/{device}/connect"
        if request.path not in ("/register_device", "/connect_client") and not is_bare:
            return None
        self.check_upgrade(request)
        self.check_origin(request)
        if request.path == "/register_device":
            link.is_cuttlefish = request.has("sec-websocket-protocol", "webrtc-operator")
            return self.hub.device_class(self.hub, link)
        return self.hub.client_class(self.hub, link, device if is_bare else None)

    def check_version(self, request: Request) -> None:
        if request.version != "HTTP/1.1":
            raise HttpError(505, "HTTP/1.1 only")

    def check_host(self, request: Request) -> None:
        if "host" not in request.headers:
            raise HttpError(400, "no Host")

    def check_upgrade(self, request: Request) -> None:
        if not request.has("upgrade", "websocket"):
            raise HttpError(426, "WebSocket only")
        if "sec-websocket-key" not in request.headers or request.headers.get("sec-websocket-version") != "13":
            raise HttpError(400, "invalid upgrade")
        if not request.has("connection", "upgrade"):
            raise HttpError(400, "invalid upgrade")

    def check_origin(self, request: Request) -> None:
        origin, host = request.headers.get("origin"), request.headers["host"]
        own = urlsplit(origin or "").netloc
        if request.path == "/register_device":
            own, host = own.rpartition(":")[0], host.rpartition(":")[0]
        if origin is not None and own != host:
            raise HttpError(403, "foreign origin")

    def accept(self, request: Request, link: WebSocketLink, session: Session) -> bytes:
        """The response that opens the WebSocket."""
        key = request.headers["sec-websocket-key"] + GUID
        lines = ["HTTP/1.1 101 X", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append(f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()}")
        lines += self.accepted_headers(request)
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def accepted_headers(self, request: Request) -> list[str]:
        """The sub-protocol, if the peer offered it."""
        if request.has("sec-websocket-protocol", "webrtc-operator"):
            return ["Sec-WebSocket-Protocol: webrtc-operator"]
        return []

    def send_text(self, link: WebSocketLink, text: str) -> None:
        link.protocol.send_text(text.encode("utf-8", "surrogatepass"))

    # HTTP -------------------------------------------------------------------------------------------------------------

    async def answer(self, request: Request, reader: asyncio.StreamReader) -> str:
        """The body of an answer with status 200. Raises HttpError."""
        match [request.method, *request.path.strip("/").split("/")]:
            case ["GET", "infra_config"]:
                return self.hub.config()
            case [_, "infra_config"]:
                raise HttpError(405, "GET only")
            case ["GET", "devices"]:
                return self.devices(request)
            case ["GET", "devices", device_id]:
                return self.device(device_id)
            case ["GET", "polled_connections", client_id, "messages"]:
                return await self.messages(self.polled(client_id), request)
            case ["POST", *path]:
                return await self.post(path, await self.body(request, reader))
        raise HttpError(404, "not found")

    async def body(self, request: Request, reader: asyncio.StreamReader) -> dict[str, RawJson]:
        length = int(request.headers.get("content-length", "0"))
        if length > self.hub.max_message_size:
            raise HttpError(413, "too large")
        return self.hub.parse((await reader.readexactly(length)).decode())

    def devices(self, request: Request) -> str:
        if request.query.get("format") == "ids":
            return compact(sorted(self.hub.devices))
        group = request.query.get("groupId")
        listed = [{"device_id": one.id, "group_name": self.group(one)} for one in self.hub.devices.values()]
        return compact(self.ordered([one for one in listed if not group or one["group_name"] == group]))

    def ordered(self, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(listed, key=lambda one: str(one["device_id"]))

    def group(self, device: Device) -> str:
        info = device.info.value
        return str(info.get("group_id", "")) if isinstance(info, dict) else ""

    def device(self, device_id: str) -> str:
        if device_id not in self.hub.devices:
            raise HttpError(404, "Device not found")
        return envelope(device_id=device_id, group_name="", registration_info=self.hub.devices[device_id].info)

    def polled(self, client_id: str) -> PolledClient:
        if client_id not in self.hub.polled:
            raise HttpError(404, "Unknown connection")
        return self.hub.polled[client_id]

    async def messages(self, client: PolledClient, request: Request) -> str:
        start, count = request.query.get("start") or None, request.query.get("count") or None
        first = None if start is None else int(start)
        if first is not None and first < client.begin:
            raise HttpError(410, "gone")
        if client.device is None and not client.pending:
            raise HttpError(404, "Device disconnected")
        if not client.pending and "wait" in request.query:
            arrived = asyncio.Event()
            client.on_arrival = arrived.set
            await asyncio.wait_for(arrived.wait(), float(request.query["wait"]))
        found = client.take(first, None if count in (None, "-1") else int(str(count)))
        return "[" + ",".join(map(self.hub.device_msg, found)) + "]"

    async def post(self, path: list[str], body: dict[str, RawJson]) -> str:
        match path:
            case ["polled_connections"]:
                return self.connect(body, reference=False)
            case ["polled_connections", client_id, ":forward"]:
                client = self.polled(client_id)
                if "payload" not in body:
                    raise HttpError(400, "Forward failed: No payload present in message")
                client.forward(body["payload"])
                return compact("ok")
            case ["connect"]:
                return self.connect(body, reference=True)
            case ["forward" | "poll_messages" as action]:
                client = self.reference_client(body)
                if action == "forward":
                    client.forward(body["payload"])
                found = client.take(None, None)
                client.take(client.begin + len(found), None)
                return "[" + ",".join(found) + "]"
        raise HttpError(404, "not found")

    def reference_client(self, body: dict[str, RawJson]) -> PolledClient:
        client = self.hub.polled.get(json.loads(body.get("connection_id", RawJson('""'))))
        if client is None:
            raise HttpError(401, "Error: Unknown connection ID", type="error")
        return client

    def connect(self, body: dict[str, RawJson], *, reference: bool) -> str:
        device_id = body["device_id"].value
        if device_id not in self.hub.devices:
            if reference:
                text = f"Connection failed: Device not found: '{device_id}'"
                raise HttpError(404, text, type="error")
            raise HttpError(404, "Device not found")
        client = self.hub.polled_class(self.hub, device_id)
        more = {"message_type": "device_info"} if reference else {}
        return envelope(connection_id=client.id, device_info=self.hub.devices[device_id].info, **more)
