"""What a server costs the process it lives in: import, start and stop, beside other servers tests are written with.

`make bench` runs it on a release build. How fast it relays is measured from another process; see CONTRIBUTING.md.
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
    """Median and 95th percentile."""
    return (
        f"{statistics.median(times) * 1000:8.3f} ms median {statistics.quantiles(times, n=20)[18] * 1000:8.3f} ms p95"
    )


def life(name: str, serve: Callable[[], AbstractContextManager[object]], rounds: int = ROUNDS) -> None:
    """Starts and stops it, again and again."""
    starts, stops = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with serve():
            started = time.perf_counter()
        starts.append(started - began)
        stops.append(time.perf_counter() - started)
    print(f"{name:40} start {milliseconds(starts)}   stop {milliseconds(stops)}")


def imports(statement: str) -> float:
    """The least of ten interpreter runs that only import, in CPU seconds of the system's and its own."""
    times = []
    for _ in range(10):
        program = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        times.append(float(done.stdout))
    return min(times)


@contextmanager
def websockets_server() -> Iterator[object]:
    """The synchronous server of `websockets`, on a thread, as its users write it."""
    from websockets.sync.server import serve

    with serve(lambda socket: None, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def http_server() -> Iterator[object]:
    """pytest-httpserver's."""
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
