"""`server_connector.js` in a real browser, on a page that uses it as Cuttlefish's own page does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from farms import Place, one_server, two_nodes
from playwright.sync_api import Browser, Page, sync_playwright
from ports import free_port

from cuttlefish_signaling import IceServer, Limits, Refused, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice
from cuttlefish_signaling.testing._engine import MISSING, find_engine

from browsers import CHROMIUM, FLAGS
from peers import PATIENCE

PAGES = Path(__file__).with_name("pages")

WITHOUT_WEBSOCKET = {
    "websocket": "",
    "no-websocket": "delete window.WebSocket;",
    # A proxy that does not forward upgrades.
    "websocket-fails": """
        window.WebSocket = class extends EventTarget {
          constructor() {
            super();
            setTimeout(() => this.onclose?.({ code: 1006, reason: '' }));
          }
        };
    """,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=WITHOUT_WEBSOCKET)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page with or without WebSocket, not loaded yet."""
    yield from open_page(browser, WITHOUT_WEBSOCKET[request.param])


@pytest.fixture
def plain_page(browser: Browser) -> Iterator[Page]:
    yield from open_page(browser, "")


@pytest.fixture
def polling_page(browser: Browser) -> Iterator[Page]:
    yield from open_page(browser, WITHOUT_WEBSOCKET["no-websocket"])


def open_page(browser: Browser, script: str) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    if script:
        page.add_init_script(script)
    yield page
    context.close()


needs_engine = pytest.mark.skipif(find_engine() is None, reason=MISSING)


@pytest.fixture(params=[one_server, pytest.param(two_nodes, marks=needs_engine)])
def place(request: pytest.FixtureRequest) -> Place:
    """One server, or two nodes."""
    made: Place = request.param
    return made


def load(page: Page, server: SignalingServer, path: str = "/client.html?deviceId=cvd-1") -> Page:
    page.goto(server.url + path)
    page.wait_for_function("() => window.ready")
    return page


def outcome(page: Page, expression: str) -> Any:
    return page.evaluate(f"() => outcome({expression})")


def received(page: Page, count: int) -> Any:
    """The messages that the page has received, when there are this many."""
    page.wait_for_function("(count) => heard.length >= count", arg=count)
    return page.evaluate("() => heard.splice(0)")


def test_messages_pass_in_order_in_both_directions(page: Page, place: Place) -> None:
    servers = [IceServer("stun:s.lab")]
    with (
        place(assets_dir=PAGES, ice_servers=servers) as (server, of_device),
        FakeDevice(of_device, "cvd-1", info={"n": [1]}) as device,
    ):
        load(page, server)
        found = outcome(page, "connect()")["value"]
        assert found["deviceInfo"] == {"n": [1]}
        assert found["infraConfig"]["ice_servers"] == [{"urls": ["stun:s.lab"]}]
        page.evaluate("() => connector.expectMessagesSoon(5000)")
        # Sent at the same time, received in order.
        sent = page.evaluate("() => Promise.all(Array.from({length: 20}, (_, n) => send({type: 'n', n})))")
        assert sent == [{"value": None}] * 20
        assert [device.recv(PATIENCE).payload["n"] for _ in range(20)] == list(range(20))
        for n in range(20):
            device.send({"n": n, "text": "\u00e9\u2028"})
        assert received(page, 20) == [{"n": n, "text": "\u00e9\u2028"} for n in range(20)]
        device.send(None)
        assert received(page, 1) == [None]
        assert page.evaluate("() => states") == ["connected"]


def test_connect_waits_for_device(page: Page, place: Place) -> None:
    with place(assets_dir=PAGES, device_wait_timeout=PATIENCE) as (server, of_device):
        load(page, server)
        page.evaluate("() => { window.coming = outcome(connect()) }")
        server.wait_for_client("cvd-1", waiting=True, timeout=PATIENCE)
        with FakeDevice(of_device, "cvd-1", info="here"):
            assert page.evaluate("() => coming")["value"]["deviceInfo"] == "here"


def test_connect_to_unknown_device_is_error(page: Page, place: Place) -> None:
    with place(assets_dir=PAGES) as (server, of_device):
        load(page, server)
        assert "Device not found" in outcome(page, "connect('unknown')")["error"]
        assert "Device not found" in page.evaluate("() => send(1)")["error"]
        with FakeDevice(of_device, "cvd-1", info="here"):
            assert outcome(page, "connect()")["value"]["deviceInfo"] == "here"


def test_refused_client_is_error(page: Page) -> None:
    def authorize(context: Any) -> None:
        if context.role == "client":
            raise Refused("no clients today")

    with SignalingServer(assets_dir=PAGES, authorize=authorize) as server:
        load(page, server)
        assert outcome(page, "connect()") == {"error": "no clients today"}


def test_send_before_connect_is_error(plain_page: Page) -> None:
    with SignalingServer(assets_dir=PAGES) as server:
        load(plain_page, server)
        said = plain_page.evaluate("""async () => {
          const { createConnector } = await import('/js/server_connector.js');
          return outcome((await createConnector()).sendToDevice(1));
        }""")
        assert said == {"error": "no device was requested"}


def test_reconnects_when_device_returns(page: Page, place: Place) -> None:
    with place(assets_dir=PAGES) as (server, of_device):
        load(page, server)
        with FakeDevice(of_device, "cvd-1") as device:
            assert "value" in outcome(page, "connect()")
            device.send("last", 1)
            assert received(page, 1) == ["last"]
        page.wait_for_function("() => states.includes('reconnecting')")
        assert page.evaluate("() => send(1)") == {"error": "Device disconnected"}
        with FakeDevice(of_device, "cvd-1") as device:
            page.wait_for_function("() => states.at(-1) === 'connected'")
            assert "value" in page.evaluate("() => send('again')")
            assert device.recv(PATIENCE).payload == "again"
            device.send("welcome back")
            assert received(page, 1) == ["welcome back"]


def test_reconnects_after_server_restart(page: Page) -> None:
    port = free_port()
    with SignalingServer(assets_dir=PAGES, port=port) as server:
        load(page, server)
        with FakeDevice(server, "cvd-1", profile="current", backoff=0.05) as device:
            assert "value" in outcome(page, "connect()")
            server.stop()
            page.evaluate("() => { window.sent = send('sent while down') }")
            with SignalingServer(assets_dir=PAGES, port=port) as server:
                if page.evaluate("() => 'WebSocket' in window && String(WebSocket).includes('native')"):
                    assert "value" in page.evaluate("() => sent")
                else:
                    # A request that failed may have arrived: only the page knows whether to repeat it.
                    again = "async () => (await sent).error ? send('sent while down') : sent"
                    assert "value" in page.evaluate(again)
                assert device.recv(PATIENCE).payload == "sent while down"
                device.wait_reconnected(1, PATIENCE)
                device.send("after restart", server.clients()[0].client_id)
                assert received(page, 1) == ["after restart"]


def test_reconnects_after_drain(page: Page) -> None:
    """The page's device is closed at once and the other one in an hour, so the page hears that the server stops."""
    port = free_port()
    with SignalingServer(assets_dir=PAGES, port=port, drain_spread=3600) as server:
        load(page, server)
        with FakeDevice(server, "cvd-1", profile="current", backoff=0.05) as device, FakeDevice(server, "cvd-2"):
            assert "value" in outcome(page, "connect()")
            stop = threading.Thread(target=server.stop)
            stop.start()
            page.wait_for_function("() => states.at(-1) === 'reconnecting'")
            page.evaluate("() => { window.sent = send('sent while it drains') }")
            server.clock.advance(3600)
            stop.join(PATIENCE)
            with SignalingServer(assets_dir=PAGES, port=port):
                assert "value" in page.evaluate("() => sent")
                assert device.recv(PATIENCE).payload == "sent while it drains"


# Failures that pass ---------------------------------------------------------------------------------------------------


def test_polled_link_survives_a_hook_that_fails_once(polling_page: Page) -> None:
    failed: list[str] = []

    def authorize(context: Any) -> None:
        if context.path.endswith("/messages") and not failed:
            failed.append(context.path)
            raise ValueError("once")

    with SignalingServer(assets_dir=PAGES, authorize=authorize) as server, FakeDevice(server, "cvd-1") as device:
        load(polling_page, server)
        assert "value" in outcome(polling_page, "connect()")
        device.send("after the failure", 1)
        assert received(polling_page, 1) == ["after the failure"]
        assert failed
        assert polling_page.evaluate("() => states") == ["connected"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_polled_link_survives_an_answer_of_a_proxy(polling_page: Page, status: int) -> None:
    answer = {"status": status, "json": {"error": "Try later"}}
    polling_page.route("**/messages?*", lambda route: route.fulfill(**answer), times=3)
    with SignalingServer(assets_dir=PAGES) as server, FakeDevice(server, "cvd-1") as device:
        load(polling_page, server)
        assert "value" in outcome(polling_page, "connect()")
        device.send("after the failures", 1)
        assert received(polling_page, 1) == ["after the failures"]
        assert polling_page.evaluate("() => states") == ["connected"]


def test_polled_message_that_failed_is_not_sent_again(polling_page: Page) -> None:
    sent: list[str] = []

    def fails_once(route: Any, request: Any) -> None:
        sent.append(request.post_data)
        route.fulfill(status=500, json={"error": "Internal error"})

    polling_page.route("**/:forward", fails_once, times=1)
    with SignalingServer(assets_dir=PAGES) as server, FakeDevice(server, "cvd-1") as device:
        load(polling_page, server)
        outcome(polling_page, "connect()")
        assert polling_page.evaluate("() => send('lost')") == {"error": "Internal error"}
        assert "value" in polling_page.evaluate("() => send('next')")
        assert device.recv(PATIENCE).payload == "next"
        assert len(sent) == 1


def assert_connects_again(page: Page, device: FakeDevice) -> None:
    page.wait_for_function("() => states.includes('reconnecting') && states.at(-1) === 'connected'")
    assert page.evaluate("() => states") == ["connected", "reconnecting", "connected"]
    assert "value" in page.evaluate("() => send('again')")
    assert device.recv(PATIENCE).payload == "again"
    device.send("welcome back", 2)
    page.wait_for_function("() => heard.at(-1) === 'welcome back'")


def test_page_that_read_too_slowly_connects_again(plain_page: Page) -> None:
    links: list[Any] = []

    def pass_on(link: Any) -> None:
        link.connect_to_server()
        links.append(link)

    plain_page.route_web_socket("**/connect_client", pass_on)
    with SignalingServer(assets_dir=PAGES) as server, FakeDevice(server, "cvd-1") as device:
        load(plain_page, server)
        assert "value" in outcome(plain_page, "connect()")
        links[0].close(code=1013, reason="slow consumer")
        assert_connects_again(plain_page, device)


def test_page_that_polled_too_slowly_connects_again(polling_page: Page) -> None:
    held: list[Any] = []
    polling_page.route("**/messages?*", lambda route: held.append(route), times=1)
    limits = Limits(max_message_size=1000, outbox_bytes=1000, outbox_budget=3000)
    with SignalingServer(assets_dir=PAGES, limits=limits) as server, FakeDevice(server, "cvd-1") as device:
        load(polling_page, server)
        assert "value" in outcome(polling_page, "connect()")
        for number in range(60):
            device.send(number, 1)
        device.recv(PATIENCE, message_type="client_disconnected")
        held[0].continue_()
        assert_connects_again(polling_page, device)
        assert server.stats().slow_consumers == 1


def test_device_in_use_is_error(page: Page) -> None:
    """It is closed with 1013 as well, and the user has to read why."""
    with SignalingServer(assets_dir=PAGES, one_client_per_device=True) as server, FakeDevice(server, "cvd-1"):
        load(page, server)
        with FakeClient(server, "cvd-1"):
            assert outcome(page, "connect()") == {"error": "Connection failed: Device in use: 'cvd-1'"}
        assert page.evaluate("() => states") == []


@pytest.mark.parametrize("throws", [False, True])
def test_callback_may_send_when_device_returns(page: Page, throws: bool) -> None:
    """An exception of the callback harms nothing."""
    with SignalingServer(assets_dir=PAGES) as server:
        load(page, server)
        with FakeDevice(server, "cvd-1"):
            assert "value" in outcome(page, "connect()")
        page.wait_for_function("() => states.includes('reconnecting')")
        page.evaluate(
            """(throws) => connector.onStateChange((state) => {
              if (state === 'connected') window.sent = send('at once');
              if (throws) throw new Error('mine');
            })""",
            throws,
        )
        with FakeDevice(server, "cvd-1") as device:
            page.wait_for_function("() => window.sent")
            assert "value" in page.evaluate("() => sent")
            assert device.recv(PATIENCE).payload == "at once"
            assert "value" in page.evaluate("() => send('later')")
            assert device.recv(PATIENCE).payload == "later"
            assert len(server.clients()) == 1


# The end --------------------------------------------------------------------------------------------------------------


def test_disconnect_client_closes_connector(plain_page: Page, place: Place) -> None:
    with place(assets_dir=PAGES) as (server, of_device), FakeDevice(of_device, "cvd-1"):
        load(plain_page, server)
        outcome(plain_page, "connect()")
        assert server.disconnect_client("cvd-1", 1)
        plain_page.wait_for_function("() => states.includes('disconnected')")
        assert plain_page.evaluate("() => send(1)") == {"error": "Disconnected by the server's operator"}


def test_close_ends_connection(plain_page: Page, place: Place) -> None:
    with place(assets_dir=PAGES) as (server, of_device), FakeDevice(of_device, "cvd-1") as device:
        load(plain_page, server)
        outcome(plain_page, "connect()")
        plain_page.evaluate("() => connector.close()")
        assert device.recv(PATIENCE, message_type="client_disconnected").client_id == 1
        assert plain_page.evaluate("() => send(1)") == {"error": "the connector was closed"}


def test_polls_pause_when_server_ignores_wait(browser: Browser) -> None:
    """The operator of Cuttlefish answers at once, also without messages."""
    asked: list[str] = []
    for page in open_page(browser, WITHOUT_WEBSOCKET["no-websocket"]):

        def without_wait(route: Any, request: Any) -> None:
            asked.append(request.url)
            route.continue_(url=request.url.split("&wait=")[0])

        page.route("**/messages?*", without_wait)
        with SignalingServer(assets_dir=PAGES) as server, FakeDevice(server, "cvd-1") as device:
            load(page, server)
            outcome(page, "connect()")
            page.evaluate("() => connector.expectMessagesSoon(10000)")
            for n in range(3):
                device.send(n, 1)
                assert received(page, 1) == [n]
            assert all("&wait=" in url for url in asked)
            assert len(asked) < 100, "polls without a pause"


def test_device_id_is_read_from_url(plain_page: Page) -> None:
    with SignalingServer(assets_dir=PAGES) as server:
        load(plain_page, server, "/client.html?deviceId=a%2Fb%20%C3%A9")
        assert plain_page.evaluate("() => deviceId()") == "a/b \u00e9"
        load(plain_page, server, "/client.html")
        said = plain_page.evaluate("() => { try { deviceId() } catch (error) { return String(error) } }")
        assert "expected /devices/ID/files/ or ?deviceId=ID" in said


def test_displays_are_posted_to_parent_page(plain_page: Page) -> None:
    with SignalingServer(assets_dir=PAGES) as server:
        plain_page.goto(server.url + "/around.html")
        frame = plain_page.frames[1]
        frame.wait_for_function("() => window.ready")
        frame.evaluate("() => tellDisplays()")
        plain_page.wait_for_function("() => posted.length")
        displays = [
            {"display_id": "display_0", "width": 720, "height": 1280},
            {"display_id": "display_1", "width": 600, "height": 400},
        ]
        payload = {"device_id": "cvd-1", "rotation": 90, "displays": displays}
        assert plain_page.evaluate("() => posted") == [{"origin": server.url, "payload": payload}]
