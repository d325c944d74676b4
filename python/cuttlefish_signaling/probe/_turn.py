"""The step of TURN: a real allocation at each server, which is given back. I/O to facts, on `aioice`."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ._deadline import DeadlineError, within
from ._facts import TIMEOUT, UNREACHABLE, TurnFacts
from ._network import connect_outcome

MOST_SERVERS = 16
"""TURN URLs that are checked. No setting: peers use the first few."""


class TurnServer(NamedTuple):
    """A TURN server."""

    url: str
    username: str | None
    credential: str | None

    @property
    def expires(self) -> float | None:
        """The time in the username, in Unix seconds: time-limited credentials begin with it."""
        found = re.match(r"([0-9]{9,11})(?::|$)", self.username or "")
        return float(found[1]) if found else None


def turn_servers(ice_servers: Iterable[Any]) -> list[TurnServer]:
    """Returns the TURN servers of a list of ICE servers, one for each URL. Values of other shapes are left out."""
    found = []
    for server in ice_servers:
        if not isinstance(server, Mapping):
            continue
        urls = server.get("urls", server.get("url", ()))
        username, credential = server.get("username"), server.get("credential")
        for url in [urls] if isinstance(urls, str) else urls if isinstance(urls, list | tuple) else ():
            if isinstance(url, str) and url.startswith("turn"):
                name = username if isinstance(username, str) else None
                found.append(TurnServer(url, name, credential if isinstance(credential, str) else None))
    return found[:MOST_SERVERS]


def place_of(url: str) -> tuple[str, int, str, bool] | None:
    """Returns host, port, transport and whether TLS is used, of a URL (RFC 7065); None if it is none."""
    found = re.fullmatch(
        r"(turns?):(?://)?(\[[0-9A-Fa-f:.]+\]|[^\s:?/@]+)(?::([0-9]{1,5}))?(?:\?transport=(udp|tcp))?", url
    )
    if not found or int(found[3] or 1) > 65535:
        return None
    is_tls = found[1] == "turns"
    transport = found[4] or ("tcp" if is_tls else "udp")
    if is_tls and transport == "udp":
        return None  # DTLS: neither aioice nor Cuttlefish speak it.
    return found[2].strip("[]"), int(found[3] or (5349 if is_tls else 3478)), transport, is_tls


async def allocate(server: TurnServer, seconds: float, context: ssl.SSLContext) -> TurnFacts:
    """Asks a server for an allocation, and gives it back."""
    now = time.time()
    common: dict[str, Any] = {
        "has_credentials": server.username is not None and server.credential is not None,
        "expires_in": None if server.expires is None else server.expires - now,
    }
    place = place_of(server.url)
    if place is None:
        return TurnFacts(server.url, "bad_url", **common)
    from aioice.stun import TransactionFailed, TransactionTimeout

    try:
        relayed, address = await within(seconds, _allocated(server, place, context))
    except (DeadlineError, TransactionTimeout):
        return TurnFacts(server.url, TIMEOUT, **common)
    except TransactionFailed as error:
        code, reason = error.response.attributes.get("ERROR-CODE", (0, ""))
        return TurnFacts(server.url, "refused", code=code, reason=reason, **common)
    except socket.gaierror:
        return TurnFacts(server.url, "unknown_name", **common)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        return TurnFacts(server.url, "tls", reason=reason, **common)
    except (OSError, EOFError) as error:
        reason = connect_outcome(error)[1] if isinstance(error, OSError) else "the connection was closed"
        return TurnFacts(server.url, UNREACHABLE, reason=reason, **common)
    except (ValueError, KeyError, TypeError) as error:
        return TurnFacts(server.url, "other", reason=f"an answer that cannot be read: {error}", **common)
    return TurnFacts(server.url, relayed=relayed, server_address=address, **common)


async def _allocated(server: TurnServer, place: tuple[str, int, str, bool], context: ssl.SSLContext) -> tuple[str, str]:
    from aioice.turn import create_turn_endpoint

    host, port, transport, is_tls = place
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    # Looked up first, so that an unknown name is told apart, and the address is known.
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    address = str(found[0][4][0])
    endpoint, receiver = await create_turn_endpoint(
        _Receiver,
        # With TLS the certificate is for the name.
        server_addr=(host if is_tls else address, port),
        username=server.username,
        password=server.credential,
        ssl=context if is_tls else None,
        transport=transport,
    )
    relayed = endpoint.get_extra_info("sockname")
    endpoint.close()
    with suppress(DeadlineError):
        await within(CLOSE_SECONDS, receiver.gone())
    return str(relayed[0]), address


CLOSE_SECONDS = 2.0
"""Seconds for the end of an allocation. A server that does not confirm it frees the address after its lifetime."""


class _Receiver(asyncio.DatagramProtocol):
    """Receives nothing: no peer is permitted to send over the allocation."""

    def __init__(self) -> None:
        self._gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notes the end of the allocation."""
        self._gone.set()

    async def gone(self) -> None:
        """Waits for the end of the allocation."""
        await self._gone.wait()
