"""The pytest plugin: servers, fake peers, and what was said in the report of a test that failed.

Nothing of the package is imported here until a fixture is used: pytest loads this file in every run.
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
    """The options."""
    group = parser.getgroup("signaling", "Cuttlefish signaling")
    group.addoption(
        "--signaling-url",
        default=os.environ.get(URL_VARIABLE) or None,
        metavar="URL",
        help=f"use the signaling server that runs there, and start none (environment: {URL_VARIABLE})",
    )
    group.addoption(
        "--signaling-ca",
        default=os.environ.get(CA_VARIABLE) or None,
        metavar="FILE",
        help=f"what to verify the certificate of --signaling-url with, PEM (environment: {CA_VARIABLE})",
    )
    group.addoption(
        "--signaling-trace",
        default="on-failure",
        choices=TRACES,
        help="when to put what was said on a test's servers into its report (default: on-failure)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The markers."""
    config.addinivalue_line(
        "markers",
        "signaling(allow_errors=False, **settings): settings of this test's signaling_server, as of SignalingServer; "
        "with allow_errors, errors of hooks and of the server, and devices that are lost, do not fail the test",
    )
    config.addinivalue_line(
        "markers",
        "signaling_cassette(file): a device that says what is on this cassette is registered; see replay_device",
    )


# Which servers a test has ---------------------------------------------------------------------------------------------


class _Checkpoint:
    """A server, and how far it was when a test began."""

    def __init__(self, server: SignalingServer) -> None:
        self.server = server
        self.url = server.url
        self.mark()

    def mark(self) -> None:
        """What is there now belongs to others."""
        self._run = self.server._latest()
        self._baseline = self._counts()

    def _counts(self) -> tuple[int, int, int]:
        """Hooks that failed, errors that were logged, entries of the journal."""
        run = self.server._latest()
        return run.hooks.failure_count, run.courier.error_count, run.native.journal.count

    def _counts_at_mark(self) -> tuple[int, int, int]:
        """What there was at the mark; nothing, where the test has started the server anew."""
        return self._baseline if self.server._latest() is self._run else (0, 0, 0)

    def new_errors(self) -> tuple[list[Any], list[str]]:
        """Hooks that failed and errors that were logged since the mark, as far as they are kept."""
        failures, errors = (
            now - then for now, then in zip(self._counts()[:2], self._counts_at_mark()[:2], strict=True)
        )
        hook_errors, server_errors = self.server.hook_errors, self.server.server_errors
        return hook_errors[max(0, len(hook_errors) - failures) :], server_errors[max(0, len(server_errors) - errors) :]

    def transcript(self) -> str:
        """What was said since the mark."""
        if not self.server._settings.journal:
            return "(this server writes no journal)"
        return self.server.journal._transcript_after(self._counts_at_mark()[2])


_checkpoints: pytest.StashKey[list[_Checkpoint]] = pytest.StashKey()


def _servers_of(item: pytest.Item) -> list[_Checkpoint]:
    own: list[_Checkpoint] = item.stash.get(_checkpoints, [])
    if "signaling_server_session" not in getattr(item, "fixturenames", ()):
        return own
    shared: list[_Checkpoint] = item.session.stash.get(_checkpoints, [])
    return own + shared


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A cassette is put in where a marker says so."""
    for item in items:
        if item.get_closest_marker("signaling_cassette") is not None:
            names = getattr(item, "fixturenames", None)
            if names is not None and "replay_device" not in names:
                names.append("replay_device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What happened on a session's server before is not this test's."""
    _check_marker(item)
    for checkpoint in item.session.stash.get(_checkpoints, []):
        checkpoint.mark()


def _check_marker(item: pytest.Item) -> None:
    """Settings that no server of the test would have are a mistake."""
    names = getattr(item, "fixturenames", ())
    settings = [name for name in _settings_of_markers(item) if name != "allow_errors"]
    if not settings or any(name in names for name in SERVER_FIXTURES):
        return
    if "signaling_server_session" in names:
        why = "signaling_server_session has one set of settings, those of signaling_config, for all tests"
    elif "fake_device" in names or "fake_client" in names:
        return  # They bring a signaling_server.
    else:
        why = f"this test has none of {', '.join(SERVER_FIXTURES)}"
    pytest.fail(f"@pytest.mark.signaling says {', '.join(settings)}, but {why}", pytrace=False)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Errors of hooks, and of the server, are the test's during which they came."""
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
    """What was said goes into the report."""
    report = yield
    trace = item.config.getoption("--signaling-trace")
    if (trace == "always" and report.when == "call") or (trace != "off" and report.failed):
        for checkpoint in _servers_of(item):
            report.sections.append((f"Signaling transcript of {checkpoint.url}", checkpoint.transcript()))
    if report.when == "teardown" and _checkpoints in item.stash:
        # Servers that have stopped are not to be kept, with their journals, until the run is over.
        del item.stash[_checkpoints]
    return report


# Servers --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def signaling_config() -> dict[str, Any]:
    """Settings of the servers, as of `SignalingServer`. Override it; a marker's settings come before these."""
    return {}


@pytest.fixture(scope="session")
def signaling_tls() -> Tls | None:
    """The `Tls` of the servers; plain. Override it; `tls` in `signaling_config` or in a marker comes before it."""
    return None


def _settings_of_markers(item: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("signaling"))):
        if marker.args:
            pytest.fail("@pytest.mark.signaling takes settings by name only", pytrace=False)
        settings.update(marker.kwargs)
    return settings


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises ConfigError where there is no such setting."""
    import difflib
    import inspect

    from ._server import SignalingServer
    from .errors import ConfigError

    known = [name for name in inspect.signature(SignalingServer.__init__).parameters if name != "self"]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(name, f"there is no such setting; {hint}there are: {', '.join(known)}")


def _attach(config: pytest.Config, settings: dict[str, Any]) -> AttachedServer | None:
    """The server of `--signaling-url`, if there is one."""
    url = config.getoption("--signaling-url")
    if url is None:
        return None
    from .errors import NotOursError
    from .testing import AttachedServer

    if settings:
        raise NotOursError(
            f"the settings {', '.join(settings)} are not to be had: the server at {url} runs elsewhere "
            "(--signaling-url); run this test without it, on a server of its own"
        )
    authority, context = config.getoption("--signaling-ca"), None
    if authority is not None:
        import ssl

        context = ssl.create_default_context(cafile=authority)
    return AttachedServer(url, ssl_context=context)


def _start_server(config: pytest.Config, owner: pytest.Stash, settings: dict[str, Any], stack: ExitStack) -> Any:
    """A server that runs until the stack is closed, and is watched."""
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
    """A server for this test alone, on a free port of 127.0.0.1, that writes a journal.

    Its settings: those of `@pytest.mark.signaling(...)`, the closest first; then `signaling_config`; then
    `signaling_tls`; then the defaults of `SignalingServer`, with `journal=True`.
    """
    with ExitStack() as stack:
        yield _start_server(request.config, request.node.stash, _merged_settings(request, markers=True), stack)


@pytest.fixture(scope="session")
def signaling_server_session(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """One server for all tests (for each worker, under pytest-xdist). Markers say nothing about it."""
    with ExitStack() as stack:
        yield _start_server(request.config, request.session.stash, _merged_settings(request, markers=False), stack)


@pytest.fixture
def signaling_server_factory(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[Callable[..., SignalingServer]]:
    """Starts more servers for this test: `signaling_server_factory(**settings)`, settings before all others."""
    with ExitStack() as stack:

        def start(**settings: Any) -> SignalingServer:
            merged = {**_merged_settings(request, markers=True), **settings}
            server: SignalingServer = _start_server(request.config, request.node.stash, merged, stack)
            return server

        yield start


# Peers ----------------------------------------------------------------------------------------------------------------


def _server_of(request: pytest.FixtureRequest) -> Any:
    """The server this test uses; where it names none, one of its own."""
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
    """A real device that is lost is lost forever: the test's server, or the program under test, has ended it."""
    reasons = [device.lost_reason for device in devices if device.is_lost]
    if reasons and not _allows_errors(request.node):
        from .errors import DeviceLostError

        raise DeviceLostError("\n".join([*reasons, ALLOW_HINT]))


@pytest.fixture
def fake_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., FakeDevice]]:
    """Registers devices: `fake_device("cvd-1", info=..., server=..., ...)`, the options of `FakeDevice`.

    On the test's server; closed when the test is over. A device that is lost by then fails the test.
    """
    yield from _peers(request, "FakeDevice")


@pytest.fixture
def fake_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., FakeClient]]:
    """Connects clients: `fake_client("cvd-1", server=..., ...)`, the options of `FakeClient`.

    On the test's server; closed when the test is over.
    """
    yield from _peers(request, "FakeClient")


@pytest.fixture
def replay_device(request: pytest.FixtureRequest) -> Iterator[ReplayDevice]:
    """The device of `@pytest.mark.signaling_cassette(file)`; paths are relative to the test's file."""
    from .testing import ReplayDevice

    marker = request.node.get_closest_marker("signaling_cassette")
    if marker is None or len(marker.args) != 1:
        pytest.fail("replay_device needs @pytest.mark.signaling_cassette(file)", pytrace=False)
    with ReplayDevice(_server_of(request), Path(request.path).parent / marker.args[0], **marker.kwargs) as device:
        yield device
    _raise_if_lost(request, [device])
