"""The boot of a real device, recorded once and replayed in tests: no device is needed.

To record it, connect a real device to a server with a journal:

    server = SignalingServer(
        host="0.0.0.0", port=8443, tls=Tls.self_signed(), journal=True, allow_unauthenticated=True
    ).start()
    print(*server.launch_cvd_flags("cvd-1", host="10.0.0.1"))       # launch_cvd with these; connect with a browser
    ...
    Cassette.record(server.journal, "cvd-1").save("boot.jsonl")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import Cassette, FakeClient, FakeDevice, ReplayDevice


@pytest.mark.signaling_cassette("boot.jsonl")
def test_the_device_offers_what_it_offered(fake_client: Callable[..., FakeClient], replay_device: ReplayDevice) -> None:
    client = fake_client("cvd-1")
    assert client.device_info["displays"][0]["x_res"] == 720
    client.send({"type": "request-offer"})
    assert "4611731400430051336" in client.recv(type="offer").payload["sdp"]
    assert client.recv(type="ice-candidate").payload["candidate"].endswith("typ host")
    client.send({"type": "answer", "sdp": "v=0"})
    client.send({"type": "ice-candidate", "candidate": {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}})
    assert client.recv(type="ice-candidate").payload["candidate"].endswith("typ srflx")
    assert replay_device.unmatched == []


def test_recording_one(
    signaling_server: SignalingServer,
    fake_device: Callable[..., FakeDevice],
    fake_client: Callable[..., FakeClient],
    tmp_path: Path,
) -> None:
    fake_device("cvd-1").on("request-offer", reply_with={"type": "offer", "sdp": "v=0"})
    client = fake_client("cvd-1")
    client.send({"type": "request-offer"})
    client.recv(type="offer")

    Cassette.record(signaling_server.journal, "cvd-1").save(tmp_path / "mine.jsonl")
    with ReplayDevice(signaling_server, tmp_path / "mine.jsonl", "replayed"):
        again = fake_client("replayed")
        again.send({"type": "request-offer"})
        assert again.recv().payload == {"type": "offer", "sdp": "v=0"}
