"""The line that a failure is shown at: in the report, with `--tb=line`, under `--pdb`, in JUnit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cuttlefish_signaling.testing import FakeDevice

from plugin_suite import HERE, HERMETIC, run, suite

pytestmark = pytest.mark.usefixtures("where")

SUITE = """
import asyncio
import unittest

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, AttachedServer, FakeClient, FakeDevice

T = 0.01


def test_recv(fake_device):
    device = fake_device()
    device.recv(T)  # HERE

def test_helper(fake_device):
    def helper(device):
        device.recv(T)  # HERE
    helper(fake_device())

def test_iteration(signaling_server, fake_client, fake_device):
    device, client = fake_device(), fake_client()
    with signaling_server.faults.reset(to="client"):
        device.send(1, client_id=1)
        for _ in client:  # HERE
            pass

def test_wait_closed(fake_device):
    fake_device().wait_closed(T)  # HERE

def test_send(fake_device, fake_client):
    device, client = fake_device(), fake_client()
    device.close()
    device.send(1, client_id=1)  # HERE

def test_wait_reconnected(fake_device):
    fake_device(profile="legacy").wait_reconnected(timeout=T)  # HERE

def test_refused(fake_client):
    fake_client("nobody")  # HERE

def test_refused_without_fixture(signaling_server):
    with FakeClient(signaling_server, "nobody"):  # HERE
        pass

def test_wait_for_device(signaling_server):
    signaling_server.wait_for_device("no", timeout=T)  # HERE

def test_wait_for_client(signaling_server):
    signaling_server.wait_for_client("no", timeout=T)  # HERE

def test_expect(signaling_server):
    signaling_server.journal.expect("offer", timeout=T)  # HERE

def test_expect_sequence(signaling_server):
    signaling_server.journal.expect_sequence("offer", "answer", timeout=T)  # HERE

def test_expect_none(signaling_server, fake_device):
    fake_device()
    signaling_server.journal.expect_none(message_type="register", within=T)  # HERE

def test_misspelled_filter(signaling_server):
    signaling_server.journal.messages(devise="x")  # HERE

def test_assert_struck(signaling_server):
    with signaling_server.faults.drop(to="client") as fault:
        pass
    fault.assert_struck()  # HERE

def test_factory(signaling_server_factory):
    signaling_server_factory(port="x")  # HERE OWN

def test_attached(signaling_server):
    AttachedServer(signaling_server.url).wait_for_device("no", timeout=T)  # HERE

def test_unreachable():
    AttachedServer("http://127.0.0.1:1")  # HERE

def test_unwritable_payload(fake_device, fake_client):
    fake_device()
    fake_client().send(object())  # HERE

def test_function_of_the_test(signaling_server, fake_device):
    fake_device()
    def where(entry):
        return entry.nothing  # HERE
    signaling_server.journal.expect(where=where, timeout=T)

def test_getfixturevalue(request):
    fake_device = request.getfixturevalue("fake_device")
    fake_device(profile="old")  # HERE

@pytest.fixture
def mine(fake_device):
    return fake_device().recv(T)  # SETUP

def test_own_fixture(mine):
    pass

def test_asyncio_run(signaling_server):
    async def main():
        async with AsyncFakeDevice(signaling_server) as device:
            await device.recv(T)  # HERE
    asyncio.run(main())

@pytest.mark.asyncio
async def test_asyncio_expect(signaling_server):
    await signaling_server.journal.expect_async("offer", timeout=T)  # HERE

@pytest.mark.asyncio
async def test_asyncio_wait(signaling_server):
    await signaling_server.wait_for_device_async("no", timeout=T)  # HERE

@pytest.mark.asyncio
async def test_asyncio_fixture(async_fake_client):
    await async_fake_client("nobody")  # HERE

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio(async_fake_device, anyio_backend):
    await (await async_fake_device()).recv(T)  # HERE

class TestCase(unittest.TestCase):
    def test_unittest(self):
        with SignalingServer() as server:
            server.wait_for_device("no", timeout=T)  # HERE

@pytest.mark.signaling(port="x")  # SETUP OWN
def test_setting_of_marker(signaling_server):
    pass

def test_no_cassette(replay_device):  # SETUP
    pass

def test_synchronous_with_asynchronous_fixture(async_fake_device):  # SETUP
    pass

def test_script_at_teardown(fake_device, fake_client):
    def wrong(message):
        raise KeyError("mine")  # SETUP
    device, client = fake_device(), fake_client()
    device.on("offer", reply_with=wrong).on("answer", reply_with={"type": "done"})
    client.send({"type": "offer"})
    client.send({"type": "answer"})
    client.recv(type="done")

def wrong_hook(info, ctx):
    raise KeyError("mine")

@pytest.mark.signaling(filter_device_info=wrong_hook)  # SETUP OWN
def test_hook_at_teardown(signaling_server, fake_device):
    fake_device()
    with pytest.raises(ConnectionError):
        FakeClient(signaling_server).start()

def test_lost_at_teardown(fake_device):  # SETUP
    fake_device(profile="legacy")._peer._mark_lost("of this test")
"""


def lines(where: str, *marks: str) -> list[int]:
    """The numbers of the lines that failures have to be shown at: `HERE` in a test, `SETUP` before or after it.

    Those of `OWN` need a server of their own, so their tests are skipped with a server that runs already.
    """
    wanted = {f"{mark}{own}" for mark in marks or ("HERE", "SETUP") for own in ("", " OWN" if where == HERE else "")}
    numbered = enumerate(SUITE.lstrip("\n").splitlines(), 1)
    return [number for number, line in numbered if line.rpartition("# ")[2] in wanted]


@pytest.fixture
def failing(pytester: pytest.Pytester) -> pytest.Pytester:
    suite(pytester, SUITE.lstrip("\n"))
    return pytester


def test_line_of_the_test_is_shown(failing: pytest.Pytester, where: str) -> None:
    output = run(failing, "--tb=line", "--show-capture=no").stdout.str()
    shown = [int(number) for number in re.findall(r"^/\S*test_it\.py:(\d+): ", output, re.MULTILINE)]
    assert shown == lines(where, "HERE"), "pytest shows the others in full"
    assert "cuttlefish_signaling/" not in output


def test_report_has_no_frame_of_the_package(failing: pytest.Pytester, where: str) -> None:
    result = run(failing, "--junitxml=junit.xml", "--show-capture=no")
    text = result.stdout.str()
    for name in ("cuttlefish_signaling/", "websockets/", "concurrent/futures", "_pytest/", "pluggy"):
        assert [line for line in text.splitlines() if name in line and ".py:" in line] == [], name
    shown = [int(number) for number in re.findall(r"^test_it\.py:(\d+): \w+$", text, re.MULTILINE)]
    assert set(shown) >= set(lines(where))
    assert "URLError" not in text, "causes without a line of the test are left out"
    document = ElementTree.parse(failing.path / "junit.xml")
    failures = [*document.iter("failure"), *document.iter("error")]
    assert len(failures) == len(lines(where))
    assert not [failure.text for failure in failures if re.search(r"cuttlefish_signaling/\S+\.py:", failure.text or "")]


def test_debugger_begins_at_the_line_of_the_test(failing: pytest.Pytester, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pdb", "--tb=no", *HERMETIC],
        input="p 6 * 7\nc\n" * len(lines(where)),
        capture_output=True,
        text=True,
        cwd=failing.path,
        timeout=300,
        check=False,
    )
    places = re.findall(r"^> (\S+)\((\d+)\)", done.stdout, re.MULTILINE)
    assert [(Path(file).name, int(number)) for file, number in places] == [
        ("test_it.py", each) for each in lines(where)
    ]
    assert done.stdout.count("42") >= len(lines(where))


def test_debugger_has_the_fixtures_of_a_failed_teardown(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        def test_lost(fake_device, signaling_server):
            fake_device(profile="legacy")._peer._mark_lost("of this test")
        """,
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pdb", *HERMETIC],
        input="p signaling_server.journal.count > 1\nc\n",
        capture_output=True,
        text=True,
        cwd=pytester.path,
        timeout=300,
        check=False,
    )
    assert "(Pdb) True" in done.stdout, done.stdout


def test_full_trace_keeps_all_frames(pytester: pytest.Pytester) -> None:
    suite(pytester, "def test_it(fake_device):\n    fake_device().recv(0.01)\n")
    assert "testing/_wait.py" in run(pytester, "--full-trace").stdout.str()
    assert "testing/_wait.py" not in run(pytester).stdout.str()


def test_failures_without_the_package_are_as_before(pytester: pytest.Pytester) -> None:
    """The traceback of a test that does not use the package stays, those of the standard library included."""
    suite(
        pytester,
        """
        import json
        import pytest

        def test_library():
            json.loads("]")

        def test_skip():
            pytest.skip("here")

        @pytest.fixture
        def broken():
            json.loads("]")

        def test_fixture(broken):
            pass

        def test_missing(no_fixture):
            pass
        """,
    )
    with_plugin = run(pytester, "-rs").stdout.str()
    without = run(pytester, "-rs", "-p", "no:cuttlefish_signaling").stdout.str()

    def plain(text: str) -> list[str]:
        ignored = ("plugins:", ">       available fixtures", "running", "=")
        text = re.sub(r"0x[0-9a-f]+", "0x0", text)
        return [line for line in text.splitlines() if not line.startswith(ignored)]

    assert plain(with_plugin) == plain(without)
    assert "json/decoder.py" in with_plugin.replace("\\", "/")


# The debugger and silence ---------------------------------------------------------------------------------------------

HELD = """
import sys
import pytest
from cuttlefish_signaling import SignalingServer

@pytest.fixture(scope="module")
def own():
    with SignalingServer() as server:
        yield server

def test_held(signaling_server, own, fake_device):
    fake_device()
    breakpoint()
    assert not signaling_server.clock.is_frozen
    assert not own.clock.is_frozen
    assert [device.device_id for device in signaling_server.devices()] == ["cvd-1"]

def test_frozen(signaling_server):
    signaling_server.clock.freeze()
    breakpoint()
    assert signaling_server.clock.is_frozen

def test_failed(signaling_server, own):
    assert not own.clock.is_frozen
    assert False

def test_after(own, signaling_server):
    assert not own.clock.is_frozen
"""


def test_clocks_stand_while_the_debugger_holds_a_test(pytester: pytest.Pytester) -> None:
    suite(pytester, HELD)
    commands = [
        *("p ('held', signaling_server.clock.is_frozen, own.clock.is_frozen)", "c"),
        *("p ('frozen', signaling_server.clock.is_frozen)", "c"),
        *("p ('failed', signaling_server.clock.is_frozen, own.clock.is_frozen)", "next"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pdb", *HERMETIC],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        cwd=pytester.path,
        timeout=300,
        check=False,
    )
    assert "('held', True, True)" in done.stdout, done.stdout
    assert "('frozen', True)" in done.stdout
    assert "('failed', True, True)" in done.stdout
    assert "1 failed, 3 passed" in done.stdout


def test_device_is_not_dropped_while_the_debugger_holds_the_test() -> None:
    """Of the plugin's own function: a device that answers no ping for a time beyond the keepalive."""
    from cuttlefish_signaling import Keepalive, SignalingServer
    from cuttlefish_signaling.pytest_plugin import _debugger

    with SignalingServer(keepalive=Keepalive(interval=0.02, timeout=0.02)) as held, FakeDevice(held) as device:
        with SignalingServer(keepalive=Keepalive(interval=0.02, timeout=0.02)) as late, FakeDevice(late) as other:
            _debugger.rest()
            late.clock.resume()
            device.stall()
            other.stall()
            # This one shows that the time is over.
            while late.devices():
                assert held.devices()
            _debugger.go_on()
            while held.devices():
                pass
            assert held.stats().silent == 1
