"""Failovers of the engine below a cluster: `make soak`, or a short form.

    python tests/python/farm_failovers.py --times 20 --pairs 100 [--json FILE]

A master with two replicas and three Sentinels is the engine of three nodes. Each round kills the master: no pair may
end, and devices that register meanwhile have to be found from other nodes after it. It prints how long the Sentinels
take, and how long after that the nodes are well again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from farm_cluster import SETTINGS, DirectCluster, ledger, metrics, options, run_farm, summary
from farm_faults import FOUND, HANG, apart_call, devices_on, failures, meet_all
from farm_peers import Books, Client
from sentinels import Trio


class WatchedCluster(DirectCluster):
    """Three nodes whose engine is named by Sentinels. The engine of the kit runs beside them."""

    def __init__(self, trio: Trio) -> None:
        super().__init__(3, **SETTINGS)
        for own in self._arguments:
            # The last of two flags counts.
            own.append(f"--cluster={trio.url}")


async def failovers(cluster: WatchedCluster, trio: Trio, given: argparse.Namespace) -> dict[str, Any]:
    """Kills one master after the other. Returns the figures."""
    books, pids = Books(), [node.pid for node in cluster.nodes]
    names = [f"cvd-{number}" for number in range(given.pairs)]
    elected, well = list[float](), list[float]()
    async with devices_on(cluster.nodes, names, books):
        clients = [Client(books, given.think) for _ in names]
        talks = [
            asyncio.create_task(client.talk(cluster.nodes[(at + at // 3) % 3], names[at], sys.maxsize))
            for at, client in enumerate(clients)
        ]
        await asyncio.wait_for(books.until(lambda: books.connected == len(names)), HANG)
        for round_ in range(given.times):
            began, target = time.monotonic(), books.answered + given.answers
            failing = asyncio.create_task(apart_call(trio.fail_over))
            boots = [f"boot-{round_}-{number}" for number in range(given.boots)]
            async with devices_on(cluster.nodes, boots, books):
                lost = await asyncio.wait_for(failing, HANG)
                named = time.monotonic()
                await asyncio.wait_for(meet_all(cluster, boots, books, shift=1), HANG)
                elected.append(named - began)
                well.append(time.monotonic() - named)
                await asyncio.wait_for(books.until(partial(_has_answered, books, target)), HANG)
            if round_ + 1 < given.times:
                await apart_call(partial(trio.come_back, lost))
            print(f"failover {round_ + 1}: master after {elected[-1]:.2f} s, found {well[-1]:.2f} s later", flush=True)
        for client in clients:
            client.halted = True
        await asyncio.wait_for(asyncio.gather(*talks), HANG)
    lost_by = 'cuttlefish_signaling_cluster_rejoins_total{cause="lost"}'
    return {
        "failovers": given.times,
        "pairs": len(names),
        "pairs that ended": books.ended,
        "payloads": books.sent,
        "silent": books.silent,
        "another master is named, s": summary(elected),
        "devices of meanwhile are found from other nodes after that, s": summary(well),
        FOUND: round(max(well), 2),
        "within, s": given.within,
        "rejoins": [metrics(node).get(lost_by, 0) for node in cluster.nodes],
        "nodes that were restarted": [
            node.name for node, pid in zip(cluster.nodes, pids, strict=True) if node.pid != pid
        ],
        "ledgers": [ledger(node) for node in cluster.nodes],
        "broken": books.broken[:10],
    }


def _has_answered(books: Books, answers: int) -> bool:
    return books.answered >= answers


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Runs the failovers with processes of their own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trio = Trio(directory, stack)
        cluster = stack.enter_context(WatchedCluster(trio))
        return asyncio.run(failovers(cluster, trio, given))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Reads the options."""
    return options(__doc__, times=20, pairs=100, boots=12, answers=200, think=1.0, within=HANG).parse_args(words)


def main() -> None:
    """Runs it, and fails where a rule was broken."""
    run_farm("failovers", arguments(), run, failures)


if __name__ == "__main__":
    main()
