"""The modules that the package imports, by their names: no times, which differ from run to run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cuttlefish_signaling import Keepalive, Limits

SLOW = {"asyncio", "ast", "dataclasses", "difflib", "inspect", "json", "logging", "shlex", "socket", "ssl", "textwrap"}
"""Modules of the standard library that take longer to import than all of the package that a server needs."""

SERVER = {
    "cuttlefish_signaling",
    "cuttlefish_signaling._annotations",
    "cuttlefish_signaling._field_docs",
    "cuttlefish_signaling._interpreter",
    "cuttlefish_signaling._lazy_dataclass",
    "cuttlefish_signaling._lifecycle",
    "cuttlefish_signaling._limits",
    "cuttlefish_signaling._live_settings",
    "cuttlefish_signaling._loops",
    "cuttlefish_signaling._server",
    "cuttlefish_signaling._server_addresses",
    "cuttlefish_signaling._server_nodes",
    "cuttlefish_signaling._server_peers",
    "cuttlefish_signaling._timeouts",
    "cuttlefish_signaling._typing",
    "cuttlefish_signaling.errors",
}
"""The modules behind `from cuttlefish_signaling import SignalingServer`."""


def imported(program: str) -> set[str]:
    """The modules that a program imports, and that the interpreter does not import by itself."""
    watched = f"import sys\nbefore = set(sys.modules)\n{program}\nprint(*sorted(set(sys.modules) - before))"
    # Isolated, and without `site`, whose .pth files import modules too.
    path = "import sys; sys.path += " + repr(sys.path)
    command = [sys.executable, "-I", "-S", "-c", f"{path}\n{watched}"]
    return set(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "cuttlefish_signaling"}


def test_import_of_the_server_needs_few_modules() -> None:
    modules = imported("from cuttlefish_signaling import SignalingServer")
    assert ours(modules) == SERVER
    assert modules & (SLOW | {"typing", "re", "collections", "threading"}) == set()


def test_server_that_starts_and_stops_needs_few_modules() -> None:
    modules = imported("from cuttlefish_signaling import SignalingServer\nwith SignalingServer() as server: server.url")
    assert modules & SLOW == set()
    needless = ("faults", "_journal", "_models", "_entry", "_query", "_tls", "_cluster", "_upstream", "_ice_command")
    assert ours(modules) & {f"cuttlefish_signaling.{name}" for name in needless} == set()
    assert len(ours(modules)) <= len(SERVER) + 28, sorted(ours(modules) - SERVER)


def test_fake_device_needs_few_modules_beyond_those_of_websockets() -> None:
    theirs = imported("import websockets.asyncio.client")
    modules = imported("from cuttlefish_signaling.testing import FakeDevice") - theirs
    assert {name for name in modules if name.startswith("websockets")} == set()
    # The modules that `websockets` imports already differ with its version and that of Python.
    assert modules & (SLOW - {"dataclasses", "json"}) == set()
    needless = (
        "_native",
        "_server",
        "_settings",
        "_models",
        "_entry",
        "_filters",
        "_query",
        "_run",
        "testing._cassette",
    )
    assert ours(modules) & {f"cuttlefish_signaling.{name}" for name in needless} == set()
    assert len(ours(modules)) <= 30, sorted(ours(modules))


@pytest.mark.parametrize("name", ["__init__", "__repr__", "__eq__", "__match_args__", "__dataclass_fields__"])
def test_settings_are_dataclasses_from_the_first_use(name: str) -> None:
    """Each attribute of a dataclass is there, whichever is used first."""
    program = (
        f"from cuttlefish_signaling import Limits\nLimits.{name}\n"
        """
import copy, dataclasses, inspect, pickle
limits = Limits(max_devices=7)
assert dataclasses.is_dataclass(Limits) and dataclasses.fields(Limits)[0].name == "max_message_size"
assert repr(limits).startswith("Limits(max_message_size=") and "max_devices=7" in repr(limits)
assert dataclasses.replace(limits, max_devices=8) == Limits(max_devices=8) != limits
assert hash(limits) == hash(Limits(max_devices=7)) and len({limits, Limits(max_devices=7)}) == 1
assert pickle.loads(pickle.dumps(limits)) == copy.copy(limits) == limits
assert inspect.signature(Limits).parameters["max_devices"].default == 16384
assert Limits.__init__.__qualname__ == "Limits.__init__" and Limits.__match_args__[0] == "max_message_size"
for change in (lambda: setattr(limits, "max_devices", 1), lambda: delattr(limits, "max_devices"),
               lambda: setattr(limits, "other", 1)):
    try:
        change()
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError("it is not frozen")
class Mine(Limits):
    pass
assert Mine(max_devices=1).max_devices == 1 and Mine() != Limits() and repr(Mine()).startswith("Mine(")
"""
    )
    imported(program)


def test_modes_of_sockets_are_those_of_the_listeners() -> None:
    """The table of settings repeats them, so that a server does not import `_listen` for them."""
    from cuttlefish_signaling._listen import PRIVATE_MODE, UNIX_MODE
    from cuttlefish_signaling._settings.kinds import CONTROL_LISTENERS, Listeners

    assert (Listeners()._mode, CONTROL_LISTENERS._mode) == (UNIX_MODE, PRIVATE_MODE)


def test_default_settings_are_those_that_a_call_makes() -> None:
    from cuttlefish_signaling._limits import DEFAULT_KEEPALIVE, DEFAULT_LIMITS

    assert (Limits(), Keepalive()) == (DEFAULT_LIMITS, DEFAULT_KEEPALIVE)
    assert vars(DEFAULT_LIMITS) == vars(Limits())
