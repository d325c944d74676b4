"""`conform server`: this server passes, bad servers are findings with their stage, reports say what happened."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cuttlefish_signaling import ConfigError, Limits, SignalingServer, StaticTokens, Tls
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.conformance import (
    PROFILES,
    Outcome,
    Report,
    Severity,
    check_server,
    check_server_async,
    rules_of,
    tls_context,
)

import conformance_sentences
import idle_clock
from bad_servers import BAD, FOREVER, Bad, bad_server
from mutants_of_messages import errors_are_objects
from small_server import Request, SmallServer, WebSocketLink

TIMEOUTS: dict[str, Any] = {"first_message_timeout": 2.0, "probe_timeout": 2.0}
PATIENCE = 30.0


def failed(report: Report) -> list[str]:
    return [f"{result.rule.id}: {result.reason}: {result.heard}" for result in report.results if result.is_failure]


# This server ----------------------------------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"device_wait_timeout": 0.5},
    {"on_duplicate": "replace"},
    {"client_ids": "unique"},
    {"max_message_size": 2000},
    {"one_client_per_device": True},
]


@pytest.mark.parametrize("more", SETTINGS, ids=[",".join(more) or "defaults" for more in SETTINGS])
def test_this_server_passes_strict(more: dict[str, Any]) -> None:
    settings = {**TIMEOUTS, **more}
    limits = Limits(**{name: settings.pop(name) for name in (*TIMEOUTS, "max_message_size") if name in settings})
    with SignalingServer(limits=limits, **settings) as server:
        report = check_server(server.url, profile="strict", timeout=PATIENCE, settings={**TIMEOUTS, **more})
    assert failed(report) == []
    assert report.passed
    assert report.count(Outcome.PASSED) > 200


@pytest.mark.parametrize("profile", PROFILES)
def test_this_server_passes_each_profile_over_tls(profile: str) -> None:
    tls = Tls.self_signed()
    with SignalingServer(tls=tls, limits=Limits(**TIMEOUTS)) as server:
        report = check_server(
            server.url, profile=profile, tls=tls.client_context(), timeout=PATIENCE, settings=TIMEOUTS
        )
    assert failed(report) == []
    assert report.passed


def test_token_and_prefix() -> None:
    with SignalingServer(authorize=StaticTokens({"s3cret": "a"})) as server:
        refused = check_server(server.url)
        assert refused.problem is not None
        assert refused.problem.stage == "http"
        assert "--token" in refused.problem.advice
        assert refused.exit_status == 2
        assert check_server(f"{server.url}/register_device?x=y", token="s3cret").passed
        assert check_server(server.url, headers={"Authorization": "Bearer s3cret"}).passed


def test_settings_that_a_case_needs_are_named() -> None:
    with SignalingServer() as server:
        report = check_server(server.url, profile="strict", only=["1.18", "4.1.14"])
    skipped = [result for result in report.results if result.outcome is Outcome.SKIPPED]
    assert {result.rule.id.partition(".")[0] for result in skipped} == {"waiting", "today", "duplicates"}
    assert all("--setting" in result.reason for result in skipped)


# Bad servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_bad_server_is_a_finding_with_its_stage(bad: Bad) -> None:
    async def judge() -> Report:
        async with bad_server(bad.handle) as port:
            scheme = "wss" if bad.is_tls else "ws"
            return await check_server_async(f"{scheme}://127.0.0.1:{port}", timeout=bad.timeout, tls=insecure())

    report = idle_clock.run(asyncio.wait_for(judge(), PATIENCE))
    assert report.problem is not None
    assert report.problem.stage == bad.stage
    assert bad.text in str(report.problem)
    assert report.exit_status == 2
    assert report.results == ()


def insecure() -> ssl.SSLContext:
    return tls_context(insecure=True)


def test_wrong_certificate_and_unknown_name() -> None:
    with SignalingServer(tls=Tls.self_signed()) as server:
        untrusted = check_server(server.url)
        assert untrusted.problem is not None
        assert untrusted.problem.stage == "tls"
        assert "--ca" in untrusted.problem.advice
        assert check_server(server.url, tls=insecure()).passed
    unknown = check_server("ws://nowhere.invalid").problem
    assert unknown is not None
    assert unknown.stage == "dns"


def test_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        problem = check_server(f"ws://127.0.0.1:{taken.getsockname()[1]}").problem
    assert problem is not None
    assert (problem.stage, "refuses connections" in problem.text) == ("tcp", True)


@pytest.mark.parametrize("name", ["text", "binary", "frames", "flood", "deep", "close", "never", "ends"])
def test_nonsense_after_the_handshake_is_a_failure_of_each_rule(name: str) -> None:
    """The connection opens, and then the server sends no message of the protocol."""

    def nonsense(link: WebSocketLink, text: str) -> None:
        if name == "text":
            link.protocol.send_text(b"hello")
        elif name == "deep":
            link.protocol.send_text(b"[" * 100_000)
        elif name == "binary":
            link.protocol.send_binary(b"\x00")
        elif name == "close":
            link.protocol.send_close(1011, "x")
        elif name == "flood":
            for _ in range(1000):
                link.protocol.send_text(b"{}")
        elif name == "frames":
            link._writer.write(b"\xf7\xff\xff\xff")
        elif name == "ends":
            link._writer.close()

    skip = ["handshake.*", "frames.ping"]

    async def judge() -> Report:
        server = SmallServer()
        server.send_text = nonsense  # type: ignore[method-assign]
        async with server.running() as url:
            return await check_server_async(url, timeout=0.3 if name == "never" else 5, skip=skip)

    report = idle_clock.run(asyncio.wait_for(judge(), PATIENCE))
    assert report.problem is None
    assert report.exit_status == 1
    musts = [result for result in report.results if result.rule.severity is Severity.MUST]
    assert all(result.outcome is Outcome.FAILED for result in musts), report
    assert {result.stage for result in musts} <= {"message", "websocket"}


def test_server_that_never_closes_does_not_delay_the_end() -> None:
    """It does not answer a close frame, and keeps the TCP connection."""

    async def judge() -> Report:
        server = SmallServer()
        before = server.accept

        def accept(request: Any, link: WebSocketLink, session: Any) -> bytes:
            def flush() -> None:
                for data in link.protocol.data_to_send():
                    if data[:1] not in (b"", b"\x88"):
                        link._writer.write(data)

            link.flush = flush  # type: ignore[method-assign]
            return before(request, link, session)

        server.accept = accept  # type: ignore[method-assign]
        async with server.running() as url:
            return await check_server_async(url, profile="reference", timeout=0.5, only=["leaving.*", "4.2.3"])

    report = idle_clock.run(asyncio.wait_for(judge(), PATIENCE))
    assert "connect.connect-without-a-device-id-no-config" in {result.rule.id for result in report.failures}


def test_server_that_dies_is_named_with_the_rule() -> None:
    async def judge() -> Report:
        server = SmallServer()
        is_json = server.hub.is_json

        def refuse(request: Request) -> None:
            raise ConnectionError

        def dies(text: str) -> bool:
            if text.count("[") > 20_000:
                server.check_version = refuse  # type: ignore[method-assign]
            return is_json(text)

        server.hub.is_json = dies  # type: ignore[method-assign]
        server.hub.error = lambda text: "{}"  # type: ignore[method-assign]
        async with server.running() as url:
            return await check_server_async(url, profile="strict", timeout=1, only=["4.3.4"])

    report = idle_clock.run(asyncio.wait_for(judge(), PATIENCE))
    assert report.problem is not None
    assert "since the rule malformed.device-nesting-of-30-000 the server does not answer" in report.problem.text
    assert report.exit_status == 1


# The command line and its files ---------------------------------------------------------------------------------------


def test_command_prints_a_table_and_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("junit", "json", "markdown")}
    options = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    with SignalingServer() as server:
        status = main(["conform", "server", server.url, "--only", "1.17", "--only", "waiting.flow", *options])
    printed = capsys.readouterr().out
    assert status == 0
    assert "forward.a-conversation-both-ways-and-in-order" in printed
    assert "failed: waiting.flow (may)" in printed
    assert "source:   README of webrtc_operator" in printed
    report = json.loads(files["json"].read_text())
    assert report["passed"] is True
    suite = ElementTree.parse(files["junit"]).getroot()[0]
    assert suite.get("tests") == str(len(report["results"]))
    assert suite.get("failures") == "0"
    assert [case.get("name") for case in suite] == [result["id"] for result in report["results"]]
    assert "| `waiting.flow` | may | failed |" in files["markdown"].read_text()


def test_failed_must_is_a_failure_in_each_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def judge(*arguments: str) -> int:
        server = SmallServer()
        errors_are_objects(server)
        async with server.running() as url:
            return await asyncio.to_thread(main, ["conform", "server", url, "--profile", "strict", *arguments])

    files = {name: tmp_path / name for name in ("junit", "json", "markdown")}
    options = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    assert asyncio.run(judge("--only", "4.2.3", *options)) == 1
    assert "FAILED: connect.connect-without-a-device-id-no-config (must)" in capsys.readouterr().out
    failures = ElementTree.parse(files["junit"]).findall(".//failure")
    assert [failure.get("type") for failure in failures] == ["message", "message"]
    assert '{"error":{"text":' in str(failures[0].text)
    results = json.loads(files["json"].read_text())["results"]
    assert [result["outcome"] for result in results] == ["failed", "failed"]
    assert results[0]["transcript"][0] == {"peer": "c", "verb": "opens", "text": "/connect_client"}
    assert "## connect.connect-without-a-device-id-no-config" in files["markdown"].read_text()


def test_unreachable_server_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "junit.xml"
    assert main(["conform", "server", "ws://nowhere.invalid", "--junit", str(file)]) == 2
    assert "cannot be judged: dns: no address is known for nowhere.invalid" in capsys.readouterr().out
    assert [error.get("type") for error in ElementTree.parse(file).findall(".//error")] == ["dns"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ftp://x"], "url: must be ws://"),
        (["ws://x:99999"], "url: must be ws://"),
        ([], "URL: give the URL of the server"),
        (["ws://x", "--only", "9.9"], "only: no rule of this profile has the id or number '9.9'"),
        (["ws://x", "--setting", "colour=red"], "settings: must be of client_ids"),
        (["ws://x", "--setting", "colour"], "--setting: must be NAME=VALUE"),
        (["ws://x", "--header", "colour"], "--header: must be NAME:VALUE"),
        (["ws://x", "--header", "a b: c"], "headers: must be names and values"),
        (["ws://x", "--token", "two words"], "token: must be printable ASCII"),
        (["ws://x", "--token", "@/nowhere"], "--token: /nowhere cannot be read"),
        (["ws://x", "--junit", "/nowhere/x"], "--junit: /nowhere/x cannot be written"),
        (["wss://x", "--ca", "/nowhere"], "--ca: /nowhere cannot be used"),
        (["wss://x", "--cert", "/nowhere"], "--cert: /nowhere cannot be used"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "server", *arguments]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("profile", PROFILES)
def test_list_has_each_rule_with_its_source(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "server", "--list", "--profile", profile]) == 0
    lines = capsys.readouterr().out.splitlines()
    rules = rules_of(profile)
    assert len(lines) == 2 * len(rules)
    assert len({rule.id for rule in rules}) == len(rules)
    assert all(rule.source.sentence and rule.source.place for rule in rules)


def test_arguments_of_the_library_are_checked() -> None:
    for bad in ({"profile": "loose"}, {"timeout": 0}, {"timeout": True}, {"timeout": 4000}, {"skip": ["x.*"]}):
        with pytest.raises(ConfigError):
            check_server("ws://x", **bad)


# The package ----------------------------------------------------------------------------------------------------------


def test_kit_needs_no_rust() -> None:
    code = """
import sys
sys.modules["cuttlefish_signaling._native"] = None
from cuttlefish_signaling.conformance import check_server
from cuttlefish_signaling.conformance._command import main
assert check_server("ws://127.0.0.1:1").exit_status == 2
sys.exit(main(["server", "--list"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "handshake.endpoints  must" in done.stdout


def test_kit_is_not_imported_unless_it_is_used() -> None:
    code = """
import sys
from cuttlefish_signaling.cli import main, parser
parser()
assert main(["check"]) == 0
assert not [name for name in sys.modules if "conformance" in name or name == "websockets"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sentences_are_those_of_the_document() -> None:
    written = conformance_sentences.FILE.read_text(encoding="utf-8")
    assert written == conformance_sentences.text(), "run `make conformance`"
    content = json.loads(written)
    assert len(content["rules"]) > 90
    assert [title for title, numbers in content["cases"].items() if not numbers] == [
        "register.jsonl: messages that a device pipelines behind a refusal are ignored",
    ]


assert FOREVER > PATIENCE
