"""A pair across two nodes beside a local pair, and what a cluster asks of its engine: a part of `compare.py`.

One server without a cluster, one node of a cluster, and two nodes take turns. The nodes share the core of the server,
and the engine has that of the load.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cuttlefish_signaling.testing import FakeClient, FakeDevice

SERVER_CORE, LOAD_CORE = "0", "1"
PATIENCE = 30.0
"""How long a process may take to listen, in seconds."""

Figures = dict[str, float]

ONE_CORE = "across nodes: one pair alone, load on the same core"
"""A task that wakes another core pays for that: in a virtual machine several times the cost of a message, and as much
for two nodes as for one."""
SCENARIOS = {
    "across nodes: 50 pairs, 250 B": ("relay", "--payload", "250"),
    "across nodes: 50 pairs, 8 in flight": ("relay", "--payload", "250", "--window", "8"),
    # One server is faster than the load, and reads messages that come one by one in smaller batches than two nodes do.
    "across nodes: 50 pairs, 8 at once": ("relay", "--payload", "250", "--window", "8", "--bursts", "1"),
    "across nodes: one pair alone": ("relay", "--pairs", "1"),
    ONE_CORE: ("relay", "--pairs", "1"),
    "across nodes: sessions": ("sessions",),
    "across nodes: registrations": ("registrations",),
}
BESIDE = "across nodes: 50 pairs between two of three nodes, 250 B"
"""A node that hangs must not slow down the pairs of the others."""
WORKS, HANGS = "the third node works", "the third node is stopped (SIGSTOP)"
PEERS_OF_THIRD = 10
LOCAL, NODE, NODES = "one server, no cluster", "one node of a cluster", "two nodes"
CLAIMS = 2_000
IDLE_SECONDS = 10.0
IDLE_DEVICES = 10_000


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], core: str, port: int) -> Iterator[int]:
    """Runs a process on a core until it listens at the port. Yields its id."""
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit(f"it did not start: {' '.join(command)}")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Whether a process listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Any) -> None:
    """Returns when a condition about other processes holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("a process takes too long")
        time.sleep(0.02)


class Cluster:
    """An engine, and nodes of one cluster."""

    def __init__(self, stack: ExitStack, nodes: int) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SystemExit("there is no redis-server: apt-get install redis-server")
        self.engine_port, folder = free_port(), stack.enter_context(tempfile.TemporaryDirectory())
        options = ["--bind", "127.0.0.1", "--port", str(self.engine_port), "--save", "", "--dir", folder]
        self.engine_pid = stack.enter_context(running([program, *options], LOAD_CORE, self.engine_port))
        self.nodes = []
        for name in range(nodes):
            port = free_port()
            more = ["--cluster", f"redis://127.0.0.1:{self.engine_port}", "--node", f"node-{name}"]
            pid = stack.enter_context(running(server(port, *more), SERVER_CORE, port))
            self.nodes.append((port, pid))
        for port, _ in self.nodes:
            wait_until(lambda at=port: self._knows_all(at))
        # An engine that is empty holds the first claims for some seconds.
        with FakeDevice(f"http://127.0.0.1:{self.nodes[0][0]}", "first", timeout=PATIENCE):
            pass

    def _knows_all(self, port: int) -> bool:
        from urllib.request import urlopen

        with urlopen(f"http://127.0.0.1:{port}/nodes") as answer:
            return len(json.loads(answer.read())) == len(self.nodes)

    def cpu(self) -> float:
        """CPU time of the engine so far, in µs."""
        tasks = Path(f"/proc/{self.engine_pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3

    def info(self) -> dict[str, float]:
        """Calls of scripts so far, and the µs that they took, as the engine counts them."""
        with socket.create_connection(("127.0.0.1", self.engine_port)) as connection:
            connection.sendall(b"INFO all\r\n")
            with connection.makefile("rb") as answer:
                text = answer.read(int(answer.readline()[1:])).decode()
        found = re.search(r"^cmdstat_evalsha:calls=(\d+),usec=(\d+)", text, re.MULTILINE)
        calls, took = (int(found[1]), int(found[2])) if found else (0, 0)
        return {"calls": calls, "us": took, "at": time.monotonic()}


def server(port: int, *more: str) -> list[str]:
    """The command of a server. No pings: the peers of the load do not answer at rest."""
    own = ["--no-tls", "--port", str(port), "--keepalive-interval", "none"]
    return [sys.executable, "-m", "cuttlefish_signaling", "serve", *own, *more]


def measure(load: list[str], kind: str, scenario: tuple[str, ...], seconds: float) -> Figures:
    """Runs a scenario once, and returns its figures."""
    with ExitStack() as stack:
        if kind == LOCAL:
            port = free_port()
            ends = [(port, stack.enter_context(running(server(port), SERVER_CORE, port)))] * 2
        else:
            cluster = Cluster(stack, 2 if kind == NODES else 1)
            ends = [cluster.nodes[0], cluster.nodes[-1]]
        (port, pid), (client_port, other_pid) = ends
        options = ["--port", str(port), "--pid", str(pid), "--client-port", str(client_port)]
        options += ["--other-pid", str(other_pid)] if other_pid != pid else []
        command = [*load, *scenario, *options, "--seconds", str(seconds)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(run.stdout)
    return figures


def measure_beside(load: list[str], hangs: bool, seconds: float) -> Figures:
    """Runs 50 pairs between two nodes once. A third node has pairs with both, and may hang."""
    from websockets.sync.client import connect

    with ExitStack() as stack:
        cluster = Cluster(stack, 3)
        (port, pid), (client_port, other_pid), (third_port, third_pid) = cluster.nodes
        for number in range(PEERS_OF_THIRD):
            for name, home, away in (("of-third", third_port, client_port), ("of-first", port, third_port)):
                device_id = f"{name}-{number}"
                stack.enter_context(FakeDevice(f"http://127.0.0.1:{home}", device_id, timeout=PATIENCE))
                stack.enter_context(FakeClient(f"http://127.0.0.1:{away}", device_id, timeout=PATIENCE))
        if hangs:
            os.kill(third_pid, signal.SIGSTOP)
            stack.callback(os.kill, third_pid, signal.SIGCONT)
        # Further clients of its devices dial it.
        for number in range(PEERS_OF_THIRD):
            late = stack.enter_context(connect(f"ws://127.0.0.1:{client_port}/connect_client", proxy=None))
            late.send(json.dumps({"message_type": "connect", "device_id": f"of-third-{number}"}))
        options = ["--port", str(port), "--pid", str(pid), "--client-port", str(client_port)]
        options += ["--other-pid", str(other_pid), "--seconds", str(seconds)]
        run = subprocess.run(
            [*load, "relay", "--payload", "250", *options], check=True, stdout=subprocess.PIPE, text=True
        )
    figures: Figures = json.loads(run.stdout)
    return figures


def run_all(load: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Runs each scenario with each kind of server, by turns. Ratios are those to the server without a cluster.

    Those of pairs beside a third node that hangs are to the same pairs while it works.
    """
    from compare import medians, ratios, show

    found: dict[str, Any] = {}
    for title, scenario in SCENARIOS.items():
        # A device registers with one node, whatever others there are.
        kinds = [LOCAL, NODE, NODES] if scenario[0] != "registrations" else [LOCAL, NODE]
        runs: dict[str, list[Figures]] = {kind: [] for kind in kinds}
        program = ["taskset", "-c", SERVER_CORE, load[-1]] if title == ONE_CORE else load
        for _ in range(rounds):
            for kind in kinds:
                runs[kind].append(measure(program, kind, scenario, seconds))
        found[title] = {
            kind: {"figures": medians(own), "ratios": ratios(own, runs[LOCAL])} for kind, own in runs.items()
        }
        show(title, found[title])
    beside: dict[str, list[Figures]] = {WORKS: [], HANGS: []}
    for _ in range(rounds):
        for kind, own in beside.items():
            own.append(measure_beside(load, kind == HANGS, seconds))
    found[BESIDE] = {
        kind: {"figures": medians(own), "ratios": ratios(own, beside[WORKS])} for kind, own in beside.items()
    }
    show(BESIDE, found[BESIDE])
    return found


def with_devices_at_rest(load: list[str]) -> Figures:
    """Calls to the engine while many devices of one node are at rest, and their memory in the other nodes."""
    with ExitStack() as stack:
        cluster = Cluster(stack, 3)
        (port, pid), *others = cluster.nodes
        before = [resident(other) for _, other in others]
        options = ["--port", str(port), "--pid", str(pid), "--seconds", str(PATIENCE + 10 * IDLE_SECONDS)]
        held = subprocess.Popen([*load, "idle", "--idle", str(IDLE_DEVICES), *options], stdout=subprocess.DEVNULL)
        stack.callback(held.wait)
        stack.callback(held.kill)
        for other, _ in others:
            wait_until(lambda at=other: known_devices(at) >= IDLE_DEVICES)
        first = cluster.info()
        time.sleep(IDLE_SECONDS)
        last = cluster.info()
        grown = [resident(other) - was for (_, other), was in zip(others, before, strict=True)]
    rest = last["at"] - first["at"]
    return {
        f"calls a second with {IDLE_DEVICES:,} devices at rest": (last["calls"] - first["calls"]) / rest,
        "time of their scripts with them, µs a second": (last["us"] - first["us"]) / rest,
        "memory of a node for each device of another one, bytes": max(grown) / IDLE_DEVICES,
    }


def known_devices(port: int) -> float:
    """The number of devices in the copy of the registry that a node has. The one that `Cluster` makes has left."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(r"^cuttlefish_signaling_cluster_devices (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0


def resident(pid: int) -> int:
    """Memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def engine(load: list[str], seconds: float) -> Figures:
    """Calls and CPU of the engine: of three nodes at rest, of one registration, and of those that come without a pause.

    The time of scripts is on the wall, and that of a registration on its own includes waking the engine.
    """
    from websockets.sync.client import connect

    with ExitStack() as stack:
        cluster = Cluster(stack, 3)
        before = cluster.info()
        time.sleep(IDLE_SECONDS)
        idle = cluster.info()
        times = []
        for number in range(CLAIMS):
            with connect(f"ws://127.0.0.1:{cluster.nodes[0][0]}/register_device", proxy=None) as device:
                began = time.monotonic()
                device.send(json.dumps({"message_type": "register", "device_id": f"cvd-{number}", "device_info": {}}))
                device.recv()
                times.append(time.monotonic() - began)
        after = cluster.info()
        port, pid = cluster.nodes[0]
        used = cluster.cpu()
        options = ["--port", str(port), "--pid", str(pid), "--seconds", str(seconds)]
        subprocess.run([*load, "registrations", *options], check=True, stdout=subprocess.DEVNULL)
        used, calls = cluster.cpu() - used, cluster.info()["calls"] - after["calls"]
    rest = idle["at"] - before["at"]
    per_second = {name: (idle[name] - before[name]) / rest for name in idle}
    # Renewals and upkeep go on meanwhile.
    busy = after["at"] - idle["at"]
    own = {name: after[name] - idle[name] - per_second[name] * busy for name in idle}
    figures = {
        "calls a second of three nodes at rest": per_second["calls"],
        "time of their scripts, µs a second": per_second["us"],
        **with_devices_at_rest(load),
        "calls for each device that registers and leaves": own["calls"] / CLAIMS,
        "time of their scripts, µs": own["us"] / CLAIMS,
        "CPU time for each call where devices come without a pause, µs": used / calls,
        "median time of a device to register, µs": 1e6 * statistics.median(times),
    }
    print(json.dumps(figures, indent=1), flush=True)
    return {name: round(value, 2) for name, value in figures.items()}
