"""Annotations whose names are imported when they are first read.

Most annotations name types that only a type checker imports (`if TYPE_CHECKING:`): to import them all would take longer
than to start a server. `typing.get_type_hints`, and what builds on it, evaluates the annotations of a function in the
globals of its module, and needs the names there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from types import FunctionType
    from typing import Any

_FUNCTION: Any = type(lambda: None)

_named: set[str] = set()
"""The modules whose names are imported."""


class LateAnnotations(dict):  # type: ignore[type-arg]
    """The annotations of a function or a class, as strings. To read them imports the names in them."""

    def __init__(self, strings: dict[str, Any], module: str) -> None:
        super().__init__(strings)
        self._module = module

    def __getitem__(self, name: str) -> Any:
        import_names(self._module)
        return super().__getitem__(name)

    # `dict(...)`, `{**...}` and `copy` read a subclass of `dict` by these two, if it has them.
    def __iter__(self) -> Iterator[str]:
        import_names(self._module)
        return super().__iter__()

    def keys(self) -> Any:
        import_names(self._module)
        return super().keys()

    def get(self, name: str, default: Any = None) -> Any:
        import_names(self._module)
        return super().get(name, default)

    def items(self) -> Any:
        import_names(self._module)
        return super().items()

    def values(self) -> Any:
        import_names(self._module)
        return super().values()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())


def late_annotations(module: dict[str, Any]) -> None:
    """Makes the annotations of the functions and classes of a module late. Called at its end, with `globals()`."""
    name = module["__name__"]
    for value in list(module.values()):
        if getattr(value, "__module__", None) != name:
            continue
        if isinstance(value, _FUNCTION):
            _make_late(value, name)
        elif isinstance(value, type):
            # Those of the class, not of its bases.
            if "__annotations__" in vars(value):
                value.__annotations__ = LateAnnotations(value.__annotations__, name)
            for function in _functions_of(value):
                _make_late(function, name)


def _functions_of(cls: type) -> Iterator[FunctionType]:
    for member in cls.__dict__.values():
        parts = (member.fget, member.fset, member.fdel) if isinstance(member, property) else (member,)
        for part in parts:
            function = getattr(part, "__func__", part)
            if isinstance(function, _FUNCTION):
                yield function


def _make_late(function: FunctionType, module: str) -> None:
    # A method that the standard library has made, such as that of a dataclass, has another module.
    if function.__module__ == module and function.__annotations__:
        function.__annotations__ = LateAnnotations(function.__annotations__, module)


def import_names(name: str) -> None:
    """Imports the names that a module imports for type checkers alone, unless it has them."""
    if name in _named:
        return
    import ast
    import linecache

    module = sys.modules[name]
    # From the file, or from the loader of an archive. Without a source the names stay missing.
    lines = linecache.getlines(getattr(module, "__file__", None) or "", module.__dict__)
    for statement in ast.parse("".join(lines)).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for line in statement.body:
                _bind(line, module.__dict__)
    _named.add(name)


def _bind(statement: ast.stmt, names: dict[str, Any]) -> None:
    """Does an import of a module. A name that the module has already stays."""
    import ast
    from importlib import import_module
    from importlib.util import resolve_name

    if not isinstance(statement, ast.ImportFrom):
        found: dict[str, Any] = {}
        exec(compile(ast.Module([statement], []), "<annotations>", "exec"), {**names}, found)
        for name, value in found.items():
            names.setdefault(name, value)
        return
    source = resolve_name("." * statement.level + (statement.module or ""), names["__package__"])
    for alias in statement.names:
        bound = alias.asname or alias.name
        if bound in names:
            continue
        try:
            names[bound] = getattr(import_module(source), alias.name)
        except (ImportError, AttributeError):
            names[bound] = _stand_in(alias.name)


class _Any:
    """Stands for a form of types that this version of Python lacks."""

    def __class_getitem__(cls, _: object) -> Any:
        from typing import Any

        return Any


def _stand_in(name: str) -> Any:
    """Returns a name of `typing_extensions`, which need not be there."""
    import typing

    return getattr(typing, name, _Any)


late_annotations(globals())
