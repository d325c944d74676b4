"""Runs the tests of a cluster's engine with those of other releases of Debian: Redis 6.0, Redis 8.0 and Valkey 8.1.

    python tests/engines.py [NAME ...]

debootstrap makes a root of the release in a folder of target. Its programs run with the loader and the libraries of
that root, and share files and ports with the tests. Needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from root import bootstrap

HERE = Path(__file__).parent
ROOTS = HERE.parent / "target" / "engines"
PROGRAMS = ("server", "sentinel")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"

RUST = [
    *("cargo", "test", "--locked", "--test", "cluster"),
    *("--config", "profile.dev.package.cuttlefish-signaling.opt-level=2", "redis::"),
]
PYTHON = [sys.executable, "-m", "pytest", "-q", "tests/python/test_signaling_cluster.py"]


class Engine(NamedTuple):
    """An engine of a release of Debian."""

    suite: str
    family: str


ENGINES = {
    "redis-6.0": Engine("bullseye", "redis"),
    "redis-8.0": Engine("trixie", "redis"),
    "valkey-8.1": Engine("trixie", "valkey"),
}


def make_root(suite: str) -> Path:
    """Makes the root of a release, with its engines. One that is complete stays as it is."""
    root = ROOTS / suite
    families = {engine.family for engine in ENGINES.values() if engine.suite == suite}
    packages = [f"{family}-{program}" for family in sorted(families) for program in PROGRAMS]
    if all((root / "usr" / "bin" / package).exists() for package in packages):
        return root
    bootstrap(root, suite, ",".join(packages))
    return root


def write_programs(directory: Path, engine: Engine) -> None:
    """Writes `redis-server` and `redis-sentinel`, which start the programs of the engine."""
    root = make_root(engine.suite)
    for program in PROGRAMS:
        file = directory / f"redis-{program}"
        loader = f"{root / LIBRARIES / LOADER} --library-path {root / LIBRARIES}"
        file.write_text(f'#!/bin/sh\nexec {loader} {root}/usr/bin/{engine.family}-{program} "$@"\n', encoding="utf-8")
        file.chmod(0o755)


def passes(name: str) -> bool:
    """Runs the tests with one engine."""
    with tempfile.TemporaryDirectory() as directory:
        write_programs(Path(directory), ENGINES[name])
        environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
        version = subprocess.run(["redis-server", "--version"], env=environment, check=True, stdout=subprocess.PIPE)
        print(f"{name}: {version.stdout.decode().strip()}", flush=True)
        # Both run also if the first fails.
        done = [subprocess.run(command, env=environment, cwd=HERE.parent, check=False) for command in (RUST, PYTHON)]
        return all(one.returncode == 0 for one in done)


def main() -> int:
    """Returns the exit status: 1 if a test has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ENGINES)}; all by default")
    names = parser.parse_args().names or list(ENGINES)
    if unknown := set(names) - set(ENGINES):
        parser.error(f"no engine has the name {', '.join(sorted(unknown))}: write one of {', '.join(ENGINES)}")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("tests/engines.py needs root, and debootstrap: apt-get install debootstrap")
    failed = [name for name in names if not passes(name)]
    print(f"failed with {', '.join(failed)}" if failed else f"passed with {', '.join(names)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
