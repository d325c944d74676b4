"""`HookFailure`: a call of a hook that failed."""

from __future__ import annotations

from dataclasses import dataclass

from ._field_docs import with_field_docs


@with_field_docs
@dataclass(frozen=True)
class HookFailure:
    """A hook that raised, timed out, was not called in time or returned an invalid result.

    Its peer received `Internal error`.
    """

    hook: str
    """`authorize`, `ice_servers` or `filter_device_info`."""
    device_id: str | None
    """The device concerned, if it is known."""
    peer: str
    """The address of the peer that the hook was called for."""
    error: BaseException
    """The exception, with its traceback; `HookTimeoutError` or `HookResultError` if the hook did not raise."""
    at: float
    """The time of the failure, in seconds since 1970."""
    role: str = ""
    """The role of the peer: `device`, `client` or `http`."""

    def __str__(self) -> str:
        """One line, with the role and address of the peer, the device, and the type of the exception."""
        peer = f"{self.role or 'peer'} {self.peer}"
        device = "" if self.device_id is None else f" (device id {self.device_id!r})"
        reason = f"{type(self.error).__name__}: {self.error}".rstrip(": ")
        return f"hook {self.hook} failed for {peer}{device}: {reason}"
