"""The dashboard in a real browser: live devices, a conversation, and media of a real WebRTC device."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from dashboard_page import XSS, open_dashboard, open_device, run
from playwright.async_api import expect
from ports import free_port

from cuttlefish_signaling import Grant, SignalingServer, StaticTokens
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice
from cuttlefish_signaling.webrtc import WebRtcClient, WebRtcDevice

from peers import PATIENCE, SeqpacketPeer, peers_of


def test_device_list_follows_registrations() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            await expect(page.locator("#count")).to_have_text("0 devices")
            await expect(page.locator("#link")).to_have_text("live")
            async with AsyncFakeDevice(server, "cvd-1", info={"n": [1, "two"]}):
                row = page.locator("#devices li")
                await expect(row.locator(".name")).to_have_text("cvd-1")
                await expect(row).to_contain_text("0 messages")
                await open_device(page, "cvd-1")
                await expect(page.locator("#device-state")).to_have_text("registered")
                await expect(page.locator("#info")).to_have_text(json.dumps({"n": [1, "two"]}, indent=2))
                await expect(page.locator("#no-clients")).to_be_visible()
                await expect(page.locator("#conversation-note")).to_contain_text("The journal is off.")
                async with AsyncFakeClient(server) as client:
                    await client.send({"type": "request-offer"})
                    cells = page.locator("#client-rows tr > *")
                    await expect(cells.nth(0)).to_have_text("#1")
                    await expect(cells.nth(2)).to_have_text("1")
                    await expect(row).to_contain_text("1 client")
                    await expect(row).to_contain_text("1 message ·")
                    await expect(page.locator("#health")).to_contain_text("messages1")
                await expect(page.locator("#no-clients")).to_be_visible()
            await expect(page.locator("#devices li")).to_have_count(0)
            await expect(page.locator("#device-state")).to_have_text("not registered")
            async with AsyncFakeDevice(server, "cvd-1", info="another"):
                await expect(page.locator("#device-state")).to_have_text("registered")
                await expect(page.locator("#info")).to_have_text('"another"')
                await expect(page.locator("#facts dt", has_text="group")).to_have_count(0)
            async with AsyncFakeDevice(server, "cvd-1", info={"group_id": "lab"}):
                await expect(page.locator("#devices li")).to_contain_text("lab")
                await expect(page.locator("#facts")).to_contain_text("grouplab")

    run(main())


def test_waiting_clients_are_shown_with_device_ids() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, device_wait_timeout=None) as server:
            # The end of the peers stops the server, and a page without its server logs errors.
            with peers_of(server) as peers:
                async with open_dashboard(server) as page:
                    rows = page.locator("#waiting-devices > li")
                    await expect(page.locator("#waiting")).to_be_hidden()
                    clients = [await asyncio.to_thread(peers.pending_client, XSS) for _ in range(2)]
                    await expect(rows).to_have_count(1)
                    await expect(rows.locator("bdi")).to_have_text(XSS)
                    await expect(rows).to_contain_text("2 clients")
                    await expect(page.locator("#health")).to_contain_text("waiting2")
                    await rows.locator("a").click()
                    await expect(page.locator("#device-state")).to_have_text("not registered")
                    clients[0].close()
                    await expect(rows).to_contain_text("1 client")
                    await asyncio.to_thread(peers.device, XSS)
                    await expect(page.locator("#waiting")).to_be_hidden()
                    await expect(page.locator("#device-state")).to_have_text("registered")
                    assert await page.evaluate("window.hacked") is None

    run(main())


def test_conversation_is_shown_live() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server:
            async with AsyncFakeDevice(server, "cvd-1") as device, open_dashboard(server) as page:
                await open_device(page, "cvd-1")
                lines = page.locator("#conversation li")
                await expect(lines.nth(1)).to_contain_text("config")
                async with AsyncFakeClient(server) as client:
                    await client.send({"type": "request-offer"})
                    await device.recv(PATIENCE)
                    await device.send({"type": "offer", "sdp": "x" * 2000})
                    with server.faults.drop(type="answer", device="cvd-1"):
                        await client.send({"type": "answer"})
                        await server.journal.expect_async(type="answer")
                    await device.send("to unknown", 77)
                await expect(lines.filter(has_text="client_disconnected")).to_have_count(1)
                kinds = await page.locator("#conversation b").all_inner_texts()
                assert kinds[:2] == ["register", "config"], kinds
                assert {"connect", "device_info", "request-offer", "offer", "answer"} <= set(kinds)
                offer = lines.filter(has_text="offer").filter(has_text="KiB")
                await expect(offer).to_contain_text("#1 · 2.0 KiB")
                await expect(page.locator("#conversation li.bad", has_text="answer")).to_contain_text("dropped")
                error = page.locator("#conversation li.bad", has_text="Unknown client 77")
                await expect(error).to_have_count(1)
                arrows = await page.locator("#conversation .arrow").evaluate_all("(all) => all.map((a) => a.className)")
                assert "arrow right from-device to-client" in arrows
                assert "arrow left from-device to-client" in arrows

    run(main())


def test_viewer_shows_video_and_data_channel() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, WebRtcDevice(server, "cvd-1") as device:
            async with open_dashboard(server) as page:
                await open_device(page, "cvd-1")
                await page.get_by_role("button", name="Connect", exact=True).click()
                await expect(page.locator("#viewer-state")).to_have_text("connected")
                facts = page.locator("#media-facts")
                await expect(facts).to_contain_text("ICEconnected")
                await expect(facts).to_contain_text("candidate pair")
                await expect(facts).to_contain_text("127.0.0.1")
                await expect(facts).to_contain_text("320×240")
                shades = await page.locator("video").evaluate(SHADES)
                assert len(set(shades)) > 3, f"the picture does not change: {shades}"
                await expect(page.locator("#send")).to_be_enabled()
                await page.locator("#line").fill("hello device")
                await page.keyboard.press("Enter")
                heard = await device.recv_data(PATIENCE)
                assert (heard.label, heard.data) == ("device-control", "hello device")
                await device.send_data(heard.data)
                await expect(page.locator("#said .device")).to_have_text("device-control, device: hello device")
                await device.send_data(b"\x00\xff")
                await expect(page.locator("#said .device").nth(1)).to_contain_text("2 B: 00 ff")
                await page.get_by_role("button", name="Disconnect", exact=True).click()
                await expect(page.locator("#stage")).to_be_hidden()
                left = await device.recv(PATIENCE, message_type="client_disconnected")
                assert left.client_id == 1
                # The second session shows nothing of the first.
                await page.get_by_role("button", name="Connect", exact=True).click()
                await expect(page.locator("#viewer-state")).to_have_text("connected")
                await expect(page.locator("#said li")).to_have_count(0)

    run(main())


SHADES = """
async (video) => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 8, height: 8 });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const shades = [];
  while (shades.length < 20) {
    await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    context.drawImage(video, 0, 0, 8, 8);
    shades.push(context.getImageData(4, 4, 1, 1).data[0]);
  }
  return shades;
}
"""


def test_page_of_a_proxy_shows_its_peers_and_connects_to_them() -> None:
    async def main() -> None:
        async with SignalingServer() as behind, WebRtcDevice(behind, "cvd-1"):
            async with SignalingServer(upstream=behind.url, dashboard=True, journal=True) as proxy:
                async with open_dashboard(proxy, path="/_proxy/") as page:
                    # The device is connected to the server directly, and is seen as soon as a client asks for it.
                    async with WebRtcClient(proxy.client_url, "cvd-1") as client:
                        await client.frames(1)
                        await open_device(page, "cvd-1")
                        await page.get_by_role("button", name="Connect", exact=True).click()
                        await expect(page.locator("#viewer-state")).to_have_text("connected")
                        await expect(page.locator("#media-facts")).to_contain_text("320×240")
                        assert len(proxy.clients("cvd-1")) == 2
                        await expect(page.locator("#conversation li", has_text="offer").first).to_be_visible()

    run(main())


def test_viewer_shows_media_errors() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server, "404") as page:
            async with AsyncFakeDevice(server, "cvd-1") as device:
                device.on("request-offer", reply_with={"type": "error", "error": "no camera <b>here</b>"})
                await open_device(page, "cvd-1")
                await page.get_by_role("button", name="Connect", exact=True).click()
                await expect(page.locator("#viewer-state")).to_have_text("the device says: no camera <b>here</b>")
            await expect(page.locator("#media-facts")).to_contain_text("Device disconnected")
            await page.get_by_role("button", name="Disconnect", exact=True).click()
            await page.get_by_role("button", name="Connect", exact=True).click()
            await expect(page.locator("#viewer-state")).to_contain_text("Device not found")

    run(main())


def test_hostile_device_strings_are_escaped(tmp_path: Any) -> None:
    door, control = tmp_path / "operator", tmp_path / "control"

    async def main() -> None:
        options: dict[str, Any] = {"device_socket": door, "control_socket": control}
        async with SignalingServer(dashboard=True, journal=True, **options) as server:
            announcer = SeqpacketPeer(control)
            announced = {"id": XSS, "name": XSS, "adb_port": 1}
            announcer.send(
                {"message_type": "pre-register", "group_name": XSS, "owner": XSS, "devices": [announced]},
            )
            announcer.receive()
            device = SeqpacketPeer(door)
            device.send({"message_type": "register", "device_id": XSS, "device_info": {XSS: XSS}})
            device.receive()
            async with AsyncFakeClient(server, XSS) as client, open_dashboard(server) as page:
                await client.send({"type": XSS, "sdp": XSS})
                device.receive()
                device.send({"message_type": XSS})
                for payload in ({"type": XSS}, {"type": "error", "error": XSS}, XSS, {"type": "line\u2028\u2029break"}):
                    device.send({"message_type": "forward", "client_id": 1, "payload": payload})
                await open_device(page, XSS)
                await expect(page.locator("#info")).to_contain_text("onerror")
                await expect(page.locator("#facts")).to_contain_text("<script>")
                await expect(page.locator("#conversation li", has_text="onerror").first).to_be_visible()
                # The event that has this type is not lost: it ends a line to JavaScript's `.`, but not to the format.
                await expect(page.locator("#conversation li", has_text="lineLSPSbreak")).to_be_visible()
                await page.get_by_role("button", name="Connect", exact=True).click()
                assert (await asyncio.to_thread(device.receive))["client_id"] == 2
                device.send({"message_type": "forward", "client_id": 2, "payload": {"type": "error", "error": XSS}})
                await expect(page.locator("#viewer-state")).to_contain_text("onerror")
                assert await page.evaluate("() => window.hacked") is None
                assert await page.locator("img, script, bdi :not(.mark)").count() == 2, "its own icon, its own script"
            device.close()
            announcer.close()

    run(main())


def test_invisible_characters_are_marks() -> None:
    """Bidirectional controls, what has no width, fillers that are letters, and controls."""
    marks = {
        "\u202e": "RLO",
        "\u2066": "LRI",
        "\u200b": "ZWSP",
        "\u200f": "RLM",
        "\ufeff": "BOM",
        "\u3164": "U+3164",
        "\u2800": "U+2800",
        "\u00a0": "NBSP",
        "\u2028": "LS",
        "\U000e0001": "U+E0001",
        "\0": "NUL",
        "\n": "LF",
        "\x1b": "ESC",
    }
    hostile = "".join(f"<b>{character}" for character in marks)
    shown = "".join(f"<b>{mark}" for mark in marks.values())
    id = hostile.replace("\0", "").replace("\n", "").replace("\x1b", "").replace("\u2028", "")
    id_shown = shown.replace("NUL", "").replace("LF", "").replace("ESC", "").replace("LS", "", 1) + "  x"

    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server:
            async with (
                AsyncFakeDevice(server, f"{id}  x", info=[hostile]) as device,
                AsyncFakeClient(server, f"{id}  x") as client,
            ):
                await client.send({"type": hostile})
                await device.recv(PATIENCE)
                async with open_dashboard(server) as page:
                    await page.locator("#devices a").click()
                    for place in ("#device-id", "#devices .name"):
                        assert await page.locator(place).text_content() == id_shown
                    await expect(page.locator("#conversation b", has_text=shown)).to_have_count(1)
                    spaces = await page.locator("#device-id bdi").evaluate("(id) => getComputedStyle(id).whiteSpace")
                    assert spaces == "pre-wrap"
                    assert await page.locator("#device-id bdi .mark").first.get_attribute("title") == "U+202E"
                    await expect(page.locator("#info .mark", has_text="RLO")).to_have_count(1)
                    assert "\u202e" not in await page.title()
                    # A peer's words are isolated from the text around them, wherever they are.
                    loose = "(marks) => marks.filter((mark) => !mark.closest('bdi')).length"
                    assert await page.locator(".mark").evaluate_all(loose) == 0

    run(main())


def test_search_keyboard_and_url_navigation() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            async with (
                AsyncFakeDevice(server, "alpha"),
                AsyncFakeDevice(server, "beta"),
                AsyncFakeDevice(server, "a/b%"),
            ):
                links = page.locator("#devices a")
                await expect(links).to_have_count(3)
                await page.keyboard.press("/")
                await expect(page.locator("#search")).to_be_focused()
                await page.keyboard.type("ALP")
                await expect(links).to_have_count(1)
                await expect(page.locator("#count")).to_have_text("1 device")
                await page.keyboard.press("ArrowDown")
                await expect(links.first).to_be_focused()
                await page.keyboard.press("Enter")
                await expect(page.locator("#device-id")).to_have_text("alpha")
                await expect(page.locator("#device-id")).to_be_focused()
                await expect(links.first).to_have_attribute("aria-current", "true")
                await page.locator("#search").fill("")
                await expect(links).to_have_count(3)
                await open_device(page, "a/b%")
                address = page.url
                await page.go_back()
                await expect(page.locator("#device-id")).to_have_text("alpha")
                await page.goto("about:blank")
                await page.goto(address)
                await expect(page.locator("#device-id")).to_have_text("a/b%")
                await expect(page.locator("#device-state")).to_have_text("registered")

    run(main())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_layout(scheme: str) -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server, AsyncFakeDevice(server, "cvd-1" * 20):
            async with open_dashboard(server, viewport={"width": 360, "height": 700}, color_scheme=scheme) as page:
                await open_device(page, "cvd-1" * 20)
                await expect(page.locator("nav")).to_be_hidden()
                await expect(page.locator("#conversation li").first).to_be_visible()
                assert await page.evaluate("() => document.documentElement.scrollWidth") <= 360
                brightness = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, brightness[4:-1].split(","))) > 380) is (scheme == "light")
                await page.get_by_text("All devices").click()
                await expect(page.locator("nav")).to_be_visible()

    run(main())


def test_page_reconnects_after_server_restart() -> None:
    async def main() -> None:
        port = free_port()
        server = SignalingServer(dashboard=True, journal=True, port=port)
        server.start()
        async with open_dashboard(server, "net::ERR") as page:
            await expect(page.locator("#link")).to_have_text("live")
            await server.stop_async()
            await expect(page.locator("#link")).to_have_text("server unreachable, trying again")
            async with SignalingServer(dashboard=True, journal=True, port=port) as again:
                async with AsyncFakeDevice(again, "cvd-1"):
                    await expect(page.locator("#link")).to_have_text("live")
                    await expect(page.locator("#devices .name")).to_have_text("cvd-1")

    run(main())


def test_token_login_limits_visible_devices() -> None:
    tokens = StaticTokens({"alices": Grant("alice", devices=["alice-*"])}, roles=["client", "http"])

    def no_serial(info: Any, _: Any) -> Any:
        return {key: value for key, value in info.items() if key != "serial"}

    async def main() -> None:
        async with SignalingServer(
            dashboard=True, journal=True, authorize=tokens, filter_device_info=no_serial
        ) as server:
            info = {"serial": "s3cret", "model": "x"}
            async with WebRtcDevice(server, "alice-1", info=info), AsyncFakeDevice(server, "bob-1"):
                async with open_dashboard(server, "401") as page:
                    await expect(page.locator("#login-reason")).to_have_text("A token is needed")
                    await page.get_by_label("Token").fill("wrong")
                    await page.keyboard.press("Enter")
                    await expect(page.locator("#login-reason")).to_have_text("This token is not known")
                    await page.get_by_label("Token").fill("alices")
                    await page.keyboard.press("Enter")
                    await expect(page.locator("#devices .name")).to_have_text(["alice-1"])
                    await expect(page.locator("#login")).to_be_hidden()
                    await expect(page.locator("#health")).to_contain_text("devices1")
                    await open_device(page, "alice-1")
                    await expect(page.locator("#info")).to_contain_text("model")
                    assert "s3cret" not in await page.locator("#info").inner_text()
                    await page.get_by_role("button", name="Connect", exact=True).click()
                    await expect(page.locator("#viewer-state")).to_have_text("connected")
                    assert [client.identity for client in server.clients()] == ["alice"]
                    # A device that is not granted looks like one that is not registered.
                    await page.evaluate("() => { location.hash = '#bob-1' }")
                    await expect(page.locator("#device-state")).to_have_text("not registered")
                    async with AsyncFakeDevice(server, "alice-2"):
                        # The news of it follows all that the stream tells of bob-1 at its start.
                        await expect(page.locator("#devices .name")).to_have_text(["alice-1", "alice-2"])
                        await expect(page.locator("#info")).to_be_empty()
                        await expect(page.locator("#conversation li")).to_have_count(0)

    run(main())
