"""Suites of users for the tests of the pytest plugin, each run in a process of its own.

Most tests run twice: with servers in the process of the suite, and with a server that runs already (`attached`), whose
control API gives the suite its journal, faults and clock.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE, ATTACHED = "here", "attached"

_SETTINGS = "settings of a test need a server of its own"
_HOOKS = "hooks are functions of the process of the server"
_SEVERAL = "the test has several servers"
WORKERS = "workers that share a server need devices of different ids, and see each other's devices"

HERE_ONLY = {
    "test_function_and_session_scoped_servers": _SEVERAL,
    "test_settings_precedence": _SETTINGS,
    "test_signaling_config_override_in_module": _SETTINGS,
    "test_xdist_with_4_workers_and_200_tests_in_random_order": WORKERS,
    "test_hook_error_fails_its_test": _HOOKS,
    "test_hook_error_before_restart_fails_its_test": _HOOKS,
    "test_hook_error_on_session_server_fails_its_test": _HOOKS,
    "test_servers_of_a_class_and_of_a_module": _SETTINGS,
    "test_misuse_is_a_short_error": _SETTINGS,
    "test_invalid_value_is_a_usage_error_of_its_place": "a usage error comes before the server is used",
    "test_fixtures_and_markers_are_documented": "no server is used",
}
"""The tests that make no sense with a server that runs already, and the reasons."""

HERMETIC = ("-p", "no:cacheprovider", "-p", "no:randomly")


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Runs a test of suites in this process, and attached unless `HERE_ONLY` has it."""
    is_twofold = "pytester" in metafunc.fixturenames and metafunc.function.__name__ not in HERE_ONLY
    metafunc.parametrize("where", [HERE, ATTACHED] if is_twofold else [HERE], indirect=True)


@pytest.fixture
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The place of the server of the suites, `HERE` or `ATTACHED`. Variables tell it to the suites."""
    if request.param == HERE:
        yield HERE
        return
    with server_process(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield ATTACHED


@contextmanager
def server_process(directory: Path, *flags: str) -> Iterator[dict[str, str]]:
    """A server in a process of its own, with a control API. Its variables for the plugin."""
    token = directory / "control.token"
    command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port=0", "--journal"]
    command += ["--control-api=http://127.0.0.1:0", f"--control-token-file={token}", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        told = _addresses(process)
        yield {
            "CUTTLEFISH_SIGNALING_URL": told["listening"],
            "CUTTLEFISH_SIGNALING_CONTROL": told["control"],
            "CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE": str(token),
        }
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """The addresses that `serve` prints."""
    assert process.stdout is not None
    told: dict[str, str] = {}
    while not {"listening", "control"} <= set(told):
        line = process.stdout.readline()
        assert line, f"the server has ended with status {process.wait()}"
        name, _, address = line.rstrip().partition(": ")
        told[name] = address
    return told


def run(pytester: pytest.Pytester, *options: str, randomly: bool = False) -> pytest.RunResult:
    """Runs the suite in the folder."""
    arguments = options if randomly else (*HERMETIC, *options)
    return pytester.runpytest_subprocess(*arguments, timeout=300)


def suite(pytester: pytest.Pytester, text: str) -> None:
    """Makes a suite of one file."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers")
    pytester.makepyfile(test_it=textwrap.dedent(text))


FIRST = """
def test_first(signaling_server, fake_device, fake_client):
    device = fake_device("cvd-1", info={"displays": []})
    client = fake_client("cvd-1")
    client.send({"type": "request-offer"})
    device.recv(type="request-offer").reply({"type": "offer"})
    assert client.recv().payload == {"type": "offer"}
    signaling_server.journal.expect_sequence("request-offer", "offer")
    assert client.device_info == {"displays": []}
"""

FAILING = (
    FIRST
    + """
    signaling_server.journal.expect("answer", timeout=0.1)
"""
)

SEVERAL = (
    FAILING
    + """
import pytest

def test_passes(signaling_server):
    pass

def test_without_server():
    assert False

@pytest.mark.parametrize("text", ["a/../b", "x" * 300, "ü", "", "a b"])
def test_ids(text, signaling_server, fake_device):
    fake_device()
    assert False

def test_two_servers(signaling_server, signaling_server_factory, fake_device):
    other = signaling_server_factory()
    fake_device("one")
    fake_device("two", server=other)
    assert False

@pytest.mark.signaling(journal=False)
def test_no_journal(signaling_server):
    assert False

def test_at_teardown(fake_device):
    fake_device(profile="legacy")._peer._mark_lost("of this test")
"""
)


def timeless(output: str) -> str:
    return re.sub(r"\b\d+\.\d{3}\b", "0.000", output)
