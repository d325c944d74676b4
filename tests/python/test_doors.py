"""Values of settings, through each way that a setting can take: flag, environment, file, and Python."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import Keepalive, Limits, SignalingServer
from cuttlefish_signaling._settings import ENVIRONMENT, FLAGS, SETTINGS, Flag, Setting
from cuttlefish_signaling._settings.kinds import Choice, Integer, Kind, Seconds, Switch
from cuttlefish_signaling.cli.flags import parser
from cuttlefish_signaling.cli.sources import Found, settings
from cuttlefish_signaling.cli.variables import KNOWN, understood
from cuttlefish_signaling.errors import ConfigError
from cuttlefish_signaling.testing import AsyncFakeDevice

NUMBERS = [flag for flag in FLAGS if isinstance(flag.kind, Integer | Seconds)]
ROWS = [row for row in SETTINGS if isinstance(row.kind, Integer | Seconds)]


def values(kind: Kind) -> list[Any]:
    """The ends of the range, and each value that has a meaning of its own."""
    if isinstance(kind, Integer):
        return [kind.least, kind.most]
    assert isinstance(kind, Seconds)
    return [kind.least or 1e-9, 0.5, 10**9, *([0] if kind.zero else []), *([None] if kind.optional else [])]


def nonsense(kind: Kind) -> list[str]:
    """Texts that are no value: neither on the command line nor in the environment."""
    texts = ["", "abc", "nan", "inf", "-inf", "1_0", " 7", "0x7", "\u0663", "None", "7s", "1e999", "-1"]
    if isinstance(kind, Integer):
        return [*texts, str(kind.least - 1), str(kind.most + 1), "7.0", "none"]
    assert isinstance(kind, Seconds)
    return [*texts, "1e10", *([] if kind.zero else ["0"]), *([] if kind.optional else ["none"])]


def through(*arguments: str, **environment: str) -> Found:
    return settings(parser().parse_args(["serve", *arguments]), environment)


def toml(place: str, text: str) -> str:
    """A file with this value at this place."""
    table, _, key = place.rpartition(".")
    return f"[{table}]\n{key} = {text}\n" if table else f"{key} = {text}\n"


def in_file(path: Path, text: str) -> Found:
    file = path / "server.toml"
    file.write_text(text)
    return through("--config", str(file))


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_each_door_takes_each_documented_number(flag: Flag, tmp_path: Path) -> None:
    for value in values(flag.kind):
        text = "none" if value is None else str(value)
        other = {flag.variable: str(getattr(flag.kind, "least", 7000))}
        for found in (
            through(f"--{flag.name}={text}"),
            through(f"--{flag.name}={text}", **other),
            through(**{flag.variable: text}),
            in_file(tmp_path, toml(flag.place, '"none"' if value is None else text)),
        ):
            assert found[flag.key] == value, text
            if flag.table:
                assert getattr(found[flag.table], flag.place.rpartition(".")[2]) == value, text
            assert flag.key in found.origins, "it counts as given"


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_each_door_refuses_nonsense_by_its_name(flag: Flag, capsys: pytest.CaptureFixture[str]) -> None:
    for text in nonsense(flag.kind):
        with pytest.raises(SystemExit) as end:
            through(f"--{flag.name}={text}")
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert said == f"cuttlefish-signaling: error: --{flag.name}: {text!r} is not {flag.kind.wanted}\n", said
        with pytest.raises(ConfigError) as error:
            through(**{flag.variable: text})
        assert str(error.value) == f"{flag.variable}: {text!r} is not {flag.kind.wanted}"


@pytest.mark.parametrize(
    ("place", "kind"),
    [(flag.place, flag.kind) for flag in FLAGS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_refuses_nonsense_by_its_place(place: str, kind: Kind, tmp_path: Path) -> None:
    texts = ["inf", "-inf", "nan", "[inf]", "{ x = nan }"]
    if isinstance(kind, Integer | Seconds):
        texts += ['"7"', "true", "[7]", "-1", "1e10", '""']
    if isinstance(kind, Switch | Choice):
        texts += ['"x"', "1"]
    for text in texts:
        with pytest.raises(ConfigError) as error:
            in_file(tmp_path, f"# a comment\n\n{toml(place, text)}")
        line = 4 if "." in place else 3
        assert error.value.setting.startswith(f"{tmp_path}/server.toml, line {line}: {place}"), text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_python_refuses_nonsense_by_its_name(row: Setting) -> None:
    wrong: list[Any] = [math.nan, math.inf, -math.inf, -1, "7", "", "none", b"7", True, [7], 10**10]
    if not row.kind.optional:
        wrong.append(None)
    for value in wrong:
        with pytest.raises(ConfigError) as error:
            row.kind.check(row.path, value)
        assert error.value.setting == row.path, value


def test_python_checks_fields_and_keywords() -> None:
    for arguments, name in [
        ({"limits": Limits(max_devices="5")}, "limits.max_devices"),  # type: ignore[arg-type]
        ({"keepalive": Keepalive(interval=math.nan)}, "keepalive.interval"),
        ({"hook_timeout": math.inf}, "hook_timeout"),
        ({"port": "80"}, "port"),
    ]:
        with pytest.raises(ConfigError, match=name):
            SignalingServer(**arguments)  # type: ignore[arg-type]


# Variables that are no settings ---------------------------------------------------------------------------------------


def test_unknown_variable_is_told_with_the_nearest_one() -> None:
    kept, notices = understood({f"{ENVIRONMENT}PROT": "1", f"{ENVIRONMENT}PORT": "80", "PATH": "/bin"})
    assert kept == {f"{ENVIRONMENT}PORT": "80", "PATH": "/bin"}
    assert notices == [
        "CUTTLEFISH_SIGNALING_PROT is not a setting and has no effect; the nearest one is CUTTLEFISH_SIGNALING_PORT"
    ]
    assert understood(dict.fromkeys(KNOWN, "1")) == (dict.fromkeys(KNOWN, "1"), [])


def test_variables_of_kubernetes_are_ignored_with_one_line() -> None:
    names = ("PORT", "PORT_8443_TCP", "WEB_PORT")
    service = dict.fromkeys((f"{ENVIRONMENT}{name}" for name in names), "tcp://10.0.0.1:8443")
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTPS", "PORT_8443_TCP_ADDR", "WEB_SERVICE_HOST"):
        service[f"{ENVIRONMENT}{name}"] = "1"
    kept, notices = understood(service)
    assert kept == {}
    (line,) = notices
    assert all(name in line for name in service)
    assert through(**service)["port"] == through()["port"]


# Waits ----------------------------------------------------------------------------------------------------------------

TIMEOUTS: list[Any] = [math.nan, math.inf, -1, -0.5, "5", True, [5]]


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=repr)
def test_each_wait_checks_its_timeout(timeout: Any) -> None:
    asyncio.run(check_waits(timeout))


async def check_waits(timeout: Any) -> None:
    async with SignalingServer(journal=True) as server, AsyncFakeDevice(server, "a", profile="current") as device:
        for wait in (
            lambda: server.wait_for_device("x", timeout=timeout),
            lambda: server.wait_for_device("a", timeout=timeout),
            lambda: server.wait_for_client(timeout=timeout),
            lambda: server.wait_for_client(timeout=timeout, waiting=True),
            lambda: server.journal.expect("x", timeout=timeout),
            lambda: server.journal.expect_sequence("x", "y", timeout=timeout),
            lambda: server.stop(timeout=timeout),
        ):
            with pytest.raises(ConfigError, match="timeout"):
                wait()
        for coroutine in (
            server.wait_for_device_async("x", timeout=timeout),
            server.wait_for_client_async(timeout=timeout),
            server.wait_for_client_async(timeout=timeout, waiting=True),
            server.journal.expect_async("x", timeout=timeout),
            server.journal.expect_sequence_async("x", "y", timeout=timeout),
            device.recv(timeout),
            device.wait_closed(timeout),
            AsyncFakeDevice(server, "never-opened").wait_closed(timeout),
            device.wait_reconnected(1, timeout),
            server.stop_async(timeout=timeout),
        ):
            with pytest.raises(ConfigError, match="timeout"):
                await coroutine
        with pytest.raises(ConfigError, match="within"):
            server.journal.expect_none("x", within=timeout)
        with pytest.raises(ConfigError, match="timeout"):
            AsyncFakeDevice(server, "b", timeout=timeout)
