"""The dashboard in a real browser: lists, states and the conversation, for each way of looking at the page."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest
from dashboard_page import open_dashboard, open_device, run, until
from playwright.async_api import Page, expect
from ports import free_port
from websockets.asyncio.client import connect

from cuttlefish_signaling import PeerRefusedError, SignalingServer
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice

from peers import PATIENCE

SIZES = [(1400, 900), (800, 900), (390, 800)]
COUNT_CHANGES = """() => {
    window.changes = 0;
    window.counted = performance.now();
    const all = { childList: true, characterData: true, attributes: true, subtree: true };
    const list = document.querySelector('#devices');
    new MutationObserver((some) => { window.changes += some.length }).observe(list, all);
}"""
NOT_ZERO = re.compile(r"Messages per second in the last minute: now .*, at most (0\.)?[1-9]")


async def devices(stack: AsyncExitStack, server: SignalingServer, *ids: str, info: Any = None) -> None:
    for begin in range(0, len(ids), 50):
        some = [AsyncFakeDevice(server, id, info=info) for id in ids[begin : begin + 50]]
        await asyncio.gather(*(stack.enter_async_context(device) for device in some))


async def names(page: Page) -> list[str]:
    return await page.locator("#devices .name").all_inner_texts()


# The server cannot be reached ----------------------------------------------------------------------------------------


def test_unreachable_server_dims_numbers_until_it_is_back() -> None:
    async def main() -> None:
        port = free_port()
        server = SignalingServer(dashboard=True, port=port)
        server.start()
        async with AsyncFakeDevice(server, "cvd-1"), open_dashboard(server, "net::ERR") as page:
            await expect(page.locator("#devices .name")).to_have_text("cvd-1")
            loads = await page.evaluate("performance.timeOrigin")
            await server.stop_async()
            await expect(page.get_by_text("server unreachable, trying again")).to_be_visible()
            await expect(page.locator("#as-of")).to_contain_text("As of ")
            opacity = "(element) => Number(getComputedStyle(element).opacity)"
            for part in ("#health", "main"):
                await until(page, f"({opacity})(document.querySelector('{part}')) < 0.6")
            # The last known devices stay to be read.
            await expect(page.locator("#devices .name")).to_have_text("cvd-1")
            async with SignalingServer(dashboard=True, port=port):
                await expect(page.locator("#link")).to_have_text("live")
                await expect(page.locator("#as-of")).to_be_empty()
                await expect(page.locator("#count")).to_have_text("0 devices")
                await until(page, f"({opacity})(document.querySelector('main')) === 1")
            assert await page.evaluate("performance.timeOrigin") == loads, "the page was loaded again"

    run(main())


def test_silent_server_is_unreachable_though_no_connection_ends() -> None:
    """A cable that is cut ends no connection: the page notices that the signs of life are missing."""
    served: list[Any] = []

    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            await expect(page.locator("#link")).to_have_text("live")
            await page.route(
                "**/dashboard/events*", lambda route: served.append(route)
            )  # Later requests get no answer.
            await page.clock.install()
            await page.goto(server.url + "/")
            await until(page, "document.querySelector('#link').textContent === 'connecting'")
            while not served:
                await asyncio.sleep(0)
            await page.clock.run_for(26_000)
            await expect(page.locator("#link")).to_have_text("server unreachable, trying again")
            await page.clock.run_for(1_000)
            while len(served) < 2:
                await asyncio.sleep(0)
            await served[-1].continue_()
            await expect(page.locator("#link")).to_have_text("live")

    run(main())


# The list ------------------------------------------------------------------------------------------------------------


def test_list_is_sorted_and_grouped() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(SignalingServer(dashboard=True))
            await devices(stack, server, "cvd-2", "cvd-10", info={"group_id": "lab"})
            await devices(stack, server, "cvd-1", info={"group_id": "farm \u202e"})
            await devices(stack, server, "cvd-3")
            await stack.enter_async_context(AsyncFakeClient(server, "cvd-3"))
            page = await stack.enter_async_context(open_dashboard(server))
            await expect(page.locator("#devices a")).to_have_count(4)
            assert await names(page) == ["cvd-1", "cvd-2", "cvd-3", "cvd-10"]
            await page.get_by_label("Sort").select_option("clients")
            assert await names(page) == ["cvd-3", "cvd-1", "cvd-2", "cvd-10"]
            await page.get_by_label("Sort").select_option("newest")
            assert (await names(page))[0] == "cvd-3"
            await page.get_by_label("Sort").select_option("id")
            await page.get_by_label("By group").check()
            titles = page.locator("#devices h3")
            await expect(titles).to_have_text(["farm RLO 1", "lab 2", "no group 1"])
            assert await names(page) == ["cvd-1", "cvd-2", "cvd-10", "cvd-3"]
            # The choice is kept.
            await page.reload()
            await expect(titles).to_have_count(3)

    run(main())


def test_list_of_1000_devices_costs_the_page_little() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(SignalingServer(dashboard=True))
            await devices(stack, server, *(f"cvd-{number}" for number in range(1000)))
            client = await stack.enter_async_context(AsyncFakeClient(server, "cvd-0"))
            page = await stack.enter_async_context(open_dashboard(server))
            await expect(page.locator("#devices a")).to_have_count(1000)
            await expect(page.locator("#count")).to_have_text("1,000 devices")
            await page.evaluate(COUNT_CHANGES)
            cdp = await page.context.new_cdp_session(page)
            # Of the processor, not of the clock on the wall: others may have it.
            await cdp.send("Performance.enable", {"timeDomain": "threadTicks"})

            async def measured() -> dict[str, float]:
                return {each["name"]: each["value"] for each in (await cdp.send("Performance.getMetrics"))["metrics"]}

            before, updates = await measured(), 5
            for number in range(1, updates + 1):
                await client.send({"type": "x"})
                await expect(page.locator("#devices a").first).to_contain_text(f"{number} message")
            after = await measured()
            changes, seconds = await page.evaluate("[changes, (performance.now() - counted) / 1000]")
            # A layout for each update, and for the times that pass meanwhile; not one for each row.
            assert after["LayoutCount"] - before["LayoutCount"] < 20 * (updates + seconds)
            script, layout, time = (
                after[name] - before[name] for name in ("ScriptDuration", "LayoutDuration", "Timestamp")
            )
            assert script + layout < 0.5 * time, "the page is busy more than half of the time"
            # Rows that show the same are not touched: the changes are those of one device, and of the age of each row
            # in seconds: one for each second that begins, and one for those that had begun unseen.
            assert changes < 1000 * (seconds + 2) + 20 * updates

    run(main())


def test_list_is_walked_by_keyboard_with_one_stop_of_tab() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(SignalingServer(dashboard=True, journal=True))
            await devices(stack, server, "a", "b", "c")
            page = await stack.enter_async_context(open_dashboard(server))
            links = page.locator("#devices a")
            await expect(links).to_have_count(3)
            await expect(page.locator("#devices a[tabindex='0']")).to_have_count(1)
            await page.keyboard.press("/")
            for _ in range(3):  # The order, the groups, the list.
                await page.keyboard.press("Tab")
            await expect(links.nth(0)).to_be_focused()
            for key, at in (("ArrowDown", 1), ("End", 2), ("ArrowUp", 1), ("Home", 0), ("End", 2)):
                await page.keyboard.press(key)
                await expect(links.nth(at)).to_be_focused()
            await page.keyboard.press("Enter")
            await expect(page.locator("#device-id")).to_be_focused()
            await expect(page.locator("#device-id")).to_have_text("c")
            # Everything is reached by Tab, and the outline of the focus is seen.
            reached = set()
            for _ in range(12):
                await page.keyboard.press("Tab")
                reached.add(await page.evaluate("document.activeElement.id"))
                width = "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
                assert await page.evaluate(width) >= 1, reached
            assert {"copy-page", "copy-client", "disconnect", "connect", "filter-text", "save-jsonl"} <= reached

    run(main())


# The conversation ----------------------------------------------------------------------------------------------------


def test_conversation_is_filtered_with_times() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server, open_dashboard(server) as page:
            async with AsyncFakeDevice(server, "cvd-1") as device:
                async with AsyncFakeClient(server) as one, AsyncFakeClient(server) as two:
                    await open_device(page, "cvd-1")
                    for client in (one, two):
                        await client.send({"type": "request-offer"})
                        await device.recv(PATIENCE)
                    with server.faults.drop(type="answer"):
                        await two.send({"type": "answer"})
                        await server.journal.expect_async(type="answer")
                    lines = page.locator("#conversation li")
                    total = len(server.journal.entries())
                    await expect(lines).to_have_count(total)
                    times = await page.locator("#conversation time").all_inner_texts()
                    assert all(len(time) == len("14:03:22.123") for time in times)
                    assert times == sorted(times)
                    await page.locator("#filter-kind").select_option("forwards")
                    await expect(lines).to_have_count(3)
                    await expect(page.locator("#shown")).to_have_text(f"3 of {total} messages")
                    await page.locator("#filter-client").select_option("2")
                    await expect(lines).to_have_count(2)
                    await page.locator("#filter-text").fill("REQUEST")
                    await expect(lines).to_have_count(1)
                    await page.locator("#filter-text").fill("")
                    await page.locator("#filter-kind").select_option("bad")
                    await expect(lines).to_have_count(1)
                    await expect(lines).to_contain_text("dropped")
                    # New messages pass the filter too.
                    await two.send({"type": "request-offer"})
                    await device.recv(PATIENCE)
                    await expect(page.locator("#shown")).to_have_text(f"1 of {total + 1} messages")

    run(main())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_scroller_is_within_another_and_the_latest_is_followed(width: int, height: int) -> None:
    nested = """() => [...document.querySelectorAll('body *')].filter((element) => {
        const scrolls = (one) => one && one !== document.documentElement
            && /auto|scroll/.test(getComputedStyle(one).overflowY) && one.scrollHeight > one.clientHeight + 1;
        const page = document.scrollingElement.scrollHeight > document.scrollingElement.clientHeight + 1;
        return scrolls(element) && (page || scrolls(element.parentElement.closest('article, nav, main, section')));
    }).map((element) => element.id || element.tagName)"""

    async def main() -> None:
        async with SignalingServer(dashboard=True, journal=True) as server:
            async with AsyncFakeDevice(server, "cvd-1", info={"n": list(range(50))}) as device:
                async with AsyncFakeClient(server) as client:
                    for _ in range(60):
                        await client.send({"type": "ice-candidate"})
                        await device.recv(PATIENCE)
                    async with open_dashboard(server, viewport={"width": width, "height": height}) as page:
                        await open_device(page, "cvd-1")
                        lines = page.locator("#conversation li")
                        total = len(server.journal.entries())
                        await expect(lines).to_have_count(total)
                        assert await page.evaluate(nested) == []
                        await expect(lines.last).not_to_be_in_viewport()
                        await client.send({"type": "new"})
                        latest = page.get_by_role("button", name="1 new")
                        await latest.click()
                        await expect(lines.last).to_be_in_viewport()
                        await expect(latest).to_be_hidden()
                        # At the end, new lines are followed.
                        await client.send({"type": "newer"})
                        await expect(lines).to_have_count(total + 2)
                        await expect(lines.last).to_be_in_viewport()

    run(main())


# Hooks, silence, media -----------------------------------------------------------------------------------------------


def test_incidents_and_failed_hooks_are_told_in_sentences() -> None:
    def filter_device_info(info: Any, _: Any) -> Any:
        raise ValueError("CANARY")

    async def main() -> None:
        hooks: dict[str, Any] = {"filter_device_info": filter_device_info}
        async with SignalingServer(dashboard=True, **hooks) as server, open_dashboard(server) as page:
            async with AsyncFakeDevice(server, "cvd-1"):
                await expect(page.locator("#troubles")).to_be_hidden()
                with pytest.raises(PeerRefusedError, match="Internal error"):
                    await AsyncFakeClient(server, "cvd-1").start()
                async with connect(server.client_url) as peer:
                    await peer.send("[]")
                    await peer.recv()
                await page.locator("#troubles-title").click()
                told = page.get_by_role("list", name="Failed calls of hooks").get_by_role("listitem")
                await expect(told).to_contain_text("filter_device_info raised an exception or returned an invalid")
                await expect(told).to_contain_text("for 127.0.0.1:")
                kinds = page.get_by_role("list", name="Incidents").get_by_role("listitem")
                await expect(kinds).to_have_text("1 × misbehaved: peers that broke the rules")
                assert "CANARY" not in await page.content()

    run(main())


def test_device_that_does_not_answer_is_told_of() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            async with AsyncFakeDevice(server, "cvd-1") as device, AsyncFakeClient(server) as client:
                await page.clock.install()
                await page.goto(server.url + "/#cvd-1")
                await page.reload()
                await expect(page.locator("#client-rows tr > *").nth(2)).to_have_text("0")
                # From here on only `run_for` moves the time of the page.
                await page.clock.pause_at(await page.evaluate("Date.now()") / 1000 + 10)
                await client.send({"type": "request-offer"})
                await expect(page.locator("#client-rows tr > *").nth(2)).to_have_text("1")
                await page.clock.run_for(4_000)
                await expect(page.locator("#silence")).to_be_empty()
                await page.clock.run_for(3_000)
                await expect(page.get_by_text("The device has not answered client #1 for")).to_be_visible()
                # The viewer of the page is told too.
                await page.get_by_role("button", name="Connect", exact=True).click()
                await device.recv(PATIENCE, type="request-offer")
                await expect(page.locator("#viewer-state")).to_have_text("asking for an offer")
                await page.clock.run_for(7_000)
                await expect(page.locator("#viewer-state")).to_contain_text("the device has not answered for")
                await device.send({"type": "error", "error": "late"}, 1)
                await page.clock.run_for(1_000)
                await expect(page.locator("#silence")).not_to_contain_text("client #1 ")
                await device.send({"type": "error", "error": "late"}, 2)
                await expect(page.locator("#viewer-state")).to_have_text("the device says: late")

    run(main())


def test_messages_per_second_are_a_line() -> None:
    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            async with AsyncFakeDevice(server, "cvd-1"), AsyncFakeClient(server) as client:
                await open_device(page, "cvd-1")
                most = 0
                for box in ("#rate", "#device-rate"):
                    line = page.locator(f"{box} polyline")
                    await until(page, f"document.querySelector('{box} polyline').points.length >= 2")
                    await client.send({"type": "x"})
                    label = page.locator(box).get_by_role("img")
                    await expect(label).to_have_attribute("aria-label", NOT_ZERO)
                    most = max(most, await line.evaluate("(line) => line.points.length"))
                assert 2 <= most <= 60

    run(main())
