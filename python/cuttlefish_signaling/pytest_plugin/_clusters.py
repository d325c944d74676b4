"""The fixture of clusters, and the state of each cluster in the report of a failed test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from ._options import OPTIONS

if TYPE_CHECKING:
    from ..testing import ClusterFactory, SignalingCluster

CLUSTERS: pytest.StashKey[list[SignalingCluster]] = pytest.StashKey()
"""The clusters of a test."""


@pytest.fixture
def signaling_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterFactory]:
    """Starts clusters for a test, with the arguments of `SignalingCluster`: the number of nodes, and their settings.

    Each has an engine (`redis-server`) and nodes, which are processes on 127.0.0.1. Without a `redis-server` or a
    `valkey-server` the test is skipped. All processes end with the test.
    """
    from ..testing import SignalingCluster
    from ..testing._engine import MISSING, find_engine
    from ._calls import Factory, named

    options = request.config.stash[OPTIONS]
    if options.attaches:
        given = f"--signaling-url is {options.url}" if options.url else f"--signaling-control is {options.control}"
        pytest.skip(f"signaling_cluster starts servers of its own, and {given}")
    if find_engine() is None:
        pytest.skip(MISSING)
    clusters = request.node.stash.setdefault(CLUSTERS, [])
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> SignalingCluster:
            with named("signaling_cluster"):
                cluster = SignalingCluster(*arguments, **options)
                clusters.append(cluster)
                stack.callback(cluster.close)
                return cluster.start()

        factory: Any = Factory("signaling_cluster", "clusters", start, positional=1)
        yield factory


def add(item: pytest.Item, report: pytest.TestReport) -> None:
    """Adds the state of the clusters to the report of a failed test, while they run."""
    if report.failed and report.when != "teardown" and item.config.stash[OPTIONS].trace != "off":
        for cluster in item.stash.get(CLUSTERS, []):
            report.sections.append(("Signaling cluster", cluster.report()))
