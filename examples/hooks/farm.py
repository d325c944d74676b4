"""Hooks of a device farm: who may come in, what they may see, which ICE servers they use.

cuttlefish-signaling serve --hooks examples/hooks/farm.py:hooks
"""

from __future__ import annotations

from typing import Any

from cuttlefish_signaling import AuthorizeContext, FilterContext, IceContext, IceServer, Refused

TOKENS = {"s3cret": "alice", "0ther": "bob"}
LENT_TO = {"cvd-1": "alice"}


class Hooks:
    """Devices come in as they are; clients need a token, and see the adb port only of devices lent to them."""

    def authorize(self, ctx: AuthorizeContext) -> str | None:
        """Returns who it is."""
        if ctx.role == "device":
            return None
        user = TOKENS.get(ctx.query.get("token", ""))
        if user is None:
            raise Refused("unknown token", status=401)
        return user

    def filter_device_info(self, info: Any, ctx: FilterContext) -> Any:
        """Hides the adb port from everybody else."""
        if LENT_TO.get(ctx.device_id) == ctx.client.identity:
            return info
        return {key: value for key, value in info.items() if key != "adb_port"}

    async def ice_servers(self, ctx: IceContext) -> list[IceServer]:
        """One STUN server for each side of the farm's firewall."""
        return [IceServer("stun:inside.lab" if ctx.role == "device" else "stun:outside.lab")]


hooks = Hooks()
