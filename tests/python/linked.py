"""Connections through the links of a test cluster, between this process and a listener in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from cuttlefish_signaling.testing._links import Links

from peers import PATIENCE


class Network:
    """Links between this process, which is the node `a`, and a listener, which is the node `b`."""

    def __init__(self) -> None:
        self.links = Links(lambda: {"a": os.getpid()})
        self.port = self.links.listen("b")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.open: list[socket.socket] = [self.listener]

    def connect_to_listener(self) -> None:
        """Lets connections through the links arrive at the listener."""
        self.links.connect_to("b", self.listener.getsockname())

    def dial(self) -> socket.socket:
        """Connects to the links."""
        made = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.open.append(made)
        return made

    def accept(self) -> socket.socket:
        """Takes a connection of the links at the listener."""
        made, _ = self.listener.accept()
        made.settimeout(PATIENCE)
        self.open.append(made)
        return made

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Makes a connection, and returns both ends."""
        return self.dial(), self.accept()

    def close(self) -> None:
        """Closes the links and all connections."""
        self.links.close()
        for one in self.open:
            one.close()


@pytest.fixture(name="network")
def network_of_links() -> Iterator[Network]:
    """A network whose links lead to the listener. Modules import it, and name it in `__all__`."""
    made = Network()
    made.connect_to_listener()
    yield made
    made.close()


def has_none(receiver: socket.socket) -> bool:
    """Whether nothing has arrived, neither bytes nor the end."""
    receiver.settimeout(0.05)
    try:
        receiver.recv(1)
    except TimeoutError:
        return True
    finally:
        receiver.settimeout(PATIENCE)
    return False


def received(receiver: socket.socket, count: int) -> bytes:
    """The next bytes, up to this number: fewer at the end."""
    data = b""
    while len(data) < count and (part := receiver.recv(count - len(data))):
        data += part
    return data
