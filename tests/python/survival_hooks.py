"""Hooks for tests/python/survival.py. A file names the hook that has to fail, and the kind of failure."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from cuttlefish_signaling import AuthorizeContext, IceContext, Refused

FOLDER = "SURVIVAL_FOLDER"
"""The environment variable that names the folder."""


class Hooks:
    """Admits clients. For devices, a hook fails as the file `trouble` says: `HOOK raises|refuses|hangs`."""

    def __init__(self) -> None:
        self._folder = Path(os.environ[FOLDER])
        self._calls = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Closes its socket."""
        self._calls.close()

    async def authorize(self, ctx: AuthorizeContext) -> None:
        """Called before the upgrade."""
        if ctx.role == "device":
            await self._fail_if_named("authorize")

    async def ice_servers(self, ctx: IceContext) -> list[Any]:
        """Called when the device has sent `register`."""
        if ctx.role == "device":
            await self._fail_if_named("ice_servers")
        return []

    async def _fail_if_named(self, hook: str) -> None:
        asked, _, trouble = (self._folder / "trouble").read_text().partition(" ")
        if asked != hook:
            return
        try:
            # The test reads only as many of these as it needs.
            self._calls.sendto(trouble.encode(), socket.MSG_DONTWAIT, str(self._folder / "calls"))
        except OSError:
            pass
        if trouble == "raises":
            raise KeyError(hook)
        if trouble == "refuses":
            raise Refused("not now")
        await asyncio.Event().wait()
