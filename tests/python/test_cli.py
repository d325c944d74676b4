"""The command line, as a user runs it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cuttlefish_signaling.cli import FLAGS, main, parser

import raw
from peers import PATIENCE, unverified_context

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("CUTTLEFISH_SIGNALING_")}


class ServeProcess:
    """`cuttlefish-signaling serve`, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.devices = process.stdout.readline().removeprefix("devices: ").strip()
        self.clients = process.stdout.readline().removeprefix("clients: ").strip()

    @property
    def port(self) -> int:
        return int(self.devices.split(":")[2].split("/")[0])

    def ends(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends a signal; returns the exit status and the log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, log


@contextmanager
def serve(
    *arguments: str, program: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> Iterator[ServeProcess]:
    program = program or (sys.executable, "-m", "cuttlefish_signaling")
    process = subprocess.Popen(
        [*program, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
    )
    try:
        yield ServeProcess(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def register(url: str) -> dict[str, object]:
    with connect(url) as device:
        device.send('{"message_type":"register","device_id":"cvd-1","device_info":{"secret":1,"shown":2}}')
        config: dict[str, object] = json.loads(device.recv(timeout=PATIENCE))
        return config


@pytest.mark.parametrize("program", [(), (str(Path(sys.executable).with_name("cuttlefish-signaling")),)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_urls_and_drains_on_signal(program: tuple[str, ...], number: int) -> None:
    with serve(program=program) as served:
        assert re.fullmatch(r"wss://127\.0\.0\.1:\d+/register_device", served.devices)
        assert re.fullmatch(r"wss://127\.0\.0\.1:\d+/connect_client", served.clients)
        with (
            connect(served.devices, ssl=unverified_context()) as device,
            connect(served.clients, ssl=unverified_context()) as client,
        ):
            device.send('{"message_type":"register","device_id":"cvd-1"}')
            assert json.loads(device.recv(timeout=PATIENCE)) == {"message_type": "config", "ice_servers": []}
            client.send('{"message_type":"connect","device_id":"cvd-1"}')
            client.recv(timeout=PATIENCE)
            client.recv(timeout=PATIENCE)
            served.process.send_signal(number)
            with pytest.raises(Exception, match="1001"):
                while True:
                    device.recv(timeout=PATIENCE)
        _, log = served.process.communicate(timeout=PATIENCE)
        assert served.process.returncode == 0, log
    for said in (
        'device "cvd-1" registered from',
        'client 1 of device "cvd-1" connected',
        "stopping",
        'device "cvd-1" left',
    ):
        assert said in log


def test_signal_delivered_to_another_thread_stops_serve() -> None:
    """The kernel chooses the thread that handles a signal. The main thread has to wake."""
    libc = ctypes.CDLL(None, use_errno=True)
    with serve("--no-tls") as served, connect(served.devices) as device:
        pid = served.process.pid
        threads = [int(thread) for thread in os.listdir(f"/proc/{pid}/task") if int(thread) != pid]
        assert threads, "a server has a thread of its own"
        for thread, number in zip([threads[0], threads[-1]], [signal.SIGTERM, signal.SIGWINCH], strict=True):
            assert libc.tgkill(pid, thread, number) == 0, os.strerror(ctypes.get_errno())
        with pytest.raises(ConnectionClosed, match="1001"):
            device.recv(timeout=PATIENCE)
        assert served.process.wait(PATIENCE) == 0


def test_second_signal_exits_immediately() -> None:
    with serve("--no-tls", "--hooks", "time:sleep") as nonsense:
        assert nonsense.process.wait(PATIENCE) == 2
    with serve("--no-tls") as served:
        with raw.Raw(served.port, "/register_device"):
            served.process.send_signal(signal.SIGTERM)
            assert served.process.stderr is not None
            while "stopping" not in served.process.stderr.readline():
                pass
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_ice_flags_are_merged(tmp_path: Path) -> None:
    (tmp_path / "ice.json").write_text('[{"urls": "stun:from-file"}]')
    with serve(
        "--no-tls", "--stun", "stun:a", "--stun", "stun:b", "--ice-servers", f"@{tmp_path / 'ice.json'}"
    ) as served:
        config = register(served.devices)
    assert [server["urls"] for server in config["ice_servers"]] == [["stun:a"], ["stun:b"], ["stun:from-file"]]  # type: ignore[attr-defined]


def test_turn_secret_makes_credentials_and_is_not_logged() -> None:
    with serve("--no-tls", "--turn", "turn:t.lab", "--turn-secret", "s3cret", "--stun", "stun:s.lab") as served:
        stun, turn = register(served.devices)["ice_servers"]  # type: ignore[misc]
        status, log = served.ends()
    assert stun == {"urls": ["stun:s.lab"]}  # type: ignore[has-type]
    assert set(turn) == {"urls", "username", "credential"}  # type: ignore[has-type]
    assert status == 0
    assert "s3cret" not in log


def test_hooks_are_loaded_from_file(tmp_path: Path) -> None:
    hooks = tmp_path / "farm.py"
    hooks.write_text(
        "class Hooks:\n"
        "    async def ice_servers(self, ctx):\n"
        "        return [{'urls': f'stun:{ctx.role}.lab'}]\n"
        "    def filter_device_info(self, info, ctx):\n"
        "        return {'shown': info['shown']}\n"
        "hooks = Hooks()\n"
        "def authorize(ctx):\n"
        "    return 'anyone'\n"
    )
    with serve("--no-tls", "--hooks", f"{hooks}:Hooks") as served:
        assert register(served.devices)["ice_servers"] == [{"urls": ["stun:device.lab"]}]
    with serve("--no-tls", "--hooks", f"{hooks}:hooks") as served:
        assert register(served.devices)["ice_servers"] == [{"urls": ["stun:device.lab"]}]
    with serve("--no-tls", "--hooks", str(hooks)) as served:
        assert register(served.devices)["ice_servers"] == []
    with serve("--hooks", f"{hooks}:hooks", "--stun", "stun:x") as contradiction:
        _, errors = contradiction.process.communicate(timeout=PATIENCE)
        assert contradiction.process.returncode == 2
        assert "has ice_servers, which contradicts --stun" in errors


def test_flags_override_environment_and_config_file(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(
        'no_tls = true\nstun = ["stun:file"]\ndevice_wait_timeout = "none"\nlog_level = "warning"\n'
        "[limits]\nmax_message_size = 1000\n[keepalive]\ninterval = 3\n"
    )
    with serve("--config", str(config)) as served:
        assert served.devices.startswith("ws:")
        assert register(served.devices)["ice_servers"] == [{"urls": ["stun:file"]}]
        with connect(served.devices) as device:
            device.send("x" * 2000)
            with pytest.raises(Exception, match="1009"):
                device.recv(timeout=PATIENCE)
    variables = {"CUTTLEFISH_SIGNALING_CONFIG": str(config), "CUTTLEFISH_SIGNALING_STUN": "stun:env1 stun:env2"}
    with serve(environment=variables) as served:
        assert register(served.devices)["ice_servers"] == [{"urls": ["stun:env1"]}, {"urls": ["stun:env2"]}]
    with serve("--stun", "stun:flag", environment=variables) as served:
        assert register(served.devices)["ice_servers"] == [{"urls": ["stun:flag"]}]


def test_log_format_json() -> None:
    with serve("--no-tls", "--log-format", "json") as served:
        register(served.devices)
        _, log = served.ends()
    lines = [json.loads(line) for line in log.splitlines()]
    assert any('device "cvd-1" registered' in line["message"] for line in lines)
    assert {line["level"] for line in lines} == {"info"}


BAD = [
    (["--port", "70000"], "--port: '70000' is not a whole number from 0 to 65535"),
    (["--port", "x"], "error: --port: 'x' is not a whole number from 0 to 65535"),
    (["--host", "0.0.0.0"], "error: --host: 0.0.0.0 can be reached from other machines"),
    (
        ["--host", "0.0.0.0"],
        "give --token-file or --jwt-keys, or --hooks with `authorize`, or --allow-unauthenticated if that",
    ),
    (["--allow-host", "http://lab"], "error: --allow-host: 'http://lab' is not a host name"),
    (["--allow-origin", "panel.lab"], "error: --allow-origin: 'panel.lab' is not an origin"),
    (["--stun", "http:x"], "error: --stun: unknown ICE scheme"),
    (["--turn", "turn:x"], "error: --turn-secret: is missing: --turn needs it"),
    (["--turn-secret", "x"], "error: --turn: is missing: --turn-secret needs it"),
    (["--turn", "turn:x", "--turn-secret", "y", "--ice-servers", "[]"], "cannot be combined"),
    (["--ice-servers", "{}"], "--ice-servers: expected a list, got an object without urls and without iceServers"),
    (["--ice-servers", "[{"], "--ice-servers: no valid JSON"),
    (["--ice-servers", "@/nowhere"], "ice-servers: cannot read /nowhere"),
    (["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], "error: --tls-cert, --tls-key: cannot read the certificate"),
    (["--tls-cert", "/nowhere"], "tls-key: is missing"),
    (["--no-tls", "--tls-cert", "/nowhere"], "--tls-cert: contradicts --no-tls"),
    (["--no-tls", "--state-dir", "/nowhere"], "--state-dir: contradicts --no-tls"),
    (
        ["--state-dir", "/nowhere", "--tls-cert", "/nowhere", "--tls-key", "/x"],
        "--state-dir: contradicts --tls-cert and",
    ),
    (["--print-ca", "--no-tls"], "--print-ca: contradicts --no-tls"),
    (
        ["--print-ca", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"],
        "--print-ca: contradicts --tls-cert and --tls-key",
    ),
    (["--allow-host", "ex\u00e4mple.lab"], "--allow-host: 'ex\u00e4mple.lab' has letters that are not ASCII"),
    (["--hooks", "nowhere:x"], "hooks: cannot load nowhere:x"),
    (["--hooks", "json:nothing"], "there is no 'nothing' in json"),
    (["--hooks", "json"], "has none of authorize, filter_device_info, ice_servers"),
    (["--hooks", "/nowhere.py:x"], "hooks: cannot load"),
    (["--config", "/nowhere"], "config: cannot read /nowhere"),
    (["--device-wait-timeout=-1"], "--device-wait-timeout: '-1' is not a number of seconds, 0 to 10^9, or none"),
    (["--log-level", "loud"], "--log-level: invalid choice"),
    (["--on-duplicate", "x"], "--on-duplicate: invalid choice"),
    (["--devices-format", "xml"], "--devices-format: invalid choice"),
    (["--stun", "stun:x", "--ice-servers", '[{"urls": "http:x"}]'], "error: --ice-servers[0].urls"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_invalid_flags_print_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["serve", *arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    output, errors = capsys.readouterr()
    assert status == 2
    assert output == ""
    *before, last = errors.splitlines()
    assert all(" starts on " in record for record in before) and len(before) <= 1, errors
    assert last.startswith("cuttlefish-signaling: error: ")
    assert said in last


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "cannot read"),
        ("prot = 5", ", line 1: prot: unknown key 'prot'; did you mean 'port'?"),
        ('port = "80"', "port: '80' is not a whole number from 0 to 65535"),
        ("host = 7", "host: 7 is not a text"),
        ('stun = "stun:x"', "stun: 'stun:x' is not a list of strings"),
        ('on_duplicate = "x"', "on_duplicate: 'x' is not one of reject, replace"),
        ('devices_format = "xml"', "devices_format: 'xml' is not one of full, ids"),
        ("turn_ttl = inf", "turn_ttl: is inf or nan"),
        ("[keepalive]\ninterval = nan", "keepalive.interval: is inf or nan"),
        ("limits = 5", "limits: must be a table"),
        ("[limits]\nsize = 5", "limits.size: unknown key 'size'"),
        ("[limits]\nmax_message_size = 1", "limits.max_message_size: 1 is not a whole number from"),
    ],
)
def test_invalid_config_file_exits_2(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "server.toml"
    config.write_text(text)
    assert main(["serve", "--config", str(config)]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_invalid_environment_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_PORT", "http")
    assert main(["serve"]) == 2
    assert "CUTTLEFISH_SIGNALING_PORT: 'http' is not a whole number from 0 to 65535" in capsys.readouterr().err


def test_help_lists_flags_variables_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag in FLAGS:
        assert f"--{flag.name}" in text
        assert f"[env: {flag.variable}]" in text
    assert "examples:" in text


def test_serve_answers_healthz() -> None:
    with serve("--no-tls") as served:
        url = served.devices.replace("ws:", "http:").replace("/register_device", "/healthz")
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert json.load(answer) == {"status": "ok"}


@pytest.mark.parametrize("abstract", [False, True])
def test_sd_notify_sends_ready_and_stopping(tmp_path: Path, abstract: bool) -> None:
    name = f"@{tmp_path}/notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(PATIENCE)
        with serve("--no-tls", "--port", "0", environment={"NOTIFY_SOCKET": name}) as served:
            assert systemd.recv(100) == b"READY=1"
            assert served.ends()[0] == 0
            assert systemd.recv(100).startswith(b"STOPPING=1\n")


def test_unreachable_notify_socket_is_ignored(tmp_path: Path) -> None:
    with serve("--no-tls", "--port", "0", environment={"NOTIFY_SOCKET": str(tmp_path / "missing")}) as served:
        assert served.ends()[0] == 0


def test_socket_flags_create_and_remove_sockets(tmp_path: Path) -> None:
    sockets = ("--device-socket", str(tmp_path / "operator"), "--control-socket", str(tmp_path / "control"))
    with serve("--no-tls", "--port", "0", *sockets) as served:
        for name in ("operator", "control"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect(str(tmp_path / name))
        assert served.ends()[0] == 0
    assert list(tmp_path.iterdir()) == []


def printed_dashboard_url(served: ServeProcess) -> str:
    """The line with the URL of the dashboard, or an empty string. It is printed before the first log line."""
    assert served.process.stdout is not None
    served.process.send_signal(signal.SIGTERM)
    return served.process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("arguments", "has_page"),
    [
        ((), True),
        (("--host", "localhost"), True),
        (("--dashboard", "off"), False),
        (("--host", "0.0.0.0", "--allow-unauthenticated"), False),
        (("--host", "0.0.0.0", "--allow-unauthenticated", "--dashboard", "on"), True),
    ],
)
def test_dashboard_is_on_by_default_for_loopback_only(arguments: tuple[str, ...], has_page: bool) -> None:
    with serve("--no-tls", "--journal", *arguments) as served:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/", timeout=PATIENCE) as answer:
                found = b"<title>Cuttlefish signaling</title>" in answer.read()
        except urllib.error.HTTPError as refused:
            found = refused.code != 404
        assert found is has_page
        assert printed_dashboard_url(served).startswith("people: http://") is has_page


def test_file_flags_serve_assets_and_proxy_device_files(tmp_path: Path) -> None:
    (tmp_path / "client.html").write_text("hello")
    with serve("--no-tls", "--assets-dir", str(tmp_path), "--proxy-device-files") as served:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/client.html", timeout=PATIENCE) as answer:
            assert answer.read() == b"hello"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/devices/x/files/y", timeout=PATIENCE)
        assert json.load(refused.value) == {"error": "Device not found"}


@pytest.mark.parametrize("place", ["flag", "environment", "file", "default"])
def test_devices_format_is_read_from_each_source(tmp_path: Path, place: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text('devices_format = "ids"' if place == "file" else "")
    arguments = ("--devices-format", "ids") if place == "flag" else ("--config", str(config))
    environment = {"CUTTLEFISH_SIGNALING_DEVICES_FORMAT": "ids"} if place == "environment" else {}
    with serve("--no-tls", *arguments, environment=environment) as served:
        with connect(served.devices) as device:
            device.send('{"message_type":"register","device_id":"a"}')
            device.recv(timeout=PATIENCE)
            with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/devices", timeout=PATIENCE) as answer:
                listed = json.load(answer)
    assert listed == ([{"device_id": "a", "group_name": "", "adb_port": 0}] if place == "default" else ["a"])
