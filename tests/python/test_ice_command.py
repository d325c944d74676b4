"""ICE servers from a command: what it may print, one run for all, and runs that fail."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import ConfigError, IceCommand, IceServer, IceServerDict, SignalingServer

from http_requests import request_json
from peers import PATIENCE, assert_relays, peers_of, wait_until

STUN = {"urls": ["stun:stun.lab:3478"]}
TURN = {"urls": ["turn:turn.lab:3478"], "username": "u", "credential": "c"}
FALLBACK: IceServerDict = {"urls": ["stun:fallback.lab"]}
PYTHON = sys.executable


def printing(output: Any) -> list[str]:
    """A command that prints JSON."""
    return [PYTHON, "-c", "import sys; print(sys.argv[1])", json.dumps(output)]


def script(path: Path, text: str) -> list[str]:
    """A command that runs this program of Python, in which `here` is a directory of its own."""
    path.write_text(f"import os, sys, time, pathlib\nhere = pathlib.Path({str(path.parent)!r})\n{text}")
    return [PYTHON, str(path)]


def served(server: SignalingServer) -> list[Any]:
    status, config = request_json(server, "/infra_config")
    assert (status, config["message_type"]) == (200, "config")
    return list(config["ice_servers"])


def errors(server: SignalingServer) -> list[str]:
    """The errors in the log, once there is one: they come on a thread of their own."""
    wait_until(lambda: server.server_errors)
    return server.server_errors


def is_gone(pid: int) -> bool:
    """Whether a process has ended and was reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    "output",
    [
        {"message_type": "config", "ice_servers": [STUN, TURN]},
        {"ice_servers": [STUN, {**TURN, "credentialType": "password"}], "extra": 1},
        {"iceServers": [{"urls": STUN["urls"][0]}, TURN], "ttl": 600},
        [STUN, TURN],
    ],
    ids=["the operator's", "more keys", "W3C's", "a list"],
)
def test_output_of_command_is_sent_to_peers(output: Any) -> None:
    with (
        SignalingServer(ice_servers=IceCommand(printing(output), timeout=PATIENCE)) as server,
        peers_of(server) as peers,
    ):
        assert served(server) == [STUN, TURN]
        device = peers.pending_device("cvd-1")
        assert device.receive() == {"message_type": "config", "ice_servers": [STUN, TURN]}
        client = peers.pending_client("cvd-1")
        assert client.receive() == {"message_type": "config", "ice_servers": [STUN, TURN]}
        assert server.server_errors == []


def test_no_shell_reads_the_arguments() -> None:
    words = ["$HOME", "a b", "; exit 1", "*", ""]
    code = "import json, sys; print(json.dumps([{'urls': 'stun:x' + str(len(sys.argv))}])) if sys.argv[1:] == %r else 1"
    with SignalingServer(ice_servers=IceCommand([PYTHON, "-c", code % words, *words], timeout=PATIENCE)) as server:
        assert served(server) == [{"urls": ["stun:x6"]}]


def test_one_run_serves_all_peers_until_ttl(tmp_path: Path) -> None:
    text = """
runs = len(list(here.glob("run*")))
(here / f"run{runs}").touch()
while not (here / "go").exists():
    time.sleep(0.01)
print('[{"urls":"stun:run%d"}]' % runs)
"""
    command = IceCommand(script(tmp_path / "command", text), ttl=60, timeout=PATIENCE)
    answers: list[Any] = []
    with SignalingServer(ice_servers=command) as server:
        threads = [threading.Thread(target=lambda: answers.append(served(server))) for _ in range(20)]
        for thread in threads:
            thread.start()
        wait_until(lambda: (tmp_path / "run0").exists())
        (tmp_path / "go").touch()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [[{"urls": ["stun:run0"]}]] * 20
        server.clock.advance(59)
        assert served(server) == [{"urls": ["stun:run0"]}]
        assert not (tmp_path / "run1").exists()
        server.clock.advance(2)
        assert served(server) == [{"urls": ["stun:run1"]}]
        assert not (tmp_path / "run2").exists()


def test_printed_ttl_bounds_the_use_of_credentials(tmp_path: Path) -> None:
    text = """
runs = len(list(here.glob("run*")))
(here / f"run{runs}").touch()
print('{"ice_servers":[{"urls":"stun:run%d"}],"ttl":20}' % runs)
"""
    with SignalingServer(
        ice_servers=IceCommand(script(tmp_path / "command", text), ttl=3600, timeout=PATIENCE)
    ) as server:
        assert served(server) == [{"urls": ["stun:run0"]}]
        server.clock.advance(9)
        assert served(server) == [{"urls": ["stun:run0"]}]
        server.clock.advance(2)
        assert served(server) == [{"urls": ["stun:run1"]}]


def test_registered_device_gets_new_servers_after_ttl(tmp_path: Path) -> None:
    text = """
runs = len(list(here.glob("run*")))
(here / f"run{runs}").touch()
print('[{"urls":"stun:run%d"}]' % runs)
"""
    with SignalingServer(
        ice_servers=IceCommand(script(tmp_path / "command", text), ttl=60, timeout=PATIENCE)
    ) as server:
        with peers_of(server) as peers:
            device = peers.device("cvd-1")
            server.clock.advance(61)
            assert device.receive() == {"message_type": "config", "ice_servers": [{"urls": ["stun:run1"]}]}


FAILURES = {
    "garbage": ("print('no json')", "printed no ICE servers: output: no valid JSON"),
    "another shape": ("print('{}')", "printed no ICE servers: output: an object without ice_servers"),
    "an invalid server": ('print(\'[{"urls":"http://x"}]\')', "printed no ICE servers: ice_servers[0].urls[0]: "),
    "no credentials": ('print(\'[{"urls":"turn:x"}]\')', "needs username and credential"),
    "an invalid ttl": ('print(\'{"ice_servers":[],"ttl":-1}\')', "printed no ICE servers: ttl: "),
    "nothing": ("", "printed no ICE servers: output: no valid JSON"),
    "not UTF-8": ("sys.stdout.buffer.write(b'\\xff')", "printed bytes that are not UTF-8"),
    "exit 1": (
        "print('[]'); sys.stderr.write('no route to the TURN server\\n' + 'x' * 100000); sys.exit(1)",
        'ended with exit status 1; stderr: "no route to the TURN server\\nxxx',
    ),
    "a signal": ("os.kill(os.getpid(), 9)", "was ended by signal 9"),
    "10 MB": ("sys.stdout.write(' ' * 10_000_000)", "printed more than 65536 bytes, and was killed"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_run_is_told_and_fallback_is_used(tmp_path: Path, name: str) -> None:
    text, error = FAILURES[name]
    command = IceCommand(script(tmp_path / "command", text), fallback=[FALLBACK], timeout=PATIENCE)
    with SignalingServer(ice_servers=command) as server:
        # The next run begins 10 s later.
        assert served(server) == served(server) == [FALLBACK]
        (told,) = errors(server)
        assert told.startswith(f'the command for ICE servers, "{PYTHON}", ')
        assert error in told
        assert told.endswith(". The fixed ICE servers are used")
        assert len(told) < 1000
        assert server.stats().ice_command_failures == 1
        server.clock.advance(11)
        assert served(server) == [FALLBACK]
        assert server.stats().ice_command_failures == 2


def test_missing_program_is_told(tmp_path: Path) -> None:
    command = IceCommand([tmp_path / "nowhere"], fallback=[IceServer("stun:fallback.lab")])
    with SignalingServer(ice_servers=command) as server:
        assert served(server) == [FALLBACK]
        (told,) = errors(server)
        assert "cannot be started: No such file or directory" in told


def test_last_good_servers_are_kept_for_their_lifetime(tmp_path: Path) -> None:
    text = "print('[{\"urls\":\"stun:good\"}]') if not (here / 'fail').exists() else sys.exit(3)"
    command = IceCommand(script(tmp_path / "command", text), ttl=60, fallback=[FALLBACK], timeout=PATIENCE)
    with SignalingServer(ice_servers=command) as server:
        assert served(server) == [{"urls": ["stun:good"]}]
        (tmp_path / "fail").touch()
        server.clock.advance(61)
        assert served(server) == [{"urls": ["stun:good"]}]
        assert "ended with exit status 3. Those of its last good run are used for 5" in errors(server)[0]
        server.clock.advance(60)
        assert served(server) == [FALLBACK]
        (tmp_path / "fail").unlink()
        server.clock.advance(11)
        assert served(server) == [{"urls": ["stun:good"]}]


HANG = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(here / "part").write_text(f"{os.getpid()} {child.pid}")
(here / "part").rename(here / "pids")
time.sleep(600)
"""


def test_hanging_run_is_killed_with_its_children_and_no_peer_waits(tmp_path: Path) -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device, client = peers.device("cvd-1"), peers.client("cvd-1")
        server.set_ice_servers(IceCommand(script(tmp_path / "command", HANG), timeout=5, fallback=[FALLBACK]))
        wait_until(lambda: (tmp_path / "pids").exists())
        # The command hangs, and the device has asked for its servers.
        assert_relays(client, device)
        server.clock.advance(6)
        assert device.receive() == {"message_type": "config", "ice_servers": [FALLBACK]}
        for pid in map(int, (tmp_path / "pids").read_text().split()[:1]):
            wait_until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
        wait_until(lambda: not sleeps(int((tmp_path / "pids").read_text().split()[1])))
        assert "did not end within 5s, and was killed" in errors(server)[0]


def sleeps(pid: int) -> bool:
    """Whether a process runs. A process without its parent is reaped by init, if there is one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def suppressed(server: SignalingServer) -> None:
    with suppress(OSError, http.client.HTTPException):
        served(server)


def test_stop_kills_a_hanging_run(tmp_path: Path) -> None:
    server = SignalingServer(ice_servers=IceCommand(script(tmp_path / "command", HANG), timeout=600))
    server.start()
    # Its answer comes with the stop, or is lost.
    thread = threading.Thread(target=lambda: suppressed(server), daemon=True)
    thread.start()
    wait_until(lambda: (tmp_path / "pids").exists())
    server.stop(timeout=PATIENCE)
    assert is_gone(int((tmp_path / "pids").read_text().split()[0]))
    thread.join(PATIENCE)
    assert server.stats().ice_command_failures == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"argv": []}, "IceCommand.argv: is empty"),
        ({"argv": [""]}, "IceCommand.argv: is empty"),
        ({"argv": "echo []"}, "IceCommand.argv: must be a list of strings"),
        ({"argv": ["x", 1]}, "IceCommand.argv: must be a string, got 1"),
        ({"argv": ["x", "a\0b"]}, "IceCommand.argv: .* has a NUL byte"),
        ({"argv": ["x"], "timeout": 0}, "IceCommand.timeout: must be more than 0"),
        ({"argv": ["x"], "timeout": "1"}, "IceCommand.timeout: must be a number"),
        ({"argv": ["x"], "ttl": 1e10}, "IceCommand.ttl: must be"),
        ({"argv": ["x"], "fallback": [{"urls": "http:x"}]}, r"^IceCommand\.fallback\[0\]\.urls\[0\]: unknown"),
    ],
)
def test_invalid_arguments_are_config_errors(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        IceCommand(**arguments)


def test_repr_has_no_arguments() -> None:
    assert repr(IceCommand(["turn-credentials", "--key=s3cret"])) == "<IceCommand 'turn-credentials'>"


def test_command_line_splits_words_and_uses_fixed_servers_as_fallback(tmp_path: Path) -> None:
    text = "print('[{\"urls\":\"stun:%s\"}]' % sys.argv[1].replace(' ', '-')) if not (here / 'fail').exists() else 1"
    command = [*script(tmp_path / "a command", text), "two words"]
    quoted = " ".join(f"'{word}'" for word in command)
    arguments = ["serve", "--no-tls", "--port", "0", "--stun", "stun:fallback.lab"]
    process = subprocess.Popen(
        [
            PYTHON,
            "-m",
            "cuttlefish_signaling",
            *arguments,
            "--ice-servers-command",
            quoted,
            "--ice-servers-timeout",
            "20",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("CUTTLEFISH_SIGNALING_")},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        port = int(url.split(":")[2].split("/")[0])

        class Address:
            """The address of the server, for requests."""

        address: Any = Address()
        address.port = port
        assert request_json(address, "/infra_config")[1]["ice_servers"] == [{"urls": ["stun:two-words"]}]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
