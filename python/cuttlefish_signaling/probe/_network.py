"""The steps of names, TCP and TLS: I/O to facts."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from ._deadline import DeadlineError, look_up, within
from ._facts import CLOSED, REFUSED, TIMEOUT, UNREACHABLE, Attempt, Certificate, DnsFacts, TlsFacts
from ._options import ProbeOptions
from ._target import Target

MOST_ADDRESSES = 8
"""Addresses of a name that are tried. No setting: a server has two."""


async def resolve(target: Target, seconds: float) -> DnsFacts:
    """Looks up the name of the server."""
    try:
        found = await within(seconds, look_up(target.host, target.port, type=socket.SOCK_STREAM))
    except DeadlineError:
        return DnsFacts(target.host, outcome=TIMEOUT)
    except socket.gaierror as error:
        names = {getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA")}
        outcome = "unknown" if error.errno in names else "unavailable"
        return DnsFacts(target.host, outcome=outcome, reason=error.strerror or str(error))
    except (OSError, UnicodeError) as error:
        return DnsFacts(target.host, outcome="other", reason=str(error))
    addresses = tuple(dict.fromkeys(address[0] for *_, address in found))
    return DnsFacts(target.host, addresses[:MOST_ADDRESSES])


async def connect_to_all(addresses: tuple[str, ...], port: int, seconds: float) -> tuple[Attempt, ...]:
    """Opens and closes a TCP connection to each address, all at once."""
    return tuple(await asyncio.gather(*(_connect(address, port, seconds) for address in addresses)))


async def _connect(address: str, port: int, seconds: float) -> Attempt:
    try:
        _, writer = await within(seconds, asyncio.open_connection(address, port))
    except DeadlineError:
        return Attempt(address, port, TIMEOUT, f"no answer in {seconds:g} s")
    except OSError as error:
        return Attempt(address, port, *connect_outcome(error))
    writer.transport.abort()
    return Attempt(address, port, "connected")


def connect_outcome(error: OSError) -> tuple[str, str]:
    """Returns the outcome of a failed connection, and the text of the system."""
    # asyncio's text has the address, which the caller has as well.
    reason = error.strerror or str(error)
    if isinstance(error, ConnectionRefusedError):
        return REFUSED, "Connection refused"
    if isinstance(error, TimeoutError):
        return TIMEOUT, "Connection timed out"
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM):
        return UNREACHABLE, os.strerror(error.errno)
    return "other", reason


async def handshake(target: Target, address: str, options: ProbeOptions, seconds: float) -> TlsFacts:
    """Makes two TLS handshakes: one looks at the certificates, the other verifies them."""
    common: dict[str, Any] = {
        "host": target.host,
        "now": time.time(),
        "expiry_days": options.expiry_days,
        "insecure": options.insecure,
    }
    until = time.monotonic() + seconds
    try:
        version, chain = await within(seconds, _look(target, address, options.unverified_context()))
    except (DeadlineError, OSError) as error:
        outcome, reason = _handshake_outcome(error)
        return TlsFacts(**common, outcome=outcome, reason=reason)
    common |= {"version": version, "chain": chain}
    try:
        await within(max(until - time.monotonic(), 0.001), _look(target, address, options.context()))
    except ssl.SSLCertVerificationError as error:
        return TlsFacts(**common, outcome="unverified", reason=error.verify_message, verify_code=error.verify_code)
    except (DeadlineError, OSError) as error:
        outcome, reason = _handshake_outcome(error)
        return TlsFacts(**common, outcome=outcome, reason=reason)
    return TlsFacts(**common)


async def _look(target: Target, address: str, context: ssl.SSLContext) -> tuple[str, tuple[Certificate, ...]]:
    _, writer = await asyncio.open_connection(address, target.port, ssl=context, server_hostname=target.host)
    try:
        stream = writer.get_extra_info("ssl_object")
        return str(stream.version()), _chain(stream)
    finally:
        writer.transport.abort()


def _handshake_outcome(error: Exception) -> tuple[str, str]:
    if isinstance(error, DeadlineError | TimeoutError):
        return TIMEOUT, ""
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return CLOSED, ""
    reason = str(getattr(error, "reason", None) or error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"):
        return "not_tls", reason
    if "NO_APPLICATION_PROTOCOL" in reason:
        return "no_http_1", reason
    return "other", reason.lower().replace("_", " ")


def _chain(stream: Any) -> tuple[Certificate, ...]:
    """The certificates that the server has sent, the server's own first.

    Python 3.13 has a public method, which has no names and dates; the one below it has them since 3.10.
    """
    with suppress(AttributeError, ValueError, ssl.SSLError):
        return tuple(_certificate(found.get_info()) for found in stream._sslobj.get_unverified_chain() or ())
    return ()


def _certificate(info: dict[str, Any]) -> Certificate:
    return Certificate(
        subject=_name(info.get("subject", ())),
        issuer=_name(info.get("issuer", ())),
        names=tuple(_short(value) for kind, value in info.get("subjectAltName", ()) if kind in ("DNS", "IP Address")),
        begins=float(ssl.cert_time_to_seconds(info["notBefore"])),
        expires=float(ssl.cert_time_to_seconds(info["notAfter"])),
    )


def _short(name: str) -> str:
    """An address in its short form: OpenSSL writes `0:0:0:0:0:0:0:1`."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(name.strip()))
    return name


def _name(parts: Any) -> str:
    fields = {key: str(value) for part in parts for key, value in part}
    return fields.get("commonName") or fields.get("organizationName") or "a certificate without a name"
