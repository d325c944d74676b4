"""The pages of Cuttlefish itself, in chromium, from a checkout of github.com/google/android-cuttlefish.

    CUTTLEFISH_TREE=/path/to/android-cuttlefish .venv/bin/python -m pytest tests/python/test_cuttlefish_tree.py

The operator's page has to be built, in `frontend/src/operator/webui`, which needs Node.js:

    echo 'export const BUILD_VERSION = "";' > src/environments/version.ts
    npm ci --ignore-scripts && npx ng build --configuration development
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dashboard_page import until
from playwright.async_api import Page, Route, async_playwright

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.webrtc import WebRtcDevice

from browsers import CHROMIUM, FLAGS
from peers import PATIENCE, SeqpacketPeer

TREE = Path(os.environ.get("CUTTLEFISH_TREE", ""))
DEVICE_PAGE = TREE / "base/cvd/cuttlefish/host/frontend/webrtc/html_client"
OPERATOR_PAGE = TREE / "frontend/src/operator/webui/dist/static"

INFO = {
    "displays": [{"stream_id": "display_0", "x_res": 320, "y_res": 240, "dpi": 160, "is_touch": True}],
    "audio_streams": [],
    "hardware": {"CPUs": 2, "RAM": "4096 mb"},
    "custom_control_panel_buttons": [],
    "touchpads": [],
    "mouse_enabled": False,
    "gamepad_enabled": False,
    "bt_enabled": False,
}

pytestmark = pytest.mark.skipif(
    not os.environ.get("CUTTLEFISH_TREE"),
    reason="CUTTLEFISH_TREE names no checkout of google/android-cuttlefish",
)

JQUERY = """
window.$ = () => new Proxy({}, { get: (_, name) => (name === 'val' ? () => '' : () => window.$()) });
"""
"""The page takes jQuery from another host, which tests do not reach, and uses it to check input fields."""


KEEP_CONNECTIONS = """
const Original = RTCPeerConnection;
window.connections = [];
window.RTCPeerConnection = class extends Original {
  constructor(...options) { super(...options); window.connections.push(this); }
};
"""

DECODES_VIDEO = """
(async () => {
  for (const connection of window.connections)
    for (const report of (await connection.getStats()).values())
      if (report.type === 'inbound-rtp' && report.framesDecoded > 0 && report.frameWidth === 320) return true;
  return false;
})()
"""
"""`wait_for_function` takes the promise itself for the answer, so `until` evaluates this."""


def required(directory: Path, how: str) -> Path:
    if not directory.is_dir():
        pytest.skip(f"CUTTLEFISH_TREE has no {directory.relative_to(TREE)}: {how}")
    return directory


async def elsewhere(route: Route) -> None:
    """Answers requests to other hosts: fonts, icons and jQuery."""
    if route.request.url.startswith("http://127.0.0.1:"):
        await route.fallback()
    elif "jquery" in route.request.url:
        await route.fulfill(body=JQUERY, content_type="text/javascript")
    else:
        await route.abort()


@asynccontextmanager
async def chromium_page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        await context.route("**/*", elsewhere)
        yield await context.new_page()
        await browser.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 90))


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[tuple[SignalingServer, SeqpacketPeer]]:
    """A server as on a host, and a device with the page of the tree, which is announced with a group."""
    files = required(DEVICE_PAGE, "the tree is another one")
    options: dict[str, Any] = {"device_socket": tmp_path / "operator", "control_socket": tmp_path / "control"}
    if OPERATOR_PAGE.is_dir():
        options["assets_dir"] = OPERATOR_PAGE
    with SignalingServer(**options, proxy_device_files=True) as server, web_server(files) as port:
        control = SeqpacketPeer(tmp_path / "control")
        devices = [{"id": "cvd-1", "name": "one", "adb_port": 6520}]
        control.send({"message_type": "pre-register", "group_name": "group", "owner": "me", "devices": devices})
        control.receive()
        device = SeqpacketPeer(tmp_path / "operator")
        device.send({"message_type": "register", "device_id": "cvd-1", "device_info": INFO, "device_port": port})
        assert device.receive()["message_type"] == "config"
        yield server, device
        device.close()
        control.close()


@contextmanager
def web_server(directory: Path) -> Iterator[int]:
    """The device's own web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield web.server_port
    web.shutdown()
    thread.join()
    web.server_close()


async def assert_asks_for_an_offer(device: SeqpacketPeer) -> None:
    """The page has connected through this server, and asks the device for an offer."""
    while (heard := await asyncio.to_thread(device.receive))["message_type"] != "client_msg":
        pass
    assert heard["payload"]["type"] == "request-offer"


def test_page_of_the_device_connects_through_proxied_files(
    announced: tuple[SignalingServer, SeqpacketPeer],
) -> None:
    server, device = announced

    async def main() -> None:
        errors: list[str] = []
        async with chromium_page() as page:
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(f"{server.url}/devices/cvd-1/files/client.html")
            await assert_asks_for_an_offer(device)
            assert await page.title() == "cvd-1"
        assert errors == []

    run(main())


def test_page_of_the_operator_lists_and_shows_the_device(announced: tuple[SignalingServer, SeqpacketPeer]) -> None:
    required(OPERATOR_PAGE, "build it, as the head of this file says")
    server, device = announced

    async def main() -> None:
        async with chromium_page() as page:
            await page.goto(f"{server.url}/")
            await page.locator(".group-name", has_text="group").wait_for()
            await page.locator(".device-entry", has_text="one ( cvd-1 )").wait_for()
            await page.get_by_role("button", name="Show All").click()
            await assert_asks_for_an_offer(device)
            assert f"{server.url}/devices/cvd-1/files/client.html" in [frame.url for frame in page.frames]

    run(main())


def test_page_of_the_device_gets_its_video() -> None:
    files = required(DEVICE_PAGE, "the tree is another one")

    async def main() -> None:
        async with SignalingServer(assets_dir=files) as server, WebRtcDevice(server, "cvd-1", info=INFO):
            async with chromium_page() as page:
                await page.add_init_script(KEEP_CONNECTIONS)
                await page.goto(f"{server.url}/client.html?deviceId=cvd-1")
                await until(page, DECODES_VIDEO)

    run(main())
