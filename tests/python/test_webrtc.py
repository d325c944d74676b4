"""Real WebRTC peers negotiate through this server, by examples/webrtc_session.py."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "webrtc_session.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("webrtc_session", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check(example: ModuleType, outcome: Any, device_info: Any) -> None:
    assert outcome.device_info == device_info
    for name in ("request-offer", "offer", "answer", "ice-candidate"):
        assert f" {name} " in outcome.transcript
    assert outcome.heard_by_client == "hello from the device"
    assert outcome.heard_by_device == "hello from the client"
    assert len(outcome.frames) == 5
    assert {(frame.width, frame.height) for frame in outcome.frames} == {(320, 240)}
    shades = [bytes(frame.planes[0])[0] for frame in outcome.frames]
    assert len(set(shades)) > 1, f"the picture does not change: {shades}"


def test_plain_session(example: ModuleType) -> None:
    outcome = asyncio.run(asyncio.wait_for(example.plain(), 60))
    check(example, outcome, example.DEVICE_INFO)


def test_tls_session_with_hooks(example: ModuleType) -> None:
    outcome = asyncio.run(asyncio.wait_for(example.with_hooks(), 60))
    shown = {key: value for key, value in example.DEVICE_INFO.items() if key != "adb_port"}
    check(example, outcome, shown)


def test_session_through_a_proxy(example: ModuleType) -> None:
    async def through_a_proxy() -> Any:
        async with SignalingServer() as behind, SignalingServer(upstream=behind.url, journal=True) as proxy:
            outcome = await example.session(proxy)
            assert proxy.stats().accepted == behind.stats().accepted > 3
            return outcome

    check(example, asyncio.run(asyncio.wait_for(through_a_proxy(), 60)), example.DEVICE_INFO)


def test_example_runs_as_script(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    old = sys.argv
    sys.argv = ["webrtc_session.py", "--tls"]
    try:
        example.main()
    finally:
        sys.argv = old
    assert "video frames:    5 of 320x240" in capsys.readouterr().out
