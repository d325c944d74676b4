"""Faults under load on three nodes as processes. `make soak` has the long forms."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
from pathlib import Path
from typing import Any

import farm_failovers
import farm_faults
import farm_soak
import pytest
from farm_cluster import SETTINGS, DirectCluster, run_farm

from cuttlefish_signaling.testing import SignalingCluster
from cuttlefish_signaling.testing._engine import MISSING, find_engine

pytestmark = pytest.mark.skipif(find_engine() is None, reason=MISSING)

SEED = int(os.environ.get("FARM_SEED") or random.SystemRandom().randrange(2**32))


def test_no_payload_is_lost_in_silence_under_any_fault() -> None:
    words = (
        f"--minutes 0 --devices 30 --clients 60 --think 0.02 --every 0 --pause 0 --hang 100 --answers 400 --seed {SEED}"
    )
    options = farm_soak.arguments(words.split())
    with SignalingCluster(3, **SETTINGS) as cluster:
        figures = asyncio.run(farm_soak.soak(cluster, options))
    assert farm_soak.failures(figures) == [], f"seed {SEED}: {figures}"
    assert figures["answered"] >= 400 * figures["faults"], "payloads of the peers that no fault touches"
    assert figures["faults"] == 8


@pytest.mark.parametrize("fault", ["drop", "duplicate", "reorder"])
def test_soak_finds_what_a_node_does_to_payloads(fault: str, tmp_path: Path) -> None:
    table = f"""[[faults]]\nfault = "{fault}"\nprobability = 0.2\n"""
    (tmp_path / "faults.toml").write_text(table, encoding="utf-8")
    words = f"--minutes 0 --devices 4 --clients 12 --every 0 --pause 0 --hang 100 --think 0 --answers 20 --seed {SEED}"
    cluster = SignalingCluster(2, **SETTINGS)
    for own in cluster._arguments:
        own.append(f"--config={tmp_path / 'faults.toml'}")
    with cluster:
        figures = asyncio.run(farm_soak.soak(cluster, farm_soak.arguments(words.split())))
    found = farm_soak.failures(figures)
    assert any("lost, twice or not in order" in line or "expects" in line for line in found), figures


FLAT = {
    "broken": [],
    "silent": 0,
    "ledgers": [(1, 1)],
    "descriptors": {"before": [9], "after": [9]},
}


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        ([9_000] * 10 + [20_000] * 30, []),
        ([9_000] * 10 + [20_000] * 20 + [25_001] * 10, ["memory grows: 20000 KiB early, 25001 KiB late"]),
        # Too few to tell growth from the first use of buffers.
        ([9_000] * 29 + [25_000] * 10, []),
        ([], []),
    ],
)
def test_soak_judges_the_memory_of_a_node(samples: list[int], found: list[str]) -> None:
    assert farm_soak.failures({**FLAT, "memory": farm_soak._slope(samples)}) == found


def test_farm_writes_its_figures_and_ends_with_the_rules_that_were_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)  # Other tests have this process too.
    path = tmp_path / "figures.json"
    given = farm_faults.arguments(["kill", "--pairs", "7", "--json", str(path)])

    def run(given: argparse.Namespace) -> dict[str, Any]:
        return {"pairs": given.pairs, "silent": 2, "broken": ["one rule"]}

    with pytest.raises(SystemExit, match="^one rule\nsilent: 2$"):
        run_farm("kill", given, run, farm_faults.failures)
    figures = {"pairs": 7, "silent": 2, "broken": ["one rule"]}
    assert json.loads(path.read_text("utf-8")) == {"kill": figures}
    assert json.loads(capsys.readouterr().out.removeprefix("kill ")) == figures
    run_farm("kill", given, lambda given: {"broken": []}, farm_faults.failures)


def test_devices_have_to_be_found_within_the_time_that_is_given() -> None:
    found = {"broken": [], farm_faults.FOUND: 8.5}
    assert farm_faults.failures({**found, "within, s": 9.0}) == []
    assert farm_faults.failures({**found, "within, s": 8.0}) == [f"{farm_faults.FOUND}: 8.5, and not 8.0"]
    # A run without the option has a bound as well.
    assert farm_faults.failures({**found, farm_faults.FOUND: 101.0}) == [f"{farm_faults.FOUND}: 101.0, and not 100.0"]


def test_faults_of_a_soak_begin_every_five_seconds() -> None:
    options = farm_soak.arguments([])
    assert (options.every, options.answers) == (5.0, 1)
    assert options.pause < options.every


def test_clients_of_a_killed_node_are_told_and_its_devices_come_back() -> None:
    with DirectCluster(3, **SETTINGS) as cluster:
        figures = asyncio.run(farm_faults.kills(cluster, times=1, pairs=20))
    assert farm_faults.failures(figures) == [], figures
    assert [figures[what]["count"] for what in ("told", "back", "findable")] == [20, 20, 20]


def test_outage_of_the_engine_ends_no_pair_and_keeps_no_device_away() -> None:
    words = "outage --minutes 0 --pairs 12 --boots 3 --answers 300 --think 0.02 --empty"
    options = farm_faults.arguments(words.split())
    with DirectCluster(3, **{**SETTINGS, "device_wait_timeout": 1}) as cluster:
        figures = asyncio.run(farm_faults.outage(cluster, options))
    assert farm_faults.failures(figures) == [], figures
    assert (figures["pairs"], figures["devices that booted meanwhile"]) == (12, 3)


@pytest.mark.skipif(shutil.which("redis-sentinel") is None, reason="redis-sentinel is not installed")
def test_failover_of_the_engine_ends_no_pair_and_loses_no_device() -> None:
    words = "--times 1 --pairs 12 --boots 3 --answers 100 --think 0.02"
    figures = farm_failovers.run(farm_failovers.arguments(words.split()))
    assert farm_faults.failures(figures) == [], figures
    assert figures["another master is named, s"]["count"] == 1
    assert all(times >= 1 for times in figures["rejoins"]), "each node has lost a master"
