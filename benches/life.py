"""What a server costs the process it lives in: import, start and stop. `make bench` runs it on a release build.

How fast it relays is measured from another process; see CONTRIBUTING.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 200


def milliseconds(times: list[float]) -> str:
    """Median and 95th percentile."""
    return f"{statistics.median(times) * 1000:.3f} ms median, {statistics.quantiles(times, n=20)[18] * 1000:.3f} ms p95"


def imports(statement: str) -> float:
    """The least of ten interpreter runs that only import."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Prints the figures."""
    from cuttlefish_signaling import SignalingServer

    starts, stops = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        server = SignalingServer().start()
        started = time.perf_counter()
        server.stop()
        starts.append(started - began)
        stops.append(time.perf_counter() - started)
    print(f"start   {milliseconds(starts)}")
    print(f"stop    {milliseconds(stops)}")
    extra = imports("import cuttlefish_signaling") - imports("pass")
    print(f"import  {extra * 1000:.1f} ms beyond a bare interpreter")


if __name__ == "__main__":
    main()
