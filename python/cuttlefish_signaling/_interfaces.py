"""The parts of the core that the classes for tests use. A server of another process has them as well (`_remote`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ._entry import EntryTuple
    from ._models import ClientTuple, DeviceTuple, WaitingTuple


class JournalSource(Protocol):
    """The messages of one server."""

    def find(
        self,
        after: int,
        limit: int,
        *,
        closed: bool | None = None,
        direction: str | None = None,
        device: str | None = None,
        client: int | None = None,
        message_type: str | None = None,
        payload_type: str | None = None,
    ) -> list[EntryTuple]:
        """Returns the entries that match, behind the one numbered `after`, the oldest first."""

    @property
    def count(self) -> int:
        """The number of entries recorded so far."""

    @property
    def forgotten(self) -> int:
        """The number of entries dropped."""


class FaultsTarget(Protocol):
    """The faults of one server."""

    def arm(
        self,
        effect: str,
        first: float | None = None,
        second: float | None = None,
        *,
        to: str | None = None,
        device: str | None = None,
        client: int | None = None,
        payload_type: str | None = None,
        nth: int | None = None,
        probability: float = 1.0,
        times: int | None = None,
    ) -> int:
        """Arms a fault behind those that are armed, and returns its id."""

    def disarm(self, id: int) -> tuple[int, int, int] | None:
        """Disarms a fault, and returns its counts: forwards that matched, were hit, and were dropped for room."""

    def stats(self, id: int) -> tuple[int, int, int] | None:
        """Returns the counts of a fault."""

    def seed(self, seed: int) -> None:
        """Seeds the random choices of faults that are armed from now on."""


class ClockTarget(Protocol):
    """The clock of one server."""

    def freeze(self) -> None:
        """Stops the clock."""

    def resume(self) -> None:
        """Lets the clock run on."""

    def advance(self, seconds: float) -> None:
        """Moves the clock forward."""

    @property
    def now(self) -> float:
        """The time it shows, in seconds since 1970."""

    @property
    def is_frozen(self) -> bool:
        """Whether it stands."""


class ServerSource(Protocol):
    """One running server."""

    def devices(self) -> Sequence[DeviceTuple]:
        """Returns the devices registered now."""

    def device(self, device_id: str) -> DeviceTuple | None:
        """Returns the device of this id."""

    def nodes(self) -> list[tuple[str, str, str, str, str, int]]:
        """Returns the nodes of the cluster."""

    def clients(self, device_id: str | None) -> list[ClientTuple]:
        """Returns the clients of a device, or of all."""

    def waiting(self) -> list[WaitingTuple]:
        """Returns the clients that wait for a device."""

    @property
    def journal(self) -> JournalSource:
        """The messages."""

    @property
    def faults(self) -> FaultsTarget:
        """The faults."""

    @property
    def clock(self) -> ClockTarget:
        """The clock."""

    def incidents(self) -> Sequence[tuple[str, int]]:
        """Returns the counts of incidents, by the names of `Stats`."""

    def peers(self) -> tuple[int, int, int, int]:
        """Returns the number of connections, devices, clients and waiting clients."""

    def stats(self) -> tuple[int, int, int, int, int]:
        """Returns the counts of forwards: accepted, delivered, refused, gone, dropped."""

    def changes(self) -> int:
        """Returns the number of changes so far. Raises NotRunningError after a stop."""

    def wait_change(self, seen: int, timeout: float) -> int:
        """Waits until the number is another one, and returns it."""
