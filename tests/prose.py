"""Keeps words out of comments, docstrings and documents that readers stumble over, and names the better ones.

    python tests/prose.py            # every tracked file
    python tests/prose.py src docs   # those below these paths

Exits with 1 where it finds one. A line that has to keep a word says why behind it: `prose: REASON`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

EVERYWHERE = {
    r"\bcan not\b": "cannot",
    r"\bfor ever\b": "forever",
    r"\bforevery\b": "for every",
    r"\brubbish\b": "invalid data",
    r"\bmangle[sd]?\b": "truncate, corrupt",
    r"\bso-manieth\b": "n-th",
    r"\bwhoever\b": "the role: the client, the caller, the task",
    r"\bwhomever\b": "the role: the client, the caller, the task",
    r"\bsomebody\b": "the role: a client, another program, the user",
    r"\bnobody\b": "no client, no caller, no task",
    r"\b(?:is|are) not to be had\b": "is not available",
    r"\bporters?\b": "message pump",
    r"\bdialogues?\b": "session driver",
    r"\bmailrooms?\b|\bletterbox(?:es)?\b": "event queue",
    r"\bcouriers?\b": "event thread",
    r"\bdoorbells?\b": "observer",
    r"\bparcels?\b": "forward",
    r"\bcargo (?:of|that|is|waits)\b": "delivery",
    r"\bthe house\b|\ba house\b": "the server, the crate, the harness",
    r"\bknocks?\b": "request",
    r"\bnaps?\b": "sleep",
    r"\broster\b": "pre-registrations",
    r"\bonlookers?\b": "waiters",
    r"\bgoodbyes?\b": "close frame, closing handshake",
}
"""Words, and what to say instead; in any case of letters."""

BEGINNINGS = {
    r"(?:Who|Whose|Whom)\b(?![^.?!]*\?)": "the role as the subject",
    r"What\b(?![^.?!]*\?)": "the noun: the message, the setting, the time",
}
"""Words that a sentence may not begin with, unless it is a question."""

SUFFIXES = {".rs", ".py", ".pyi", ".md", ".js", ".toml", ".c", ".sh"}
SKIPPED = re.compile(r"^(?:CHANGELOG\.md|Cargo\.lock|fuzz/Cargo\.lock|LICENSE|tests/prose\.py)$|^fuzz/seeds/")


def files(paths: list[str]) -> list[str]:
    """Tracked files below these paths."""
    listed = subprocess.run(["git", "ls-files", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES and not SKIPPED.search(name)]


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that people read, each with its number."""
    suffix = Path(name).suffix
    if suffix == ".md":
        yield from enumerate(text.splitlines(), 1)
    elif suffix in (".py", ".pyi"):
        yield from python_prose(text)
    else:
        marks = (
            r"^\s*(?://[/!]?|\*|/\*\*?)(.*)|\s//\s(.*)" if suffix in (".rs", ".js", ".c") else r"^\s*#(.*)|\s#\s(.*)"
        )
        for number, line in enumerate(text.splitlines(), 1):
            if found := re.search(marks, line):
                yield number, (found[1] or found[2] or "").strip()


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments, and strings that are statements of their own: docstrings."""
    last = tokenize.NEWLINE
    layout = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
        elif token.type == tokenize.STRING and last in layout:
            for offset, line in enumerate(token.string.strip("\"'").splitlines()):
                yield token.start[0] + offset, line.strip()
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            last = token.type


def complaints(line: str) -> Iterator[str]:
    """The words of a line that have better ones. Code in backticks is left out."""
    if "prose:" in line:
        return
    plain = re.sub(r"`[^`]*`", "`x`", line)
    for pattern, better in EVERYWHERE.items():
        if found := re.search(pattern, plain, re.IGNORECASE):
            yield f"{found[0]!r}: better {better}"
    for pattern, better in BEGINNINGS.items():
        if found := re.search(rf"(?:^(?:[-*>|#]+ |\*\*)?|[.:] ){pattern}", plain):
            yield f"a sentence that begins with {found[0].strip(' .:*-')!r}: better {better}"


def main(paths: list[str]) -> int:
    """Prints what it finds; returns the exit status."""
    count = 0
    for name in files(paths):
        for number, line in prose(name, (ROOT / name).read_text(encoding="utf-8")):
            for complaint in complaints(line):
                print(f"{name}:{number}: {complaint}")
                count += 1
    if count:
        print(f"{count} places; the words and the better ones are in tests/prose.py", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
