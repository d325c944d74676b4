"""The arguments and the results of hooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ._ice_command import ice_json
from ._models import AuthorizeContext, FilterContext, Grant, IceContext, Peer
from ._raw_json import parse
from .errors import HookResultError

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


def _is_unchanged(info: str, result: Any) -> bool:
    """Whether a filter returned what it was given: both are the same JSON."""
    try:
        return json.dumps(result) == json.dumps(parse(info))
    except (TypeError, ValueError, RecursionError):
        return False


def settle(job: _native.Job, result: Any) -> None:
    """Settles a job with the result of its hook. Raises HookResultError or ConfigError if the result is invalid."""
    if job.hook == "authorize" and isinstance(result, Grant):
        devices = None if result.devices is None else list(result.devices)
        job.settle(_json_of(job.hook, result.identity), devices)
    elif job.info is not None and _is_unchanged(job.info, result):
        # Not written anew: numbers like 1e999, and names that stand twice, would be lost.
        job.settle(job.info)
    else:
        job.settle(_json_of(job.hook, result))


def _json_of(hook: str, result: Any) -> str | None:
    if hook == "ice_servers":
        return ice_json(result)
    if hook == "authorize":
        if result is None:
            return None
        if isinstance(result, bool):
            raise HookResultError(
                f"authorize returned {result}; raise Refused(...) to refuse the peer, or return an identity or None"
            )
    try:
        return json.dumps(result, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise HookResultError(f"{hook} returned a value that cannot be written as JSON: {error}") from error
