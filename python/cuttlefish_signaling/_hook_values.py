"""The arguments and the results of hooks."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from ._ice_command import MAX_SERVERS, ice_json
from ._models import AuthorizeContext, FilterContext, Grant, IceContext, Peer
from ._raw_json import parse
from .errors import ConfigError, HookResultError

if TYPE_CHECKING:
    from . import _native


def arguments(job: _native.Job) -> tuple[Any, ...]:
    """Returns the arguments for the hook of a job."""
    peer = Peer._of(job.peer)
    if job.hook == "authorize":
        return (AuthorizeContext(job.role, peer),)
    if job.hook == "ice_servers":
        return (IceContext(job.role, job.device_id, peer),)
    return parse(job.info or "null"), FilterContext(job.device_id or "", peer, *job.place)


def address_of(job: _native.Job) -> str:
    """Returns the address and port of the peer of a job. A peer of a Unix socket has none."""
    peer = Peer._of(job.peer)
    if peer.address is None:
        return "unknown address"
    return f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"


def _is_unchanged(info: str, result: Any) -> bool:
    """Whether a filter returned what it was given: both are the same JSON."""
    try:
        return json.dumps(result) == json.dumps(parse(info))
    except (TypeError, ValueError, RecursionError):
        return False


def settle(job: _native.Job, result: Any, most: int) -> None:
    """Settles a job with the result of its hook. Raises HookResultError if the result is invalid.

    Args:
        job: The job.
        result: The result.
        most: The most bytes of a result, as JSON.
    """
    if job.hook == "authorize" and isinstance(result, Grant):
        devices = None if result.devices is None else list(result.devices)
        advertise = None if result.advertise_address is None else list(result.advertise_address)
        job.settle(_json_of(job.hook, result.identity, most), devices, result.manage, advertise, result.valid_for)
    elif job.info is not None and _is_unchanged(job.info, result):
        # Not written anew: numbers like 1e999, and names that stand twice, would be lost.
        job.settle(job.info)
    else:
        job.settle(_json_of(job.hook, result, most))


def _json_of(hook: str, result: Any, most: int) -> str | None:
    if hook == "ice_servers":
        try:
            return ice_json(result)
        except ConfigError as error:
            raise HookResultError(f"ice_servers returned an invalid result: {error}") from error
    if result is None:
        if hook == "authorize":
            return None
        raise HookResultError(
            f"{hook} returned None: a filter that edits the device info in place has to return it as well; "
            "return {} to show nothing of it"
        )
    if hook == "authorize" and isinstance(result, bool):
        raise HookResultError(
            f"authorize returned {result}; raise Refused(...) to refuse the peer, or return an identity or None"
        )
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise HookResultError(f"{hook} returned a generator: use `return` for its result, not `yield`")
    try:
        text = json.dumps(result, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise HookResultError(f"{hook} returned a value that cannot be written as JSON: {error}") from error
    if len(text) > most:
        raise HookResultError(f"{hook} returned {len(text)} bytes of JSON, and limits.max_message_size allows {most}")
    return text


async def gathered(servers: AsyncIterable[Any]) -> list[Any]:
    """Returns the ICE servers that a hook yields: those that are read of a list."""
    found = []
    async for server in servers:
        found.append(server)
        if len(found) > MAX_SERVERS:
            break
    return found
