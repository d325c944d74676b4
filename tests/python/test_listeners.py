"""Several listeners of one server: from Python, and on the command line."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect, unix_connect

from cuttlefish_signaling import BindError, ConfigError, SignalingServer, Tls, _native
from cuttlefish_signaling._listen import Listener, urls
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import PATIENCE, unverified_context

MOST = 96


def listener(text: str) -> Listener:
    return Listener.parse("listen", text, most=MOST)


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:1080", ("http", "127.0.0.1", 1080)),
        ("https://0.0.0.0:1443/", ("https", "0.0.0.0", 1443)),
        ("https://[::]:0", ("https", "::", 0)),
        ("http://signal.lab:80", ("http", "signal.lab", 80)),
        ("unix:/run/x/http.sock", ("unix", "/run/x/http.sock", 0o660)),
        ("unix:/run/x/http.sock?mode=0600", ("unix", "/run/x/http.sock", 0o600)),
        ("unix:/run/x/http.sock?mode=777", ("unix", "/run/x/http.sock", 0o777)),
    ],
)
def test_text_is_read(text: str, expected: tuple[str, str, int]) -> None:
    assert listener(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("http://127.0.0.1", "is not a listener (the port is missing): write http://HOST:PORT"),
        ("https://[::1]", "is not a listener"),
        ("http://:80", "is not a listener"),
        ("http://::1:80", "is not a listener"),
        ("http://[127.0.0.1]:80", "has no IPv6 address in brackets"),
        ("http://[lab]:80", "has no IPv6 address in brackets"),
        ("http://user@lab:80", "is not a listener"),
        ("http://lab:80/path", "is not a listener"),
        ("http://lab:80?x", "is not a listener"),
        ("http://lab:x", "is not a listener"),
        ("http://lab:-1", "is not a listener"),
        ("http://la b:80", "is not a listener"),
        ("http:lab:80", "is not a listener"),
        ("HTTP://lab:80", "is not a listener"),
        ("ftp://lab:80", "is not a listener"),
        ("127.0.0.1:80", "is not a listener"),
        ("nonsense", "is not a listener"),
        ("http://lab:65536", "has the port 65536; ports are between 0 and 65535"),
        ("http://lab:99999999999999999999", "has the port 99999999999999999999"),
        ("unix:", "has no path"),
        ("unix:?mode=0660", "has no path"),
        ("unix:/run/x\0y", "has no path"),
        ("unix:/run/x?mode=rw", "has 'mode=rw' after its path; write ?mode=0660"),
        ("unix:/run/x?mode=0888", "has 'mode=0888' after its path"),
        ("unix:/run/x?mode=1777", "has 'mode=1777' after its path"),
        ("unix:/run/x?", "has '' after its path"),
        ("unix:/" + "x" * 96, "is too long for a local socket: at most 96 bytes"),
    ],
)
def test_nonsense_is_refused_with_the_text(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=f"^listen: .*{re.escape(error)}"):
        SignalingServer(listen=[text])


def test_url_of_an_address_for_all_is_that_of_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "machine_addresses", lambda: ["192.0.2.1", "2001:db8::1"])
    assert urls([("http", "0.0.0.0", 1080), ("https", "::", 1443), ("unix", "/run/x", 0o660), ("http", "::1", 5)]) == [
        "http://192.0.2.1:1080",
        "http://127.0.0.1:1080",
        "https://192.0.2.1:1443",
        "https://[2001:db8::1]:1443",
        "https://127.0.0.1:1443",
        "https://[::1]:1443",
        "unix:/run/x",
        "http://[::1]:5",
    ]


def test_machine_addresses_are_no_loopback_addresses() -> None:
    addresses = _native.machine_addresses()
    assert len(set(addresses)) == len(addresses)
    for address in addresses:
        assert not address.startswith(("127.", "169.254.", "fe80:")) and address != "::1"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as own:
            own.bind((address, 0))  # Fails for an address of another machine.


# Servers --------------------------------------------------------------------------------------------------------------


def test_listeners_share_devices_and_clients(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    tls = Tls.self_signed()
    listen = [f"unix:{path}?mode=0600", "http://127.0.0.1:0", "https://[::1]:0"]
    with SignalingServer(listen=listen, tls=tls) as server:
        local, plain, secure = server.urls
        assert local == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (server.url, server.host, f"http://127.0.0.1:{server.port}") == (plain, "127.0.0.1", plain)
        assert repr(server) == f"<SignalingServer {local} {plain} {secure}>"
        assert server.tls is tls
        with FakeDevice(secure, "cvd-1", tls=tls.client_context()), FakeClient(server, "cvd-1"):
            with unix_connect(str(path), "ws://localhost/devices/cvd-1/connect") as client:
                assert "device_info" in json.loads(client.recv(timeout=PATIENCE))
                over_tcp, over_unix = server.clients("cvd-1")
                assert over_tcp.address is not None and over_unix.address is None
            context = tls.client_context()
            with urllib.request.urlopen(f"{secure}/devices", timeout=PATIENCE, context=context) as answer:
                assert [device["device_id"] for device in json.load(answer)] == ["cvd-1"]
    assert not path.exists()


def test_server_with_unix_sockets_only_has_urls_but_no_port(tmp_path: Path) -> None:
    with SignalingServer(listen=[f"unix:{tmp_path}/http.sock"]) as server:
        assert server.urls == [f"unix:{tmp_path}/http.sock"]
        assert repr(server) == f"<SignalingServer unix:{tmp_path}/http.sock>"
        for name in ("url", "port", "host", "device_url", "client_url"):
            with pytest.raises(ConfigError, match="^listen: has no address with a port"):
                getattr(server, name)


@pytest.mark.signaling(listen=["http://127.0.0.1:0", "http://[::1]:0"])
def test_marker_sets_the_listeners(signaling_server: SignalingServer) -> None:
    first, second = signaling_server.urls
    assert first.startswith("http://127.0.0.1:") and second.startswith("http://[::1]:")
    with FakeDevice(second, "cvd-1"), FakeClient(first, "cvd-1"):
        assert signaling_server.wait_for_client("cvd-1").device_id == "cvd-1"


def test_single_listener_has_one_url() -> None:
    with SignalingServer() as server:
        assert server.urls == [server.url]


@pytest.mark.parametrize("other", [{"host": "localhost"}, {"port": 1080}, {"host": "::1", "port": 1080}])
def test_listen_contradicts_host_and_port(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^listen: contradicts {' and '.join(other)}"):
        SignalingServer(listen=["http://127.0.0.1:0"], **other)  # type: ignore[arg-type]


def test_two_listeners_of_one_address_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^listen: http://127.0.0.1:1080 and http://127.0.0.1:1080 are one address$"):
        SignalingServer(listen=["http://127.0.0.1:1080", "http://127.0.0.1:1080/"]).start()


def test_listener_is_reached_by_the_name_in_its_url() -> None:
    with SignalingServer(listen=["http://localhost:0"], allowed_hosts=["signal.lab"]) as server:
        assert server.host in ("127.0.0.1", "::1")


def test_unknown_name_is_told_with_the_setting() -> None:
    with pytest.raises(BindError, match=r"^listen: 'no\.such\.host\.invalid' is not an address"):
        SignalingServer(listen=["http://no.such.host.invalid:1080"]).start()


# The command line -----------------------------------------------------------------------------------------------------


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuttlefish_signaling", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def printed(process: subprocess.Popen[str], last: str) -> list[str]:
    """The lines of stdout, up to one that begins with `last`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(last):
            return lines
    raise AssertionError(f"{lines}, {process.communicate(timeout=PATIENCE)}")


def test_serve_prints_each_listener_with_addresses_for_others(tmp_path: Path) -> None:
    path = f"{tmp_path}/http.sock"
    arguments = ["--listen", "http://127.0.0.1:0", "--listen", "https://0.0.0.0:0", "--listen", f"unix:{path}"]
    arguments += ["--allow-unauthenticated", "--state-dir", str(tmp_path / "state")]
    with run(*arguments) as process:
        try:
            lines = printed(process, "authority: ")
            shown = [line.removeprefix("listening: ") for line in lines if line.startswith("listening: ")]
            port = shown[1].rpartition(":")[2]
            machine = [address for address in _native.machine_addresses() if ":" not in address]
            assert shown[1:] == [f"https://{host}:{port}" for host in [*machine, "127.0.0.1"]] + [f"unix:{path}"]
            assert lines[0] == f"devices: {shown[0].replace('http', 'ws')}/register_device"
            people = [line for line in lines if line.startswith("people: ")]
            assert people == ["people: the page is off here: --dashboard on"], "other machines reach it"
            with connect(lines[0].split()[1]) as device:
                device.send('{"message_type":"register","device_id":"cvd-1"}')
                device.recv(timeout=PATIENCE)
                for url in shown[1:-1]:
                    with urllib.request.urlopen(url + "/devices", context=unverified_context()) as answer:
                        assert b"cvd-1" in answer.read()
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("source", ["environment", "file"])
def test_listeners_come_from_each_source(tmp_path: Path, source: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'listen = ["http://127.0.0.1:0", "unix:{tmp_path}/x"]')
    variables = {"CUTTLEFISH_SIGNALING_LISTEN": f"http://127.0.0.1:0 unix:{tmp_path}/x"}
    arguments = ["--config", str(config)] if source == "file" else []
    with run(*arguments, environment=variables if source == "environment" else None) as process:
        try:
            assert printed(process, "listening: unix:")[-1] == f"listening: unix:{tmp_path}/x"
        finally:
            process.terminate()


BAD = [
    (["--listen", "http://127.0.0.1:1", "--port", "1"], {}, "--listen: contradicts --port: write all of it as"),
    (["--listen", "http://127.0.0.1:1", "--host", "::1", "--no-tls"], {}, "--listen: contradicts --host and --no-tls"),
    (["--listen", "nonsense"], {}, "--listen: 'nonsense' is not a listener"),
    (["--listen", "http://127.0.0.1:1"], {"CUTTLEFISH_SIGNALING_PORT": "1"}, "contradicts CUTTLEFISH_SIGNALING_PORT"),
    ([], {"CUTTLEFISH_SIGNALING_LISTEN": "x"}, "CUTTLEFISH_SIGNALING_LISTEN: 'x' is not a listener"),
    (["--listen", "http://127.0.0.1:1", "--tls-cert", "a", "--tls-key", "b"], {}, "tls-cert: contradicts --listen: no"),
    (["--listen", "http://127.0.0.1:1", "--state-dir", "a"], {}, "state-dir: contradicts --listen: no URL in it is"),
    (["--listen", "http://127.0.0.1:1", "--print-ca"], {}, "print-ca: contradicts --listen: no URL in it is https"),
    (["--listen", "http://0.0.0.0:1"], {}, "listen: http://0.0.0.0:1 can be reached from other machines"),
    (["--listen", "http://[::]:1", "--listen", "http://0.0.0.0:1", "--allow-unauthenticated"], {}, "are one address"),
]


@pytest.mark.parametrize(("arguments", "variables", "error"), BAD, ids=[error for _, _, error in BAD])
def test_contradictions_name_the_flags_and_exit_2(
    arguments: list[str],
    variables: dict[str, str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *arguments]) == 2
    assert error in capsys.readouterr().err


def test_address_in_use_names_its_flag_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def error(*arguments: str) -> str:
        assert main(["serve", *arguments]) == 1
        first, last = capsys.readouterr().err.splitlines()
        assert " starts on " in first
        return last.removeprefix("cuttlefish-signaling: error: ")

    config = tmp_path / "server.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"cannot listen on http://127.0.0.1:{port}: Address already in use"
        assert error("--listen", "http://127.0.0.1:0", "--listen", f"http://127.0.0.1:{port}") == f"--listen: {said}"
        assert (
            error("--no-tls", "--port", str(port))
            == f"--port: cannot listen on 127.0.0.1:{port}: Address already in use"
        )
        config.write_text(f'listen = ["http://127.0.0.1:{port}"]')
        assert error("--config", str(config)) == f"{config}, line 1: listen: {said}"
        monkeypatch.setenv("CUTTLEFISH_SIGNALING_LISTEN", f"http://127.0.0.1:{port}")
        assert error() == f"CUTTLEFISH_SIGNALING_LISTEN: {said}"


def test_path_of_a_file_or_of_another_socket_names_its_flag_and_exits_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for arguments, flag in [
        (["--listen", f"unix:{file}"], f"--listen: cannot listen on unix:{file}"),
        (["--no-tls", "--port", "0", "--device-socket", str(file)], f"--device-socket: cannot listen on {file}"),
        (["--no-tls", "--port", "0", "--control-socket", str(file)], f"--control-socket: cannot listen on {file}"),
    ]:
        assert main(["serve", *arguments]) == 1
        assert f"{flag}: there is a file that is no socket" in capsys.readouterr().err
    assert file.read_text() == "kept"
    arguments = ["--no-tls", "--port", "0", "--device-socket", str(tmp_path / "s"), "--control-socket"]
    assert main(["serve", *arguments, str(tmp_path / "s")]) == 2
    assert f"--control-socket: {tmp_path}/s is the path of --device-socket too" in capsys.readouterr().err
