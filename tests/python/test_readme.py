"""The Python snippets of the README and of docs/ run, and the commands, targets and files that they name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer, Tls
from cuttlefish_signaling.cli import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
SNIPPETS = [
    (document, number, snippet)
    for document in DOCUMENTS
    for number, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    )
]
FAILS = "def test_that_fails("


def run(snippet: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a snippet as a test or as a script."""
    file = folder / "test_snippet.py"
    file.write_text(snippet, encoding="utf-8")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "def test_" in snippet else ["-W", "ignore"]
    return subprocess.run(
        [sys.executable, *command, str(file)], capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )


def test_each_document_has_snippets() -> None:
    assert len(SNIPPETS) >= 15
    assert {document for document, _, _ in SNIPPETS} == set(DOCUMENTS)


@pytest.mark.parametrize(
    ("document", "number", "snippet"), SNIPPETS, ids=[f"{document}-{number}" for document, number, _ in SNIPPETS]
)
def test_snippet(document: str, number: int, snippet: str, tmp_path: Path) -> None:
    if FAILS in snippet:
        return  # test_failure_output_matches_guide runs it.
    done = run(snippet, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # The comment after a print() is its output.
    promised = [re.sub(r"^b'(.*)'$", r"\1", text) for text in re.findall(r"print\(.*\)  # (.*)", snippet)]
    for text in promised:
        assert text in done.stdout, done.stdout


def timeless(text: str) -> str:
    return re.sub(r"\b\d+\.\d{3}\b", "0.000", text)


def test_failure_output_matches_guide(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    (snippet,) = [snippet for _, _, snippet in SNIPPETS if FAILS in snippet]
    promised = re.findall(r"```text\n(.*?)```", guide, re.DOTALL)[0]
    done = run(snippet, tmp_path)
    assert done.returncode == 1
    assert timeless(promised) in timeless(done.stdout), done.stdout


def test_readme_commands_parse() -> None:
    for line in re.findall(r"^cuttlefish-signaling (serve.*)$", README, re.MULTILINE):
        parser().parse_args(re.split("[#>]", line)[0].split())


def test_named_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"^make ([a-z-]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_named_files_exist() -> None:
    for document in (*DOCUMENTS, "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([A-Za-z_./]+)\)", text):
            assert ((ROOT / document).parent / name).exists(), f"{document} names {name}"
        for name in re.findall(r"`((?:src|tests|examples)/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for file in (ROOT / "src").rglob("*.rs"):
        assert file.stem in architecture, f"ARCHITECTURE.md does not name {file.name}"


def test_guide_lists_launch_cvd_flags() -> None:
    guide = (ROOT / "docs" / "cuttlefish.md").read_text(encoding="utf-8")
    with SignalingServer(tls=Tls.self_signed()) as server:
        flags = server.launch_cvd_flags("cvd-{num}")
    local = ("--webrtc_sig_server_addr=", "--webrtc_sig_server_port=")
    assert [flag for flag in flags if not flag.startswith(local) and flag not in guide] == []
    assert all(name in guide for name in local)
