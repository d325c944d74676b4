"""A check that threads are those of the system: the server needs them."""

from __future__ import annotations

import sys

from .errors import UnsupportedError

WHY = (
    "a server cannot run in this process: {} has replaced Python's threads by greenlets, and one that waits for the "
    "server would stop all others. Run `cuttlefish-signaling serve` as a process of its own, or {}"
)


def require_threads() -> None:
    """Raises UnsupportedError if gevent or eventlet has replaced the threads of this process."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(gevent.is_module_patched(name) for name in ("threading", "_thread", "thread")):
        raise UnsupportedError(WHY.format("gevent", "call `monkey.patch_all(thread=False)`"))
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise UnsupportedError(WHY.format("eventlet", "call `eventlet.monkey_patch(thread=False)`"))
