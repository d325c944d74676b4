"""Rules for device programs about the end of a connection, and the next one."""

from __future__ import annotations

from itertools import pairwise

from ._host import Guest
from ._model import Failed, NotApplicable
from ._program_registry import MUST, SHOULD, fact, program_rule
from ._stage import Stage

# The end of a connection ----------------------------------------------------------------------------------------------


async def _comes_back(stage: Stage, guest: Guest, device_id: str) -> None:
    again = await stage.arrival()
    message = await stage.register(again)
    if message["device_id"] != device_id:
        raise Failed("the device came back with another id", expected=device_id, heard=message["device_id"])
    await again.stays()
    if not stage.host.arrivals.empty():
        expected, heard = "one connection", "another one beside it"
        raise Failed("the device opened several connections", expected=expected, heard=heard, stage="connect")


async def after_close(stage: Stage) -> None:
    """For each close code that a server uses."""
    for code, reason in ((1001, "Server stopping"), (1008, "Device already registered: x"), (1011, "Internal error")):
        guest = await stage.opened()
        device_id = (await stage.register(guest))["device_id"]
        stage.transcript.add(guest.name, "sends", f"close [{code}] {reason!r}")
        await guest.connection.close(code, reason)
        guest.ended = guest.last
        await _comes_back(stage, guest, device_id)
        stage.guests[-1].abort()


program_rule(
    "device.returns-after-close",
    "after a close the device comes back, on one connection, with the same id",
    fact("6.5", "devices since Android 13 come back after a close"),
    device=SHOULD,
    cuttlefish_device=MUST,
)(after_close)


async def after_loss(stage: Stage) -> None:
    """The connection ends without a close frame."""
    guest = await stage.opened()
    device_id = (await stage.register(guest))["device_id"]
    guest.drop()
    await _comes_back(stage, guest, device_id)


program_rule(
    "device.returns-after-loss",
    "after a lost connection the device comes back, on one connection, with the same id",
    fact("6.6", "these devices register again with the same id"),
    device=SHOULD,
    cuttlefish_device=MUST,
)(after_loss)


async def half_open(stage: Stage) -> None:
    """The server reads nothing, and answers no ping."""
    guest = await stage.registered()
    await guest.stays()
    guest.freeze()
    await stage.register(await stage.arrival())


program_rule(
    "device.half-open",
    "a device whose pings are not answered comes back on a new connection",
    fact("3.12", "real devices ping every 3 s, and hang up after 10 s without a pong"),
    cuttlefish_device=SHOULD,
)(half_open)


REFUSALS = 4
"""Handshakes that are refused, one after the other."""

STORM = 0.2
"""Seconds that these attempts take at least."""


async def _refused(stage: Stage) -> list[float]:
    guest = await stage.registered()
    stage.host.statuses = [503] * REFUSALS
    stage.host.attempts.clear()
    stage.transcript.add(guest.name, "sends", f"close [1001], and status 503 to {REFUSALS} opening handshakes")
    await guest.connection.close(1001, "")
    times = await stage.attempts(REFUSALS)
    if len(times) < REFUSALS:
        raise NotApplicable(f"the device made {len(times)} attempts within {stage.patience:g} s")
    return [later - earlier for earlier, later in pairwise(times)]


async def no_storm(stage: Stage) -> None:
    """A device that is refused does not try again at once."""
    waits = await _refused(stage)
    if sum(waits) < STORM:
        shown = ", ".join(f"{wait * 1000:.0f} ms" for wait in waits)
        expected = f"{STORM:g} s or more for {REFUSALS} attempts"
        raise Failed("refused handshakes lead to a storm", expected=expected, heard=shown, stage="connect")


program_rule(
    "device.no-storm",
    "a device whose handshakes are refused does not try again at once",
    fact("6.24", "a device that finds no server makes four attempts, after 7 s a current one gives up"),
    device=MUST,
)(no_storm)


async def back_off(stage: Stage) -> None:
    """Each failure makes the wait longer."""
    waits = await _refused(stage)
    if waits[-1] < 1.5 * waits[0]:
        shown = ", ".join(f"{wait * 1000:.0f} ms" for wait in waits)
        raise Failed("the waits do not grow", expected="waits that grow", heard=shown, stage="connect")


program_rule(
    "device.back-off",
    "failures make the wait between attempts longer",
    fact("6.5", "only failures double the wait"),
    device=SHOULD,
)(back_off)
