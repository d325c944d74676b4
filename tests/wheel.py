"""Audits a wheel, installs it into a fresh environment of every CPython there is, uses it there, and ends processes.

    python tests/wheel.py dist/cuttlefish_signaling-*.whl
    python tests/wheel.py --installed

Interpreters are found on the PATH and where pyenv keeps them. At least the one that runs this is tested. The versions
that were not found are named. Free-threaded builds (3.14t, 3.15t) install no abi3 wheel, so they are not looked for.
`--installed` uses the package that this interpreter has, where it is installed without its extras, and does no more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import exits

import wheel_audit

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")

USE = """
import asyncio, json, os, sys
import cuttlefish_signaling
from cuttlefish_signaling import SignalingServer, Tls
from raw import connect, register

assert "site-packages" in cuttlefish_signaling.__file__, cuttlefish_signaling.__file__
assert os.path.exists(os.path.join(os.path.dirname(cuttlefish_signaling.__file__), "py.typed"))

from importlib.metadata import entry_points, metadata
assert [point.value for point in entry_points(group="pytest11")] == ["cuttlefish_signaling.pytest_plugin"]
assert set(metadata("cuttlefish-signaling").get_all("Provides-Extra")) == {"testing", "aiortc", "probe"}
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

    try:
        import cuttlefish_signaling.conformance
    except ImportError as error:
        assert "pip install 'cuttlefish-signaling[testing]'" in str(error)
    else:
        raise AssertionError("there is no websockets here")
conformance = os.path.join(os.path.dirname(cuttlefish_signaling.__file__), "conformance")
assert len([name for name in os.listdir(os.path.join(conformance, "transcripts")) if name.endswith(".jsonl")]) >= 8
assert os.path.exists(os.path.join(conformance, "sentences.json"))

async def ice(ctx):
    await asyncio.sleep(0)
    return [{"urls": "stun:" + ctx.role}]

for tls in (None, Tls.self_signed()):
    with SignalingServer(tls=tls, ice_servers=ice, filter_device_info=lambda info, ctx: [info]) as server:
        context = server.tls and server.tls.client_context()
        device = register(server.port, "a", tls=context)
        assert device.receive()["ice_servers"] == [{"urls": ["stun:device"]}]
        client = connect(server.port, "a", tls=context)
        assert client.receive()["ice_servers"] == [{"urls": ["stun:client"]}]
        assert client.receive() == {"message_type": "device_info", "device_info": [1]}
        client.send(message_type="forward", payload=2)
        assert device.receive() == {"message_type": "client_msg", "client_id": 1, "payload": 2}
        device.send(message_type="forward", client_id=1, payload=3)
        assert client.receive() == {"message_type": "device_msg", "payload": 3}
        assert server.wait_for_client("a").client_id == 1

async def main():
    async with SignalingServer(ice_servers=ice) as server:
        try:
            await server.wait_for_device_async("nobody", timeout=0.01)
        except TimeoutError:
            return
asyncio.run(main())
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
in_a_sub = interpreters.create()
interpreters.run_string(in_a_sub, sys.argv[1])
interpreters.destroy(in_a_sub)
assert os.path.exists("refused")
SignalingServer().start()   # And out, without stop.
print(json.dumps([sys.version.split()[0], cuttlefish_signaling.__version__]))
"""

IN_A_SUBINTERPRETER = """
try:
    from cuttlefish_signaling import SignalingServer
except ImportError as error:
    if "cannot be used in a subinterpreter" in str(error):
        open("refused", "w").close()
"""


def interpreters() -> dict[str, str]:
    """Version to interpreter."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [*sorted(pyenv.glob(f"{version}[.-]*/bin/python3")), shutil.which(f"python{version}")]
        for candidate in filter(None, candidates):
            probe = "import sys; print('%d.%d' % sys.version_info[:2])"
            said = subprocess.run([str(candidate), "-c", probe], capture_output=True, text=True, check=False)
            if said.stdout.strip() == version:
                found[version] = str(candidate)
    found.setdefault("{}.{}".format(*sys.version_info[:2]), sys.executable)
    return found


def install(interpreter: str, wheel: str, folder: Path) -> str:
    """A fresh environment with the wheel and nothing else; returns its interpreter."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return python


def use(python: str, folder: Path) -> tuple[bool, object]:
    """Uses the installed package in the folder: whether that worked, and the output."""
    shutil.copy(Path(__file__).with_name("raw.py"), folder)
    used = subprocess.run(
        [python, "-c", USE, IN_A_SUBINTERPRETER], capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )
    said = subprocess.run(
        [python, "-m", "cuttlefish_signaling", "--version"], capture_output=True, text=True, check=False
    )
    fine = used.returncode == 0 and said.stdout.startswith("cuttlefish-signaling ")
    return fine, json.loads(used.stdout) if fine else used.stderr + said.stderr


def use_on(version: str, interpreter: str, wheel: str, times: int) -> bool:
    """Installs the wheel for one interpreter, uses it, ends processes; whether all went well."""
    with tempfile.TemporaryDirectory() as name:
        python = install(interpreter, wheel, Path(name))
        fine, told = use(python, Path(name))
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pytest"], check=True)
        fine &= exits.main(["--times", str(times), python]) == 0
        print(f"CPython {version}: {'passed' if fine else 'FAILED'} {told}", flush=True)
        return fine


def main() -> int:
    """Runs it all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exits", type=int, default=3, help="exits for each way there is (%(default)s)")
    parser.add_argument("--installed", action="store_true", help="use the package that this interpreter has")
    parser.add_argument("wheel", nargs="?")
    options = parser.parse_args()
    if options.installed:
        with tempfile.TemporaryDirectory() as folder:
            fine, told = use(sys.executable, Path(folder))
        print(told)
        return 0 if fine else 1
    if options.wheel is None:
        parser.error("name a wheel, or --installed")
    problems = wheel_audit.audit(Path(options.wheel), machine=platform.machine())
    for line in problems:
        print(f"FAILED {line}")
    tested = interpreters()
    results = [not problems]
    for version in sorted(tested, key=wheel_audit.numbers):
        results.append(use_on(version, tested[version], options.wheel, options.exits))
    missing = [version for version in VERSIONS if version not in tested]
    if missing:
        print(f"NOT TESTED: CPython {', '.join(missing)}: no such interpreter on the PATH or in pyenv")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
