"""Hides the frames of the package: a failure is shown at the line of the test.

This is the one place for it. Reports, `--tb=line` and `--pdb` use the traceback that it leaves.
`--full-trace` keeps all.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import TracebackType

import pytest

PACKAGE = f"{Path(__file__).parents[1]}/"
HOOKS = str(Path(__file__).with_name("__init__.py"))
LIBRARIES = ("_pytest", "pluggy", "pytest_asyncio", "anyio", "websockets")


def hide(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Removes the frames of the package from the exception of a phase of a test, and from its causes."""
    infos = getattr(item, "_excinfo", None)  # Of a unittest.TestCase, which has its exceptions there.
    if isinstance(infos, list):
        infos[:] = [_shown(item, info) for info in infos]
    if call.excinfo is not None:
        call.excinfo = _shown(item, call.excinfo)


def _shown(item: pytest.Item, info: pytest.ExceptionInfo[BaseException]) -> pytest.ExceptionInfo[BaseException]:
    error = info.value
    if item.config.getoption("fulltrace", False) or type(error).__name__ == "InternalError":
        return info
    if not sum(map(_cut, _chain(error))):
        return info
    _forget_causes(error)
    if error.__traceback__ is None:
        # The test has not begun, or is over: there is no line of it.
        error.__traceback__ = _at_definition(item, error)
    return pytest.ExceptionInfo.from_exception(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and the members of groups."""
    open_ends, seen = [error], set()
    while open_ends:
        one = open_ends.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        open_ends += [other for other in (one.__cause__, one.__context__) if other is not None]
        open_ends += getattr(one, "exceptions", ())


def _forget_causes(error: BaseException) -> None:
    """Removes the causes of an error of the package that have no line of the test. Its text says what failed."""
    if not type(error).__module__.startswith(__package__.partition(".")[0]):
        return
    causes = [each for each in _chain(error) if each is not error]
    frames = [frame for each in causes for frame, _ in walk_tb(each.__traceback__)]
    if causes and all(_is_library(frame.f_code.co_filename) for frame in frames):
        error.__cause__, error.__suppress_context__ = None, True


def _cut(error: BaseException) -> bool:
    """Removes the frames of the package, and those of libraries and of pytest beside them. Returns whether it did."""
    kept: list[TracebackType] = []
    behind = found = False
    entry = error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if file == HOOKS:
            pass  # A hook wrapper, which each exception passes.
        elif file.startswith(PACKAGE):
            behind = found = True
            while kept and _is_library(kept[-1].tb_frame.f_code.co_filename):
                kept.pop()  # Pytest, which called a fixture.
        elif not (behind and _is_library(file)):
            kept.append(entry)
            behind = False  # A function of the test that the package calls.
        entry = entry.tb_next
    if found:
        error.__traceback__ = _linked(kept)
    return found


def _linked(entries: list[TracebackType]) -> TracebackType | None:
    linked = None
    for entry in reversed(entries):
        linked = TracebackType(linked, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return linked


def _is_library(file: str) -> bool:
    """Whether the standard library, `websockets`, pytest or a runner of asynchronous tests has the file."""
    if file.startswith("<"):
        return True
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return any(name in parts for name in LIBRARIES)
    return file.startswith(f"{sysconfig.get_path('stdlib')}/")


def _at_definition(item: pytest.Item, error: BaseException) -> TracebackType | None:
    """A traceback with one frame: at the definition of the test, with its fixtures as the local variables."""
    _, line, name = item.location
    tree = ast.parse("raise error")
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.stmt):
            node.col_offset = node.end_col_offset = 0  # No part of the line is underlined.
    code = compile(tree, str(item.path), "exec")
    code = code.replace(co_firstlineno=(line or 0) + 1, co_name=name.rpartition(".")[2])
    context, fixtures = error.__context__, dict(getattr(item, "funcargs", {}))
    try:
        exec(code, {"error": error, "__name__": getattr(getattr(item, "module", None), "__name__", name)}, fixtures)
    except BaseException as raised:
        error.__context__ = context
        return raised.__traceback__.tb_next if raised.__traceback__ is not None else None
    return None
