"""The topologies of examples/cluster, each as its script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"

needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")


def run(script: str) -> str:
    """Runs a script, and returns its output."""
    command = [sys.executable, str(EXAMPLES / script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs_redis
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and iproute2")
def test_hosts_and_a_gateway_in_network_namespaces() -> None:
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    said = run("hosts.py")
    assert "h1:cvd-1 is on h1 and says 'hello h1:cvd-1'" in said
    assert "h2:cvd-1 is on h2 and says 'hello h2:cvd-1'" in said
    assert subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout == before


@needs_redis
@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed: apt install haproxy")
def test_equal_nodes_behind_haproxy_with_and_without_stickiness() -> None:
    said = run("balanced.py")
    for balance in ("roundrobin", "source"):
        assert f"balance {balance}: 6 pairs and 6 polled clients talked" in said


@needs_redis
def test_server_without_a_cluster_has_no_connection_listener_or_thread_for_it() -> None:
    said = run("alone.py")
    assert "a server alone: Counts(listeners=1, connections=0, threads=4)" in said
    assert "a node of a cluster: Counts(listeners=2, connections=" in said
