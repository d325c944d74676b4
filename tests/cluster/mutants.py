"""Shows that each defence of a cluster is proven: without it, schedules of the world go red, or the test that it names.

    python3 tests/cluster/mutants.py [--schedules 5000] [NAME ...]

All mutants are built once into a copy of the tree, each behind a switch, and the world runs with one after the other.
Prints for each the seed or the test that has found it. Exit status 1 if one was not found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mutants_of_cluster import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]

SWITCH = """
/// Returns whether this mutant is the one that runs.
pub fn mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("CLUSTER_MUTANT").unwrap_or_default()) == name
}
"""


ABOVE_CORE = re.compile(r"(pub mod (access|server);|pub use (access|hooks|server)::|#\[cfg\(feature|mod bindings;)")
"""Lines of src/lib.rs that the world needs nothing of: without them the copy is built in a fraction of the time."""

OTHER_TESTS = re.compile(
    r"^(#\[(cfg|path).*\]\n)*mod (farm|fuzzed|fuzzed_nodes|received|redis|replay);\n", re.MULTILINE
)
"""Modules of the tests that are not of the world."""


def copy(to: Path) -> None:
    """Copies the tree as it is, with each mutant behind its switch. Files that have not changed keep their time."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    changed = {mutant.file for mutant in MUTANTS} | {"src/lib.rs", "tests/cluster/main.rs"}
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, to / name
        if not source.is_file():
            continue
        if name in changed:
            text = patched(name, source.read_text(encoding="utf-8"))
        elif target.exists() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if name not in changed:
            shutil.copy2(source, target)
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def patched(name: str, text: str) -> str:
    """Puts the mutants of a file into its text."""
    crate = "cuttlefish_signaling" if name.startswith("tests/") else "crate"
    for mutant in (mutant for mutant in MUTANTS if mutant.file == name):
        if text.count(mutant.text) != 1:
            raise SystemExit(f"{mutant.name}: {name} has {text.count(mutant.text)} times: {mutant.text.strip()}")
        instead = mutant.instead.replace("{off}", f"{crate}::mutant({json.dumps(mutant.name)})")
        text = text.replace(mutant.text, instead.replace("{{", "{").replace("}}", "}"))
    if name == "src/lib.rs":
        return "".join(line for line in text.splitlines(keepends=True) if not ABOVE_CORE.match(line)) + SWITCH
    if name == "tests/cluster/main.rs":
        return OTHER_TESTS.sub("", text)
    return text


def build(tree: Path, opt_level: int) -> str:
    """Builds the world, and returns the program."""
    # The dependencies are those of the tree itself.
    environ = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    command = ["cargo", "test", "--locked", "--quiet", "--test", "cluster", "--no-run", "--message-format=json"]
    command += ["--config", f"profile.dev.package.cuttlefish-signaling.opt-level={opt_level}"]
    command += ["--config", "profile.dev.package.cuttlefish-signaling.debug=false"]
    built = subprocess.run(command, cwd=tree, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return next(message["executable"] for message in messages if message.get("executable"))


def found_by(program: str, tree: Path, mutant: Mutant, schedules: int) -> str | None:
    """Runs the world, or one test, with a mutant. Returns the seed or the test that has found it."""
    # Kept seeds were found by other faults.
    (tree / "tests/cluster/seeds.txt").write_text("", encoding="utf-8")
    environ = {**os.environ, "CLUSTER_MUTANT": mutant.name, "CLUSTER_SCHEDULES": str(schedules), "CLUSTER_SEED": "0"}
    run = subprocess.run(
        [program, mutant.test or "schedules::"],
        cwd=tree,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    failed = re.search(rf"test (\S*{mutant.test}\S*) \.\.\. FAILED" if mutant.test else r"(seed \d+) fails", run.stdout)
    if mutant.test and "running 0 tests" in run.stdout:
        raise SystemExit(f"{mutant.name}: there is no test {mutant.test}")
    if run.returncode == 0:
        return None
    if failed is None:
        raise SystemExit(f"{mutant.name}: {run.stdout[-2000:]}")
    return failed[1]


def main() -> None:
    """Builds, runs each mutant, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="run these only")
    parser.add_argument("--schedules", type=int, default=5_000)
    parser.add_argument("--opt-level", type=int, default=1, help="2 takes longer to build, and runs faster")
    options = parser.parse_args()
    tree = ROOT / "target" / "mutants"
    copy(tree)
    program = build(tree, options.opt_level)
    missed = []
    for mutant in (mutant for mutant in MUTANTS if mutant.name in (options.names or [mutant.name])):
        began = time.monotonic()
        schedules = max(options.schedules, mutant.schedules)
        found = found_by(program, tree, mutant, schedules)
        took = time.monotonic() - began
        result = found or (f"not {mutant.test}" if mutant.test else f"no schedule of {schedules:,}")
        print(f"{mutant.name:40} {result} ({took:.0f} s){'; ' + mutant.why if mutant.kept else ''}", flush=True)
        if found is None and not mutant.kept:
            missed.append(mutant.name)
    if missed:
        sys.exit(f"not found: {', '.join(missed)}")


if __name__ == "__main__":
    main()
