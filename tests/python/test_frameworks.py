"""The examples of docs/frameworks.md, with the real packages: unittest, behave, Robot Framework, Mobly."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from peers import PATIENCE
from test_cli import ENVIRONMENT

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "frameworks"
GUIDE = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, status: int = 0, **environment: str) -> str:
    """The output of a program, which has to end with this status."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def test_guide_has_each_example_as_it_is() -> None:
    blocks = re.findall(r"```\w+\n(.*?)```", GUIDE, re.DOTALL)
    files = [path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) >= 9
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        assert path.read_text(encoding="utf-8") in blocks, f"docs/frameworks.md does not have {name} as it is"
        assert f"`{name}`" in GUIDE, f"docs/frameworks.md does not name {name}"


# unittest -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no TestCase.enterContext")
def test_unittest(tmp_path: Path) -> None:
    assert re.search(r"Ran 1 test in .*\n\nOK", run(sys.executable, EXAMPLES / "unittest_session.py", cwd=tmp_path))


def test_unittest_without_enter_context(tmp_path: Path) -> None:
    """As Python 3.10 has it."""
    program = (
        "import runpy, sys, unittest\n"
        "for name in ('enterContext', 'enterClassContext'):\n"
        "    if hasattr(unittest.TestCase, name):\n"
        "        delattr(unittest.TestCase, name)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    output = run(sys.executable, "-c", program, EXAMPLES / "unittest_session_310.py", cwd=tmp_path)
    assert re.search(r"Ran 1 test in .*\n\nOK", output)
    output = run(sys.executable, "-c", program, EXAMPLES / "unittest_session.py", cwd=tmp_path, status=1)
    assert "has no attribute 'enterContext'" in output


# behave ---------------------------------------------------------------------------------------------------------------


def features(folder: Path) -> Path:
    """A copy of the features, to change them."""
    return Path(shutil.copytree(EXAMPLES / "behave", folder / "behave"))


def test_behave(tmp_path: Path) -> None:
    output = run(BIN / "behave", "features", cwd=features(tmp_path))
    assert "1 scenario passed, 0 failed" in output and "3 steps passed, 0 failed" in output


def test_behave_shows_the_conversation_of_a_step_that_failed(tmp_path: Path) -> None:
    folder = features(tmp_path)
    steps = folder / "features" / "steps" / "session.py"
    steps.write_text(steps.read_text().replace('== "v=0"', '== "v=1"'))
    output = run(BIN / "behave", "features", cwd=folder, status=1)
    assert "1 scenario failed" in output.replace("0 scenarios passed, 1 failed", "1 scenario failed")
    assert "request-offer" in output and "client 1" in output


# Robot Framework ------------------------------------------------------------------------------------------------------


def test_robot_framework(tmp_path: Path) -> None:
    output = run(BIN / "robot", "--outputdir", tmp_path, EXAMPLES / "robot" / "session.robot", cwd=tmp_path)
    assert "1 test, 1 passed, 0 failed" in output
    assert "request-offer" in (tmp_path / "output.xml").read_text(), "the log has the conversation"


def test_robot_framework_takes_the_server_as_a_library(tmp_path: Path) -> None:
    (block,) = re.findall(r"```robotframework\n(\*\*\* Settings \*\*\*\nLibrary    cuttlefish.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "server.robot").write_text(block)
    output = run(BIN / "robot", "--outputdir", tmp_path, tmp_path / "server.robot", cwd=tmp_path)
    assert "1 test, 1 passed, 0 failed" in output


# Mobly ----------------------------------------------------------------------------------------------------------------


def mobly(test: Path, folder: Path, *, status: int = 0) -> tuple[str, list[Any]]:
    """The output of a test of Mobly, and the documents of its summary."""
    output = run(
        sys.executable,
        test,
        "-c",
        EXAMPLES / "mobly" / "testbed.yml",
        cwd=folder,
        MOBLY_LOGPATH=str(folder),
        status=status,
    )
    (summary,) = set((folder / "local").glob("*-*/test_summary.yaml"))
    return output, list(YAML(typ="safe").load_all(summary.read_text()))


def test_mobly(tmp_path: Path) -> None:
    output, summary = mobly(EXAMPLES / "mobly" / "session.py", tmp_path)
    assert "Executed 1, Failed 0, Passed 1" in output
    (info,) = [one["Controller Info"] for one in summary if one["Type"] == "ControllerInfo"]
    assert [(one["name"], one["stats"]["accepted"], one["stats"]["delivered"]) for one in info] == [("main", 2, 2)]


def test_mobly_keeps_the_conversation_of_a_test_that_failed(tmp_path: Path) -> None:
    test = tmp_path / "session.py"
    test.write_text((EXAMPLES / "mobly" / "session.py").read_text().replace('["sdp"], "v=0")', '["sdp"], "v=1")'))
    output, _ = mobly(test, tmp_path, status=1)
    assert "Executed 1, Failed 1, Passed 0" in output
    (transcript,) = set((tmp_path / "local").rglob("signaling-main.txt"))
    assert "request-offer" in transcript.read_text()
