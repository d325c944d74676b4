"""The cost of hooks for a session, beside a server without hooks and a relay by hand: a part of `compare.py`.

The load holds whole sessions. Each of them calls three hooks for its client: `authorize`, `ice_servers` and
`filter_device_info`. The servers take turns; each has the first core, and the load the second.

python benches/hooks.py [--rounds 5] [--seconds 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import goals
from goals import Figures, Goal, Row

HERE = Path(__file__).parent
NONE, DEF, ASYNC = "no hooks", "`def` hooks", "`async def` hooks"
ON_LOOP = "`async def` hooks on the loop of the program"
BY_HAND = "aiohttp, which has its filter inline"
HOOKS_OF_SESSION = 3
SESSION, HOOK = "cpu_us_per_session", "cpu_us_per_hook"
GOALS = (
    (DEF, NONE, Goal(SESSION, 1.6, "2.6")),
    (ASYNC, NONE, Goal(SESSION, 2.5, "5.3")),
    (ON_LOOP, NONE, Goal(SESSION, 2.5, "not measured")),
    (DEF, NONE, Goal(HOOK, 30, "85", of_figure=True)),
    (ASYNC, NONE, Goal(HOOK, 70, "220", of_figure=True)),
    (DEF, BY_HAND, Goal(SESSION, 0.2, "0.35")),
    (ASYNC, BY_HAND, Goal(SESSION, 0.3, "0.70")),
    (NONE, BY_HAND, Goal(SESSION, 0.2, "not measured")),
)
"""The servers, their references, and the goals. That for a server without hooks is the least that hooks can reach."""


def servers() -> dict[str, list[str]]:
    """The commands of the servers, to which a port is appended."""
    own = [sys.executable, str(HERE / "hooks_server.py")]
    return {
        NONE: [*own, "--port"],
        DEF: [*own, "--hooks", "def", "--port"],
        ASYNC: [*own, "--hooks", "async", "--port"],
        ON_LOOP: [*own, "--hooks", "async", "--on-loop", "--port"],
        BY_HAND: [sys.executable, str(HERE / "peers" / "aiohttp_relay.py")],
    }


def rows(runs: dict[str, list[Figures]]) -> list[Row]:
    """Returns a row for each goal, from the figures of the servers in each round."""
    for own in runs.values():
        for run, none in zip(own, runs[NONE], strict=True):
            # Not 0 for the server without hooks: the figure is the reference of a ratio.
            run[HOOK] = (run[SESSION] - none[SESSION]) / HOOKS_OF_SESSION or 1.0
    return [
        goals.row(f"a session, {server}", reference, goal, runs[server], runs[reference])
        for server, reference, goal in GOALS
    ]


def goal_rows(load: list[str], rounds: int, seconds: float) -> list[Row]:
    """Runs the sessions with each server, by turns, and prints the rows."""
    from compare import measure

    runs: dict[str, list[Figures]] = {name: [] for name in servers()}
    for number in range(rounds):
        for name, command in sorted(servers().items(), reverse=bool(number % 2)):
            runs[name].append(measure(load, command, ("sessions",), seconds))
    found = rows(runs)
    for row in found:
        print(goals.line(row), flush=True)
    return found


def main() -> None:
    """Measures, prints the rows, and writes them to a file."""
    from compare import LOAD_CORE, build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="for which each run is measured")
    parser.add_argument("--load", help="the program of the load; by default it is built")
    parser.add_argument("--out", type=Path, help="where the rows go, as JSON")
    options = parser.parse_args()
    load = ["taskset", "-c", LOAD_CORE, options.load or build("load")]
    found: list[dict[str, Any]] = goal_rows(load, options.rounds, options.seconds)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
