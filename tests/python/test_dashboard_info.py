"""The dashboard in a real browser: the info of the device, when requests for it fail or are overtaken."""

from __future__ import annotations

import asyncio

from dashboard_page import open_dashboard, open_device, run, until
from playwright.async_api import Route, expect

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AsyncFakeDevice

COUNT_INFO = """() => {
    const { parse } = JSON;
    window.parsed = 0;
    JSON.parse = (text, reviver) => {
        if (reviver) window.parsed += 1;  // Only device info is parsed with one.
        return parse(text, reviver);
    };
}"""


class Requests:
    """The requests for the info of cvd-1. They get this status while it is set."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.count = 0

    async def __call__(self, route: Route) -> None:
        self.count += 1
        if self.status is None:
            await route.continue_()
        else:
            await route.fulfill(status=self.status, json={"error": "Try later"})


def test_device_info_is_fetched_again_after_a_failure() -> None:
    async def main() -> None:
        requests = Requests(500)
        async with SignalingServer(dashboard=True) as server, open_dashboard(server, "500") as page:
            await page.route("**/devices/cvd-1", requests)
            async with AsyncFakeDevice(server, "cvd-1", info=[1.5]):
                await open_device(page, "cvd-1")
                await expect(page.locator("#info")).to_have_text(
                    "Could not load the device info: Try later, trying again\n"
                )
                requests.status = None
                await expect(page.locator("#info")).to_have_text("[\n  1.5\n]\n")

    run(main())


def test_refused_device_info_is_fetched_again_with_the_next_stream() -> None:
    async def main() -> None:
        requests = Requests(403)
        async with SignalingServer(dashboard=True) as server, open_dashboard(server, "403") as page:
            await page.route("**/devices/cvd-1", requests)
            await page.clock.install()
            async with AsyncFakeDevice(server, "cvd-1", info=[1.5]):
                await open_device(page, "cvd-1")
                await expect(page.locator("#info")).to_have_text("Could not load the device info: Try later\n")
                await page.clock.run_for(20_000)
                assert requests.count == 1
                requests.status = None
                await page.get_by_label("Search").fill("cvd")
                await expect(page.locator("#info")).to_have_text("[\n  1.5\n]\n")

    run(main())


def test_info_of_an_earlier_registration_is_not_shown_if_it_comes_late() -> None:
    late: list[Route] = []

    async def main() -> None:
        async with SignalingServer(dashboard=True) as server, open_dashboard(server) as page:
            await page.evaluate(COUNT_INFO)
            await page.route("**/devices/cvd-1", lambda route: late.append(route), times=1)
            async with AsyncFakeDevice(server, "cvd-1", info="old"):
                await open_device(page, "cvd-1")
                while not late:
                    await asyncio.sleep(0)
            async with AsyncFakeDevice(server, "cvd-1", info="new"):
                await expect(page.locator("#info")).to_have_text('"new"\n')
                await late[0].fulfill(json={"device_id": "cvd-1", "registration_info": "old"})
                await until(page, "parsed === 2")
                await expect(page.locator("#info")).to_have_text('"new"\n')

    run(main())
