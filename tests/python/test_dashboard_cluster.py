"""The dashboard of a node in a real browser: the nodes with their state, and the devices of all of them."""

from __future__ import annotations

import re

import pytest
from dashboard_page import open_dashboard, open_device, run
from playwright.async_api import Page, expect

from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, ClusterFactory, ClusterNode
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE

pytestmark = [
    pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed"),
    pytest.mark.signaling(allow_errors=True),
]


async def cells(page: Page, node: str) -> list[str]:
    row = page.locator("#node-rows tr", has=page.get_by_role("rowheader", name=node))
    return await row.locator("th, td").all_inner_texts()


async def states(page: Page, *expected: str) -> None:
    """Waits until the nodes have these states, in the order of their names."""
    shown = [re.compile(f"^{state}") for state in expected]
    await expect(page.locator("#node-rows td:nth-child(2)")).to_have_text(shown)


def test_page_shows_nodes_and_where_each_device_is(signaling_cluster: ClusterFactory) -> None:
    cluster = signaling_cluster(2, dashboard="on")
    one, other = cluster.nodes

    async def main() -> None:
        async with open_dashboard(other) as page:  # type: ignore[arg-type]
            await expect(page.locator("#nodes-title")).to_have_text("2 nodes")
            await states(page, "in", "in")
            await expect(page.locator("#node-rows th")).to_have_text(["node1", "node2this node"])
            await expect(page.locator("#nodes-states")).to_be_empty()
            await expect(page.locator("#stale")).to_be_empty()
            # The page hears of a device that comes to another node, and of its clients.
            async with AsyncFakeDevice(one, "cvd-1"), AsyncFakeDevice(other, "cvd-2"):
                await expect(page.locator("#devices .name")).to_have_text(["cvd-1", "cvd-2"])
                small = page.locator("#devices small:first-child")
                await expect(small).to_have_text(["on node1", "on node2"])
                await expect(page.locator("#count")).to_have_text("2 devices")
                async with AsyncFakeClient(other, "cvd-1"):
                    counts = page.locator("#node-rows tr:first-child td:nth-child(n+5)")
                    await expect(counts).to_have_text(["1", "1"])
                    await open_device(page, "cvd-1")
                    await expect(page.locator("#device-state")).to_have_text("registered on node1")
                    await expect(page.locator("#no-clients")).to_have_text("They are shown on the page of node1.")
                    facts = page.locator("#facts")
                    await expect(facts).to_contain_text("node1")
                    await expect(facts).not_to_contain_text("to the device")
                    await open_device(page, "cvd-2")
                    await expect(page.locator("#device-state")).to_have_text("registered on node2")
                    await expect(facts).to_contain_text("to the device")
                await page.set_viewport_size({"width": 390, "height": 800})
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
                await page.set_viewport_size({"width": 1280, "height": 720})
                await page.locator("#search").fill("node1")
                await expect(page.locator("#devices .name")).to_have_text(["cvd-1"])
                await page.locator("#search").fill("")
            await expect(page.locator("#devices .name")).to_have_count(0)

    run(main())


def test_page_tells_which_node_does_not_answer(signaling_cluster: ClusterFactory) -> None:
    cluster = signaling_cluster(2, dashboard="on")
    one, other = cluster.nodes

    async def main() -> None:
        async with open_dashboard(other) as page:  # type: ignore[arg-type]
            await states(page, "in", "in")
            cluster.partition(one, other)
            await states(page, "unreachable", "in")
            await expect(page.locator("#nodes-states")).to_have_text("1 unreachable")
            assert "does not answer this node" in (await cells(page, "node1"))[1]
            cluster.heal()
            await states(page, "in", "in")
            # A node that is lost without devices is not listed after its lease.
            cluster.kill(one)
            await expect(page.locator("#nodes-title")).to_have_text("1 node")

    run(main())


def test_page_tells_how_old_its_lists_are(signaling_cluster: ClusterFactory) -> None:
    cluster = signaling_cluster(2, dashboard="on")
    one, other = cluster.nodes

    async def main() -> None:
        async with open_dashboard(other) as page, AsyncFakeDevice(one, "known", timeout=PATIENCE):  # type: ignore[arg-type]
            await expect(page.locator("#devices .name")).to_have_text(["known"])
            cluster.partition("engine", other)
            await expect(page.locator("#stale")).to_have_text(
                re.compile(r"^The engine .* cannot be reached\. Devices of other nodes are as they were \d+ s ago\.$")
            )
            await states(page, "in", "rejoining")
            await expect(page.locator("#devices .name")).to_have_text(["known"])
            async with AsyncFakeDevice(other, "late", timeout=PATIENCE):
                small = page.locator("#devices small:first-child")
                await expect(small).to_have_text(["on node1", "on node2 only"])
                cluster.heal()
                await expect(page.locator("#stale")).to_be_empty()
                await states(page, "in", "in")
                await expect(small).to_have_text(["on node1", "on node2"])

    run(main())


def test_page_tells_that_the_node_started_alone(signaling_cluster: ClusterFactory) -> None:
    cluster = signaling_cluster(2, dashboard="on")
    one, other = cluster.nodes
    cluster.partition("engine", other)
    restarted: ClusterNode = other
    cluster.restart(restarted)

    async def main() -> None:
        async with open_dashboard(restarted) as page:  # type: ignore[arg-type]
            await states(page, "alone")
            await expect(page.locator("#stale")).to_contain_text("This node started alone")
            cluster.heal()
            await states(page, "in", "in")
            await expect(page.locator("#stale")).to_be_empty()

    run(main())
    assert one.nodes()
