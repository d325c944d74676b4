"""Compares this server with others on one machine: `make bench`.

Each round runs each scenario with each server, so that a slow phase of the machine affects all of them. A figure is the
median over the rounds; a ratio is the median of the rounds' ratios. The server runs on the first core, the load on the
second. Ratios are comparable between machines, absolute figures are not.

python benches/compare.py [--rounds 3] [--seconds 2] [--only PART ...] [--short] [--out docs/figures.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cluster
import fixtures
import goals
import hooks

HERE = Path(__file__).parent
ROOT = HERE.parent
SERVER_CORE, LOAD_CORE, ALL_CORES = "0", "1", "0,1"
Servers = dict[str, list[str]]
Figures = dict[str, float]
Found = dict[str, dict[str, dict[str, Figures]]]
"""By scenario, by server: `figures`, and `ratios` to the figures of the reference of the table."""
PATIENCE = 30.0
"""How long a server may take to listen, in seconds."""

SCENARIOS = {
    "relay, 250 B": ("relay", "--payload", "250"),
    "relay, 250 B, 8 in flight": ("relay", "--payload", "250", "--window", "8"),
    "relay, 4,000 B": ("relay", "--payload", "4000"),
    "relay, 5,000 idle devices beside": ("relay", "--payload", "250", "--idle", "5000"),
    "one pair alone": ("relay", "--pairs", "1"),
    "sessions": ("sessions",),
    "registrations": ("registrations",),
    "5,000 idle devices": ("idle", "--idle", "5000"),
}
RELAY = {"relay, 250 B": SCENARIOS["relay, 250 B"]}
VARIANTS = {
    "plain": (),
    "with a journal": ("--journal",),
    "a fault armed for another device": ("--fault",),
    "the GIL held, 2 s at a time": ("--gil",),
}
"""Options of this server that may make relaying more expensive, at 250 B."""
GROWTH = {
    **{f"{size} B": ("relay", "--payload", str(size)) for size in (100, 250, 1000, 4000, 16000, 60000)},
    **{f"{window} in flight": ("relay", "--window", str(window)) for window in (1, 2, 4, 8, 16)},
    **{f"{idle} idle beside": ("relay", "--idle", str(idle)) for idle in (0, 100, 1000, 10000)},
    **{f"{pairs} pairs": ("relay", "--pairs", str(pairs)) for pairs in (1, 10, 50, 200, 1000)},
}
"""Scenarios that show how the cost of a message grows."""
STORM = {"5,000 devices dial at once over TLS": ("storm", "--idle", "5000")}
"""A restart of the server, beside a bare acceptor: rustls and tungstenite without limits and checks."""
CHURN = {"a million clients come and go, at 10 devices": ("churn", "--pairs", "10", "--clients", "1000000")}
"""Memory after many clients have left. It takes minutes, so it runs only once."""


def build(name: str) -> str:
    """Builds one of the benchmark programs, and returns its path."""
    command = ["cargo", "bench", "--locked", "--quiet", "--bench", name, "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == name and message.get("executable"):
            return str(message["executable"])
    raise SystemExit(f"cargo built no {name}")


def servers() -> Servers:
    """Returns the commands of the servers, to which a port is appended: this server first, the bare relay second."""
    python = sys.executable
    return {
        "cuttlefish-signaling": [python, str(HERE / "relay_server.py"), "--port"],
        "bare relay": [build("bare_relay")],
        "aiohttp": [python, str(HERE / "peers" / "aiohttp_relay.py")],
        "websockets": [python, str(HERE / "peers" / "websockets_relay.py")],
    }


@contextmanager
def serving(command: list[str], cores: str) -> Iterator[tuple[int, int]]:
    """Runs a server on these cores. Yields its port and its process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(["taskset", "-c", cores, *command, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"it did not start: {' '.join(command)} {port}") from None
                time.sleep(0.01)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def measure(load: list[str], command: list[str], scenario: tuple[str, ...], seconds: float) -> Figures:
    """Runs a scenario once, and returns its figures. A server with two workers shares all cores with the load."""
    cores = ALL_CORES if "--workers" in command else SERVER_CORE
    with serving(command, cores) as (port, pid):
        options = ["--port", str(port), "--pid", str(pid), "--seconds", str(seconds)]
        run = subprocess.run([*load, *scenario, *options], check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(run.stdout)
    return figures


def medians(runs: list[Figures]) -> Figures:
    """Returns the median of each figure."""
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def ratios(runs: list[Figures], beside: list[Figures]) -> Figures:
    """Returns the median of the rounds' ratios for each figure. A slow round does not change its ratio."""
    pairs = list(zip(runs, beside, strict=True))
    return medians([{name: run[name] / (other[name] or 1) for name in run} for run, other in pairs])


def run_all(
    load: list[str], all_servers: Servers, scenarios: dict[str, tuple[str, ...]], rounds: int, seconds: float
) -> Found:
    """Runs each scenario with each server."""
    found: Found = {}
    for title, scenario in scenarios.items():
        runs: dict[str, list[Figures]] = {name: [] for name in all_servers}
        for _ in range(rounds):
            for name, command in all_servers.items():
                runs[name].append(measure(load, command, scenario, seconds))
        beside = runs.get("bare relay", runs[next(iter(all_servers))])
        found[title] = {
            name: {"figures": medians(of_server), "ratios": ratios(of_server, beside)}
            for name, of_server in runs.items()
        }
        show(title, found[title])
    return found


def show(title: str, of_scenario: dict[str, dict[str, Figures]]) -> None:
    """Prints one scenario's table."""
    names = list(next(iter(of_scenario.values()))["figures"])
    print(f"\n{title}\n{'':34}" + "".join(f"{name:>32}" for name in names))
    for server, found in of_scenario.items():
        cells = (f"{found['figures'][name]:,.1f} ({found['ratios'][name]:.2f}x)" for name in names)
        print(f"{server:34}" + "".join(f"{cell:>32}" for cell in cells), flush=True)


def machine() -> dict[str, Any]:
    """Describes the machine and the versions of the programs."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", info)
    versions = {}
    for package in ("cuttlefish-signaling", "websockets", "aiohttp", "uvloop", "orjson"):
        shown = subprocess.run([sys.executable, "-m", "pip", "show", package], stdout=subprocess.PIPE, text=True)
        version = re.search(r"^Version: (.*)$", shown.stdout, re.MULTILINE)
        versions[package] = version[1] if version else "unknown"
    rust = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rust": rust,
        "versions": versions,
        "when": time.strftime("%Y-%m-%d"),
    }


def goal_rows(load: list[str], everybody: Servers, options: argparse.Namespace, ca: Path) -> list[goals.Row]:
    """Measures the goals, all of them or a short form of each."""
    ours, bare = everybody["cuttlefish-signaling"], everybody["bare relay"]

    def once(is_bare: bool, own: tuple[str, ...], scenario: tuple[str, ...]) -> Figures:
        over_tls = own == goals.TLS
        if is_bare:
            command = [*bare, str(ca)] if over_tls else bare
        else:
            command = [*ours[:-1], *own, *([str(ca)] if over_tls else []), "--port"]
        if options.short:
            scenario = tuple(part.replace("000", "00") if part in ("2000", "5000") else part for part in scenario)
        more = ("--ca", str(ca)) if over_tls else ()
        return measure(load, command, (*scenario, *more), 0.3 if options.short else options.seconds)

    found = goals.run_all(once, 2 if options.short else options.goal_rounds)
    rounds, seconds = (2, 0.3) if options.short else (options.goal_rounds or goals.ROUNDS, options.seconds)
    found += hooks.goal_rows(load, rounds, seconds)
    return found + fixtures.goal_rows(rounds, 20 if options.short else 200)


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal-rounds", type=int, help="of the goals; 20 for those with a p99 and 5 for others")
    parser.add_argument("--seconds", type=float, default=2.0, help="for which each run is measured")
    parser.add_argument(
        "--short", action="store_true", help="the goals in two short rounds: to try a change, not to publish"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=["goals", "peers", "variants", "workers", "growth", "storm", "churn", "cluster"],
        help="these parts",
    )
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON; parts that were not run stay")
    options = parser.parse_args()
    if options.short and options.out:
        parser.error("--short: two short rounds are not figures to publish: leave --out away")
    return options


def main() -> None:
    """Measures, prints the tables, and writes the figures to a file."""
    options = arguments()
    only = ["goals"] if options.short else options.only
    load, everybody = ["taskset", "-c", LOAD_CORE, build("load")], servers()
    name, ours = next(iter(everybody.items()))
    ca = Path(tempfile.mkdtemp()) / "ca.pem"
    over_tls = {name: [*ours[:-1], "--tls", str(ca), "--port"], "bare relay": [*everybody["bare relay"], str(ca)]}
    storm = {title: (*scenario, "--ca", str(ca)) for title, scenario in STORM.items()}
    plan: dict[str, tuple[Servers, dict[str, tuple[str, ...]]]] = {
        "peers": (everybody, SCENARIOS),
        "variants": ({title: [*ours[:-1], *more, "--port"] for title, more in VARIANTS.items()}, RELAY),
        "workers": ({f"workers={n}": [*ours[:-1], "--workers", str(n), "--port"] for n in (1, 2)}, RELAY),
        "growth": ({name: ours}, GROWTH),
        "storm": (over_tls, storm),
        "churn": ({name: ours}, CHURN),
    }
    figures: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    figures["machine"] = machine()
    for part, (of_part, scenarios) in plan.items():
        if part in (only or plan):
            where = load if part != "workers" else load[-1:]
            rounds = options.rounds if part != "churn" else 1
            figures[part] = run_all(where, of_part, scenarios, rounds, options.seconds)
    if "goals" in (only or ["goals"]):
        figures["goals"] = goal_rows(load, everybody, options, ca)
    if "cluster" in (only or ["cluster"]):
        figures["cluster"] = cluster.run_all(load, options.rounds, options.seconds)
        figures["engine"] = cluster.engine(load, options.seconds)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
