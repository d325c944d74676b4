"""Runs targets of the Makefile in order, and prints which of how many runs and how long each took.

    python scripts/steps.py make lint test-rust

The first step that fails ends the run, with the exit status of make.
"""

from __future__ import annotations

import subprocess
import sys
import time


def duration(seconds: float) -> str:
    """Minutes and seconds, as in `2 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def main(make: str, steps: list[str]) -> int:
    """Runs the steps; returns the exit status."""
    took: dict[str, float] = {}
    for number, step in enumerate(steps, 1):
        place = f"[{number}/{len(steps)}] {step}"
        print(f"=== {place}", flush=True)
        start = time.monotonic()
        # The jobserver of `make -j` is a pair of open descriptors.
        status = subprocess.run([make, "--no-print-directory", step], check=False, close_fds=False).returncode
        took[step] = time.monotonic() - start
        if status != 0:
            print(f"=== {place}: FAILED after {duration(took[step])}. Run it alone with: make {step}", flush=True)
            return status
        print(f"=== {place}: passed in {duration(took[step])}", flush=True)
    width = max(map(len, steps))
    for step, seconds in took.items():
        print(f"    {step:{width}}  {duration(seconds):>12}")
    print(f"    {'in all':{width}}  {duration(sum(took.values())):>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
