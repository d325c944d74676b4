"""The pytest plugin: fixtures for servers and fake peers, and a transcript in the report of a failed test.

The fixtures import the package when they are used, because pytest loads this plugin in every run.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from . import _checkpoints, _clusters, _conformance, _debugger, _frames, _modules, _options, _report
from ._attach import reset_for_workers, skip_if_unavailable
from ._clusters import signaling_cluster
from ._options import CA_VARIABLE, CONTROL_VARIABLE, OPTIONS, TOKEN_VARIABLE, URL_VARIABLE
from ._peers import (
    async_fake_client,
    async_fake_device,
    fake_client,
    fake_device,
    replay_device,
    signaling_anyio_peers,
)
from ._servers import (
    check_marker,
    signaling_config,
    signaling_proxy,
    signaling_server,
    signaling_server_class,
    signaling_server_factory,
    signaling_server_module,
    signaling_server_session,
    signaling_tls,
    signaling_watch,
)

__all__ = [
    "CA_VARIABLE",
    "CONTROL_VARIABLE",
    "TOKEN_VARIABLE",
    "URL_VARIABLE",
    "async_fake_client",
    "async_fake_device",
    "fake_client",
    "fake_device",
    "replay_device",
    "signaling_anyio_peers",
    "signaling_cluster",
    "signaling_config",
    "signaling_proxy",
    "signaling_server",
    "signaling_server_class",
    "signaling_server_factory",
    "signaling_server_module",
    "signaling_server_session",
    "signaling_tls",
    "signaling_watch",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of the command line and of the ini file."""
    _options.add(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Reads the options, and registers the markers."""
    options = config.stash[OPTIONS] = _options.read(config)
    config.addinivalue_line(
        "markers",
        "signaling(allow_errors=False, **settings): settings of the test's signaling_server, as for SignalingServer; "
        "with allow_errors, the test passes in spite of failed hooks, logged errors of the server and lost devices",
    )
    config.addinivalue_line(
        "markers",
        "signaling_cassette(file, mode='none', real=None): registers a device that replays this cassette, and with "
        "mode 'once' or 'new' adds what a real device answers; see replay_device",
    )
    config.addinivalue_line("markers", "signaling_conformance: a rule that --signaling-conformance has collected")
    if options.timeout is not None:
        from .._timeouts import replace_default

        replace_default(options.timeout)
        config.add_cleanup(lambda: replace_default(None))
    if config.pluginmanager.hasplugin("asyncio"):
        from . import _asyncio_fixtures

        config.pluginmanager.register(_asyncio_fixtures, "cuttlefish_signaling_asyncio")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Resets a server that runs already, before the workers of pytest-xdist share it."""
    reset_for_workers(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Adds the fixture `replay_device` to tests with a cassette, and the rules of `--signaling-conformance`."""
    _conformance.add_items(session, items)
    for item in items:
        if item.get_closest_marker("signaling_cassette") is not None:
            names = getattr(item, "fixturenames", None)
            if names is not None and "replay_device" not in names:
                names.append("replay_device")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Imports the modules that the tests will need."""
    _modules.load_for(session)


# A test ---------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Checks the markers, and marks the counts of the servers that several tests share."""
    check_marker(item)
    _checkpoints.mark_shared(item)
    try:
        return (yield)
    except Exception as error:
        skip_if_unavailable(item, error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skips a test that needs a server in this process, with `--signaling-url`."""
    try:
        return (yield)
    except Exception as error:
        skip_if_unavailable(item, error)
        raise


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fails the test during which a hook failed or the server logged an error."""
    _debugger.go_on()
    result = yield
    if not _checkpoints.allows_errors(item):
        _checkpoints.raise_errors(_checkpoints.of(item))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hides the frames of the package, and adds the transcripts to the report."""
    _frames.hide(item, call)
    report = yield
    _report.add(item, call, report)
    _clusters.add(item, report)
    if report.when == "teardown":
        for checkpoint in _checkpoints.of(item):
            checkpoint.close()
    if report.when == "teardown" and _checkpoints.CHECKPOINTS in item.stash:
        # Without this, stopped servers and their journals would be kept until the end of the run.
        del item.stash[_checkpoints.CHECKPOINTS]
    return report


# The debugger ---------------------------------------------------------------------------------------------------------


def pytest_enter_pdb() -> None:
    """Lets the clocks of servers stand: peers that the debugger holds are not dropped as silent."""
    _debugger.rest()


def pytest_leave_pdb() -> None:
    """Lets the clocks run again."""
    _debugger.go_on()


@pytest.hookimpl(wrapper=True)
def pytest_exception_interact() -> Generator[None, Any, Any]:
    """Lets the clocks run again after `--pdb`, which other commands than `continue` leave as well."""
    try:
        return (yield)
    finally:
        _debugger.go_on()
