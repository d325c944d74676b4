"""`--signaling-control`: suites with the journal, the faults and the clock of a server that runs already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cuttlefish_signaling import RemoteServer, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import wait_until
from plugin_suite import FIRST, run, server_process, suite


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SignalingServer]:
    with SignalingServer(journal=True, control_api=["http://127.0.0.1:0"]) as server:
        (tmp_path / "token").write_text(str(server.control_token))
        yield server


def flags(server: SignalingServer, directory: Path) -> list[str]:
    return [f"--signaling-control={server.control_url}", f"--signaling-control-token-file={directory / 'token'}"]


ISOLATED = """
import pytest
from cuttlefish_signaling.testing import FakeClient, FakeDevice

left = []

def test_leaves_all(signaling_server):
    server = signaling_server
    left.append(FakeDevice(server, "left").start())
    left.append(FakeClient(server, "left").start())
    left.append(FakeClient(server, "real").start())
    server.faults.drop().arm()
    server.faults.seed(3)
    left[1].send({"type": "offer"})
    server.journal.expect("offer")
    server.clock.freeze()
    assert server.stats().dropped == 1

def test_finds_nothing(signaling_server, fake_device, fake_client):
    server = signaling_server
    assert [device.device_id for device in server.devices()] == ["real"]
    assert [client.device_id for client in server.clients()] == ["real"]
    assert server.waiting() == []
    assert not server.clock.is_frozen
    assert server.journal.entries() == server.journal.messages("offer") == []
    assert server.journal.forgotten == server.stats().accepted == server.stats().dropped == 0
    server.journal.expect_none("offer", within=0.01)
    device, client = fake_device("left"), fake_client("left")
    client.send({"type": "offer"})
    assert device.recv().type == "offer"
    assert [peer.wait_closed() for peer in left]

def test_fails(signaling_server, fake_device):
    fake_device("of-this-test")
    assert False
"""


def test_tests_are_isolated_from_each_other(pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path) -> None:
    suite(pytester, ISOLATED)
    with (
        FakeDevice(lab, "real") as real,
        FakeClient(lab, "real") as client,
        RemoteServer(str(lab.control_url), token=lab.control_token) as earlier,
    ):
        earlier.faults.drop(device="real").arm()
        lab.clock.freeze()
        result = run(pytester, *flags(lab, tmp_path))
        result.assert_outcomes(passed=2, failed=1)
        client.send("on")
        assert real.recv().payload == "on", "what was there before stays, but for faults of an earlier run"
        assert lab.stats().clients == 1
    section = result.stdout.str().partition("Signaling transcript of")[2].partition("short test summary")[0]
    assert "of-this-test" in section
    assert "left" not in section.replace("[left]", "")


def test_first_test_resets_what_an_earlier_run_has_left(
    pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path
) -> None:
    suite(pytester, FIRST)
    RemoteServer(str(lab.control_url), token=lab.control_token).faults.drop().arm()
    lab.clock.freeze()
    run(pytester, *flags(lab, tmp_path)).assert_outcomes(passed=1)
    with FakeDevice(lab) as device, FakeClient(lab) as client, lab.faults.drop() as own:
        run(pytester, *flags(lab, tmp_path), "-k", "nothing").assert_outcomes(deselected=1)
        client.send(1)
        wait_until(lambda: own.hits)
        assert device.is_open


def test_workers_reset_nothing_of_each_other(pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path) -> None:
    suite(
        pytester,
        """
        import pytest

        @pytest.mark.parametrize("n", range(12))
        def test_own(n, signaling_server, fake_device, fake_client):
            id = f"cvd-{n}"
            device, client = fake_device(id), fake_client(id)
            with signaling_server.faults.drop(device=id, type="lost") as fault:
                client.send({"type": "lost"})
                client.send({"type": "found"})
                assert device.recv().type == "found"
            fault.assert_struck(1)
            assert [e.type for e in signaling_server.journal.messages(device=id, message_type="forward")] == [
                "lost", "found"
            ]
        """,
    )
    RemoteServer(str(lab.control_url), token=lab.control_token).faults.drop().arm()
    run(pytester, "-n", "3", *flags(lab, tmp_path)).assert_outcomes(passed=12)


def test_a_worker_does_not_reset_the_server_of_the_others(lab: SignalingServer, tmp_path: Path) -> None:
    """Of the plugin's own function: two workers would have to meet."""
    from cuttlefish_signaling.pytest_plugin import _attach

    options: Any = SimpleNamespace(control=str(lab.control_url), control_token_file=tmp_path / "token", ca=None)
    with RemoteServer(str(lab.control_url), token=lab.control_token) as other:
        fault = other.faults.drop().arm()
        for is_worker in (True, False):
            config: Any = SimpleNamespace(stash=pytest.Stash(), **({"workerinput": {}} if is_worker else {}))
            control = _attach._control(config, options)
            assert control is not None
            control.close()
            assert (other._running().native.faults.stats(fault._id or 0) is not None) == is_worker


# Servers that cannot be used ------------------------------------------------------------------------------------------


def test_url_and_control_belong_to_one_server(pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path) -> None:
    suite(
        pytester,
        """
        def test_url(signaling_server):
            print("url", signaling_server.url)
        """,
    )
    url = f"http://localhost:{lab.port}"
    alone = run(pytester, "-s", *flags(lab, tmp_path)).stdout.str()
    assert f"url {lab.url}\n" in alone, "the control API knows it"
    assert f"url {url}\n" in run(pytester, "-s", *flags(lab, tmp_path), f"--signaling-url={url}").stdout.str()


def test_errors_name_the_options(pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path) -> None:
    suite(pytester, FIRST)
    (tmp_path / "other").write_text("y" * 20)
    (tmp_path / "broken").write_text("a b")
    control, token = flags(lab, tmp_path)
    flag = "--signaling-control-token-file"
    for options, error in [
        ([control], "*ControlError: *: it asks for a token: give token_file (*--signaling-control-token-file), *"),
        (
            [control, f"{flag}={tmp_path}/other"],
            "*ControlError: *: the token is another one: *",
        ),
        (
            [control, f"{flag}={tmp_path}/broken"],
            "*ConfigError: --signaling-control-token-file: *one token*",
        ),
        ([f"--signaling-control={lab.url}", token], "*UnreachableError: *is no control API (status 404): give the *"),
        (["--signaling-control=nonsense", token], "*ConfigError: --signaling-control: 'nonsense' is not a listener*"),
        (["--signaling-control=unix:/no", token], "*UnreachableError: unix:/no: no server listens there (*"),
    ]:
        result = run(pytester, *options)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([error])
        assert (tmp_path / "token").read_text() not in result.stdout.str()


def test_parts_that_the_server_does_not_have_are_skipped(pytester: pytest.Pytester, tmp_path: Path) -> None:
    suite(
        pytester,
        """
        import pytest

        def test_journal(signaling_server):
            signaling_server.journal

        def test_second(signaling_server, signaling_server_factory):
            signaling_server_factory()

        def test_two(signaling_server_factory):
            assert signaling_server_factory().is_running
            signaling_server_factory()

        def test_start(signaling_server):
            signaling_server.stop()

        @pytest.mark.signaling(device_wait_timeout=1)
        def test_setting(signaling_server):
            pass

        def test_fails(signaling_server, fake_device):
            fake_device()
            assert False

        def test_cluster(signaling_cluster):
            pass
        """,
    )
    with SignalingServer(control_api=["http://127.0.0.1:0"]) as server:
        (tmp_path / "token").write_text(str(server.control_token))
        url = server.control_url
        result = run(pytester, "-rs", *flags(server, tmp_path))
        result.assert_outcomes(skipped=6, failed=1)
    text = result.stdout.str()
    external = rf"--signaling-control points at an external server, {url}; run this test without"
    for reason in (
        rf"journal is not available: the server at {url} writes none: start it with --journal",
        rf"a second server is not available: {external} --signaling-control",
        r"stop is not available: --signaling-url points at an external server",
        rf"the settings device_wait_timeout are not available: {external} --signaling-control",
        rf"signaling_cluster starts servers of its own, and --signaling-control is {url}",
    ):
        assert re.search(reason, text), reason
    assert "(the server has no journal: start it with journal=True)" in text


HOOKS = """
def filter_device_info(info, context):
    if context.device_id == "bad":
        raise KeyError("mine")
    return info
"""


def test_failed_hook_of_the_server_fails_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling.testing import FakeClient

        @pytest.mark.parametrize("id", ["good", "bad", "fine"])
        def test_it(id, signaling_server, fake_device):
            fake_device(id)
            try:
                FakeClient(signaling_server, id).start().close()
            except ConnectionError:
                assert len(signaling_server.hook_errors) == 1
        """,
    )
    with server_process(tmp_path, f"--hooks={tmp_path}/hooks.py") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = run(pytester, "-v")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_it?bad?*", "*ServerFailedError: hook filter_device_info failed for *mine*"]
    )
    section = result.stdout.str().partition("Signaling transcript of")[2]
    assert "bad" in section
    assert "good" not in section.partition("short test summary")[0]


def test_server_that_ends_during_a_test_is_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite(
        pytester,
        """
        import os, signal

        def test_ends(signaling_server, fake_device):
            fake_device()
            process = signaling_server.control._running().facts["pid"]
            os.kill(process, signal.SIGKILL)
            while signaling_server.is_running:
                pass
            signaling_server.journal.expect("offer")

        def test_after(signaling_server):
            pass
        """,
    )
    with server_process(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = run(pytester)
    result.assert_outcomes(failed=1, errors=1)
    text = result.stdout.str()
    assert text.count("UnreachableError") >= 2
    assert "(the server does not answer: " in text
    assert "INTERNALERROR" not in text
