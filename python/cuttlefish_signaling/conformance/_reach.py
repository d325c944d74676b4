"""Looks whether a signaling server answers at a URL, stage by stage: DNS, TCP, TLS, HTTP, WebSocket."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

from ._model import Failed, Problem, UnreachableError
from ._target import ENDPOINTS, Target
from ._wire import UPGRADE, Answer, open_stream, request

REDIRECTS = (301, 302, 303, 307, 308)


async def reach(target: Target, timeout: float) -> None:
    """Returns if at least one endpoint answers an opening handshake with 101. Raises UnreachableError."""
    await _resolve(target, timeout)
    _, writer = await open_stream(replace(target, is_tls=False, context=None), timeout)
    writer.transport.abort()
    if target.is_tls:
        _, writer = await open_stream(target, timeout)
        writer.transport.abort()
    answers = [await _handshake(target, path, timeout) for path in ENDPOINTS]
    if not any(answer.status == 101 for answer in answers):
        raise UnreachableError(_refused(target, answers[0]))


async def _resolve(target: Target, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait_for(loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM), timeout)
    except (TimeoutError, asyncio.TimeoutError):
        raise UnreachableError(Problem("dns", f"no address for {target.host} within {timeout:g} s")) from None
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        advice = "is the name spelled right?"
        raise UnreachableError(Problem("dns", f"no address is known for {target.host}: {text}", advice)) from None


async def _handshake(target: Target, path: str, timeout: float) -> Answer:
    try:
        return await request(target, "GET", path, headers=UPGRADE, timeout=timeout)
    except Failed as failed:
        heard = f": {failed.heard}" if failed.heard not in ("", "nothing", "the end") else ""
        advice = _advice(target, failed.heard)
        text = f"no answer in HTTP/1.1 to an opening handshake on {target.path(path)}: {failed.reason}{heard}"
        raise UnreachableError(Problem(failed.stage, text, advice)) from None


def _advice(target: Target, heard: str) -> str:
    if "HTTP/2" in heard:
        return "the protocol needs HTTP/1.1: let the server or its proxy accept it as well"
    if "TLS" in heard:
        return "give wss:// or https://"
    if heard in ("the end", "nothing") and not target.is_tls:
        return "does the port speak TLS (wss://), or another protocol?"
    return "is it an HTTP server?"


def _refused(target: Target, answer: Answer) -> Problem:
    """The reason why no endpoint opens a WebSocket."""
    path = target.path(ENDPOINTS[0])
    text = f"an opening handshake on {path} is answered with status {answer.status}"
    if answer.status in REDIRECTS:
        return Problem("http", f"{text}, a redirect to {answer.headers.get('location', '?')}", "give that URL")
    if answer.status in (401, 403):
        return Problem("http", text, "--token gives credentials; an origin or host policy may refuse it as well")
    if answer.status in (404, 405):
        return Problem("http", text, "does the server have a path prefix? Add it to the URL")
    if answer.status in (426, 505):
        return Problem("http", text, "the server wants another version of HTTP or of WebSocket")
    if answer.status >= 500:
        return Problem("http", text, "does a proxy find no server behind it?")
    return Problem("websocket", text, "is it a WebSocket server?")
