"""Signals and limits of the process."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[Callable[[], None]]:
    """Yields a function that waits for the first SIGINT or SIGTERM. The next one ends the process at once.

    The interpreter writes each signal to a socket, from which the function reads. A handler that set an event could run
    while the same thread holds the event's lock, and wait for it forever.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def restore_default(_number: int, _frame: object) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def wait() -> None:
        while not set(receiver.recv(64)) & set(STOP_SIGNALS):
            pass  # Another signal, of a handler that hooks have set.

    with receiver, sender:
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, restore_default) for number in STOP_SIGNALS}
        try:
            yield wait
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


def raise_descriptor_limit() -> None:
    """Raises the soft limit of open files to the hard one. Each connection takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # The limit stays. The server logs when it has no descriptors left.
