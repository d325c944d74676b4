"""Builds the site of the documentation.

    python scripts/docs_build.py            # target/docs, then site/, then a look for each name in its search index
    python scripts/docs_build.py --stage    # target/docs alone, for another builder of mkdocs.yml

target/docs has the pages of docs/, the documents of the repository's root, the reference that is made from the code
(scripts/docs_reference.py), and a page for each file and folder that one of these links to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import docs_find
from docs_links import Pages
from docs_reference import REFERENCE

ROOT = Path(__file__).resolve().parents[1]
STAGED = ROOT / "target" / "docs"
SITE = ROOT / "site"
PICTURES = {".svg", ".png", ".webp"}


def stage(root: Path = ROOT, target: Path = STAGED) -> Pages:
    """Writes the source of the site."""
    shutil.rmtree(target, ignore_errors=True)
    pages = Pages(root)
    for path in sorted((root / "docs").rglob("*")):
        place = path.relative_to(root / "docs")
        if path.suffix == ".md":
            pages.add(path, place.as_posix())
        elif path.suffix in PICTURES:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)
    for document in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        pages.add(root / document, document.lower())
    pages.add(root / "examples" / "README.md", "examples.md")
    for name, page in REFERENCE.items():
        pages.texts[name] = page()
    pages.add_linked_files()
    for name, text in pages.texts.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8")
    return pages


def build(root: Path = ROOT) -> int:
    """Builds the site from what is staged. A warning is an error."""
    shutil.rmtree(root / "site", ignore_errors=True)
    zensical = str(Path(sys.executable).parent / "zensical")
    done = subprocess.run(
        [zensical, "build", "--strict", "--clean"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr), file=sys.stderr)
    return done.returncode


def main(arguments: list[str]) -> int:
    """Stages and builds; returns the exit status."""
    pages = stage()
    print(f"{STAGED.relative_to(ROOT)}: {len(pages.texts)} pages")
    if pages.broken:
        print("\n".join(["links to nothing:", *pages.broken]), file=sys.stderr)
        return 1
    if "--stage" in arguments:
        return 0
    return build() or docs_find.main(SITE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
