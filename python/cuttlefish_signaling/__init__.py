"""A signaling server for Android Cuttlefish devices over WebRTC, to start from Python.

    from cuttlefish_signaling import SignalingServer

    with SignalingServer() as server:                 # 127.0.0.1, a free port, plain: made for tests
        server.device_url                             # "ws://127.0.0.1:43210/register_device"
        server.client_url                             # "ws://127.0.0.1:43210/connect_client"
        server.wait_for_device("cvd-1", timeout=5)

The server runs in Rust, on a thread of its own; what it relays never touches Python.
"""

from ._config import Keepalive, Limits, Tls
from ._hooks import HookFailure
from ._models import (
    AuthorizeContext,
    Client,
    Device,
    FilterContext,
    Headers,
    IceContext,
    IceServer,
    Peer,
    Stats,
)
from ._native import TurnRest, __version__
from ._server import SignalingServer
from .errors import (
    BindError,
    ConfigError,
    ForkedError,
    HookError,
    HookResultError,
    HookTimeoutError,
    InternalError,
    NotRunningError,
    Refused,
    SignalingError,
    TlsError,
    WaitTimeoutError,
)

__all__ = [
    "AuthorizeContext",
    "BindError",
    "Client",
    "ConfigError",
    "Device",
    "FilterContext",
    "ForkedError",
    "Headers",
    "HookError",
    "HookFailure",
    "HookResultError",
    "HookTimeoutError",
    "IceContext",
    "IceServer",
    "InternalError",
    "Keepalive",
    "Limits",
    "NotRunningError",
    "Peer",
    "Refused",
    "SignalingError",
    "SignalingServer",
    "Stats",
    "Tls",
    "TlsError",
    "TurnRest",
    "WaitTimeoutError",
    "__version__",
]
