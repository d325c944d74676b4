"""`pytest --signaling-conformance=URL`: the rules are items, also with pytest-xdist."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from cuttlefish_signaling import Limits, SignalingServer, StaticTokens, Tls
from cuttlefish_signaling.conformance import rules_of

from plugin_suite import run

pytest_plugins = ["pytester"]

FAILED = "FAILED signaling-conformance::"


@pytest.fixture
def url() -> Iterator[str]:
    with SignalingServer(limits=Limits(first_message_timeout=1, probe_timeout=1)) as server:
        yield server.url


def test_rules_are_items(pytester: pytest.Pytester, url: str) -> None:
    pytester.makepyfile(test_it="def test_other(): pass")
    result = run(pytester, "-v", f"--signaling-conformance={url}", "--strict-markers", "--junit-xml=report.xml")
    count = len(rules_of("spec"))
    result.assert_outcomes(passed=count, xfailed=1)  # test_other is one; waiting.flow is a may.
    result.stdout.fnmatch_lines(["*signaling-conformance::handshake.endpoints PASSED*"])
    names = {case.get("name") for case in ElementTree.parse(pytester.path / "report.xml").iter("testcase")}
    assert names >= {rule.id for rule in rules_of("spec")}


def test_items_can_be_selected_and_distributed(pytester: pytest.Pytester, url: str) -> None:
    pytester.makepyfile(test_it="def test_other(): assert False")
    options = (f"--signaling-conformance={url}", "-m", "signaling_conformance")
    run(pytester, *options, "-k", "payload or ping").assert_outcomes(passed=3, deselected=12)
    pytester.makeini(
        "[pytest]\nsignaling_conformance_profile = strict\n"
        "signaling_conformance_settings = first_message_timeout=1 probe_timeout=1"
    )
    result = run(pytester, *options, "-n", "2", "-k", "connect or handshake", randomly=True)
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] > 25
    assert set(outcomes) <= {"passed", "skipped", "xfailed", "warnings"}


def test_failed_must_shows_its_transcript(pytester: pytest.Pytester) -> None:
    with SignalingServer(ice_servers=lambda ctx: [{"urls": "stun:x"}], device_wait_timeout=60) as server:
        result = run(
            pytester, f"--signaling-conformance={server.url}", "--signaling-conformance-profile=reference",
            "--signaling-timeout=0.3", "-k", "an-unknown-device",
        )  # fmt: skip
    result.assert_outcomes(failed=1, xfailed=0, deselected=len(rules_of("reference")) - 1)
    result.stdout.fnmatch_lines(
        [
            "*FAILED: connect.an-unknown-device-config-first-then-the-error (must)*",
            "*source:*docs/protocol.md*",
            "*heard: *nothing within 0.3 s",
            "*c *sends *connect*",
            f"{FAILED}connect.an-unknown-device-config-first-then-the-error*",
        ]
    )


def test_token_and_certificate(pytester: pytest.Pytester) -> None:
    tls = Tls.self_signed()
    pytester.makefile(".pem", ca=tls.certificate_pem)
    pytester.makefile(".txt", token="s3cret\n")
    with SignalingServer(tls=tls, authorize=StaticTokens({"s3cret": "a"})) as server:
        options = (f"--signaling-conformance={server.url}", "--signaling-ca=ca.pem", "-k", "endpoints or ping")
        run(pytester, *options, "--signaling-conformance-token=@token.txt").assert_outcomes(passed=2, deselected=12)
        refused = run(pytester, *options)
    refused.assert_outcomes(failed=2, deselected=12)
    refused.stdout.fnmatch_lines(["*cannot be judged: http: *status 401*"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--signaling-conformance=x"], "--signaling-conformance: url: must be ws://"),
        (
            ["--signaling-conformance=ws://x", "--signaling-conformance-profile=y"],
            "--signaling-conformance-profile: 'y'",
        ),
        (
            ["--signaling-conformance=ws://x", "--signaling-conformance-settings=y"],
            "--signaling-conformance-settings: must be NAME=VALUE",
        ),
    ],
)
def test_wrong_options_are_usage_errors(pytester: pytest.Pytester, options: list[str], text: str) -> None:
    result = run(pytester, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {text}*"])


def test_unreachable_server_fails_each_rule(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--signaling-conformance=ws://nowhere.invalid", "-k", "ping or kinds")
    result.stdout.fnmatch_lines(["collected 14 items / 12 deselected / 2 selected"])
    result.assert_outcomes(failed=2, deselected=12)
    result.stdout.fnmatch_lines(["*ws://nowhere.invalid cannot be judged: dns: *"])
