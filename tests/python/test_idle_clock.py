"""The clock of `idle_clock.run` stands while callbacks run, and runs while the loop waits."""

from __future__ import annotations

import asyncio
import time

import pytest

import idle_clock


def test_timeout_does_not_end_while_the_loop_is_busy() -> None:
    """Each of 20 callbacks takes longer than the timeout."""

    async def busy() -> str:
        for _ in range(20):
            time.sleep(0.02)
            await asyncio.sleep(0)
        return "done"

    async def main() -> str:
        return await asyncio.wait_for(busy(), 0.01)

    assert idle_clock.run(main()) == "done"
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())


def test_timeout_ends_while_the_loop_waits() -> None:
    async def main() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    with pytest.raises(asyncio.TimeoutError):
        idle_clock.run(main())


def test_wait_for_another_thread_counts() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await loop.run_in_executor(None, time.sleep, 0.05)
        return loop.time() - begin

    assert idle_clock.run(main()) > 0.01


def test_what_is_left_in_the_loop_ends() -> None:
    async def main() -> asyncio.Task[bool]:
        return asyncio.ensure_future(asyncio.Event().wait())

    assert idle_clock.run(main()).cancelled()
