"""`conform device` and `conform client`: good programs pass, and each fault is found by its rule."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from small_programs import Subject, client, device

from cuttlefish_signaling import ConfigError
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.conformance import (
    PROGRAM_PROFILES,
    Outcome,
    Report,
    Severity,
    check_client,
    check_device,
    check_program_async,
    program_rules_of,
)
from cuttlefish_signaling.conformance._program import Program
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice

import idle_clock
from device_program import PROGRAM, build
from peers import PATIENCE, wait_until

SLOW = ("device.half-open",)
"""Rules that take as long as a program needs to miss a pong."""


def failed(report: Report, *severities: Severity) -> list[str]:
    return [
        result.rule.id
        for result in report.results
        if result.outcome is Outcome.FAILED and result.rule.severity in (severities or tuple(Severity))
    ]


# Programs that pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROGRAM_PROFILES)
def test_legacy_device_on_libwebsockets_passes(profile: str) -> None:
    build()
    command = [str(PROGRAM), "{device_url}", "{device_id}", "50", "1", "2"]
    report = check_device(command, profile=profile, timeout=PATIENCE / 2)
    assert failed(report) == [], report
    assert report.passed
    assert report.count(Outcome.PASSED) == len(program_rules_of("device", profile))


@pytest.mark.parametrize("name", ["legacy", "current"])
def test_fake_device_passes(name: Any) -> None:
    async def fake(url: str) -> None:
        async with AsyncFakeDevice(url, profile=name, backoff=0.05) as fake_device:
            fake_device.on("request-offer", reply_with={"type": "offer", "sdp": "v=0"})
            await asyncio.Event().wait()

    report = check_device(fake, profile="cuttlefish", timeout=PATIENCE / 2, skip=SLOW)
    assert failed(report) == [], report
    assert report.passed


def test_fake_client_passes() -> None:
    async def fake(url: str) -> None:
        async with AsyncFakeClient(url) as fake_client:
            fake_client.on("offer", reply_with={"type": "answer", "sdp": "v=0"})
            await fake_client.send({"type": "request-offer"})
            await fake_client.wait_closed(None)

    report = check_client(fake, timeout=PATIENCE / 2)
    assert failed(report) == [], report
    assert report.passed


@pytest.mark.parametrize("profile", PROGRAM_PROFILES)
@pytest.mark.parametrize("kind", ["device", "client"])
def test_small_program_passes(kind: str, profile: str) -> None:
    subject: Subject = device() if kind == "device" else client()
    skip = [rule.id for rule in program_rules_of(kind, profile) if rule.id in SLOW]
    report = asyncio.run(check_program_async(kind, subject, profile=profile, timeout=PATIENCE / 2, skip=skip))
    assert failed(report) == [], report
    assert report.passed


# Faults ---------------------------------------------------------------------------------------------------------------

DEVICE_FAULTS = {
    "first": "device.registers",
    "empty id": "device.registers",
    "long id": "device.registers",
    "binary": "device.registers",
    "pong": "device.answers-ping",
    "early": "device.own-clients",
    "string id": "device.own-clients",
    "other client": "device.own-clients",
    "config again": "device.config-again",
    "config fields": "device.config-fields",
    "null": "device.payload-kinds",
    "large": "device.large-frame",
    "unknown client": "device.unknown-client-disconnected",
    "all clients": "device.client-disconnected",
    "candidates": "device.reordered",
    "twice": "device.duplicates",
    "error": "device.error",
    "storm": "device.no-storm",
    "no back-off": "device.back-off",
    "gives up": "device.returns-after-close",
    "other id": "device.returns-after-close",
    "subprotocol": "device.subprotocol",
}

CLIENT_FAULTS = {
    "first": "client.connects",
    "other device": "client.device-id",
    "early": "client.waits-for-device-info",
    "no payload": "client.payload-kinds",
    "pong": "client.answers-ping",
    "config again": "client.config-again",
    "null info": "client.device-info-null",
    "null": "client.payload-kinds",
    "candidates": "client.disorder",
    "large": "client.large-message",
    "storm": "client.device-disconnected",
}


@pytest.mark.parametrize(("fault", "rule"), DEVICE_FAULTS.items(), ids=list(DEVICE_FAULTS))
def test_fault_of_device_is_found(fault: str, rule: str) -> None:
    profile = "cuttlefish" if fault == "subprotocol" else "spec"
    report = check_device(device(fault), profile=profile, timeout=1.0, only=[rule, "device.config-fields"])
    assert rule in failed(report), report
    result = next(result for result in report.results if result.rule.id == rule)
    assert result.expected and result.heard and result.transcript
    assert report.exit_status == (1 if failed(report, Severity.MUST) else 0)


@pytest.mark.parametrize(("fault", "rule"), CLIENT_FAULTS.items(), ids=list(CLIENT_FAULTS))
def test_fault_of_client_is_found(fault: str, rule: str) -> None:
    report = check_client(client(fault), timeout=1.0, only=[rule])
    assert failed(report) == [rule], report


def test_faults_are_found_by_no_unrelated_rule() -> None:
    report = check_device(device("unknown client"), timeout=PATIENCE / 2)
    assert failed(report) == ["device.unknown-client-disconnected"]
    report = check_client(client("candidates"), timeout=PATIENCE / 2)
    assert failed(report) == ["client.disorder"]


def test_each_must_has_a_fault() -> None:
    musts = {
        rule.id
        for kind in ("device", "client")
        for rule in program_rules_of(kind, "spec")
        if rule.severity is Severity.MUST
    }
    # A program with one of these faults also fails another rule: it leaves where it should stay.
    similar = {"device.late-message", "client.device-not-found", "client.lost-connection"}
    assert musts - set(DEVICE_FAULTS.values()) - set(CLIENT_FAULTS.values()) == similar


# Programs that cannot be judged ---------------------------------------------------------------------------------------


def test_program_that_does_not_connect_is_a_problem() -> None:
    async def idle(_: str) -> None:
        await asyncio.Event().wait()

    async def raises(_: str) -> None:
        raise ValueError("no such flag")

    async def connects_elsewhere(url: str) -> None:
        await device("path")(url)

    for subject, stage, text in (
        (idle, "connect", "no connection within"),
        (raises, "process", "it raised ValueError: no such flag"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "process", "it ended with status 3"),
        (["/nowhere/device"], "process", "no start: No such file or directory"),
    ):
        report = check_device(subject, timeout=0.1 if subject is idle else PATIENCE)
        assert report.problem is not None
        assert (report.problem.stage, report.exit_status) == (stage, 2)
        assert text in report.problem.text
    elsewhere = idle_clock.run(
        check_program_async("device", connects_elsewhere, timeout=1.0, only=["device.registers"])
    )
    assert [(result.stage, result.heard) for result in elsewhere.failures] == [("http", "/wrong")]


def test_program_is_ended_with_its_children(tmp_path: Path) -> None:
    """It ignores SIGTERM, and has started another process that ignores it as well."""
    file = tmp_path / "child"
    code = f"""
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
new = pathlib.Path({str(file)!r} + ".new")
new.write_text(str(child.pid))
new.rename({str(file)!r})
time.sleep(600)
"""

    async def run() -> int:
        program = Program([sys.executable, "-c", code], {"url": "", "device_id": ""})
        await program.start()
        while not file.exists():
            await asyncio.sleep(0)
        await program.stop()
        assert program.task is not None
        return int(file.read_text())

    child = asyncio.run(asyncio.wait_for(run(), PATIENCE))
    wait_until(
        lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    )


def test_program_that_its_author_starts() -> None:
    """Without a command the URL is told, and each rule takes the next connection."""

    async def judge() -> Report:
        tasks: list[asyncio.Task[None]] = []

        async def started(url: str) -> None:
            await device()(url)

        try:
            return await check_program_async(
                "device",
                None,
                timeout=PATIENCE / 2,
                only=["device.registers", "device.answers-ping"],
                on_url=lambda url: tasks.append(asyncio.ensure_future(started(url))),
            )
        finally:
            for task in tasks:
                task.cancel()

    report = asyncio.run(judge())
    assert report.passed
    assert report.count(Outcome.PASSED) == 2


# The command line -----------------------------------------------------------------------------------------------------


def test_command_judges_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    build()
    command = [str(PROGRAM), "{device_url}", "{device_id}", "50"]
    options = ["--device-id", "cvd-9", "--only", "device.registers", "--only", "device.answers"]
    assert main(["conform", "device", *options, "--", *command]) == 0
    assert "profile spec: 2 passed, failed: 0 must, 0 skipped" in capsys.readouterr().out
    assert main(["conform", "client", "--only", "client.connects", "false"]) == 2
    assert "cannot be judged: process:" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["device", "client"])
def test_list_and_wrong_usage(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", kind, "--list", "--profile", "cuttlefish"]) == 0
    assert f"{kind}.answers-ping  must" in capsys.readouterr().out
    for arguments, text in ((["--listen", "x", "true"], "--listen: must be"), (["--cert", "/x", "true"], "--cert: /x")):
        assert main(["conform", kind, *arguments]) == 2
        assert text in capsys.readouterr().err
    for bad in ("true", [], [1]):
        with pytest.raises(ConfigError):
            check_device(bad)  # type: ignore[arg-type]
