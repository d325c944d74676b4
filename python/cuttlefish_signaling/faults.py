"""Fault injection: drop, delay, duplicate, reorder, truncate, stall or throttle forwards, or end a connection.

    with server.faults.drop(to="client", type="ice-candidate", nth=2) as fault:
        ...
    fault.assert_struck()

A fault acts in the Rust relay, on forwards only, and inside its `with` only. Faults apply in the order in which they
were armed: a forward that one fault has held back goes on to the faults behind it.
"""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ._annotations import late_annotations
from ._checks import check_seconds
from ._filters import check_direction, check_ids, check_names, check_type
from .errors import ConfigError, ExpectationError, FaultError, FilterError, NotRunningError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._view import View

__all__ = ["Fault", "Faults", "Narrow"]

CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""The codes that a close frame may have (RFC 6455, 7.4)."""

FORWARDS = {"client->device": "device", "device->client": "client"}


class Narrow(TypedDict, total=False):
    """Selects the forwards of a fault. An absent key selects all."""

    to: Literal["device", "client"]
    """The role of the receiver. It has the same effect as `direction`."""
    direction: Literal["client->device", "device->client"]
    device: str
    """Forwards of this device and its clients. The device must be registered, unless `absent_ok=True`.

    In a cluster, it must be a device of this node: faults act on the node of the device, wherever its clients are. A
    fault without `device` acts on the devices of this node.
    """
    client: int
    """Forwards to or from the client with this id."""
    type: str
    """Forwards whose payload has this `"type"`."""
    nth: int
    """Only the n-th match, counting from 1."""
    probability: float
    """Only this share of the matches, from 0 to 1, chosen at random; see `Faults.seed`."""
    times: int
    """At most this many matches."""
    absent_ok: bool
    """The device may register later."""
    check_type: bool
    """False allows a `type` that looks misspelled."""


class Fault:
    """One fault. It is armed inside a `with`, or from `arm()` to `remove()`."""

    def __init__(
        self, run: View | None, effect: str, numbers: tuple[float | None, float | None], narrow: Narrow
    ) -> None:
        self._its_run = run
        self._effect = effect
        self._numbers = numbers
        self._narrow = narrow
        self._filters = _filters(narrow)
        self._id: int | None = None
        self._stats = (0, 0, 0)

    @property
    def _run(self) -> View:
        return _of_server(self._its_run)

    def arm(self) -> Self:
        """Arms the fault behind those that are armed, from the next forward on. Its counters begin at 0.

        Raises:
            FaultError: It is armed already, or concerns a device that is not registered, or that is on another node of
                the cluster. The error names the node.
            NotRunningError: The server has stopped.
        """
        if self._id is not None:
            raise FaultError(f"{self!r} is armed already; remove() it first")
        self._run.native.changes()  # Raises NotRunningError after a stop.
        absent_ok = bool(self._narrow.get("absent_ok"))
        if not absent_ok:
            self._check_device(self._narrow.get("device"))
        self._stats = (0, 0, 0)
        self._id = self._run.arm(self._effect, self._numbers, self._filters, absent_ok)
        return self

    def _check_device(self, device: str | None) -> None:
        """Raises FaultError for a device that is not registered, or not on this node of a cluster."""
        if device is None:
            return
        if self._run.device(device) is None:
            there = ", ".join(repr(device.device_id) for device in self._run.devices()) or "none"
            raise FaultError(
                f"{self!r}: device {device!r} is not registered (registered: {there}); "
                "register the device first, or pass absent_ok=True"
            )
        if (node := self._run.elsewhere(device)) is not None:
            raise FaultError(
                f"{self!r}: device {device!r} is on node {node!r}, and faults act on the node of the device: arm it on "
                f"the server that is node {node!r}, or pass absent_ok=True for a device that registers here later"
            )

    def remove(self) -> None:
        """Disarms the fault, and relays the forwards that it holds. Does nothing if it is not armed.

        In a cluster, a RuntimeWarning says that no forward matched a fault without `device`, where other nodes have
        devices and this one has none.
        """
        was_armed = self.armed
        if text := self._disarm() or (self._could_not_match() if was_armed else None):
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _disarm(self) -> str | None:
        """Does `remove`, and returns the text of its warning."""
        if self._id is None:
            return None
        self._stats, self._id = self._run.native.faults.disarm(self._id) or self._stats, None
        if not (overran := self._stats[2]):
            return None
        return (
            f"{self!r} dropped {overran} forwards: the faults already held as many as Limits.held_by_faults and "
            "Limits.held_by_faults_bytes allow"
        )

    def _could_not_match(self) -> str | None:
        """Returns the text of a warning, if no forward matched and all devices are on other nodes."""
        if self._stats[0] or "device" in self._narrow:
            return None
        named, has_own = self._elsewhere()
        if not named or has_own:
            return None
        return f"{self!r} matched no forward: faults act on the node of a device, and this node has none; {named}"

    def _elsewhere(self) -> tuple[str, bool]:
        """Names the devices of other nodes that it selects, and says whether this node has devices."""
        from ._view import first_of

        try:
            devices, has_own = self._run.devices_elsewhere()
        except NotRunningError:
            return "", True
        wanted = self._narrow.get("device")
        names = [f"{one.device_id!r} (node {one.node!r})" for one in devices if wanted in (None, one.device_id)]
        return f"devices of other nodes: {first_of(names)}" if names else "", has_own

    def __enter__(self) -> Self:
        return self.arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _counted(self) -> tuple[int, int, int]:
        if self._id is not None:
            self._stats = self._run.native.faults.stats(self._id) or self._stats
        return self._stats

    @property
    def armed(self) -> bool:
        """Whether it is armed."""
        return self._id is not None

    @property
    def hits(self) -> int:
        """The number of forwards that it was applied to."""
        return self._counted()[1]

    @property
    def matched(self) -> int:
        """The number of forwards that matched, before `nth`, `probability` and `times` chose among them."""
        return self._counted()[0]

    def assert_struck(self, times: int | None = None) -> None:
        """Raises ExpectationError if the fault was never applied, or not exactly `times` times."""
        matched, hits, _ = self._counted()
        if hits == times or (times is None and hits):
            return
        wanted = "never struck" if times is None else f"struck {hits} times, expected {times}"
        lines = [f"{self!r} {wanted}; forwards that matched: {matched}"]
        if not matched and (named := self._elsewhere()[0]):
            lines.append(f"faults act on the node of a device; {named}")
        if self._run.native.journal.count:
            from ._journal import Journal

            transcript = Journal(self._run).transcript().splitlines()
            lines += ["what was said:", *(f"  {line}" for line in transcript[-40:])]
        raise ExpectationError("\n".join(lines))

    def __repr__(self) -> str:
        numbers = [f"{number:g}" for number in self._numbers if number is not None]
        narrow = [f"{name}={value!r}" for name, value in self._narrow.items()]
        return f"{self._effect}({', '.join([*numbers, *narrow])})"


class Faults:
    """Makes faults for one server; get it as `server.faults`. See `Narrow` for the arguments that select forwards.

    Each method raises FaultError, FilterError or ConfigError for an invalid argument.
    """

    def __init__(self, run: View | None) -> None:
        """Without a run, the arguments of faults are checked, and no fault can be armed."""
        self._run = run

    def seed(self, seed: int) -> None:
        """Sets the seed of the random choices, for faults that are armed from now on.

        The default is 0: the same forwards in the same order have the same result in each run.
        """
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ConfigError("seed", f"must be a whole number from 0 to 2**64 - 1, got {seed!r}")
        _of_server(self._run).native.faults.seed(seed)

    def drop(self, **narrow: Unpack[Narrow]) -> Fault:
        """Drops forwards, without an error to any peer. `stats()` counts them as `dropped`."""
        return Fault(self._run, "drop", (None, None), narrow)

    def duplicate(self, **narrow: Unpack[Narrow]) -> Fault:
        """Delivers forwards twice."""
        return Fault(self._run, "duplicate", (None, None), narrow)

    def truncate(self, keep: float = 0.5, **narrow: Unpack[Narrow]) -> Fault:
        """Delivers the first part of a message only: invalid JSON. `keep` is the size of the part, from 0 to 1."""
        _check_range("keep", keep, 0.0, 1.0)
        return Fault(self._run, "truncate", (float(keep), None), narrow)

    def delay(self, ms: float, *, jitter: float = 0.0, **narrow: Unpack[Narrow]) -> Fault:
        """Delays forwards by `ms` milliseconds, plus or minus up to `jitter`.

        Delayed forwards keep their order. Other forwards overtake them.
        """
        check_seconds("ms", ms, unit="milliseconds")
        check_seconds("jitter", jitter, unit="milliseconds")
        return Fault(self._run, "delay", (ms / 1000, jitter / 1000), narrow)

    def reorder(self, window: int = 2, *, hold: float = 0.5, **narrow: Unpack[Narrow]) -> Fault:
        """Collects `window` forwards at a time, and delivers them in another order.

        No forward waits longer than `hold` seconds for the window to fill. A single forward is delivered as it is.
        """
        _check_whole("window", window, 2, 1000)
        check_seconds("hold", hold)
        return Fault(self._run, "reorder", (float(window), float(hold)), narrow)

    def stall(self, seconds: float | None = None, **narrow: Unpack[Narrow]) -> Fault:
        """Holds forwards back for `seconds` from the first, or until it is removed. Then delivers all in order."""
        check_seconds("seconds", seconds, optional=True)
        return Fault(self._run, "stall", (None if seconds is None else float(seconds), None), narrow)

    def bandwidth(self, bytes_per_s: float, **narrow: Unpack[Narrow]) -> Fault:
        """Throttles forwards to the speed of a link of `bytes_per_s`, which all of them share."""
        _check_range("bytes_per_s", bytes_per_s, 1.0, 1e12)
        return Fault(self._run, "bandwidth", (float(bytes_per_s), None), narrow)

    def disconnect(self, after: int = 1, *, code: int = 1011, **narrow: Unpack[Narrow]) -> Fault:
        """Closes the receiver's connection with this code (RFC 6455, 7.4) after the `after`-th forward, once."""
        if not isinstance(code, int) or code not in CLOSE_CODES:
            raise FaultError(
                f"code={code!r} cannot be sent in a close frame; use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            )
        return Fault(self._run, "disconnect", (float(code), None), _behind(after, narrow))

    def reset(self, after: int = 1, **narrow: Unpack[Narrow]) -> Fault:
        """Resets the receiver's connection (TCP RST, no close frame) after the `after`-th forward, once."""
        return Fault(self._run, "reset", (None, None), _behind(after, narrow))

    def __repr__(self) -> str:
        return "<Faults>"


def _of_server(run: View | None) -> View:
    if run is None:
        raise NotRunningError("these faults belong to no server")
    return run


def _behind(after: int, narrow: Narrow) -> Narrow:
    if "nth" in narrow:
        raise FilterError("nth and after have the same meaning here; pass after only")
    _check_whole("after", after, 1, 2**53)
    return {**narrow, "nth": after}


def _filters(narrow: Narrow) -> dict[str, Any]:
    """Checks the filters, and returns them as arguments of the core."""
    check_names(narrow, Narrow.__annotations__)
    to, direction = narrow.get("to"), narrow.get("direction")
    if to is not None and to not in FORWARDS.values():
        raise FilterError(f"to={to!r} is neither 'device' nor 'client'")
    check_direction(direction, FORWARDS)
    if direction is not None:
        if to is not None and to != FORWARDS[direction]:
            raise FilterError(f"to={to!r} and direction={direction!r} contradict each other")
        to = FORWARDS[direction]  # type: ignore[assignment]
    check_ids(narrow.get("device"), narrow.get("client"))
    for name in ("absent_ok", "check_type"):
        if not isinstance(narrow.get(name, False), bool):
            raise FilterError(f"{name}={narrow.get(name)!r} is neither True nor False")
    if narrow.get("check_type", True):
        check_type(narrow.get("type"))
    for name in ("nth", "times"):
        if (value := narrow.get(name)) is not None:
            _check_whole(name, value, 1, 2**53)
    probability = narrow.get("probability", 1.0)
    _check_range("probability", probability, 0.0, 1.0)
    return {
        "to": to,
        "device": narrow.get("device"),
        "client": narrow.get("client"),
        "payload_type": narrow.get("type"),
        "nth": narrow.get("nth"),
        "times": narrow.get("times"),
        "probability": float(probability),
    }


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FaultError(f"{name}={value!r} is not a whole number from {least} to {most}")


def _check_range(name: str, value: Any, least: float, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise FaultError(f"{name}={value!r} is not a number from {least:g} to {most:g}")


late_annotations(globals())
