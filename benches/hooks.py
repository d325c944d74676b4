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

HERE = Path(__file__).parent
TITLE = "sessions with three hooks"
NONE, DEF, ASYNC = "no hooks", "`def` hooks", "`async def` hooks"
ON_LOOP = "`async def` hooks on the loop of the program"
BY_HAND = "aiohttp, which has its filter inline"
HOOKS_OF_SESSION = 3
GOALS = {DEF: 1.6, ASYNC: 2.5}
"""The most CPU time of a session, beside a server without hooks."""


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


def run_all(load: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Runs the sessions with each server, by turns. Ratios are those to the server without hooks."""
    from compare import SERVER_CORE, measure, medians, ratios, show

    assert SERVER_CORE == "0"
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers()}
    for _ in range(rounds):
        for name, command in servers().items():
            runs[name].append(measure(load, command, ("sessions",), seconds))
        for name, own in runs.items():
            beyond = own[-1]["cpu_us_per_session"] - runs[NONE][-1]["cpu_us_per_session"]
            own[-1]["cpu_us_per_hook"] = beyond / HOOKS_OF_SESSION if "hooks" in name else 0.0
    found = {TITLE: {name: {"figures": medians(own), "ratios": ratios(own, runs[NONE])} for name, own in runs.items()}}
    for name, own in found[TITLE].items():
        each = [run["cpu_us_per_session"] for run in runs[name]]
        beside = [run["cpu_us_per_session"] for run in runs[NONE]]
        hand = [run["cpu_us_per_session"] for run in runs[BY_HAND]]
        own["spread"] = spread(each, beside)
        own["by_hand"] = spread(each, hand)
    show(TITLE, found[TITLE])
    return found


def spread(own: list[float], beside: list[float]) -> dict[str, float]:
    """The least, the median and the greatest of the rounds' ratios."""
    ratios = sorted(one / other for one, other in zip(own, beside, strict=True))
    return {"least": ratios[0], "median": ratios[len(ratios) // 2], "greatest": ratios[-1], "rounds": len(ratios)}


def main() -> None:
    """Measures, prints the table, and writes the figures to a file."""
    from compare import LOAD_CORE, build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="for which each run is measured")
    parser.add_argument("--load", help="the program of the load; by default it is built")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args()
    load = ["taskset", "-c", LOAD_CORE, options.load or build("load")]
    found = run_all(load, options.rounds, options.seconds)
    for name, figures in found[TITLE].items():
        beside, hand = figures["spread"], figures["by_hand"]
        goal = f"; goal {GOALS[name]:.1f}" if name in GOALS else ""
        print(
            f"{name:46} {beside['median']:.2f} of no hooks ({beside['least']:.2f} to {beside['greatest']:.2f}{goal}), "
            f"{hand['median']:.2f} of the relay by hand ({hand['least']:.2f} to {hand['greatest']:.2f})"
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
