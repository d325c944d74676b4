"""Cassettes with `mode="once"` and `mode="new"`: a real device answers what the cassette lacks, and it is added."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cuttlefish_signaling import CassetteError, ConfigError, SignalingServer, StaticTokens, Tls
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncReplayDevice,
    Cassette,
    FakeClient,
    FakeDevice,
    RawJson,
    ReplayDevice,
)
from cuttlefish_signaling.testing._cassette import Line

from peers import wait_until

OFFER = RawJson('{"type":"offer","sdp":"v=0\\r\\n","n":1e400,"big":9007199254740993}')


@pytest.fixture
def lab() -> Iterator[SignalingServer]:
    """The server of the real device."""
    with SignalingServer() as server:
        yield server


@pytest.fixture
def real(lab: SignalingServer) -> Iterator[FakeDevice]:
    """The real device."""
    with FakeDevice(lab, "cvd-1", info={"displays": ["real"]}) as device:
        device.on("request-offer", reply_with=OFFER)
        device.on("bugreport", reply_with=[{"type": "part", "n": 1}, {"type": "part", "n": 2}])
        yield device


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "boot.jsonl"


def ask(server: SignalingServer, *types: str, answers: int) -> list[RawJson]:
    """The answers that a new client gets for payloads of these types."""
    with FakeClient(server) as client:
        for kind in types:
            client.send({"type": kind})
        return [client.recv().raw or RawJson("null") for _ in range(answers)]


def test_once_records_and_then_replays(
    server: SignalingServer, lab: SignalingServer, real: FakeDevice, file: Path
) -> None:
    with ReplayDevice(server, file, mode="once", real=lab) as device:
        with FakeClient(server) as client:
            assert client.device_info == {"displays": ["real"]}
            client.send({"type": "request-offer"})
            assert client.recv().raw == OFFER
        assert ask(server, "bugreport", answers=2) == ['{"type": "part", "n": 1}', '{"type": "part", "n": 2}']
        assert device.unmatched == [] and not file.exists()
    cassette = Cassette.load(file)
    assert (cassette.device_id, cassette.device_info) == ("cvd-1", {"displays": ["real"]})
    assert [(line.sender, line.client, line.type) for line in cassette.lines] == [
        ("client", 1, "request-offer"),
        ("device", 1, "offer"),
        ("client", 2, "bugreport"),
        ("device", 2, "part"),
        ("device", 2, "part"),
    ]
    before = file.read_bytes()
    lab.stop()
    with ReplayDevice(server, file, mode="once", real="ws://127.0.0.1:1") as device:
        assert ask(server, "request-offer", answers=1) == [OFFER]
        with FakeClient(server) as client:
            client.send({"type": "unknown"})
            device.recv(type="unknown", check_type=False)
        assert device.unmatched == [{"type": "unknown"}]
    assert file.read_bytes() == before


def test_new_adds_what_the_file_lacks(
    server: SignalingServer, lab: SignalingServer, real: FakeDevice, file: Path
) -> None:
    recorded = (Line("client", 3, {"type": "request-offer"}), Line("device", 3, {"type": "offer", "sdp": "recorded"}))
    Cassette("cvd-1", {"displays": ["recorded"]}, recorded).save(file)
    with ReplayDevice(server, file, mode="new", real=lab) as device:
        with FakeClient(server) as client:
            assert client.device_info == {"displays": ["recorded"]}
            client.send({"type": "request-offer"})
            assert client.recv().payload == {"type": "offer", "sdp": "recorded"}
            assert lab.clients() == [], "the real device is not asked for what the cassette has"
            client.send({"type": "bugreport"})
            assert [client.recv().payload["n"] for _ in range(2)] == [1, 2]
            assert len(lab.clients()) == 1
        wait_until(lambda: lab.clients() == [])
        assert device.unmatched == []
    assert [message.type for message in iter_messages(real)] == ["bugreport"]
    cassette = Cassette.load(file)
    assert cassette.device_info == {"displays": ["recorded"]} and cassette.lines[:2] == recorded
    assert [(line.sender, line.client, line.type) for line in cassette.lines[2:]] == [
        ("client", 3, "bugreport"),
        ("device", 3, "part"),
        ("device", 3, "part"),
    ]
    assert device.cassette == cassette
    with ReplayDevice(server, file) as device:
        assert [json.loads(raw).get("n") for raw in ask(server, "bugreport", "request-offer", answers=3)] == [
            1,
            2,
            None,
        ]
        assert device.unmatched == []


def iter_messages(device: FakeDevice) -> Iterator[Any]:
    """The payloads that have come, in order."""
    while True:
        try:
            yield device.recv(timeout=0.01)
        except TimeoutError:
            return


def test_new_without_a_file_records_all(
    server: SignalingServer, lab: SignalingServer, real: FakeDevice, file: Path
) -> None:
    with ReplayDevice(server, file, "mine", mode="new", real=lab.url, real_device_id="cvd-1"):
        with FakeClient(server, "mine") as client:
            client.send({"type": "request-offer"})
            client.recv()
    assert Cassette.load(file).device_id == "mine" and len(Cassette.load(file).lines) == 2


def test_file_without_news_is_not_written(server: SignalingServer, lab: SignalingServer, file: Path) -> None:
    file.write_text('{"cassette": 1, "device_id": "cvd-1"}  \n\n')
    with ReplayDevice(server, file, mode="new", real=lab):
        pass
    assert file.read_text() == '{"cassette": 1, "device_id": "cvd-1"}  \n\n'


def test_asynchronous_device_adds_later_messages(lab: SignalingServer, real: FakeDevice, file: Path) -> None:
    """The real device sends on when it was not asked."""

    async def main() -> None:
        async with SignalingServer() as server:
            async with AsyncReplayDevice(server, file, mode="once", real=lab), AsyncFakeClient(server) as client:
                await client.send({"type": "request-offer"})
                await client.recv()
                number = lab.clients()[0].client_id
                await asyncio.to_thread(real.send, {"type": "later"}, number)
                assert (await client.recv(check_type=False)).type == "later"

    asyncio.run(main())
    assert [line.type for line in Cassette.load(file).lines] == ["request-offer", "offer", "later"]


def test_real_device_with_token_and_tls(server: SignalingServer, file: Path) -> None:
    tls = Tls.self_signed()
    with SignalingServer(tls=tls, authorize=StaticTokens({"s3cret": "alice"})) as lab:
        headers = {"Authorization": "Bearer s3cret"}
        with FakeDevice(lab, headers=headers, info=1).on("a", reply_with={"type": "b"}):
            options = {"headers": headers, "tls": tls.client_context()}
            with ReplayDevice(server, file, mode="once", real=lab.url, real_options=options):
                assert ask(server, "a", answers=1) == ['{"type": "b"}']
    assert "s3cret" not in file.read_text()


# Faults ---------------------------------------------------------------------------------------------------------------


def test_real_device_is_not_there_at_the_start(server: SignalingServer, lab: SignalingServer, file: Path) -> None:
    with pytest.raises(CassetteError, match=r"boot.jsonl': the real device fails: .*Device not found: 'cvd-1'"):
        ReplayDevice(server, file, mode="once", real=lab).start()
    assert server.devices() == [] and not file.exists()


def test_real_device_is_not_there_when_it_is_needed(server: SignalingServer, lab: SignalingServer, file: Path) -> None:
    Cassette("cvd-1", None, ()).save(file)
    before = file.read_bytes()
    device = ReplayDevice(server, file, mode="new", real=lab).start()
    with FakeClient(server) as client:
        client.send({"type": "a"})
        with pytest.raises(CassetteError, match="the real device fails: .*Device not found"):
            device.recv(type="b", check_type=False)
    device.close()
    assert file.read_bytes() == before


def test_real_device_that_leaves_keeps_what_it_has_said(
    server: SignalingServer, lab: SignalingServer, real: FakeDevice, file: Path
) -> None:
    device = ReplayDevice(server, file, mode="once", real=lab).start()
    with FakeClient(server) as client:
        client.send({"type": "request-offer"})
        client.recv()
        real.close()
        wait_until(lambda: lab.clients() == [])
        client.send({"type": "bugreport"})
        with pytest.raises(CassetteError, match="the real device fails"):
            device.recv(type="x", check_type=False)
    device.close()
    assert [line.type for line in Cassette.load(file).lines][:2] == ["request-offer", "offer"]


def test_file_that_cannot_be_written_is_told_by_close(
    server: SignalingServer, lab: SignalingServer, real: FakeDevice, tmp_path: Path
) -> None:
    device = ReplayDevice(server, tmp_path / "no" / "boot.jsonl", mode="once", real=lab).start()
    with pytest.raises(CassetteError, match=r"cannot write the cassette .*No such file"):
        device.close()


def test_write_that_fails_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cassette("cvd-1", 1, ()).save(file)
    file.chmod(0o640)

    def fails(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(CassetteError, match="no space left"):
            Cassette("cvd-1", 2, ()).save(file)
    assert Cassette.load(file).device_info == 1 and os.listdir(file.parent) == ["boot.jsonl"]
    link = file.with_name("link.jsonl")
    link.symlink_to(file)
    Cassette("cvd-1", 3, ()).save(link)
    assert link.is_symlink() and Cassette.load(file).device_info == 3 and file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (
            lambda file: ReplayDevice("ws://x", file, mode=cast(Any, "all")),
            "mode: must be one of 'none', 'once', 'new', got 'all'",
        ),
        (lambda file: ReplayDevice("ws://x", Cassette("a", 1, ()), mode="new", real="ws://y"), "mode: 'new' needs"),
        (lambda file: ReplayDevice("ws://x", file, mode="once"), "real: is missing: there is no file .*boot.jsonl'"),
        (lambda file: ReplayDevice("ws://x", file, mode="new"), "real: is missing: there is no file"),
        (lambda file: ReplayDevice("ws://x", file, mode="new", real="x"), "real: must be a server or a URL"),
        (
            lambda file: ReplayDevice("ws://x", file, mode="new", real="ws://y", real_options={"tls": 1}),
            r"real_options\['tls'\]: must be an ssl.SSLContext",
        ),
        (
            lambda file: ReplayDevice("ws://x", file, mode="new", real="ws://y", real_options={"token": 1}),
            "real_options: must be options of FakeClient",
        ),
    ],
)
def test_wrong_options_are_refused(make: Callable[[Path], object], what: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{what}"):
        make(file)


def test_mode_none_needs_the_file(file: Path) -> None:
    with pytest.raises(CassetteError, match="cannot read the cassette"):
        ReplayDevice("ws://x", file, real="ws://y")
