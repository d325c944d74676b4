"""Checks of hooks before they are used: whether they can be called, with which arguments, and what they are."""

from __future__ import annotations

from .errors import ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

PARAMETERS = {"authorize": ("ctx",), "filter_device_info": ("info", "ctx"), "ice_servers": ("ctx",)}
"""The arguments of each hook. They are positional."""


def check_hook(hook: str, function: Any, *, setting: str = "", place: str = "") -> None:
    """Raises ConfigError for a function that cannot be this hook. None is no hook, and allowed.

    Args:
        hook: `authorize`, `filter_device_info` or `ice_servers`.
        function: The function.
        setting: The name in the error; by default the hook.
        place: Where the function was found, for the error.
    """
    if function is None:
        return
    fault = _fault(hook, function)
    if fault is not None:
        raise ConfigError(setting or hook, f"{place}: {fault}" if place else fault)


def _fault(hook: str, function: Any) -> str | None:
    """Returns why a function cannot be this hook."""
    import inspect

    if not callable(function):
        return f"must be callable, got {function!r}"
    names = ", ".join(PARAMETERS[hook])
    called = f"{hook}({names})"
    if hook != "ice_servers" and _yields(function):
        return f"{_name(function)} has a `yield`, so its result is a generator: return the result of {called} instead"
    try:
        # Not that of a function that a decorator wraps: the decorator may pass other arguments on.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # Some builtins have no signature.
    try:
        signature.bind(*PARAMETERS[hook])
    except TypeError as error:
        return f"is called as {called}, and {_name(function)} takes {signature}: {error}"
    return None


def _yields(function: Any) -> bool:
    """Whether it is a generator function, or an object whose call is one."""
    import inspect

    found = (function, type(function).__call__)
    return any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in found)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
