"""The dashboard in a real browser, for tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, async_playwright, expect

from cuttlefish_signaling import SignalingServer

from browsers import CHROMIUM, FLAGS
from peers import PATIENCE

XSS = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"`</script>'

expect.set_options(timeout=PATIENCE * 1000)


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, 100))


@asynccontextmanager
async def open_dashboard(
    server: SignalingServer, allowed_errors: str = "$^", *, path: str = "/", **options: Any
) -> AsyncIterator[Page]:
    """The page, loaded. At the end it must have logged only these errors, and requested only URLs of the server.

    The browser logs an error for each request that is refused.
    """
    home, errors = server.url, list[str]()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(**options)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        try:
            await page.goto(home + path)
            yield page
        finally:
            await browser.close()
        assert [error for error in errors if not re.search(allowed_errors, error)] == []
        assert [url for url in asked if not url.startswith((home, "about:"))] == []


async def open_device(page: Page, device_id: str) -> None:
    await page.locator("#devices a", has_text=device_id).click()
    await expect(page.locator("#device-id")).to_have_text(device_id)


async def until(page: Page, expression: str) -> None:
    """Returns when an expression of JavaScript is true. `wait_for_function` needs `eval`, which the page forbids."""

    async def check() -> None:
        while not await page.evaluate(expression):
            await asyncio.sleep(0)

    await asyncio.wait_for(check(), PATIENCE)
