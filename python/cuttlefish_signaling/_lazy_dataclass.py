"""Frozen dataclasses whose methods are made when one of them is first used.

The standard library makes them when the class is defined: for `Limits` that takes as long as a third of the import of
the package. A server with the default limits reads fields alone.
"""

from __future__ import annotations

import _thread

from ._annotations import late_annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as lazy_dataclass
    from typing import Any, NoReturn, TypeVar

    _T = TypeVar("_T")

__all__ = ["default_of", "lazy_dataclass"]

MADE = (
    "__dataclass_fields__",
    "__dataclass_params__",
    "__eq__",
    "__hash__",
    "__init__",
    "__match_args__",
    "__replace__",
    "__repr__",
)
"""The attributes that the standard library makes. `__replace__` came with Python 3.13."""

_lock = _thread.allocate_lock()


class Made:
    """Stands for an attribute until it is read: on the class, or by the interpreter for a call or a comparison."""

    def __init__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        with _lock:
            if self._owner.__dict__.get(self._name) is self:
                _make(self._owner)
        # As usual from here on: the attribute is another one, or an AttributeError.
        return getattr(owner if instance is None else instance, self._name)


def _make(cls: type) -> None:
    """Copies the attributes of an equal class that the standard library has made a dataclass.

    Each one replaces its stand-in at once, since other threads may use the class.
    """
    import dataclasses

    left_out = {*MADE, "__dict__", "__weakref__", "__setattr__", "__delattr__"}
    body = {name: value for name, value in cls.__dict__.items() if name not in left_out}
    # A docstring, so that the standard library makes none of the signature.
    body |= {"__annotations__": cls.__annotations__, "__qualname__": cls.__qualname__, "__doc__": "Fields."}
    made: type = dataclasses.dataclass(frozen=True)(type(cls.__name__, cls.__bases__, body))
    for name in MADE:
        if name in made.__dict__:
            setattr(cls, name, made.__dict__[name])
        else:
            delattr(cls, name)


def _refuse_to_set(self: object, name: str, value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


if not TYPE_CHECKING:

    def lazy_dataclass(*, frozen: bool) -> Callable[[type[_T]], type[_T]]:
        """`dataclasses.dataclass(frozen=True)`, for a class whose fields all have plain defaults."""
        assert frozen

        def add(cls: type[_T]) -> type[_T]:
            for name in MADE:
                setattr(cls, name, Made(cls, name))
            cls.__setattr__, cls.__delattr__ = _refuse_to_set, _refuse_to_delete
            return cls

        return add


def default_of(cls: type[_T]) -> _T:
    """Returns `cls()`, without the methods that it needs."""
    made = object.__new__(cls)
    made.__dict__.update({name: getattr(cls, name) for name in cls.__annotations__})
    return made


late_annotations(globals())
