"""The dashboard in a real browser: what a viewer may do, and what it is offered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dashboard_page import XSS, open_dashboard, open_device, run, until
from playwright.async_api import Page, expect

from cuttlefish_signaling import Grant, IceServer, SignalingServer, StaticTokens
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, Cassette

from peers import PATIENCE

TOKENS = StaticTokens(
    {"admin": Grant("alice", devices=["alice-*"], manage=True), "plain": Grant("bob", devices=["alice-*"])},
    roles=["http"],
)


async def log_in(page: Page, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#link")).to_have_text("live")


async def saved(page: Page, button: str) -> str:
    """The text of the file that a button saves."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name=button).click()
    return Path(await (await download.value).path()).read_bytes().decode()


# Disconnecting -------------------------------------------------------------------------------------------------------


def test_client_and_device_are_disconnected_after_a_question() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            async with AsyncFakeDevice(server, XSS) as device, AsyncFakeClient(server, XSS) as client:
                await open_device(page, XSS)
                dialog = page.get_by_role("dialog", name=f"Disconnect client 1 of {XSS}?")
                await page.get_by_role("button", name="Disconnect client 1", exact=True).click()
                # The safe choice has the focus, and Escape is it as well.
                await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
                await page.keyboard.press("Escape")
                await expect(dialog).to_be_hidden()
                assert len(server.clients()) == 1
                await page.get_by_role("button", name="Disconnect client 1", exact=True).click()
                await dialog.get_by_role("button", name="Disconnect").click()
                await expect(page.locator("#note")).to_contain_text("Disconnected client 1 of")
                assert (await device.recv(PATIENCE, message_type="client_disconnected")).client_id == 1
                await client.wait_closed()
                await page.get_by_role("button", name="Disconnect device").click()
                await page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
                await expect(page.locator("#device-state")).to_have_text("not registered")
                await expect(page.get_by_role("button", name="Disconnect device")).to_be_hidden()
                assert await page.evaluate("window.hacked") is None

    run(main())


def test_viewer_without_manage_is_offered_nothing_to_manage() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True, authorize=TOKENS) as server:
            async with AsyncFakeDevice(server, "alice-1"), AsyncFakeClient(server, "alice-1"):
                for token, offered in (("plain", False), ("admin", True)):
                    async with open_dashboard(server, "401") as page:
                        await log_in(page, token)
                        await open_device(page, "alice-1")
                        await expect(page.locator("#client-rows tr")).to_have_count(1)
                        await expect(page.locator("#conversation li").first).to_be_visible()
                        # The rights come last, together with the ICE servers.
                        await expect(page.locator("#ice")).not_to_be_empty()
                        for name in ("Disconnect device", "Disconnect client 1", "Export with payloads"):
                            await expect(page.get_by_role("button", name=name)).to_have_count(int(offered))
                        await expect(page.get_by_role("button", name="Export as text")).to_be_visible()

    run(main())


def test_refused_disconnect_is_told() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server, "404") as page:
            async with AsyncFakeDevice(server, "cvd-1"):
                await open_device(page, "cvd-1")
                await page.get_by_role("button", name="Disconnect device").click()
                server.disconnect_device("cvd-1")
                await page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
                note = page.locator("#note")
                await expect(note).to_have_text("Could not disconnect cvd-1: Device not found")

    run(main())


# Copying -------------------------------------------------------------------------------------------------------------


def test_addresses_are_copied() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            socket = server.url.replace("http", "ws")
            await expect(page.get_by_role("heading", name="No device is registered")).to_be_visible()
            for name, text in (
                ("Copy “Any other device”", f"{socket}/register_device"),
                ("Copy “A client of the device cvd-1”", f"{socket}/devices/cvd-1/connect"),
                ("Copy “A fake device in a Python test”", f'FakeDevice("{server.url}", "cvd-1")'),
                (
                    "Copy “A Cuttlefish device of Android 12 to 15”",
                    " ".join(["launch_cvd", *server.launch_cvd_flags("cvd-{num}")]),
                ),
            ):
                await page.get_by_role("button", name=name).click()
                await expect(page.locator("#note")).to_contain_text("Copied")
                assert await page.evaluate("navigator.clipboard.readText()") == text
            async with AsyncFakeDevice(server, "a/b %"):
                await open_device(page, "a/b %")
                await page.get_by_role("button", name="Copy client address").click()
                address = f"{socket}/devices/a%2Fb%20%25/connect"
                await until(page, f"navigator.clipboard.readText().then((text) => text === '{address}')")
                await page.get_by_role("button", name="Copy link").click()
                link = f"{server.url}/#a%2Fb%20%25"
                await until(page, f"navigator.clipboard.readText().then((text) => text === '{link}')")
            # A page of plain HTTP from another machine has no clipboard: then the text is selected and copied.
            await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
            await page.goto(server.url + "/#")
            await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
            await page.get_by_text("How devices and clients get here").click()
            if not await page.locator("#ways").is_visible():
                await page.get_by_text("How devices and clients get here").click()
            await page.get_by_role("button", name="Copy “A client that names its device in a message”").click()
            await expect(page.locator("#note")).to_contain_text("Copied")

    run(main())


# Files ---------------------------------------------------------------------------------------------------------------


def test_conversation_is_saved_as_python_writes_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server:
            device = AsyncFakeDevice(server, "cvd-with-a-long-name-1", info={"n": 1})
            async with device, AsyncFakeClient(server, "cvd-with-a-long-name-1") as client:
                await client.send({"type": "request-offer"})
                await device.recv(PATIENCE)
                odd = "odd \u202e<b>#;\n\x00 \U000e0001 日本 and a type that is too long"
                for payload in ({"type": "offer", "n": 1.5}, {"type": odd}, [1], "text"):
                    await device.send(payload)
                    await client.recv(PATIENCE)
                with server.faults.drop(type="answer"):
                    await client.send({"type": "answer"})
                    await server.journal.expect_async(type="answer")
                await device.send("to no client", 77)
                await device.recv(PATIENCE, message_type="error")
                await client.send({"type": "bye"})
                await device.recv(PATIENCE)
            async with open_dashboard(server) as page:
                await page.evaluate("id => { location.hash = encodeURIComponent(id) }", device.device_id)
                total = len(server.journal.entries())
                await expect(page.locator("#conversation li")).to_have_count(total)
                for button, kind in (("Export as text", "text"), ("Export as a Mermaid diagram", "mermaid")):
                    expected = server.journal.transcript(kind, device=device.device_id)  # type: ignore[arg-type]
                    assert await saved(page, button) == expected + "\n"
                (tmp_path / "saved.jsonl").write_text(await saved(page, "Export with payloads"), encoding="utf-8")
                loaded = Cassette.load(tmp_path / "saved.jsonl")
                assert loaded == Cassette.record(server.journal, device.device_id)
                assert len(loaded.lines) == 7

    run(main())


# ICE servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["settings", "hook"])
def test_ice_servers_are_told_without_credentials(source: str) -> None:
    servers = [
        IceServer("stun:stun.lab:3478"),
        IceServer("turn:turn.lab:3478", username="u5er-CANARY", credential="s3cret-CANARY"),
    ]

    def of_hook(_: Any) -> Any:
        return servers

    async def main() -> None:
        ice: Any = servers if source == "settings" else of_hook
        async with SignalingServer(dashboard=True, journal=True, ice_servers=ice) as server:
            async with AsyncFakeDevice(server, "cvd-1"), open_dashboard(server) as page:
                await open_device(page, "cvd-1")
                told = "stun:stun.lab:3478, turn:turn.lab:3478 (credentials hidden)"
                config = page.locator("#conversation li", has_text="config")
                await expect(config).to_contain_text("2 ICE servers")
                # The conversation names the servers that the settings do not have.
                await expect(page.locator("#ice")).to_contain_text(
                    told if source == "settings" else "The hook ice_servers"
                )
                await expect(config.get_by_text(told)).to_have_count(int(source == "hook"))
                assert "CANARY" not in await page.content()

    run(main())
