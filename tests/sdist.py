"""Builds from a source distribution: its contents, locked, offline, and on a machine that cannot build it.

    python tests/sdist.py dist/cuttlefish_signaling-*.tar.gz

Builds are debug builds into the target directory of this tree, which has the dependencies already.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The build needs the first group; the second is for those that package or change it.
NEEDED = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE", "scripts/rust_backend.py", "src/lib.rs")
NEEDED += ("python/cuttlefish_signaling/py.typed", "web/server_connector.js")
NEEDED += ("CHANGELOG.md", "SECURITY.md", "Makefile", "tests/python/conftest.py", "deploy/cuttlefish-operator.service")
UNWANTED = (".git", ".venv", "target", "dist")

RUST = {
    **os.environ,
    "CARGO_TARGET_DIR": str(ROOT / "target"),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


def run(*command: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command; its output is both streams together."""
    return subprocess.run(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def pip_wheel(source: Path, env: dict[str, str], out: Path) -> subprocess.CompletedProcess[str]:
    """`pip wheel` without an index: nothing but what is installed already can be used."""
    return run(
        *(sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", str(out), str(source)),
        env=env,
        cwd=out,
    )


def has_its_files(sdist: Path, tree: Path, out: Path) -> None:
    missing = [name for name in NEEDED if not (tree / name).exists()]
    assert not missing, f"{sdist.name} lacks {missing}"
    unwanted = [name for name in UNWANTED if (tree / name).exists()]
    assert not unwanted, f"{sdist.name} contains {unwanted}"


def builds_offline_after_fetch(sdist: Path, tree: Path, out: Path) -> None:
    for command in (["fetch", "--locked"], ["build", "--locked", "--offline"]):
        done = run("cargo", *command, env=RUST, cwd=tree)
        assert done.returncode == 0, f"cargo {' '.join(command)} fails:\n{done.stdout}"


def pip_builds_a_wheel_offline(sdist: Path, tree: Path, out: Path) -> None:
    done = pip_wheel(sdist, {**RUST, "CARGO_NET_OFFLINE": "true", "MATURIN_PEP517_ARGS": "--profile dev"}, out)
    assert done.returncode == 0, done.stdout
    built = [file.name for file in out.glob("*.whl")]
    assert len(built) == 1, built
    assert "-cp310-abi3-linux_" in built[0], built


def pip_builds_locked(sdist: Path, tree: Path, out: Path) -> None:
    manifest = tree / "Cargo.toml"
    text = manifest.read_text(encoding="utf-8")
    # A crate that others need, so that it is there offline.
    needed = re.findall(r'^name = "(.*)"$', (tree / "Cargo.lock").read_text(encoding="utf-8"), re.MULTILINE)
    further = next(name for name in needed if f"\n{name} = " not in text)
    manifest.write_text(text.replace("[dependencies]\n", f'[dependencies]\n{further} = "*"\n', 1), encoding="utf-8")
    try:
        done = pip_wheel(tree, {**RUST, "CARGO_NET_OFFLINE": "true", "MATURIN_PEP517_ARGS": "--profile dev"}, out)
    finally:
        manifest.write_text(text, encoding="utf-8")
    assert done.returncode != 0, "built with a dependency that Cargo.lock does not have"
    assert "--locked" in done.stdout, done.stdout


def ends_in_one_line(sdist: Path, out: Path, cargo: str | None, expected: str) -> None:
    """With such a `cargo` on the PATH, or none, pip shows one line of ours, and the build has fetched nothing."""
    path = out / "bin"
    path.mkdir()
    if cargo is not None:
        script = path / "cargo"
        script.write_text(f"#!/bin/sh\n{cargo}\n", encoding="utf-8")
        script.chmod(0o755)
    done = pip_wheel(sdist, {"PATH": str(path), "HOME": str(out)}, out)
    assert done.returncode != 0, done.stdout
    told = [line for line in done.stdout.splitlines() if expected in line]
    assert len(told) == 1, f"{expected!r} is not said once:\n{done.stdout}"
    assert "rustup.rs" in told[0], told[0]
    assert "--only-binary" in told[0], told[0]
    assert "Traceback" not in done.stdout, done.stdout
    left = [file.name for file in out.rglob("*") if file.is_file() and file.name not in ("cargo", "pip.log")]
    assert not left, f"files were left behind: {left}"


def without_cargo(sdist: Path, tree: Path, out: Path) -> None:
    ends_in_one_line(sdist, out, None, "there is no cargo on the PATH")


def with_an_old_cargo(sdist: Path, tree: Path, out: Path) -> None:
    ends_in_one_line(sdist, out, "echo 'cargo 1.63.0 (fd9c4297c 2022-07-01)'", "is 1.63")


def with_a_cargo_without_toolchain(sdist: Path, tree: Path, out: Path) -> None:
    said = "echo 'error: rustup could not choose a version of cargo to run' >&2; exit 1"
    ends_in_one_line(sdist, out, said, "rustup could not choose a version of cargo to run")


def no_hook_needs_more_than_cargo(sdist: Path, tree: Path, out: Path) -> None:
    """The backend of maturin asks for `puccinialin`, which downloads a toolchain. Not where there is cargo."""
    script = "import rust_backend as b; print(b.get_requires_for_build_wheel(), b.get_requires_for_build_sdist())"
    done = run(sys.executable, "-c", script, env={**RUST, "PYTHONPATH": str(tree / "scripts")}, cwd=tree)
    assert done.stdout.strip() == "[] []", done.stdout


CHECKS: tuple[Callable[[Path, Path, Path], None], ...] = (
    has_its_files,
    without_cargo,
    with_an_old_cargo,
    with_a_cargo_without_toolchain,
    no_hook_needs_more_than_cargo,
    builds_offline_after_fetch,
    pip_builds_a_wheel_offline,
    pip_builds_locked,
)


def main() -> int:
    """Runs all checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sdist", type=Path)
    sdist = parser.parse_args().sdist.resolve()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(folder)
        tree = Path(folder) / sdist.name.removesuffix(".tar.gz")
        for check in CHECKS:
            with tempfile.TemporaryDirectory() as out:
                try:
                    check(sdist, tree, Path(out))
                except AssertionError as error:
                    failed += 1
                    print(f"{check.__name__}: FAILED: {error}", flush=True)
                else:
                    print(f"{check.__name__}: passed", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
