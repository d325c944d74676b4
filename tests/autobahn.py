"""Runs the Autobahn|Testsuite against the upgrade code, plain and over TLS: `make autobahn`.

    python3 tests/autobahn.py target/release/examples/echo

301 core cases each: none may fail, and only the two that tungstenite is known for may be NON-STRICT. The suite is for
CPython 2.7 (PYTHON2 names one; otherwise pyenv's).
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("target/autobahn").absolute()
SUITE = "autobahntestsuite==25.10.1"
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
CORE_CASES = 301
GOOD = ("OK", "INFORMATIONAL")
KNOWN = {"6.4.3": "NON-STRICT", "6.4.4": "NON-STRICT"}


def python2() -> str:
    """A CPython 2.7."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [os.environ.get("PYTHON2"), *map(str, versions.glob("2.7.*/bin/python")), shutil.which("python2.7")]
    for candidate in filter(None, candidates):
        return candidate
    sys.exit("the suite needs CPython 2.7: PYTHON2=/path/to/python2.7")


def wstest() -> Path:
    """The suite's program, in an environment of its own."""
    program = FOLDER / "venv" / "bin" / "wstest"
    if not program.exists():
        quiet = {"stdout": subprocess.DEVNULL}
        tools = FOLDER / "tools"
        interpreter, environment = python2(), {**os.environ, "PYTHONPATH": str(tools)}
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([interpreter, *install, "--target", str(tools), "virtualenv<20.22"], check=True, **quiet)
        subprocess.run([interpreter, "-m", "virtualenv", str(FOLDER / "venv")], check=True, env=environment, **quiet)
        subprocess.run([str(FOLDER / "venv" / "bin" / "pip"), "install", "--quiet", SUITE], check=True, **quiet)
    return program


def run(program: Path, echo: str, tls: bool) -> list[str]:
    """Runs the suite once; returns the failures."""
    name = "tls" if tls else "plain"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reports = FOLDER / name
    shutil.rmtree(reports, ignore_errors=True)
    specification = {
        "outdir": str(reports),
        "servers": [{"agent": name, "url": f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/echo"}],
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(specification))
    server = subprocess.Popen([echo, str(port), *(["--tls"] if tls else [])])
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            if server.poll() is not None:
                sys.exit(f"{echo} has ended with exit status {server.returncode}: see its error above")
            time.sleep(0.01)
        subprocess.run(
            [str(program), "-m", "fuzzingclient", "-s", str(file)], check=True, cwd=FOLDER, stdout=subprocess.DEVNULL
        )
    finally:
        server.terminate()
        server.wait()
    results = json.loads((reports / "index.json").read_text())[name]
    wrong = []
    for case, result in sorted(results.items()):
        for kind in ("behavior", "behaviorClose"):
            if result[kind] not in GOOD and KNOWN.get(case) != result[kind]:
                wrong.append(f"{name} {case}: {kind} {result[kind]}")
    if len(results) != CORE_CASES:
        wrong.append(f"{name}: {len(results)} cases, not {CORE_CASES}")
    print(f"{name}: {len(results)} cases, {dict(collections.Counter(r['behavior'] for r in results.values()))}")
    return wrong


def main() -> int:
    """Runs both; returns the exit status."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    program = wstest()
    wrong = [line for tls in (False, True) for line in run(program, sys.argv[1], tls)]
    print("\n".join(wrong) or "none failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
