"""Writes the sentences of docs/protocol.md, by rule, for the conformance kit: the wheel does not have the document.

    python scripts/conformance_sentences.py    # what `make conformance` does first

Each transcript case also has the rules that name it under "Held by".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "protocol.md"
FOLDER = ROOT / "python" / "cuttlefish_signaling" / "conformance"
FILE = FOLDER / "sentences.json"

LOCAL = "packets.jsonl"
"""Cases over local sockets, to which no URL leads."""

MOST = 400
"""Characters of a sentence. The document has the rest."""


def plain(text: str) -> str:
    """Markdown without links and emphasis."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "").replace("\\|", "|")
    text = " ".join(text.split())
    if len(text) <= MOST:
        return text
    cut = text[:MOST].rfind(". ")
    return text[: cut + 1] if cut > 0 else f"{text[:MOST]} ..."


def sentences(document: str) -> Iterator[tuple[str, str]]:
    """The number and the text of each rule."""
    for found in re.finditer(
        r'<a id="rule-([0-9-]+)"></a>\n\*\*[0-9.]+\s*(.*?)(?=\n\n|\n<|\n- |\n\|)', document, re.DOTALL
    ):
        yield found[1].replace("-", "."), plain(found[2])
    for line in document.splitlines():
        if row := re.match(r'\| <a id="rule-([0-9-]+)"></a>[0-9.]+ \|(.*)\|$', line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row[2])]
            yield row[1].replace("-", "."), plain(": ".join(cell for cell in cells if cell))


def held_by(document: str, titles: list[str]) -> dict[str, list[str]]:
    """The rules of each case."""
    found: dict[str, list[str]] = {title: [] for title in titles}
    for number, file, pattern in re.findall(r'^\| ([0-9.]+|–) \| `(\w+)\.jsonl: "(.*)"` \|$', document, re.MULTILINE):
        wanted = re.compile(f"{file}\\.jsonl: " + ".*".join(map(re.escape, pattern.split("*"))))
        for title in titles:
            if number != "–" and wanted.fullmatch(title):
                found[title].append(number)
    return found


def titles() -> list[str]:
    """The name of each case."""
    return [
        f"{file.name}: {line['case']}"
        for file in sorted((FOLDER / "transcripts").glob("*.jsonl"))
        for line in map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1])
        if "case" in line
    ]


def in_code() -> set[str]:
    """The rules that the functions of the kit hold."""
    texts = (file.read_text(encoding="utf-8") for file in FOLDER.glob("_*_rules.py"))
    sources = (re.sub(r'rfc\(\s*"[0-9.]+"', "", text) for text in texts)
    return {number for source in sources for number in re.findall(r'"([1-9]+(?:\.[0-9]+)+)"', source)}


def text() -> str:
    """The file."""
    document = DOCUMENT.read_text(encoding="utf-8")
    cases = {title: numbers for title, numbers in held_by(document, titles()).items() if not title.startswith(LOCAL)}
    used = {number for numbers in cases.values() for number in numbers} | in_code()
    found = dict(sentences(document))
    content = {"rules": {number: found[number] for number in sorted(used & found.keys())}, "cases": cases}
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
