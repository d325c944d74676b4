"""The pages of the site, and the links between them: a file of the repository that a page links to is a page too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

FENCE = re.compile(r"^(?: *)(```|~~~).*?^(?: *)\1", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
DEFINED = re.compile(r"(?<=^)(\[[^\]]+\]: )(\S+)$", re.MULTILINE)
NAMED = re.compile(r"\[(?:[\w-]+/)*[\w-]+\.md\](?=\(([\w./-]+\.md)(?:#[\w-]+)?\))")
MADE = {"__pycache__", "failures", ".pytest_cache"}
"""Folders that a run of an example makes."""

LANGUAGES = {
    ".conf": "ini",
    ".feature": "gherkin",
    ".json": "json",
    ".jsonl": "json",
    ".mjs": "javascript",
    ".html": "html",
    ".py": "python",
    ".robot": "robotframework",
    ".rs": "rust",
    ".service": "ini",
    ".sh": "sh",
    ".socket": "ini",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}


def outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """The text, changed wherever it is not a block of code."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def for_python_markdown(text: str) -> str:
    """The text in the dialect of Python-Markdown: Markdown inside HTML, and pipes of code in tables."""
    text = text.replace("<details>", '<details markdown="1">')
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace(r"\|", "|"), text)


def titled(text: str, page: str, titles: Mapping[str, str]) -> str:
    """The text with the titles of pages in the place of their file names: `[service.md](service.md)`."""

    def title_of(link: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(page).parent / link[1])
        return f"[{titles[target]}]" if target in titles else link[0]

    return NAMED.sub(title_of, text)


class Pages:
    """The Markdown of the site by the path of each page."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts: dict[str, str] = {}
        self.broken: list[str] = []
        self._page_of: dict[str, str] = {"README.md": "index.md"}
        self._linked: set[str] = set()
        (self._url,) = re.findall(
            r'^Source = "(.*)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
        )

    def add(self, source: Path, page: str) -> None:
        """Adds a document of the repository."""
        self._page_of[source.relative_to(self.root).as_posix()] = page
        self.texts[page] = source.read_text(encoding="utf-8")

    def add_linked_files(self) -> None:
        """Changes the links of all documents, and adds a page for each file that they name."""
        sources = {
            page: source for source, page in self._page_of.items() if page != "index.md" or source != "README.md"
        }
        for page, text in list(self.texts.items()):
            source = sources.get(page, f"docs/{page}")
            self.texts[page] = outside_of_code(
                text,
                lambda part, source=source, page=page: self._changed(part, source, page),  # type: ignore[misc]
            )
        titles = {page: title[1] for page, text in self.texts.items() if (title := re.match(r"# (.+)", text))}
        for page, text in list(self.texts.items()):
            self.texts[page] = outside_of_code(text, lambda part, page=page: titled(part, page, titles))  # type: ignore[misc]
        for name in sorted(self._linked):
            self.texts[self._file_page(name)] = self._file_text(name)

    def _changed(self, text: str, source: str, page: str) -> str:
        text = for_python_markdown(text)
        text = INLINE.sub(lambda link: self._link(link[1], source, page), text)
        return DEFINED.sub(lambda link: link[1] + self._link(link[2], source, page), text)

    def _link(self, link: str, source: str, page: str) -> str:
        """The link of a page of the site in the place of one of a document."""
        path, mark, anchor = link.partition("#")
        for kind in ("blob", "tree"):
            if path.startswith(f"{self._url}/{kind}/main/"):
                path, source = "/" + path.removeprefix(f"{self._url}/{kind}/main/"), ""
        if not path or "://" in path or path.startswith("mailto:"):
            return link
        name = os.path.normpath(PurePosixPath(source).parent / path.lstrip("/") if source else path.lstrip("/"))
        if name.startswith("docs/") and Path(name).suffix in {".svg", ".png", ".webp"}:
            to = name.removeprefix("docs/")
        elif name in self._page_of:
            to = self._page_of[name]
        elif name.removeprefix("docs/") in self.texts:
            to = name.removeprefix("docs/")
        elif (self.root / name).exists():
            self._linked.add(name)
            to = self._file_page(name)
        else:
            self.broken.append(f"{source or page}: {link}")
            return link
        return os.path.relpath(to, PurePosixPath(page).parent) + mark + anchor

    def _file_page(self, name: str) -> str:
        return f"files/{name}/index.md" if (self.root / name).is_dir() else f"files/{name}.md"

    def _file_text(self, name: str) -> str:
        path = self.root / name
        if path.is_dir():
            files = [one for one in sorted(path.rglob("*")) if one.is_file() and not MADE & set(one.parts)]
            return "\n\n".join([f"# {name}", *(f"## {one.relative_to(path)}\n\n{block(one)}" for one in files)])
        return f"# {name}\n\n{block(path)}"


def block(path: Path) -> str:
    """A file as a block of code."""
    text = path.read_text(encoding="utf-8")
    language = "dockerfile" if path.name == "Dockerfile" else LANGUAGES.get(path.suffix, "text")
    return f"````{language}\n{text.rstrip()}\n````\n"
