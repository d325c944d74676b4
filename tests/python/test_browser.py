"""A page in a real browser (Debian's chromium) uses the server with its own `WebSocket`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from farms import Farm
from playwright.sync_api import Page, sync_playwright

from cuttlefish_signaling import IceServer, SignalingServer, StaticTokens, Tls
from cuttlefish_signaling.testing._engine import MISSING, find_engine

from browsers import CHROMIUM, FLAGS
from peers import PATIENCE, SeqpacketPeer, peers_of

CLIENT = """
async ([url, deviceId]) => {
  const socket = new WebSocket(url);
  const heard = [];
  return await new Promise((resolve) => {
    socket.onopen = () => socket.send(JSON.stringify({message_type: "connect", device_id: deviceId}));
    socket.onmessage = ({data}) => {
      const message = JSON.parse(data);
      heard.push(message);
      if (message.message_type === "device_info")
        socket.send(JSON.stringify({message_type: "forward", payload: {type: "request-offer", n: 9007199254740991}}));
      if (message.message_type === "device_msg") socket.close(1000);
    };
    socket.onclose = ({code, reason}) => resolve({heard, code, reason, protocol: socket.protocol});
  });
}
"""


class Blank(BaseHTTPRequestHandler):
    """An empty page, so that the browser has an origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of another origin."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(f"http://127.0.0.1:{site.server_port}/")
            yield page
            browser.close()
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


def origin(page: Page) -> str:
    return str(page.evaluate("location.origin"))


@pytest.mark.parametrize("tls", [None, Tls.self_signed()], ids=["ws", "wss"])
def test_page_connects_as_client(page: Page, tls: Tls | None) -> None:
    with (
        SignalingServer(tls=tls, ice_servers=[IceServer("stun:s.lab")], allowed_origins=[origin(page)]) as server,
        peers_of(server) as peers,
    ):
        device = peers.device("cvd-1", {"displays": []})

        def answer() -> None:
            message = device.receive()
            device.send({"message_type": "forward", "client_id": message["client_id"], "payload": message["payload"]})

        answering = threading.Thread(target=answer)
        answering.start()
        outcome = page.evaluate(CLIENT, [server.client_url, "cvd-1"])
        answering.join(PATIENCE)
        assert outcome["heard"] == [
            {"message_type": "config", "ice_servers": [{"urls": ["stun:s.lab"]}]},
            {"message_type": "device_info", "device_info": {"displays": []}},
            {"message_type": "device_msg", "payload": {"type": "request-offer", "n": 9007199254740991}},
        ]
        assert (outcome["code"], outcome["protocol"]) == (1000, "")
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}


def test_page_connects_through_a_proxy(page: Page) -> None:
    allowed = [origin(page)]
    with (
        SignalingServer(allowed_origins=allowed) as behind,
        SignalingServer(upstream=behind.url, allowed_origins=allowed, tls=Tls.self_signed(), journal=True) as proxy,
        peers_of(behind) as peers,
    ):
        device = peers.device("cvd-1", {"displays": []})

        def answer() -> None:
            message = device.receive()
            device.send({"message_type": "forward", "client_id": message["client_id"], "payload": message["payload"]})

        answering = threading.Thread(target=answer)
        answering.start()
        outcome = page.evaluate(CLIENT, [proxy.client_url, "cvd-1"])
        answering.join(PATIENCE)
        assert [message["message_type"] for message in outcome["heard"]] == ["config", "device_info", "device_msg"]
        assert outcome["heard"][-1]["payload"] == {"type": "request-offer", "n": 9007199254740991}
        assert outcome["code"] == 1000
        assert proxy.stats().accepted == 2


@pytest.mark.skipif(find_engine() is None, reason=MISSING)
def test_page_on_one_node_uses_a_device_of_the_device_socket_of_another(page: Page, tmp_path: Path) -> None:
    with ExitStack() as stack:
        farm = Farm(stack, allowed_origins=[origin(page)])
        path = tmp_path / "operator"
        farm.node("host", device_socket=path)
        device = SeqpacketPeer(path)
        stack.callback(device.close)
        device.send({"message_type": "register", "device_id": "cvd-1", "device_info": {"displays": []}})
        assert device.receive()["message_type"] == "config"
        farm.b.wait_for_device("cvd-1", timeout=PATIENCE)

        def answer() -> None:
            message = device.receive()
            device.send({"message_type": "forward", "client_id": message["client_id"], "payload": message["payload"]})

        answering = threading.Thread(target=answer)
        answering.start()
        outcome = page.evaluate(CLIENT, [farm.b.client_url, "cvd-1"])
        answering.join(PATIENCE)
        assert [message["message_type"] for message in outcome["heard"]] == ["config", "device_info", "device_msg"]
        assert outcome["heard"][1]["device_info"] == {"displays": []}
        assert outcome["heard"][2]["payload"] == {"type": "request-offer", "n": 9007199254740991}
        assert outcome["code"] == 1000
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}


def test_page_receives_error_before_close(page: Page) -> None:
    with SignalingServer(allowed_origins=[origin(page)]) as server:
        outcome = page.evaluate(CLIENT, [server.client_url, "unknown"])
        assert [message.get("error") for message in outcome["heard"]] == [
            None,
            "Connection failed: Device not found: 'unknown'",
        ]
        assert outcome["code"] == 1008
        assert outcome["reason"] == "Connection failed: Device not found: 'unknown'"


def test_page_of_foreign_origin_is_refused(page: Page) -> None:
    """A foreign page in a browser must not reach the devices on that machine."""
    with SignalingServer() as server, peers_of(server) as peers:
        peers.device("cvd-1")
        for url in (server.client_url, server.client_url.replace("127.0.0.1", "localhost")):
            outcome = page.evaluate(CLIENT, [url, "cvd-1"])
            assert (outcome["heard"], outcome["code"]) == ([], 1006)
        for path in ("/devices", "/infra_config", "/healthz"):
            fetched = page.evaluate(
                "(url) => fetch(url).then(() => 'read', (error) => String(error))", server.url + path
            )
            assert fetched == "TypeError: Failed to fetch", path
        assert server.clients() == []
        assert server.stats().foreign == 5


@pytest.mark.parametrize("tag", ["img", "iframe"])
def test_image_of_other_site_is_refused(page: Page, tag: str) -> None:
    """Neither has an `Origin`. Each would hold the slot of a viewer for as long as the page is open."""
    with SignalingServer(dashboard=True) as server:
        url = server.url.replace("127.0.0.1", "localhost") + "/dashboard/events"
        page.evaluate(
            """([tag, url]) => new Promise((done) => {
              const element = document.createElement(tag);
              element.onload = element.onerror = done;
              element.src = url;
              document.body.append(element);
            })""",
            [tag, url],
        )
        assert server.stats().foreign == 1
        # The user may follow a link from the other site to the page.
        page.goto(server.url.replace("127.0.0.1", "localhost") + "/")
        assert page.title()
        page.go_back()


def test_page_sends_token_as_subprotocol(page: Page) -> None:
    """The `WebSocket` of a browser cannot set header fields."""
    tokens = StaticTokens({"s3cret": "alice"}, roles=["client"])
    with (
        SignalingServer(authorize=tokens, allowed_origins=[origin(page)]) as server,
        peers_of(server) as peers,
    ):
        device = peers.device("cvd-1")
        client = CLIENT.replace("new WebSocket(url)", 'new WebSocket(url, ["webrtc-operator", "bearer.TOKEN"])')
        wrong = page.evaluate(client.replace("TOKEN", "guess"), [server.client_url, "cvd-1"])
        assert (wrong["heard"], wrong["code"]) == ([], 1006)

        def answer() -> None:
            client_id = device.receive()["client_id"]
            assert server.clients()[0].identity == "alice"
            device.send({"message_type": "forward", "client_id": client_id, "payload": 1})

        answering = threading.Thread(target=answer)
        answering.start()
        right = page.evaluate(client.replace("TOKEN", "s3cret"), [server.client_url, "cvd-1"])
        answering.join(PATIENCE)
        assert (right["code"], right["protocol"]) == (1000, "webrtc-operator")
