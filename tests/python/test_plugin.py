"""The pytest plugin in suites of users: each test runs pytest in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap

import pytest

from cuttlefish_signaling import SignalingServer, Tls

from peers import interruptible

HERMETIC = ("-p", "no:cacheprovider", "-p", "no:randomly")


def run(pytester: pytest.Pytester, *options: str, randomly: bool = False) -> pytest.RunResult:
    """Runs the suite in the folder."""
    arguments = options if randomly else (*HERMETIC, *options)
    return pytester.runpytest_subprocess(*arguments, timeout=300)


@pytest.fixture(autouse=True)
def settings(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of its own, without settings of this one."""
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_URL", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers")


def suite(pytester: pytest.Pytester, text: str) -> None:
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


def test_first_test_passes(pytester: pytest.Pytester) -> None:
    suite(pytester, FIRST)
    run(pytester).assert_outcomes(passed=1)


def test_function_and_session_scoped_servers(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        urls, shared = [], []

        @pytest.mark.parametrize("n", range(3))
        def test_own(n, signaling_server, signaling_server_factory):
            more = [signaling_server_factory(), signaling_server_factory(device_wait_timeout=1)]
            urls.extend(server.url for server in [signaling_server, *more])
            assert len({server.url for server in [signaling_server, *more]}) == 3

        @pytest.mark.parametrize("n", range(3))
        def test_shared(n, signaling_server_session, fake_device):
            fake_device()      # On the session's server, as that is the one the test names; gone afterwards.
            shared.append(signaling_server_session.url)
            assert len(signaling_server_session.devices()) == 1

        def test_last(signaling_server_session):
            assert len(set(shared)) == 1
            assert signaling_server_session.is_running
            assert signaling_server_session.devices() == []
        """,
    )
    run(pytester).assert_outcomes(passed=7)


def test_settings_precedence(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling import IceServer, Tls

        @pytest.fixture(scope="session")
        def signaling_config():
            return {"ice_servers": [{"urls": "stun:config"}], "device_wait_timeout": 7, "journal": True}

        @pytest.fixture(scope="session")
        def signaling_tls():
            return Tls.self_signed()

        pytestmark = pytest.mark.signaling(device_wait_timeout=8)

        def test_config(signaling_server, fake_device):
            assert signaling_server.url.startswith("https://")
            assert fake_device().config["ice_servers"] == [{"urls": ["stun:config"]}]
            assert signaling_server._settings.native["device_wait_timeout"] == 8

        @pytest.mark.signaling(ice_servers=[IceServer("stun:marker")], tls=None)
        def test_marker(signaling_server, fake_device):
            assert signaling_server.url.startswith("http://")
            assert fake_device().config["ice_servers"] == [{"urls": ["stun:marker"]}]

        @pytest.mark.signaling(device_wait_timeout=9)
        class TestClosest:
            @pytest.mark.signaling(device_wait_timeout=10)
            def test_closest(self, signaling_server):
                assert signaling_server._settings.native["device_wait_timeout"] == 10

            def test_class(self, fake_device, signaling_server_factory):
                assert signaling_server_factory()._settings.native["device_wait_timeout"] == 9
                assert signaling_server_factory(device_wait_timeout=1)._settings.native["device_wait_timeout"] == 1
        """,
    )
    run(pytester).assert_outcomes(passed=4)


def test_signaling_config_override_in_module(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest

        @pytest.fixture
        def signaling_config(request):
            return {"device_wait_timeout": 3}

        def test_narrower(signaling_server):
            assert signaling_server._settings.native["device_wait_timeout"] == 3
        """,
    )
    run(pytester).assert_outcomes(passed=1)


def test_invalid_markers_are_errors(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest

        @pytest.mark.signaling(device_wait_timout=1)
        def test_typo(signaling_server):
            pass

        @pytest.mark.signaling(5)
        def test_position(signaling_server):
            pass

        @pytest.mark.signaling(device_wait_timeout=1)
        def test_session(signaling_server_session):
            pass

        @pytest.mark.signaling(device_wait_timeout=1)
        def test_none():
            pass

        def test_no_cassette(replay_device):
            pass
        """,
    )
    result = run(pytester)
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines(
        [
            "*device_wait_timout: unknown setting; did you mean 'device_wait_timeout'? Known settings: host,*",
            "*takes keyword arguments only, got (5,)*",
            "*sets device_wait_timeout, but signaling_server_session has the same settings*",
            "*sets device_wait_timeout, but this test uses none of the fixtures signaling_server, *",
            "*replay_device needs @pytest.mark.signaling_cassette(file)*",
        ]
    )


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
E             0.000                                      │◀─────────────────── connect  cvd-1#?
E             0.000                                      │─ config ──────────────────▶  cvd-1#?
E             0.000                                      │─ device_info ─────────────▶  cvd-1#1
E             0.000  cvd-1   ◀───────────────────────────┼────────────── request-offer  cvd-1#1
E             0.000  cvd-1   offer ──────────────────────┼────────────────────────────▶  cvd-1#1
"""

SECTION = """\
  seconds  device                           server                           client
    0.000  cvd-1   register ──────────────────▶│
    0.000  cvd-1   ◀────────────────── config ─│
    0.000                                      │◀─────────────────── connect  cvd-1#?
    0.000                                      │─ config ──────────────────▶  cvd-1#?
    0.000                                      │─ device_info ─────────────▶  cvd-1#1
    0.000  cvd-1   ◀───────────────────────────┼────────────── request-offer  cvd-1#1
    0.000  cvd-1   offer ──────────────────────┼────────────────────────────▶  cvd-1#1
"""

FAILING = (
    FIRST
    + """
    signaling_server.journal.expect("answer", timeout=0.1)
"""
)


def timeless(output: str) -> str:
    return re.sub(r"\b\d+\.\d{3}\b", "0.000", output)


def test_failure_report_has_transcript(pytester: pytest.Pytester) -> None:
    suite(pytester, FAILING)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    output = timeless(result.stdout.str())
    assert GOLDEN in output
    title, _, rest = output.partition("Signaling transcript of http://127.0.0.1:")[2].partition("\n")
    assert re.fullmatch(r"\d+ -+", title)
    assert rest.startswith(SECTION)


@pytest.mark.parametrize(("trace", "failing", "passing"), [("off", 0, 0), ("on-failure", 1, 0), ("always", 1, 1)])
def test_signaling_trace_option(pytester: pytest.Pytester, trace: str, failing: int, passing: int) -> None:
    suite(pytester, FIRST + "\n" + FAILING.replace("test_first", "test_failing"))
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


def test_async_test_runners(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import asyncio
        import pytest
        from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice

        async def talk(server):
            async with AsyncFakeDevice(server, "mine") as device, AsyncFakeClient(server, "mine") as client:
                await client.send({"type": "request-offer"})
                await (await device.recv()).reply({"type": "offer"})
                await server.journal.expect_sequence_async("request-offer", "offer")
                assert (await client.recv()).type == "offer"

        @pytest.mark.asyncio
        async def test_asyncio(signaling_server, fake_device):
            fake_device("other")
            await talk(signaling_server)
            await signaling_server.wait_for_device_async("other")

        @pytest.mark.asyncio(loop_scope="module")
        async def test_wider_loop(signaling_server_session):
            await talk(signaling_server_session)

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_anyio(signaling_server, anyio_backend):
            await talk(signaling_server)

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        async def test_synchronous_peers_on_any_loop(signaling_server, fake_device, fake_client, anyio_backend):
            device, client = fake_device(), fake_client()
            client.send(1)
            assert device.recv().payload == 1

        @pytest.fixture
        async def async_device(signaling_server):
            async with AsyncFakeDevice(signaling_server) as device:
                yield device

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_async_fixture(async_device, fake_client, anyio_backend):
            fake_client().send(2)
            assert (await async_device.recv()).payload == 2
        """,
    )
    run(pytester).assert_outcomes(passed=6)


def test_xdist_with_4_workers_and_200_tests_in_random_order(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest

        @pytest.mark.parametrize("n", range(100))
        def test_own(n, signaling_server, fake_device, fake_client):
            device, client = fake_device(f"cvd-{n}"), fake_client(f"cvd-{n}")
            client.send(n)
            assert device.recv().payload == n
            assert [d.device_id for d in signaling_server.devices()] == [f"cvd-{n}"]

        @pytest.mark.parametrize("n", range(100))
        def test_shared(n, signaling_server_session, fake_device, fake_client):
            device, client = fake_device(), fake_client()
            client.send(n)
            assert device.recv().payload == n
        """,
    )
    run(pytester, "-n", "4", "-q", randomly=True).assert_outcomes(passed=200)


def test_500_servers_leak_no_thread_or_descriptor(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import gc, os, threading
        import pytest

        def count():
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        before = []

        @pytest.mark.parametrize("n", range(500))
        def test_server(n, signaling_server, request):
            if n % 50 == 0:
                fake_device = request.getfixturevalue("fake_device")
                fake_device()
            assert signaling_server.is_running

        def test_a_baseline():
            pass

        def test_nothing_is_left():
            gc.collect()
            descriptors, threads = count()
            assert threads == 1, threading.enumerate()
            assert descriptors < 30
        """,
    )
    run(pytester, "-q").assert_outcomes(passed=502)


def test_exitfirst_stops_cleanly(pytester: pytest.Pytester) -> None:
    suite(pytester, FAILING + "\n\ndef test_second(signaling_server):\n    pass\n")
    result = run(pytester, "-x")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "wait",
    [
        "fake_device().recv(timeout=None)",
        "signaling_server.journal.expect('offer', timeout=None)",
        "signaling_server.wait_for_device('cvd-9', timeout=None)",
    ],
)
def test_sigint_interrupts_wait(pytester: pytest.Pytester, wait: str) -> None:
    suite(
        pytester,
        f"""
        def test_wait(signaling_server, fake_device):
            print("waiting", flush=True)
            {wait}
        """,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", *HERMETIC],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in output
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output


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


def test_signaling_cassette_marker(pytester: pytest.Pytester) -> None:
    (pytester.path / "boot.jsonl").write_text(
        '{"cassette": 1, "device_id": "cvd-1", "device_info": {"real": true}}\n'
        '{"from": "client", "client": 4, "payload": {"type": "request-offer"}}\n'
        '{"from": "device", "client": 4, "payload": {"type": "offer", "sdp": "recorded"}}\n'
    )
    suite(
        pytester,
        """
        import pytest

        @pytest.mark.signaling_cassette("boot.jsonl")
        def test_replayed(fake_client):
            client = fake_client("cvd-1")
            assert client.device_info == {"real": True}
            client.send({"type": "request-offer"})
            assert client.recv().payload == {"type": "offer", "sdp": "recorded"}

        @pytest.mark.signaling_cassette("boot.jsonl", device_id="cvd-2")
        def test_named(signaling_server_session, replay_device, fake_client):
            assert signaling_server_session.wait_for_device("cvd-2").clients == 0
            fake_client("cvd-2").send({"type": "nonsense"})
            replay_device.recv()
            assert replay_device.unmatched == [{"type": "nonsense"}]

        @pytest.mark.signaling_cassette("none.jsonl")
        def test_missing(fake_client):
            pass
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*CassetteError: cannot read the cassette*none.jsonl*"])


# A server that runs already ------------------------------------------------------------------------------------------

ATTACHED = (
    FIRST.replace('signaling_server.journal.expect_sequence("request-offer", "offer")', "")
    + """
    signaling_server.wait_for_device("cvd-1")
    assert signaling_server.device_ids() == ["cvd-1"]

def test_session(signaling_server_session):
    assert signaling_server_session.is_running

def test_journal(signaling_server):
    signaling_server.journal.expect("offer")

@__import__("pytest").mark.signaling(device_wait_timeout=1)
def test_settings(signaling_server):
    pass

def test_wait(signaling_server):
    import pytest
    with pytest.raises(TimeoutError, match="waited 0.1 s for device 'cvd-9' to register; no device is registered"):
        signaling_server.wait_for_device("cvd-9", timeout=0.1)
"""
)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_signaling_url_attaches_to_running_server(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    suite(pytester, ATTACHED)
    with SignalingServer() as server:
        options = []
        if by == "option":
            options = [f"--signaling-url={server.url}"]
        else:
            monkeypatch.setenv("CUTTLEFISH_SIGNALING_URL", server.device_url.removesuffix("/register_device"))
        result = run(pytester, *options)
        result.assert_outcomes(passed=3, failed=1, errors=1)
        assert server.stats().accepted == 2, "the tests used this server"
    result.stdout.fnmatch_lines(
        [
            "*NotOursError: the settings device_wait_timeout are not available: --signaling-url points at *",
            "*NotOursError: journal is not available: --signaling-url points at an external server, http*; run *",
        ]
    )


def test_signaling_url_with_tls_needs_authority(pytester: pytest.Pytester) -> None:
    suite(pytester, ATTACHED)
    tls = Tls.self_signed()
    authority = pytester.path / "authority.pem"
    authority.write_text(tls.certificate_pem)
    with SignalingServer(tls=tls) as server:
        trusting = run(pytester, f"--signaling-url={server.url}", f"--signaling-ca={authority}", "-k", "first")
        trusting.assert_outcomes(passed=1, deselected=4)
        doubting = run(pytester, f"--signaling-url={server.url}", "-k", "first")
        doubting.assert_outcomes(errors=1, deselected=4)
        doubting.stdout.fnmatch_lines(
            ["*UnreachableError*certificate verify failed*trust its certificate authority with*"]
        )


def test_unreachable_signaling_url_is_error(pytester: pytest.Pytester) -> None:
    suite(pytester, FIRST)
    result = run(pytester, "--signaling-url=http://127.0.0.1:1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UnreachableError: no signaling server answers at http://127.0.0.1:1:*refused*"])
    result = run(pytester, "--signaling-url=127.0.0.1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ConfigError: signaling_url: must be a URL with http, https, ws or wss, got '127.0.0.1'*"])


# The cost for suites without it ---------------------------------------------------------------------------------------


def test_nothing_is_imported_before_fixture_use(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import sys

        def test_clean():
            ours = [name for name in sys.modules if name.startswith("cuttlefish_signaling")]
            assert sorted(ours) == ["cuttlefish_signaling", "cuttlefish_signaling.pytest_plugin"]
            assert "websockets" not in sys.modules
        """,
    )
    run(pytester, "-p", "no:anyio", "-p", "no:pytest_httpserver").assert_outcomes(passed=1)


def test_fixtures_and_markers_are_documented(pytester: pytest.Pytester) -> None:
    fixtures = run(pytester, "--fixtures", "-v").stdout.str()
    for name in (
        "signaling_server",
        "signaling_server_session",
        "signaling_server_factory",
        "signaling_config",
        "signaling_tls",
        "fake_device",
        "fake_client",
        "replay_device",
    ):
        assert re.search(rf"^{name}\b", fixtures, re.MULTILINE), name
    markers = run(pytester, "--markers").stdout.str()
    assert "@pytest.mark.signaling(" in markers
    assert "@pytest.mark.signaling_cassette(" in markers
