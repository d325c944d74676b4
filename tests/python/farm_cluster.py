"""The nodes and the engine of a farm as processes, and their figures."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import urllib.request
from collections.abc import Sequence
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


def allow_many_descriptors() -> None:
    """Raises the limit on descriptors of this process and of those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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


def show(title: str, figures: dict[str, Any], path: str | None) -> None:
    """Prints figures, and writes them to a file as JSON."""
    print(title, json.dumps(figures, indent=1), flush=True)
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({title: figures}, file, indent=1)
