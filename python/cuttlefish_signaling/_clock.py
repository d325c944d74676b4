"""`server.clock`: a clock that tests can freeze and advance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._annotations import late_annotations
from ._checks import check_seconds

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._interfaces import ClockTarget


class Clock:
    """The clock of a server. It shows the system's time until a test freezes or advances it.

    It shows the system's time again when the server has stopped.
    The server uses it for keepalive, waits for devices, first messages, hooks, faults and the expiry of TURN
    credentials.

        with server.clock.frozen() as clock:
            clock.advance(10.0)        # returns when every peer that was silent for 10 s has been sent a ping

    `advance` returns when the server has done all that is due: pings are sent, connections closed, devices removed.
    It does not wait for the reactions of peers. Deadlines before a WebSocket is open (TLS, request heads) and the
    timeouts of waits in Python use the system's time.
    """

    def __init__(self, native: ClockTarget) -> None:
        self._native = native

    def freeze(self) -> Self:
        """Stops the clock: no deadline passes until it is advanced or resumed."""
        self._native.freeze()
        return self

    def resume(self) -> Self:
        """Lets the clock run on from the time it shows."""
        self._native.resume()
        return self

    def advance(self, seconds: float) -> Self:
        """Moves the clock forward, frozen or not. Raises ConfigError for a negative number of seconds."""
        check_seconds("seconds", seconds)
        self._native.advance(float(seconds))
        return self

    @property
    def now(self) -> float:
        """The time it shows, in seconds since 1970."""
        return self._native.now

    @property
    def is_frozen(self) -> bool:
        """Whether it is frozen."""
        return self._native.is_frozen

    @contextmanager
    def frozen(self) -> Iterator[Self]:
        """Freezes the clock inside the `with`, and resumes it afterwards."""
        self.freeze()
        try:
            yield self
        finally:
            self.resume()

    def __repr__(self) -> str:
        return f"<Clock {self.now:.3f}{' frozen' if self.is_frozen else ''}>"


late_annotations(globals())
