"""Does the steps of deploy/Dockerfile in a root of Debian 13 made by debootstrap, and runs its command there.

    python tests/container.py

The base image is the root with the programs of the `python` image: `python` and `pip` of a virtual environment at
/usr/local. The command runs as the image's user, on a read-only root, in a network of its own. The health check has to
pass, and SIGTERM has to end the command with status 0. Needs root and debootstrap, and the wheel in dist/.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCKERFILE = HERE.parent / "deploy" / "Dockerfile"
BASE = HERE.parent / "target" / "container" / "base"
IMAGE = HERE.parent / "target" / "container" / "image"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STEPS = {"FROM", "LABEL", "RUN", "USER", "VOLUME", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}

RUN_IMAGE = """
set -eu
root=$1 user=$2 volume=$3 check=$4 command=$5 signal=$6
mount --bind "$root" "$root"
mount --bind "$root.volume" "$root$volume"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for node in null zero urandom; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mount -o remount,bind,ro "$root"
ip link set lo up
in_image() { chroot --userspec="$user:$user" "$root" /bin/sh -c "exec $1"; }
chroot --userspec="$user:$user" "$root" /bin/sh -c "exec $command" &
server=$!
passed=no
for _ in $(seq 60); do
    if in_image "$check"; then passed=yes; break; fi
    kill -0 "$server"
    sleep 1
done
in_image 'touch /written' 2>/dev/null && echo "the root is not read-only" && exit 1
kill "-$signal" "$server"
status=0
wait "$server" || status=$?
echo "health check passed: $passed; status after $signal: $status"
test "$passed" = yes && test "$status" = 0
"""


@dataclass
class Image:
    """The settings of an image that the Dockerfile has made so far."""

    user: str = "0"
    volume: str = ""
    check: str = ""
    signal: str = "SIGTERM"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/"})


def instructions(text: str) -> list[tuple[str, str]]:
    """Returns the instructions of a Dockerfile with their arguments, lines that are continued joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = [line.split(maxsplit=1) for line in re.sub(r"\\\n", " ", lines).splitlines() if line.strip()]
    for name, _ in found:
        if name not in STEPS:
            raise SystemExit(f"tests/container.py does not know the instruction {name}")
    return [(name, arguments) for name, arguments in found]


def make_base() -> None:
    """Makes the root that stands for the base image, once."""
    if (BASE / "usr/local/bin/pip").exists():
        return
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir(parents=True)
    packages = "--include=python3-venv,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "trixie", str(BASE)], check=True)
    make = "python3 -m venv /usr/local && rm -f /usr/local/pyvenv.cfg.bak"
    subprocess.run(["chroot", str(BASE), "/bin/sh", "-c", make], check=True)


def run(arguments: str, image: Image) -> None:
    """Runs a command of the build, with the mount of dist/."""
    mount = re.match(r"--mount=type=bind,source=(\S+),target=(\S+)\s+(.*)", arguments, re.DOTALL)
    mounted = None
    if mount:
        source, target, arguments = HERE.parent / mount[1], IMAGE / mount[2].lstrip("/"), mount[3]
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
        mounted = target
    try:
        done = ["chroot", str(IMAGE), "/bin/sh", "-ec", arguments]
        subprocess.run(done, check=True, env=image.environment)
    finally:
        if mounted:
            subprocess.run(["umount", str(mounted)], check=True)


def build() -> Image:
    """Does the steps of the Dockerfile. Returns the image that they make."""
    image = Image()
    for name, arguments in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        print(f"{name} {' '.join(arguments.split())[:100]}", flush=True)
        match name:
            case "FROM":
                shutil.rmtree(IMAGE, ignore_errors=True)
                subprocess.run(["cp", "-a", str(BASE), str(IMAGE)], check=True)
            case "RUN":
                run(arguments, image)
            case "USER":
                image.user = arguments
            case "VOLUME":
                image.volume = arguments
            case "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(arguments))
            case "STOPSIGNAL":
                image.signal = arguments
            case "HEALTHCHECK":
                image.check = shlex.join(json.loads(arguments.partition(" CMD ")[2]))
            case "ENTRYPOINT":
                image.entrypoint = json.loads(arguments)
            case "CMD":
                image.command = json.loads(arguments)
    return image


def start(image: Image) -> int:
    """Runs the command of the image as Docker would, with `--read-only` and a volume. Returns its status."""
    # Docker gives a new volume the owner and mode of the directory in the image.
    volume = IMAGE.with_name(f"{IMAGE.name}.volume")
    shutil.rmtree(volume, ignore_errors=True)
    subprocess.run(["cp", "-a", str(IMAGE / image.volume.lstrip("/")), str(volume)], check=True)
    command = shlex.join(image.entrypoint + image.command)
    given = [str(IMAGE), image.user, image.volume, image.check, command, image.signal.removeprefix("SIG")]
    unshared = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "/bin/sh",
        "-c",
        RUN_IMAGE,
        "sh",
        *given,
    ]
    # As `docker run --env`: the server listens on all addresses, so it asks for one of the two.
    environment = image.environment | {"CUTTLEFISH_SIGNALING_ALLOW_UNAUTHENTICATED": "true"}
    status = subprocess.run([*unshared, *given], env=environment, check=False).returncode
    kept = sorted(file.name for file in volume.rglob("*.pem"))
    print(f"kept in the volume: {', '.join(kept)}")
    return status or int("authority.pem" not in kept)


def main() -> int:
    """Builds and runs the image; returns the exit status."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("needs root and debootstrap", file=sys.stderr)
        return 2
    if not list((HERE.parent / "dist").glob("*.whl")):
        print("there is no wheel in dist/: `make wheel` builds it", file=sys.stderr)
        return 2
    make_base()
    return start(build())


if __name__ == "__main__":
    sys.exit(main())
