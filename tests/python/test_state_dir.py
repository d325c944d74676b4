"""The certificate that `serve` and `Tls.kept_in` keep on disk, and its verification by OpenSSL."""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from cuttlefish_signaling import SignalingServer, StateDirError, Tls, TlsError
from cuttlefish_signaling.cli.tls import default_directory

from openssl_command import openssl, verify_code
from peers import PATIENCE
from test_cli import ENVIRONMENT, ServeProcess, serve

FILES = {"authority.key", "authority.pem", "server.key", "server.pem"}
NAMES = ("localhost", "127.0.0.1", "::1")


def fingerprint(file: Path) -> str:
    return openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(file)).strip().partition("=")[2]


def printed_lines(served: ServeProcess) -> dict[str, str]:
    """The lines after the URLs, by their key."""
    assert served.process.stdout is not None
    served.process.send_signal(signal.SIGTERM)
    lines = served.process.stdout.read().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def run(
    *arguments: str, full_disk: bool = False, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `serve` until it exits."""
    return subprocess.run(
        [sys.executable, "-m", "cuttlefish_signaling", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        preexec_fn=forbid_file_growth if full_disk else None,
    )


def forbid_file_growth() -> None:
    """Makes each write to a file fail, as on a full disk, for every user and on every file system."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


# Output --------------------------------------------------------------------------------------------------------------


def test_serve_sends_authority_and_prints_fingerprints(tmp_path: Path) -> None:
    with serve("--state-dir", str(tmp_path / "state")) as served:
        assert verify_code(served.port) == 19
        authority = tmp_path / "state" / "authority.pem"
        assert verify_code(served.port, "-CAfile", str(authority), "-verify_hostname", socket.gethostname()) == 0
        lines = printed_lines(served)
    assert list(lines) == ["people", "listening", "certificate", "authority"]
    assert lines["certificate"] == f"SHA-256 {fingerprint(tmp_path / 'state' / 'server.pem')}"
    assert lines["authority"] == f"SHA-256 {fingerprint(authority)} in {authority}"


def test_fingerprint_of_given_certificate_is_printed(tmp_path: Path) -> None:
    certificate, key = tmp_path / "lab.pem", tmp_path / "lab.key"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=lab")
    openssl("req", "-x509", *new, "-out", str(certificate), "-keyout", str(key))
    with serve("--tls-cert", str(certificate), "--tls-key", str(key)) as served:
        assert verify_code(served.port) == 18  # A self-signed certificate alone.
        lines = printed_lines(served)
    assert lines["certificate"] == f"SHA-256 {fingerprint(certificate)}"
    assert "authority" not in lines
    with serve("--no-tls") as served:
        assert list(printed_lines(served)) == ["people", "listening"]


# Files ---------------------------------------------------------------------------------------------------------------


def test_authority_is_kept_across_restarts(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    printed = run("--print-ca", "--state-dir", str(state))
    assert (printed.returncode, printed.stdout) == (0, (state / "authority.pem").read_text())
    trusting = ssl.create_default_context(cadata=printed.stdout)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    before = None
    for _ in range(2):
        with serve("--state-dir", str(state)) as served:
            with connect(served.devices, ssl=trusting) as device:
                device.send('{"message_type":"register","device_id":"cvd-1"}')
                assert "config" in str(device.recv(timeout=PATIENCE))
            url = f"https://localhost:{served.port}/devices"
            with urllib.request.urlopen(url, timeout=PATIENCE, context=trusting) as answer:
                assert answer.status == 200
            status, log = served.ends()
        assert status == 0, log
        assert "PRIVATE" not in log
        assert contents(state).keys() == {*FILES, "lock"}
        assert before is None or before == contents(state)
        before = contents(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {0o600}
    assert run("--print-ca", "--state-dir", str(state)).stdout == printed.stdout
    assert before == contents(state)


def test_concurrent_starts_share_authority(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--port", "0", "--state-dir", str(tmp_path / "s")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, env=ENVIRONMENT, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    found = []
    for process in processes:
        served = ServeProcess(process)
        found.append(printed_lines(served))
        log = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, log
    assert len({(lines["certificate"], lines["authority"]) for lines in found}) == 1


def test_state_dir_is_read_from_each_source(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'state_dir = "{tmp_path / "file"}"\n')
    variable = {"CUTTLEFISH_SIGNALING_STATE_DIR": str(tmp_path / "variable")}
    assert run("--print-ca", "--config", str(config)).returncode == 0
    assert run("--print-ca", "--config", str(config), environment=variable).returncode == 0
    assert run("--print-ca", "--state-dir", str(tmp_path / "flag"), environment=variable).returncode == 0
    assert all((tmp_path / name / "authority.pem").exists() for name in ("file", "variable", "flag"))


def test_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/lab")
    assert default_directory({}) == "/home/lab/.local/state/cuttlefish-signaling"
    assert default_directory({"XDG_STATE_HOME": "/xdg"}) == "/xdg/cuttlefish-signaling"
    assert default_directory({"XDG_STATE_HOME": "not/absolute"}) == "/home/lab/.local/state/cuttlefish-signaling"
    systemd = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/xdg"}
    assert default_directory(systemd) == "/var/lib/a"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # As it does for a user without a home.
    with pytest.raises(StateDirError, match="no home directory: name a directory with --state-dir"):
        default_directory({})


def test_changed_names_are_logged(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    with serve(*state) as served:
        first = printed_lines(served)
    for arguments, is_replaced in [
        (("--allow-host", "*", "--allow-host", "a.localhost"), False),
        (("--allow-host", "signal.lab"), True),
    ]:
        with serve(*state, *arguments) as served:
            assert verify_code(served.port, "-CAfile", str(tmp_path / "state" / "authority.pem")) == 0
            assert verify_code(served.port, "-verify_hostname", arguments[-1]) == 19
            lines = printed_lines(served)
            log = served.process.communicate(timeout=PATIENCE)[1]
        assert "WARNING the names of the server have changed: its certificate was for localhost, " in log
        assert f", {arguments[-1]}, 127.0.0.1, ::1" in log
        assert lines["certificate"] != first["certificate"]
        assert (lines["authority"] != first["authority"]) is is_replaced
        assert ("clients have to trust it anew" in log) is is_replaced


def test_failed_start_changes_no_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("--print-ca", "--state-dir", str(state)).returncode == 0
    before = contents(state)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = run("--state-dir", str(state), "--allow-host", "signal.lab", "--port", port)
    assert failed.returncode == 1
    first, last = failed.stderr.splitlines()
    assert " starts on " in first and "Address already in use" in last
    assert contents(state) == before


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory with all files."""
    Tls.kept_in(tmp_path / "state")
    return tmp_path / "state"


def test_unusable_state_dir_exits_1(state: Path) -> None:
    (state / "server.key").unlink()
    before = contents(state)
    failed = run("--state-dir", str(state))
    assert (failed.returncode, failed.stdout) == (1, "")
    key = state / "server.key"
    assert failed.stderr.startswith(
        f"cuttlefish-signaling: error: --state-dir: {key}: the key of server.pem is missing: put the"
    )
    assert failed.stderr.count("\n") == 1
    assert contents(state) == before


@pytest.mark.parametrize("name", sorted(FILES))
def test_file_readable_by_others_exits_1(state: Path, name: str) -> None:
    (state / name).chmod(0o644)
    for arguments in ((), ("--print-ca",)):
        failed = run("--state-dir", str(state), *arguments)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert f"{state / name}: other users may use the file (mode 0644): chmod 600 {state / name}" in failed.stderr


def test_unusable_default_directory_is_warning(tmp_path: Path) -> None:
    home = tmp_path / "cuttlefish-signaling"
    Tls.kept_in(home)
    (home / "authority.key").write_text("invalid")
    before = contents(home)
    with serve(environment={"XDG_STATE_HOME": str(tmp_path)}) as served:
        assert verify_code(served.port) == 19
        lines = printed_lines(served)
        log = served.process.communicate(timeout=PATIENCE)[1]
    assert lines["authority"].endswith(" in memory")
    assert "WARNING the certificate is kept in memory, and clients have to trust it anew after each start: " in log
    assert f"{home / 'authority.key'}: is not a private key" in log
    assert contents(home) == before
    failed = run("--print-ca", environment={"XDG_STATE_HOME": str(tmp_path)})
    assert (failed.returncode, failed.stdout) == (1, "")


def test_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for arguments in ((), ("--print-ca",)):
        failed = run("--state-dir", str(state), *arguments, full_disk=True)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert f"{state / 'authority.key'}: cannot be written: File too large" in failed.stderr
        assert contents(state) == {"lock": b""}
    assert run("--print-ca", "--state-dir", str(state)).returncode == 0


def test_full_disk_keeps_old_files(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serve("--state-dir", str(state)) as served:
        assert served.ends()[0] == 0
    before = contents(state)
    for name in ("a.localhost", "signal.lab"):  # A new certificate; a new authority.
        failed = run("--state-dir", str(state), "--allow-host", name, full_disk=True)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "cannot be written: File too large; the files that were there are unchanged" in failed.stderr
        assert contents(state) == before
    # A renewal that failed is tried again by the next start.
    with serve("--state-dir", str(state), "--allow-host", "a.localhost") as served:
        assert served.ends()[0] == 0
    assert contents(state) != before


def test_full_disk_in_default_directory_is_warning(tmp_path: Path) -> None:
    script = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); runpy.run_module"
    program = (sys.executable, "-B", "-c", f"{script}('cuttlefish_signaling', run_name='__main__')")
    with serve(program=program, environment={"XDG_STATE_HOME": str(tmp_path)}) as served:
        assert verify_code(served.port) == 19
        lines = printed_lines(served)
        log = served.process.communicate(timeout=PATIENCE)[1]
    assert lines["authority"].endswith(" in memory")
    assert "authority.key: cannot be written: File too large" in log


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one small file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root mounts file systems; RLIMIT_FSIZE stands for it above")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_no_space_left_on_device_keeps_old_files(tiny_disk: Path) -> None:
    failed = run("--state-dir", str(tiny_disk))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert f"{tiny_disk}/authority.pem: cannot be written: No space left on device" in failed.stderr
    assert contents(tiny_disk) == {"lock": b""}
    subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
    with serve("--state-dir", str(tiny_disk)) as served:
        assert served.ends()[0] == 0
    subprocess.run(["mount", "-o", "remount,size=16k", str(tiny_disk)], check=True)  # It is full now.
    before = contents(tiny_disk)
    assert before.keys() == {*FILES, "lock"}
    failed = run("--state-dir", str(tiny_disk), "--allow-host", "signal.lab")
    assert failed.returncode == 1
    assert "No space left on device; the files that were there are unchanged" in failed.stderr
    assert contents(tiny_disk) == before


# From Python ----------------------------------------------------------------------------------------------------------


def test_kept_in_reuses_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cuttlefish_signaling"):
        first = Tls.kept_in(tmp_path / "state")
        again = Tls.kept_in(str(tmp_path / "state"), [*reversed(NAMES)])
        other = Tls.kept_in(tmp_path / "state", ["farm.lab"])
    levels = [(record.levelname, record.message.split(" ", 2)[:2]) for record in caplog.records]
    assert levels == [("INFO", ["made", "an"]), ("WARNING", ["the", "authority"]), ("WARNING", ["the", "names"])]
    assert first.authority_file == tmp_path / "state" / "authority.pem"
    assert first.fingerprint == again.fingerprint
    assert first.authority_fingerprint == again.authority_fingerprint != other.authority_fingerprint
    assert other.fingerprint == fingerprint(tmp_path / "state" / "server.pem")
    assert other.certificate_pem == (tmp_path / "state" / "authority.pem").read_text()
    with SignalingServer(tls=first) as server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        again.client_context().wrap_socket(plain, server_hostname="localhost").close()
    assert Tls.self_signed().authority_file is None


def test_kept_in_errors_name_path(tmp_path: Path, state: Path) -> None:
    (state / "authority.pem").unlink()
    with pytest.raises(StateDirError, match="the certificate of authority.key is missing") as caught:
        Tls.kept_in(state)
    assert caught.value.path == str(state / "authority.pem")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    for directory in (None, 7, ""):
        with pytest.raises(TlsError, match="directory must be a path"):
            Tls.kept_in(directory)  # type: ignore[arg-type]
    for names in ([], ["ex\u00e4mple"], "localhost", [7]):
        with pytest.raises(TlsError, match="names"):
            Tls.kept_in(tmp_path / "other", names)  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()
