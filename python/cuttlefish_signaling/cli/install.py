"""`install-operator` and `uninstall-operator`: the systemd unit of a server in the place of the host's operator."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..errors import ConfigError
from .output import print_answer
from .unit import GROUP, NAME, USER, is_safe, is_unchanged, unit

UNIT_DIRECTORY = "etc/systemd/system"
"""The administrator's directory of units, which comes before those of packages."""

HIDDEN = ("home", "root", "run/user", "tmp", "var/tmp")
"""Directories that the unit does not see (ProtectHome=, PrivateTmp=)."""


def install_operator(arguments: argparse.Namespace) -> int:
    """Writes the unit. Raises ConfigError where the host lacks something, or a file is not to be overwritten."""
    root = _root(arguments.root)
    text = unit(_command(root, arguments.program))
    path = root / UNIT_DIRECTORY / NAME
    before = _read(path)
    if before is not None and not is_unchanged(before) and not arguments.force:
        raise ConfigError(str(path), f"{_reason(before)}: --force overwrites it")
    if arguments.dry_run:
        print_answer(text)
        return 0
    _check_accounts(root)
    _write(path, text)
    print_answer(
        f"wrote {path}",
        "now: systemctl daemon-reload && systemctl restart cuttlefish-operator",
        "at each boot, if it is disabled: systemctl enable cuttlefish-operator",
    )
    return 0


def uninstall_operator(arguments: argparse.Namespace) -> int:
    """Removes the unit. Raises ConfigError where it is a file of another origin or was changed."""
    path = _root(arguments.root) / UNIT_DIRECTORY / NAME
    text = _read(path)
    if text is None:
        print_answer(f"{path} is not there: nothing to do")
        return 0
    if not is_unchanged(text) and not arguments.force:
        raise ConfigError(str(path), f"{_reason(text)}: --force removes it")
    if arguments.dry_run:
        print_answer(f"would remove {path}")
        return 0
    try:
        path.unlink()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be removed: {error.strerror}") from None
    print_answer(f"removed {path}", "now: systemctl daemon-reload && systemctl restart cuttlefish-operator")
    changes = path.with_name(f"{NAME}.d")
    if changes.is_dir():
        print_answer(f"{changes} stays and changes the unit of the package: remove it if it was made for this server")
    return 0


def _root(given: str) -> Path:
    root = Path(given)
    if not root.is_dir():
        raise ConfigError("--root", f"{given!r} is not a directory")
    return root


def _command(root: Path, given: str | None) -> str:
    """Returns the path of the command in the root. Raises ConfigError where the unit could not run it."""
    command = given or os.path.join(os.path.dirname(sys.executable), "cuttlefish-signaling")
    if not is_safe(command):
        raise ConfigError("--command", f"{command!r} is not an absolute path of plain characters")
    _check_visible(command)
    found = root / command.lstrip("/")
    # A link in another root may lead to a path of that root.
    if not (found.is_symlink() if root != Path("/") and found.is_symlink() else os.access(found, os.X_OK)):
        raise ConfigError("--command", f"{found} is not a program; install the package there, or name its command")
    if root.resolve() == Path("/"):
        _check_visible(str(found.resolve()))
        _check_visible(_interpreter(found))
    return command


def _check_visible(path: str) -> None:
    if any(Path("/", directory) in Path(path).parents for directory in HIDDEN):
        raise ConfigError(
            "--command",
            f"{path} is in a directory that services do not see; install the package with the system's Python, "
            "below /opt or /usr/local",
        )


def _interpreter(program: Path) -> str:
    """Returns the interpreter that the first line of a script names, with its links followed; empty for a binary."""
    with open(program, "rb") as file:
        line = file.readline(4096)
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    return os.path.realpath(words[0]) if words else ""


def _check_accounts(root: Path) -> None:
    for name, database in ((USER, "passwd"), (GROUP, "group")):
        if name not in _names(root, database):
            kind = "user" if database == "passwd" else "group"
            raise ConfigError(
                "--root", f"{root} has no {kind} {name}: install the packages cuttlefish-base and cuttlefish-user first"
            )


def _names(root: Path, database: str) -> set[str]:
    """Returns the names of users or groups. Those of the running system may be elsewhere than in /etc."""
    if root.resolve() == Path("/"):
        import grp
        import pwd

        if database == "passwd":
            return {entry.pw_name for entry in pwd.getpwall()}
        return {entry.gr_name for entry in grp.getgrall()}
    text = _read(root / "etc" / database) or ""
    return {line.partition(":")[0] for line in text.splitlines()}


def _reason(text: str) -> str:
    return "was changed by hand" if is_unchanged(text) is False else "is a unit of another origin"


def _read(path: Path) -> str | None:
    """Returns the text of a file; None without one. Raises ConfigError."""
    if path.is_symlink():
        raise ConfigError(str(path), f"is a link to {os.readlink(path)}: remove it first (systemctl unmask)")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None


def _write(path: Path, text: str) -> None:
    """Writes a file at once: beside its place, then renamed."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from None
