"""Ends processes without stopping their server, in eight ways: none may hang, crash or lose its exit status.

    python tests/exits.py --times 100 /path/to/python ...

Each interpreter needs the package and pytest. `make test` runs it a few times on each CPython, `make soak` a hundred.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SERVE = '''
import sys, threading
from cuttlefish_signaling import SignalingServer
from raw import connect, register

async def ice(ctx):
    return []

def serve():
    """A server at work: hooks of both kinds have run, peers are connected, one hook hangs, and one thread waits."""
    hung = threading.Event()
    def info(info, ctx):
        if ctx.client.query:
            hung.set()
            threading.Event().wait()
        return info
    server = SignalingServer(ice_servers=ice, filter_device_info=info, journal=True).start()
    peers = [register(server.port, "a")]
    server.wait_for_device("a", timeout=20)
    for path in ("/connect_client", "/connect_client?hang=1"):
        peers.append(connect(server.port, "a", path))
    server.wait_for_client("a", timeout=20)
    assert hung.wait(20)
    threading.Thread(target=lambda: server.wait_for_device("never", timeout=None), daemon=True).start()
    return server, peers
'''

PYTEST = f"""{SERVE}
kept = []

def test_fails():
    kept.append(serve())
    assert not "on purpose"

def test_is_not_reached():
    raise SystemExit(9)
"""

IN_A_DAEMON = """
def run():
    kept.append(serve())
    ready.set()
    kept[0][0].serve_forever()

kept, ready = [], threading.Event()
threading.Thread(target=run, daemon=True).start()
assert ready.wait(20)
"""

WAIT = "server, peers = serve()\nprint('ready', flush=True)\nserver.wait_for_device('never', timeout=None)\n"

AT_ONCE = "server = SignalingServer().start()\npeer = register(server.port, 'a')\n"
"""The core has its first log record while Python ends: the event thread must not start too late."""

NODE = """
from cuttlefish_signaling import Cluster
server = SignalingServer(cluster=Cluster("redis://127.0.0.1:1", node="a")).start()
peer = register(server.port, "a")
sys.exit(3)
"""
"""A node of a cluster, which tries to reach its engine again and again."""

WAYS: dict[str, tuple[str, int, str]] = {
    # The code, the exit status, and a part of the output.
    "sys.exit": ("kept = serve()\nsys.exit(3)\n", 3, ""),
    "exception": ("kept = serve()\nraise KeyError('mine')\n", 1, "KeyError: 'mine'"),
    "SIGINT": (WAIT, -signal.SIGINT, "KeyboardInterrupt"),
    "SIGTERM": (WAIT, -signal.SIGTERM, ""),
    "daemon thread": (IN_A_DAEMON, 0, ""),
    "node": (NODE, 3, ""),
    "first event": (AT_ONCE, 0, ""),
    "pytest -x": (PYTEST, 1, "1 failed"),
}
CRASHES = ("Fatal Python error", "panicked", "Segmentation", "Exception ignored", "after interpreter shutdown")


def end(python: str, way: str, folder: str) -> str | None:
    """Starts a process and ends it this way; returns the failure."""
    code, status, said = WAYS[way]
    file = Path(folder) / f"test_{way.translate(str.maketrans(' .-', '___'))}.py"
    if way == "pytest -x":
        command = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(file)]
    else:
        command = [python, str(file)]
        code = SERVE + code
    if not file.exists():
        shutil.copy(Path(__file__).with_name("raw.py"), folder)
        file.write_text(code)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        # A shell makes background processes ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    output = ""
    if way.startswith("SIG"):
        output = process.stdout.readline()
        process.send_signal(-status)
    try:
        output += process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return "hung\n" + process.communicate()[0]
    if process.returncode != status or said not in output or any(crash in output for crash in CRASHES):
        return f"exit status {process.returncode}, expected {status}\n{output}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Runs it all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="exits for each way and interpreter (%(default)s)")
    parser.add_argument("pythons", nargs="*", default=[sys.executable])
    options = parser.parse_args(arguments)
    wrong = 0
    for python in options.pythons:
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as several:
                first = end(python, way, folder)
                rest = several.map(end, *zip(*[(python, way, folder)] * (options.times - 1), strict=True))
                failures = [failure for failure in (first, *rest) if failure is not None]
            print(f"{python}: {way}: {options.times - len(failures)} of {options.times} ended well", flush=True)
            for failure in failures[:3]:
                print(failure)
            wrong += len(failures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
