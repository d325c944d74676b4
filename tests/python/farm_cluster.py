"""The nodes and the engine of a farm as processes, and their figures."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import sys
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from ports import free_port

from cuttlefish_signaling.testing import SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode

SETTINGS: dict[str, Any] = {"device_wait_timeout": 20, "first_message_timeout": 120}
"""Settings of each node. All peers are one process, whose clients may be slow with their first message."""


class DirectCluster(SignalingCluster):
    """Nodes that reach each other directly, and not through this process: a partition of two nodes has no effect."""

    def __init__(self, nodes: int, **settings: Any) -> None:
        super().__init__(nodes, **settings)
        for own in self._arguments:
            address = f"127.0.0.1:{free_port()}"
            # The last of two flags counts.
            own += [f"--cluster-listen={address}", f"--cluster-address={address}"]


def running(cluster: SignalingCluster) -> list[ClusterNode]:
    """The nodes that take connections."""
    return [node for node in cluster.nodes if node.state == "running"]


def footprint(node: ClusterNode) -> dict[str, int]:
    """Memory in KiB and descriptors of a node's process."""
    with open(f"/proc/{node.pid}/status", encoding="ascii") as file:
        resident = next(line for line in file if line.startswith("VmRSS:"))
    return {"kib": int(resident.split()[1]), "descriptors": len(os.listdir(f"/proc/{node.pid}/fd"))}


def metrics(node: ClusterNode) -> dict[str, float]:
    """The samples of `GET /metrics`."""
    with urllib.request.urlopen(f"{node.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


def ledger(node: ClusterNode) -> tuple[int, int]:
    """Forwards that a node has accepted, and those of them that have ended."""
    samples = metrics(node)
    ended = [value for name, value in samples.items() if name.startswith("cuttlefish_signaling_forwards_total{")]
    return int(samples["cuttlefish_signaling_forwards_accepted_total"]), int(sum(ended))


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and worst of some times in seconds."""
    return {"median": round(statistics.median(times), 4), "worst": round(max(times), 4), "count": len(times)}


# The program of a farm ------------------------------------------------------------------------------------------------

OPTIONS = {
    "times": "number of rounds",
    "minutes": "minutes that it takes, at least",
    "pairs": "devices, each with one client",
    "devices": "number of devices",
    "clients": "number of clients",
    "boots": "devices that boot during each event",
    "answers": "least number of answers during each event",
    "think": "mean pause of a client between bursts, in seconds",
    "every": "time from fault to fault, in seconds",
    "pause": "least time of a fault, in seconds",
    "hang": "time after which something counts as missing, in seconds",
    "seed": "seed of the faults",
    "within": "longest time until devices are found, in seconds",
}
"""The meaning of each option of a farm."""


def options(description: str | None, **defaults: float) -> argparse.ArgumentParser:
    """Makes the parser of a farm, with these options and their defaults, and `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{OPTIONS[name]} (%(default)s)")
    parser.add_argument("--json", help="where the figures go")
    return parser


def run_farm(
    title: str,
    given: argparse.Namespace,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    failures: Callable[[dict[str, Any]], list[str]],
) -> None:
    """Runs a farm, prints its figures, writes them to a file as JSON, and exits with the rules that were broken."""
    random.seed(getattr(given, "seed", 1))
    # For this process, and for those that it starts.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = run(given)
    print(title, json.dumps(figures, indent=1), flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({title: figures}, file, indent=1)
    if wrong := failures(figures):
        sys.exit("\n".join(wrong))
