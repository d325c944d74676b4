"""`make release-check` passes a release that is ready and says why another is not; what this tree has of it holds."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import release_check
import repository_url
import wheel
import wheel_audit

ROOT = Path(__file__).parents[2]
VERSION = release_check.version_of(ROOT)
URL = "https://forge.lab/group/cuttlefish-signaling"
COPIED = {
    "Cargo.toml",
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "pyproject.toml",
    *release_check.DOCUMENTS,
    *repository_url.FILES,
}
NAME = f"cuttlefish_signaling-{VERSION}"
WHEEL = f"{NAME}-cp310-abi3-manylinux_2_17_{platform.machine()}.whl"


def metadata(readme: str) -> bytes:
    head = ["Metadata-Version: 2.1", "Name: cuttlefish-signaling", f"Version: {VERSION}"]
    return "\n".join([*head, "Description-Content-Type: text/markdown", "", readme]).encode()


def pack(dist: Path, readme: str, name: str = WHEEL, library: bytes = b"", record: bool = True) -> Path:
    """A wheel with this description, and an extension module where one is given."""
    files = {
        "cuttlefish_signaling/__init__.py": b"",
        "cuttlefish_signaling/_native.abi3.so": library,
        f"{NAME}.dist-info/METADATA": metadata(readme),
        f"{NAME}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-abi3-any\n",
    }
    lines = "".join(f"{file},{digest(content)},{len(content)}\n" for file, content in files.items())
    files[f"{NAME}.dist-info/RECORD"] = f"{lines}{NAME}.dist-info/RECORD,,\n".encode() if record else b""
    with ZipFile(dist / name, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return dist / name


def digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def git(tree: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t.example")
    subprocess.run(["git", "-C", str(tree), *identity, *arguments], check=True, capture_output=True)


def edit(tree: Path, name: str, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, (tree / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count > 0, f"{name} has no {pattern}"
    (tree / name).write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release that is ready: the files of this tree that matter, its tag, a wheel and an sdist."""
    monkeypatch.setattr(wheel_audit, "audit", lambda wheel: [])
    tree = tmp_path / "tree"
    for name in COPIED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for linked in re.findall(r"/blob/main/(\S+)$", (tree / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        (tree / linked).parent.mkdir(parents=True, exist_ok=True)
        (tree / linked).touch()
    assert repository_url.main([URL], tree) == 0
    changelog = (
        f"# Changelog\n\n## [{VERSION}] - 2026-12-01\n\n### Added\n\n- All of it.\n\n[{VERSION}]: {URL}/releases\n"
    )
    (tree / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    git(tree, "init", "--quiet")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "Release")
    git(tree, "tag", f"v{VERSION}")
    dist = tmp_path / "dist"
    dist.mkdir()
    readme = (tree / "README.md").read_text(encoding="utf-8")
    pack(dist, readme)
    with tarfile.open(dist / f"{NAME}.tar.gz", "w:gz") as archive:
        for name in ("PKG-INFO", "pyproject.toml"):
            information = tarfile.TarInfo(f"{NAME}/{name}")
            information.size = len(metadata(readme))
            archive.addfile(information, io.BytesIO(metadata(readme)))
    return tree


def test_a_ready_release_passes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = release_check.main(tree.parent / "dist", tree)
    said = capsys.readouterr().out
    assert status == 0, said
    assert [line for line in said.splitlines() if line.endswith(": passed")] == [
        f"{name}: passed" for name in release_check.CHECKS
    ]


def amend(tree: Path) -> None:
    git(tree, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(tree, "tag", "--force", f"v{VERSION}")


def changed(name: str, pattern: str, replacement: str) -> Callable[[Path, Path], None]:
    def change(tree: Path, dist: Path) -> None:
        edit(tree, name, pattern, replacement)
        amend(tree)

    return change


def without(pattern: str) -> Callable[[Path, Path], None]:
    def remove(tree: Path, dist: Path) -> None:
        for file in dist.glob(pattern):
            file.unlink()

    return remove


def described(readme: str) -> Callable[[Path, Path], None]:
    def describe(tree: Path, dist: Path) -> None:
        pack(dist, readme)

    return describe


def of_another_version(tree: Path, dist: Path) -> None:
    pack(dist, (tree / "README.md").read_text(encoding="utf-8"), WHEEL.replace(VERSION, "0.0.9"))


BROKEN: dict[str, tuple[str, Callable[[Path, Path], None], str]] = {
    "the lock file": (
        "version",
        changed("Cargo.lock", f'^version = "{VERSION}"', 'version = "0.0.9"'),
        "Cargo.lock has",
    ),
    "the fuzz targets": (
        "version",
        changed("fuzz/Cargo.lock", f'^version = "{VERSION}"', 'version = "0.0.9"'),
        "fuzz/Cargo.lock has cuttlefish-signaling 0.0.9",
    ),
    "a second version": (
        "version",
        changed("pyproject.toml", r'^dynamic = \["version"\]', 'version = "9.9.9"\ndynamic = []'),
        "`version` is not dynamic",
    ),
    "an old wheel": ("version", of_another_version, "has version 0.0.9"),
    "not released": (
        "changelog",
        changed("CHANGELOG.md", r"^## \[.*", "## [Unreleased]"),
        "begins with '[Unreleased]'",
    ),
    "no such day": (
        "changelog",
        changed("CHANGELOG.md", "2026-12-01", "2026-02-30"),
        "2026-02-30: day is out of range",
    ),
    "no date": ("changelog", changed("CHANGELOG.md", " - 2026-12-01", ""), "is neither `[1.2.3] - 2026-01-31`"),
    "no entries": ("changelog", changed("CHANGELOG.md", "^- .*", ""), "has no entries"),
    "a kind of its own": ("changelog", changed("CHANGELOG.md", "^### Added", "### New"), "'New' is none of Added"),
    "no address": ("changelog", changed("CHANGELOG.md", r"^\[.*\]: .*", ""), "has no address"),
    "a placeholder": (
        "repository",
        changed("pyproject.toml", "forge.lab/group", "forge.example"),
        "https://forge.example/cuttlefish-signaling is a placeholder",
    ),
    "a relative link": (
        "repository",
        changed("README.md", r"See \[docs/page.md\]", "See [docs/page.md](docs/page.md)"),
        "links to docs/page.md, which leads nowhere on an index page",
    ),
    "a dead link": ("repository", lambda tree, dist: (tree / "docs/page.md").unlink(), "there is no such file"),
    "no tag": ("tag", lambda tree, dist: git(tree, "tag", "--delete", f"v{VERSION}"), f"expected v{VERSION}"),
    "an older tag": (
        "tag",
        lambda tree, dist: git(tree, "commit", "--quiet", "--allow-empty", "--message", "More"),
        f"HEAD has the tags []: expected v{VERSION}",
    ),
    "uncommitted": (
        "tag",
        lambda tree, dist: edit(tree, "README.md", "^# ", "# My "),
        "the tree differs from HEAD:  M README",
    ),
    "no wheel": ("wheel", without("*.whl"), "there is no wheel in"),
    "no sdist": ("wheel", without("*.tar.gz"), "there are 0 sdists in"),
    "nothing": ("readme", without("*"), "there is nothing in"),
    "an old README": (
        "readme",
        described("# Older"),
        "describes itself by another README.md",
    ),
    "an empty README": ("readme", described(""), "twine check --strict fails"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_fails(tree: Path, name: str) -> None:
    check, change, expected = BROKEN[name]
    change(tree, tree.parent / "dist")
    problems = release_check.CHECKS[check](tree, tree.parent / "dist")
    assert any(expected in line for line in problems), problems


def test_all_problems_are_told(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("not released", "no tag", "no wheel"):
        BROKEN[name][1](tree, tree.parent / "dist")
    assert release_check.main(tree.parent / "dist", tree) == 1
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(": FAILED")] == [
        *("changelog: FAILED", "tag: FAILED", "wheel: FAILED")
    ]
    assert said.endswith(f"{VERSION} is NOT ready to be published\n")


# The wheel's own audit.


def compiled(folder: Path, code: str, *flags: str) -> bytes:
    (folder / "library.c").write_text(code, encoding="utf-8")
    command = ["cc", "-shared", "-fPIC", *flags, "-o", str(folder / "library.so"), str(folder / "library.c")]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "library.so").read_bytes()


# `__libc_start_main` has had a new version since glibc 2.34, which is what a linker of today refers to.
NEW_GLIBC = "extern int __libc_start_main(void); int PyInit__native(void) { return __libc_start_main(); }"
NOT_STABLE = "extern int PyUnicode_AsUTF8(void); int PyInit__native(void) { return PyUnicode_AsUTF8(); }"
NOTHING = "int PyInit__native(void) { return 0; }"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            NEW_GLIBC,
            f"GLIBC_2.34, so it is manylinux_2_34_{platform.machine()}",
            id="a newer glibc",
            marks=pytest.mark.skipif(wheel_audit.numbers(f"_{platform.libc_ver()[1]}") < [2, 34], reason="old glibc"),
        ),
        pytest.param(NOT_STABLE, "abi3audit --strict refuses", id="a symbol outside of abi3"),
        pytest.param(NOTHING, "check-wheel-contents refuses", id="an empty RECORD"),
    ],
)
def test_the_audit_of_a_wheel_fails(tmp_path: Path, code: str, expected: str) -> None:
    packed = pack(tmp_path, "# It", library=compiled(tmp_path, code), record=code != NOTHING)
    problems = wheel_audit.audit(packed)
    assert any(expected in line for line in problems), problems


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (WHEEL, []),
        (f"{NAME}-cp310-abi3-musllinux_1_2_riscv64.whl", []),
        (f"{NAME}-cp310-abi3-linux_x86_64.whl", ["is tagged linux_x86_64: expected manylinux_2_17_"]),
        (f"{NAME}-cp310-abi3-manylinux_2_34_x86_64.whl", ["is tagged manylinux_2_34_x86_64: expected manylinux_2_17_"]),
        (f"{NAME}-cp310-cp310-manylinux_2_17_x86_64.whl", ["is tagged cp310-cp310: expected cp310-abi3"]),
    ],
)
def test_the_audit_of_a_name(name: str, expected: list[str]) -> None:
    problems = wheel_audit.tagged(Path(name), None)
    assert len(problems) == len(expected)
    assert all(part in line for part, line in zip(expected, problems, strict=True)), problems


def test_a_large_wheel_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_audit, "MAX_BYTES", 100)
    assert "at most 100 are allowed" in wheel_audit.sized(pack(tmp_path, "# It"))[0]


@pytest.mark.parametrize(
    ("promised", "needed", "covered"),
    [
        ("manylinux_2_17_x86_64", "manylinux_2_17_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_5_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_18_x86_64", False),
        ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64", False),
        ("manylinux_2_17_x86_64", "musllinux_1_2_x86_64", False),
        ("manylinux_2_17_x86_64", "linux_x86_64", False),
        ("manylinux2014_x86_64", "manylinux_2_17_x86_64", False),
    ],
)
def test_tags_cover_older_ones(promised: str, needed: str, covered: bool) -> None:
    assert wheel_audit.covers(promised, needed) is covered


# This tree.


def test_the_version_stands_in_one_place(tmp_path: Path) -> None:
    assert release_check.check_version(ROOT, tmp_path) == []


def test_the_changelog_keeps_its_form() -> None:
    assert release_check.check_form_of_changelog(ROOT) == []
    newest = next(iter(release_check.sections(ROOT)))
    assert newest == "[Unreleased]" or newest.startswith(f"[{VERSION}] - ")


def test_links_lead_somewhere() -> None:
    assert release_check.check_links(ROOT) == []


def test_versions_in_the_metadata_are_those_the_wheel_is_used_on() -> None:
    classifiers: Any = release_check.project(ROOT)["classifiers"]
    named = [match[1] for text in classifiers if (match := re.fullmatch(r".* :: (3\.\d+)", text))]
    assert named == list(wheel.VERSIONS)


def test_the_address_of_the_repository_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in repository_url.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    old = release_check.repository_of(tmp_path)
    assert repository_url.main([f"{URL}/"], tmp_path) == 0
    assert release_check.repository_of(tmp_path) == URL
    assert all(old not in (tmp_path / name).read_text(encoding="utf-8") for name in repository_url.FILES)
    assert repository_url.main(["http://plain"], tmp_path) == 2
    assert "URL='http://plain' is not an address" in capsys.readouterr().err


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", makefile, re.MULTILINE)[0].replace("\\\n", " ").split()
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(re.findall(r"^make ([a-z-]+)", told, re.MULTILINE)) == sorted(set(phony) - {"help"})


# The steps of `make test`.


def test_steps_are_counted_and_timed(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("one two:\n\t@echo running $@\nbad:\n\t@exit 3\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "steps.py"), "make"]
    done = subprocess.run([*command, "one", "two"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    timeless = re.sub(r"\d+ s$", "N s", done.stdout, flags=re.MULTILINE)
    assert timeless.splitlines()[:6] == [
        *("=== [1/2] one", "running one", "=== [1/2] one: passed in N s"),
        *("=== [2/2] two", "running two", "=== [2/2] two: passed in N s"),
    ]
    assert re.search(r"^ +in all +N s$", timeless, re.MULTILINE)
    done = subprocess.run([*command, "one", "bad", "two"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "=== [2/3] bad: FAILED after" in done.stdout
    assert "make bad" in done.stdout
    assert "running two" not in done.stdout
