"""Hooks of a device farm: authorization, the filter of device info, and ICE servers for each peer.

cuttlefish-signaling serve --hooks examples/hooks/farm.py:hooks
"""

from __future__ import annotations

from typing import Any

from cuttlefish_signaling import AuthorizeContext, FilterContext, IceContext, IceServer, Refused

TOKENS = {"s3cret": "alice", "0ther": "bob"}
LENT_TO = {"cvd-1": "alice"}


class Hooks:
    """Admits every device. A client needs a token, and sees the adb port only of devices lent to it."""

    def authorize(self, ctx: AuthorizeContext) -> str | None:
        """Returns the identity of the peer."""
        if ctx.role == "device":
            return None
        user = TOKENS.get(ctx.query.get("token", ""))
        if user is None:
            raise Refused("unknown token", status=401)
        return user

    def filter_device_info(self, info: Any, ctx: FilterContext) -> Any:
        """Hides the adb port from all other clients."""
        if LENT_TO.get(ctx.device_id) == ctx.client.identity:
            return info
        return {key: value for key, value in info.items() if key != "adb_port"}

    async def ice_servers(self, ctx: IceContext) -> list[IceServer]:
        """Returns the STUN server for the peer's side of the farm's firewall."""
        return [IceServer("stun:inside.lab" if ctx.role == "device" else "stun:outside.lab")]


hooks = Hooks()
