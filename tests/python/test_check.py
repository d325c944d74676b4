"""`cuttlefish-signaling check`: every setting with its origin, every mistake, and no side effect."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cuttlefish_signaling import _native
from cuttlefish_signaling._settings import FLAGS
from cuttlefish_signaling.cli import main, parser
from cuttlefish_signaling.cli.sources import settings

from openssl_command import openssl

HOOKS = "print('loading')\ndef authorize(ctx): return 'ann'\n"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CUTTLEFISH_SIGNALING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """Returns the status, the settings, and the lines of errors and warnings."""
    status = main(["check", *arguments])
    output = capsys.readouterr()
    return status, output.out, output.err.replace("cuttlefish-signaling: ", "").splitlines()


def test_default_settings_are_right_and_nothing_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, output, lines = check(capsys)
    assert (status, lines) == (0, [])
    assert list(tmp_path.iterdir()) == []
    assert "\nport = 8443  # default\n" in output
    shown = set(re.findall(r"^(?:# )?(\w+) (?:=|is not set)", output, re.MULTILINE))
    assert shown == {flag.place.rpartition(".")[2] for flag in FLAGS}, "every setting is told"


def test_origin_of_each_setting_is_told_and_the_output_is_a_file_of_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "server.toml").write_text('\nno_tls = true\nallow_host = ["a.lab"]\n\n[limits]\nmax_devices = 7\n')
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_DRAIN", "2.5")
    status, output, lines = check(
        capsys, "--config", "server.toml", "--workers", "2", "--allow-origin", "https://a.lab"
    )
    assert (status, lines) == (0, [])
    for line in (
        "no_tls = true  # server.toml, line 2: no_tls",
        'allow_host = ["a.lab"]  # server.toml, line 3: allow_host',
        "max_devices = 7  # server.toml, line 6: limits.max_devices",
        "drain = 2.5  # CUTTLEFISH_SIGNALING_DRAIN",
        "workers = 2  # --workers",
        'allow_origin = ["https://a.lab"]  # --allow-origin',
        "port = 8443  # default",
    ):
        assert f"\n{line}\n" in f"\n{output}"
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_DRAIN")
    (tmp_path / "effective.toml").write_text(output)
    assert _native.toml_to_json(output)
    found = settings(parser().parse_args(["serve", "--config", "effective.toml"]), {})
    assert (found["port"], found["workers"], found["limits"].max_devices, found["drain"]) == (8443, 2, 7, 2.5)


def test_preset_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ("--operator", "--operator-defaults=", "--log-file", str(tmp_path / "log"))
    status, output, lines = check(capsys, *flags)
    assert status == 0, lines
    assert 'device_socket = "/run/cuttlefish/operator"  # --operator\n' in output
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "given",
    [
        ["--turn", "turn:a.lab", "--turn-secret", "s3cret"],
        ["--ice-servers", '[{"urls": "turn:a.lab", "username": "u", "credential": "s3cret"}]'],
        ["--ice-servers", '[{"urls": 1, "credential": "s3cret"}]'],
        ["--ice-servers", "s3cret"],
        ["--turn-secret", "s3cret"],
    ],
)
def test_secrets_are_not_told(capsys: pytest.CaptureFixture[str], given: list[str]) -> None:
    _, output, lines = check(capsys, *given)
    assert "s3cret" not in output + "".join(lines)
    assert ' = "..."  # --' in output


def test_all_mistakes_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "server.toml").write_text(
        'port = 70000\nhooks = "none.py"\nother = 1\n[limits]\nmax_devices = 0\nbad = 1\n'
    )
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_WORKERS", "x")
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_PROT", "1")
    (tmp_path / "bad.pem").write_text("no certificate")
    flags = ["--config", "server.toml", "--hook-timeout", "0", "--log-level", "loud", "--turn", "turn:a.lab"]
    flags += ["--tls-cert", "bad.pem", "--tls-key", "none.pem", "--token-file", "none", "--assets-dir", "none"]
    flags += ["--allow-origin", "x", "--log-file", "none/log"]
    status, _, lines = check(capsys, *flags)
    assert status == 2
    beginnings = [
        "error: server.toml, line 1: port: 70000 is not",
        "error: server.toml, line 2: hooks: cannot load none.py",
        "error: server.toml, line 3: other: unknown key 'other'",
        "error: server.toml, line 5: limits.max_devices: 0 is not",
        "error: server.toml, line 6: limits.bad: unknown key 'bad'",
        "error: CUTTLEFISH_SIGNALING_WORKERS: 'x' is not",
        "error: --hook-timeout: '0' is not",
        "error: --log-level: 'loud' is not one of debug, info, warning, error",
        "error: --turn-secret: is missing",
        "error: --tls-cert, --tls-key: ",
        "error: --token-file: cannot read none",
        "error: --assets-dir: none is not a directory",
        "error: --allow-origin: 'x' is not an origin",
        "error: --log-file: cannot write none/log",
        "warning: CUTTLEFISH_SIGNALING_PROT is not a setting",
    ]
    missing = [text for text in beginnings if not any(line.startswith(text) for line in lines)]
    assert not missing, lines
    assert len(lines) == len(beginnings), lines


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--allow-origin", "x"], "error: --allow-origin: 'x' is not an origin"),
        (["--host", "0.0.0.0"], "error: --host: 0.0.0.0 can be reached from other machines"),
        (["--no-tls", "--tls-cert", "x"], "error: --tls-cert: contradicts --no-tls"),
        (["--listen", "x"], "error: --listen: 'x' is not a listener"),
        (["--listen", "http://127.0.0.1:1", "--port", "2"], "error: --listen: contradicts --port"),
        (["--host", "no.such.host.invalid"], "error: host: 'no.such.host.invalid' is not an address"),
        (
            ["--device-socket", "a", "--control-socket", "a"],
            "error: --control-socket: a is the path of",
        ),
        (["--outbox-bytes", "1"], "error: --outbox-bytes: "),
        (["--trusted-proxy", "x"], "error: --trusted-proxy: "),
        (["--config", "none.toml"], "error: --config: cannot read none.toml"),
        (["--log-file", "."], "error: --log-file: cannot write .: Is a directory"),
    ],
)
def test_each_kind_of_mistake_has_status_2(capsys: pytest.CaptureFixture[str], flags: list[str], error: str) -> None:
    status, _, lines = check(capsys, *flags)
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith(error), lines


def test_hooks_certificate_and_tokens_are_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "farm.py").write_text(HOOKS)
    openssl("req", "-newkey", "rsa:2048", "-x509", "-nodes", "-out", "a.pem", "-keyout", "a.key", "-subj", "/CN=a")
    openssl("req", "-newkey", "rsa:2048", "-x509", "-nodes", "-out", "b.pem", "-keyout", "b.key", "-subj", "/CN=b")
    status, output, lines = check(
        capsys, "--hooks", "farm.py", "--host", "0.0.0.0", "--tls-cert", "a.pem", "--tls-key", "a.key"
    )
    assert (status, lines) == (0, ["loading", "loading"]), lines
    assert "loading" not in output
    status, _, lines = check(capsys, "--tls-cert", "a.pem", "--tls-key", "b.key")
    assert status == 2 and lines[0].startswith("error: --tls-cert, --tls-key: "), lines
    (tmp_path / "tokens").write_text("one ann\none bob\n")
    status, _, lines = check(capsys, "--token-file", "tokens")
    assert (status, lines) == (2, ["error: --token-file: tokens: line 2 has the same token as a line before it"])
    (tmp_path / "tokens").write_text("one ann\n")
    status, _, lines = check(capsys, "--hooks", "farm.py", "--token-file", "tokens")
    assert status == 2 and "error: --hooks: farm.py has authorize, which contradicts --token-file" in lines, lines


def test_sockets_of_systemd_are_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, lines = check(capsys, "--listen", "https+fd:web")
    assert (status, lines) == (0, ["warning: --listen: 'https+fd:web' is a socket of systemd, which was not checked"])
    assert 'listen = ["https+fd:web"]  # --listen' in output


def test_state_directory_is_checked_and_not_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert check(capsys, "--state-dir", str(kept))[0] == 0
    assert not kept.exists()
    kept.write_text("")
    status, _, lines = check(capsys, "--state-dir", str(kept))
    assert status == 2 and lines[0].startswith(f"error: {kept}"), lines
    status, _, lines = check(capsys, "--state-dir", str(kept / "below"))
    assert status == 2 and lines[0].startswith("error: --state-dir: "), lines


def test_check_beside_a_running_server_finds_no_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from test_cli import serve

    flags = ("--state-dir", str(tmp_path / "kept"), "--device-socket", str(tmp_path / "devices"))
    with serve(*flags) as served:
        assert check(capsys, *flags, "--port", str(served.port))[0] == 0
        assert served.ends()[0] == 0
