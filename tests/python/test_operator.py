"""`serve --operator`: the file of defaults, the preset, and a server with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cuttlefish_signaling import ConfigError
from cuttlefish_signaling.cli import machine, main, operator, parser
from cuttlefish_signaling.cli.operator import apply_preset, read_defaults
from cuttlefish_signaling.cli.sources import Found, settings

from openssl_command import openssl
from peers import PATIENCE, unverified_context

SHIPPED = """\
# defaults for cuttlefish-operator

# The network address to listen on for both HTTP and HTTPS.
operator_listen_address=0.0.0.0
#
# operator_http_port=
operator_https_port=1443
#
# operator_tls_cert_dir=
# operator_webui_url=
"""
"""The file of the host package, shortened."""


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names and addresses of a host."""
    monkeypatch.setattr(operator, "machine_names", lambda: ["farm", "farm.lab"])
    monkeypatch.setattr(operator, "machine_hosts", lambda: ["farm.lab", "192.0.2.7", "2001:db8::7"])


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of the operator's page, which is not there yet."""
    monkeypatch.setattr(operator, "PAGE_DIRECTORY", str(tmp_path / "static"))
    monkeypatch.setattr(operator, "CERTIFICATE_DIRECTORY", str(tmp_path / "cert"))
    return tmp_path / "static"


def preset(tmp_path: Path, defaults: str | None, *arguments: str) -> tuple[Found, list[str]]:
    """The settings of `serve --operator`, and its lines for the log."""
    file = tmp_path / "defaults"
    if defaults is not None:
        file.write_text(defaults)
    found = settings(parser().parse_args(["serve", "--operator", "--operator-defaults", str(file), *arguments]), {})
    return found, apply_preset(found)


def make_certificate(directory: Path) -> None:
    """Makes a certificate as the operator's init script does, with a smaller key."""
    directory.mkdir()
    files = ("-out", str(directory / "cert.pem"), "-keyout", str(directory / "key.pem"))
    openssl("req", "-newkey", "rsa:2048", "-x509", "-sha256", "-days", "36000", "-nodes", *files, "-subj", "/C=US")


# The preset -----------------------------------------------------------------------------------------------------------


def test_preset_without_a_file(tmp_path: Path) -> None:
    found, _ = preset(tmp_path, None)
    expected = {
        "listen": ["http://127.0.0.1:1080", "https://127.0.0.1:1443"],
        "device_socket": "/run/cuttlefish/operator",
        "control_socket": "/run/cuttlefish/operator_control",
        "log_file": "/run/cuttlefish/operator.log",
        "proxy_device_files": True,
        "adb": True,
        "client_ids": "unique",
        "allow_host": ["farm", "farm.lab"],
        "allow_origin": [
            f"{scheme}://{host}:{port}"
            for scheme, port in (("http", 2080), ("https", 2443), ("http", 1080), ("https", 1443))
            for host in ("farm.lab", "192.0.2.7", "[2001:db8::7]")
        ],
        "allow_unauthenticated": True,
        "drain_spread": 5.0,
        "operator": True,
    }
    given = {key: found[key] for key in found.origins if key != "operator_defaults"}
    assert given == expected
    assert {found.origins[key] for key in expected} == {"--operator"}


def test_shipped_file_opens_https_and_keeps_http_on_loopback(tmp_path: Path) -> None:
    found, notices = preset(tmp_path, SHIPPED)
    assert found["listen"] == ["http://127.0.0.1:1080", "https://0.0.0.0:1443"]
    assert found.origin("listen") == f"--operator, with {tmp_path}/defaults"
    assert notices == [f"{tmp_path}/cert/cert.pem and {tmp_path}/cert/key.pem are missing: using another certificate"]


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("operator_http_port=80\noperator_https_port=443", ["http://127.0.0.1:80", "https://127.0.0.1:443"]),
        ("operator_https_port=", ["http://127.0.0.1:1080"]),
        ("", ["http://127.0.0.1:1080"]),
        ("operator_listen_address=::\noperator_https_port=1", ["http://127.0.0.1:1080", "https://[::]:1"]),
        ("operator_listen_address='10.0.0.1'\noperator_https_port=\"1\" # one", None),
        ("operator_listen_address=10.0.0.1\noperator_https_port=1", None),
        ("operator_https_port=5\noperator_https_port=1\noperator_listen_address=10.0.0.1", None),
    ],
)
def test_address_and_ports_come_from_the_file(tmp_path: Path, text: str, listen: list[str] | None) -> None:
    found, _ = preset(tmp_path, text)
    assert found["listen"] == (listen or ["http://127.0.0.1:1080", "https://10.0.0.1:1"])


def test_certificate_of_the_operator_is_used(tmp_path: Path) -> None:
    make_certificate(tmp_path / "cert")
    found, notices = preset(tmp_path, SHIPPED)
    files = {"tls_cert": f"{tmp_path}/cert/cert.pem", "tls_key": f"{tmp_path}/cert/key.pem"}
    assert {key: found[key] for key in files} == files
    assert notices == []
    (tmp_path / "cert").rename(tmp_path / "other")
    found, _ = preset(tmp_path, f"operator_https_port=1\noperator_tls_cert_dir={tmp_path}/other")
    assert found["tls_cert"] == f"{tmp_path}/other/cert.pem"
    (tmp_path / "other" / "key.pem").unlink()
    found, notices = preset(tmp_path, None)
    assert found["tls_cert"] is None
    assert notices == [f"{tmp_path}/other/key.pem is missing: using another certificate"]


def test_page_of_the_operator_is_served_at_the_root(tmp_path: Path, no_page: Path) -> None:
    no_page.mkdir()
    (no_page / "index.html").write_text("page")
    found, _ = preset(tmp_path, None)
    assert (found["assets_dir"], found["dashboard"]) == (str(no_page), "off")
    found, _ = preset(tmp_path, None, "--dashboard", "on")
    assert found["dashboard"] == "on"


def test_unknown_lines_are_named_and_the_others_count(tmp_path: Path) -> None:
    text = (
        "operator_colour=blue\nif true; then\noperator_http_port=$PORT\noperator_http_port=`id -u`\n"
        "export operator_http_port=7\nrm -rf x\noperator_listen_address='\noperator_https_port=2\n"
        "operator_webui_url=http://localhost:4200\n"
    )
    found, notices = preset(tmp_path, text)
    assert found["listen"] == ["http://127.0.0.1:1080", "https://127.0.0.1:2"]
    lines = text.splitlines()[:7]
    file = tmp_path / "defaults"
    assert notices[:7] == [
        f"{file}, line {number}: {line!r} is not understood and has no effect" for number, line in enumerate(lines, 1)
    ]
    assert notices[-1].startswith("operator_webui_url=http://localhost:4200 has no effect: --assets-dir DIR")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("operator_http_port=http", "line 1: operator_http_port: 'http' is not a port"),
        ("\noperator_https_port=70000", "line 2: operator_https_port: '70000' is not a port"),
        ("operator_http_port=-1", "'-1' is not a port"),
        ("operator_https_port=0", "'0' is not a port"),
        ("operator_http_port=\u0661", "is not a port"),
        ("operator_https_port=1\noperator_listen_address=a/b", "line 2: operator_listen_address: 'a/b' is not an"),
        ("operator_https_port=1\noperator_listen_address=1.2.3.4:5", "'1.2.3.4:5' is not an address"),
    ],
)
def test_value_with_nonsense_is_an_error_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(tmp_path, text)
    assert error in str(caught.value) and str(tmp_path / "defaults") in str(caught.value)


def test_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "defaults").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="^operator-defaults: cannot read .*defaults: 'utf-8'"):
        preset(tmp_path, None)
    with pytest.raises(ConfigError, match=f"^operator-defaults: cannot read {tmp_path}: "):
        read_defaults(str(tmp_path))


# Overrides ------------------------------------------------------------------------------------------------------------


def test_each_setting_of_the_preset_is_overridden_by_its_flag(tmp_path: Path) -> None:
    make_certificate(tmp_path / "cert")
    values = {
        "listen": (["--listen", "https://127.0.0.1:7"], ["https://127.0.0.1:7"]),
        "device_socket": (["--device-socket", "/x"], "/x"),
        "control_socket": (["--control-socket", ""], ""),
        "client_ids": (["--client-ids", "from_one"], "from_one"),
        "assets_dir": (["--assets-dir", "/x"], "/x"),
        "tls_cert": (["--tls-cert", "/x"], "/x"),
        "allow_host": (["--allow-host", "x.lab"], ["x.lab"]),
        "allow_origin": (["--allow-origin", "https://x.lab"], ["https://x.lab"]),
    }
    for key, (arguments, value) in values.items():
        found, _ = preset(tmp_path, SHIPPED, *arguments)
        assert (found[key], found.origin(key)) == (value, arguments[0])


@pytest.mark.parametrize("key", ["proxy_device_files", "adb", "allow_unauthenticated"])
def test_switches_of_the_preset_are_turned_off_by_variable_and_file(tmp_path: Path, key: str) -> None:
    arguments = parser().parse_args(["serve", "--operator"])
    found = settings(arguments, {f"CUTTLEFISH_SIGNALING_{key.upper()}": "0"})
    apply_preset(found)
    assert found[key] is False
    (tmp_path / "server.toml").write_text(f"operator = true\n{key} = false\n")
    found = settings(parser().parse_args(["serve", "--config", str(tmp_path / "server.toml")]), {})
    apply_preset(found)
    assert found[key] is False and found["client_ids"] == "unique"


def test_certificate_of_the_operator_is_not_mixed_with_another(tmp_path: Path) -> None:
    make_certificate(tmp_path / "cert")
    found, _ = preset(tmp_path, None, "--tls-cert", "/x")
    assert found["tls_key"] is None
    found, _ = preset(tmp_path, None, "--state-dir", "/x")
    assert found["tls_cert"] is None
    found, _ = preset(tmp_path, None, "--listen", "http://127.0.0.1:1")
    assert found["tls_cert"] is None


@pytest.mark.parametrize("arguments", [["--port", "1"], ["--host", "::1"], ["--no-tls"]])
def test_flags_of_one_listener_contradict_the_preset(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--operator", *arguments]) == 2
    assert f"--operator: contradicts {arguments[0]}: write the addresses as --listen" in capsys.readouterr().err


def test_origins_have_the_ports_of_the_listeners(tmp_path: Path) -> None:
    found, _ = preset(
        tmp_path, None, "--listen", "https://0.0.0.0:7", "--listen", "unix:/x", "--listen", "http://[::1]:0"
    )
    assert {origin.rpartition(":")[2] for origin in found["allow_origin"]} == {"2080", "2443", "7"}
    assert "https://farm.lab:7" in found["allow_origin"] and "http://farm.lab:7" not in found["allow_origin"]


def test_empty_list_of_a_file_admits_no_origin_of_the_preset(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("operator = true\nallow_host = []\nallow_origin = []\n")
    found = settings(parser().parse_args(["serve", "--config", str(tmp_path / "server.toml")]), {})
    apply_preset(found)
    assert (found["allow_host"], found["allow_origin"]) == ([], [])


# The machine ----------------------------------------------------------------------------------------------------------


def resolved(*names: str) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, name, ("192.0.2.7", 0)) for name in names]


def test_names_of_this_machine_are_its_host_name_and_its_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Farm")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved("farm.lab.", "", ""))
    assert machine.machine_names() == ["farm", "farm.lab"]
    # A machine without a name of its own in /etc/hosts.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved("localhost", "192.0.2.7", "fd00::1"))
    assert machine.machine_names() == ["farm"]


def test_name_that_the_resolver_does_not_know_is_used_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "gethostname", lambda: "farm")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert machine.machine_names() == ["farm"]
    monkeypatch.setattr(socket, "gethostname", lambda: "not a name")
    assert machine.machine_names() == []
    assert {"localhost", "127.0.0.1", "::1"} <= set(machine.machine_hosts())


# Runs -----------------------------------------------------------------------------------------------------------------


def test_dry_run_prints_a_file_for_config_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_certificate(tmp_path / "cert")
    (tmp_path / "defaults").write_text(SHIPPED)
    arguments = ["--operator", "--operator-defaults", str(tmp_path / "defaults"), "--turn-secret", "s3cret"]
    sockets = [f"--device-socket={tmp_path}/d", f"--control-socket={tmp_path}/c", "--dry-run"]
    assert main(["serve", *arguments, *sockets]) == 0
    output, log = capsys.readouterr()
    origin = f"# --operator, with {tmp_path}/defaults"
    assert f'listen = ["http://127.0.0.1:1080", "https://0.0.0.0:1443"]  {origin}' in output
    assert f'device_socket = "{tmp_path}/d"  # --device-socket' in output
    assert "s3cret" not in output + log and 'turn_secret = "..."  # --turn-secret' in output
    assert not (tmp_path / "d").exists()
    (tmp_path / "server.toml").write_text(output)
    again = settings(parser().parse_args(["serve", "--config", str(tmp_path / "server.toml")]), {})
    found = settings(parser().parse_args(["serve", *arguments, *sockets]), {})
    apply_preset(found)
    assert {**again, "turn_secret": ""} == {**found, "turn_secret": ""}


def test_operator_serves_both_ports_and_both_sockets(tmp_path: Path) -> None:
    """The ports of the file are free ones here. A device registers on the socket; both ports list it."""
    make_certificate(tmp_path / "cert")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
    (tmp_path / "defaults").write_text(
        f"operator_http_port={ports[0]}\noperator_https_port={ports[1]}\noperator_colour=blue\n"
        f"operator_tls_cert_dir={tmp_path}/cert\n"
    )
    command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--operator"]
    command += [f"--operator-defaults={tmp_path}/defaults", f"--device-socket={tmp_path}/operator"]
    log_file = tmp_path / "operator.log"
    process = subprocess.Popen(
        [*command, f"--log-file={log_file}", f"--control-socket={tmp_path}/operator_control"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(6)]
            assert lines[-3:-1] == [
                f"listening: http://127.0.0.1:{ports[0]}",
                f"listening: https://127.0.0.1:{ports[1]}",
            ]
            fingerprint = openssl("x509", "-in", f"{tmp_path}/cert/cert.pem", "-noout", "-fingerprint", "-sha256")
            assert lines[-1].removeprefix("certificate: SHA-256 ") in fingerprint
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as device:
                device.connect(f"{tmp_path}/operator")
                device.settimeout(PATIENCE)
                device.send(b'{"message_type":"register","device_id":"cvd-1","device_info":{}}')
                assert json.loads(device.recv(4096))["message_type"] == "config"
                for url in (f"http://127.0.0.1:{ports[0]}", f"https://localhost:{ports[1]}"):
                    with urllib.request.urlopen(f"{url}/devices", context=unverified_context()) as answer:
                        assert [entry["device_id"] for entry in json.load(answer)] == ["cvd-1"]
        finally:
            process.terminate()
            _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    assert f"WARNING {tmp_path}/defaults, line 3: 'operator_colour=blue' is not understood" in log
    assert log_file.read_text() == log


def test_port_of_a_running_operator_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "defaults").write_text(f"operator_http_port={port}\n")
        assert main(["serve", "--operator", f"--operator-defaults={tmp_path}/defaults", "--log-file="]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"cuttlefish-signaling: error: --operator, with {tmp_path}/defaults: cannot listen on http:"
    )
    assert "Address already in use" in error and "systemctl stop cuttlefish-operator" in error
    assert os.listdir(tmp_path) == ["defaults"]
