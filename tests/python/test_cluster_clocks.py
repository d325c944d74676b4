"""Nodes whose clocks differ."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from cuttlefish_signaling.testing import FakeClient, FakeDevice, SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode
from cuttlefish_signaling.testing._engine import find_engine
from cuttlefish_signaling.testing._process import clean_environment

from peers import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    if (!failed && clock == CLOCK_REALTIME)
        time->tv_sec += 3600;
    return failed;
}
"""
"""Sets the clock of a process an hour ahead, for programs that use the C library."""


def clock(node: ClusterNode) -> float:
    """The time of a node, in seconds since 1970."""
    with urllib.request.urlopen(f"{node.url}/healthz", timeout=PATIENCE) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def test_clocks_an_hour_apart_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("cc")
    assert compiler, "there is no C compiler: apt-get install gcc"
    (tmp_path / "shift.c").write_text(SHIFT)
    library = tmp_path / "shift.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "shift.c", "-ldl"], check=True)
    launched: list[str] = []

    def in_turn(inner: Callable[[], dict[str, str]]) -> dict[str, str]:
        launched.append("")
        return inner() | ({"LD_PRELOAD": str(library)} if len(launched) == 2 else {})

    place = "cuttlefish_signaling.testing._cluster_node.clean_environment"
    monkeypatch.setattr(place, lambda: in_turn(clean_environment))
    with SignalingCluster(nodes=2, timeout=PATIENCE) as cluster:
        one, other = cluster.nodes
        with FakeDevice(one, "cvd-1", timeout=PATIENCE), FakeDevice(other, "cvd-2", timeout=PATIENCE):
            # The clocks are an hour apart.
            assert clock(other) - clock(one) > 3000
            for node, id in ((one, "cvd-2"), (other, "cvd-1")):
                node.wait_for_device(id)
                with FakeClient(node, id, timeout=PATIENCE):
                    pass
            # Leases go on: a lease is 6 s.
            cluster.pause(one)
            wait_until(lambda: [node.name for node in other.nodes() if node.state == "unreachable"] == ["node1"])
            cluster.resume(one)
            cluster.wait_for_nodes(2)
            for node, id in ((one, "cvd-2"), (other, "cvd-1")):
                with FakeClient(node, id, timeout=PATIENCE):
                    pass
