"""A server that runs already, as the server of tests: `--signaling-url` and `--signaling-control`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from . import _checkpoints, _debugger
from ._options import OPTIONS, Options

if TYPE_CHECKING:
    import ssl

    from .._remote_server import RemoteServer
    from ..testing import AttachedServer

FACTORY = "signaling_server_factory"

SERVERS: pytest.StashKey[list[AttachedServer]] = pytest.StashKey()
"""The servers of a test that its `signaling_server` and `signaling_server_factory` have returned."""

RESET: pytest.StashKey[bool] = pytest.StashKey()
"""Whether this run of pytest has reset the server: a run before may have left faults and a frozen clock."""

ANSWER_TIMEOUT = 10.0
"""Seconds for an answer of the server, whatever `--signaling-timeout` is: that is for the events of a test."""

LEAVE_TIMEOUT = 5.0
"""Seconds for the peers that a test has left to go."""


def skip_if_unavailable(item: pytest.Item, error: Exception) -> None:
    """Skips a test that needs a server in this process, if the tests use one that runs already."""
    options = item.config.stash[OPTIONS]
    if options.attaches and options.skips_unavailable and type(error).__name__ == "NotOursError":
        pytest.skip(str(error))


@contextmanager
def attached(
    request: pytest.FixtureRequest, owner: pytest.Stash, fixture: str, settings: Mapping[str, Any]
) -> Iterator[AttachedServer]:
    """The server that runs already, for one fixture. At the end it is as before, as far as the control API allows."""
    options = request.config.stash[OPTIONS]
    _refuse_second(request, fixture, options)
    control = _control(request.config, options)
    _refuse_settings(settings, options, control)
    server = _server(options, control)
    if fixture in ("signaling_server", FACTORY):
        request.node.stash.setdefault(SERVERS, []).append(server)
    try:
        if control is None:
            yield server
        else:
            yield from _isolated(request.config, owner, server, control)
    finally:
        request.node.stash.setdefault(SERVERS, []).clear()  # Tests are kept until the end of the run.


def _isolated(
    config: pytest.Config, owner: pytest.Stash, server: AttachedServer, control: RemoteServer
) -> Iterator[AttachedServer]:
    """The server with its control API: what a test leaves there is removed."""
    control._running().begin()
    _checkpoints.add(owner, server)
    before = _peers(control)
    _debugger.add(server)
    try:
        yield server
    finally:
        _debugger.remove(server)
        try:
            if not _is_worker(config):
                _disconnect_others(control, before)
        except ConnectionError:
            pass  # The server has ended, and its peers with it.
        control.close()


def _control(config: pytest.Config, options: Options) -> RemoteServer | None:
    """The control API of the options."""
    if options.control is None:
        return None
    from .._remote_server import RemoteServer
    from ..errors import ConfigError

    try:
        control = RemoteServer(
            options.control,
            token_file=options.control_token_file,
            ssl_context=_context(options) if options.control.startswith("https:") else None,
        )
    except ConfigError as error:
        flag = "--signaling-control-token-file" if error.setting == "token_file" else "--signaling-control"
        raise ConfigError(flag, error.what) from None
    # The workers of pytest-xdist share the server: none of them may reset what another one has armed.
    if not _is_worker(config) and not config.stash.get(RESET, False):
        control.reset()
        config.stash[RESET] = True
    return control


def reset_for_workers(config: pytest.Config) -> None:
    """Resets the server in the controller of pytest-xdist, before its workers use it."""
    options = config.stash[OPTIONS]
    if options.control is None or not config.pluginmanager.hasplugin("dsession"):
        return
    from ..errors import SignalingError

    try:
        control = _control(config, options)
    except SignalingError:
        return  # Each test has the error.
    if control is not None:
        control.close()


def _server(options: Options, control: RemoteServer | None) -> AttachedServer:
    from ..testing import AttachedServer

    url = control.url if options.url is None and control is not None else str(options.url)
    context = _context(options) if url.startswith(("https:", "wss:")) else None
    return AttachedServer(url, ssl_context=context, timeout=ANSWER_TIMEOUT, control=control)


def _context(options: Options) -> ssl.SSLContext | None:
    if options.ca is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=options.ca)
    except (OSError, ValueError) as error:
        from ..errors import ConfigError

        raise ConfigError("--signaling-ca", f"{str(options.ca)!r} is not a PEM file: {error}") from None


def _is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist, whose server other workers use at the same time."""
    return hasattr(config, "workerinput")


# Refusals -------------------------------------------------------------------------------------------------------------


def _place(options: Options) -> str:
    flag, url = ("--signaling-url", options.url) if options.url else ("--signaling-control", options.control)
    return f"{flag} points at an external server, {url}; run this test without {flag}"


def _refuse_settings(settings: Mapping[str, Any], options: Options, control: RemoteServer | None) -> None:
    """Raises NotOursError for settings, which the server has already. A journal that it writes is none to refuse."""
    has_journal = control is not None and control._writes_journal
    given = [
        name
        for name, value in settings.items()
        if value is not None and not (name == "journal" and value is True and has_journal)
    ]
    if given:
        from ..errors import NotOursError

        raise NotOursError(f"the settings {', '.join(given)} are not available: {_place(options)}")


def _refuse_second(request: pytest.FixtureRequest, fixture: str, options: Options) -> None:
    """Raises NotOursError for a further server of a test: there is one."""
    if fixture == FACTORY and request.node.stash.get(SERVERS, None):
        from ..errors import NotOursError

        raise NotOursError(f"a second server is not available: {_place(options)}")


# Peers ----------------------------------------------------------------------------------------------------------------


def _peers(control: RemoteServer) -> set[tuple[Any, ...]]:
    """The devices and clients that are connected. A peer that connects again is another one."""
    devices = [(one.device_id, None, one.address, one.port, one.since) for one in control.devices()]
    clients = [(one.device_id, one.client_id, one.address, one.port, one.since) for one in control.clients()]
    return {*devices, *clients}


def _disconnect_others(control: RemoteServer, before: set[tuple[Any, ...]]) -> None:
    """Disconnects the peers that have come since then, and waits until they have gone."""
    left = _peers(control) - before
    for device_id, client_id, *_ in left:
        if client_id is None:
            control.disconnect_device(device_id)
        else:
            control.disconnect_client(device_id, client_id)
    if left:
        try:
            control._running().until(lambda: None if _peers(control) & left else True, LEAVE_TIMEOUT, TimeoutError)
        except TimeoutError:
            names = ", ".join(sorted({repr(peer[0]) for peer in left}))
            warnings.warn(f"peers of this test stay connected to {control.url}: {names}", RuntimeWarning, stacklevel=2)
