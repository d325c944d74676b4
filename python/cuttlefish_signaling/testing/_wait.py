"""Waiting for a condition with a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from .._checks import check_seconds
from .._pause import wait_event
from ..errors import WaitTimeoutError

T = TypeVar("T")


async def wait_until(
    check: Callable[[], T | None], changed: asyncio.Event, timeout: float | None, failure: Callable[[], str]
) -> T:
    """Calls `check` each time that `changed` is set, and returns its first result that is not None.

    Raises WaitTimeoutError with the text of `failure` after `timeout` seconds; None waits forever.
    """
    check_seconds("timeout", timeout, optional=True)
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while (found := check()) is None:
        changed.clear()
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            raise WaitTimeoutError(failure())
        await wait_event(changed, left)
    return found
