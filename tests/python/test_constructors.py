"""Arguments of public classes and methods: values of a wrong type are a ConfigError that names the argument."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import (
    Cluster,
    ConfigError,
    FaultError,
    FilterError,
    Grant,
    Headers,
    IceCommand,
    IceServer,
    Refused,
    SignalingServer,
    StaticTokens,
    Tls,
    TlsError,
    TurnRest,
)
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, AttachedServer, FakeClient, FakeDevice

NO_TEXTS: list[Any] = [None, True, 7, 1.5, math.nan, b"x", [], ["x"], {}, object(), len, "\ud800"]
NO_LISTS: list[Any] = [None, True, 7, math.nan, "x", b"x", [7], [None], [["x"]], object(), len, ["\ud800"]]
NO_SECONDS: list[Any] = [True, -1, math.nan, math.inf, "5", "", b"5", [], [5], {}, object(), len, 10**400]
NO_MAPPINGS: list[Any] = [True, 7, "x", b"x", ["x"], [7], object(), len, {"x"}]
TURN: dict[str, Any] = {"urls": "turn:t", "secret": "s"}
ENGINE: dict[str, Any] = {"url": "redis://localhost", "node": "a"}
NO_OPTIONAL_TEXTS = [value for value in NO_TEXTS if value is not None]

ARGUMENTS: list[tuple[str, Callable[..., Any], dict[str, Any], list[Any]]] = [
    ("TurnRest.urls", TurnRest, TURN, [value for value in NO_LISTS if value != "x"]),
    ("TurnRest.secret", TurnRest, TURN, NO_TEXTS),
    ("TurnRest.ttl", TurnRest, TURN, [None, 0, *NO_SECONDS]),
    ("TurnRest.name", TurnRest, TURN, NO_TEXTS),
    ("TurnRest.stun", TurnRest, TURN, NO_LISTS),
    ("now", TurnRest(**TURN).config, {}, [True, math.nan, math.inf, "5", b"5", [], object(), 10**400]),
    ("IceCommand.argv", IceCommand, {}, [*NO_LISTS, {}, {"x"}]),
    ("IceCommand.timeout", IceCommand, {"argv": ["x"]}, [None, 0, *NO_SECONDS]),
    ("IceCommand.ttl", IceCommand, {"argv": ["x"]}, [None, 0, *NO_SECONDS]),
    ("IceCommand.fallback", IceCommand, {"argv": ["x"]}, NO_LISTS),
    ("IceServer.urls", IceServer, {}, [None, True, 7, b"x", [7], [None], {}, {"x"}, object(), len, "\ud800"]),
    ("IceServer.username", IceServer, {"urls": "turn:t"}, [value for value in NO_TEXTS if value is not None]),
    ("IceServer.credential", IceServer, {"urls": "turn:t"}, [value for value in NO_TEXTS if value is not None]),
    ("StaticTokens.tokens", StaticTokens, {}, [None, True, 7, "x", b"x", [], {}, [7], [b"x"], [["x"]], {7: 1}, len]),
    ("StaticTokens.roles", StaticTokens, {"tokens": ["x"]}, NO_LISTS),
    ("Grant.devices", Grant, {}, [value for value in NO_LISTS if value is not None]),
    ("Refused.reason", Refused, {}, [True, 7, b"x", [], {}, object(), len]),
    ("Refused.status", Refused, {}, [None, "403", 403.5, [], True, 200]),
    ("Cluster.url", Cluster, ENGINE, [*NO_TEXTS, "", "localhost", "http://localhost", "redis://", "redis://a,b"]),
    ("Cluster.name", Cluster, ENGINE, [*NO_TEXTS, "", "a b", "{a}"]),
    ("Cluster.listen", Cluster, ENGINE, [*NO_TEXTS, "", "7443", ":7443", "localhost:7443", "127.0.0.1:70000"]),
    ("Cluster.address", Cluster, ENGINE, [*NO_OPTIONAL_TEXTS, "", "node", "node:0"]),
    (
        "Cluster.secret",
        Cluster,
        ENGINE,
        [*(value for value in NO_LISTS if value not in (None, [None])), "", "\n", "x" * 31, ["x" * 32, "x"], b"x" * 32],
    ),
    ("Cluster.node", Cluster, ENGINE, [*NO_OPTIONAL_TEXTS, "", "a b", "x" * 65]),
    ("Cluster.ca", Cluster, ENGINE, [True, 7, b"x", [], {}, object(), len, "", "a\0b", "\ud800", "/nowhere/ca.pem"]),
    ("Cluster.on_outage", Cluster, ENGINE, [None, True, 7, "", "Hold", b"hold", [], {}, object()]),
    ("Cluster.device_id_template", Cluster, ENGINE, [*NO_OPTIONAL_TEXTS, "", "{node}", "{node}{id}", "{id}-{x}"]),
    ("Headers.items", Headers, {}, [None, True, 7, "x", b"x", ["x"], ["xy"], [("x", 7)], [("x",)], {"x": 7}, len]),
]


def refused(make: Callable[[], Any], setting: str) -> str:
    with pytest.raises(ConfigError) as error:
        make()
    assert error.value.setting.startswith(setting)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "make", "others", "values"), ARGUMENTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_wrong_type_is_a_config_error_with_the_argument(
    name: str, make: Callable[..., Any], others: dict[str, Any], values: list[Any]
) -> None:
    setting, _, argument = name.rpartition(".")
    for value in values:
        text = refused(lambda: make(**{**others, argument: value}), "Headers" if setting == "Headers" else name)  # noqa: B023
        assert "NoneType" not in text or value is None
        assert "Traceback" not in text


@pytest.mark.parametrize("given", [{"workers": True}, {"port": False}, {"drain": False}, {"journal": 0}])
def test_value_that_equals_a_default_of_another_type_is_refused(given: dict[str, Any]) -> None:
    """Defaults are not checked with each server. `True == 1` in Python."""
    with pytest.raises(ConfigError) as caught:
        SignalingServer(**given)
    assert caught.value.setting in given


def test_lists_of_defaults_are_not_shared_by_servers() -> None:
    first, second = SignalingServer(), SignalingServer()
    first._settings.native["allowed_hosts"].append("example.com")
    assert "example.com" not in second._settings.native["allowed_hosts"]
    assert "example.com" not in SignalingServer()._settings.native["allowed_hosts"]


def test_right_types_are_taken() -> None:
    assert TurnRest(("turn:a", "turns:b"), secret="s", ttl=1, name="", stun={"stun:c"})
    assert IceServer(("stun:a", "stun:b")) and IceServer("turn:a", None, None)
    assert StaticTokens({"a": 1}, roles=iter(["http"])) and StaticTokens(iter(["a"]))
    assert Headers({"X-A": "b"})["x-a"] == Headers([("x-A", "b")])["X-a"] == "b"
    assert Refused(None).reason is None
    assert Tls.self_signed(iter(["localhost"]))  # type: ignore[arg-type]
    assert Cluster("redis://localhost", secret=iter(["x" * 32]), node="a-b", device_id_template="{node}:{id}")
    assert Cluster("redis://localhost", secret="x" * 32 + "\r\n\n" + "y" * 32 + "\n", on_outage="hold")


# Certificates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def descriptor() -> Iterator[int]:
    """A descriptor that is open, and has to stay open."""
    found = os.open("/dev/null", os.O_RDONLY)
    yield found
    os.fstat(found)
    os.close(found)


def test_number_is_no_path_of_a_certificate_and_its_descriptor_stays_open(descriptor: int, tmp_path: Path) -> None:
    paths: list[Any] = [descriptor, True, [], 1.5, object(), "a\0b"]
    for value in paths:
        makers: list[Callable[[], Any]] = [
            lambda: Tls.from_files(value, value),  # noqa: B023
            lambda: Tls.self_signed(client_ca=value),  # noqa: B023
            lambda: Tls.kept_in(tmp_path, client_ca=value),  # noqa: B023
        ]
        for make in makers:
            with pytest.raises(TlsError, match=r"^tls: cannot read the "):
                make()
    os.fstat(descriptor)


def test_pem_and_names_of_a_wrong_type_are_tls_errors() -> None:
    wrong: list[Any] = [None, True, 7, [], [1], {}, object(), len]
    for value in wrong:
        with pytest.raises(
            TlsError, match=r"^tls: the certificate must be PEM, a string or bytes, got a value of type"
        ):
            Tls.from_pem(value, "x")
        with pytest.raises(TlsError, match=r"^tls: the private key must be PEM"):
            Tls.from_pem("x", value)
    names: list[Any] = [None, True, 7, "localhost", b"x", [7], [None], ["\ud800"], object()]
    for value in names:
        with pytest.raises(TlsError, match=r"^tls: names must be a list of strings, got "):
            Tls.self_signed(value)
    directories: list[Any] = [None, True, 7, [], object(), ""]
    for value in directories:
        with pytest.raises(TlsError, match=r"^tls: directory must be a path, got "):
            Tls.kept_in(value)


# A server that runs, and peers ----------------------------------------------------------------------------------------


def test_methods_of_a_server_name_the_argument() -> None:
    with SignalingServer() as server:
        for value in NO_TEXTS:
            refused(lambda: server.wait_for_device(value, timeout=0), "device_id")  # noqa: B023
            refused(lambda: server.disconnect_device(value), "device_id")  # noqa: B023
            refused(lambda: server.disconnect_client(value, 1), "device_id")  # noqa: B023
            refused(lambda: server.launch_cvd_flags(value), "device_id") if value != "\ud800" else None  # noqa: B023
            if value is not None:
                refused(lambda: server.clients(value), "device_id")  # noqa: B023
                refused(lambda: server.waiting(value), "device_id")  # noqa: B023
                refused(lambda: server.wait_for_client(value, timeout=0), "device_id")  # noqa: B023
                refused(lambda: server.wait_for_client(value, timeout=0, waiting=True), "device_id")  # noqa: B023
                refused(lambda: server.launch_cvd_flags(host=value), "host")  # noqa: B023
        numbers: list[Any] = [None, True, -1, 2**32, 1.5, "1", [], object()]
        for number in numbers:
            refused(lambda: server.disconnect_client("a", number), "client_id")  # noqa: B023
        for seconds in [None, *NO_SECONDS]:
            refused(lambda: server.clock.advance(seconds), "seconds")  # noqa: B023


def test_faults_name_the_argument() -> None:
    with SignalingServer() as server:
        faults: Any = server.faults
        for method, argument in [
            ("disconnect", "code"),
            ("disconnect", "after"),
            ("reorder", "window"),
            ("truncate", "keep"),
        ]:
            wrong: list[Any] = [None, "1", [], {}, -1, math.nan]
            for value in wrong:
                with pytest.raises(FaultError, match=argument):
                    getattr(faults, method)(**{argument: value})
        for argument in ("to", "direction", "device", "client", "type"):
            filters: list[Any] = [True, 1.5, [], {}, {"x"}, b"x"]
            for value in filters:
                with pytest.raises(FilterError, match=argument):
                    faults.drop(**{argument: value})


@pytest.mark.parametrize("peer", [AsyncFakeDevice, AsyncFakeClient, FakeDevice, FakeClient])
def test_fake_peers_name_the_argument(peer: Any) -> None:
    for value in [None, True, 7, b"ws://x", [], {}, object(), len, "x", ""]:
        refused(lambda: peer(value, "cvd-1"), "server")  # noqa: B023
    for value in NO_MAPPINGS:
        refused(lambda: peer("ws://127.0.0.1:1", "cvd-1", headers=value), "headers")  # noqa: B023
    for value in [None, 0, *NO_SECONDS]:
        refused(lambda: peer("ws://127.0.0.1:1", "cvd-1", timeout=value), "timeout")  # noqa: B023


def test_attached_server_names_the_argument() -> None:
    urls: list[Any] = [None, True, 7, b"http://x", [], {}, {"x"}, object(), "x", "", "ftp://x", "http://"]
    for url in urls:
        refused(lambda: AttachedServer(url), "signaling_url")  # noqa: B023
    for value in [None, 0, *NO_SECONDS]:
        refused(lambda: AttachedServer("http://127.0.0.1:1", timeout=value), "timeout")  # noqa: B023
