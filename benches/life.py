"""Measures the cost of a server within its process: import, start and stop, beside other servers that tests use.

`make bench` runs this on a release build. Another process measures relaying: see CONTRIBUTING.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

ROUNDS = 200


def milliseconds(times: list[float]) -> str:
    """Formats the median and the 95th percentile."""
    return (
        f"{statistics.median(times) * 1000:8.3f} ms median {statistics.quantiles(times, n=20)[18] * 1000:8.3f} ms p95"
    )


def life(name: str, serve: Callable[[], AbstractContextManager[object]], rounds: int = ROUNDS) -> None:
    """Starts and stops a server repeatedly, and prints the times."""
    starts, stops = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with serve():
            started = time.perf_counter()
        starts.append(started - began)
        stops.append(time.perf_counter() - started)
    print(f"{name:40} start {milliseconds(starts)}   stop {milliseconds(stops)}")


def imports(statement: str) -> float:
    """Returns the least CPU time (user and system) of ten interpreters that only import, in seconds."""
    times = []
    for _ in range(10):
        program = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        times.append(float(done.stdout))
    return min(times)


@contextmanager
def websockets_server() -> Iterator[object]:
    """The synchronous server of `websockets`, on a thread, as a typical test starts it."""
    from websockets.sync.server import serve

    with serve(lambda socket: None, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def http_server() -> Iterator[object]:
    """The server of pytest-httpserver."""
    from pytest_httpserver import HTTPServer

    with HTTPServer() as server:
        yield server


def main() -> None:
    """Prints the figures."""
    import pytest_httpserver  # noqa: F401  # Imported before it is timed.
    import websockets.sync.server  # noqa: F401

    from cuttlefish_signaling import SignalingServer

    life("cuttlefish-signaling", SignalingServer)
    life("cuttlefish-signaling, as the fixture", lambda: SignalingServer(journal=True))
    life("websockets.sync.server", websockets_server, 20)
    life("pytest-httpserver", http_server, 20)
    print(f"import cuttlefish_signaling                {imports('import cuttlefish_signaling') * 1000:8.3f} ms of CPU")
    plugin = "import pytest; began = time.process_time(); import cuttlefish_signaling.pytest_plugin"
    print(f"import of the pytest plugin                {imports(plugin) * 1000:8.3f} ms of CPU")
    used = imports("from cuttlefish_signaling import SignalingServer")
    print(f"import of SignalingServer                  {used * 1000:8.3f} ms of CPU")


if __name__ == "__main__":
    main()
