"""Asynchronous fake peers in suites of users, and the modules that are imported before the first test."""

from __future__ import annotations

import pytest

from plugin_suite import SEVERAL, run, suite

pytestmark = pytest.mark.usefixtures("where")

# Asynchronous peers ---------------------------------------------------------------------------------------------------

ASYNC = """
import asyncio
import pytest

async def talk(async_fake_device, async_fake_client, server):
    device = await async_fake_device("mine")
    client = await async_fake_client("mine")
    await client.send({"type": "request-offer"})
    await (await device.recv()).reply({"type": "offer"})
    assert (await client.recv()).type == "offer"
    async with async_fake_client("mine") as other:
        assert other.is_open
    assert not other.is_open
    assert [d.device_id for d in server.devices()] == ["mine"]

@pytest.fixture
def closed(signaling_server):
    yield
    # Torn down after the fake peers, while the server runs.
    assert signaling_server.devices() == []
    ends = [e for e in signaling_server.journal.entries() if e.closed]
    assert all(e.text == "left" for e in ends), ends

@pytest.mark.asyncio
async def test_asyncio(closed, async_fake_device, async_fake_client, signaling_server):
    await talk(async_fake_device, async_fake_client, signaling_server)

@pytest.mark.asyncio(loop_scope="module")
async def test_asyncio_module(closed, async_fake_device, async_fake_client, signaling_server):
    await talk(async_fake_device, async_fake_client, signaling_server)

@pytest.mark.asyncio(loop_scope="session")
async def test_asyncio_session(async_fake_device, async_fake_client, signaling_server_module):
    await talk(async_fake_device, async_fake_client, signaling_server_module)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_anyio(closed, async_fake_device, async_fake_client, signaling_server, anyio_backend):
    await talk(async_fake_device, async_fake_client, signaling_server)

@pytest.mark.asyncio
async def test_lost(async_fake_device):
    (await async_fake_device(profile="legacy"))._mark_lost("of this test")
"""


def test_asynchronous_peers_with_each_runner(pytester: pytest.Pytester) -> None:
    suite(pytester, ASYNC)
    result = run(pytester, "-W", "error::ResourceWarning", "-W", "error::pytest.PytestUnraisableExceptionWarning")
    result.assert_outcomes(passed=5, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*async_fake_device: works on asyncio only, and this test runs on trio: let anyio_backend be*",
            "*DeviceLostError: device 'cvd-1' is lost: of this test",
        ]
    )


def test_asynchronous_peers_in_auto_mode(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        async def test_it(async_fake_device, async_fake_client):
            device, client = await async_fake_device(), await async_fake_client()
            await client.send(1)
            assert (await device.recv()).payload == 1
        """,
    )
    run(pytester, "--asyncio-mode=auto", "-p", "no:anyio").assert_outcomes(passed=1)


def test_asynchronous_peers_without_a_runner(pytester: pytest.Pytester) -> None:
    suite(pytester, "def test_it(async_fake_client):\n    pass\n")
    (pytester.path / "tox.ini").unlink()
    result = run(pytester, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:pytest_httpserver")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*async_fake_client: works on asyncio only, and this test has no event loop: *"])


# Imports --------------------------------------------------------------------------------------------------------------

LATE = """
import sys
import pytest

seen = set()

def ours():
    return {name for name in sys.modules if name.startswith("cuttlefish_signaling")}

def test_begin(signaling_server):
    seen.update(ours())
"""


def test_no_module_is_imported_during_a_test(pytester: pytest.Pytester) -> None:
    """Pytest rewrites the modules of a package with a plugin, also of an installed one, when they are imported."""
    suite(pytester, LATE + SEVERAL + ASYNC)
    (pytester.path / "cassette.jsonl").write_text('{"cassette": 1, "device_id": "cvd-1"}\n')
    pytester.makeconftest(
        """
        import sys
        import pytest

        pytest.register_assert_rewrite("cuttlefish_signaling")

        def pytest_sessionfinish():
            from test_it import ours, seen
            assert seen
            print("imported late:", sorted(ours() - seen))

        @pytest.fixture(autouse=True)
        def also(signaling_server, fake_client):
            yield
            signaling_server.faults.drop
            signaling_server.clock.now
            signaling_server.stats()
        """
    )
    output = run(pytester, "-s", "--signaling-output=out", "-k", "not trio").stdout.str()
    assert "imported late: []" in output, output[-3000:]
