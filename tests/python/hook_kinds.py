"""Hooks of both kinds: `def` and `async def`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


def as_async(hook: Any) -> Any:
    """The hook as an `async def`."""

    async def wrapped(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*arguments)

    return wrapped


both = pytest.mark.parametrize("way", [lambda hook: hook, as_async], ids=["def", "async def"])
"""Runs a test with a `def` and with an `async def`."""
