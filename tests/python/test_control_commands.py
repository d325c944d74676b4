"""`serve --control-api`: the file of the token, and the reload over the control API."""

from __future__ import annotations

import json
import re
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from control_requests import TOKEN, Control

from cuttlefish_signaling.cli import main

from peers import PATIENCE
from test_cli import ServeProcess, serve
from test_reload_signal import line

API = ("--no-tls", "--control-api", "http://127.0.0.1:0")


def control_of(served: ServeProcess, file: Path) -> Control:
    """The control API of a process, at the URL that it prints."""
    assert served.process.stdout is not None
    for text in iter(served.process.stdout.readline, ""):
        if text.startswith("control: "):
            return Control(text.removeprefix("control: ").strip(), file.read_text().strip())
    raise AssertionError("the server prints no URL of its control API")


def test_missing_file_is_made_with_random_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with serve(*API, "--control-token-file", str(file)) as served:
        control = control_of(served, file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert re.fullmatch(r"[\w-]{43}\n", file.read_text())
        assert control("GET", "")["pid"] == served.process.pid
        status, log = served.ends()
    assert status == 0
    assert control.token is not None
    assert control.token not in log
    with serve(*API, "--control-token-file", str(file)) as served:
        assert control_of(served, file).token == control.token


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "must have one line, with the secret"),
        (f"{TOKEN}\n{TOKEN}\n", "must have one line, with the secret"),
        ("short\n", "must have a token of 16 to 512 characters, got 5"),
        ("with a space in the token\n", "must have a token of letters, digits and"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_wrong_file_names_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, error: str, command: str
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    assert main([command, "--port", "0", *API, "--control-token-file", str(file)]) == 2
    said = capsys.readouterr().err
    assert "--control-token-file" in said
    assert error in said
    assert TOKEN not in said


def test_api_without_file_names_both_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *API]) == 2
    assert "--control-token-file: is missing: --control-api needs it" in capsys.readouterr().err


def test_file_without_directory_is_refused_before_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "missing" / "token"
    assert main(["serve", "--port", "0", *API, "--control-token-file", str(file)]) == 2
    assert f"--control-token-file: {file} cannot be made" in capsys.readouterr().err


def test_check_makes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    assert main(["check", *API, "--control-token-file", str(file)]) == 0
    assert not file.exists()
    capsys.readouterr()


def test_file_without_api_is_not_read(tmp_path: Path) -> None:
    """The other commands use the same variable."""
    with serve("--no-tls", environment={"CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE": str(tmp_path / "none")}) as served:
        assert served.ends()[0] == 0
    assert not (tmp_path / "none").exists()


def test_plain_http_beyond_this_machine_names_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "token")
    assert (
        main(["serve", "--port", "0", "--no-tls", "--control-api", "http://0.0.0.0:0", "--control-token-file", file])
        == 2
    )
    assert "--control-api: http://0.0.0.0:0 sends the token in plain text to other machines" in capsys.readouterr().err
    assert not Path(file).exists()


def test_reload_over_the_api_is_that_of_sighup(tmp_path: Path) -> None:
    config, file = tmp_path / "config.toml", tmp_path / "token"
    config.write_text("no_tls = true\n[limits]\nmax_devices = 5\n")
    with serve("--config", str(config), *API[1:], "--control-token-file", str(file)) as served:
        control = control_of(served, file)
        nothing = control("POST", "/reload")
        assert nothing == {"changed": [], "restart_required": [], "text": "nothing has changed"}
        config.write_text("no_tls = true\njournal = true\n[limits]\nmax_devices = 6\n")
        answer = control("POST", "/reload")
        assert answer["changed"] == ["limits.max_devices"]
        assert len(answer["restart_required"]) == 1
        assert "journal" in answer["restart_required"][0]
        assert answer["text"].startswith("limits.max_devices; a restart is needed for ")
        assert "reloaded: limits.max_devices" in line(served, "limits.max_devices")
        config.write_text("no_tls = true\n[limits]\nmax_devices = -1\n")
        refused = control.answer("POST", "/reload")
        assert (refused.status, refused.json["code"]) == (409, "config")
        assert "max_devices" in refused.json["error"]
        assert "max_devices" in refused.json["setting"]
        # The token file is read again as well.
        config.write_text("no_tls = true\n")
        file.write_text(f"{TOKEN}\n")
        assert control("POST", "/reload")["changed"] == ["control_token", "limits.max_devices"]
        assert control.refusal("GET", "")[:2] == (401, "token_wrong")
        assert Control(control.url, TOKEN)("GET", "")["api"] == 1
        assert served.ends()[0] == 0


HANGS = """
import os, time

def authorize(ctx):
    return None

if os.environ.get("LOADED"):
    open(os.environ["LOADED"], "w").close()
    time.sleep(60)
os.environ["LOADED"] = {marker!r}
"""


def test_stop_ends_a_reload_that_hangs(tmp_path: Path) -> None:
    """The module of hooks hangs when it is loaded again."""
    hooks, file, marker = tmp_path / "hooks.py", tmp_path / "token", tmp_path / "loaded"
    hooks.write_text(HANGS.format(marker=str(marker)))
    with serve(*API, "--control-token-file", str(file), "--hooks", str(hooks)) as served:
        control = control_of(served, file)
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(control.answer("POST", "/reload")))
        thread.start()
        while not marker.exists():
            assert served.process.poll() is None
        status, log = served.ends(signal.SIGTERM)
        thread.join(PATIENCE)
        assert status == 0, log
        assert "not reloaded, since the server stops" in log
        assert (answers[0].status, json.loads(answers[0].body)["code"]) == (503, "stopping")
