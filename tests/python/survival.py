"""Devices with profiles on a server with restarts, kills, duplicates and failing hooks, in random order.

    python tests/python/survival.py --failures 200
    python tests/python/survival.py --failures 20 --seed 7    # the same order again

Beside the failures there are messages that the server must not answer with an error. After each event, each device that
it concerns has reconnected once, and the others have kept their connections. All of them relay in both directions. No
device has received an error, and no device is lost.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish_signaling import PeerClosedError, PeerRefusedError
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from survival_world import PATIENCE, PROFILES, InProcess, Policy, Process, World

LARGEST_MESSAGE = 256 * 1024
LARGEST_FOR_A_DEVICE = 65_536


def restart(world: World) -> list[FakeDevice]:
    with stalled_device(world):
        world.restart()
    return world.devices


def kill(world: World) -> list[FakeDevice]:
    with stalled_device(world):
        world.kill()
    return world.devices


@contextmanager
def stalled_device(world: World) -> Iterator[None]:
    """Every other time, one device reads nothing meanwhile."""
    device, hangs = world.device(), world.random.random() < 0.5
    if hangs:
        device.stall()
    yield
    if hangs:
        device.resume()


def disconnect(world: World) -> list[FakeDevice]:
    device = world.device()
    assert world.in_process().disconnect_device(device.device_id)
    return [device]


def duplicate_of_live_holder(world: World) -> list[FakeDevice]:
    device, profile = world.device(), world.random.choice((None, *PROFILES))
    newcomer = FakeDevice(world.url, device.device_id, profile=profile, timeout=PATIENCE)
    text = f"Device already registered: {device.device_id}"
    refused = None
    try:
        newcomer.start()
    except PeerRefusedError as error:
        refused = error
    assert refused is not None, f"{newcomer} has registered"
    assert (refused.code, refused.error) == (1008, text if profile is None else None), refused
    assert newcomer.close_reason == text
    return []


def duplicate_of_frozen_holder(world: World) -> list[FakeDevice]:
    device = world.device()
    device.stall()
    with FakeDevice(world.url, device.device_id, timeout=PATIENCE):
        pass
    device.resume()
    return [device]


def replacement(world: World) -> list[FakeDevice]:
    device, is_frozen = world.device(), world.random.random() < 0.5
    if is_frozen:
        device.stall()
    with FakeDevice(world.url, device.device_id, timeout=PATIENCE) as newcomer:
        if is_frozen:
            device.resume()
        # The device reconnects, and replaces the newcomer.
        assert newcomer.wait_closed(PATIENCE) == 1008
        assert newcomer.errors == [f"Device replaced: {device.device_id}"]
    return [device]


def hook_trouble(trouble: str) -> Callable[[World], list[FakeDevice]]:
    """All devices have to register while a hook fails."""

    def register_all(world: World) -> list[FakeDevice]:
        hook = world.random.choice(["authorize", "ice_servers"])
        world.forget_calls()
        world.set_trouble(f"{hook} {trouble}")
        if isinstance(world.server, InProcess) and world.random.random() < 0.5:
            for device in world.devices:
                assert world.in_process().disconnect_device(device.device_id)
        else:
            world.restart()
        left = len(world.devices) * (1 if trouble == "hangs" else 2)
        while left:
            left -= world.calls.recv(100).decode() == trouble
        world.set_trouble("")
        return world.devices

    return register_all


def forwards_to_unknown_clients(world: World) -> list[FakeDevice]:
    device = world.device()
    for client_id in (0, 99, 2**31 - 1):
        device.send({"type": "ice-candidate"}, client_id)
        world.wait_client_disconnected(device, client_id)
    return []


def unknown_types(world: World) -> list[FakeDevice]:
    device = world.device()
    for _ in range(world.random.randrange(1, 5)):
        device.send_raw('{"message_type":"news"}')
    return []


def flood_of_unknown_types(world: World) -> list[FakeDevice]:
    """More than `Limits.error_burst`: the server closes the connection."""
    device = world.device()
    before = device.reconnects
    with suppress(PeerClosedError):
        while device.reconnects == before:
            device.send_raw('{"message_type":"news"}')
    return [device]


def invalid_message(world: World) -> list[FakeDevice]:
    device = world.device()
    invalid: list[str | bytes] = [
        b"\0",
        "{",
        "[]",
        '{"message_type":"register","device_id":"another"}',
        '{"message_type":"forward","client_id":"1","payload":1}',
        '{"message_type":"forward","client_id":1}',
    ]
    device.send_raw(world.random.choice(invalid))
    return [device]


def oversized_message(world: World) -> list[FakeDevice]:
    device = world.device()
    with suppress(PeerClosedError):
        device.send("x" * LARGEST_MESSAGE, 1)
    return [device]


def oversized_messages_of_client(world: World) -> list[FakeDevice]:
    """A message too large for the device is answered with an error; one too large for the server closes the client."""
    device = world.device()
    client = world.client_of(device)
    client.send("x" * LARGEST_FOR_A_DEVICE)
    assert "Message too large" in str(client.recv(PATIENCE, message_type="error").error)
    with suppress(PeerClosedError):
        client.send("x" * LARGEST_MESSAGE)
    client.wait_closed(PATIENCE)
    client.close()
    world.clients[device.device_id] = FakeClient(world.url, device.device_id, timeout=PATIENCE).start()
    return []


@dataclass(frozen=True)
class Event:
    """An event, and the kind of server that it needs."""

    happen: Callable[[World], list[FakeDevice]]
    kind: str | None = None
    on_duplicate: Policy | None = None


FAILURES = {
    "restart": Event(restart),
    "SIGKILL": Event(kill, kind="process"),
    "disconnect_device": Event(disconnect, kind="in process"),
    "duplicate of a live holder": Event(duplicate_of_live_holder, on_duplicate="reject"),
    "duplicate of a frozen holder": Event(duplicate_of_frozen_holder, on_duplicate="reject"),
    "replacement": Event(replacement, on_duplicate="replace"),
    "hook raises": Event(hook_trouble("raises")),
    "hook refuses": Event(hook_trouble("refuses")),
    "hook hangs": Event(hook_trouble("hangs")),
}
"""Restarts, kills, duplicates and hook failures."""

MESSAGES = {
    "forwards to unknown clients": Event(forwards_to_unknown_clients),
    "unknown types": Event(unknown_types),
    "flood of unknown types": Event(flood_of_unknown_types),
    "invalid message": Event(invalid_message),
    "oversized message": Event(oversized_message),
    "oversized messages of a client": Event(oversized_messages_of_client),
}
"""Messages that the server does not relay."""


def order_of(failures: int, chance: random.Random) -> list[str]:
    """A random order of failures, and half as many messages. Each kind occurs if there is room for it."""
    order: list[str] = []
    for count, kinds in ((failures, list(FAILURES)), (failures // 2, list(MESSAGES))):
        order += chance.sample(kinds, min(count, len(kinds)))
        order += chance.choices(kinds, k=count - min(count, len(kinds)))
    chance.shuffle(order)
    return order


def run_event(world: World, event: Event) -> None:
    """Runs one event, and checks the devices afterwards."""
    kind = "process" if isinstance(world.server, Process) else "in process"
    if event.kind not in (None, kind) or event.on_duplicate not in (None, world.on_duplicate):

        def prepare(world: World) -> list[FakeDevice]:
            world.restart(event.kind or kind, event.on_duplicate)
            return world.devices

        run_event(world, Event(prepare))
    before = {device.device_id: device.reconnects for device in world.devices}
    concerned = event.happen(world)
    for device in concerned:
        device.wait_reconnected(before[device.device_id] + 1, PATIENCE)
    world.settle(concerned)
    for device in world.devices:
        reconnected = device.reconnects - before[device.device_id]
        assert reconnected == (device in concerned), f"{device} has reconnected {reconnected} times"


def survive(failures: int, seed: int, say: Callable[[str], Any] = print, order: list[str] | None = None) -> None:
    """Runs this many failures, or this order. Raises AssertionError, which names the seed."""
    events = FAILURES | MESSAGES
    with tempfile.TemporaryDirectory() as folder:
        at = "the start"
        try:
            with World(seed, Path(folder)) as world:
                world.begin()
                for number, name in enumerate(order or order_of(failures, world.random), 1):
                    at = f"event {number}, {name}"
                    began = time.monotonic()
                    run_event(world, events[name])
                    say(f"{number:4} {name}: {time.monotonic() - began:.2f} s")
        except Exception as error:
            log = Path(folder, "log")
            tail = "".join(log.read_text().splitlines(keepends=True)[-40:]) if log.exists() else ""
            raise AssertionError(f"seed {seed}, {at}: {type(error).__name__}: {error}\n{tail}") from error


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    survive(options.failures, options.seed, lambda line: print(line, flush=True))
    print(f"all devices have survived {options.failures} failures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
