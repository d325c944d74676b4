"""`probe` with a device: a session that works, and the cause of each fault on the way to a picture."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cuttlefish_signaling import Grant, SignalingServer, StaticTokens
from cuttlefish_signaling.probe import EXIT_STATUS, ProbeOptions, Report, _stages, _websocket, metrics, probe_async
from cuttlefish_signaling.testing import AsyncFakeDevice
from cuttlefish_signaling.webrtc import TestPattern, WebRtcDevice

from peers import PATIENCE, wait_until

SOON = 0.3
"""The deadline of a stage that fails by it."""


def options(**timeouts: float) -> ProbeOptions:
    return ProbeOptions(timeout=PATIENCE, timeouts=timeouts, seconds=0.2)


def probed(make: Callable[[SignalingServer], Any], options: ProbeOptions, **settings: Any) -> Report:
    """The report of a probe of the device that `make` returns, a context manager."""

    async def run() -> Report:
        async with SignalingServer(**settings) as server, make(server):
            return await probe_async(server.url, "cvd-1", options)

    return asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE))


def assert_fails(report: Report, stage: str, cause: str) -> None:
    assert (report.failed_stage, report.cause) == (stage, cause), report.text()
    assert [step.stage for step in report.steps][-1] == "data"


class Faulty(WebRtcDevice):
    """A device that changes what it sends, and ignores the candidates of clients if wanted."""

    change: Callable[[dict[str, Any]], dict[str, Any] | None]
    is_deaf = False

    async def send(self, payload: Any, client_id: int | None = None) -> None:
        changed = type(self).change(payload)
        if changed is not None:
            await super().send(changed, client_id)

    async def _negotiate(self, client_id: int, payload: Any) -> None:
        if not (self.is_deaf and payload.get("type") == "ice-candidate"):
            await super()._negotiate(client_id, payload)


def faulty(change: Callable[[dict[str, Any]], dict[str, Any] | None], *, deaf: bool = False) -> Any:
    kind = type("Changed", (Faulty,), {"change": staticmethod(change), "is_deaf": deaf})
    return lambda server: kind(server, timeout=PATIENCE)


def candidates(edit: Callable[[str], str | None]) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def change(payload: dict[str, Any]) -> dict[str, Any] | None:
        if payload["type"] != "ice-candidate":
            return payload
        text = edit(payload["candidate"])
        return None if text is None else {**payload, "candidate": text}

    return change


def other_fingerprint(payload: dict[str, Any]) -> dict[str, Any]:
    if payload["type"] != "offer":
        return payload
    other = re.sub(r"(a=fingerprint:sha-\d+ )(..)", r"\g<1>00", payload["sdp"])
    return {**payload, "sdp": other.replace("fingerprint:sha-256 00", "fingerprint:sha-256 01")}


def test_session_passes() -> None:
    report = probed(lambda server: WebRtcDevice(server, timeout=PATIENCE), options())
    assert report.ok and report.exit_status == 0, report.text()
    media = report.step("media").facts
    assert media["frames"] >= 1 and media["size"] == "320x240" and media["first_frame_seconds"] > 0
    assert report.step("data").facts["labels"] == ["device-control"]
    ice = report.step("ice").facts
    assert [state for state, _ in ice["states"]] == ["checking", "completed"]
    assert ice["pairs"][0]["is_nominated"] and ice["pairs"][0]["state"] == "succeeded"
    assert report.step("dtls").facts["state"] == "connected"
    assert 'device="cvd-1"' in metrics(report)


def test_session_at_the_current_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without the endpoints of Android's tree: this one, asked at paths that it does not have."""
    for module in (_websocket, _stages):
        monkeypatch.setattr(module, "DEVICES", "/no_register_device")
        monkeypatch.setattr(module, "CLIENTS", "/no_connect_client")
    servers: Any = [{"urls": ["stun:127.0.0.1:9"]}]
    report = probed(lambda server: WebRtcDevice(server, timeout=PATIENCE), options(), ice_servers=servers)
    assert report.ok, report.text()
    assert report.step("websocket").facts == {"dialect": "operator"}
    assert report.step("ping").status == "skipped"
    assert report.step("connect").facts["urls"] == ["stun:127.0.0.1:9"]
    assert report.step("media").facts["frames"] >= 1

    async def without_device() -> Report:
        async with SignalingServer() as server:
            return await probe_async(server.url, options=options())

    report = asyncio.run(without_device())
    assert report.ok and [step.stage for step in report.steps][-1] == "devices"


def test_device_is_not_registered(server: SignalingServer) -> None:
    report = asyncio.run(probe_async(server.url, "cvd-9", options()))
    assert_fails(report, "devices", "device_not_registered")


def test_device_outside_of_the_grant_and_without_a_list() -> None:
    """Without a list, `connect` tells that the device is not there."""
    tokens = StaticTokens({"s3cret": Grant("alice", devices=["other-*"])})
    chosen = ProbeOptions(timeout=PATIENCE, token="s3cret")

    async def run() -> Report:
        async with SignalingServer(authorize=tokens) as server:
            return await probe_async(server.url, "cvd-1", chosen)

    assert_fails(asyncio.run(run()), "devices", "device_not_registered")


def test_device_never_answers() -> None:
    report = probed(lambda server: AsyncFakeDevice(server), options(offer=SOON))
    assert_fails(report, "offer", "device_silent")


def test_device_answers_with_something_else() -> None:
    class Talks(AsyncFakeDevice):
        async def _on_message(self, message: Any) -> None:
            if message.message_type == "client_msg":
                await self.send({"type": "busy"}, message.client_id)
                await self.send([1], message.client_id)

    report = probed(Talks, options(offer=SOON))
    assert_fails(report, "offer", "no_offer")
    assert report.step("offer").facts["types"] == ["busy", "a payload without a type"]


@pytest.mark.parametrize("sdp", ["", "v=0", "nonsense", None, 7])
def test_offer_cannot_be_used(sdp: Any) -> None:
    class Offers(AsyncFakeDevice):
        async def _on_message(self, message: Any) -> None:
            if message.message_type == "client_msg":
                await self.send({"type": "offer", "sdp": sdp}, message.client_id)

    report = probed(Offers, options(ice=SOON))
    assert report.failed_stage in ("offer", "answer", "ice"), report.text()
    assert report.cause in ("bad_offer", "answer_impossible", "no_local_candidates"), report.text()


def test_device_leaves_when_it_is_asked() -> None:
    class Leaves(AsyncFakeDevice):
        async def _on_message(self, message: Any) -> None:
            if message.message_type == "client_msg":
                await self._connection().close()

    report = probed(Leaves, options())
    assert_fails(report, "offer", "device_gone")
    assert "Device disconnected" in report.step("offer").findings[0].text


def test_candidates_are_unreachable() -> None:
    """As behind a firewall: no packet of either side gets through."""
    closed = candidates(lambda text: re.sub(r"127\.0\.0\.1 \d+", "127.0.0.1 9", text))
    report = probed(faulty(closed, deaf=True), options(ice=SOON))
    assert_fails(report, "ice", "ice_unreachable_no_turn")
    finding = report.step("ice").findings[0]
    assert "127.0.0.1:9" in finding.text and "--turn" in finding.fix and "15550" in finding.fix
    assert report.step("ice").facts["pairs"][0]["remote"]["port"] == 9


def test_candidates_are_mdns_names() -> None:
    named = candidates(lambda text: text.replace("127.0.0.1", "0a3e6b1c-1111-4222-8333-444455556666.local"))
    assert_fails(probed(faulty(named, deaf=True), options(ice=SOON)), "ice", "mdns_candidates")


def test_candidates_are_tcp() -> None:
    tcp = candidates(lambda text: text.replace(" udp ", " tcp "))
    assert_fails(probed(faulty(tcp, deaf=True), options(ice=SOON)), "ice", "tcp_candidates")


def test_candidates_do_not_come() -> None:
    assert_fails(
        probed(faulty(candidates(lambda _: None), deaf=True), options(ice=SOON)), "ice", "no_remote_candidates"
    )


def test_candidates_that_cannot_be_read_are_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    garbage = candidates(lambda _: "candidate:x y z")
    assert_fails(probed(faulty(garbage, deaf=True), options(ice=SOON)), "ice", "no_remote_candidates")
    assert "Traceback" not in capfd.readouterr().err


def test_fingerprint_was_changed() -> None:
    assert_fails(probed(faulty(other_fingerprint), options()), "dtls", "dtls_failed")


def test_no_frame_comes() -> None:
    class Dark(TestPattern):
        async def recv(self) -> Any:
            await asyncio.get_running_loop().create_future()

    chosen = options(media=SOON)
    report = probed(lambda server: WebRtcDevice(server, video=Dark, timeout=PATIENCE), chosen)
    assert_fails(report, "media", "no_packets")
    # The data channel works without a picture.
    assert report.step("data").status == "ok"


def test_credentials_of_the_server_have_expired() -> None:
    servers = [{"urls": ["turn:127.0.0.1:9"], "username": "1000000000:cuttlefish", "credential": "p4ssword"}]
    report = probed(lambda server: AsyncFakeDevice(server), options(offer=SOON), ice_servers=servers)
    assert report.step("connect").findings[0].cause == "turn_credential_expired"
    assert report.step("connect").facts["urls"] == ["turn:127.0.0.1:9"]
    assert "p4ssword" not in report.json() + report.text() + metrics(report)


@pytest.mark.parametrize("fault", ["silent", "unreachable", "fingerprint", "none"])
def test_program_has_one_failure_and_no_traceback(fault: str) -> None:
    """Tasks of the libraries fail too, after the stage: stderr has none of that."""
    closed = candidates(lambda text: re.sub(r"127\.0\.0\.1 \d+", "127.0.0.1 9", text))
    makes: dict[str, tuple[Any, int]] = {
        "silent": (AsyncFakeDevice, EXIT_STATUS["offer"]),
        "unreachable": (faulty(closed, deaf=True), EXIT_STATUS["ice"]),
        "fingerprint": (faulty(other_fingerprint), EXIT_STATUS["dtls"]),
        "none": (lambda server: WebRtcDevice(server, timeout=PATIENCE), 0),
    }
    make, status = makes[fault]
    flags = [f"--timeout={PATIENCE:g}", f"--timeout={'ice' if fault == 'unreachable' else 'offer'}=1", "--seconds=0.2"]
    flags = flags if fault in ("silent", "unreachable") else [flags[0], flags[2]]

    async def run() -> tuple[int | None, bytes, bytes]:
        async with SignalingServer() as server, make(server):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cuttlefish_signaling", "probe", server.url, "cvd-1", *flags),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, error = await process.communicate()
            return process.returncode, out, error

    returned, out, error = asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE))
    assert (returned, error) == (status, b""), out.decode()


def test_session_leaves_no_descriptor_task_or_client() -> None:
    async def run() -> None:
        async with SignalingServer() as server, WebRtcDevice(server, timeout=PATIENCE):
            await probe_async(server.url, "cvd-1", options())
            await asyncio.to_thread(wait_until, lambda: not server.clients())
            tasks, files = asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
            for _ in range(2):
                assert (await probe_async(server.url, "cvd-1", options())).ok
                # The device closes its side of the session as well.
                await asyncio.to_thread(wait_until, lambda: not server.clients())
            for _ in range(1000):
                if (asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))) == (tasks, files):
                    return
                await asyncio.sleep(0)
            left = [str(task) for task in asyncio.all_tasks() - tasks]
            raise AssertionError(f"left: {left}, descriptors {files} and now {len(os.listdir('/proc/self/fd'))}")

    asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE))


def test_server_does_not_speak_the_protocol() -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def run(answer: str | None) -> Report:
        def healthy(connection: ServerConnection, request: Any) -> Any:
            return connection.respond(200, "ok") if request.path in ("/healthz", "/devices") else None

        async def peer(connection: ServerConnection) -> None:
            async for _ in connection:
                if answer is not None:
                    await connection.send(answer)

        def select(_: ServerConnection, offered: Any) -> Any:
            return offered[0] if offered else None

        async with serve(peer, "127.0.0.1", 0, process_request=healthy, select_subprotocol=select) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            timeouts = {
                "connect": SOON if answer in (None, CONFIG, SECRET_CONFIG, '{"message_type":"x"}') else PATIENCE
            }
            return await probe_async(f"ws://127.0.0.1:{port}", "cvd-1", options(**timeouts))

    for answer, cause in {
        None: "no_config",
        '{"message_type":"x"}': "no_config",
        CONFIG: "no_device_info",
        "hello": "not_signaling",
        "[" * 100_000: "not_signaling",
        '{"error":"no"}': "connect_refused",
        SECRET_CONFIG: "no_device_info",
    }.items():
        report = asyncio.run(run(answer))
        assert_fails(report, "connect", cause)
        assert "p4ssword" not in report.json()


# A server that quotes a credential in the place of a URL.
SECRET_CONFIG = (
    '{"message_type":"config","ice_servers":[{"urls":["turn:a"],"credential":"p4ssword"},{"urls":["turn:p4ssword"]}]}'
)
CONFIG = '{"message_type":"config","ice_servers":[]}'
