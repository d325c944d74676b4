"""Counts the instructions of a relayed message, an arrival, a session and its hooks with callgrind.

The load of the machine does not matter.

python benches/instructions.py            fails if a figure is more than 5 % above the committed one
python benches/instructions.py --update   writes the figures to the committed file

Needs valgrind. The figures depend on the compiler; a note says so if it is another one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMITTED = Path(__file__).with_name("instructions.json")
SCENARIOS = {"core": 2, "edge": 2, "tls": 2, "arrival": 1, "session": 1, "hooks": 1}
"""Each scenario, and the number of events in one round: a round trip has two messages."""
BEYOND = {"hooks": "session"}
"""Scenarios whose figure is the difference to another one, which has to come before it."""
TOLERANCE = 1.05
FEW, MANY = 500, 2500
"""Two numbers of rounds. The difference of their counts does not contain start and stop."""


def program() -> str:
    """Builds the benchmark, and returns its path."""
    command = ["cargo", "bench", "--locked", "--bench", "instructions", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "instructions" and message.get("executable"):
            return str(message["executable"])
    raise SystemExit("cargo built no benchmark")


def instructions(executable: str, scenario: str, rounds: int) -> int:
    """Returns the number of instructions of a whole run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", executable, scenario, str(rounds)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if found is None:
        raise SystemExit(f"callgrind told no count:\n{run.stderr}")
    return int(found[1])


def main() -> int:
    """Counts, then compares the figures or writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures down")
    options = parser.parse_args()
    executable = program()
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    counted = {}
    for scenario, of_round in SCENARIOS.items():
        took = instructions(executable, scenario, MANY) - instructions(executable, scenario, FEW)
        counted[scenario] = round(took / (MANY - FEW) / of_round)
    counted |= {scenario: counted[scenario] - counted[of] for scenario, of in BEYOND.items()}
    if options.update:
        COMMITTED.write_text(json.dumps({"compiler": compiler, "instructions": counted}, indent=2) + "\n")
    committed = json.loads(COMMITTED.read_text())
    if committed["compiler"] != compiler:
        print(f"counted with {compiler}, the committed figures with {committed['compiler']}")
    worse = False
    for scenario, count in counted.items():
        before = committed["instructions"][scenario]
        worse |= count > before * TOLERANCE
        print(f"{scenario}: {count} instructions, committed {before} ({count / before:.3f}x)")
    if worse:
        print(f"more than {TOLERANCE:.2f} x the committed figures: make it cheaper, or --update and say why")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
