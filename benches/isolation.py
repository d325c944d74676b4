"""Measures an honest pair under a siege: 500 clients that read slowly, 1,000 open handshakes, and hooks that hang.

    python benches/isolation.py

Quiet phases and sieges alternate in one run. The figure is the honest pair's 99th percentile under siege, divided by
its quiet value. The server has its own core if there are two; the pair and the siege share the other one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from raw import Raw, connect, register

SERVER = """
import json, sys, threading
from cuttlefish_signaling import Keepalive, SignalingServer

over = threading.Event()

def info(info, ctx):
    if ctx.client.query_string == "hang":
        over.wait()
    return info

# No connection is dropped for a missing pong: the siege has to last.
with SignalingServer(filter_device_info=info, keepalive=Keepalive(interval=None)) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        over.set()                              # Ends the hooks of this siege. Those of the next one hang again.
        over = threading.Event()
        stats = server.stats()
        print(json.dumps({**vars(stats), "balances": stats.balances, "hooks": len(server.hook_errors)}), flush=True)
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


def percentile_99(device: Raw, client: Raw, seconds: float) -> float:
    """Returns the 99th percentile of round trips through the server, in microseconds."""
    took = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        client.send(message_type="forward", payload=1)
        device.receive()
        device.send(message_type="forward", client_id=1, payload=1)
        client.receive()
        took.append((time.monotonic() - began) * 1e6)
    return quantiles(took, n=100)[98]


def main() -> int:
    """Returns the exit status: 1 if the siege more than doubles the 99th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each turn, quiet and besieged (%(default)s)")
    options = parser.parse_args()
    server = start(SERVER, core=0)
    port = int(line(server))
    pinned(1)
    device = register(port, "honest")
    device.receive()
    client = connect(port, "honest")
    client.receive(), client.receive()
    quiet, besieged = [], []
    for _ in range(options.turns):
        quiet.append(percentile_99(device, client, options.seconds))
        siege = start(SIEGE, str(port), str(Path(__file__).parents[1] / "tests"), core=1)
        assert line(siege) == "besieged"
        besieged.append(percentile_99(device, client, options.seconds))
        siege.communicate("enough\n", timeout=60)
        assert server.stdin is not None
        server.stdin.write("over\n")
        server.stdin.flush()
        stats = line(server)
    print(stats)
    server.communicate(timeout=60)
    middle = options.turns // 2
    ratio = sorted(besieged)[middle] / sorted(quiet)[middle]
    told = {"quiet": [round(us) for us in quiet], "besieged": [round(us) for us in besieged], "ratio": round(ratio, 2)}
    print(json.dumps(told))
    return 1 if ratio > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
