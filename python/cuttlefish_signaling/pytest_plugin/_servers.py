"""The fixtures of servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from . import _checkpoints
from ._checkpoints import SHARED
from ._options import OPTIONS

if TYPE_CHECKING:
    from .._server import SignalingServer
    from .._tls import Tls
    from ..testing import ProxyFactory, ServerFactory

MARKER = "@pytest.mark.signaling"
FUNCTION_SERVERS = ("signaling_server", "signaling_server_factory", "signaling_proxy")
PEERS = ("fake_device", "fake_client", "async_fake_device", "async_fake_client", "replay_device")


@pytest.fixture(scope="session")
def signaling_config() -> dict[str, Any]:
    """Settings of the servers, as for `SignalingServer`. Override it; a marker's settings take precedence."""
    return {}


@pytest.fixture(scope="session")
def signaling_tls() -> Tls | None:
    """The `Tls` of the servers; None. Override it; `tls` in `signaling_config` or in a marker takes precedence."""
    return None


# Settings -------------------------------------------------------------------------------------------------------------


class Settings:
    """The settings of one server, and the place that has each of them, for errors."""

    def __init__(self, fixture: str) -> None:
        self.fixture = fixture
        self.values: dict[str, Any] = {}
        self._places: dict[str, str] = {}

    def update(self, place: str, values: Any) -> None:
        """Adds settings, which replace those of the same names. Raises ConfigError for an unknown one."""
        from ..errors import ConfigError

        if not isinstance(values, Mapping):
            raise ConfigError(place, f"must return a dictionary of settings, like {{'journal': True}}, got {values!r}")
        for name in values:
            _check_name(f"{self.fixture}: {name} ({place})", name)
        self.values.update(values)
        self._places.update(dict.fromkeys(values, place))

    def named(self, setting: str) -> str:
        """The setting, with the fixture and the place that has the value."""
        place = self._places.get(setting.partition(".")[0])
        return f"{self.fixture}: {setting}{f' ({place})' if place else ''}"


def _check_name(named: str, name: str) -> None:
    import difflib
    import inspect

    from .._server import SignalingServer
    from ..errors import ConfigError

    known = [each for each in inspect.signature(SignalingServer.__init__).parameters if each != "self"]
    if name not in known:
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known settings: {', '.join(known)}"
        raise ConfigError(named, f"unknown setting; {hint}")


def _settings_of_markers(node: Any) -> dict[str, Any]:
    """The settings of the markers of a test, of a class or of a module, without `allow_errors`."""
    from ..errors import ConfigError

    settings: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("signaling"))):
        if marker.args:
            raise ConfigError(MARKER, f"takes keyword arguments only, got {marker.args!r}; write signaling(NAME=VALUE)")
        if not isinstance(allowed := marker.kwargs.get("allow_errors", False), bool):
            raise ConfigError(f"{MARKER}: allow_errors", f"must be True or False, got {allowed!r}")
        settings.update(marker.kwargs)
    settings.pop("allow_errors", None)
    return settings


def check_marker(item: pytest.Item) -> None:
    """Raises ConfigError for a test whose marker has settings, but that has no server to which they apply."""
    if item.get_closest_marker("signaling") is None:
        return
    names = getattr(item, "fixturenames", ())
    settings = _settings_of_markers(item)
    if not settings or any(name in names for name in FUNCTION_SERVERS):
        return
    shared = next((name for name in SHARED if name in names), None)
    own = {marker.name: marker for marker in getattr(item, "own_markers", ())}.get("signaling")
    if shared is not None and shared != "signaling_server_session" and own is None:
        return  # Those of the class or of the module apply to its server.
    if shared is not None:
        why = f"{shared} has the same settings for all its tests; set them in signaling_config, or use signaling_server"
    elif any(name in names for name in PEERS):
        return  # They use signaling_server.
    else:
        why = f"this test uses none of the fixtures {', '.join(FUNCTION_SERVERS)}: use one, or remove the marker"
    from ..errors import ConfigError

    raise ConfigError(f"{MARKER} sets {', '.join(settings)}", f"but {why}")


# Starting -------------------------------------------------------------------------------------------------------------


def _start(request: pytest.FixtureRequest, owner: pytest.Stash, settings: Settings, stack: ExitStack) -> Any:
    """Starts a server that runs until the stack is closed. Its errors fail the test."""
    if not request.config.stash[OPTIONS].attaches:
        return _start_here(owner, settings, stack)
    from ._attach import attached

    return stack.enter_context(attached(request, owner, settings.fixture, settings.values))


def _start_here(owner: pytest.Stash, settings: Settings, stack: ExitStack) -> SignalingServer:
    """Starts a server in this process."""
    from .._server import SignalingServer
    from ..errors import BindError, ConfigError

    try:
        server = stack.enter_context(SignalingServer(**{"journal": True, **settings.values}))
    except ConfigError as error:
        raise ConfigError(settings.named(error.setting), error.what) from None
    except BindError as error:
        hint = "; leave out port, so that the system chooses one" if settings.values.get("port") else ""
        raise BindError(error.errno, f"{settings.fixture}: {error}{hint}") from None
    _checkpoints.add(owner, server)
    return server


def _merged(request: pytest.FixtureRequest, fixture: str) -> Settings:
    settings = Settings(fixture)
    if (tls := request.getfixturevalue("signaling_tls")) is not None:
        settings.update("signaling_tls", {"tls": tls})
    settings.update("signaling_config", request.getfixturevalue("signaling_config"))
    if fixture != "signaling_server_session":
        settings.update(MARKER, _settings_of_markers(request.node))
    return settings


def _shared(request: pytest.FixtureRequest) -> Iterator[Any]:
    fixture = str(request.fixturename)
    with ExitStack() as stack:
        yield _start(request, request.node.stash, _merged(request, fixture), stack)


@pytest.fixture
def signaling_server(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """A server for one test, on a free port of 127.0.0.1, with a journal.

    Its settings, in order of precedence: `@pytest.mark.signaling(...)`, the closest marker first; `signaling_config`;
    `signaling_tls`; the defaults of `SignalingServer`, with `journal=True`.
    """
    yield from _shared(request)


@pytest.fixture(scope="class")
def signaling_server_class(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """One server for the tests of a class. The markers of the class and of its module apply to it."""
    yield from _shared(request)


@pytest.fixture(scope="module")
def signaling_server_module(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """One server for the tests of a module. The markers of the module (`pytestmark`) apply to it."""
    yield from _shared(request)


@pytest.fixture(scope="session")
def signaling_server_session(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[SignalingServer]:
    """One server for all tests (per worker, under pytest-xdist). Settings of markers do not apply to it."""
    yield from _shared(request)


@pytest.fixture
def signaling_server_factory(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[ServerFactory]:
    """Starts more servers for a test: `signaling_server_factory(**settings)`. These settings take precedence."""
    from ._calls import Factory

    with ExitStack() as stack:

        def start(**given: Any) -> SignalingServer:
            settings = _merged(request, "signaling_server_factory")
            settings.update("its argument", given)
            server: SignalingServer = _start(request, request.node.stash, settings, stack)
            return server

        factory: Any = Factory("signaling_server_factory", "servers", start, positional=0)
        yield factory


@pytest.fixture
def signaling_proxy(
    request: pytest.FixtureRequest, signaling_config: dict[str, Any], signaling_tls: Tls | None
) -> Iterator[ProxyFactory]:
    """Starts a proxy for a test, in front of another server: `signaling_proxy(url, **settings)`.

    It is a `SignalingServer` with `upstream` and a journal. It runs in this process, with `--signaling-url` as well.
    """
    from ..errors import ConfigError
    from ._calls import Factory

    with ExitStack() as stack:

        def start(*urls: Any, **given: Any) -> SignalingServer:
            if len(urls) != 1 or not isinstance(urls[0], str):
                got = ", ".join(map(repr, urls)) or "nothing"
                raise ConfigError("signaling_proxy", f"needs the URL of one server, got {got}")
            settings = _merged(request, "signaling_proxy")
            settings.update("its argument", {**given, "upstream": urls[0]})
            return _start_here(request.node.stash, settings, stack)

        factory: Any = Factory("signaling_proxy", "proxies", start, positional=1)
        yield factory


@pytest.fixture
def signaling_watch(request: pytest.FixtureRequest) -> Callable[[SignalingServer], SignalingServer]:
    """Adds a server of your own to those of the test: `signaling_watch(server)`, which returns the server.

    The report has its transcript, and its errors fail the test, as for `signaling_server`. Of a server that ran before
    the test, only later messages and errors count.
    """
    from .._server import SignalingServer
    from ..errors import ConfigError
    from ._calls import Factory

    def watch(*servers: Any) -> SignalingServer:
        if len(servers) != 1 or not isinstance(servers[0], SignalingServer):
            got = ", ".join(map(repr, servers)) or "nothing"
            raise ConfigError("signaling_watch", f"needs one SignalingServer of this process, got {got}")
        server: SignalingServer = servers[0]
        _checkpoints.add(request.node.stash, server)
        return server

    return Factory("signaling_watch", "watched servers", watch, positional=1)
