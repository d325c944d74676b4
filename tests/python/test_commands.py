"""The commands that ask a running server through its control API: output, exit status, files, Ctrl-C."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from scripted_control import scripted

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import PATIENCE, interruptible, wait_until
from test_cli import ENVIRONMENT

COMMANDS = (["devices"], ["disconnect", "cvd-1"], ["watch"], ["reload"], ["journal", "export"])


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CONFIG", "CONTROL_API", "CONTROL_TOKEN_FILE"):
        monkeypatch.delenv(f"CUTTLEFISH_SIGNALING_{name}", raising=False)


@pytest.fixture
def lab() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True, control_api=["http://127.0.0.1:0"]) as server:
        yield server


@pytest.fixture
def flags(lab: SignalingServer, tmp_path: Path) -> list[str]:
    return flags_of(lab, tmp_path)


def flags_of(server: SignalingServer, directory: Path) -> list[str]:
    (directory / "token").write_text(f"{server.control_token}\n")
    return [f"--control-api={server.control_url}", f"--control-token-file={directory / 'token'}"]


def words(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """The output of a command, or its error."""
    assert main(list(arguments)) == status
    output = capsys.readouterr()
    assert (output.err == "") == (status == 0), output
    assert output.out == "" or status == 0
    return output.out if status == 0 else output.err


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cuttlefish_signaling", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, env=ENVIRONMENT, preexec_fn=interruptible, **pipes)


# Devices --------------------------------------------------------------------------------------------------------------


def test_devices(lab: SignalingServer, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert words(capsys, "devices", *flags) == "no device is registered\n"
    assert words(capsys, "devices", "--json", *flags) == "[]\n"
    with FakeDevice(lab, "b", info={"group_id": "g1"}), FakeDevice(lab, "a", info=[]), FakeClient(lab, "a"):
        head, *rows = words(capsys, "devices", *flags).splitlines()
        assert head.split() == ["DEVICE", "CLIENTS", "SINCE", "ADDRESS", "GROUP"]
        assert [row.split()[:2] for row in rows] == [["a", "1"], ["b", "0"]]
        assert re.fullmatch(r"a {2,}1 {2,}\d{4}-\d\d-\d\d \d\d:\d\d:\d\d {2,}127\.0\.0\.1:\d+", rows[0])
        assert rows[1].endswith("  g1")
        text = words(capsys, "devices", "--json", *flags)
        found = json.loads(text)
    assert text.count("\n") == 1
    assert [(one["device_id"], one["clients"], one["info"]) for one in found] == [
        ("a", 1, []),
        ("b", 0, {"group_id": "g1"}),
    ]
    assert set(found[0]) == {
        *("device_id", "address", "port", "since", "identity", "clients", "info", "group_name", "owner", "name"),
        *("adb_port", "device_port", "node", "local_id"),
    }


def test_device_info_is_printed_byte_for_byte(
    lab: SignalingServer, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from cuttlefish_signaling.testing import RawJson

    with FakeDevice(lab, info=RawJson('{"n": 1.10,\n"e": 1e400}')):
        assert '"info": {"n": 1.10, "e": 1e400}' in words(capsys, "devices", "--json", *flags)


# Disconnect and reload ------------------------------------------------------------------------------------------------


def test_disconnect(lab: SignalingServer, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with FakeDevice(lab) as device, FakeClient(lab) as client, FakeClient(lab) as other:
        told = words(capsys, "disconnect", "cvd-1", "--client", "1", *flags)
        assert told == "disconnected client 1 of device 'cvd-1'\n"
        client.wait_closed()
        assert device.recv(message_type="client_disconnected").client_id == 1
        told = words(capsys, "disconnect", "cvd-1", "--client", "1", *flags, status=1)
        assert told == "cuttlefish-signaling: error: client 1 of device 'cvd-1' is not connected\n"
        told = words(capsys, "disconnect", "cvd-1", "--json", *flags)
        assert json.loads(told) == {"disconnected": True, "device_id": "cvd-1", "client_id": None}
        device.wait_closed()
        other.wait_closed()
    told = words(capsys, "disconnect", "cvd-1", *flags, status=1)
    assert told == "cuttlefish-signaling: error: device 'cvd-1' is not connected\n"


def test_reload_of_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, token = tmp_path / "server.toml", tmp_path / "token"
    begin = (
        f'no_tls = true\nport = 0\ncontrol_api = ["http://127.0.0.1:{free_port()}"]\ncontrol_token_file = "{token}"\n'
    )
    config.write_text(begin)
    process = spawn("serve", f"--config={config}", stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        while not process.stdout.readline().startswith("control: "):
            assert process.poll() is None
        flags = [f"--config={config}"]
        assert words(capsys, "reload", *flags) == "reloaded: nothing has changed\n"
        config.write_text(begin + "device_wait_timeout = 7\nworkers = 2\n")
        assert words(capsys, "reload", *flags).startswith("reloaded: device_wait_timeout; a restart is needed for ")
        config.write_text(begin + "on_duplicate = 'replace'\nworkers = 2\n")
        found = json.loads(words(capsys, "reload", "--json", *flags))
        assert found["changed"] == ["device_wait_timeout", "on_duplicate"]
        assert len(found["restart_required"]) == 1
        config.write_text(begin + "on_duplicate = 'keep'\n")
        told = words(capsys, "reload", *flags, status=2)
        assert "error: not reloaded, all settings of the server stay: " in told
        assert "on_duplicate: " in told and "'keep'" in told
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


# The journal ----------------------------------------------------------------------------------------------------------


def talk(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        client.send({"type": "request-offer", "text": "a\u2028b"})
        device.recv().reply({"type": "offer"})
        client.recv()


def test_export_has_the_lines_of_the_transcript(
    lab: SignalingServer, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(lab)
    wait_until(lambda: not lab.devices())
    whole = lab.journal.transcript("jsonl")
    assert words(capsys, "journal", "export", *flags) == whole
    file = tmp_path / "journal.jsonl"
    file.write_text("old")
    file.chmod(0o640)
    count = lab.journal.count
    assert words(capsys, "journal", "export", "-o", str(file), *flags) == f"wrote {count} entries to {file}\n"
    assert file.read_text() == whole
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "token"]
    last = lab.journal.entries()[-2]
    lines = words(capsys, "journal", "export", f"--after={last.number}", *flags).splitlines()
    assert [json.loads(line)["number"] for line in lines] == [count]
    lines = words(capsys, "journal", "export", "--device=other", *flags).splitlines()
    assert lines == []


def test_export_since_a_time(lab: SignalingServer, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    talk(lab)
    wait_until(lambda: not lab.devices())
    before = lab.journal.count
    with lab.clock.frozen() as clock:
        clock.advance(100)
        talk(lab)
        wait_until(lambda: not lab.devices())
        now = clock.now
        for since in ("50s", "0.9m", f"{clock.now - 50:.0f}"):
            if since.isdecimal():
                from datetime import datetime, timezone

                since = datetime.fromtimestamp(now - 50, timezone.utc).isoformat().replace("+00:00", "Z")
            lines = words(capsys, "journal", "export", "--since", since, *flags).splitlines()
            assert json.loads(lines[0])["number"] == before + 1
        assert len(words(capsys, "journal", "export", "--since", "1h", *flags).splitlines()) == lab.journal.count
    told = words(capsys, "journal", "export", "--since", "noon", *flags, status=2)
    assert told.startswith("cuttlefish-signaling: error: --since: 'noon' is no time: write 90s, 10m, 2h or 1d ")


def test_export_that_fails_leaves_the_file(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = words(capsys, "journal", "export", "-o", str(tmp_path / "no" / "file"), *flags, status=1)
    assert (
        told == f"cuttlefish-signaling: error: --output: cannot write {tmp_path}/no/file: No such file or directory\n"
    )
    file = tmp_path / "kept"
    file.write_text("old")
    with scripted() as script:
        script.answers["GET /journal/export"] = lambda: (200, {"Transfer-Encoding": "chunked"}, b"3\r\n{}\n\r\n")
        told = words(capsys, "journal", "export", "-o", str(file), f"--control-api={script.url}", status=1)
    assert "the server ended in the middle of its answer" in told
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "token"]


def test_export_without_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SignalingServer(control_api=["http://127.0.0.1:0"]) as server:
        told = words(capsys, "journal", "export", *flags_of(server, tmp_path), status=1)
    assert told.endswith("writes no journal: start it with --journal\n")


# Finding the server ---------------------------------------------------------------------------------------------------


def test_variables_and_file_tell_the_server(
    lab: SignalingServer,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(
        f'control_api = ["{lab.control_url}"]\ncontrol_token_file = "{tmp_path}/token"\nport = "nonsense"\n'
    )
    assert words(capsys, "devices", f"--config={config}") == "no device is registered\n"
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_CONFIG", str(config))
    assert words(capsys, "devices") == "no device is registered\n"
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_CONTROL_API", "unix:/nowhere")
    assert "unix:/nowhere: no server listens there" in words(capsys, "devices", status=1)
    assert words(capsys, "devices", flags[0]) == "no device is registered\n"
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_CONFIG")
    told = words(capsys, "devices", flags[0], status=1)
    assert "it asks for a token: give token_file (--control-token-file, " in told
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE", f"{tmp_path}/none")
    told = words(capsys, "devices", flags[0], status=2)
    assert told.startswith("cuttlefish-signaling: error: CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE: cannot read ")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_each_command_needs_an_address_that_is_one(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = words(capsys, *command, status=2)
    assert told.startswith("cuttlefish-signaling: error: --control-api: is missing: the control API of the server, ")
    told = words(capsys, *command, "--control-api=http://127.0.0.1:0", status=2)
    assert told.startswith("cuttlefish-signaling: error: --control-api: ")
    told = words(capsys, *command, f"--control-api=http://127.0.0.1:{free_port()}", status=1)
    assert "no server listens there (Connection refused): start it with --control-api, or give its address" in told
    with pytest.raises(SystemExit) as ended:
        main([*command, "--timeout=0"])
    assert ended.value.code == 2
    assert "--timeout: '0' is not a number of seconds, more than 0, at most 3600" in capsys.readouterr().err


def test_wrong_token(
    lab: SignalingServer, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("another-token-of-somewhere")
    told = words(capsys, "devices", *flags, status=1)
    assert "the token is another one: give token_file (--control-token-file, " in told
    assert "another-token" not in told


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_help_has_flags_and_variables(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command[: 2 if command[0] == "journal" else 1], "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in ("--control-api", "--control-token-file", "CUTTLEFISH_SIGNALING_CONTROL_API", "Exit status 1"):
        assert name in text
