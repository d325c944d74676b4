"""Failures in suites of users: the report, hook errors, lost devices, and scripts that raise an exception."""

from __future__ import annotations

import re

import pytest

from plugin_suite import FAILING, FIRST, run, suite, timeless

pytestmark = pytest.mark.usefixtures("where")

GOLDEN = """\
>       signaling_server.journal.expect("answer", timeout=0.1)
E       cuttlefish_signaling.errors.ExpectationError: expected a message with type='answer', \
within 0.1 s; it did not come
E       nearest misses:
E         #6 client->device cvd-1#1 request-offer: type is 'request-offer'
E         #7 device->client cvd-1#1 offer: type is 'offer'
E       what was said:
E           seconds  device                           server                           client
E             0.000  cvd-1   register ──────────────────▶│
E             0.000  cvd-1   ◀────────────────── config ─│
E             0.000                                      │◀─────────────────── connect  cvd-1#1
E             0.000                                      │─ config ──────────────────▶  cvd-1#1
E             0.000                                      │─ device_info ─────────────▶  cvd-1#1
E             0.000  cvd-1   ◀───────────────────────────┼────────────── request-offer  cvd-1#1
E             0.000  cvd-1   offer ──────────────────────┼────────────────────────────▶  cvd-1#1
"""

SECTION = """\
  seconds  device                           server                           client
    0.000  cvd-1   register ──────────────────▶│
    0.000  cvd-1   ◀────────────────── config ─│
    0.000                                      │◀─────────────────── connect  cvd-1#1
    0.000                                      │─ config ──────────────────▶  cvd-1#1
    0.000                                      │─ device_info ─────────────▶  cvd-1#1
    0.000  cvd-1   ◀───────────────────────────┼────────────── request-offer  cvd-1#1
    0.000  cvd-1   offer ──────────────────────┼────────────────────────────▶  cvd-1#1
"""


def test_failure_report_has_transcript(pytester: pytest.Pytester) -> None:
    suite(pytester, FAILING)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    output = timeless(result.stdout.str())
    assert GOLDEN in output
    assert "Signaling transcript of" not in output, "the error has it"


def test_report_of_other_failure_has_transcript(pytester: pytest.Pytester) -> None:
    suite(pytester, FIRST + "\n    assert client.device_info == {}\n")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    output = timeless(result.stdout.str())
    title, _, rest = output.partition("Signaling transcript of http://127.0.0.1:")[2].partition("\n")
    assert re.fullmatch(r"\d+ -+", title)
    assert rest.startswith(SECTION)


@pytest.mark.parametrize(("trace", "failing", "passing"), [("off", 0, 0), ("on-failure", 1, 0), ("always", 1, 1)])
def test_signaling_trace_option(pytester: pytest.Pytester, trace: str, failing: int, passing: int) -> None:
    suite(pytester, FIRST + "\n" + FIRST.replace("test_first", "test_failing") + "    assert False\n")
    result = run(pytester, f"--signaling-trace={trace}", "-rA")
    result.assert_outcomes(passed=1, failed=1)
    shown = result.stdout.str().count("Signaling transcript of")
    assert shown == failing + passing


HOOKS = """
import logging
import pytest
from cuttlefish_signaling.testing import FakeClient

def mine(info, ctx):
    raise KeyError("mine")

def test_before(signaling_server):
    pass

@pytest.mark.signaling(filter_device_info=mine)
def test_wrong(signaling_server, fake_device):
    fake_device()
    with pytest.raises(ConnectionError, match="Internal error"):
        FakeClient(signaling_server).start()

@pytest.mark.signaling(filter_device_info=mine, allow_errors=True)
def test_allowed(signaling_server, fake_device):
    fake_device()
    with pytest.raises(ConnectionError, match="Internal error"):
        FakeClient(signaling_server).start()
    assert len(signaling_server.hook_errors) == 1

def test_after(signaling_server):
    pass
"""


def test_hook_error_fails_its_test(pytester: pytest.Pytester) -> None:
    suite(pytester, HOOKS)
    result = run(pytester, "-v")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_wrong*",
            ">*raise KeyError(*mine*)",
            "*The above exception was the direct cause*",
            "*ServerFailedError: hook filter_device_info failed for 127.0.0.1:*: KeyError('mine')",
            "*allow_errors=True*",
            "*Signaling transcript of*",
            "*Internal error*",
        ]
    )


LOSSES = """
import json
import threading
import pytest
from websockets.sync.server import serve
from cuttlefish_signaling import DeviceLostError

def handle(connection):
    connection.recv()
    connection.send('{"message_type":"config","ice_servers":[]}')
    connection.send('{"error":"Internal error"}')
    connection.close(1011, "Internal error")

@pytest.fixture
def url():
    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()

def lose(device):
    with pytest.raises(DeviceLostError):
        device.recv(20)

def test_lost(url, fake_device):
    fake_device("cvd-0", profile="legacy")
    lose(fake_device("cvd-1", server=url, profile="legacy"))
    lose(fake_device("cvd-2", server=url, profile="legacy"))

@pytest.mark.signaling(allow_errors=True)
def test_allowed(url, fake_device):
    lose(fake_device(server=url, profile="legacy"))

def test_own_program(url, fake_device):
    assert fake_device(server=url).recv(message_type="error").error == "Internal error"

@pytest.mark.signaling_cassette("boot.jsonl", profile="legacy")
def test_replayed(replay_device):
    replay_device._peer._mark_lost("of this test")
"""


def test_lost_device_fails_its_test(pytester: pytest.Pytester) -> None:
    suite(pytester, LOSSES)
    pytester.makefile(".jsonl", boot='{"cassette": 1, "device_id": "cvd-1"}')
    result = run(pytester, "-v")
    result.assert_outcomes(passed=4, errors=2)
    lost = "it had the error 'Internal error', then the close [[]1011] 'Internal error'; a real legacy device does not*"
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_lost*",
            f"E *DeviceLostError: device 'cvd-1' is lost: {lost}",
            f"E *device 'cvd-2' is lost: {lost}",
            "E *(@pytest.mark.signaling(allow_errors=True) lets such a test pass)",
            "*ERROR at teardown of test_replayed*",
            "*DeviceLostError: device 'cvd-1' is lost: of this test*",
        ]
    )
    assert "'cvd-0' is lost" not in result.stdout.str()


def test_hook_error_before_restart_fails_its_test(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling.testing import FakeClient, FakeDevice

        def mine(info, ctx):
            raise KeyError("mine")

        def fail(server):
            with FakeDevice(server), pytest.raises(ConnectionError):
                FakeClient(server).start()

        @pytest.mark.signaling(filter_device_info=mine)
        def test_again(signaling_server):
            fail(signaling_server)
            fail(signaling_server)
            signaling_server.stop()
            signaling_server.start()
            fail(signaling_server)

        @pytest.mark.signaling(filter_device_info=mine)
        def test_without_error(signaling_server):
            signaling_server.stop()
            signaling_server.start()
        """,
    )
    result = run(pytester, "-v")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_again*", "*ServerFailedError: hook filter_device_info*"])


def test_hook_error_on_session_server_fails_its_test(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling.testing import FakeClient

        @pytest.fixture(scope="session")
        def signaling_config():
            def picky(info, ctx):
                if ctx.device_id == "bad":
                    raise KeyError("mine")
                return info
            return {"filter_device_info": picky}

        @pytest.mark.parametrize("id", ["good", "bad", "fine"])
        def test_it(id, signaling_server_session, fake_device):
            fake_device(id)
            try:
                FakeClient(signaling_server_session, id).start().close()
            except ConnectionError:
                assert id == "bad"
        """,
    )
    result = run(pytester, "-v")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it?bad?*"])
    section = result.stdout.str().partition("Signaling transcript of")[2]
    assert "bad" in section
    assert "good" not in section.partition("short test summary")[0], "the transcript has no messages of another test"


def test_exitfirst_stops_cleanly(pytester: pytest.Pytester) -> None:
    suite(pytester, FAILING + "\n\ndef test_second(signaling_server):\n    pass\n")
    result = run(pytester, "-x")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_script_exception_fails_its_test(pytester: pytest.Pytester) -> None:
    """A script of a fake peer that raises an exception fails its test at teardown."""
    suite(
        pytester,
        """
        def wrong(message):
            raise KeyError("mine")

        def test_wrong(fake_device, fake_client):
            device, client = fake_device(), fake_client()
            device.on("offer", reply_with=wrong).on("answer", reply_with={"type": "done"})
            client.send({"type": "offer"})
            client.send({"type": "answer"})
            client.recv(type="done")

        def test_right(fake_device):
            fake_device()
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_wrong*", "*KeyError: 'mine'*"])
