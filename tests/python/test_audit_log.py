"""The audit log: a line of JSON for each admission, each refusal and each change, and none with a secret."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from control_requests import TOKEN, Control, controlled_server
from test_adb import adb_client, closed_with
from test_dashboard_manage import disconnect
from test_jwt import bearer, key_file, token
from websockets.exceptions import InvalidStatus

from cuttlefish_signaling import (
    AuthorizeContext,
    ConfigError,
    Grant,
    Jwt,
    Limits,
    Refused,
    SignalingServer,
    StaticTokens,
)
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.errors import RestartRequiredError

from http_requests import request, request_json
from peers import assert_relays, peers_of, wait_until
from test_cli import serve
from test_reload_signal import hang_up

SECRET = "s3cret-of-the-tests"


def read(path: Path) -> list[dict[str, Any]]:
    """All records. Each has a time and an outcome, and each line is whole."""
    text = path.read_text()
    assert text.endswith("\n") or not text
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("at"))
        assert record["outcome"] in ("admitted", "refused", "managed")
    return records


def some(path: Path, /, **fields: Any) -> list[dict[str, Any]]:
    """The records with these fields."""
    return [record for record in read(path) if fields.items() <= record.items()]


def one(path: Path, /, **fields: Any) -> dict[str, Any]:
    """The one record with these fields, once it is there."""
    wait_until(lambda: some(path, **fields))
    (record,) = some(path, **fields)
    return record


def authorize(ctx: AuthorizeContext) -> Grant:
    if ctx.role == "http":
        return Grant(None)
    if "blocked" in ctx.query:
        raise Refused("blocked by policy", status=403)
    return Grant({"user": "alice"}, devices=["cvd-*"], valid_for=600)


def test_admissions_have_address_path_identity_and_grant(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, authorize=authorize) as server, peers_of(server) as peers:
        device, client = peers.device("cvd-1"), peers.client("cvd-1")
        assert_relays(client, device)
    granted = {"identity": {"user": "alice"}, "devices": ["cvd-*"], "valid_for": 600.0, "address": "127.0.0.1"}
    for role, place in (("device", "/register_device"), ("client", "/connect_client")):
        request = one(path, outcome="admitted", role=role, path=place, scheme="http")
        expected = {"outcome": "admitted", "role": role, "path": place, "scheme": "http", **granted}
        assert request == {**expected, "port": request["port"]}
        peer = {"device_id": "cvd-1"} if role == "device" else {"device_id": "cvd-1", "client_id": 1}
        assert one(path, **peer, role=role) == {"outcome": "admitted", "role": role, **peer, **granted} | {
            "port": request["port"]
        }
    assert len(read(path)) == 4
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, "not for all users of the machine"


def tokens_of_clients(folder: Path) -> Path:
    file = folder / "tokens.toml"
    file.write_text(f'[[tokens]]\ntoken = "{SECRET}"\nidentity = "alice"\nroles = ["client"]\n')
    return file


def test_refusals_have_status_and_reason_and_no_token(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    tokens = StaticTokens.from_file(tokens_of_clients(tmp_path))
    with SignalingServer(audit_log=path, authorize=tokens) as server, peers_of(server) as peers:
        headers = {"Authorization": f"Bearer wrong-{SECRET}", "Cookie": SECRET}
        assert request(server, "GET", f"/devices?token=wrong-{SECRET}", headers=headers).status == 401
        refused = one(path, outcome="refused", path="/devices")
        assert (refused["role"], refused["status"], refused["address"]) == ("http", 401, "127.0.0.1")
        assert refused["reason"]
        with pytest.raises(InvalidStatus):
            peers.connect(f"{server.device_url}?token={SECRET}")
        wrong_role = one(path, outcome="refused", path="/register_device")
        assert (wrong_role["role"], wrong_role["status"]) == ("device", 401)
        foreign = request(server, "GET", "/devices", headers={"Host": "evil.example"})
        assert foreign.status == 403
        assert one(path, reason=foreign.error, status=403, outcome="refused")["path"] == "/devices"
    text = path.read_text()
    assert SECRET not in text and "?" not in text and "Bearer" not in text


def test_refusal_of_a_hook_has_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, authorize=authorize) as server, peers_of(server) as peers:
        with pytest.raises(InvalidStatus):
            peers.connect(f"{server.client_url}?blocked=1")
    assert one(path, outcome="refused") == {
        "outcome": "refused",
        "role": "client",
        "address": "127.0.0.1",
        "port": one(path)["port"],
        "scheme": "http",
        "path": "/connect_client",
        "status": 403,
        "reason": "blocked by policy",
    }


def test_hook_that_fails_is_a_refusal(tmp_path: Path) -> None:
    def broken(_ctx: AuthorizeContext) -> None:
        raise ValueError(SECRET)

    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, authorize=broken) as server:
        assert request(server, "GET", "/devices").status == 500
    assert (one(path)["status"], one(path)["reason"]) == (500, "Internal error")
    assert SECRET not in path.read_text()


def test_device_in_use_is_one_refusal_in_each_dialect(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    reason = "Connection failed: Device in use: 'cvd-1'"
    with SignalingServer(audit_log=path, one_client_per_device=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        peers.client("cvd-1")
        second = peers.pending_client("cvd-1")
        assert [second.receive() for _ in range(2)][1] == {"error": reason}
        assert second.wait_close_frame() == (1013, reason)
        one(path, outcome="refused", status=1013, role="client", reason=reason)
        assert request_json(server, "/polled_connections", {"device_id": "cvd-1"})[0] == 409
    assert [record["status"] for record in some(path, outcome="refused", reason=reason)] == [1013, 1013]
    assert len(some(path, outcome="refused")) == 2


def test_refusal_of_adb_has_the_device(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, adb=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        with adb_client(server, "cvd-1") as client:
            closed = closed_with(client)
        refused = one(path, outcome="refused", device_id="cvd-1")
    assert (refused["status"], refused["reason"]) == closed


def test_device_outside_of_the_grant_and_expiry_are_refusals(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, authorize=authorize) as server, peers_of(server) as peers:
        server.clock.freeze()
        stranger = peers.connect(server.device_url, subprotocols=["webrtc-operator"])
        stranger.send({"message_type": "register", "device_id": "other"})
        closed = stranger.wait_close_frame()
        refused = one(path, outcome="refused", role="device")
        assert closed is not None and (refused["status"], refused["reason"]) == closed
        assert refused["identity"] == {"user": "alice"}
        device = peers.device("cvd-1")
        server.clock.advance(601)
        assert device.receive() == {"error": "Authorization expired"}
        assert device.wait_close_frame() == (1008, "Authorization expired")
    expired = one(path, reason="Authorization expired")
    assert (expired["status"], expired["identity"], expired["devices"]) == (1008, {"user": "alice"}, ["cvd-*"])


def test_expired_json_web_token_is_refused_without_its_text(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, jwt=Jwt([key_file(tmp_path)])) as server:
        old = token(exp=1)
        assert request(server, "GET", "/devices", headers=bearer(old)).status == 401
    assert one(path)["reason"] == "Invalid token: the token has expired"
    assert not any(part in path.read_text() for part in old.split("."))


def test_page_and_control_api_are_told_with_action_and_target(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    admin = StaticTokens({SECRET: Grant("root", manage=True)})
    settings: dict[str, Any] = {"audit_log": path, "authorize": admin, "dashboard": True}
    with controlled_server(**settings) as (server, control), peers_of(server) as peers:
        headers = {"Authorization": f"Bearer {SECRET}"}
        first, _ = (peers.device(id, additional_headers=headers) for id in ("cvd-1", "cvd/2"))
        assert disconnect(server, SECRET, device="cvd-1").status == 200
        assert "error" in first.receive()
        by_page = one(path, outcome="managed", device_id="cvd-1")
        assert (by_page["action"], by_page["identity"], by_page["role"]) == ("disconnect", "root", "http")
        assert control.answer("DELETE", "/devices/cvd%2F2").status == 200
        assert control.answer("DELETE", "/devices/cvd-1/clients/7").status == 404
        assert control.answer("POST", "/clock/freeze").status == 200
        assert control.answer("GET", "/devices").status == 200
        assert Control(control.url, "wrong").answer("POST", "/clock/freeze").status == 401
    by_control = one(path, outcome="managed", device_id="cvd/2")
    assert (by_control["action"], by_control["status"]) == ("disconnect", 200)
    missing = one(path, outcome="managed", client_id=7)
    assert (missing["device_id"], missing["status"], missing["reason"]) == ("cvd-1", 404, "Client not found")
    assert one(path, action="POST clock/freeze")["path"] == "/control/v1/clock/freeze"
    assert len(some(path, outcome="managed")) == 4, "reading changes nothing"
    wrong = one(path, outcome="refused", path="/control/v1/clock/freeze")
    assert (wrong["status"], wrong["reason"]) == (401, "This token is not that of the server")
    assert len(some(path, outcome="refused", role="device")) == 2, "both ends are told"
    assert TOKEN not in path.read_text() and SECRET not in path.read_text()


def test_id_of_a_polled_connection_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        _, opened = request_json(server, "/polled_connections", {"device_id": "cvd-1"})
        secret = opened["connection_id"]
        assert request(server, "GET", f"/polled_connections/{secret}/messages").status == 200
    assert one(path, path="/polled_connections/{id}/messages")["outcome"] == "admitted"
    assert secret not in path.read_text()


def test_disk_that_is_full_disturbs_no_request_and_is_told_once() -> None:
    with SignalingServer(audit_log="/dev/full") as server:
        for _ in range(3):
            assert request(server, "GET", "/devices").status == 200
        wait_until(lambda: server.server_errors)
        assert request(server, "GET", "/devices").status == 200
    failures = [error for error in server.server_errors if "audit log" in error]
    assert len(failures) == 1 and "No space left on device" in failures[0]


def test_dropped_records_are_a_metric(tmp_path: Path) -> None:
    name = "cuttlefish_signaling_audit_dropped_total"

    def count(server: SignalingServer) -> int:
        page = request(server, "GET", "/metrics").body.decode()
        (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
        return int(float(line.split()[1]))

    with SignalingServer(audit_log="/dev/full", limits=Limits(audit_queue=1)) as server:
        wait_until(lambda: count(server) >= 5)
    with SignalingServer(audit_log=tmp_path / "audit.jsonl") as server:
        assert [count(server) for _ in range(3)] == [0, 0, 0]


def test_reload_opens_the_file_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    with SignalingServer(audit_log=path) as server:
        request(server, "GET", "/devices")
        one(path, path="/devices")
        path.rename(moved)
        request(server, "GET", "/devices/a")
        one(moved, path="/devices/a")
        server.reload()
        request(server, "GET", "/devices/b")
        one(path, path="/devices/b")
        assert len(read(moved)) == 2
        with pytest.raises(RestartRequiredError, match="audit_log"):
            server.reload(audit_log=tmp_path / "other")  # type: ignore[call-arg]
        assert not (tmp_path / "other").exists()
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigError, match=r"audit_log: cannot write .*Is a directory"):
            server.reload(device_wait_timeout=1)


def test_sighup_opens_the_file_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit.jsonl", tmp_path / "moved"
    with serve("--port", "0", "--audit-log", str(path)) as served:
        path.rename(moved)
        assert "nothing has changed" in hang_up(served)
        assert path.exists() and path.stat().st_ino != moved.stat().st_ino


def test_command_line_names_the_flag_and_check_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no" / "audit"
    for command in ("serve", "check"):
        assert main([command, "--port", "0", "--audit-log", str(missing)]) == 2
        error = capsys.readouterr().err
        assert f"--audit-log: cannot write {missing}: No such file or directory" in error
    path = tmp_path / "audit"
    assert main(["check", "--audit-log", str(path)]) == 0
    assert not path.exists()


@pytest.mark.parametrize("kind", ["missing folder", "folder", "FIFO", "-"])
def test_file_that_cannot_be_written_is_an_error(tmp_path: Path, kind: str) -> None:
    path = {"missing folder": tmp_path / "no" / "audit", "folder": tmp_path, "FIFO": tmp_path / "fifo", "-": Path("-")}
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="audit_log: cannot write"):
        SignalingServer(audit_log=path[kind]).start()
    assert not Path("-").exists()


def test_there_is_none_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SignalingServer() as server:
        request(server, "GET", "/devices")
    assert list(tmp_path.iterdir()) == []
