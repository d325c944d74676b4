"""Tells whether this commit, with the wheels and the sdist in a folder, is ready to be published.

    PYTHONPATH=tests python scripts/release_check.py dist

Checks version, changelog, repository, tag, wheel and readme, prints a line for each problem, and exits with 1 where
there is one. Nothing is changed.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import tomli

import wheel_audit

ROOT = Path(__file__).parents[1]
# These appear on an index page or are linked from one, so their links are absolute.
DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md")
CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^]]+\]: *(\S+)", re.MULTILINE)


def version_of(root: Path) -> str:
    """The version: Cargo.toml is the one place that decides it."""
    manifest = tomli.loads((root / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["package"]["version"])


def project(root: Path) -> dict[str, object]:
    """The table `project` of pyproject.toml."""
    settings: dict[str, object] = tomli.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return settings


def repository_of(root: Path) -> str:
    """The address of the repository: `Source` among the URLs of pyproject.toml."""
    urls = project(root)["urls"]
    assert isinstance(urls, dict)
    return str(urls["Source"])


def check_version(root: Path, dist: Path) -> list[str]:
    """Compares every copy of the version with Cargo.toml."""
    version = version_of(root)
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        problems.append(f"Cargo.toml: version {version} is not of the form 1.2.3")
    for name in ("Cargo.lock", "fuzz/Cargo.lock"):
        packages = tomli.loads((root / name).read_text(encoding="utf-8"))["package"]
        (locked,) = (entry["version"] for entry in packages if entry["name"] == "cuttlefish-signaling")
        if locked != version:
            problems.append(
                f"{name} has cuttlefish-signaling {locked}, Cargo.toml has {version}: run `cargo update -w`"
            )
    if "version" in project(root) or "version" not in str(project(root)["dynamic"]):
        problems.append("pyproject.toml: `version` is not dynamic, so it does not come from Cargo.toml")
    for file in sorted(dist.glob("cuttlefish_signaling-*")):
        built = file.name.removesuffix(".tar.gz").split("-")[1]
        if built != version:
            problems.append(f"{file.name} has version {built}, Cargo.toml has {version}: build it again")
    return problems


def sections(root: Path) -> dict[str, str]:
    """The sections of the changelog by heading, newest first."""
    parts = re.split(r"^## (.*)\n", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def check_form_of_changelog(root: Path) -> list[str]:
    """Checks the headings against Keep a Changelog, for a released or an unreleased tree."""
    problems = []
    for number, (heading, text) in enumerate(sections(root).items()):
        dated = re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d)", heading)
        if dated:
            try:
                datetime.date.fromisoformat(dated[1])
            except ValueError as error:
                problems.append(f"CHANGELOG.md: {heading}: {error}")
        elif heading != "[Unreleased]" or number > 0:
            problems.append(
                f"CHANGELOG.md: heading {heading!r} is neither `[1.2.3] - 2026-01-31` nor the first, [Unreleased]"
            )
        for kind in re.findall(r"^### (.*)", text, re.MULTILINE):
            if kind not in CHANGES:
                problems.append(f"CHANGELOG.md: {heading}: {kind!r} is none of {', '.join(CHANGES)}")
    return problems


def check_changelog(root: Path, dist: Path) -> list[str]:
    """Checks that the newest section has this version, a date, entries and a link."""
    version = version_of(root)
    problems = check_form_of_changelog(root)
    heading, text = next(iter(sections(root).items()), ("nothing", ""))
    if not heading.startswith(f"[{version}] - "):
        problems.append(f"CHANGELOG.md begins with {heading!r}: expected `[{version}] - ` and the date")
    if not re.search(r"^- ", text, re.MULTILINE):
        problems.append(f"CHANGELOG.md: {heading} has no entries")
    if f"\n[{version}]: " not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        problems.append(f"CHANGELOG.md: [{version}] has no address at the end of the file")
    return problems


def check_links(root: Path) -> list[str]:
    """Checks that links are absolute, and that links into the repository lead to files that exist."""
    files = f"{repository_of(root)}/blob/main/"
    problems = []
    for document in DOCUMENTS:
        text = (root / document).read_text(encoding="utf-8")
        for link in (inline or reference for inline, reference in LINK.findall(text)):
            if link.startswith(files):
                if not (root / link.removeprefix(files).partition("#")[0]).exists():
                    problems.append(f"{document} links to {link}, and there is no such file")
            elif not link.startswith(("https://", "#")):
                problems.append(
                    f"{document} links to {link}, which leads nowhere on an index page: "
                    f"write [{link}] and add `[{link}]: {files}{link}` at its end"
                )
            elif ".example/" in link and not link.startswith(f"{repository_of(root)}/"):
                problems.append(f"{document} links to {link}, which is not below {repository_of(root)}")
    return problems


def check_repository(root: Path, dist: Path) -> list[str]:
    """Checks that the address of the repository is not the placeholder, and that links lead there."""
    problems = check_links(root)
    if repository_of(root).split("/")[2].endswith(".example"):
        problems.append(
            f"pyproject.toml: {repository_of(root)} is a placeholder: run `make repository-url URL=https://...`"
        )
    return problems


def git(root: Path, *arguments: str) -> str:
    """The output of git."""
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout


def check_tag(root: Path, dist: Path) -> list[str]:
    """Checks that HEAD has the tag of the version, and that the tree equals HEAD."""
    tag = f"v{version_of(root)}"
    problems = []
    tags = git(root, "tag", "--points-at", "HEAD").split()
    if tag not in tags:
        problems.append(f"HEAD has the tags {tags}: expected {tag}. Run `git tag {tag}`")
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        problems.append(f"the tree differs from HEAD: {', '.join(changed[:5])}")
    return problems


def check_wheel(root: Path, dist: Path) -> list[str]:
    """Checks that there are wheels, audits each, and checks that there is one sdist."""
    wheels = sorted(dist.glob("*.whl"))
    problems = [line for wheel in wheels for line in wheel_audit.audit(wheel)]
    if not wheels:
        problems.append(f"there is no wheel in {dist}: run `make wheel`")
    sdists = [file.name for file in dist.glob("*.tar.gz")]
    if len(sdists) != 1:
        problems.append(f"there are {len(sdists)} sdists in {dist}, expected one: run `make sdist`")
    return problems


def check_readme(root: Path, dist: Path) -> list[str]:
    """Checks that an index page renders the README, and that each wheel has the README of this tree."""
    files = [str(file) for file in sorted(dist.glob("cuttlefish_signaling-*"))]
    if not files:
        return [f"there is nothing in {dist} to render: run `make wheel sdist`"]
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    problems = []
    if done.returncode != 0:
        problems.append(f"twine check --strict fails: {' '.join((done.stdout + done.stderr).split())}")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for wheel in sorted(dist.glob("*.whl")):
        with ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            described = message_from_bytes(archive.read(name)).get_payload(decode=True)
        assert isinstance(described, bytes)
        if described.decode().strip() != readme.strip():
            problems.append(f"{wheel.name} describes itself by another README.md: build it again")
    return problems


CHECKS: dict[str, Callable[[Path, Path], list[str]]] = {
    "version": check_version,
    "changelog": check_changelog,
    "repository": check_repository,
    "tag": check_tag,
    "wheel": check_wheel,
    "readme": check_readme,
}


def main(dist: Path, root: Path = ROOT) -> int:
    """Runs all checks; returns the exit status."""
    ready = True
    for name, check in CHECKS.items():
        problems = check(root, dist)
        ready &= not problems
        print(f"{name}: {'FAILED' if problems else 'passed'}")
        for line in problems:
            print(f"    {line}")
    print(f"{version_of(root)} is {'ready' if ready else 'NOT ready'} to be published")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
