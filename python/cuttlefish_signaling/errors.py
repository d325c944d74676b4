"""Every exception of the package, in one tree below `SignalingError`.

A peer that breaks the protocol raises no exception here: the server sends the peer an error, and goes on.
"""

from __future__ import annotations

from ._annotations import late_annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class SignalingError(Exception):
    """The base class of all exceptions of the package."""


class ConfigError(SignalingError, ValueError):
    """A setting or an argument is invalid. `setting` is its name, `what` is the reason."""

    def __init__(self, setting: str, what: str) -> None:
        super().__init__(f"{setting}: {what}")
        self.setting = setting
        self.what = what

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return type(self), (self.setting, self.what)


class RestartRequiredError(ConfigError):
    """Settings that a server that runs cannot change. `settings` names them; nothing was changed."""

    def __init__(self, settings: Sequence[str]) -> None:
        self.settings: tuple[str, ...] = tuple(settings)
        super().__init__(", ".join(settings), "cannot change while the server runs: restart it; nothing was changed")

    def __reduce__(self) -> tuple[type[RestartRequiredError], tuple[tuple[str, ...]]]:  # type: ignore[override]
        return type(self), (self.settings,)


class TlsError(ConfigError):
    """A certificate or key cannot be read or used, or the two do not belong together."""


class StateDirError(SignalingError):
    """A directory for certificates cannot be used. `path` names it or a file in it, `what` has the reason and fix."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[StateDirError], tuple[str, str]]:
        return type(self), (self.path, self.what)


class BindError(SignalingError, OSError):
    """The server cannot listen on the address: it is in use, not local, or not permitted. `errno` is the system's."""

    def __str__(self) -> str:
        return str(self.strerror)


class NotRunningError(SignalingError, RuntimeError):
    """The server has not been started, or has stopped, perhaps during a wait."""


class UnsupportedError(SignalingError, RuntimeError):
    """The server cannot run in this process, because gevent or eventlet has replaced its threads."""


class ForkedError(SignalingError, RuntimeError):
    """The process is a fork of the process that started the server. A fork does not have the server's threads."""


class WaitTimeoutError(SignalingError, TimeoutError):
    """A device, client or message did not come in time."""


class FilterError(SignalingError, ValueError):
    """A filter has an unknown name or an invalid value. The message lists the valid ones."""


class JournalOffError(SignalingError, RuntimeError):
    """The server has no journal: start it with `journal=True`, as the pytest fixtures do."""


class ExpectationError(SignalingError, AssertionError):
    """An expectation about the journal or about a fault was not met."""

    _transcript_of: object = None
    """The run of a server whose transcript the text has."""


class FaultError(SignalingError, ValueError):
    """A fault has an invalid argument, is armed already, or concerns a device that is not registered."""


class CassetteError(SignalingError, ValueError):
    """A cassette cannot be read or written. The message names the file and the line."""


class ServerFailedError(SignalingError):
    """During a test, a hook failed or the server logged an error: the pytest fixtures fail the test with it."""


class NotOursError(SignalingError, RuntimeError):
    """The server runs elsewhere (`--signaling-url`), and the feature needs a server in this process."""


class UnreachableError(SignalingError, ConnectionError):
    """No signaling server answers at the address."""


class NodeUnreachableError(UnreachableError):
    """The node of the cluster that has the device does not answer. `node` is its name. The outcome is unknown."""

    def __init__(self, node: str, what: str) -> None:
        super().__init__(f"node {node!r}: {what}")
        self.node = node
        self.what = what

    def __reduce__(self) -> tuple[type[NodeUnreachableError], tuple[str, str]]:
        return type(self), (self.node, self.what)


class EngineUnreachableError(UnreachableError):
    """A node cannot join its cluster at its start. `engine` is the URL of the engine without a password.

    A node with `on_outage="hold"` has not reached the engine, or any node has found a registry of another version.
    """

    def __init__(self, engine: str, what: str) -> None:
        super().__init__(f"engine {engine}: {what}")
        self.engine = engine
        self.what = what

    def __reduce__(self) -> tuple[type[EngineUnreachableError], tuple[str, str]]:
        return type(self), (self.engine, self.what)


class ControlError(SignalingError, RuntimeError):
    """The control API of a server refuses a request. `code` is its word for the reason, `status` the HTTP status."""

    _retry_after: float = 1.0
    """Seconds after which a request that the server had no room for may be repeated."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        return partial(type(self), code=self.code, status=self.status), (str(self),)


class ClusterError(SignalingError, RuntimeError):
    """A process of a test's cluster cannot be started, or is not in the state that a call needs."""


class PeerRefusedError(SignalingError, ConnectionError):
    """The server refused a fake peer. `error` is the error that it sent, or None.

    `code` and `reason` are those of the close frame; None and empty without one.
    """

    def __init__(self, message: str, *, error: str | None = None, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.code = code
        self.reason = reason


class PeerClosedError(SignalingError, ConnectionError):
    """A fake peer's connection is closed. `error` is the server's last error, or None.

    `code` and `reason` are those of the close frame; None and empty without one.
    """

    def __init__(self, message: str, *, error: str | None = None, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.code = code
        self.reason = reason


class DeviceLostError(PeerClosedError):
    """A fake device of profile `"legacy"` received an error and a close, after which a real one does not reconnect."""


class InternalError(SignalingError, RuntimeError):
    """A bug in cuttlefish-signaling. Please report it."""


class HookError(SignalingError):
    """A hook gave no usable answer. `SignalingServer.hook_errors` contains it; no method raises it."""


class HookTimeoutError(HookError, TimeoutError):
    """A hook took longer than `hook_timeout`."""


class HookResultError(HookError, TypeError):
    """A hook returned an invalid result. The message says which results are valid."""


class Refused(SignalingError):  # noqa: N818
    """A hook raises it to refuse a peer. The peer receives `reason`, or `Not authorized` if there is none.

    `status` is the HTTP status where the hook is `authorize`: 403, or 401 to ask for credentials.
    """

    def __init__(self, reason: str | None = None, *, status: int = 403) -> None:
        if status not in (401, 403):
            raise ConfigError("Refused.status", f"must be 401 or 403, got {status!r}")
        if reason is not None and not isinstance(reason, str):
            raise ConfigError("Refused.reason", f"must be a string or None, got {reason!r}")
        super().__init__(reason or "Not authorized")
        self.reason = reason
        self.status = status


late_annotations(globals())
