"""ICE of the probe: the servers for `aiortc`, loopback addresses, and the pairs of candidates."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aioice.ice
from aiortc.rtcicetransport import parse_stun_turn_uri

from ._deadline import DeadlineError, look_up, within
from ._facts import Candidate, Pair


async def usable_servers(ice_servers: list[Any], seconds: float) -> list[dict[str, Any]]:
    """Returns the servers that aiortc can use, with addresses in the place of names.

    aiortc looks up names on threads that hold the end of the process. A name that is not known, or a URL that cannot
    be read, is left out: the session goes on without, and `--turn` tells the reason.
    """
    found = []
    for server in ice_servers:
        if not isinstance(server, dict):
            continue
        urls = server.get("urls", ())
        all_urls = [urls] if isinstance(urls, str) else urls if isinstance(urls, list) else []
        usable = await asyncio.gather(*(_usable(url, seconds) for url in all_urls))
        kept = [url for url in usable if url is not None]
        texts = {key: server[key] for key in ("username", "credential") if isinstance(server.get(key), str)}
        if kept:
            found.append({"urls": kept, **texts})
    return found


async def _usable(url: Any, seconds: float) -> str | None:
    try:
        parsed = parse_stun_turn_uri(url)
        addresses = await within(seconds, look_up(parsed["host"], parsed["port"], family=socket.AF_INET))
    except (ValueError, TypeError, AttributeError, OSError, DeadlineError):
        return None
    if parsed["scheme"] in ("turns", "stuns"):
        return str(url)  # The certificate is for the name.
    place = f"{parsed['scheme']}:{addresses[0][4][0]}:{parsed['port']}"
    return place + (f"?transport={parsed['transport']}" if parsed.get("transport") else "")


@contextmanager
def with_loopback(is_wanted: bool) -> Iterator[None]:
    """Lets ICE use 127.0.0.1 as well, for a device on this machine: aioice leaves it out."""
    if not is_wanted:
        yield
        return
    original = aioice.ice.get_host_addresses

    def extended(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return list(dict.fromkeys([*original(use_ipv4, use_ipv6), "127.0.0.1"]))

    aioice.ice.get_host_addresses = extended
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = original


def pairs_of(transport: Any) -> tuple[Pair, ...]:
    """Returns the pairs of candidates of a DTLS transport, the nominated one first.

    aiortc has no public list of them. Where a later version has other names, there are no pairs.
    """
    connection = getattr(getattr(transport, "transport", None), "_connection", None)
    nominated = [id(pair) for pair in getattr(connection, "_nominated", {}).values()]
    pairs = []
    for pair in getattr(connection, "_check_list", ()):
        is_nominated = id(pair) in nominated
        local, remote = _candidate(pair.local_candidate), _candidate(pair.remote_candidate)
        pairs.append(Pair(local, remote, str(pair.state.name).lower(), is_nominated))
    return tuple(sorted(pairs, key=lambda pair: not pair.is_nominated))


def _candidate(found: Any) -> Candidate:
    return Candidate(str(found.type), str(found.transport), str(found.host), int(found.port))
