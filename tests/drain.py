"""A drain under many devices: `make soak`, or `tests/drain.py --devices 2000 --spread 10`.

`cuttlefish-signaling serve` gets SIGTERM while devices are registered, each over a connection of its own. Each of them
has to get a close frame with 1001. With `--even` the close frames have to come evenly: of ten parts of the time between
the first and the last one, none has less than half or more than twice its share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PARTS = 10
AT_ONCE = 50


async def device(url: str, number: int, turns: asyncio.Semaphore) -> ClientConnection:
    """Registers a device."""
    async with turns:
        connection = await connect(url, ping_interval=None, open_timeout=120)
        await connection.send(json.dumps({"message_type": "register", "device_id": f"cvd-{number}", "device_info": {}}))
        assert json.loads(await connection.recv())["message_type"] == "config"
        return connection


async def close_of(connection: ClientConnection) -> tuple[float, int | None]:
    """Returns the time and the code of the close."""
    try:
        await connection.recv()
    except ConnectionClosed as closed:
        return time.monotonic(), closed.rcvd.code if closed.rcvd else None
    raise AssertionError("a device got a message")


async def drain(devices: int, spread: float) -> list[tuple[float, int | None]]:
    """Starts a server with so many devices, and stops it. Returns the closes, sorted by time."""
    command = Path(sys.executable).with_name("cuttlefish-signaling")
    flags = ["--no-tls", "--port", "0", "--drain-spread", str(spread), "--log-level", "warning"]
    server = await asyncio.create_subprocess_exec(command, "serve", *flags, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().removeprefix("devices: ").strip()
        turns = asyncio.Semaphore(AT_ONCE)
        connections = await asyncio.gather(*(device(url, number, turns) for number in range(devices)))
        server.terminate()
        closes = await asyncio.gather(*map(close_of, connections))
        assert await server.wait() == 0, "the server ended with an error"
    finally:
        if server.returncode is None:
            server.kill()
    return sorted(closes, key=lambda close: close[0])


def main() -> int:
    """Runs the drain and prints its figures. Returns 1 if a device was not told, or the closes were not even."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--devices", type=int, default=2000)
    arguments.add_argument("--spread", type=float, default=10.0)
    arguments.add_argument("--even", action="store_true", help="fail where the closes are not even")
    given = arguments.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    closes = asyncio.run(drain(given.devices, given.spread))
    told = sum(code == 1001 for _, code in closes)
    first, last = closes[0][0], closes[-1][0]
    length = max(last - first, 1e-9) / PARTS
    parts = Counter(min(int((at - first) / length), PARTS - 1) for at, _ in closes)
    shares = [parts[part] for part in range(PARTS)]
    print(f"{given.devices} devices: {told} closed with 1001, within {last - first:.2f} s of {given.spread:g} s")
    print(f"in each tenth of that time: {' '.join(map(str, shares))}")
    share = given.devices / PARTS
    uneven = given.even and any(not share / 2 <= found <= share * 2 for found in shares)
    return int(told != given.devices or uneven)


if __name__ == "__main__":
    sys.exit(main())
