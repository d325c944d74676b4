"""Audits a wheel: its tags, its size, its contents, and whether its symbols agree with its tags."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON_TAG = "cp310-abi3"
LIBC_TAGS = ("manylinux_2_17", "musllinux_1_2")
MAX_BYTES = 19 * 1024 * 1024 // 4
"""Nine tenths of it is the compiled core: one that outgrows this has a new dependency, or code that stands twice."""


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a module of this environment as a program."""
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)


def of_name(wheel: Path) -> tuple[str, str, list[str]]:
    """Splits the name of the file into version, Python and ABI tag, and platform tags."""
    _, version, python, abi, platforms = wheel.name.removesuffix(".whl").split("-")
    return version, f"{python}-{abi}", platforms.split(".")


def sized(wheel: Path) -> list[str]:
    """Compares the size with the limit."""
    size = wheel.stat().st_size
    return [f"{wheel.name} has {size:,} bytes: at most {MAX_BYTES:,} are allowed"] if size > MAX_BYTES else []


def tagged(wheel: Path, machine: str | None) -> list[str]:
    """Compares the tags of the name with the expected ones."""
    problems = []
    _, python, platforms = of_name(wheel)
    if python != PYTHON_TAG:
        problems.append(f"{wheel.name} is tagged {python}: expected {PYTHON_TAG}")
    wanted = [f"{tag}_{machine or ''}" for tag in LIBC_TAGS]
    if not any(tag.startswith(tuple(wanted)) for tag in platforms):
        problems.append(f"{wheel.name} is tagged {'.'.join(platforms)}: expected {' or '.join(wanted)}")
    return problems


def audit(wheel: Path, machine: str | None = None) -> list[str]:
    """Returns the problems of the wheel, one line each. Without `machine`, a wheel for any machine passes."""
    problems = [*sized(wheel), *tagged(wheel, machine), *shown(wheel, of_name(wheel)[2])]
    for name, arguments in (
        ("abi3audit --strict", ["abi3audit", "--strict", "--summary", str(wheel)]),
        ("check-wheel-contents", ["check_wheel_contents", "--no-config", str(wheel)]),
    ):
        done = tool(*arguments)
        if done.returncode != 0:
            problems.append(f"{name} refuses {wheel.name}: {done.stdout}{done.stderr}".strip())
    return problems


def shown(wheel: Path, platforms: list[str]) -> list[str]:
    """Compares the symbols, as `auditwheel show` reads them, with the tags of the name."""
    # No library of this machine belongs to the wheel. For the `libc.so` of a wheel for musl, auditwheel would find the
    # linker script of glibc here, and fail.
    with tempfile.TemporaryDirectory() as nothing:
        done = tool("auditwheel", "show", "--json", "--ldpaths", nothing, str(wheel))
    if done.returncode != 0:
        return [f"auditwheel show fails for {wheel.name}: {done.stdout}{done.stderr}".strip()]
    report = json.loads(done.stdout)
    # auditwheel knows musl by the name that Alpine gives it; to the loader of musl, `libc.so` is itself too.
    tag = report["sym_tag" if set(report["external_libs"]) == {"libc.so"} else "overall_tag"]
    versions = sorted({name for names in report["versioned_symbols"].values() for name in names}, key=numbers)
    print(f"{wheel.name}: {tag}, highest symbol {versions[-1] if versions else 'none'}", flush=True)
    if any(covers(promised, tag) for promised in platforms):
        return []
    needs = ", ".join([*versions[-3:], *report["external_libs"]])
    return [
        f"auditwheel show: {wheel.name} needs {needs}, so it is {tag}. Build it with `make wheel`, which links by zig"
    ]


def covers(promised: str, tag: str) -> bool:
    """Whether a machine with the promised tag can load a wheel with the other tag."""
    form = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)")
    given, needed = form.fullmatch(promised), form.fullmatch(tag)
    if given is None or needed is None:
        return False
    same = (given[1], given[2], given[4]) == (needed[1], needed[2], needed[4])
    return same and int(needed[3]) <= int(given[3])


def numbers(symbol: str) -> list[int]:
    """Turns `GLIBC_2.17` into `[2, 17]`, which sorts by version."""
    return [int(part) for part in symbol.rpartition("_")[2].split(".") if part.isdigit()]
