"""Installs a wheel, built once, into a fresh environment of every CPython there is, and uses it there.

    python tests/wheel.py dist/cuttlefish_signaling-*.whl

Interpreters are found on the PATH and where pyenv keeps them. At least the one that runs this is tested.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13")

USE = """
import asyncio, base64, json, os, socket, sys, urllib.request
import cuttlefish_signaling
from cuttlefish_signaling import SignalingServer, Tls

assert "site-packages" in cuttlefish_signaling.__file__, cuttlefish_signaling.__file__
assert os.path.exists(os.path.join(os.path.dirname(cuttlefish_signaling.__file__), "py.typed"))

from importlib.metadata import entry_points, metadata
assert [point.value for point in entry_points(group="pytest11")] == ["cuttlefish_signaling.pytest_plugin"]
assert set(metadata("cuttlefish-signaling").get_all("Provides-Extra")) == {"testing", "aiortc"}
with SignalingServer(journal=True) as server:       # The kit needs nothing but the wheel, fake peers apart.
    with server.faults.drop() as fault, server.clock.frozen() as clock:
        clock.advance(1)
    assert (fault.hits, server.journal.transcript()) == (0, "(nothing was said)")
    try:
        import cuttlefish_signaling.testing
    except ImportError as error:
        assert "pip install 'cuttlefish-signaling[testing]'" in str(error)
    else:
        raise AssertionError("there is no websockets here")

def dial(server, path):
    # By hand: there is nothing but the wheel here.
    raw = socket.create_connection(("127.0.0.1", server.port), 20)
    if server.tls:
        raw = server.tls.client_context().wrap_socket(raw, server_hostname="localhost")
    raw.sendall(("GET %s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
        "Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n" % path).encode())
    reader = raw.makefile("rb")
    assert b" 101 " in reader.readline()
    while reader.readline() != b"\\r\\n":
        pass
    def say(**message):
        text = json.dumps(message).encode()
        raw.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    def hear():
        first, length = reader.read(2)
        assert first == 0x81 and length < 126, (first, length)
        return json.loads(reader.read(length))
    return say, hear

async def ice(ctx):
    await asyncio.sleep(0)
    return [{"urls": "stun:" + ctx.role}]

for tls in (None, Tls.self_signed()):
    with SignalingServer(tls=tls, ice_servers=ice, filter_device_info=lambda info, ctx: [info]) as server:
        say_d, hear_d = dial(server, "/register_device")
        say_d(message_type="register", device_id="a", device_info=1)
        assert hear_d()["ice_servers"] == [{"urls": ["stun:device"]}]
        say_c, hear_c = dial(server, "/connect_client")
        say_c(message_type="connect", device_id="a")
        assert hear_c()["ice_servers"] == [{"urls": ["stun:client"]}]
        assert hear_c() == {"message_type": "device_info", "device_info": [1]}
        say_c(message_type="forward", payload=2)
        assert hear_d() == {"message_type": "client_msg", "client_id": 1, "payload": 2}
        say_d(message_type="forward", client_id=1, payload=3)
        assert hear_c() == {"message_type": "device_msg", "payload": 3}
        assert server.wait_for_client("a").client_id == 1

async def main():
    async with SignalingServer(ice_servers=ice) as server:
        try:
            await server.wait_for_device_async("nobody", timeout=0.01)
        except TimeoutError:
            return
asyncio.run(main())
SignalingServer().start()   # And out, without stop.
print(json.dumps([sys.version.split()[0], cuttlefish_signaling.__version__]))
"""


def interpreters() -> dict[str, str]:
    """Version to interpreter."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [*sorted(pyenv.glob(f"{version}.*/bin/python3")), shutil.which(f"python{version}")]
        for candidate in filter(None, candidates):
            probe = "import sys; print('%d.%d' % sys.version_info[:2])"
            said = subprocess.run([str(candidate), "-c", probe], capture_output=True, text=True, check=False)
            if said.stdout.strip() == version:
                found[version] = str(candidate)
    found.setdefault("{}.{}".format(*sys.version_info[:2]), sys.executable)
    return found


def main() -> int:
    """Runs it all; returns the exit status."""
    (wheel,) = sys.argv[1:]
    failed = 0
    tested = interpreters()
    for version, interpreter in sorted(tested.items()):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([interpreter, "-m", "venv", folder], check=True)
            python = str(Path(folder) / "bin" / "python")
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel],
                check=True,
                env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            )
            used = subprocess.run(
                [python, "-c", USE], capture_output=True, text=True, timeout=120, check=False, cwd=folder
            )
            said = subprocess.run(
                [python, "-m", "cuttlefish_signaling", "--version"], capture_output=True, text=True, check=False
            )
            fine = used.returncode == 0 and said.stdout.startswith("cuttlefish-signaling ")
            told = json.loads(used.stdout) if fine else used.stderr + said.stderr
            print(f"CPython {version}: {'passed' if fine else 'FAILED'} {told}")
            failed += not fine
    print(f"{len(tested) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
