"""Replaces the address of the repository in all files that name it.

    python scripts/repository_url.py https://forge.lab/group/cuttlefish-signaling

pyproject.toml is where it stands; the links of the documents repeat it, because a relative link leads nowhere on an
index page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "README.md", "SECURITY.md", "CHANGELOG.md", "deploy/Dockerfile")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Replaces it; returns the exit status."""
    url = arguments[0].rstrip("/") if len(arguments) == 1 else ""
    if not re.fullmatch(r"https://[\w.:-]+(/[\w.~-]+)+", url):
        print(f"URL={url!r} is not an address like https://forge.lab/group/cuttlefish-signaling", file=sys.stderr)
        return 2
    (old,) = re.findall(r'^Source = "(.*)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for name in FILES:
        text = (root / name).read_text(encoding="utf-8")
        (root / name).write_text(text.replace(old, url), encoding="utf-8")
        print(f"{name}: {text.count(old)} replaced")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
