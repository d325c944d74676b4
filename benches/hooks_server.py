"""Runs a server with hooks for the load.

python benches/hooks_server.py [--hooks none|def|async] [--on-loop] --port 8080
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any

from cuttlefish_signaling import AuthorizeContext, FilterContext, IceContext, Keepalive, SignalingServer

SERVERS = [{"urls": ["stun:stun.example.com:3478"]}]


def authorize(ctx: AuthorizeContext) -> dict[str, str]:
    """Accepts each peer."""
    return {"user": "alice"}


def ice_servers(ctx: IceContext) -> list[Any]:
    """Returns the same servers for each peer."""
    return SERVERS


def filter_device_info(info: Any, ctx: FilterContext) -> dict[str, Any]:
    """Hides one member of the device info."""
    return {name: value for name, value in info.items() if name != "hidden"} if isinstance(info, dict) else {}


def as_async(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same hook as a coroutine function."""

    async def called(*arguments: Any) -> Any:
        return hook(*arguments)

    return called


HOOKS: dict[str, Callable[..., Any]] = {
    "authorize": authorize,
    "ice_servers": ice_servers,
    "filter_device_info": filter_device_info,
}


async def serve_on_loop(settings: dict[str, Any]) -> None:
    """Serves with the hooks on the event loop that has started the server."""
    async with SignalingServer(**settings) as server:
        await server.serve_forever_async()


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--hooks", choices=["none", "def", "async"], default="none")
    parser.add_argument("--on-loop", action="store_true", help="start the server in an event loop")
    options = parser.parse_args()
    # No pings: the load's devices do not answer at rest.
    settings: dict[str, Any] = {"port": options.port, "keepalive": Keepalive(interval=None), "ice_servers": SERVERS}
    if options.hooks == "def":
        settings |= HOOKS
    elif options.hooks == "async":
        settings |= {name: as_async(hook) for name, hook in HOOKS.items()}
    if options.on_loop:
        asyncio.run(serve_on_loop(settings))
    else:
        SignalingServer(**settings).serve_forever()


if __name__ == "__main__":
    main()
