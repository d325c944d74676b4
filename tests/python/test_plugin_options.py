"""The options of the plugin, on the command line and in the ini file, and the files of transcripts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cuttlefish_signaling.pytest_plugin._report import folder_name

from plugin_suite import FAILING, FIRST, HERE, SEVERAL, WORKERS, run, suite

pytestmark = pytest.mark.usefixtures("where")


def ini(pytester: pytest.Pytester, *lines: str) -> None:
    pytester.makeini("\n".join(["[pytest]", "asyncio_default_fixture_loop_scope = function", *lines]))


# Values ---------------------------------------------------------------------------------------------------------------


def test_ini_options_apply_and_the_command_line_takes_precedence(pytester: pytest.Pytester) -> None:
    suite(pytester, FIRST + "    assert False\n")
    ini(pytester, "signaling_trace = off")
    assert "Signaling transcript" not in run(pytester).stdout.str()
    assert "Signaling transcript" in run(pytester, "--signaling-trace=on-failure").stdout.str()


def test_toml_options_apply(pytester: pytest.Pytester) -> None:
    suite(pytester, "def test_it(signaling_server):\n    signaling_server.wait_for_device('no')\n")
    (pytester.path / "tox.ini").unlink()
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nsignaling_timeout = "0.015"\n')
    assert "waited 0.015 s for device" in run(pytester).stdout.str()


def test_timeout_is_the_default_of_each_wait(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling.testing import AttachedServer, FakeClient, FakeDevice

        @pytest.mark.asyncio
        async def test_it(signaling_server, fake_device, async_fake_device):
            device, server = fake_device(profile="legacy", timeout=60), signaling_server
            journal, other = server.journal, await async_fake_device("other", profile="legacy", timeout=60)
            attached = AttachedServer(server.url, timeout=60)
            waits = [
                device.recv, device.wait_closed, device.wait_reconnected, lambda: journal.expect("offer"),
                lambda: journal.expect_sequence("offer"), lambda: server.wait_for_device("no"), server.wait_for_client,
                lambda: attached.wait_for_device("no"),
            ]
            for wait in waits:
                with pytest.raises((TimeoutError, AssertionError), match=r"0\\.02 s"):
                    wait()
            coroutines = [
                other.recv, other.wait_closed, other.wait_reconnected, lambda: journal.expect_async("offer"),
                lambda: journal.expect_sequence_async("offer"), lambda: server.wait_for_device_async("no"),
                server.wait_for_client_async, lambda: attached.wait_for_device_async("no"),
            ]
            for wait in coroutines:
                with pytest.raises((TimeoutError, AssertionError), match=r"0\\.02 s"):
                    await wait()
            with pytest.raises(TimeoutError, match=r"0\\.01 s"):
                device.recv(0.01)
            assert FakeDevice(server)._peer._timeout == FakeClient(server)._peer._timeout == 0.02
        """,
    )
    run(pytester, "--signaling-timeout=0.02").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("trace", "sometimes", "'sometimes' is not one of off, on-failure, always"),
        ("unavailable", "ignore", "'ignore' is not one of skip, fail"),
        ("cassettes", "all", "'all' is not one of none, once, new"),
        ("timeout", "soon", "'soon' is not a number of seconds above 0, up to 86400"),
        ("timeout", "0", "'0' is not a number of seconds above 0, up to 86400"),
        ("timeout", "nan", "'nan' is not a number of seconds above 0, up to 86400"),
        ("timeout", "inf", "'inf' is not a number of seconds above 0, up to 86400"),
        ("timeout", "86401", "'86401' is not a number of seconds above 0, up to 86400"),
        ("output", "test_it.py", "cannot make the directory: *File exists*"),
        ("ca", "none.pem", "there is no file '*none.pem'; give a PEM file"),
        ("control-token-file", "none", "there is no file '*none'; give the --control-token-file of the server"),
    ],
)
def test_invalid_value_is_a_usage_error_of_its_place(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: str, value: str, error: str
) -> None:
    suite(pytester, FIRST)
    monkeypatch.setenv("CUTTLEFISH_SIGNALING_CONTROL", "unix:/nowhere")  # Without it, its token does not matter.
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE", raising=False)
    result = run(pytester, f"--signaling-{option}={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --signaling-{option}: {error}"])
    key = f"signaling_{option}".replace("-", "_")
    ini(pytester, f"{key} = {value}")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {key} in tox.ini: {error}"])


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_output_has_files_of_each_failed_test(pytester: pytest.Pytester, workers: int, where: str) -> None:
    if workers and where != HERE:
        pytest.skip(WORKERS)
    suite(pytester, SEVERAL)
    options = ["-n", str(workers)] if workers else []
    result = run(pytester, "--signaling-output=out/deep", "--junitxml=junit.xml", *options)
    own = 2 if where == HERE else 0  # The tests with a server of their own.
    result.assert_outcomes(passed=2, failed=7 + own, errors=1, skipped=2 - own)
    out = pytester.path / "out" / "deep"
    folders = sorted(folder.name for folder in out.iterdir())
    assert len(folders) == 7 + own, folders
    for folder in folders:
        assert re.fullmatch(r"test_it\.py-[A-Za-z0-9_.-]{1,91}-[0-9a-f]{8}", folder), folder
        assert str(out / folder) in result.stdout.str(), "the report names it"
    (first,) = [out / folder for folder in folders if "test_first" in folder]
    assert sorted(file.name for file in first.iterdir()) == ["server-1.jsonl", "server-1.mmd", "server-1.txt"]
    assert "request-offer" in (first / "server-1.txt").read_text()
    assert (first / "server-1.mmd").read_text().startswith("sequenceDiagram\n")
    lines = (first / "server-1.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["message_type"] == "register"
    if own:
        _check_own(out, folders)
    named = {
        case.get("name"): [entry.get("value") for entry in case.iter("property")]
        for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    }
    assert named["test_first"] == [str(first)]
    assert named["test_passes"] == []
    assert len(named["test_at_teardown"]) == 1


def _check_own(out: Path, folders: list[str]) -> None:
    (both,) = [out / folder for folder in folders if "test_two_servers" in folder]
    assert "one" in (both / "server-1.txt").read_text()
    assert "two" in (both / "server-2.txt").read_text()
    (off,) = [out / folder for folder in folders if "test_no_journal" in folder]
    assert "start it with journal=True" in (off / "server-1.txt").read_text()


def test_output_in_ini_is_relative_to_it(pytester: pytest.Pytester) -> None:
    suite(pytester, FAILING)
    ini(pytester, "signaling_output = out")
    folder = pytester.mkdir("elsewhere")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--rootdir=..", "-c", "../tox.ini", "..", timeout=60)
    assert not (folder / "out").exists()
    run(pytester)
    assert len(list((pytester.path / "out").iterdir())) == 1


def test_output_that_cannot_be_written_is_reported(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        FIRST
        + """
    import pathlib
    pathlib.Path("out").rmdir()
    pathlib.Path("out").write_text("")
    assert False
""",
    )
    result = run(pytester, "--signaling-output=out")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Signaling transcript files*", "not written, --signaling-output: *out*"])


def test_folder_names_differ() -> None:
    ids = [
        "a.py::t[x/y]",
        "a.py::t[x-y]",
        "a.py::t[x y]",
        "a.py::t[X-y]",
        f"a.py::t[{'x' * 500}]",
        f"a.py::{'x' * 501}",
        "\ud800",
    ]
    names = [folder_name(each) for each in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(len(name) <= 109 and Path(name).name == name and not name.startswith(".") for name in names)


# Servers of one's own -------------------------------------------------------------------------------------------------


def test_watched_server_is_in_the_report(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling import SignalingServer
        from cuttlefish_signaling.testing import FakeClient, FakeDevice

        @pytest.fixture(scope="module")
        def own():
            def picky(info, ctx):
                if ctx.device_id == "bad":
                    raise KeyError("mine")
                return info
            with SignalingServer(journal=True, filter_device_info=picky) as server:
                yield server

        def test_before(own):
            with FakeDevice(own, "of-another-test"):
                pass

        def test_fails(own, signaling_watch, fake_device):
            server = signaling_watch(own)
            assert server is own
            fake_device("mine", server=server)
            assert False

        def test_hook(own, signaling_watch):
            signaling_watch(own)
            with FakeDevice(own, "bad"), pytest.raises(ConnectionError):
                FakeClient(own, "bad").start()

        def test_later(signaling_watch):
            server = signaling_watch(SignalingServer(journal=True))
            with server, FakeDevice(server, "late"):
                pass
            assert False

        def test_never(signaling_watch):
            signaling_watch(SignalingServer(journal=True))
            assert False
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=3, errors=1)
    text = result.stdout.str()
    assert "of-another-test" not in text
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_hook*",
            "*ServerFailedError: hook filter_device_info failed*",
            "*_ test_fails _*",
            "*Signaling transcript of http://127.0.0.1:*",
            "* mine * register *",
            "*_ test_later _*",
            "* late * register *",
            "*_ test_never _*",
            "(the server was not started)",
        ]
    )


def test_servers_of_a_class_and_of_a_module(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        urls = set()
        pytestmark = pytest.mark.signaling(device_wait_timeout=3)

        def waits(server):
            return server._settings.native["device_wait_timeout"]

        @pytest.mark.signaling(device_wait_timeout=4)
        class TestOne:
            @pytest.mark.parametrize("n", [1, 2])
            def test_class(self, n, signaling_server_class, fake_device):
                assert waits(signaling_server_class) == 4
                urls.add(signaling_server_class.url)
                fake_device(f"device-{n}")
                assert [d.device_id for d in signaling_server_class.devices()] == [f"device-{n}"]
                assert n != 2

            def test_module(self, signaling_server_module):
                assert waits(signaling_server_module) == 3
                urls.add(signaling_server_module.url)

        class TestTwo:
            def test_class(self, signaling_server_class):
                assert waits(signaling_server_class) == 3
                urls.add(signaling_server_class.url)

        def test_module(signaling_server_module):
            assert waits(signaling_server_module) == 3
            urls.add(signaling_server_module.url)

        def test_count(signaling_server):
            assert len(urls) == 3

        @pytest.mark.signaling(device_wait_timeout=4)
        def test_marker_of_a_function(signaling_server_module):
            pass
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=5, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*signaling_server_module has the same settings for all its tests*"])
    section = result.stdout.str().partition("Signaling transcript of")[2]
    assert "device-2" in section
    assert "device-1" not in section.partition("short test summary")[0]
