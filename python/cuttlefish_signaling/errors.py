"""Every exception of the package, in one tree below `SignalingError`.

What a *peer* does wrong is no exception here: the peer hears an error, and the server goes on.
"""

from __future__ import annotations


class SignalingError(Exception):
    """The root of the tree."""


class ConfigError(SignalingError, ValueError):
    """A setting makes no sense. `setting` names it, `what` says what is wrong with it."""

    def __init__(self, setting: str, what: str) -> None:
        super().__init__(f"{setting}: {what}")
        self.setting = setting
        self.what = what

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return type(self), (self.setting, self.what)


class TlsError(ConfigError):
    """A certificate or key can not be read or used, or the two do not belong together."""


class StateDirError(SignalingError):
    """A directory for certificates cannot be used. `path` names it or a file in it, `what` the reason and the cure."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[StateDirError], tuple[str, str]]:
        return type(self), (self.path, self.what)


class BindError(SignalingError, OSError):
    """The address can not be listened on: taken, not ours, or not permitted. `errno` is the system's."""

    def __str__(self) -> str:
        return str(self.strerror)


class NotRunningError(SignalingError, RuntimeError):
    """The server has not been started, or has stopped, perhaps during a wait."""


class ForkedError(SignalingError, RuntimeError):
    """The process is a fork of the one that started the server, whose threads stayed there."""


class WaitTimeoutError(SignalingError, TimeoutError):
    """Who or what was waited for did not come in time."""


class FilterError(SignalingError, ValueError):
    """A filter has a name or a value that makes no sense; the message says which there are."""


class JournalOffError(SignalingError, RuntimeError):
    """The server writes no journal: start it with `journal=True`, as the pytest fixtures do."""


class ExpectationError(SignalingError, AssertionError):
    """What was expected of the journal or of a fault did not happen, or what was not expected did."""


class FaultError(SignalingError, ValueError):
    """A fault makes no sense, or concerns a device that is not there."""


class CassetteError(SignalingError, ValueError):
    """A cassette can not be read or written; the message names the file and the line."""


class ServerFailedError(SignalingError):
    """During a test, a hook failed or the server logged an error: the pytest fixtures fail the test with it."""


class NotOursError(SignalingError, RuntimeError):
    """The server runs elsewhere (`--signaling-url`), and this needs one of our own."""


class UnreachableError(SignalingError, ConnectionError):
    """There is no signaling server at that address."""


class PeerRefusedError(SignalingError, ConnectionError):
    """A fake peer was not let in. `error` is what the server said, `code` the close code, if there was one."""

    def __init__(self, message: str, *, error: str | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.code = code


class PeerClosedError(SignalingError, ConnectionError):
    """A fake peer's connection is closed. `code` is the close code, `None` if it broke off; `error` the last error."""

    def __init__(self, message: str, *, error: str | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.code = code


class DeviceLostError(PeerClosedError):
    """A fake device of profile `"legacy"` heard an error and a close, from which a real one never comes back."""


class InternalError(SignalingError, RuntimeError):
    """A bug in cuttlefish-signaling. Please report it."""


class HookError(SignalingError):
    """A hook gave no usable answer. Found in `SignalingServer.hook_errors`, never raised at you."""


class HookTimeoutError(HookError, TimeoutError):
    """A hook took longer than `hook_timeout`."""


class HookResultError(HookError, TypeError):
    """A hook returned something that makes no sense; the message says what was expected."""


class Refused(SignalingError):  # noqa: N818
    """Raise it in a hook to say no. The peer hears `reason`, or `Not authorized` if there is none.

    `status` is the HTTP status where the hook is `authorize`: 403, or 401 to ask for credentials.
    """

    def __init__(self, reason: str | None = None, *, status: int = 403) -> None:
        if status not in (401, 403):
            raise ConfigError("Refused.status", f"{status!r} is neither 401 nor 403")
        super().__init__(reason or "Not authorized")
        self.reason = reason
        self.status = status
