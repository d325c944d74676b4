"""Devices of other nodes of a cluster, and the clients of these devices, as their nodes describe them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ._models import Client, Device
from ._raw_json import members, parse
from .errors import NodeUnreachableError

if TYPE_CHECKING:
    from ._native import Inquiry

T = TypeVar("T")


class Directory(Protocol):
    """The part of `View` that a search needs."""

    def device(self, device_id: str) -> Device | None:
        """Returns the device of this id, by the registry."""

    def begin_ask(self, device_id: str, clients: bool, delay: float) -> Inquiry | None:
        """Asks the node that has a device. None if it is here, or if there is no cluster."""


AGAIN = 0.2
"""Seconds between two questions to a node."""


class Search(Generic[T]):
    """A search for a value of a device: on this server, else on the node that has the device.

    `look` never blocks. A wait calls it after each change, and the answer of a node is one.

    Args:
        view: The run of this server.
        device_id: The device.
        here: Returns the value if this server knows it.
        there: Reads it from the answer of a node; None for a value that is not there yet.
        clients: Whether the node is asked for the clients of the device.
        patient: Whether a node is asked again until there is a value.
    """

    def __init__(
        self,
        view: Directory,
        device_id: str,
        here: Callable[[], T | None],
        there: Callable[[str], T | None],
        *,
        clients: bool = False,
        patient: bool = True,
    ) -> None:
        self._view, self._device_id = view, device_id
        self._here, self._there = here, there
        self._clients, self._patient = clients, patient
        self._inquiry: Inquiry | None = None
        self._delay: float = 0.0
        self.error: NodeUnreachableError | None = None
        """The reason why a node did not answer the last question."""
        self.is_over: bool = False
        """Whether a search that is not patient has ended without a value."""

    def look(self) -> T | None:
        """Returns the value, or None if it is not there yet. Raises NodeUnreachableError if it is not patient."""
        if self._inquiry is None:
            try:
                if not self._begin():
                    found = self._here()
                    self.is_over = found is None
                    return found
            except NodeUnreachableError as error:  # A server of another process asks the node by itself.
                if not self._patient:
                    raise
                self.error = error
                return None
        answer = self._answer()
        if answer is None:
            return None
        (text,) = answer
        found = None if text is None else self._there(text)
        self.is_over = found is None
        return found

    def _begin(self) -> bool:
        """Asks the node of the device. Returns False if none is to be asked."""
        if self._patient and self._view.device(self._device_id) is None:
            self.error = None  # No node has it.
            return False
        self._inquiry = self._view.begin_ask(self._device_id, self._clients, self._delay)
        self._delay = AGAIN
        return self._inquiry is not None

    def _answer(self) -> tuple[str | None] | None:
        assert self._inquiry is not None
        try:
            answer = self._inquiry.wait(0.0)
        except NodeUnreachableError as error:
            self._inquiry = None
            if not self._patient:
                raise
            self.error = error
            return None
        if answer is not None:
            self._inquiry, self.error = None, None
        return answer

    def outcome(self) -> tuple[T | None] | None:
        """`look()` for a search that is not patient: the value in a tuple, also None; None if it goes on."""
        found = self.look()
        return (found,) if found is not None or self.is_over else None


def device_of(answer: str) -> Device:
    """Reads a device from the answer of its node."""
    texts = members(answer)
    info = texts.pop("registration_info", "null")
    facts = {key: parse(text) for key, text in texts.items()}
    address, port = _place(facts.get("address"))
    place = (facts.get("group_name", ""), facts.get("owner", ""), facts.get("name", ""), facts.get("adb_port", 0))
    peer = (facts["device_id"], address, port, facts["since"], facts.get("identity"), facts["clients"])
    return Device._of((*peer, str(info), place, None, facts.get("node"), facts.get("local_id") or None))


def clients_of(device_id: str, answer: str) -> list[Client]:
    """Reads the clients of a device from the answer of its node."""
    return [_client_of(device_id, facts) for facts in parse(answer)]


def _client_of(device_id: str, facts: dict[str, Any]) -> Client:
    return Client._of(
        (device_id, facts["client_id"], *_place(facts.get("address")), facts["since"], facts.get("identity"))
    )


def _place(address: str | None) -> tuple[str | None, int | None]:
    """Reads `192.0.2.7:40118` and `[2001:db8::7]:40118`."""
    if not address:
        return None, None
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
