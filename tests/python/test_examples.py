"""The examples that are projects of their own: each is copied to an empty folder and used there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from cuttlefish_signaling import SignalingServer, StaticTokens
from cuttlefish_signaling.testing import FakeDevice
from cuttlefish_signaling.webrtc import WebRtcDevice

from browsers import CHROMIUM, FLAGS
from peers import PATIENCE

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent


def copied(name: str, folder: Path) -> Path:
    """A copy of an example, as a reader makes it."""
    leave = shutil.ignore_patterns("__pycache__", "failures")
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=leave))


def run_pytest(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest in a folder, with the configuration that it has there, and the plugins that it needs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CUTTLEFISH_"))}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
    plugins = ["-p", "cuttlefish_signaling.pytest_plugin", "-p", "no:cacheprovider", "-p", "xdist"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False, env=environment
    )


def test_readme_lists_each_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[([\w.]+)\]\(\1\) \|", text, re.MULTILINE)
    found = [path.name for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")]
    programs = [name for name in found if not name.endswith(".rs")]  # Cargo's examples are of the crate.
    assert sorted(listed) == sorted(programs)


# A suite with its CI --------------------------------------------------------------------------------------------------


def test_suite_passes_where_it_was_copied(tmp_path: Path) -> None:
    done = run_pytest(copied("suite", tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE)


def test_suite_keeps_the_conversation_of_a_failed_test(tmp_path: Path) -> None:
    folder = copied("suite", tmp_path)
    program = folder / "viewer.py"
    broken = program.read_text(encoding="utf-8").replace('if payload["last"]', "if False")
    program.write_text(broken.replace("timeout: float = 10.0", "timeout: float = 0.1"), encoding="utf-8")
    done = run_pytest(folder, "-k", "joined")
    assert done.returncode == 1, done.stdout
    # The CI keeps this folder.
    for ci in (".gitlab-ci.yml", ".github/workflows/tests.yml"):
        assert re.search(r"(?:- |path: )failures$", (folder / ci).read_text(encoding="utf-8"), re.MULTILINE)
    (transcript,) = (folder / "failures").glob("*/server-1.txt")
    assert "screenshot-part" in transcript.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "schema"),
    [(".github/workflows/tests.yml", "vendor.github-workflows"), (".gitlab-ci.yml", "vendor.gitlab-ci")],
)
def test_files_of_the_ci_match_their_schema(file: str, schema: str) -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, str(EXAMPLES / "suite" / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_has_no_findings() -> None:
    flags = ["--offline", "--pedantic", "--no-progress", "--quiet", "--strict-collection"]
    command = [str(BIN / "zizmor"), *flags, str(EXAMPLES / "suite" / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_installs_all_that_the_project_names() -> None:
    project = (EXAMPLES / "suite" / "pyproject.toml").read_text(encoding="utf-8")
    (dependency,) = re.findall(r'^dependencies = \["(.*)"\]$', project, re.MULTILINE)
    for ci in (".gitlab-ci.yml", ".github/workflows/tests.yml"):
        text = (EXAMPLES / "suite" / ci).read_text(encoding="utf-8")
        assert f"pip install --group test '{dependency}'" in text, ci


# The conftest.py of a farm --------------------------------------------------------------------------------------------


@contextmanager
def farm(count: int) -> Iterator[SignalingServer]:
    """A server with devices that send an offer."""
    with SignalingServer(journal=True) as server:
        devices = [FakeDevice(server, f"ci-{number}") for number in range(count)]
        try:
            for device in devices:
                device.start()
                device.on("request-offer", reply_with={"type": "offer", "sdp": "v=0\r\nreal"})
            yield server
        finally:
            for device in devices:
                device.close()


def test_farm_suite_runs_without_a_farm(tmp_path: Path) -> None:
    done = run_pytest(copied("farm", tmp_path), "-rA")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_farm_suite_gives_each_worker_a_device(tmp_path: Path) -> None:
    folder = copied("farm", tmp_path)
    with farm(2) as server:
        done = run_pytest(folder, "-n", "2", "--signaling-url", server.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 passed" in done.stdout
        for device in ("ci-0", "ci-1"):
            assert len(server.journal.messages(message_type="connect", device=device)) == 1
        done = run_pytest(folder, "-rs", "--signaling-url", server.url, PYTEST_XDIST_WORKER="gw2")
        assert "2 skipped" in done.stdout, done.stdout + done.stderr
        assert "the farm has 2 devices that match '*', and this is worker 3" in done.stdout


def test_farm_suite_takes_devices_of_a_pattern_only(tmp_path: Path) -> None:
    with farm(1) as server:
        done = run_pytest(copied("farm", tmp_path), "-rs", "--signaling-url", server.url, FARM_DEVICES="desk-*")
    assert "the farm has 0 devices that match 'desk-*', and this is worker 1" in done.stdout
    assert "2 skipped" in done.stdout


# A client in one file -------------------------------------------------------------------------------------------------

MOVES = "document.querySelector('video').videoWidth > 0"


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """A server of files, of another origin than the signaling server."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def use_page(page: Page, device: WebRtcDevice) -> None:
    """Waits for the picture, and sends a text in each direction."""
    await expect(page.locator("#state")).to_have_text("connected", timeout=PATIENCE * 1000)
    await page.wait_for_function(MOVES)
    await page.locator("#text").fill("hello")
    await page.locator("#send").click()
    assert (await device.recv_data(PATIENCE)).data == "hello"
    await device.send_data("<b>hi</b>")
    await expect(page.locator("#heard li")).to_have_text("<b>hi</b>")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["of-the-server", "of-another-origin-with-token"])
def test_page_shows_the_picture_and_sends_text(elsewhere: bool) -> None:
    async def main(origin: str) -> None:
        settings: dict[str, Any] = {"assets_dir": EXAMPLES / "browser"}
        if elsewhere:
            settings = {"allowed_origins": [origin], "authorize": StaticTokens(["s3cret"], roles=["client", "http"])}
        async with (
            SignalingServer(**settings) as server,
            WebRtcDevice(server, "cvd 1/ü") as device,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = await browser.new_page()
            more = f"&server={server.url.replace('http', 'ws')}#s3cret" if elsewhere else ""
            await page.goto(f"{origin if elsewhere else server.url}/client.html?device=cvd%201%2F%C3%BC{more}")
            await use_page(page, device)
            await browser.close()

    with file_server(EXAMPLES / "browser") as origin:
        asyncio.run(asyncio.wait_for(main(origin), 100))


def test_page_shows_the_error_of_the_server() -> None:
    async def main() -> None:
        async with SignalingServer(assets_dir=EXAMPLES / "browser") as server, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = await browser.new_page()
            await page.goto(f"{server.url}/client.html?device=cvd-9")
            await expect(page.locator("#state")).to_contain_text("Device not found")
            await browser.close()

    asyncio.run(asyncio.wait_for(main(), 100))


# The tutorial ---------------------------------------------------------------------------------------------------------


def test_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    """The commands and files of docs/tutorial.md, with another port: server, device, a test that passes and fails."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    device_py, test_py = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (command,) = re.findall(r"^cuttlefish-signaling (serve .*)$", text, re.MULTILINE)
    assert '"ws://127.0.0.1:8080"' in device_py
    assert "--port 8080" in command
    arguments = command.replace("--port 8080", "--port 0").split()
    serve = subprocess.Popen(
        [str(BIN / "cuttlefish-signaling"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert serve.stdout is not None
        people = next(line for line in serve.stdout if line.startswith("people: "))
        url = people.split()[1].rstrip("/")
        main = device_py.replace("ws://127.0.0.1:8080", url.replace("http", "ws")).replace("sys.stdin.isatty()", "True")
        (tmp_path / "device.py").write_text(main, encoding="utf-8")
        device = subprocess.Popen(
            [sys.executable, "device.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        watchdog = threading.Timer(60, device.kill)
        watchdog.start()
        assert device.stdout is not None
        assert "cvd-1 is registered at" in device.stdout.readline()
        out, _ = device.communicate("\n")
        watchdog.cancel()
        assert device.returncode == 0, out
    finally:
        serve.terminate()
        assert serve.wait(30) == 0
    (tmp_path / "test_offer.py").write_text(test_py, encoding="utf-8")
    assert run_pytest(tmp_path).returncode == 0
    changed = test_py.replace(
        'expect_sequence("request-offer", "offer")', 'expect_sequence("answer", "offer", timeout=0.1)'
    )
    (tmp_path / "test_offer.py").write_text(changed, encoding="utf-8")
    failed = run_pytest(tmp_path)
    assert failed.returncode == 1
    assert "nearest misses:" in failed.stdout or "what was said:" in failed.stdout
