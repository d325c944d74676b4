"""The build backend (PEP 517): maturin, after a check for Rust.

maturin's own backend downloads a Rust toolchain where there is none. This one ends the build at once and says so in one
line, and also where the `cargo` on the PATH is older than the `rust-version` in Cargo.toml.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import maturin  # type: ignore[import-untyped]

FIX = "Install Rust from https://rustup.rs, or install a wheel: pip install --only-binary :all: cuttlefish-signaling"


def required_rust() -> tuple[int, int]:
    """Reads the `rust-version` of Cargo.toml. By a regular expression, because CPython 3.10 has no `tomllib`."""
    manifest = (Path(__file__).parents[1] / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^rust-version = "(\d+)\.(\d+)', manifest, re.MULTILINE)
    if found is None:
        raise RuntimeError("Cargo.toml has no rust-version")
    return int(found[1]), int(found[2])


def problem() -> str | None:
    """Returns the reason why this machine cannot build the package, in one line, or `None` where it can."""
    needed = "cuttlefish-signaling is built with Rust {}.{} or later, and".format(*required_rust())
    cargo = shutil.which("cargo")
    if cargo is None:
        return f"{needed} there is no cargo on the PATH. {FIX}"
    said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"cargo (\d+)\.(\d+)", said.stdout)
    if version is None:
        told = " ".join((said.stdout + said.stderr).split())
        return f"{needed} `{cargo} --version` failed: {told}. {FIX}"
    if (int(version[1]), int(version[2])) < required_rust():
        return f"{needed} {cargo} is {version[1]}.{version[2]}. {FIX}"
    return None


def guarded(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a hook of maturin: it is called only where Rust is installed."""

    @functools.wraps(hook)
    def checked(*args: Any, **kwargs: Any) -> Any:
        told = problem()
        if told is not None:
            sys.exit(f"error: {told}")
        # maturin would warn that pip does not use it. pip does, by way of this module.
        os.environ["MATURIN_NO_MISSING_BUILD_BACKEND_WARNING"] = "1"
        return hook(*args, **kwargs)

    return checked


# Every hook is guarded, because frontends differ in the first one they call: with `--no-build-isolation` pip starts
# with `prepare_metadata_for_build_wheel`.
get_requires_for_build_wheel = guarded(maturin.get_requires_for_build_wheel)
get_requires_for_build_editable = guarded(maturin.get_requires_for_build_editable)
get_requires_for_build_sdist = guarded(maturin.get_requires_for_build_sdist)
prepare_metadata_for_build_wheel = guarded(maturin.prepare_metadata_for_build_wheel)
prepare_metadata_for_build_editable = guarded(maturin.prepare_metadata_for_build_editable)
build_wheel = guarded(maturin.build_wheel)
build_editable = guarded(maturin.build_editable)
build_sdist = guarded(maturin.build_sdist)
