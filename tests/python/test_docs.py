"""The site of the documentation: its pages, their links, and the look for each name of the code.

`make docs`, which `make lint` runs, builds the site itself and looks in its search index.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cuttlefish_signaling.cli import COMMANDS, parser

from docs_build import stage
from docs_find import foreign_hosts, is_on, missing, pages_of
from docs_links import Pages
from docs_reference import REFERENCE, cell, cli_page, control_routes_page, doors_page, shape
from docs_terms import ANSWERS, close_codes, error_texts, terms

ROOT = Path(__file__).parents[2]
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
REFUSALS = (ROOT / "src" / "protocol" / "refusal.rs").read_text(encoding="utf-8")
DOCUMENTS = [
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    *(path.name for path in sorted(ROOT.glob("*.md"))),
    "examples/README.md",
]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The source of the site."""
    return stage(ROOT, tmp_path_factory.mktemp("staged"))


# Pages and links ------------------------------------------------------------------------------------------------------


def places(entries: object) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, dict):
        for entry in entries.values():
            yield from places(entry)
    elif isinstance(entries, list):
        for entry in entries:
            yield from places(entry)


def test_each_page_is_in_the_navigation_once(staged: Pages) -> None:
    listed = list(places(YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = sorted(name for name in staged.texts if not name.startswith("files/"))
    assert sorted(listed) == pages, "nav of mkdocs.yml names each page of docs/, and nothing else"


def test_no_page_links_to_a_file_that_is_not_there(staged: Pages) -> None:
    assert staged.broken == []


def anchors(text: str) -> set[str]:
    """The anchors of a document, as a forge makes them, and those that it has itself."""
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for title in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        found.add(re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    plain = re.sub(r"`[^`\n]*`", "", plain)
    (url,) = re.findall(r'^Source = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", plain) + re.findall(r"^\[[^\]]+\]: (\S+)$", plain, re.MULTILINE)
    wrong = []
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith(f"{url}/blob/main/"):
            target = ROOT / path.removeprefix(f"{url}/blob/main/")
        elif "://" in path:
            continue
        else:
            target = (ROOT / document).parent / path if path else ROOT / document
        is_heading = anchor and target.suffix == ".md" and target.exists()
        if not target.exists() or (is_heading and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


def test_definitions_of_links_are_used() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        defined = re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE)
        assert len(defined) == len(set(defined)), document
        for name in defined:
            assert text.count(f"[{name}]") > 1, f"{document} defines [{name}] and does not use it"


def small_site(root: Path, **documents: str) -> Pages:
    """A repository with these documents in docs/, and a file beside them."""
    (root / "docs").mkdir()
    (root / "examples").mkdir()
    (root / "pyproject.toml").write_text('Source = "https://forge.lab/x"\n', encoding="utf-8")
    (root / "examples" / "run.py").write_text("print(1)\n", encoding="utf-8")
    pages = Pages(root)
    for name, text in documents.items():
        (root / "docs" / f"{name}.md").write_text(text, encoding="utf-8")
        pages.add(root / "docs" / f"{name}.md", f"{name}.md")
    pages.add_linked_files()
    return pages


def test_links_to_files_of_the_repository_become_pages(tmp_path: Path) -> None:
    pages = small_site(
        tmp_path, a="[b](b.md#x) [run](../examples/run.py)\n\n[f]: https://forge.lab/x/blob/main/docs/b.md", b="# B"
    )
    assert pages.texts["a.md"] == "[b](b.md#x) [run](files/examples/run.py.md)\n\n[f]: b.md"
    assert pages.texts["files/examples/run.py.md"] == "# examples/run.py\n\n````python\nprint(1)\n````\n"
    assert pages.broken == []


def test_file_names_become_titles(tmp_path: Path) -> None:
    pages = small_site(
        tmp_path, a="# A\n\n([b.md](b.md#x), [docs/b.md](b.md), [c.md](b.png), `[b.md](b.md)`)", b="# The B\n"
    )
    assert "([The B](b.md#x), [The B](b.md), [c.md]" in pages.texts["a.md"]


def test_links_to_nothing_are_told_and_code_is_left_alone(tmp_path: Path) -> None:
    pages = small_site(tmp_path, a="[x](gone.md)\n\n```text\n[x](also-gone.md)\n```\n")
    assert pages.broken == ["docs/a.md: gone.md"]
    assert "[x](also-gone.md)" in pages.texts["a.md"]


# The reference --------------------------------------------------------------------------------------------------------


def test_reference_has_each_command_and_flag() -> None:
    page = cli_page()
    for command in COMMANDS:
        assert f"## cuttlefish-signaling {command}\n" in page
    assert "| `--port PORT` | port to listen on; 0 is a free one" in page
    assert "### cuttlefish-signaling conform server\n" in page
    assert "%(default)s" not in page


def test_doors_have_the_four_names_of_a_setting() -> None:
    page = doors_page()
    row = "| `max_devices` | `Limits(max_devices=)` | `--max-devices` | `CUTTLEFISH_SIGNALING_MAX_DEVICES` |"
    assert f"{row} `max_devices` in `[limits]` | `16384` |" in page
    assert (
        "| `host` | `SignalingServer(host=)` | `--host` | `CUTTLEFISH_SIGNALING_HOST` | `host` | `'127.0.0.1'` |"
        in page
    )
    assert "| `allowed_hosts` | `SignalingServer(allowed_hosts=)` | `--allow-host` |" in page


def test_routes_of_the_control_api_have_their_shapes() -> None:
    page = control_routes_page()
    assert "| `GET /control/v1/waiting` | The clients that wait" in page
    assert "| `{waiting: [Waiting, ...]}` |" in page
    document = (ROOT / "src/server/control/openapi.json").read_text(encoding="utf-8")
    for path in re.findall(r'^ +"(/control/v1[^"]*)"', document, re.MULTILINE):
        assert f" {path}`" in page
    assert "any, ..." not in page


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#/components/schemas/Node"}, "Node"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"type": "array", "items": {"type": "integer"}}, "[integer, ...]"),
        ({"type": "object", "properties": {"a": {"const": True}, "b": {}}, "required": ["a"]}, "{a: true, b?: any}"),
        ({"oneOf": [{"type": "string"}, {"enum": ["x", 1]}]}, 'string or "x" or 1'),
    ],
)
def test_schemas_are_told_in_short(schema: dict[str, Any], text: str) -> None:
    assert shape(schema) == text


def test_cells_of_tables_keep_their_marks() -> None:
    assert cell("a | b < c\n*d* [e]") == r"a \| b &lt; c \*d\* \[e\]"
    assert set(REFERENCE) >= {"cli.md", "doors.md", "python-api.md", "python-errors.md", "python-testing.md"}


# The look for names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("max_devices", "the setting max_devices is", True),
        ("max_devices", "max_devices_more", False),
        ("--port", "--port N", True),
        ("--port", "--ports", False),
        ("--port", "--metrics-port", False),
        ("/devices", "GET /devices answers", True),
        ("Too many {what}: at most {per_second} a second", "Too many pings: at most N a second", True),
        ("Too many {what}: at most {per_second} a second", "Too many pings", False),
        ("Host not allowed: {host}; --allow-host admits it", "Host not allowed: X; --allow-host admits it", True),
        ("Forward failed: Unknown client {id}", "Forward failed: Unknown client N", True),
        ("1008", "[1008]", True),
        ("1008", "10080", False),
    ],
)
def test_names_are_found_as_whole_words(term: str, text: str, found: bool) -> None:
    assert is_on(term, text) is found


def test_a_name_without_its_page_is_told() -> None:
    index = [
        {"location": "errors.html#a", "title": "Errors", "text": "<code>Not found</code> &amp; more"},
        {"location": "changelog.html", "title": "Changes", "text": "Gone away"},
        {"location": "files/x.html", "title": "x", "text": "Gone away"},
        {"location": "testing.html", "title": "Tests", "text": "Not here"},
    ]
    pages = pages_of(index)
    assert pages == {"errors": "Errors Not found & more", "testing": "Tests Not here"}
    assert missing({"error text": ["Not found", "Gone away", "Not here"]}, pages) == [
        "error text 'Gone away' is not on the page 'errors'",
        "error text 'Not here' is not on the page 'errors'",
    ]


def test_pages_that_load_from_another_host_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://x.lab/">x</a><img src="b.png"><script src="c.js"></script>')
    assert foreign_hosts(tmp_path) == []
    (tmp_path / "b.html").write_text('<script defer src="https://cdn.lab/x.js"></script><link href=//fonts.lab/f.css>')
    (tmp_path / "c.css").write_text("@font-face { src: url(https://fonts.lab/f.woff) }")
    assert foreign_hosts(tmp_path) == ["b.html: https://cdn.lab/x.js", "b.html: //fonts.lab/f.css", "c.css"]


def test_error_texts_are_taken_from_the_sources(tmp_path: Path) -> None:
    for name in ANSWERS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
    source = tmp_path / "src" / "server" / "http" / "new.rs"
    source.write_text(
        '/// Answers "No such thing here".\nfn f() {\n    error(StatusCode::GONE, &format!("No {what} any more"));\n'
        '    tracing::warn!("Cannot do it");\n    End::close(1013, "too busy");\n}\n'
        '#[cfg(test)]\nmod tests { const T: &str = "Only a test"; }\n',
        encoding="utf-8",
    )
    assert error_texts(tmp_path) == {"No {what} any more", "too busy"}
    assert close_codes(tmp_path) == {"1013"}


def test_terms_are_complete() -> None:
    found = terms()
    assert len(found["setting"]) > 100
    assert {"--port", "--turn-server", "--junit", "--dry-run"} <= found["flag"]
    assert {"Received Invalid JSON", "slow consumer", "Host is missing"} <= found["error text"]
    assert {"1000", "1001", "1002", "1003", "1007", "1008", "1009", "1011", "1013"} == found["close code"]
    assert {"cuttlefish_signaling_devices", "cuttlefish_signaling_forwards_total"} <= found["metric"]
    assert all(found.values())


# Errors ---------------------------------------------------------------------------------------------------------------


def body_of(function: str) -> str:
    """The match of a function of `Refusal`."""
    return REFUSALS.partition(f"pub fn {function}(")[2].partition("\n    }\n")[0]


def codes() -> dict[str, str]:
    """The close code of each refusal, by its variant; `stays open` for those that close nothing."""
    variants = REFUSALS.partition("pub enum Refusal {")[2].partition("\n}\n")[0]
    found = dict.fromkeys(re.findall(r"^    ([A-Z]\w+)", variants, re.MULTILINE), "1008")
    arms = r"((?:\|?\s*Self::\w+(?:\([^)]*\)|\s*\{[^}]*\})?\s*)+)=> (?:None|Some\((\d+)\))"
    for arm in re.finditer(arms, body_of("close_code")):
        for name in re.findall(r"Self::(\w+)", arm[1]):
            found[name] = arm[2] or "stays open"
    return found


def texts() -> Iterator[tuple[str, str]]:
    """The variant and the text of each refusal; `{}` stands for a value."""
    constants = dict(re.findall(r'const (\w+): &str = "([^"]*)"', REFUSALS))
    arms = re.split(r"\n            (?=Self::)", body_of("text"))
    for arm in arms[1:]:
        variant = re.match(r"Self::(\w+)", arm)
        literals = re.findall(r"echo\((\w+),", arm) + re.findall(r'"([^"]*)"', arm)
        written = [constants.get(literal, literal) for literal in literals if literal.strip(" '")]
        if variant and written:
            yield variant[1], written[0]


def test_refusals_are_on_the_page_of_errors_with_their_close_codes() -> None:
    expected, seen = codes(), set()
    rows = re.findall(r"^\| (`.+?) \| (1\d{3}|stays open) \|", ERRORS, re.MULTILINE)
    for variant, text in texts():
        seen.add(variant)
        pattern = r"\w+".join(re.escape(part) for part in re.split(r"\{[^}]*\}", text))
        found = {code for row, code in rows if re.search(f"`{pattern}", row)}
        assert found == {expected[variant]}, (
            f"{variant}: {text!r} is {expected[variant]} in the code, and {found} in docs/errors.md"
        )
    assert len(seen) >= 28
    assert {code for _, code in rows} > {"1003", "1007", "1011", "1013", "stays open"}


def test_each_error_has_a_cause() -> None:
    for line in ERRORS.splitlines():
        if line.startswith("| `"):
            cells = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert all(cells[:-1]), line


# The story ------------------------------------------------------------------------------------------------------------

STORY = ["For whom", "Install", "Ten lines that work", "Not included", "Stability and upgrades"]


@pytest.mark.parametrize("document", ["README.md", "docs/index.md"])
def test_readme_and_front_page_tell_the_same_story(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[: len(STORY)] == STORY


@pytest.mark.parametrize("title", ["For whom", "Not included"])
def test_readme_and_front_page_have_the_same_lists(title: str) -> None:
    def items(document: str) -> list[str]:
        text = (ROOT / document).read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
        return re.findall(r"^- (.{24})", text, re.MULTILINE)

    assert items("README.md") == items("docs/index.md")


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert len(pictures) >= 2
    for picture in pictures:
        assert picture.stat().st_size < 100_000
        assert f"](pictures/{picture.name})" in pages


# Commands -------------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """The commands of the program in all documents."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if found := re.search(r"(?:^|[\s/])cuttlefish-signaling ([^|>&]*)", line.partition(" #")[0]):
                    arguments = found[1].strip()
                    if arguments.split(" ")[0] in COMMANDS:
                        yield document, arguments


@pytest.mark.parametrize(("document", "arguments"), sorted(set(commands())))
def test_commands_of_documents_parse(document: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(f"{document}: cuttlefish-signaling {arguments}: {message}")

    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    monkeypatch.setattr(type(parser()), "error", refuse)
    parser().parse_args(shlex.split(arguments))


def test_there_are_commands() -> None:
    used = {arguments.split()[0] for _, arguments in commands()}
    assert used == set(COMMANDS), "each command is in a document"


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        named = re.findall(r"^make ([a-z-]+)", text, re.MULTILINE) + re.findall(r"`make ([a-z-]+)", text)
        for target in named:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"
