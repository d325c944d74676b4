"""The cost of a server for tests: start and stop, and the fixtures of the plugin. A part of `make bench`.

A test of the kind `sync` or `async` has a server, a fake device and a fake client of its own, and sends one message
each way. The kind `by hand` does the same with clients of `websockets` and `asyncio.run`: the least cost of such a
test. The cost of a test is the time of 200 more of them, beyond that of as many empty tests: imports are not in it.
The kinds take turns. All threads of a suite have one core. The time of a whole suite of 1,000 tests has all of pytest
in it: its start, imports, and what it does for an empty test.

python benches/fixtures.py [--rounds 5] [--tests 200] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import goals
from goals import Figures, Goal, Row
from life import websockets_server

CORE = str(max(os.sched_getaffinity(0)))
"""The last one, as for the load of the other parts."""
FEW = 20
"""The tests of the suites whose cost is subtracted: imports, and first uses."""
SUITE = 1000
"""The tests of a whole suite."""

SUITES = {
    "empty": """
@pytest.mark.parametrize("number", range({tests}))
def test_empty(number): pass
""",
    "server": """
@pytest.mark.parametrize("number", range({tests}))
def test_server(number, signaling_server): pass
""",
    "by hand": """
import asyncio, json
from websockets.asyncio.client import connect

async def converse(server):
    options = {{"proxy": None, "compression": None}}
    async with connect(server.device_url, **options) as device:
        await device.send(json.dumps({{"message_type": "register", "device_id": "cvd-1", "device_info": {{}}}}))
        await device.recv()
        async with connect(server.client_url, **options) as client:
            await client.send(json.dumps({{"message_type": "connect", "device_id": "cvd-1"}}))
            await client.recv(), await client.recv()
            await client.send(json.dumps({{"message_type": "forward", "payload": {{"type": "offer"}}}}))
            number = json.loads(await device.recv())["client_id"]
            answer = {{"message_type": "forward", "client_id": number, "payload": {{"type": "answer"}}}}
            await device.send(json.dumps(answer))
            assert json.loads(await client.recv())["payload"]["type"] == "answer"

@pytest.mark.parametrize("number", range({tests}))
def test_by_hand(number, signaling_server): asyncio.run(converse(signaling_server))
""",
    "sync": """
@pytest.mark.parametrize("number", range({tests}))
def test_sync(number, signaling_server, fake_device, fake_client):
    device, client = fake_device("cvd-1"), fake_client("cvd-1")
    client.send({{"type": "offer", "number": number}})
    device.recv().reply({{"type": "answer"}})
    assert client.recv().payload["type"] == "answer"
""",
    "async": """
@pytest.mark.asyncio
@pytest.mark.parametrize("number", range({tests}))
async def test_async(number, signaling_server, async_fake_device, async_fake_client):
    device, client = await async_fake_device("cvd-1"), await async_fake_client("cvd-1")
    await client.send({{"type": "offer", "number": number}})
    await (await device.recv()).reply({{"type": "answer"}})
    assert (await client.recv()).payload["type"] == "answer"
""",
}
BY_HAND, LIFE, BESIDE = "by hand", "start and stop", "the threaded server of `websockets`"
WHOLE, WHOLE_BY_HAND = "a suite of 1,000 such tests, sync", "a suite of 1,000 tests by hand"
GOALS = (
    *((kind, BY_HAND, Goal("cpu_ms_per_test", 3.0, "not measured", of_figure=True)) for kind in ("sync", "async")),
    *((kind, BY_HAND, Goal("wall_ms_per_test", 4.0, "not measured", of_figure=True)) for kind in ("sync", "async")),
    (WHOLE, WHOLE_BY_HAND, Goal("suite_s", 5.0, "not measured", of_figure=True)),
    (LIFE, BESIDE, Goal("median_ms", 0.3, "0.43", of_figure=True)),
    (LIFE, BESIDE, Goal("p99_ms", 0.6, "0.81", of_figure=True)),
    (LIFE, BESIDE, Goal("p99_cpu_ms", 0.6, "not measured", of_figure=True)),
)


def run(suite: str, tests: int) -> Figures:
    """Runs a suite, and returns the time that it takes, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_cost.py").write_text("import pytest\n" + SUITES[suite].format(tests=tests))
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-o", "asyncio_mode=strict", folder]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = ["taskset", "-c", CORE, sys.executable, "-m", "pytest", *options]
        done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if f"{tests} passed" not in done.stdout:
            raise SystemExit((done.stdout + done.stderr)[-2000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu * 1000, "wall": wall * 1000}


def cost(suite: str, tests: int) -> Figures:
    """The time of one test, in ms."""
    few, many = run(suite, FEW), run(suite, FEW + tests)
    return {f"{name}_ms_per_test": (many[name] - few[name]) / tests for name in few}


def life(serve: Callable[[], AbstractContextManager[object]], times: int) -> Figures:
    """Starts and stops a server repeatedly, and returns the times in ms.

    The CPU time is that of all threads of the process. Other programs lengthen it less than the time on the wall.
    """
    took, used = [], []
    for _ in range(times):
        began, cpu = time.perf_counter(), time.process_time()
        with serve():
            pass
        took.append((time.perf_counter() - began) * 1000)
        used.append((time.process_time() - cpu) * 1000)
    quantiles, of_cpu = statistics.quantiles(took, n=100), statistics.quantiles(used, n=100)
    return {"median_ms": quantiles[49], "p99_ms": quantiles[98], "p99_cpu_ms": of_cpu[98]}


def rows(runs: dict[str, list[Figures]]) -> list[Row]:
    """Returns a row for each goal. Of the figures of a test, those of an empty one are subtracted."""
    beyond = {
        kind: [
            {name: value - empty.get(name, 0.0) for name, value in one.items()}
            for one, empty in zip(own, runs["empty"], strict=True)
        ]
        for kind, own in runs.items()
    }
    titles = {LIFE: LIFE, WHOLE: WHOLE, **{kind: f"a test with a server and two fake peers, {kind}" for kind in SUITES}}
    return [
        goals.row(titles[kind], reference, goal, beyond[kind], beyond[reference]) for kind, reference, goal in GOALS
    ]


def goal_rows(rounds: int, tests: int = 200) -> list[Row]:
    """Measures each kind of test by turns, and start and stop, and prints the rows."""
    from cuttlefish_signaling import SignalingServer

    runs: dict[str, list[Figures]] = {name: [] for name in (*SUITES, WHOLE, WHOLE_BY_HAND, LIFE, BESIDE)}
    life(SignalingServer, 20)
    for _ in range(rounds):
        for suite in SUITES:
            runs[suite].append(cost(suite, tests))
        for name, suite in ((WHOLE, "sync"), (WHOLE_BY_HAND, BY_HAND)):
            runs[name].append({"suite_s": run(suite, SUITE)["wall"] / 1000})
        runs[LIFE].append(life(SignalingServer, tests))
        runs[BESIDE].append(life(websockets_server, 10))
    found = rows(runs)
    for row in found:
        print(goals.line(row), flush=True)
    return found


def main() -> None:
    """Measures, prints the rows, and writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tests", type=int, default=200, help="tests whose cost is measured, for each kind")
    parser.add_argument("--out", type=Path, help="where the rows go, as JSON")
    options = parser.parse_args()
    found: list[dict[str, Any]] = goal_rows(options.rounds, options.tests)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
