"""The judges of the probe: facts to findings. No sockets."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling.probe import EXIT_STATUS, Finding, Report, Step, metrics
from cuttlefish_signaling.probe import _facts as facts
from cuttlefish_signaling.probe._http import is_complete, parsed
from cuttlefish_signaling.probe._judge_http import judge_devices, judge_http
from cuttlefish_signaling.probe._judge_media import judge_data, judge_dtls, judge_ice, judge_media
from cuttlefish_signaling.probe._judge_network import judge_dns, judge_tcp, judge_tls, names_match
from cuttlefish_signaling.probe._judge_session import judge_answer, judge_connect, judge_offer
from cuttlefish_signaling.probe._judge_turn import judge_turn
from cuttlefish_signaling.probe._signaling import candidate_text, ice_servers_of
from cuttlefish_signaling.probe._target import target_of
from cuttlefish_signaling.probe._turn import place_of, turn_servers
from cuttlefish_signaling.probe._words import shown

ROOT = Path(__file__).parents[2]
LAN = facts.Candidate("host", "udp", "10.0.0.5", 15550)
LOOP = facts.Candidate("host", "udp", "127.0.0.1", 15550)
RELAY = facts.Candidate("relay", "udp", "203.0.113.7", 50000)
OWN = facts.Candidate("host", "udp", "192.168.1.9", 40000)
MDNS = facts.Candidate("host", "udp", "abc.local", 1)
TCP = facts.Candidate("host", "tcp", "10.0.0.5", 9)


def causes(findings: tuple[Finding, ...]) -> list[str]:
    assert all(one.text and one.fix for one in findings)
    return [one.cause for one in findings]


@pytest.mark.parametrize(
    ("local", "remote", "urls", "cause"),
    [
        ([OWN], [], [], "no_remote_candidates"),
        ([OWN], [MDNS], [], "mdns_candidates"),
        ([OWN], [TCP], [], "tcp_candidates"),
        ([OWN], [LOOP], [], "loopback_candidates"),
        ([OWN, LOOP], [LOOP], [], "ice_unreachable_no_turn"),
        ([OWN], [LAN, TCP, MDNS], [], "ice_unreachable_no_turn"),
        ([OWN], [LAN], ["stun:s.lab"], "ice_unreachable_no_turn"),
        ([OWN], [LAN], ["turn:t.lab"], "ice_no_relay"),
        ([OWN, RELAY], [LAN], ["turn:t.lab"], "ice_relay_unreachable"),
        ([OWN], [RELAY], [], "ice_relay_unreachable"),
    ],
)
@pytest.mark.parametrize("state", ["checking", "failed", "new"])
def test_candidates_tell_why_ice_fails(
    local: list[facts.Candidate], remote: list[facts.Candidate], urls: list[str], cause: str, state: str
) -> None:
    found = facts.IceFacts(10, state, local=tuple(local), remote=tuple(remote), urls=tuple(urls))
    assert causes(judge_ice(found)) == [cause]


@pytest.mark.parametrize("state", ["completed", "connected"])
def test_ice_with_a_pair_is_no_finding(state: str) -> None:
    assert judge_ice(facts.IceFacts(1, state, local=(OWN,), remote=(MDNS,))) == ()


def test_end_of_signaling_comes_before_candidates() -> None:
    assert causes(judge_ice(facts.IceFacts(1, "checking", error="Device disconnected"))) == ["signaling_closed"]
    assert causes(judge_dtls(facts.DtlsFacts("connecting", 1, "closed [1006]"))) == ["signaling_closed"]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"outcome": "refused", "code": 401, "reason": "Unauthorized"}, "turn_wrong_password"),
        ({"outcome": "refused", "code": 401, "has_credentials": False}, "turn_credential_missing"),
        ({"outcome": "refused", "code": 401, "expires_in": -5.0}, "turn_credential_expired"),
        ({"outcome": "refused", "code": 401, "expires_in": 500.0}, "turn_wrong_password"),
        ({"outcome": "refused", "code": 441}, "turn_wrong_password"),
        ({"outcome": "refused", "code": 403}, "turn_forbidden"),
        ({"outcome": "refused", "code": 486}, "turn_quota"),
        ({"outcome": "refused", "code": 508}, "turn_full"),
        ({"outcome": "refused", "code": 300}, "turn_refused"),
        ({"outcome": "timeout"}, "turn_silent"),
        ({"outcome": "unknown_name"}, "turn_name_unknown"),
        ({"outcome": "unreachable", "reason": "Connection refused"}, "turn_unreachable"),
        ({"outcome": "tls", "reason": "certificate has expired"}, "turn_tls"),
        ({"outcome": "bad_url"}, "turn_bad_url"),
        ({"outcome": "other", "reason": "x"}, "turn_failed"),
        ({"relayed": "10.0.0.3", "server_address": "203.0.114.1"}, "turn_relay_private"),
        ({"relayed": "0.0.0.0", "server_address": "203.0.114.1"}, "turn_relay_private"),
        ({"relayed": "10.0.0.3", "server_address": "10.0.0.3", "expires_in": 5.0}, "turn_credential_expires_soon"),
    ],
)
def test_turn_answers(given: dict[str, Any], cause: str) -> None:
    assert causes(judge_turn((facts.TurnFacts("turn:t.lab", **given),))) == [cause]


def test_one_turn_server_is_enough() -> None:
    good = facts.TurnFacts("turn:a.lab", relayed="10.0.0.3", server_address="10.0.0.3")
    bad = facts.TurnFacts("turn:b.lab", "timeout")
    assert judge_turn((good,)) == ()
    (finding,) = judge_turn((good, bad))
    assert finding.cause == "turn_silent" and not finding.is_error
    assert all(one.is_error for one in judge_turn((bad, bad)))
    assert causes(judge_turn(())) == ["no_turn"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"has_video": False}, ["no_video"]),
        ({"packets": 0}, ["no_packets"]),
        ({"packets": 50}, ["no_frame"]),
        ({"ended": "failed"}, ["media_ended"]),
        ({"packets": 95, "lost": 5, "frames": 3}, []),
        ({"packets": 94, "lost": 6, "frames": 3}, ["packet_loss"]),
        ({"packets": 100, "lost": -3, "frames": 3}, []),
        ({"packets": 50, "lost": 50, "frames": 3, "ended": "closed"}, ["packet_loss", "media_ended"]),
    ],
)
def test_video(given: dict[str, Any], found: list[str]) -> None:
    assert causes(judge_media(facts.MediaFacts(5, **given))) == found


def test_data_channels() -> None:
    assert judge_data(facts.DataFacts(1, labels=("device-control",))) == ()
    (finding,) = judge_data(facts.DataFacts(1, has_section=False))
    assert finding.cause == "no_data_section" and not finding.is_error
    (finding,) = judge_data(facts.DataFacts(1, pending=("adb",)))
    assert finding.cause == "data_channel_timeout" and "adb did not open" in finding.text


def test_dtls() -> None:
    assert judge_dtls(facts.DtlsFacts("connected", 1)) == ()
    assert causes(judge_dtls(facts.DtlsFacts("failed", 1))) == ["dtls_failed"]
    assert causes(judge_dtls(facts.DtlsFacts("connecting", 9))) == ["dtls_timeout"]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"outcome": "refused", "reason": "x"}, "answer_impossible"),
        ({"outcome": "closed"}, "signaling_closed"),
        ({}, "no_local_candidates"),
        ({"local": (OWN,), "urls": ("turn:t",)}, "no_relay_candidate"),
        ({"local": (OWN,), "urls": ("stun:s",)}, "no_stun_answer"),
    ],
)
def test_answer(given: dict[str, Any], cause: str) -> None:
    assert causes(judge_answer(facts.AnswerFacts(**given))) == [cause]


def test_connect_and_offer() -> None:
    def connected(outcome: str, **given: Any) -> list[str]:
        return causes(judge_connect(facts.ConnectFacts("cvd-1", outcome, **given)))

    assert connected("connected") == []
    assert connected("connected", strings=True) == ["ice_urls_string"]
    assert connected("refused", error="Connection failed: Device not found: 'cvd-1'") == ["device_not_registered"]
    assert connected("timeout") == ["connect_silent"]
    assert connected("closed", close="[1011]") == ["connect_closed"]
    assert connected("no_info") == ["no_device_info"]
    assert causes(judge_offer(facts.OfferFacts("cvd-1", 1, "closed"))) == ["signaling_closed"]


def test_network() -> None:
    assert judge_dns(facts.DnsFacts("x", ("10.0.0.1",))) == ()
    bad = [facts.Attempt("10.0.0.1", 1, outcome) for outcome in ("timeout", "unreachable", "other", "refused")]
    assert [causes(judge_tcp((one,)))[0] for one in bad] == ["tcp_timeout", "unreachable", "tcp_failed", "port_closed"]
    assert causes(judge_tls(facts.TlsFacts("x", 0, "unverified", "odd", 0))) == ["certificate_refused"]
    assert causes(judge_tls(facts.TlsFacts("x", 0, "no_http_1"))) == ["http2_only"]
    assert causes(judge_tls(facts.TlsFacts("x", 0, "other", "no protocols available"))) == ["tls_failed"]
    assert causes(judge_tls(facts.TlsFacts("x", 0, "unverified", "expired", 10))) == ["certificate_expired"]


@pytest.mark.parametrize(
    ("host", "names", "matches"),
    [
        ("signal.lab", ("signal.lab",), True),
        ("SIGNAL.lab.", ("signal.LAB",), True),
        ("signal.lab", ("*.lab",), True),
        ("a.signal.lab", ("*.lab",), False),
        ("lab", ("*.lab", "*"), True),
        ("127.0.0.1", ("127.0.0.1",), True),
        ("::1", ("0:0:0:0:0:0:0:1",), True),
        ("127.0.0.1", ("*.0.0.1", "localhost"), False),
    ],
)
def test_names_of_certificates(host: str, names: tuple[str, ...], matches: bool) -> None:
    assert names_match(host, names) is matches


def test_devices_without_list_are_a_warning() -> None:
    (finding,) = judge_devices(facts.DevicesFacts(facts.HttpFacts("/devices", status=404), None, "cvd-1"))
    assert finding.cause == "no_device_list" and not finding.is_error
    http = facts.HttpFacts("/devices", status=200)
    (finding,) = judge_devices(facts.DevicesFacts(http, tuple(f"cvd-{n}" for n in range(20)), "x"))
    assert finding.cause == "device_not_registered" and "cvd-7 and 12 more" in finding.text


def test_answers_of_http() -> None:
    assert judge_http(facts.HttpFacts("/", status=404)) == ()
    assert causes(judge_http(facts.HttpFacts("/", status=403, has_token=True))) == ["wrong_token"]
    assert causes(judge_http(facts.HttpFacts("/", status=403))) == ["forbidden"]
    assert causes(judge_http(facts.HttpFacts("/", "other", reason="x"))) == ["http_failed"]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert parsed("/", chunked).body == b"{}"
    assert not is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab")
    assert is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    assert is_complete(b"HTTP/1.1 204 No\r\n\r\n")


def test_urls() -> None:
    assert target_of("https://[::1]:8443/a/connect_client") == (True, "::1", 8443, "/a")
    assert target_of("https://[::1]:8443/").authority == "[::1]:8443"
    assert target_of("wss://signal.lab").authority == "signal.lab"
    assert target_of("ws://127.0.0.1").is_loopback and not target_of("ws://signal.lab").is_loopback
    assert place_of("turn:t.lab") == ("t.lab", 3478, "udp", False)
    assert place_of("turns:[2001:db8::1]") == ("2001:db8::1", 5349, "tcp", True)
    assert place_of("turn:t.lab:5?transport=tcp") == ("t.lab", 5, "tcp", False)
    for bad in ("turn:", "turns:t?transport=udp", "turn:t:99999", "stun:t", "turn:a b", "turn:u@t"):
        assert place_of(bad) is None


def test_ice_servers_of_any_shape() -> None:
    odd: list[Any] = [None, 1, {}, {"urls": 5}, {"urls": [None, "turn:a"]}, {"urls": "turn:b", "username": 7}]
    assert [server.url for server in turn_servers(odd)] == ["turn:a", "turn:b"]
    assert ice_servers_of(odd, 0.0) == (("turn:a", "turn:b"), True, ())
    timed = [{"urls": ["turn:a"], "username": "1000000000:x"}]
    assert ice_servers_of(timed, 1000000005.0)[2] == (5.0,)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"type": "ice-candidate", "mid": "0", "mLineIndex": 0, "candidate": "c"}, ("0", "c", 0)),
        ({"type": "ice-candidate", "candidate": {"candidate": "c", "sdpMid": "1", "sdpMLineIndex": 1}}, ("1", "c", 1)),
        ({"type": "ice-candidate"}, None),
        ({"type": "ice-candidate", "candidate": {"candidate": "c", "sdpMid": 1}}, None),
        ({"type": "offer"}, None),
        ([], None),
    ],
)
def test_candidates_in_payloads(payload: Any, found: Any) -> None:
    assert candidate_text(payload) == found


def test_texts_of_peers_are_bounded_and_escaped() -> None:
    assert shown("a\x1b[2J\n\u202e") == "a\\x1b[2J\\n\\u202e"
    assert len(shown("x" * 1000)) == 203


# Reports --------------------------------------------------------------------------------------------------------------


def test_status_is_that_of_the_first_stage_that_failed() -> None:
    wrong = (Finding("no_pong", "x", "y"),)
    steps = (
        Step("tcp", "ok", 0.1, "", {}),
        Step("ping", "failed", 0.2, "", {}, wrong),
        Step("ice", "failed", 1, "", {}, wrong),
    )
    report = Report("ws://x", None, 1.0, 2.0, steps)
    assert (report.failed_stage, report.exit_status, report.cause) == ("ping", 15, "no_pong")
    with pytest.raises(KeyError):
        report.step("tls")


def test_metrics_are_readable_by_prometheus() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    findings = (Finding("certificate_expires_soon", "x", "y", is_error=False),)
    steps = (
        Step("tls", "warning", 0.1, "", {"expires": 123.0}, findings),
        Step("ping", "ok", 0.1, "", {"median_seconds": 0.5}),
        Step("devices", "skipped", 0, "", {}),
    )
    report = Report("wss://x", 'a"b\\c\nd', 1.0, 2.0, steps)
    families = {family.name: family for family in text_string_to_metric_families(metrics(report))}
    prefix = "cuttlefish_signaling_probe_"
    (success,) = families[f"{prefix}success"].samples
    assert success.value == 1 and success.labels == {"target": "wss://x", "device": 'a"b\\c\nd'}
    stages = {sample.labels["stage"]: sample.value for sample in families[f"{prefix}stage_success"].samples}
    assert stages == {"tls": 1, "ping": 1}
    assert families[f"{prefix}certificate_expiry_timestamp_seconds"].samples[0].value == 123
    assert families[f"{prefix}ping_seconds"].samples[0].value == 0.5
    (finding,) = families[f"{prefix}finding"].samples
    assert finding.labels["cause"] == "certificate_expires_soon" and finding.labels["severity"] == "warning"


def in_code() -> set[str]:
    """The causes that the judges name."""
    found = set()
    for path in (ROOT / "python/cuttlefish_signaling/probe").glob("_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Finding":
                continue
            if node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def test_guide_lists_each_cause_and_each_exit_status() -> None:
    guide = (ROOT / "docs" / "probe.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)
    assert len(in_code()) > 60
    assert sorted(set(rows) - set(EXIT_STATUS)) == sorted(in_code())
    for stage, status in EXIT_STATUS.items():
        assert re.search(rf"^\| `{stage}` \| {status} \|", guide, re.MULTILINE), stage
