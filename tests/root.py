"""Uses a wheel in a root of another Debian or Ubuntu: an older glibc, or a newer CPython, than the machine itself has.

    python tests/root.py --suite bullseye dist/*.whl

debootstrap makes the root in a folder of target. The wheel needs CPython 3.10: where the release has an older one, a
newer one is built in the root from the sources of the next release of the distribution, which takes some minutes, once.
Needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import wheel

HERE = Path(__file__).parent
ROOTS = HERE.parent / "target" / "root"
BUILT = "/opt/python/bin/python3"
PYTEST = ("pytest", "iniconfig", "packaging", "pluggy", "pygments", "exceptiongroup", "tomli", "typing_extensions")


class Suite(NamedTuple):
    """The packages of a root, its interpreters, and where CPython is built: the release and the name of its source."""

    packages: str
    interpreters: tuple[str, ...] = (BUILT,)
    source: tuple[str, str] | None = None
    # Packages that the updates of the release have in a version that is new enough.
    updates: str | None = None


TO_BUILD = "build-essential,ca-certificates,libffi-dev,libssl-dev,xz-utils,zlib1g-dev"
SUITES = {
    "bullseye": Suite(TO_BUILD, source=("bookworm", "python3.11")),  # glibc 2.31
    "focal": Suite(TO_BUILD, source=("jammy", "python3.10")),  # glibc 2.31
    "bionic": Suite(TO_BUILD, source=("jammy", "python3.10"), updates="libssl-dev ubuntu-keyring"),  # glibc 2.27
    "sid": Suite("python3.14-venv,python3.15-venv", ("/usr/bin/python3.14", "/usr/bin/python3.15")),
}

BUILD = """
set -eu
apt-get -qq update
rm -rf /opt/source
mkdir -p /opt/source
cd /opt/source
apt-get -qq source --download-only {package}
tar xf *.orig.tar.* --strip-components 1
./configure --quiet --prefix=/opt/python --disable-test-modules
make -s -j "$(nproc)" >/dev/null
make -s install >/dev/null
cd /
rm -rf /opt/source
"""


def inside(root: Path, *command: str) -> str:
    """Runs a command in the root, with a plain environment; returns its output, and ends the run where it fails."""
    done = subprocess.run(
        ["chroot", str(root), *command],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)[:200]} failed in {root}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def bootstrap(root: Path, name: str, packages: str, mirror: str | None = None) -> None:
    """Makes a root of a release with these packages, in the place of one that is there. Ends the run where it fails."""
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    print(f"making a root of {name} in {root}", flush=True)
    # debootstrap mounts /proc in the root, and leaves it mounted where it is killed. Mounts of a namespace of its
    # own end with it, so removing the root removes files of the root only.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", name, str(root)]
    command += [mirror] if mirror else []
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        shutil.rmtree(root, ignore_errors=True)
        sys.exit(f"{' '.join(command)} failed:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")


def make(root: Path, name: str, mirror: str | None) -> None:
    """Makes the root of the suite, with its interpreters. A root that is complete stays as it is."""
    suite = SUITES[name]
    if not (root / "etc" / "apt" / "sources.list").exists():
        bootstrap(root, name, suite.packages, mirror)
    if suite.source is not None and not (root / BUILT.lstrip("/")).exists():
        release, package = suite.source
        listed = (root / "etc" / "apt" / "sources.list").read_text(encoding="utf-8").split()
        address = next(word for word in listed if "://" in word)
        if suite.updates is not None:
            updates = root / "etc" / "apt" / "sources.list.d" / "updates.list"
            updates.write_text(f"deb {address} {name}-updates main\n", encoding="utf-8")
            inside(root, "sh", "-c", f"apt-get -qq update && apt-get -qq install {suite.updates}")
        line = f"deb-src {address} {release} main\n"
        (root / "etc" / "apt" / "sources.list.d" / "python.list").write_text(line, encoding="utf-8")
        print(f"building {package} of {release} in it", flush=True)
        inside(root, "sh", "-c", BUILD.format(package=package))


def prepare(root: Path, built: Path) -> None:
    """Copies the wheel, the scripts that use it, and pytest into a folder of the root."""
    work = root / "opt" / "trial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for file in (built, HERE / "raw.py", HERE / "exits.py"):
        shutil.copy(file, work)
    (work / "use.py").write_text(wheel.USE, encoding="utf-8")
    (work / "sub.py").write_text(wheel.IN_A_SUBINTERPRETER, encoding="utf-8")
    # Wheels for any platform, by name: the dependencies of another version of CPython are not those of this one.
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(work / "pip"), "--no-deps"]
    subprocess.run([*download, "--only-binary", ":all:", "--platform", "any", *PYTEST], check=True)


def use(root: Path, interpreter: str, built: Path) -> str:
    """Installs the wheel for one interpreter of the root, uses it, ends processes; returns the output."""
    python = "/opt/trial/venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index"]
    inside(root, interpreter, "-m", "venv", "--clear", "/opt/trial/venv")
    inside(root, *install, "--no-deps", f"/opt/trial/{built.name}")
    used = inside(root, "sh", "-c", f'cd /opt/trial && rm -f refused && {python} use.py "$(cat sub.py)"').strip()
    inside(root, *install, "--find-links", "/opt/trial/pip", "pytest")
    inside(root, python, "/opt/trial/exits.py", "--times", "1", python)
    return used


def main() -> int:
    """Makes the root and uses the wheel in it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="bullseye", help="the release of the root (%(default)s)")
    parser.add_argument(
        "--mirror", help="where debootstrap fetches from: Debian has no keyring of Ubuntu, hence no default"
    )
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("tests/root.py needs root, and debootstrap: apt-get install debootstrap")
    root = ROOTS / options.suite
    make(root, options.suite, options.mirror)
    prepare(root, options.wheel)
    libc = inside(root, "ldd", "--version").splitlines()[0]
    for interpreter in SUITES[options.suite].interpreters:
        print(f"{options.suite}, {libc}: passed {use(root, interpreter, options.wheel)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
