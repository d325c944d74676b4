"""The pytest plugin: fixtures for servers and fake peers, and a transcript in the report of a failed test.

The fixtures import the package when they are used, because pytest loads this file in every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ._server import SignalingServer
    from ._tls import Tls
    from .testing import AttachedServer, FakeClient, FakeDevice, ReplayDevice

URL_VARIABLE = "CUTTLEFISH_SIGNALING_URL"
CA_VARIABLE = "CUTTLEFISH_SIGNALING_CA"
TRACES = ("off", "on-failure", "always")
ALLOW_HINT = "(@pytest.mark.signaling(allow_errors=True) lets such a test pass)"
SERVER_FIXTURES = ("signaling_server", "signaling_server_factory")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the command line options."""
    group = parser.getgroup("signaling", "Cuttlefish signaling")
    group.addoption(
        "--signaling-url",
        default=os.environ.get(URL_VARIABLE) or None,
        metavar="URL",
        help=f"use the running signaling server at URL and start none (environment: {URL_VARIABLE})",
    )
    group.addoption(
        "--signaling-ca",
        default=os.environ.get(CA_VARIABLE) or None,
        metavar="FILE",
        help=f"PEM file that verifies the certificate of --signaling-url (environment: {CA_VARIABLE})",
    )
    group.addoption(
        "--signaling-trace",
        default="on-failure",
        choices=TRACES,
        help="when to add a transcript of the test's servers to its report (default: on-failure)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    config.addinivalue_line(
        "markers",
        "signaling(allow_errors=False, **settings): settings of the test's signaling_server, as for SignalingServer; "
        "with allow_errors, the test passes in spite of failed hooks, logged errors of the server and lost devices",
    )
    config.addinivalue_line(
        "markers",
        "signaling_cassette(file): registers a device that replays this cassette; see replay_device",
    )


# The servers of a test ------------------------------------------------------------------------------------------------


class _Checkpoint:
    """A server, and its counts when a test began. Later errors and messages belong to the test."""

    def __init__(self, server: SignalingServer) -> None:
        self.server = server
        self.url = server.url
        self.mark()

    def mark(self) -> None:
        """Takes the counts of now: earlier errors and messages belong to other tests."""
        self._run = self.server._latest()
        self._baseline = self._counts()

    def _counts(self) -> tuple[int, int, int]:
        """The number of failed hooks, of logged errors, and of journal entries."""
        run = self.server._latest()
        return run.hooks.failure_count, run.events.error_count, run.native.journal.count

    def _counts_at_mark(self) -> tuple[int, int, int]:
        """The counts at the mark; zeros if the test has restarted the server since."""
        return self._baseline if self.server._latest() is self._run else (0, 0, 0)

    def new_errors(self) -> tuple[list[Any], list[str]]:
        """The failed hooks and the logged errors since the mark, as far as the server keeps them."""
        failures, errors = (
            now - then for now, then in zip(self._counts()[:2], self._counts_at_mark()[:2], strict=True)
        )
        hook_errors, server_errors = self.server.hook_errors, self.server.server_errors
        return hook_errors[max(0, len(hook_errors) - failures) :], server_errors[max(0, len(server_errors) - errors) :]

    def transcript(self) -> str:
        """The messages since the mark."""
        if not self.server._settings.journal:
            return "(the server has no journal: start it with journal=True)"
        return self.server.journal._transcript_after(self._counts_at_mark()[2])


_checkpoints: pytest.StashKey[list[_Checkpoint]] = pytest.StashKey()


def _servers_of(item: pytest.Item) -> list[_Checkpoint]:
    own: list[_Checkpoint] = item.stash.get(_checkpoints, [])
    if "signaling_server_session" not in getattr(item, "fixturenames", ()):
        return own
    shared: list[_Checkpoint] = item.session.stash.get(_checkpoints, [])
    return own + shared


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds the fixture `replay_device` to each test with the marker `signaling_cassette`."""
    for item in items:
        if item.get_closest_marker("signaling_cassette") is not None:
            names = getattr(item, "fixturenames", None)
            if names is not None and "replay_device" not in names:
                names.append("replay_device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Checks the markers, and marks the counts of the session's servers."""
    _check_marker(item)
    for checkpoint in item.session.stash.get(_checkpoints, []):
        checkpoint.mark()


def _check_marker(item: pytest.Item) -> None:
    """Fails a test whose marker has settings, but that has no server to which they apply."""
    names = getattr(item, "fixturenames", ())
    settings = [name for name in _settings_of_markers(item) if name != "allow_errors"]
    if not settings or any(name in names for name in SERVER_FIXTURES):
        return
    if "signaling_server_session" in names:
        why = "signaling_server_session has the same settings for all tests, those of signaling_config"
    elif "fake_device" in names or "fake_client" in names:
        return  # They use signaling_server.
    else:
        why = f"this test uses none of the fixtures {', '.join(SERVER_FIXTURES)}"
    pytest.fail(f"@pytest.mark.signaling sets {', '.join(settings)}, but {why}", pytrace=False)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fails the test during which a hook failed or the server logged an error."""
    result = yield
    if not _allows_errors(item):
        _raise_errors(_servers_of(item))
    return result


def _allows_errors(item: Any) -> bool:
    return any(marker.kwargs.get("allow_errors", False) for marker in item.iter_markers("signaling"))


def _raise_errors(servers: list[_Checkpoint]) -> None:
    failures, errors = [], []
    for checkpoint in servers:
        hooks, logged = checkpoint.new_errors()
        failures += hooks
        errors += logged
    if not failures and not errors:
        return
    from .errors import ServerFailedError

    lines = [f"hook {failure.hook} failed for {failure.peer}: {failure.error!r}" for failure in failures]
    lines += [f"the server logged an error: {error}" for error in errors]
    lines.append(ALLOW_HINT)
    raise ServerFailedError("\n".join(lines)) from (failures[0].error if failures else None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the transcripts to the report."""
    report = yield
    trace = item.config.getoption("--signaling-trace")
    if (trace == "always" and report.when == "call") or (trace != "off" and report.failed):
        for checkpoint in _servers_of(item):
            report.sections.append((f"Signaling transcript of {checkpoint.url}", checkpoint.transcript()))
    if report.when == "teardown" and _checkpoints in item.stash:
        # Without this, stopped servers and their journals would be kept until the end of the run.
        del item.stash[_checkpoints]
    return report


# Servers --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def signaling_config() -> dict[str, Any]:
    """Settings of the servers, as for `SignalingServer`. Override it; a marker's settings take precedence."""
    return {}


@pytest.fixture(scope="session")
def signaling_tls() -> Tls | None:
    """The `Tls` of the servers; None. Override it; `tls` in `signaling_config` or in a marker takes precedence."""
    return None


def _settings_of_markers(item: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("signaling"))):
        if marker.args:
            pytest.fail(f"@pytest.mark.signaling takes keyword arguments only, got {marker.args!r}", pytrace=False)
        settings.update(marker.kwargs)
    return settings


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises ConfigError for an unknown setting."""
    import difflib
    import inspect

    from ._server import SignalingServer
    from .errors import ConfigError

    known = [name for name in inspect.signature(SignalingServer.__init__).parameters if name != "self"]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ConfigError(name, f"unknown setting{hint} Known settings: {', '.join(known)}")


def _attach(config: pytest.Config, settings: dict[str, Any]) -> AttachedServer | None:
    """The server at `--signaling-url`; None without that option."""
    url = config.getoption("--signaling-url")
    if url is None:
        return None
    from .errors import NotOursError
    from .testing import AttachedServer

    if settings:
        raise NotOursError(
            f"the settings {', '.join(settings)} are not available: --signaling-url points at an external server, "
            f"{url}; run this test without --signaling-url"
        )
    authority, context = config.getoption("--signaling-ca"), None
    if authority is not None:
        import ssl

        context = ssl.create_default_context(cafile=authority)
    return AttachedServer(url, ssl_context=context)


def _start_server(config: pytest.Config, owner: pytest.Stash, settings: dict[str, Any], stack: ExitStack) -> Any:
    """Starts a server that runs until the stack is closed. Its errors fail the test."""
    _check_settings(settings)
    attached = _attach(config, {name: value for name, value in settings.items() if value is not None})
    if attached is not None:
        return attached
    from ._server import SignalingServer

    server = stack.enter_context(SignalingServer(**{"journal": True, **settings}))
    owner.setdefault(_checkpoints, []).append(_Checkpoint(server))
    return server


def _merged_settings(request: pytest.FixtureRequest, *, markers: bool) -> dict[str, Any]:
    tls, config = request.getfixturevalue("signaling_tls"), request.getfixturevalue("signaling_config")
    settings = {**({} if tls is None else {"tls": tls}), **config}
    if markers:
        settings.update(_settings_of_markers(request.node))
        settings.pop("allow_errors", None)
    return settings


@pytest.fixture
def signaling_server(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """A server for one test, on a free port of 127.0.0.1, with a journal.

    Its settings, in order of precedence: `@pytest.mark.signaling(...)`, the closest marker first; `signaling_config`;
    `signaling_tls`; the defaults of `SignalingServer`, with `journal=True`.
    """
    with ExitStack() as stack:
        yield _start_server(request.config, request.node.stash, _merged_settings(request, markers=True), stack)


@pytest.fixture(scope="session")
def signaling_server_session(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """One server for all tests (per worker, under pytest-xdist). Settings of markers do not apply to it."""
    with ExitStack() as stack:
        yield _start_server(request.config, request.session.stash, _merged_settings(request, markers=False), stack)


@pytest.fixture
def signaling_server_factory(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[Callable[..., SignalingServer]]:
    """Starts more servers for a test: `signaling_server_factory(**settings)`. These settings take precedence."""
    with ExitStack() as stack:

        def start(**settings: Any) -> SignalingServer:
            merged = {**_merged_settings(request, markers=True), **settings}
            server: SignalingServer = _start_server(request.config, request.node.stash, merged, stack)
            return server

        yield start


# Peers ----------------------------------------------------------------------------------------------------------------


def _server_of(request: pytest.FixtureRequest) -> Any:
    """The server of the test: `signaling_server`, unless the test uses only `signaling_server_session`."""
    names = request.node.fixturenames
    if "signaling_server" not in names and "signaling_server_session" in names:
        return request.getfixturevalue("signaling_server_session")
    return request.getfixturevalue("signaling_server")


def _peers(request: pytest.FixtureRequest, kind: str) -> Iterator[Any]:
    from . import testing

    server, peers = _server_of(request), []
    with ExitStack() as stack:

        def start(device_id: str = "cvd-1", **options: Any) -> Any:
            peer = stack.enter_context(getattr(testing, kind)(options.pop("server", server), device_id, **options))
            peers.append(peer)
            return peer

        yield start
    if kind == "FakeDevice":
        _raise_if_lost(request, peers)


def _raise_if_lost(request: pytest.FixtureRequest, devices: list[Any]) -> None:
    """Fails a test during which a device was lost: a real device would not reconnect."""
    reasons = [device.lost_reason for device in devices if device.is_lost]
    if reasons and not _allows_errors(request.node):
        from .errors import DeviceLostError

        raise DeviceLostError("\n".join([*reasons, ALLOW_HINT]))


@pytest.fixture
def fake_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., FakeDevice]]:
    """Registers devices: `fake_device("cvd-1", info=..., server=..., ...)`, with the options of `FakeDevice`.

    The default server is that of the test. The devices are closed after the test; a lost device fails the test.
    """
    yield from _peers(request, "FakeDevice")


@pytest.fixture
def fake_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., FakeClient]]:
    """Connects clients: `fake_client("cvd-1", server=..., ...)`, with the options of `FakeClient`.

    The default server is that of the test. The clients are closed after the test.
    """
    yield from _peers(request, "FakeClient")


@pytest.fixture
def replay_device(request: pytest.FixtureRequest) -> Iterator[ReplayDevice]:
    """The device of `@pytest.mark.signaling_cassette(file)`. Paths are relative to the file of the test."""
    from .testing import ReplayDevice

    marker = request.node.get_closest_marker("signaling_cassette")
    if marker is None or len(marker.args) != 1:
        pytest.fail("replay_device needs @pytest.mark.signaling_cassette(file)", pytrace=False)
    with ReplayDevice(_server_of(request), Path(request.path).parent / marker.args[0], **marker.kwargs) as device:
        yield device
    _raise_if_lost(request, [device])
