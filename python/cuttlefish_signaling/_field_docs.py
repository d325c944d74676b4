"""The docstring of a dataclass, with its fields: `help()` does not show the strings behind them."""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterator
    from dataclasses import Field
    from typing import Any, TypeVar

    _T = TypeVar("_T")


def with_field_docs(cls: type[_T]) -> type[_T]:
    """Adds the type, the default and the meaning of each field to the docstring of a dataclass."""
    cls.__doc__ = FieldDocs(cls.__doc__)  # type: ignore[assignment]
    return cls


def with_setting_docs(group: str) -> Callable[[type[_T]], type[_T]]:
    """`with_field_docs` for the settings of a group: their ranges and units as well."""

    def add(cls: type[_T]) -> type[_T]:
        cls.__doc__ = FieldDocs(cls.__doc__, group)  # type: ignore[assignment]
        return cls

    return add


class FieldDocs:
    """A docstring that is made when it is read: an import would take longer with it."""

    def __init__(self, text: str | None, group: str | None = None) -> None:
        self._text = text
        self._group = group

    def __get__(self, instance: object, owner: type[Any]) -> str:
        # Here: they take longer to import than the rest of the package.
        import inspect
        import textwrap
        from dataclasses import fields

        meanings, values = _meanings(owner), _values(self._group)
        lines = [inspect.cleandoc(self._text or ""), "", "Fields:"]
        for field in fields(owner):
            if not field.name.startswith("_"):
                lines.append(f"    {field.name}: {field.type}{_default(field)}")
                meaning = " ".join(meanings.get(field.name, "").split())
                lines += textwrap.wrap(f"{meaning}{values.get(field.name, '')}", 100, **INDENT)
        return "\n".join(lines)


INDENT: dict[str, Any] = {
    "initial_indent": " " * 8,
    "subsequent_indent": " " * 8,
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _default(field: Field[Any]) -> str:
    from dataclasses import MISSING

    if field.default is not MISSING:
        return f" = {field.default!r}"
    return "" if field.default_factory is MISSING else f" = {getattr(field.default_factory, '__name__', '...')}()"


def _meanings(cls: type[Any]) -> dict[str, str]:
    """The string behind each field. Empty where the source is missing."""
    import ast
    import inspect

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            continue
        found.update(_strings(ast.parse(source).body[0]))
    return found


def _strings(cls: ast.stmt) -> Iterator[tuple[str, str]]:
    import ast
    from itertools import pairwise

    body = cls.body if isinstance(cls, ast.ClassDef) else []
    for statement, behind in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = behind.value if isinstance(behind, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield statement.target.id, text.value


def _values(group: str | None) -> dict[str, str]:
    """The range and the unit of each setting of a group, as a sentence."""
    if group is None:
        return {}
    from importlib import import_module

    # By name: the table of settings names the classes whose fields are its rows.
    rows = import_module(f"{__package__}._settings").GROUPS[group]
    return {row.name: f" Range: {row.kind.values}." for row in rows}
