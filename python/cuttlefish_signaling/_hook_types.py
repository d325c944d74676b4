"""The types of hooks, and of the setting `ice_servers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ._ice_command import IceCommand
from ._ice_server import StaticIceServers
from ._models import AuthorizeContext, FilterContext, IceContext
from ._turn import TurnRest

Authorize: TypeAlias = Callable[[AuthorizeContext], Any]
"""Returns an identity (any JSON value), a `Grant` or None, or raises `Refused`; `def` or `async def`."""

FilterDeviceInfo: TypeAlias = Callable[[Any, FilterContext], Any]
"""Returns the part of the device info that the client may see; `def` or `async def`."""

IceHook: TypeAlias = Callable[[IceContext], Any]
"""Returns a list of ICE servers, or yields them; `def` or `async def`."""

IceServers: TypeAlias = StaticIceServers | TurnRest | IceCommand | IceHook
"""A list, time-limited TURN credentials, or a hook that is called for each peer."""
