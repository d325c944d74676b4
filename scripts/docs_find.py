"""Looks in the search index of the built site for each name and text of the code (scripts/docs_terms.py).

python scripts/docs_find.py    # after `make docs`; exits with 1 where one has no page
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from docs_terms import terms

SITE = Path(__file__).resolve().parents[1] / "site"

PAGES = {
    "setting": "settings",
    "flag": "cli",
    "variable": "doors",
    "option of pytest": "testing",
    "error text": "errors",
    "close code": "errors",
    "exception": "errors",
    "name of Python": "python-api",
    "route": "http-api",
    "route of the control API": "control-api",
    "metric": "observing",
    "log event": "observing",
    "field of log events": "observing",
    "conformance rule": "conformance-rules",
}
"""The page on which a reader should find each kind. The others may be on any page."""


def plain(text: str) -> str:
    """The text of a section without its HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def pages_of(index: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The text of each page, without the sources and the changelog, in which everything is."""
    pages: dict[str, list[str]] = {}
    for section in index:
        name = section["location"].partition("#")[0].removesuffix(".html")
        if name != "changelog" and not name.startswith("files/"):
            pages.setdefault(name, []).append(f"{section['title']} {section['text']}")
    return {name: plain(" ".join(texts)) for name, texts in pages.items()}


def parts(term: str) -> list[str]:
    """The parts of a text between its values."""
    found = [" ".join(part.strip("' ").split()) for part in re.split(r"\{[^}]*\}", term.replace('\\"', '"'))]
    return [part for part in found if len(part) > 2] or [term]


def is_on(term: str, text: str) -> bool:
    """Whether a page has the name or the text: each of its parts as whole words."""
    pieces = [term] if term.startswith("/") else parts(term)
    before, after = r"(?<![\w-])", r"(?![\w-])"
    words = (before * part[0].isalnum() + re.escape(part) + after * part[-1].isalnum() for part in pieces)
    return all(re.search(word, text) for word in words)


def missing(wanted: Mapping[str, Iterable[str]], pages: Mapping[str, str]) -> list[str]:
    """The names and texts without a page, in sentences."""
    found = []
    for kind, names in wanted.items():
        where = [pages.get(PAGES[kind], "")] if kind in PAGES else list(pages.values())
        page = f"the page {PAGES[kind]!r}" if kind in PAGES else "any page"
        found += [
            f"{kind} {name!r} is not on {page}" for name in sorted(names) if not any(is_on(name, p) for p in where)
        ]
    return found


def foreign_hosts(site: Path) -> list[str]:
    """The places from which a page of the site would load something, if it is not the site itself."""
    loads = re.compile(
        r"""<(?:link|script|img|iframe|source|video|object|embed)\b[^>]*?(?:href|src|data)=["']?((?:https?:)?//[^"'\s>]*)"""
    )
    pages = sorted(site.rglob("*.html"))
    found = [
        f"{page.relative_to(site)}: {url}" for page in pages for url in loads.findall(page.read_text(encoding="utf-8"))
    ]
    styles = [
        path
        for path in site.rglob("*.css")
        if re.search(r"url\([\"']?(?:https?:)?//|@import", path.read_text(encoding="utf-8"))
    ]
    return [place for place in found if 'rel="canonical"' not in place] + [
        str(path.relative_to(site)) for path in styles
    ]


def main(site: Path = SITE) -> int:
    """Prints each name without a page; returns the exit status."""
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    wanted, pages = terms(), pages_of(index)
    problems = missing(wanted, pages)
    problems += [f"{place}: a page may load nothing from another host" for place in foreign_hosts(site)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        counts = ", ".join(f"{len(names)} x {kind}" for kind, names in wanted.items())
        print(f"{len(pages)} pages; the search finds a page for each of {counts}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
