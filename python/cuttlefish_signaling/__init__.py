"""A WebRTC signaling server for Android Cuttlefish devices, started from Python.

    from cuttlefish_signaling import SignalingServer

    with SignalingServer() as server:                 # 127.0.0.1, a free port, no TLS: defaults for tests
        server.device_url                             # "ws://127.0.0.1:43210/register_device"
        server.client_url                             # "ws://127.0.0.1:43210/connect_client"
        server.wait_for_device("cvd-1", timeout=5)

The server runs in Rust, on a thread of its own. The messages that it relays never enter Python.
"""

from __future__ import annotations

TYPE_CHECKING = False  # The name that `typing` has. To import `typing` would take longer than the rest of this file.

if TYPE_CHECKING:
    from ._clock import Clock
    from ._cluster import Cluster
    from ._entry import Entry
    from ._hook_failure import HookFailure
    from ._ice_command import IceCommand
    from ._ice_server import IceServer, IceServerDict, IceServersDict
    from ._journal import Journal
    from ._jwt import Jwt
    from ._limits import Keepalive, Limits
    from ._models import (
        AuthorizeContext,
        Client,
        Device,
        FilterContext,
        Grant,
        Headers,
        IceContext,
        Node,
        Peer,
        WaitingClient,
    )
    from ._native import __version__
    from ._remote_server import RemoteServer
    from ._server import SignalingServer
    from ._stats import Stats
    from ._tls import Tls
    from ._tokens import StaticTokens
    from ._turn import TurnRest
    from ._upstream import Upstream
    from .errors import (
        BindError,
        CassetteError,
        ClusterError,
        ConfigError,
        ControlError,
        DeviceLostError,
        EngineUnreachableError,
        ExpectationError,
        FaultError,
        FilterError,
        ForkedError,
        HookError,
        HookResultError,
        HookTimeoutError,
        InternalError,
        JournalOffError,
        NodeUnreachableError,
        NotOursError,
        NotRunningError,
        PeerClosedError,
        PeerRefusedError,
        Refused,
        RestartRequiredError,
        ServerFailedError,
        SignalingError,
        StateDirError,
        TlsError,
        UnreachableError,
        UnsupportedError,
        WaitTimeoutError,
    )
    from .faults import Fault, Faults

__all__ = [
    "AuthorizeContext",
    "BindError",
    "CassetteError",
    "Client",
    "Clock",
    "Cluster",
    "ClusterError",
    "ConfigError",
    "ControlError",
    "Device",
    "DeviceLostError",
    "EngineUnreachableError",
    "Entry",
    "ExpectationError",
    "Fault",
    "FaultError",
    "Faults",
    "FilterContext",
    "FilterError",
    "ForkedError",
    "Grant",
    "Headers",
    "HookError",
    "HookFailure",
    "HookResultError",
    "HookTimeoutError",
    "IceCommand",
    "IceContext",
    "IceServer",
    "IceServerDict",
    "IceServersDict",
    "InternalError",
    "Journal",
    "JournalOffError",
    "Jwt",
    "Keepalive",
    "Limits",
    "Node",
    "NodeUnreachableError",
    "NotOursError",
    "NotRunningError",
    "Peer",
    "PeerClosedError",
    "PeerRefusedError",
    "Refused",
    "RemoteServer",
    "RestartRequiredError",
    "ServerFailedError",
    "SignalingError",
    "SignalingServer",
    "StateDirError",
    "StaticTokens",
    "Stats",
    "Tls",
    "TlsError",
    "TurnRest",
    "UnreachableError",
    "UnsupportedError",
    "Upstream",
    "WaitTimeoutError",
    "WaitingClient",
    "__version__",
]

_LAZY = {
    "AuthorizeContext": "_models",
    "BindError": "errors",
    "CassetteError": "errors",
    "Client": "_models",
    "Clock": "_clock",
    "Cluster": "_cluster",
    "ClusterError": "errors",
    "Upstream": "_upstream",
    "ConfigError": "errors",
    "ControlError": "errors",
    "Device": "_models",
    "DeviceLostError": "errors",
    "EngineUnreachableError": "errors",
    "Entry": "_entry",
    "ExpectationError": "errors",
    "Fault": "faults",
    "FaultError": "errors",
    "Faults": "faults",
    "FilterContext": "_models",
    "FilterError": "errors",
    "ForkedError": "errors",
    "Grant": "_models",
    "Headers": "_models",
    "HookError": "errors",
    "HookFailure": "_hook_failure",
    "HookResultError": "errors",
    "HookTimeoutError": "errors",
    "IceCommand": "_ice_command",
    "IceContext": "_models",
    "IceServer": "_ice_server",
    "IceServerDict": "_ice_server",
    "IceServersDict": "_ice_server",
    "Jwt": "_jwt",
    "InternalError": "errors",
    "Journal": "_journal",
    "JournalOffError": "errors",
    "Keepalive": "_limits",
    "Limits": "_limits",
    "Node": "_models",
    "NodeUnreachableError": "errors",
    "NotOursError": "errors",
    "NotRunningError": "errors",
    "Peer": "_models",
    "PeerClosedError": "errors",
    "PeerRefusedError": "errors",
    "Refused": "errors",
    "RemoteServer": "_remote_server",
    "RestartRequiredError": "errors",
    "ServerFailedError": "errors",
    "SignalingError": "errors",
    "SignalingServer": "_server",
    "StateDirError": "errors",
    "StaticTokens": "_tokens",
    "Stats": "_stats",
    "Tls": "_tls",
    "TlsError": "errors",
    "TurnRest": "_turn",
    "UnreachableError": "errors",
    "UnsupportedError": "errors",
    "WaitTimeoutError": "errors",
    "WaitingClient": "_models",
    "__version__": "_native",
}
"""The module of each name in `__all__`."""


def __getattr__(name: str) -> object:
    """Imports a name when it is first used: pytest loads the package for its plugin in each run."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from ._interpreter import require_main

    require_main()
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
