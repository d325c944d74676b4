"""Measures an honest pair under four sieges: of peers, of readers over HTTP, and of two kinds of clients of its device.

    python benches/isolation.py

The siege of peers has 500 clients that read slowly, 1,000 open handshakes, and hooks that hang. The siege of readers
has four that fetch `GET /devices` without a pause, a scraper of `GET /metrics` and 32 dashboards, at a server with
6,000 devices. In the flood, another client of the same device sends as fast as the server reads. In the last siege, 20
other clients of the same device are stuck: the device sends to them, and they do not read.

Quiet phases and sieges alternate in one run. The figure is the honest pair's 99th percentile under siege, divided by
its quiet value. The server has its own core if there are two; the pair and the siege share the other one. The readers
give way to the pair there: the figure is about the server.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from raw import Raw, connect, register

HONEST = 1
"""The client id of the honest client, the first of its device."""

SERVER = """
import json, sys, threading
from cuttlefish_signaling import Keepalive, SignalingServer

over = threading.Event()

def info(info, ctx):
    if ctx.client.query_string == "hang":
        over.wait()
    return info

# No connection is dropped for a missing pong: the siege has to last.
hooks = {"filter_device_info": info} if "hooks" in sys.argv else {"dashboard": True}
with SignalingServer(**hooks, keepalive=Keepalive(interval=None)) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        over.set()                              # Ends the hooks of this siege. Those of the next one hang again.
        over = threading.Event()
        stats = server.stats()
        print(json.dumps({**vars(stats), "balances": stats.balances, "hooks": len(server.hook_errors)}), flush=True)
"""

CROWD = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from raw import register

port, count = int(sys.argv[1]), int(sys.argv[3])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
devices = [register(port, f"cvd-{number}") for number in range(count)]
for device in devices:
    device.receive()
print("registered", flush=True)
sys.stdin.read()
"""

READERS = """
import os, selectors, select, socket, sys, threading, time
sys.path.insert(0, sys.argv[2])
from raw import PATIENCE, request_head

port, over, counts = int(sys.argv[1]), threading.Event(), {}
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

def opened(path):
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    raw.sendall(request_head(path, {}))
    return raw

def fetch(path, pause):
    raw, buffer = opened(path), bytearray(65536)
    while not over.is_set():
        head = raw.recv(65536)
        while b"\\r\\n\\r\\n" not in head:
            head += raw.recv(65536)
        head, _, body = head.partition(b"\\r\\n\\r\\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        left = int(head.lower().partition(b"content-length: ")[2].split()[0]) - len(body)
        while left > 0:
            left -= raw.recv_into(buffer)
        counts[path] = counts.get(path, 0) + 1
        over.wait(pause)
        raw.sendall(request_head(path, {}))

def watch(viewers):
    ready, buffer = selectors.DefaultSelector(), bytearray(65536)
    for _ in range(viewers):
        ready.register(opened("/dashboard/events"), selectors.EVENT_READ)
    while not over.is_set():
        for key, _ in ready.select(0.1):
            counts["bytes of events"] = counts.get("bytes of events", 0) + key.fileobj.recv_into(buffer)

threads = [threading.Thread(target=fetch, args=("/devices", 0)) for _ in range(4)]
threads += [threading.Thread(target=fetch, args=("/metrics", 0.1)), threading.Thread(target=watch, args=(32,))]
for thread in threads:
    thread.start()
print("besieged", flush=True)
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
print(counts, flush=True)
"""

SIEGE = """
import select, socket, sys, time
sys.path.insert(0, sys.argv[2])
from raw import PATIENCE, Raw, connect, register

port, readers, handshakes, hooks = int(sys.argv[1]), 500, 1000, 50      # There are 32 threads for hooks.
flooder = register(port, "flooder")
flooder.receive()
slow = []
for _ in range(readers):
    client = connect(port, "flooder")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.receive(), client.receive()
    slow.append(client)

def opening():
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    raw.sendall(b"GET /register_device HTTP/1.1\\r\\nHost: ")
    return raw

# Much for a client that reads nothing, though socket buffers hold most of it.
for _ in range(8):
    for client in range(1, readers + 1):
        flooder.send(message_type="forward", client_id=client, payload="x" * 30_000)
    time.sleep(1)                               # One peer may send 16 MiB a second.
half = [opening() for _ in range(handshakes)]
hanging = [connect(port, "flooder", "/connect_client?hang") for _ in range(hooks)]
print("besieged", flush=True)
turn = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    # Nearly a thousand forwards a second for readers that take 50 a second in all, and a hundred bytes a second of
    # request heads. A connection that was dropped opens again.
    turn += 1
    flooder.send(message_type="forward", client_id=1 + turn % readers, payload="x" * 1000)
    if turn % 20 == 0:
        slow[turn // 20 % readers].receive()
    if turn % 10 == 0:
        at = turn // 10 % handshakes
        try:
            half[at].sendall(b"x")
        except OSError:
            half[at].close()
            half[at] = opening()
"""


FLOOD = """
import select, sys
sys.path.insert(0, sys.argv[2])
from raw import connect, frame

flooder = connect(int(sys.argv[1]), "honest")
flooder.receive(), flooder.receive()
flooder.socket.setblocking(False)
flood = frame(b'{"message_type":"forward","payload":"flood"}') * 1000
print("besieged", flush=True)
unsent = flood
while True:
    readable, _, _ = select.select([sys.stdin], [flooder.socket], [])
    if readable:
        break
    unsent = unsent[flooder.socket.send(unsent):] or flood
"""

STUCK = """
import socket, sys
sys.path.insert(0, sys.argv[2])
from raw import connect

stuck = [connect(int(sys.argv[1]), "honest") for _ in range(20)]
for client in stuck:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.receive(), client.receive()
print("besieged", flush=True)
sys.stdin.read()
"""

SIEGES = {"peers": SIEGE, "readers": READERS, "flood": FLOOD, "stuck": STUCK}

CLIENTS = {"flood": 1, "stuck": 20}
"""How many clients of the honest device a siege has."""

MOST = {"flood": 10.0}
"""The greatest ratio that passes, where it is not 2: the device, in Python, reads the flood as well."""


def pinned(core: int) -> None:
    """Pins this process to a core, if there is more than one."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def start(code: str, *arguments: str, core: int) -> subprocess.Popen[str]:
    """Starts a Python process that communicates over pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pinned(core),
    )


def line(process: subprocess.Popen[str]) -> str:
    """Reads the next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def receive_honest(device: Raw) -> None:
    """Receives the next forward of the honest client. All messages before it are dropped."""
    while (message := device.receive())["message_type"] != "client_msg" or message["client_id"] != HONEST:
        pass


def percentile_99(device: Raw, client: Raw, seconds: float, others: Sequence[int] = ()) -> float:
    """Returns the 99th percentile of round trips through the server, in microseconds.

    The device forwards to one of the `others` in each round.
    """
    took = []
    until = time.monotonic() + seconds
    turns = itertools.cycle(others)
    while (began := time.monotonic()) < until:
        client.send(message_type="forward", payload=1)
        receive_honest(device)
        if others:
            device.send(message_type="forward", client_id=next(turns), payload="x" * 1000)
        device.send(message_type="forward", client_id=HONEST, payload=1)
        client.receive()
        took.append((time.monotonic() - began) * 1e6)
    return quantiles(took, n=100)[98]


def measured(siege: str, options: argparse.Namespace) -> float:
    """Measures one siege. Returns the ratio of the 99th percentiles."""
    tests = str(Path(__file__).parents[1] / "tests")
    server = start(SERVER, "lists" if siege == "readers" else "hooks", core=0)
    port = int(line(server))
    crowd = None
    if siege == "readers":
        crowd = start(CROWD, str(port), tests, str(options.devices), core=1)
        assert line(crowd) == "registered"
    device = register(port, "honest")
    device.receive()
    client = connect(port, "honest")
    client.receive(), client.receive()
    quiet, besieged, last = [], [], HONEST
    for _ in range(options.turns):
        quiet.append(percentile_99(device, client, options.seconds))
        attackers = start(SIEGES[siege], str(port), tests, core=1)
        assert line(attackers) == "besieged"
        first, last = last + 1, last + CLIENTS.get(siege, 0)
        others = range(first, last + 1) if siege == "stuck" else ()
        besieged.append(percentile_99(device, client, options.seconds, others))
        told, _ = attackers.communicate("enough\n", timeout=60)
        assert attackers.returncode == 0
        assert server.stdin is not None
        server.stdin.write("over\n")
        server.stdin.flush()
        stats = line(server)
    print(siege, stats, told.strip())
    for process in filter(None, (crowd, server)):
        process.communicate(timeout=60)
    middle = options.turns // 2
    ratio = sorted(besieged)[middle] / sorted(quiet)[middle]
    figures = {"quiet": [round(us) for us in quiet], "besieged": [round(us) for us in besieged]}
    print(json.dumps({"siege": siege, **figures, "ratio": round(ratio, 2)}), flush=True)
    return ratio


def main() -> int:
    """Returns the exit status: 1 if the ratio of a siege is above its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each turn, quiet and besieged (%(default)s)")
    parser.add_argument("--devices", type=int, default=6000, help="beside the readers (%(default)s)")
    parser.add_argument("--siege", choices=SIEGES, action="append", help="by default all")
    options = parser.parse_args()
    pinned(1)
    ratios = {siege: measured(siege, options) for siege in options.siege or SIEGES}
    return 1 if any(ratio > MOST.get(siege, 2.0) for siege, ratio in ratios.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
