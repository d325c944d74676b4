"""The arguments and the results of hooks."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from ._ice_command import MAX_SERVERS, written
from ._models import AuthorizeContext, FilterContext, Grant, IceContext, Peer
from ._raw_json import parse
from .errors import ConfigError, HookResultError

if TYPE_CHECKING:
    from . import _native


def arguments(job: _native.Job, hook: str) -> tuple[tuple[Any, ...], int | None]:
    """Returns the arguments for the hook of a job, and for the filter the number of members of the device info."""
    peer = Peer._of(job)
    if hook == "authorize":
        return (AuthorizeContext(job.role, peer),), None
    if hook == "ice_servers":
        return (IceContext(job.role, job.device_id, peer),), None
    info = parse(job.info or "null")
    return (info, FilterContext(job.device_id or "", peer, *job.place)), _size(info)


def address_of(job: _native.Job) -> str:
    """Returns the address and port of the peer of a job. A peer of a Unix socket has none."""
    peer = Peer._of(job)
    if peer.address is None:
        return "unknown address"
    return f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"


def _size(info: Any) -> int | None:
    """Returns the number of members of an object, and None for another value."""
    return len(info) if type(info) is dict else None


_encode_strictly = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _written(value: Any) -> str | None:
    """Returns a value as JSON, also with infinities, which JSON does not have. None if it has no such form."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_unchanged(info: str, result: Any, text: str, size: int | None) -> bool:
    """Whether the filter has returned the device info as it was, perhaps written in another way.

    Its argument does not tell, since the filter may have changed it in place.
    """
    if text == info:
        return True
    # Many filters hide a member: then nothing has to be parsed again.
    return _size(result) == size and text == _written(parse(info))


def settle(job: _native.Job, hook: str, result: Any, most: int, size: int | None) -> None:
    """Settles a job with the result of its hook. Raises HookResultError if the result is invalid.

    Args:
        job: The job.
        hook: The name of its hook.
        result: The result.
        most: The most bytes of a result, as JSON.
        size: For the filter: the number of members of the device info before the call, as `arguments` has returned it.
    """
    if hook == "authorize" and isinstance(result, Grant):
        devices = None if result.devices is None else list(result.devices)
        advertise = None if result.advertise_address is None else list(result.advertise_address)
        identity = _json_of(hook, result.identity, most)
        job.settle(identity, devices, result.manage, advertise, result.valid_for, result.exclusive)
        return
    if hook == "ice_servers":
        try:
            job.settle_ice_servers(written(result))
        except ConfigError as error:
            raise HookResultError(f"ice_servers returned an invalid result: {error}") from error
        return
    text = _written(result) if hook == "filter_device_info" else None
    if text is not None and _is_unchanged(job.info or "null", result, text, size):
        # Not written anew: numbers like 1e999, and names that stand twice, would be lost.
        job.settle(job.info)
    else:
        job.settle(_json_of(hook, result, most, text))


def _json_of(hook: str, result: Any, most: int, text: str | None = None) -> str | None:
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
        # The first text may have infinities, or strings that look like them.
        if text is None or "NaN" in text or "Infinity" in text:
            text = _encode_strictly(result)
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
