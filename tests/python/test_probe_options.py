"""`probe`: its options, secrets and texts of servers, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import threading
from collections.abc import Callable

import pytest

from cuttlefish_signaling import ConfigError, SignalingServer
from cuttlefish_signaling.probe import ProbeOptions, probe, probe_async

import staged_servers as staged
from peers import PATIENCE
from test_probe import PATIENT, failing_at


def test_token_that_a_server_quotes_is_not_printed() -> None:
    token = "s3cret-t0ken"

    async def quote(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        line = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization"))
        writer.write(b"HTTP/1.1 500 Error\r\n\r\nrefused: " + line)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    report = asyncio.run(failing_at(quote, ProbeOptions(timeout=PATIENCE, token=token)))
    assert "refused: Authorization: Bearer [secret]" in report.text()
    assert token not in report.text() + report.json() + repr(ProbeOptions(token=token))


def test_control_characters_of_a_server_are_escaped() -> None:
    body = b'HTTP/1.1 500 Error\r\n\r\n{"error":"\\u001b[2Jgone\\nfailed at nothing"}'
    report = asyncio.run(failing_at(staged.sends(body)))
    assert "\x1b" not in report.text() and "\\x1b[2Jgone\\nfailed" in report.text()


def test_probe_leaves_no_thread_or_descriptor(server: SignalingServer) -> None:
    probe(server.url, options=PATIENT)
    gc.collect()
    before = (set(threading.enumerate()), len(os.listdir("/proc/self/fd")))
    for _ in range(3):
        probe(server.url, options=PATIENT)
    gc.collect()
    assert (set(threading.enumerate()), len(os.listdir("/proc/self/fd"))) == before


async def _in_a_loop() -> None:
    probe("ws://127.0.0.1:1")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: probe("ftp://x"), "URL: 'ftp://x' is not one; write ws://HOST:PORT, wss://, http:// or https://"),
        (lambda: probe("ws://x:70000"), "URL: the port 70000 is not between 1 and 65535"),
        (lambda: probe("ws://user:pass@x"), "URL: has a user, a query or a fragment"),
        (lambda: probe("ws://x/?token=s3cret"), "URL: has a user, a query or a fragment"),
        (lambda: ProbeOptions(timeout=0), "timeout: must be more than 0 and at most 3600, got 0"),
        (lambda: ProbeOptions(timeout=float("inf")), "timeout: must be a number"),
        (lambda: ProbeOptions(timeouts={"icy": 1}), "timeouts: there is no stage 'icy'; there are dns, tcp, "),
        (lambda: ProbeOptions(timeouts={"ice": -1}), "timeouts\\['ice'\\]: must be more than 0"),
        (lambda: ProbeOptions(pings=0), "pings: must be a whole number between 1 and 1000, got 0"),
        (lambda: ProbeOptions(seconds=4000), "seconds: must be more than 0 and at most 3600"),
        (lambda: ProbeOptions(max_loss=5), "max_loss: must be at least 0 and at most 1, got 5"),
        (lambda: ProbeOptions(token="a\nb"), "token: must be one line of printable ASCII characters"),
        (lambda: ProbeOptions(origin="a\r\nb"), "origin: must be one line"),
        (lambda: probe("wss://x", options=ProbeOptions(ca="/nowhere")), "ca: cannot use /nowhere: No such file"),
        (lambda: asyncio.run(_in_a_loop()), "probe: an event loop runs in this thread; use `await probe_async"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], object], what: str) -> None:
    with pytest.raises(ConfigError, match=f"^{what}"):
        make()


def test_prefix_of_a_server_behind_a_proxy() -> None:
    seen: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def run() -> None:
        async with staged.serving(note) as port:
            await probe_async(f"http://127.0.0.1:{port}/cuttlefish/register_device", options=PATIENT)

    asyncio.run(run())
    assert seen[0] == "/cuttlefish/healthz"
    assert sorted(seen[1:]) == ["/cuttlefish/connect_client", "/cuttlefish/register_device"]


def test_context_verifies() -> None:
    assert ProbeOptions().context().verify_mode is ssl.CERT_REQUIRED
    assert ProbeOptions().context().check_hostname
