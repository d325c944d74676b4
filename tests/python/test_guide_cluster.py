"""The commands and texts of docs/cluster.md, as they stand but for ports and names of hosts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling.cli import main, parser
from cuttlefish_signaling.testing import FakeClient, FakeDevice
from cuttlefish_signaling.testing._engine import find_engine
from cuttlefish_signaling.testing._process import clean_environment

from peers import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
needs_engine = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The commands of a block of shell, without comments, and without `&` at their end."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removesuffix("&").rstrip(), comments=True))]


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    if command[0] == "cuttlefish-signaling":
        command = [sys.executable, "-m", "cuttlefish_signaling", *command[1:]]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def asked(url: str) -> Any:
    """The JSON of an answer; None without a server."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


@needs_engine
def test_five_minutes_with_three_processes(tmp_path: Path) -> None:
    ports = {port: str(free_port()) for port in ("6379", "8441", "8442", "8443")}
    text = re.sub(
        "|".join(ports), lambda port: ports[port[0]], blocks("sh")[0].replace("127.0.0.1 ", "127.0.0.1:6379 ")
    )
    *servers, curl = commands(text)
    assert [command[0] for command in servers] == ["redis-server", *3 * ["cuttlefish-signaling"]]
    with ExitStack() as stack:
        for command in servers:
            stack.enter_context(running(command, tmp_path))
        assert curl[0] == "curl"
        wait_until(lambda: [node["name"] for node in asked(curl[1]) or []] == ["a", "b", "c"])
        a, b, c = (f"http://127.0.0.1:{ports[port]}" for port in ("8441", "8442", "8443"))
        with FakeDevice(a, "cvd-1") as device:
            wait_until(lambda: asked(f"{c}/devices?format=ids") == ["cvd-1"])
            with FakeClient(b, "cvd-1") as client:
                client.send({"type": "request-offer"})
                assert device.recv().type == "request-offer"


def test_commands_of_a_farm_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openssl, host, gateway = commands(blocks("sh")[1])
    for name, text in (("cluster.secret", "x" * 44), ("tokens", "token\n")):
        (tmp_path / name).write_text(text)
    made = subprocess.run(openssl[: openssl.index(">")], capture_output=True, check=True).stdout
    assert len(made.strip()) >= 32
    for command in (host, gateway):
        given = [str(tmp_path / word) if word in ("cluster.secret", "tokens") else word for word in command[2:]]
        assert command[:2] == ["cuttlefish-signaling", "serve"]
        parser().parse_args(command[1:])
        assert (
            main(["check", "--log-file", str(tmp_path / "log"), "--state-dir", str(tmp_path / "state"), *given]) == 0
        ), capsys.readouterr().err


def test_acl_line_has_the_commands_of_the_scripts() -> None:
    (line,) = blocks("text")
    source = (ROOT / "src" / "server" / "cluster" / "redis" / "errors.rs").read_text(encoding="utf-8")
    (wanted,) = re.findall(r'const COMMANDS: &str = "(.*?)";', source, re.DOTALL)
    assert re.findall(r"\+\S+", line) == wanted.replace("\\", " ").split()


def test_errors_of_the_guide_are_those_of_the_server() -> None:
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    sources = re.sub(r"\\\n\s*", "", sources)
    told = [row for row in GUIDE.partition("## When it does not work")[2].splitlines() if row.startswith("| `")]
    assert len(told) >= 3
    for row in told:
        text = row.split("`")[1]
        flag, _, what = text.rpartition(": ")
        for part in what.split("..."):
            assert part.strip() in sources, text
        assert not flag.startswith("--") or flag in GUIDE
