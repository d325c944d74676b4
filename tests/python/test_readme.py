"""The README's Python is run as it stands, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish_signaling.cli import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 5


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet(snippet: str, tmp_path: Path) -> None:
    file = tmp_path / "test_snippet.py"
    file.write_text(snippet, encoding="utf-8")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "def test_" in snippet else ["-W", "ignore"]
    done = subprocess.run(
        [sys.executable, *command, str(file)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What a comment behind a print() promises is what it prints.
    promised = [re.sub(r"^b'(.*)'$", r"\1", text) for text in re.findall(r"print\(.*\)  # (.*)", snippet)]
    for text in promised:
        assert text in done.stdout, done.stdout


def test_its_commands_are_understood() -> None:
    for line in re.findall(r"^cuttlefish-signaling (serve.*)$", README, re.MULTILINE):
        parser().parse_args(line.split("#")[0].replace('"$SECRET"', "s").split())


def test_the_targets_it_names_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"^make ([a-z-]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_files_it_names_are_there() -> None:
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([A-Za-z_./]+)\)", text) + re.findall(r"`((?:src|tests|examples)/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for file in (ROOT / "src").rglob("*.rs"):
        named = file.stem in architecture
        assert named, f"ARCHITECTURE.md does not name {file.name}"
