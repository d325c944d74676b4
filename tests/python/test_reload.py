"""`SignalingServer.reload` and `reload_tls`: what changes, what stays, and what a server that runs cannot change."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import threading
import typing
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import (
    Cluster,
    ConfigError,
    IceServer,
    Jwt,
    Keepalive,
    Limits,
    NotRunningError,
    RestartRequiredError,
    SignalingServer,
    StaticTokens,
    Tls,
    TlsError,
    TurnRest,
    _native,
)
from cuttlefish_signaling._reload import ReloadSettings, changes, needs_restart
from cuttlefish_signaling._settings import GROUPS, KEYWORDS, SETTINGS, Setting
from cuttlefish_signaling._settings.kinds import Choice, Integer, Seconds, Strings, Switch
from cuttlefish_signaling._settings.reload import AT_ONCE, NEW_CONNECTIONS, RELOAD, RESTART

from peers import PATIENCE, assert_relays, peers_of
from reloads import reloads
from test_renewed_certificate import Files, shown
from test_settings import native


def status(server: SignalingServer, token: str | None = None, **headers: str) -> int:
    """The status of `GET /devices`."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{server.url}/devices", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# The table ------------------------------------------------------------------------------------------------------------


def test_each_setting_says_what_a_reload_does_with_it() -> None:
    assert set(RELOAD) == {row.path for row in SETTINGS if row.name not in GROUPS}, "_settings/reload.py names all"
    for row in SETTINGS:
        assert row.reload in ((AT_ONCE, NEW_CONNECTIONS, RESTART) if row.name not in GROUPS else ("",)), row.path


def test_settings_of_a_reload_are_those_of_the_table() -> None:
    hints = {name: str(hint.__forward_arg__) for name, hint in ReloadSettings.__annotations__.items()}
    rows = {row.name: row.kind.annotation for row in KEYWORDS if row.reload != RESTART}
    assert {name: hint.replace("'", '"') for name, hint in hints.items()} == rows
    assert typing.get_type_hints(ReloadSettings)["limits"] is Limits


def _a_key() -> Any:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(json.dumps({"keys": [{"kty": "oct", "k": "A" * 64}]}))
        file.flush()
        return Jwt([file.name])._native


def another(row: Setting) -> Any:
    """A value other than the default."""
    kind = row.kind
    if isinstance(kind, Integer):
        return kind.most if row.name == "device_high_water" else row.default // 2 if row.default > 1 else 2
    if isinstance(kind, Seconds):
        return 7.0
    if isinstance(kind, Switch):
        return not row.default
    if isinstance(kind, Choice):
        return kind.choices[-1]
    return {
        "host": "::1",
        "listen": [("http", "127.0.0.1", 1)],
        "metrics": [("http", "127.0.0.1", 2)],
        "control_api": [("unix", "/tmp/c", 0o600)],
        "control_token": "token-of-the-tests",
        "device_socket": "/tmp/a",
        "control_socket": "/tmp/b",
        "allowed_hosts": ["lab"],
        "allowed_origins": ["https://lab"],
        "trusted_proxies": ["10.0.0.1"],
        "advertise_address": ["10.0.0.1=192.0.2.1"],
        "assets_dir": "/tmp",
        "audit_log": "/tmp/d",
        "ice_servers": "[]",
        "tls": Tls.self_signed()._native,
        "cluster": Cluster("redis://localhost", node="a")._native,
        "upstream": ("ws://localhost", None, False, 10.0),
        "jwt": _a_key(),
    }[row.name]


CORE = [row for row in SETTINGS if row.is_core and row.group != "serve" and row.name != "sockets"]


@pytest.mark.parametrize("row", CORE, ids=lambda row: row.path)
def test_core_replaces_what_the_table_says_and_refuses_the_rest(row: Setting) -> None:
    server = _native.Server(native(), [], _native.Events(1, 1))
    try:
        new = native(**{row.path: another(row)})
        if isinstance(row.kind, Strings) and row.name == "listen":
            new["host"] = "127.0.0.1"
        if row.name == "control_api":
            new["control_token"] = "token-of-the-tests"
        if row.reload == RESTART or row.name in ("tls", "cluster"):  # The server has none.
            with pytest.raises(ConfigError, match=f"^{row.path}: (cannot change|no listener)"):
                server.prepare_reload(new, [], False)
        else:
            server.prepare_reload(new, [], False).apply()
    finally:
        server.stop(1.0)


def test_differences_are_named_by_setting() -> None:
    def settings(**given: Any) -> Any:
        return SignalingServer(**given)._settings

    old = settings()
    assert changes(old, settings()) == []
    assert changes(old, settings(limits=Limits(), allowed_hosts=iter(()))) == []
    new = settings(limits=Limits(max_devices=3, hook_queue=7), keepalive=Keepalive(interval=1), stop_timeout=1, port=1)
    assert changes(old, new) == [
        "port",
        "limits.max_devices",
        "limits.hook_queue",
        "keepalive.interval",
        "stop_timeout",
    ]
    assert [path for path in changes(old, new) if needs_restart(path, old, new)] == ["port"]
    secure = settings(tls=Tls.self_signed())
    assert needs_restart("tls", old, secure) and needs_restart("tls", secure, old)
    assert not needs_restart("tls", secure, settings(tls=Tls.self_signed()))


def test_secret_of_a_cluster_needs_no_restart() -> None:
    def settings(secret: str | None, **given: Any) -> Any:
        cluster = Cluster("redis://localhost", node="a", secret=secret and secret * 32, **given)
        return SignalingServer(cluster=cluster)._settings

    old = settings("x")
    assert changes(old, settings("y")) == ["cluster"]
    assert not needs_restart("cluster", old, settings("y"))
    others = (settings(None), settings("y", name="other"), SignalingServer()._settings)
    assert all(needs_restart("cluster", old, other) and needs_restart("cluster", other, old) for other in others)


# A server that runs ---------------------------------------------------------------------------------------------------


def test_peers_stay_and_changes_are_returned() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device, client = peers.device(), peers.client()
        assert server.reload() == []
        assert server.reload(device_wait_timeout=1, limits=Limits(max_devices=1)) == [
            "device_wait_timeout",
            "limits.max_devices",
        ]
        assert server.reload(device_wait_timeout=1, limits=Limits(max_devices=1)) == []
        assert_relays(client, device)
        assert [device.device_id for device in server.devices()] == ["cvd-1"]


def test_values_that_are_not_given_stay_and_hold_for_the_next_start() -> None:
    server = SignalingServer(allowed_hosts=iter(["lab"]), authorize=StaticTokens(["a"]))
    with server:
        server.set_authorize(StaticTokens(["b"]))
        assert server.reload(allowed_hosts=iter(["lab", "field"])) == ["allowed_hosts"]
        assert [status(server, "b", Host=host) for host in ("lab", "field", "other")] == [200, 200, 403]
        assert server.reload(hook_timeout=3.0) == ["hook_timeout"]
        assert [status(server, "b", Host=host) for host in ("lab", "field", "other")] == [200, 200, 403]
    with server:
        assert [status(server, "b", Host=host) for host in ("lab", "field", "other")] == [200, 200, 403]


def test_hooks_come_change_and_go() -> None:
    with SignalingServer() as server:
        assert status(server) == 200
        assert server.reload(authorize=StaticTokens(["one"])) == ["authorize"]
        assert [status(server, token) for token in (None, "one", "two")] == [401, 200, 401]
        server.reload(authorize=StaticTokens(["two"]))
        assert [status(server, token) for token in (None, "one", "two")] == [401, 401, 200]
        server.reload(authorize=None)
        assert status(server) == 200


def test_equal_ice_servers_are_not_sent_again() -> None:
    def turn(secret: str) -> TurnRest:
        return TurnRest("turn:lab", secret=secret)

    with SignalingServer() as server, peers_of(server) as peers:
        device = peers.device()
        assert server.reload(ice_servers=[IceServer("stun:a")]) == ["ice_servers"]
        assert device.receive()["ice_servers"] == [{"urls": ["stun:a"]}]
        assert server.reload(ice_servers=[{"urls": ["stun:a"]}], hook_timeout=2) == ["hook_timeout"]
        assert server.reload(ice_servers=turn("a")) == ["ice_servers"]
        assert device.receive()["ice_servers"][0]["urls"] == ["turn:lab"]
        assert server.reload(ice_servers=turn("a")) == []
        assert server.reload(ice_servers=turn("b")) == ["ice_servers"]
        assert device.receive()["ice_servers"][0]["urls"] == ["turn:lab"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"hook_timeout": 0}, "hook_timeout: must be"),
        ({"allowed_origins": ["x"]}, "allowed_origins: 'x' is not an origin"),
        ({"trusted_proxies": ["x"]}, "trusted_proxies: "),
        ({"assets_dir": "/nowhere/at/all"}, "assets_dir: /nowhere/at/all is not a directory"),
        ({"limits": Limits(device_low_water=2**29)}, "limits.device_low_water: must be at most"),
        ({"ice_servers": [{"urls": "x"}]}, "ice_servers"),
        ({"authorize": lambda: None}, "authorize: "),
        ({"prot": 1}, "prot: is not a setting"),
        ({"workers": 2}, "workers: cannot change while the server runs"),
        ({"tls": Tls.self_signed()}, "tls: cannot change while the server runs"),
    ],
)
def test_one_wrong_value_leaves_all_old_ones(wrong: dict[str, Any], error: str) -> None:
    good = {"authorize": StaticTokens(["new"]), "allowed_hosts": ["new"], "ice_servers": [IceServer("stun:new")]}
    with SignalingServer(authorize=StaticTokens(["old"]), allowed_hosts=["old"]) as server:
        with pytest.raises(ConfigError) as caught:
            server.reload(**{**good, **wrong})
        assert str(caught.value).startswith(error), caught.value
        assert [status(server, "old", Host=host) for host in ("old", "new")] == [200, 403]
        assert status(server, "new") == 401
        assert server.reload() == []


def test_settings_that_need_a_restart_are_all_named() -> None:
    with SignalingServer() as server:
        with pytest.raises(RestartRequiredError) as caught:
            server.reload(port=1, workers=2, hook_timeout=1.0)  # type: ignore[call-arg]
        assert caught.value.settings == ("port", "workers")
        assert server.reload(hook_timeout=5.0) == []


def test_open_address_needs_authorize_after_a_reload_too() -> None:
    with SignalingServer(host="0.0.0.0", authorize=StaticTokens(["a"])) as server:
        with pytest.raises(ConfigError, match=r"can be reached from other machines"):
            server.reload(authorize=None)
        assert status(server) == 401
        assert server.reload(authorize=None, allow_unauthenticated=True) == ["authorize", "allow_unauthenticated"]
        assert status(server) == 200


def test_server_that_does_not_run_cannot_reload() -> None:
    server = SignalingServer(tls=Tls.self_signed())
    for call in (server.reload, server.reload_tls):
        with pytest.raises(NotRunningError):
            call()
    with server:
        pass
    with pytest.raises(NotRunningError):
        server.reload()


def test_reloads_of_many_threads_and_a_stop_end() -> None:
    server = SignalingServer(authorize=StaticTokens(["a"])).start()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in itertools.count():
                server.reload(hook_timeout=1.0 + number + turn % 7, authorize=StaticTokens([f"{number}"]))
        except NotRunningError:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    answers = {status(server, "2") for _ in range(20)}
    assert server.stop()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not failures
    assert answers <= {200, 401}


@pytest.mark.timeout(600)  # A hundred pairs share a busy machine.
def test_reloads_under_load_lose_no_message_and_no_registration() -> None:
    assert asyncio.run(reloads(20)) > 0


# Certificates ---------------------------------------------------------------------------------------------------------


def test_reload_tls_reads_the_files_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with SignalingServer(tls=files.tls(), tls_check_interval=None) as server, peers_of(server) as peers:
        device, client = peers.device(), peers.client()
        old = shown(server.port)
        assert not server.reload_tls()
        files.renew()
        assert server.reload_tls()
        assert shown(server.port) != old
        assert server.tls is not None and server.tls.fingerprint == shown(server.port)
        files.key.write_text("none")
        with pytest.raises(TlsError, match=str(files.key)):
            server.reload_tls()
        assert server.tls.fingerprint == shown(server.port)
        assert_relays(client, device)


def test_reload_tls_takes_another_certificate() -> None:
    one, other = Tls.self_signed(), Tls.self_signed()
    with SignalingServer(tls=one) as server:
        with pytest.raises(ConfigError, match="a certificate in memory"):
            server.reload_tls()
        assert not server.reload_tls(one)
        assert server.reload_tls(other)
        assert shown(server.port) == other.fingerprint
    with SignalingServer() as server, pytest.raises(ConfigError, match="no certificate"):
        server.reload_tls()
