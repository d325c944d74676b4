"""Draws docs/performance.svg from the figures that compare.py has written.

python benches/plot.py docs/figures.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the choice of what draws

PANELS = (
    ("relay, 250 B", "cpu_us_per_message", "CPU per relayed message, µs"),
    ("relay, 250 B", "round_trips_per_second", "Round trips per second"),
    ("sessions", "sessions_per_second", "Sessions per second"),
    ("5,000 idle devices", "kib_per_idle_device", "Memory per idle device, KiB"),
)
OURS, OTHERS = "#0f766e", "#9aa6b2"


def main() -> None:
    """Reads the figures, and draws."""
    source = Path(sys.argv[1])
    figures: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    matplotlib.rcParams.update({"svg.hashsalt": "figures", "font.size": 9, "svg.fonttype": "none"})
    drawing, axes = pyplot.subplots(2, 2, figsize=(9, 4.6), layout="constrained")
    for axis, (scenario, figure, title) in zip(axes.flat, PANELS, strict=True):
        of_server = figures["scenarios"][scenario]
        names = list(of_server)
        values = [of_server[name][figure] for name in names]
        bars = axis.barh(names, values, color=[OURS if name == names[0] else OTHERS for name in names])
        axis.bar_label(
            bars, labels=[f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in values], padding=3
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_visible(False)
    machine = figures["machine"]
    drawing.supxlabel(f"{machine['cpu']}, {machine['when']}; one core for the server", fontsize=8)
    drawing.savefig(source.with_name("performance.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
