"""`cuttlefish_signaling.mobly`: the interface of Mobly's controller manager, and the entries of a test bed."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from mobly import controller_manager, signals

from cuttlefish_signaling import BindError, ConfigError, SignalingServer, Tls, UnreachableError
from cuttlefish_signaling import mobly as signaling
from cuttlefish_signaling.testing import AttachedServer, FakeDevice


def manager(config: Any) -> Any:
    """Mobly's manager of the controllers of a test class."""
    return controller_manager.ControllerManager("SessionTest", {"CuttlefishSignaling": config})


def test_mobly_starts_and_stops_the_servers() -> None:
    controllers = manager([{"name": "main", "device_wait_timeout": 5}, {"journal": False}])
    main, second = controllers.register_controller(signaling, min_number=2)
    assert signaling.named([main, second], "main") is main and signaling.named([main, second], "server-2") is second
    with FakeDevice(main, "cvd-1"):
        (record,) = controllers.get_controller_info_records()
        first, other = record.controller_info
        assert first["devices"] == ["cvd-1"] and other["devices"] == [] and first["url"] == main.url
    assert main.journal.count > 0
    controllers.unregister_controllers()
    assert not main.is_running and not second.is_running
    with pytest.raises(ConfigError, match="name: there is no server 'main'; there are None, None"):
        signaling.named([main, second], "main")


@pytest.mark.parametrize(("config", "count"), [("*", 1), (3, 3), ([{}], 1), ([], 0)])
def test_short_forms(config: Any, count: int) -> None:
    servers = signaling.create(config)
    assert len(servers) == count and all(server.is_running for server in servers)
    signaling.destroy(servers)
    assert not any(server.is_running for server in servers)


def test_too_few_servers_are_stopped() -> None:
    started: list[Any] = []
    controllers = manager([{}])
    create = signaling.create

    def noted(configs: Any) -> Any:
        started.extend(create(configs))
        return list(started)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signaling, "create", noted)
        with pytest.raises(signals.ControllerError, match="at least 2 controller objects, got 1"):
            controllers.register_controller(signaling, min_number=2)
    assert not started[0].is_running


def test_server_that_does_not_start_stops_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[SignalingServer] = []
    start = SignalingServer.start

    def noted(server: SignalingServer) -> None:
        started.append(server)
        start(server)

    monkeypatch.setattr(SignalingServer, "start", noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(BindError):
            signaling.create([{}, {"port": taken.getsockname()[1]}])
    assert len(started) == 2 and not started[0].is_running


def test_one_that_fails_to_stop_keeps_no_other_running(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuttlefish_signaling import ServerFailedError

    servers = signaling.create(3)
    stop = SignalingServer.stop

    def fails(server: SignalingServer) -> None:
        stop(server)
        if server is servers[0]:
            raise ServerFailedError("a hook failed")

    monkeypatch.setattr(SignalingServer, "stop", fails)
    with pytest.raises(ServerFailedError, match="a hook failed"):
        signaling.destroy(servers)
    assert not any(server.is_running for server in servers)


def test_server_that_runs_already_is_left_alone(tmp_path: Path) -> None:
    tls = Tls.self_signed()
    assert tls.certificate_pem
    (tmp_path / "ca.pem").write_text(tls.certificate_pem)
    with SignalingServer(tls=tls) as server:
        (attached,) = signaling.create([{"name": "lab", "url": server.url, "ca": str(tmp_path / "ca.pem")}])
        assert isinstance(attached, AttachedServer) and signaling.named([attached], "lab") is attached
        assert signaling.get_info([attached])[0]["running"] is True
        assert signaling.save_transcripts([attached], tmp_path / "out") == []
        signaling.destroy([attached])
        assert server.is_running
    assert signaling.get_info([attached])[0]["running"] is False
    with pytest.raises(UnreachableError):
        signaling.create([{"url": "http://127.0.0.1:1"}])


@pytest.mark.parametrize("tls", [True, ["localhost", "127.0.0.1"], "files"])
def test_tls(tls: Any, tmp_path: Path) -> None:
    if tls == "files":
        import staged_servers as staged

        staged.certificate(tmp_path, "127.0.0.1")
        tls = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
    (server,) = signaling.create([{"tls": tls, "keepalive": {"interval": 20}, "limits": {"max_devices": 1}}])
    try:
        assert server.url.startswith("https://")
    finally:
        signaling.destroy([server])


def test_transcripts_are_files(tmp_path: Path) -> None:
    servers = signaling.create([{"name": "a/b"}, {"journal": False}, {}])
    with FakeDevice(servers[0], "cvd-1"):
        files = signaling.save_transcripts(servers, tmp_path / "new" / "folder")
    signaling.destroy(servers)
    assert [file.name for file in files] == ["signaling-a_b.txt", "signaling-server-3.txt"]
    assert "register" in files[0].read_text()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("all", "CuttlefishSignaling: must be a list with a dictionary for each server, .* got a value of type str"),
        (0, "CuttlefishSignaling: must be a list"),
        (True, "CuttlefishSignaling: must be a list"),
        ([1], "CuttlefishSignaling: must be a list"),
        ([{}, {"prot": 1}], r"CuttlefishSignaling\[1\].prot: there is no such setting; did you mean 'port'\?"),
        ([{"port": "x"}], r"CuttlefishSignaling\[0\].port: must be a whole number, got 'x'"),
        ([{"limits": {"max_device": 1}}], r"CuttlefishSignaling\[0\].limits.max_device: .* did you mean 'max_devices'"),
        ([{"limits": {"max_devices": -1}}], r"CuttlefishSignaling\[0\].limits.max_devices: must be between"),
        ([{"limits": 5}], r"CuttlefishSignaling\[0\].limits: must be a dictionary of settings"),
        ([{"authorize": "x"}], r"CuttlefishSignaling\[0\].authorize: takes an object of Python"),
        ([{"url": "x"}], r"CuttlefishSignaling\[0\].url: must be a URL"),
        ([{"url": "http://x", "port": 1}], r"CuttlefishSignaling\[0\].port: is a setting of a server of this process"),
        ([{"url": "https://x", "ca": "/nowhere"}], r"CuttlefishSignaling\[0\].ca: cannot use '/nowhere': No such file"),
        ([{"ca": "x"}], r"CuttlefishSignaling\[0\].ca: belongs to `url`"),
        ([{"tls": "yes"}], r"CuttlefishSignaling\[0\].tls: must be true, a list of names, or"),
        ([{"name": "a"}, {"name": "a"}], "CuttlefishSignaling.name: 'a' is no string, or is given twice"),
        ([{"name": 1}], "CuttlefishSignaling.name: 1 is no string"),
    ],
)
def test_wrong_test_beds_name_the_entry(config: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=f"^{what}"):
        signaling.create(config)
