"""Hooks for tests/python/survival.py, which says in files of a folder which of them is to fail, and how."""

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
    """Clients are let in. Devices meet the trouble that the file `trouble` names: `HOOK raises|refuses|hangs`."""

    def __init__(self) -> None:
        self._folder = Path(os.environ[FOLDER])
        self._calls = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Closes its socket."""
        self._calls.close()

    async def authorize(self, ctx: AuthorizeContext) -> None:
        """Asked before the upgrade."""
        if ctx.role == "device":
            await self._meet("authorize")

    async def ice_servers(self, ctx: IceContext) -> list[Any]:
        """Asked when the device has registered."""
        if ctx.role == "device":
            await self._meet("ice_servers")
        return []

    async def _meet(self, hook: str) -> None:
        asked, _, trouble = (self._folder / "trouble").read_text().partition(" ")
        if asked != hook:
            return
        try:
            # The other end waits for some of these, and takes no more.
            self._calls.sendto(trouble.encode(), socket.MSG_DONTWAIT, str(self._folder / "calls"))
        except OSError:
            pass
        if trouble == "raises":
            raise KeyError(hook)
        if trouble == "refuses":
            raise Refused("not now")
        await asyncio.Event().wait()
