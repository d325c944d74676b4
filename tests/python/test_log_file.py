"""The log file of `serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuttlefish_signaling.cli import main

from test_cli import register, serve


def test_log_file_gets_the_lines_of_stderr(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    file.write_text("before\n")
    with serve("--no-tls", "--log-file", str(file)) as served:
        register(served.devices)
        status, log = served.ends()
    assert status == 0
    assert 'device "cvd-1" registered' in log
    assert file.read_text() == "before\n" + log


def test_log_file_is_renamed_at_its_size(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    with serve("--no-tls", "--log-file", str(file), "--log-file-size", "4096") as served:
        for _ in range(100):
            register(served.devices)
        _, log = served.ends()
    kept, last = (tmp_path / "server.log.1").read_text(), file.read_text()
    assert log.endswith(kept + last) and max(len(kept), len(last)) <= 4096
    assert {path.name for path in tmp_path.iterdir()} == {"server.log", "server.log.1"}


def test_log_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--log-file", str(tmp_path / "nowhere" / "log")]) == 2
    assert f"log-file: cannot write {tmp_path}/nowhere/log: No such file" in capsys.readouterr().err
