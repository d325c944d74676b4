"""The drain before a stop, from Python and on the command line. `tests/server/draining.rs` has its rules."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cuttlefish_signaling import ConfigError, SignalingServer
from cuttlefish_signaling.cli.process import SAME_REQUEST, SAME_REQUEST_IN_A_DRAIN, StopSignals

from http_requests import request
from peers import PATIENCE, Peers, assert_relays, assert_returns, interruptible, peers_of, wait_until
from test_cli import serve

HOUR = 3600.0
LONG = ("--no-tls", "--drain", "3600", "--drain-spread", "3600")


def is_ready(server: SignalingServer) -> bool:
    return request(server, "GET", "/readyz").status == 200


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def stopping(server: SignalingServer, **times: float) -> tuple[threading.Thread, list[bool]]:
    """A thread that stops the server, and its outcome."""
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(server.stop(**times)), daemon=True)
    thread.start()
    return thread, outcome


def test_stop_drains_as_the_settings_say_and_serves_meanwhile() -> None:
    with SignalingServer(drain=HOUR) as server, peers_of(server) as peers:
        device = peers.device("cvd-1")
        thread, outcome = stopping(server)
        wait_until(lambda: not is_ready(server))
        assert request(server, "GET", "/readyz").error == "Server draining"
        assert request(server, "GET", "/healthz").status == 200
        assert_relays(peers.client("cvd-1"), device)
        assert server.is_running and [one.device_id for one in server.devices()] == ["cvd-1"]
        server.clock.advance(HOUR)
        assert device.wait_closed() == 1001
        thread.join(PATIENCE)
        assert outcome == [True] and not server.is_running


def test_arguments_of_stop_override_the_settings() -> None:
    server = SignalingServer(drain=HOUR, drain_spread=HOUR).start()
    assert_returns(lambda: server.stop(drain=0, drain_spread=0))
    assert not server.is_running


@pytest.mark.parametrize("name", ["drain", "drain_spread"])
@pytest.mark.parametrize("value", [-1, float("nan"), 1e300, "1"])
def test_invalid_times_are_refused(server: SignalingServer, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        SignalingServer(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"^{name}: "):
        server.stop(**{name: value})
    assert server.is_running and is_ready(server)


@pytest.mark.parametrize("times", [{"drain": HOUR}, {"drain_spread": HOUR}], ids=["wait", "spread"])
def test_second_stop_without_drain_ends_it(server: SignalingServer, peers: Peers, times: dict[str, float]) -> None:
    devices = [peers.device(f"cvd-{number}") for number in range(3)]
    thread, outcome = stopping(server, **times)
    run = server._run
    assert run is not None
    wait_until(lambda: run._is_draining)
    assert_returns(lambda: server.stop(drain=0))
    thread.join(PATIENCE)
    assert outcome == [True]
    assert [device.wait_closed() for device in devices] == [1001] * 3


def test_start_waits_for_the_end_of_a_drain(server: SignalingServer) -> None:
    thread, _ = stopping(server, drain=HOUR)
    wait_until(lambda: not is_ready(server))
    first = server._last_run
    starting = threading.Thread(target=server.start, daemon=True)
    starting.start()
    server.clock.advance(HOUR)
    thread.join(PATIENCE)
    starting.join(PATIENCE)
    assert server.is_running and server._run is not first


def test_exit_of_the_interpreter_does_not_drain() -> None:
    body = "from cuttlefish_signaling import SignalingServer\nserver = SignalingServer(drain=3600).start()\n"
    done = subprocess.run([sys.executable, "-c", body], timeout=PATIENCE * 3, check=False)
    assert done.returncode == 0


def test_ctrl_c_ends_a_drain_and_stops_the_server() -> None:
    body = """
    from cuttlefish_signaling import SignalingServer
    server = SignalingServer(drain=3600).start()
    print(server.url, flush=True)
    try:
        server.stop()
    except KeyboardInterrupt:
        print(server.is_running, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)], stdout=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        wait_until(lambda: status_of(f"{url}/readyz") == 503)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[0] == "False\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_cancelled_stop_async_ends_the_drain() -> None:
    asyncio.run(cancel_in_a_drain())


async def cancel_in_a_drain() -> None:
    server = SignalingServer().start()
    run = server._run
    assert run is not None
    stop = asyncio.ensure_future(server.stop_async(drain=HOUR))
    while not run._is_draining:
        await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stop, PATIENCE)
    assert not server.is_running


# The command line -----------------------------------------------------------------------------------------------------


def test_second_signal_in_a_drain_ends_the_drain_and_a_third_one_the_process() -> None:
    signals, drains = StopSignals(), [True]
    try:
        signals.take()
        assert not signals.on_signal(signal.SIGTERM, 100.0)
        signals.end_drain = lambda: bool(drains and drains.pop())
        assert not signals.on_signal(signal.SIGINT, 100.0 + SAME_REQUEST_IN_A_DRAIN)
        assert drains, "a signal of the same request does not end the drain"
        assert not signals.on_signal(signal.SIGTERM, 100.5)
        assert not drains
        assert not signals.on_signal(signal.SIGTERM, 100.5 + SAME_REQUEST)
        assert signals.on_signal(signal.SIGTERM, 101.0 + SAME_REQUEST)
    finally:
        signals.restore()
        signals.close()


def test_sigterm_drains_and_a_second_one_ends_the_drain(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        with serve(*LONG, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as served:
            url = f"http://127.0.0.1:{served.port}"
            assert systemd.recv(100) == b"READY=1"
            served.process.terminate()
            lines = dict(line.split("=") for line in systemd.recv(100).decode().splitlines())
            assert lines["STOPPING"] == "1"
            drains_since = time.monotonic()
            assert int(lines["EXTEND_TIMEOUT_USEC"]) > (3600 + 3600 + 10) * 1_000_000
            wait_until(lambda: status_of(f"{url}/readyz") == 503)
            assert status_of(f"{url}/healthz") == 200
            assert status_of(f"{url}/devices") == 200
            # A signal of the first quarter of a second would be part of the first one.
            wait_until(lambda: time.monotonic() > drains_since + SAME_REQUEST_IN_A_DRAIN)
            served.process.terminate()
            _, log = served.process.communicate(timeout=PATIENCE)
    assert served.process.returncode == 0, log
    assert "stopping: SIGTERM" in log
    assert "the drain ends" in log
    assert "ends at once" not in log


@pytest.mark.parametrize("devices", [200])
def test_all_devices_are_told_1001_over_the_spread(devices: int) -> None:
    program = [sys.executable, str(Path(__file__).parents[1] / "drain.py")]
    done = subprocess.run(
        [*program, "--devices", str(devices), "--spread", "2"],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 10,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{devices} devices: {devices} closed with 1001", done.stdout, re.MULTILINE), done.stdout
