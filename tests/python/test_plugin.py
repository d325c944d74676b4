"""The pytest plugin in suites of users: fixtures, markers, async tests, workers, signals and cassettes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from peers import interruptible
from plugin_suite import FIRST, HERE, HERMETIC, run, suite

pytestmark = pytest.mark.usefixtures("where")


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
            "*signaling_server: device_wait_timout (@pytest.mark.signaling): unknown setting; did you mean *",
            "*takes keyword arguments only, got (5,)*",
            "*sets device_wait_timeout: but signaling_server_session has the same settings*",
            "*sets device_wait_timeout: but this test uses none of the fixtures signaling_server, *",
            "*replay_device needs @pytest.mark.signaling_cassette(file)*",
        ]
    )


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


def test_servers_leak_no_thread_or_descriptor(pytester: pytest.Pytester, where: str) -> None:
    count = 500 if where == HERE else 100
    suite(
        pytester,
        f"""
        import gc, os, threading
        import pytest

        def count():
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        before = []

        @pytest.mark.parametrize("n", range({count}))
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
    run(pytester, "-q").assert_outcomes(passed=count + 2)


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


# The cost for suites without it ---------------------------------------------------------------------------------------


def test_nothing_is_imported_before_fixture_use(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import sys

        def test_clean():
            ours = [name for name in sys.modules if name.startswith("cuttlefish_signaling")]
            assert {name.partition(".")[2].partition(".")[0] for name in ours} == {"", "pytest_plugin"}
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
        "signaling_proxy",
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
