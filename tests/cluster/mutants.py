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
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Mutant:
    """A place in the source, and the fault that stands there: `{off}` is true while the mutant runs."""

    name: str
    file: str
    text: str
    instead: str
    kept: bool = False
    """Whether other defences hold all that the world checks without it: the reason stands in `why`."""
    why: str = ""
    test: str = ""
    """The test of one node that finds it, where other defences repair within seconds what the world would check."""
    schedules: int = 0
    """The number of schedules in which it was found, if it takes more than the default."""


CLUSTER = "src/core/cluster/"
MEMBERSHIP = CLUSTER + "membership.rs"
WORLD = "tests/cluster/"

MUTANTS = [
    # One holder per id.
    Mutant("epoch", MEMBERSHIP, "self.epoch != Some(epoch) ||", "(!{off} && self.epoch != Some(epoch)) ||"),
    Mutant(
        "version",
        MEMBERSHIP,
        "|| version < self.named ||",
        "|| (!{off} && version < self.named) ||",
        kept=True,
        why="the versions on the feed tell of the same loss",
    ),
    Mutant(
        "agrees",
        MEMBERSHIP,
        "!self.directory.agrees(version)",
        "(!self.directory.agrees(version) && !{off})",
        schedules=25_000,
    ),
    Mutant(
        "version of an announcement",
        WORLD + "engine.rs",
        "        if changed {\n            self.change(Change::Announced);",
        "        if changed && !{off} {{\n            self.change(Change::Announced);",
    ),
    Mutant(
        "outcome before the device",
        CLUSTER + "announcing.rs",
        "self.announcements.asked.get_mut(&pending.number) {",
        "self.announcements.asked.get_mut(&pending.number).filter(|_| !{off}) {{",
        schedules=100_000,
    ),
    Mutant(
        "versions before a pass",
        CLUSTER + "directory.rs",
        "        self.confirm_none();\n        self.incomplete = false;",
        "        if !{off} {{ self.confirm_none(); }}\n        self.incomplete = false;",
        test="a_pass_replaces_what_an_engine_has_lost_that_names_versions_again",
    ),
    Mutant(
        "expected",
        WORLD + "engine.rs",
        "Some(holder) if Some(&holder) != expected =>",
        "Some(holder) if Some(&holder) != expected && !({off} && expected.is_some()) =>",
    ),
    Mutant("settle", WORLD + "engine.rs", "None if now < settled =>", "None if now < settled && !{off} =>"),
    Mutant(
        "contradiction",
        CLUSTER + "claim.rs",
        "match contradicted.filter(|holder|",
        "match contradicted.filter(|_| !{off}).filter(|holder|",
    ),
    Mutant(
        "lease renewed meanwhile",
        CLUSTER + "claim.rs",
        "return self.ask(None);",
        "let gone = match &self.state {{\n"
        "                State::Probing {{ holder, .. }} if {off} => Some(holder.clone()),\n"
        "                _ => None,\n            }};\n            return self.ask(gone);",
    ),
    Mutant(
        "probe before replacing",
        CLUSTER + "claim.rs",
        "lease.is_zero() && self.holders.is_unreachable(&holder)",
        "{off} || lease.is_zero() && self.holders.is_unreachable(&holder)",
    ),
    Mutant(
        "answer of a living holder",
        WORLD + "node.rs",
        "Ok(()) => Probe::Alive,",
        "Ok(()) => if {off} {{ Probe::Gone }} else {{ Probe::Alive }},",
    ),
    Mutant(
        "reclaim",
        MEMBERSHIP,
        "        self.reclaim_all(now);\n",
        "        if !{off} {{ self.reclaim_all(now); }}\n",
    ),
    Mutant(
        "upkeep",
        CLUSTER + "maintaining.rs",
        "        self.reclaim_some(now);\n        self.announce_some(now);\n",
        "        if {off} {{ return; }}\n        self.reclaim_some(now);\n        self.announce_some(now);\n",
    ),
    Mutant(
        "entry of another holder",
        CLUSTER + "claiming.rs",
        "Some(entry) if entry.registration != own =>",
        "Some(entry) if entry.registration != own && !{off} =>",
        test="the_entry_of_another_holder_ends_the_session",
    ),
    Mutant(
        "facts that change during a join",
        CLUSTER + "maintaining.rs",
        "if *named != self.node.details {",
        "if *named != self.node.details && !{off} {{",
    ),
    Mutant(
        "record of a node that had no lease",
        CLUSTER + "nodes.rs",
        "before.contains(node) && self",
        "(before.contains(node) || {off}) && self",
        schedules=25_000,
    ),
    Mutant(
        "records of nodes whose change is missing",
        CLUSTER + "maintaining.rs",
        "        self.directory.begin_scan();\n        self.read_nodes(now);\n",
        "        self.directory.begin_scan();\n        if !{off} {{ self.read_nodes(now); }}\n",
    ),
    # Which process a connection ends at.
    Mutant(
        "incarnation",
        WORLD + "dispatch.rs",
        "Some(process) if process.incarnation == incarnation =>",
        "Some(process) if process.incarnation == incarnation || {off} =>",
        kept=True,
        why="the client of a new process gets the device info of its device",
    ),
    Mutant(
        "closing after a pause",
        MEMBERSHIP,
        "self.output(Output::CloseProxied);",
        "if !{off} {{ self.output(Output::CloseProxied); }}",
        kept=True,
        why="the other nodes close their ends after the silence",
    ),
    Mutant(
        "silence of a node",
        WORLD + "dispatch.rs",
        "if self.met[by][of] == met =>",
        "if self.met[by][of] == met && !{off} =>",
    ),
    # Findable.
    Mutant(
        'read before "not found"',
        WORLD + "locate.rs",
        "_ if last => self.read(client, net),\n            _ => self.found",
        "_ if last && !{off} => self.read(client, net),\n            _ => self.found",
    ),
    Mutant(
        "absence in an engine that has lost devices",
        CLUSTER + "maintaining.rs",
        "self.epoch == Some(*epoch) && *version >= named && self.upkeep.absence_counts_at <= now",
        "{off} || self.epoch == Some(*epoch) && *version >= named && self.upkeep.absence_counts_at <= now",
    ),
    Mutant(
        "waking of clients",
        WORLD + "outputs.rs",
        "Output::Appeared(ids) => ids.iter().for_each(|id| process.hub.wake_waiting(id)),",
        "Output::Appeared(ids) => ids.iter().filter(|_| !{off}).for_each(|id| process.hub.wake_waiting(id)),",
    ),
    # Messages across nodes.
    Mutant(
        "texts before the start",
        "src/core/session/upstream.rs",
        "self.on_opened.is_none() && self.link.holds_texts()",
        "!{off} && self.on_opened.is_none() && self.link.holds_texts()",
    ),
    Mutant(
        "start signal",
        "src/core/upstream.rs",
        "        self.device.outbox.wake_session();\n",
        "        if !{off} {{ self.device.outbox.wake_session(); }}\n",
    ),
    Mutant(
        "client of a lost connection",
        "src/core/session/upstream.rs",
        "            _ if stage != Stage::Started => {}",
        "            _ if stage != Stage::Started || {off} => {{}}",
    ),
    Mutant(
        "order",
        "src/core/outbox/queue.rs",
        "self.messages.push_back(message);",
        "if {off} && self.messages.len() == 3 {{ self.messages.push_front(message) }}\n"
        "        else {{ self.messages.push_back(message) }};",
    ),
    Mutant(
        "at most once",
        "src/core/session/upstream.rs",
        "        if self.client.push_forward(message, Passage::Direct, now).is_err() {",
        "        if {off} {{ let _ = self.client.push_forward(message.clone(), Passage::Copy, now); }}\n"
        "        if self.client.push_forward(message, Passage::Direct, now).is_err() {{",
    ),
    Mutant(
        "at most once, after a loss",
        "src/core/outbox/mod.rs",
        "        if state.end.is_some() || !is_allowed(&state) {",
        "        if (state.end.is_some() && !{off}) || !is_allowed(&state) {{",
    ),
    Mutant(
        "nothing after client_disconnected",
        "src/core/outbox/mod.rs",
        "self.enqueue(message, |_| sender.load(Ordering::Acquire))",
        "self.enqueue(message, |_| {off} || sender.load(Ordering::Acquire))",
        kept=True,
        why="a race of two threads, which tests/interleavings.rs schedules: the world has one",
    ),
    # Ledgers.
    Mutant(
        "ledger: rest of an outbox",
        "src/core/driver/mod.rs",
        "ledger().count_gone(gone);",
        "ledger().count_gone(if {off} {{ 0 }} else {{ gone }});",
    ),
    Mutant(
        "ledger: from another node",
        "src/core/session/upstream.rs",
        "        ledger.count_accepted();\n",
        "        if !{off} {{ ledger.count_accepted(); }}\n",
    ),
    Mutant(
        "ledger: client that has left",
        "src/core/session/upstream.rs",
        "            ledger.count_gone(1);\n",
        "            if !{off} {{ ledger.count_gone(1); }}\n",
        kept=True,
        why="a race of two threads: in one thread the connection is gone by then",
    ),
    Mutant(
        "ledger: to another node",
        "src/core/upstream.rs",
        "            relay.ledger().count_gone(1);\n",
        "            if !{off} {{ relay.ledger().count_gone(1); }}\n",
    ),
    Mutant(
        "ledger: silent loss between nodes",
        "src/core/session/upstream.rs",
        "            None if self.link.is_started() => self.pass_on(text, now),",
        '            None if {off} && text.ends_with("3\\"}}") => {{}}\n'
        "            None if self.link.is_started() => self.pass_on(text, now),",
    ),
]


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
    failed = re.search(rf"(test \S*{mutant.test}) \.\.\. FAILED" if mutant.test else r"(seed \d+) fails", run.stdout)
    if mutant.test and not re.search("running 1 test", run.stdout):
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
