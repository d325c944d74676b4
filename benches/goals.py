"""The goals for speed, each measured beside a reference in the same round: a part of `compare.py`.

A round runs this server and its reference one after the other, and the next round in the other order. A row has the
median of the rounds' ratios, the lowest and the highest of them, the goal, and the figure before the work on that goal.
A program of its own can add rows: a row is a `dict` as `row` returns it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, float]
Measure = Callable[[bool, tuple[str, ...], tuple[str, ...]], Figures]
"""Measures a server once: whether it is the bare relay, its options, and the scenario."""
Row = dict[str, Any]

UNITS = {
    "p99_us": "p99, µs",
    "cpu_us_per_message": "CPU µs/message",
    "cpu_us_per_session": "CPU µs/session",
    "cpu_us_per_registration": "CPU µs/registration",
    "round_trips_per_second": "round trips/s",
    "devices_per_second": "devices/s",
    "kib_per_idle_device": "KiB/device",
    "cpu_us_per_hook": "CPU µs/hook",
    "cpu_ms_per_test": "CPU ms/test",
    "wall_ms_per_test": "ms/test",
    "suite_s": "s",
    "median_ms": "median, ms",
    "p99_ms": "p99, ms",
    "p99_cpu_ms": "p99, CPU ms",
}
TAIL_ROUNDS, ROUNDS = 20, 5
"""A p99 differs much from round to round, so it takes more of them."""
BARE = "the bare relay"


@dataclass(frozen=True)
class Goal:
    """A figure of a run and its goal."""

    figure: str
    goal: float
    before: str
    """The ratio or figure before, as it was measured then."""
    of_figure: bool = False
    """Whether the goal is for the figure itself, not for the ratio to the reference."""


@dataclass(frozen=True)
class Comparison:
    """A scenario, with the options of this server and of its reference."""

    title: str
    scenario: tuple[str, ...]
    goals: tuple[Goal, ...]
    ours: tuple[str, ...] = ()
    beside: tuple[str, ...] | None = None
    """Options of this server. None: the reference is the bare relay, which has none but TLS."""
    reference: str = BARE
    beside_scenario: tuple[str, ...] | None = None
    """None: the same."""

    @property
    def has_tail(self) -> bool:
        """Whether a percentile is one of its figures."""
        return any(goal.figure == "p99_us" for goal in self.goals)


TLS = ("--tls",)
PLAIN = "the same server, plain"
COMPARISONS = (
    Comparison(
        "50 pairs, 250 B",
        ("relay",),
        (Goal("p99_us", 1.05, "0.6 to 1.7"), Goal("cpu_us_per_message", 1.0, "1.00")),
    ),
    Comparison(
        "50 pairs, 4,000 B, 16 in flight",
        ("relay", "--payload", "4000", "--window", "16"),
        (Goal("p99_us", 1.05, "1.1"), Goal("cpu_us_per_message", 1.0, "0.93")),
    ),
    Comparison(
        "one pair alone, 250 B",
        ("relay", "--pairs", "1"),
        (Goal("p99_us", 1.05, "1.3"), Goal("cpu_us_per_message", 1.0, "1.06")),
    ),
    Comparison(
        "one device with 200 clients, 250 B",
        ("relay", "--pairs", "200", "--per-device", "200"),
        (Goal("cpu_us_per_message", 1.0, "1.11"), Goal("round_trips_per_second", 1.0, "0.82")),
        ours=("--rates",),
    ),
    Comparison("sessions", ("sessions",), (Goal("cpu_us_per_session", 1.0, "0.88"),)),
    Comparison("registrations", ("registrations",), (Goal("cpu_us_per_registration", 1.0, "0.99"),)),
    Comparison(
        "idle devices",
        ("idle", "--idle", "5000"),
        (Goal("kib_per_idle_device", 4.0, "3.0", of_figure=True),),
    ),
    Comparison(
        "TLS: 50 pairs, 250 B",
        ("relay",),
        (Goal("p99_us", 1.05, "1.07"), Goal("cpu_us_per_message", 1.0, "1.06")),
        ours=TLS,
    ),
    Comparison(
        "TLS: 50 pairs, 4,000 B, 16 in flight",
        ("relay", "--payload", "4000", "--window", "16"),
        (Goal("p99_us", 1.05, "1.28"), Goal("cpu_us_per_message", 0.94, "0.94")),
        ours=TLS,
    ),
    Comparison("TLS: sessions", ("sessions",), (Goal("cpu_us_per_session", 0.8, "0.83"),), ours=TLS),
    Comparison(
        "TLS: registrations, each with a full handshake",
        ("registrations",),
        (Goal("cpu_us_per_registration", 0.95, "1.00"),),
        ours=TLS,
    ),
    Comparison(
        "TLS: idle devices",
        ("idle", "--idle", "2000"),
        (Goal("kib_per_idle_device", 8.0, "10.8", of_figure=True),),
        ours=TLS,
    ),
    Comparison(
        "TLS: 5,000 devices dial at once",
        ("storm", "--idle", "5000"),
        (Goal("devices_per_second", 0.9, "0.96"),),
        ours=TLS,
    ),
    Comparison(
        "clients that poll, 250 B",
        ("polled",),
        (Goal("cpu_us_per_message", 3.0, "not measured"),),
        beside=(),
        reference="the same server, WebSocket",
        beside_scenario=("relay",),
    ),
    Comparison(
        "a page of the dashboard open, journal on",
        ("relay", "--pages", "1"),
        (Goal("cpu_us_per_message", 1.05, "1.10"),),
        ours=("--journal", "--dashboard"),
        beside=(),
        reference=PLAIN,
        beside_scenario=("relay",),
    ),
)


def row(title: str, reference: str, goal: Goal, runs: Sequence[Figures], beside: Sequence[Figures]) -> Row:
    """Returns the row of one figure, from the figures of the rounds."""
    own = [run[goal.figure] for run in runs]
    other = [run[goal.figure] for run in beside]
    ratios = [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    found: Row = {
        "title": title,
        "figure": UNITS[goal.figure],
        "reference": reference,
        "rounds": len(runs),
        "ours": round(statistics.median(own), 3),
        "beside": round(statistics.median(other), 3),
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "goal": goal.goal,
        "before": goal.before,
        "of_figure": goal.of_figure,
        "at_least": goal.figure.endswith("_per_second"),
    }
    return found


def is_met(found: Row) -> bool:
    """Whether the median meets the goal, in the precision in which it is written."""
    reached = round(found["ours"], 1) if found["of_figure"] else round(found["ratio"], 2)
    return bool(reached >= found["goal"] if found["at_least"] else reached <= found["goal"])


def run_all(measure: Measure, rounds: int | None = None, comparisons: Iterable[Comparison] = COMPARISONS) -> list[Row]:
    """Runs all comparisons, and prints each row when it is known. `rounds` replaces the number of each."""
    found = []
    for each in comparisons:
        own, other = (False, each.ours, each.scenario), beside_of(each)
        runs: tuple[list[Figures], list[Figures]] = ([], [])
        for number in range(rounds or (TAIL_ROUNDS if each.has_tail else ROUNDS)):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                runs[side].append(measure(*(own, other)[side]))
        for goal in each.goals:
            found.append(row(each.title, each.reference, goal, *runs))
            print(line(found[-1]), flush=True)
    return found


def beside_of(each: Comparison) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """The reference, as `Measure` takes it. The bare relay speaks TLS where this server does."""
    scenario = each.beside_scenario or each.scenario
    if each.beside is None:
        return True, TLS if each.ours == TLS else (), scenario
    return False, each.beside, scenario


def number(value: float) -> str:
    """Formats a number with its significant digits."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def cells(found: Row) -> list[str]:
    """The cells of a row."""
    spread = f"{found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"
    bound = "at least" if found["at_least"] else "at most"
    goal = f"{found['goal']:.1f} itself" if found["of_figure"] else f"{found['goal']:.2f}"
    return [
        f"{found['title']}, beside {found['reference']}",
        found["figure"],
        found["before"],
        spread,
        f"{bound} {goal}",
        "yes" if is_met(found) else "no",
        number(found["ours"]),
        number(found["beside"]),
        str(found["rounds"]),
    ]


HEAD = ["", "figure", "before", "ratio (lowest to highest)", "goal", "met", "this server", "reference", "rounds"]


def line(found: Row) -> str:
    """Formats a row for a terminal."""
    return "  ".join(f"{name} {cell}".strip() for name, cell in zip(HEAD, cells(found), strict=True))


def table(rows: Iterable[Row]) -> str:
    """Formats a table of Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "--:|" * (len(HEAD) - 2)]
    return "\n".join([*lines, *("| " + " | ".join(cells(found)) + " |" for found in rows)])
