"""Tables `[[faults]]` of the config file: each fault, each mistake, and a server that is told to reload them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from cuttlefish_signaling import Limits, NotRunningError, SignalingServer
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.cli.armed_faults import ArmedFaults
from cuttlefish_signaling.cli.faults import KINDS, FileFault
from cuttlefish_signaling.cli.outcome import settings_as_toml, settings_digest
from cuttlefish_signaling.errors import ConfigError
from cuttlefish_signaling.faults import Faults
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import PATIENCE, wait_until
from test_cli import ServeProcess, serve
from test_doors import in_file
from test_reload_signal import hang_up, line

EACH = """\
[[faults]]
fault = "drop"
to = "client"
device = "cvd-1"
client = 3
type = "ice-candidate"
nth = 2

[[faults]]
fault = "duplicate"
direction = "client->device"
times = 2
probability = 0.5

[[faults]]
fault = "delay"
ms = 20
jitter = 1e-5

[[faults]]
fault = "reorder"
window = 3
hold = 0.1

[[faults]]
fault = "truncate"
keep = 0.25
type = "ofer"
check_type = false

[[faults]]
fault = "stall"
seconds = 1

[[faults]]
fault = "bandwidth"
bytes_per_s = 1000

[[faults]]
fault = "disconnect"
after = 2
code = 4000
absent_ok = true

[[faults]]
fault = "reset"
after = 2

[limits]
max_devices = 7
"""


def faults(tmp_path: Path, text: str) -> list[FileFault]:
    return in_file(tmp_path, text).faults


# The tables -----------------------------------------------------------------------------------------------------------


def test_file_takes_each_fault_of_python_with_its_arguments(tmp_path: Path) -> None:
    assert set(KINDS) == {name for name in vars(Faults) if not name.startswith("_")} - {"seed"}
    found = in_file(tmp_path, EACH)
    assert [repr(fault.made(Faults(None))) for fault in found.faults] == [
        "drop(client=3, device='cvd-1', nth=2, to='client', type='ice-candidate', absent_ok=True)",
        "duplicate(direction='client->device', probability=0.5, times=2, absent_ok=True)",
        "delay(0.02, 1e-08, absent_ok=True)",
        "reorder(3, 0.1, absent_ok=True)",
        "truncate(0.25, check_type=False, type='ofer', absent_ok=True)",
        "stall(1, absent_ok=True)",
        "bandwidth(1000, absent_ok=True)",
        "disconnect(4000, absent_ok=True, nth=2)",
        "reset(absent_ok=True, nth=2)",
    ]
    assert [fault.table["fault"] for fault in found.faults] == list(KINDS)
    assert found["limits"].max_devices == 7, "a table after them is a table of its own"
    assert found.faults[2].place == f"{tmp_path}/server.toml, line 15, [[faults]] 3"
    assert in_file(tmp_path, "").faults == in_file(tmp_path, "faults = []").faults == []


FOUR = '[[faults]]\nfault = "drop"\n\n[[faults]]\n'
"""The next key is in line 5, in the second table."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("to = 'client'", "line 4, [[faults]] 2: fault: is missing; there are drop, duplicate, delay, "),
        (
            "fault = 'dealy'",
            "line 5, [[faults]] 2: fault: 'dealy' is not a fault; did you mean 'delay'?; there are drop,",
        ),
        ("fault = 7", "line 5, [[faults]] 2: fault: 7 is not a fault; there are "),
        ("fault = 'seed'", "line 5, [[faults]] 2: fault: 'seed' is not a fault"),
        ("fault = 'delay'", "line 4, [[faults]] 2: ms: is missing: 'delay' needs it"),
        ("fault = 'bandwidth'", "line 4, [[faults]] 2: bytes_per_s: is missing"),
        ("ms = -1\nfault = 'delay'", "line 5, [[faults]] 2: ms: must be a number of milliseconds, 0 or more, got -1"),
        ("fault = 'delay'\nms = 1\njitter = '1'", "line 7, [[faults]] 2: jitter: must be a number of milliseconds, "),
        ("fault = 'stall'\nseconds = 'x'", "line 6, [[faults]] 2: seconds: must be a number of seconds, got 'x'"),
        ("fault = 'stall'\nseconds = inf", "line 6, [[faults]] 2: seconds: is inf or nan, which no fault takes"),
        ("fault = 'stall'\nms = 1", "line 6, [[faults]] 2: ms: unknown key 'ms' of 'stall'"),
        ("fault = 'drop'\ntipe = 'offer'", "[[faults]] 2: tipe: unknown key 'tipe' of 'drop'; did you mean 'type'?"),
        ("fault = 'drop'\nself = 1", "line 6, [[faults]] 2: self: unknown key 'self'"),
        ("fault = 'reorder'\nwindow = 1", "line 6, [[faults]] 2: window: 1 is not a whole number from 2 to 1000"),
        ("fault = 'reorder'\nwindow = 2.0", "line 6, [[faults]] 2: window: 2.0 is not a whole number from 2 to 1000"),
        ("fault = 'truncate'\nkeep = 2", "line 6, [[faults]] 2: keep: 2 is not a number from 0 to 1"),
        ("fault = 'bandwidth'\nbytes_per_s = 0", "line 6, [[faults]] 2: bytes_per_s: 0 is not a number from 1 to "),
        ("fault = 'disconnect'\ncode = 1006", "line 6, [[faults]] 2: code: 1006 cannot be sent in a close frame"),
        ("fault = 'reset'\nafter = 0", "line 6, [[faults]] 2: after: 0 is not a whole number from 1"),
        ("fault = 'reset'\nnth = 2", "line 4, [[faults]] 2: nth and after have the same meaning here; pass after"),
        ("fault = 'drop'\ntimes = 0", "line 6, [[faults]] 2: times: 0 is not a whole number from 1 to"),
        ("fault = 'drop'\nprobability = 2", "line 6, [[faults]] 2: probability: 2 is not a number from 0 to 1"),
        ("fault = 'drop'\nclient = 0", "line 6, [[faults]] 2: client: 0 is not a client id"),
        ("fault = 'drop'\ndevice = ['a']", "line 6, [[faults]] 2: device: ['a'] is not a device id"),
        ("fault = 'drop'\nto = 'both'", "line 6, [[faults]] 2: to: 'both' is neither 'device' nor 'client'"),
        ("fault = 'drop'\ndirection = 'up'", "line 6, [[faults]] 2: direction: 'up' is not one of"),
        ("fault = 'drop'\ntype = 'ofer'", "'offer'? If 'ofer' is right, set check_type = false"),
        ("fault = 'drop'\ncheck_type = 'no'", "line 6, [[faults]] 2: check_type: 'no' is neither true nor false"),
        ("fault = 'drop'\nabsent_ok = 1", "line 6, [[faults]] 2: absent_ok: must be true, got 1"),
        ("fault = 'drop'\nabsent_ok = false", "line 6, [[faults]] 2: absent_ok: must be true, got false: no device is"),
    ],
)
def test_wrong_table_is_refused_in_the_words_of_the_file(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        in_file(tmp_path, FOUR + text)
    assert str(error.value).startswith(f"{tmp_path}/server.toml, line ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("faults = 3", "line 1: faults: must be written as [[faults]], once for each fault, got 3"),
        ("[faults]\nfault = 'drop'", "line 1: faults: must be written as [[faults]]"),
        ("faults = [3]", "line 1, [[faults]] 1: must be a table, got 3"),
        ("faults = [inf]", "line 1: faults: is inf or nan"),
        ("faults = [{ fault = 'drop' },\n { fault = 'delay', ms = '1' }]", "line 2, [[faults]] 2: ms: must be"),
        ("[[fault]]\nfault = 'drop'", "line 1: fault: unknown key 'fault'; did you mean '[[faults]]'?"),
    ],
)
def test_what_is_no_list_of_tables_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        in_file(tmp_path, text)
    assert said in str(error.value)


def test_check_tells_each_wrong_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "server.toml").write_text(FOUR + "fault = 'x'\n[[faults]]\nfault = 'drop'\nnth = 0\nother = 1\n")
    assert main(["check", "--no-tls", "--config", f"{tmp_path}/server.toml"]) == 2
    output, errors = capsys.readouterr()
    assert "line 5, [[faults]] 2: fault: 'x'" in errors and "line 9, [[faults]] 3: other: unknown" in errors
    assert errors.count("error: ") == 2
    assert output.endswith(f'[[faults]]  # {tmp_path}/server.toml, line 1, [[faults]] 1\nfault = "drop"\n')


def test_printed_settings_are_a_file_with_the_same_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = in_file(tmp_path, EACH)
    assert main(["serve", "--dry-run", "--config", f"{tmp_path}/server.toml"]) == 0
    printed, errors = capsys.readouterr()
    assert errors == "" and printed.splitlines() == settings_as_toml(found)
    again = in_file(tmp_path, printed)
    assert [fault.table for fault in again.faults] == [fault.table for fault in found.faults]
    one = "[[faults]]\nfault = 'drop'\n"
    digests = [settings_digest(in_file(tmp_path, text)) for text in ("", "faults = []", one, one + "nth = 2", one * 2)]
    assert digests[0] == digests[1] and len(set(digests)) == 4


# Armed ----------------------------------------------------------------------------------------------------------------


def test_faults_of_python_stay_and_those_of_the_file_are_replaced(tmp_path: Path) -> None:
    with SignalingServer() as server, FakeDevice(server, device_id="cvd-1") as device:
        with FakeClient(server, device_id="cvd-1") as client, server.faults.drop(type="offer") as own:
            armed = ArmedFaults(server)
            dropping = faults(tmp_path, "[[faults]]\nfault = 'drop'\ntype = 'answer'\ntimes = 1\n")
            assert (armed.replace(dropping), armed.replace(dropping), armed.replace([])) == (True, False, True)
            armed.replace(dropping)
            for kind in ("answer", "offer", "answer", "answer"):
                client.send({"type": kind})
                assert armed.replace(dropping) is False, "the same faults go on, and so do their counts"
            assert [device.recv().payload for _ in range(2)] == [{"type": "answer"}] * 2
            assert own.armed and own.hits == 1
            armed.replace([])
            assert own.armed


def test_fault_of_the_file_that_held_too_much_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SignalingServer(limits=Limits(held_by_faults=1)) as server, FakeDevice(server) as device:
        with FakeClient(server) as client:
            armed = ArmedFaults(server)
            armed.replace(faults(tmp_path, "[[faults]]\nfault = 'stall'\nto = 'device'\n"))
            client.send(1)
            client.send(2)
            device.send(3, client_id=1)
            client.recv()
            wait_until(lambda: server.stats().dropped == 1)
            armed.replace([])
            assert device.recv().payload == 1
    assert [record.__dict__["event"] for record in caplog.records if "fault" in record.__dict__["event"]] == [
        "faults_armed",
        "fault_overran",
    ]


def test_fault_without_a_server_is_not_armed() -> None:
    with pytest.raises(NotRunningError):
        Faults(None).drop().arm()
    with pytest.raises(NotRunningError):
        Faults(None).seed(1)


# A served process -----------------------------------------------------------------------------------------------------


class Pair:
    """A device and a client of a served process."""

    def __init__(self, served: ServeProcess, stack: ExitStack) -> None:
        self._device: ClientConnection = stack.enter_context(connect(served.devices))
        self._device.send(json.dumps({"message_type": "register", "device_id": "cvd-1"}))
        self._device.recv(timeout=PATIENCE)
        self._client: ClientConnection = stack.enter_context(connect(served.clients))
        self._client.send(json.dumps({"message_type": "connect", "device_id": "cvd-1"}))
        for _ in range(2):
            self._client.recv(timeout=PATIENCE)  # config, device_info

    def arrive(self, *payloads: dict[str, Any]) -> list[dict[str, Any]]:
        """The client sends these payloads and a last one. Returns those before it that arrive."""
        last = {"type": "last"}
        for payload in (*payloads, last):
            self._client.send(json.dumps({"message_type": "forward", "payload": payload}))
        came: list[dict[str, Any]] = []
        while not came or came[-1] != last:
            came.append(json.loads(self._device.recv(timeout=PATIENCE))["payload"])
        return came[:-1]


OFFER, ANSWER = {"type": "offer"}, {"type": "answer"}


def test_served_process_drops_and_reload_adds_removes_and_refuses(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("no_tls = true\n[[faults]]\nfault = 'drop'\ntype = 'offer'\n")
    with serve("--config", str(config)) as served, ExitStack() as stack:
        pair = Pair(served, stack)
        assert pair.arrive(OFFER, ANSWER) == [ANSWER]
        assert line(served, "faults are armed").endswith('which are for tests: drop(type="offer")\n')
        assert hang_up(served).endswith("reloaded: nothing has changed\n")
        config.write_text("no_tls = true\n[[faults]]\nfault = 'drop'\ntype = 'answer'\n")
        assert hang_up(served).endswith("reloaded: faults\n")
        assert pair.arrive(OFFER, ANSWER) == [OFFER]
        for text, said in (
            (
                "drain = 1\n[[faults]]\nfault = 'drop'\n[[faults]]\nfault = 'stall'\nsecs = 1",
                "line 6, [[faults]] 2: secs",
            ),
            ("hook_timeout = 0\n[[faults]]\nfault = 'drop'", "line 1: hook_timeout"),
            ("allow_host = ['a b']\n[[faults]]\nfault = 'drop'", "line 1: allow_host"),
        ):
            config.write_text(text)
            told = hang_up(served)
            assert "not reloaded, all settings stay" in told and said in told, told
            assert pair.arrive(OFFER, ANSWER) == [OFFER], "the faults of before stay"
        config.write_text("no_tls = true\n")
        assert hang_up(served).endswith("reloaded: faults\n")
        assert pair.arrive(OFFER, ANSWER) == [OFFER, ANSWER]
        status, log = served.ends()
        assert status == 0 and "Traceback" not in log


def test_server_with_a_wrong_table_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "server.toml").write_text(FOUR + "fault = 'delay'\n")
    assert main(["serve", "--no-tls", "--port", "0", "--config", f"{tmp_path}/server.toml"]) == 2
    said = f"{tmp_path}/server.toml, line 4, [[faults]] 2: ms: is missing: 'delay' needs it"
    assert capsys.readouterr().err == f"cuttlefish-signaling: error: {said}\n"
