"""`server.clock`: the time a server goes by, in the hands of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._checks import check_seconds

if TYPE_CHECKING:
    from typing_extensions import Self

    from . import _native


class Clock:
    """The time a server goes by. It is the system's until it is frozen or advanced, and again when the server stops.

    Measured by it: keepalive, waits for devices, first messages, hooks, faults, the expiry of TURN credentials.

        with server.clock.frozen() as clock:
            clock.advance(10.0)        # whoever was silent for 10 s has been pinged when this returns

    What falls due is done before `advance` returns: pings are sent, connections closed, devices gone. What peers make
    of it is up to them. Deadlines before a WebSocket is open (TLS, request heads) and the timeouts of Python's own
    waits stay with the system's time.
    """

    def __init__(self, native: _native.Clock) -> None:
        self._native = native

    def freeze(self) -> Self:
        """Stops it. Nothing falls due any more."""
        self._native.freeze()
        return self

    def resume(self) -> Self:
        """Lets it go on from where it stands."""
        self._native.resume()
        return self

    def advance(self, seconds: float) -> Self:
        """Moves it on by so many seconds, frozen or not. Raises ConfigError: it does not go back."""
        check_seconds("seconds", seconds)
        self._native.advance(float(seconds))
        return self

    @property
    def now(self) -> float:
        """What it shows, in seconds since 1970."""
        return self._native.now

    @property
    def is_frozen(self) -> bool:
        """Whether it stands."""
        return self._native.is_frozen

    @contextmanager
    def frozen(self) -> Iterator[Self]:
        """Frozen within the `with`, and going on behind it."""
        self.freeze()
        try:
            yield self
        finally:
            self.resume()

    def __repr__(self) -> str:
        return f"<Clock {self.now:.3f}{' frozen' if self.is_frozen else ''}>"
