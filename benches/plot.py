"""Writes the figures of compare.py into docs/: performance.svg, and the tables of performance.md.

python benches/plot.py docs/figures.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import goals
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the choice of what draws

Part = dict[str, dict[str, dict[str, dict[str, float]]]]
"""By scenario, by server: `figures`, and `ratios` to the figures of the reference of the table."""

BARS = (
    ("relay, 250 B", "cpu_us_per_message", "CPU per relayed message, µs"),
    ("relay, 250 B", "round_trips_per_second", "Round trips per second"),
    ("sessions", "sessions_per_second", "Sessions per second"),
    ("5,000 idle devices", "kib_per_idle_device", "Memory per idle device, KiB"),
)
LINES = (
    (" B", "payload bytes"),
    (" in flight", "messages in flight"),
    (" idle beside", "idle devices beside"),
    (" pairs", "pairs"),
)
NAMES = {
    "round_trips_per_second": "round trips/s",
    "cpu_us_per_message": "CPU µs/message",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "sessions_per_second": "sessions/s",
    "cpu_us_per_session": "CPU µs/session",
    "registrations_per_second": "registrations/s",
    "cpu_us_per_registration": "CPU µs/registration",
    "kib_per_idle_device": "KiB/idle device",
    "cpu_us_per_client_first_tenth": "CPU µs/client, first tenth",
    "cpu_us_per_client_last_tenth": "last tenth",
    "kib_after_a_tenth": "KiB after a tenth",
    "kib_after_all": "after all",
    "kib_before": "KiB before",
    "kib_after": "KiB after they left",
}
OURS, OTHERS = "#0f766e", "#9aa6b2"


def draw(figures: dict[str, Any], target: Path) -> None:
    """Draws the servers side by side, and how the cost of this server grows."""
    matplotlib.rcParams.update({"svg.hashsalt": "figures", "font.size": 9, "svg.fonttype": "none"})
    rows = [row for row in figures.get("goals", []) if not row["of_figure"]]
    drawing = pyplot.figure(figsize=(14, 5 + 0.26 * len(rows)), layout="constrained")
    above, below = drawing.subfigures(2, 1, height_ratios=[5, max(0.26 * len(rows), 0.01)])
    axes = above.subplots(2, 4)
    if rows:
        draw_goals(rows, below.subplots())
    for axis, (scenario, figure, title) in zip(axes[0], BARS, strict=True):
        of_server = figures["peers"][scenario]
        names = list(of_server)
        values = [of_server[name]["figures"][figure] for name in names]
        bars = axis.barh(names, values, color=[OURS if name == names[0] else OTHERS for name in names])
        axis.bar_label(bars, labels=[goals.number(value) for value in values], padding=3)
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_visible(False)
    for axis, (suffix, title) in zip(axes[1], LINES, strict=True):
        sizes, costs = zip(*growth(figures["growth"], suffix), strict=True)
        axis.plot(range(len(sizes)), costs, color=OURS, marker="o")
        axis.set_xticks(range(len(sizes)), [f"{size // 1000}k" if size >= 1000 else str(size) for size in sizes])
        axis.set_title(f"CPU µs/message by {title}", loc="left", fontsize=9)
        axis.set_ylim(0, 1.15 * max(costs))
        axis.spines[["top", "right"]].set_visible(False)
    machine = figures["machine"]
    drawing.supxlabel(f"{machine['cpu']}, {machine['when']}; one core for the server, one for the load", fontsize=8)
    drawing.savefig(target, metadata={"Date": None})


def draw_goals(rows: list[goals.Row], axis: Any) -> None:
    """Draws the ratio of each row with its spread, and its goal."""
    places = range(len(rows))
    axis.hlines(places, [row["lowest"] for row in rows], [row["highest"] for row in rows], color=OTHERS, linewidth=3)
    axis.plot([row["ratio"] for row in rows], places, "o", color=OURS, label="median of the rounds' ratios")
    axis.plot(
        [row["goal"] for row in rows], places, "|", color="#b91c1c", markersize=14, markeredgewidth=2, label="goal"
    )
    axis.set_yticks(places, [f"{row['title']}: {row['figure']}, beside {row['reference']}" for row in rows])
    axis.set_xscale("log")
    ticks = (0.5, 0.75, 1, 1.5, 2, 3)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.invert_yaxis()
    axis.legend(loc="lower right", frameon=False, fontsize=8)
    axis.set_title("Ratio to the reference in the same round, lowest to highest", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def growth(part: Part, suffix: str) -> list[tuple[int, float]]:
    """Returns the cost of a message, by the number before the suffix."""
    found = []
    for title, of_server in part.items():
        if re.fullmatch(rf"\d+{suffix}", title):
            (ours,) = of_server.values()
            found.append((int(title.removesuffix(suffix)), ours["figures"]["cpu_us_per_message"]))
    return found


def table(part: Part) -> str:
    """Formats a table: servers in rows, ratios in brackets."""
    lines = []
    for title, of_server in part.items():
        names = list(next(iter(of_server.values()))["figures"])
        lines += [
            "",
            f"| {title} | " + " | ".join(NAMES[name] for name in names) + " |",
            "|---|" + "--:|" * len(names),
        ]
        for server, found in of_server.items():
            cells = [goals.number(found["figures"][name]) for name in names]
            if len(of_server) > 1:
                cells = [f"{cell} ({found['ratios'][name]:.2f}x)" for cell, name in zip(cells, names, strict=True)]
            lines.append(f"| {server} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def growth_table(part: Part) -> str:
    """Formats a table with one line for each series."""
    lines = ["| CPU µs/message, by | |", "|---|---|"]
    for suffix, title in LINES:
        costs = ", ".join(f"{size:,}: {goals.number(cost)}" for size, cost in growth(part, suffix))
        lines.append(f"| {title} | {costs} |")
    return "\n".join(lines)


def engine_table(engine: dict[str, float]) -> str:
    """Formats the figures of the engine of a cluster."""
    rows = [f"| {title} | {goals.number(value)} |" for title, value in engine.items()]
    return "\n".join(["| engine of a cluster | |", "|---|--:|", *rows])


def told(machine: dict[str, Any]) -> str:
    """Formats the date, the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['when']}: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"CPython {machine['python']}, {machine['rust'].split(' (')[0]}; {versions}."
    )


def main() -> None:
    """Reads the figures, draws the picture, and writes the tables between the marks of the document."""
    source = Path(sys.argv[1])
    figures: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    draw(figures, source.with_name("performance.svg"))
    document = source.with_name("performance.md")
    text = document.read_text(encoding="utf-8")
    parts = {
        "machine": told(figures["machine"]),
        "peers": table(figures["peers"]),
        "variants": table(figures["variants"]),
        "workers": table(figures["workers"]),
        "growth": growth_table(figures["growth"]),
        "churn": table(figures["churn"]),
    }
    if "goals" in figures:
        parts["goals"] = goals.table(figures["goals"])
    if "cluster" in figures:
        parts |= {"cluster": table(figures["cluster"]), "engine": engine_table(figures["engine"])}
    for part, content in parts.items():
        mark = f"<!-- {part}: written by benches/plot.py -->"
        before, _, rest = text.partition(mark)
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise SystemExit(f"{document} has no {mark}")
        text = f"{before}{mark}\n\n{content}\n\n{end}{after}"
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
