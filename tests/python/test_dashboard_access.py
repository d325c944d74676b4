"""The dashboard in a real browser: names and roles for screen readers, forced colours, sizes."""

from __future__ import annotations

from typing import Any

import pytest
from dashboard_page import open_dashboard, open_device, run
from playwright.async_api import Page, expect

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice

from peers import PATIENCE, peers_of


async def tree_of(page: Page) -> list[dict[str, Any]]:
    """The accessibility tree, as a screen reader gets it."""
    cdp = await page.context.new_cdp_session(page)
    nodes = (await cdp.send("Accessibility.getFullAXTree"))["nodes"]
    return [node for node in nodes if not node.get("ignored")]


def text(node: dict[str, Any], field: str) -> str:
    return str(node.get(field, {}).get("value", ""))


def properties(node: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["value"].get("value") for each in node.get("properties", [])}


def test_accessibility_tree_has_names_roles_and_live_regions() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True, device_wait_timeout=None) as server:
            async with AsyncFakeDevice(server, "cvd-1") as device, AsyncFakeClient(server) as client:
                await client.send({"type": "request-offer"})
                await device.recv(PATIENCE)
                with peers_of(server) as peers:
                    peers.pending_client("cvd-99")
                    async with open_dashboard(server) as page:
                        await open_device(page, "cvd-1")
                        await expect(page.locator("#conversation li").first).to_be_visible()
                        await expect(page.locator("#waiting-devices > li")).to_have_count(1)
                        await expect(page.locator("#client-rows tr")).to_have_count(1)
                        check(await tree_of(page))

    def check(tree: list[dict[str, Any]]) -> None:
        found = {(text(node, "role"), text(node, "name")) for node in tree}
        expected = {
            ("banner", ""),
            ("navigation", "Devices"),
            ("searchbox", "Search devices"),
            ("combobox", "Sort"),
            ("checkbox", "By group"),
            ("main", ""),
            ("article", "cvd-1"),
            ("region", "Clients that wait for a device"),
            ("region", "Media"),
            ("region", "Conversation"),
            ("table", "Clients"),
            ("columnheader", "Address"),
            ("rowheader", "#1"),
            ("button", "Disconnect device"),
            ("button", "Disconnect client 1"),
            ("button", "Export as text"),
            ("group", "Filter"),
            ("list", "Conversation"),
            ("searchbox", "Words in the message"),
            ("heading", "cvd-1"),
        }
        assert expected - found == set()
        # Nothing that can be operated is without a name.
        operated = ("button", "link", "searchbox", "textbox", "combobox", "checkbox")
        assert [node for node in tree if text(node, "role") in operated and not text(node, "name")] == []
        # The direction of an arrow is in words.
        said = " ".join(text(node, "name") for node in tree if text(node, "role") == "StaticText")
        assert "client to device: " in said
        live = [properties(node).get("live") for node in tree if text(node, "role") == "status"]
        assert len(live) >= 5
        assert set(live) == {"polite"}
        # Numbers that change all the time are read only where a reader goes to them.
        busy = ("term", "definition", "cell", "listitem", "article")
        assert [node for node in tree if text(node, "role") in busy and properties(node).get("live")] == []

    run(main())


@pytest.mark.parametrize("width", [1400, 800, 390])
@pytest.mark.parametrize("mode", ["light", "dark", "forced"])
def test_page_fits_and_can_be_read_in_each_mode(width: int, mode: str) -> None:
    """Text has the contrast of WCAG 2.2, 1.4.3, and nothing is wider than the page."""
    options: dict[str, Any] = {"forced_colors": "active"} if mode == "forced" else {"color_scheme": mode}

    async def main() -> None:
        long = "cvd-" + "x" * 120
        async with SignalingServer(dashboard=True, journal=True) as server:
            async with open_dashboard(server, viewport={"width": width, "height": 900}, **options) as page:
                await expect(page.get_by_role("heading", name="No device is registered")).to_be_visible()
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.evaluate(CONTRAST) == []
                async with AsyncFakeDevice(server, long) as device, AsyncFakeClient(server, long) as client:
                    await client.send({"type": "y" * 200})
                    await device.recv(PATIENCE)
                    await device.send("to no client", 77)
                    await open_device(page, long)
                    await expect(page.locator("#conversation li.bad")).to_have_count(2)
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                    wide = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.id)"
                    assert await page.locator("nav, article, section, main").evaluate_all(wide) == []
                    assert await page.evaluate(CONTRAST) == []
                    # An arrow has a colour in each mode: forced colours leave out backgrounds.
                    head = await page.locator(".arrow").first.evaluate(
                        "(arrow) => getComputedStyle(arrow, '::after').backgroundColor"
                    )
                    paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                    assert head not in (paper, "rgba(0, 0, 0, 0)")

    run(main())


CONTRAST = """() => {
  const luminance = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.matches('option, :disabled, .unseen')) continue;
    const [one, other] = [luminance(parts(getComputedStyle(element).color)), luminance(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) bad.push(`${element.tagName}#${element.id}.${element.className}: ${contrast.toFixed(2)}`);
  }
  return bad;
}"""
