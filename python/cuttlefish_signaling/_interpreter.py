"""Which interpreter this is: the server lives in the main one only."""

from __future__ import annotations


def require_main() -> None:
    """Raises ImportError in a subinterpreter.

    The Rust core keeps one set of Python's types for the process, and needs `threading`, which some subinterpreters
    have not. CPython 3.12 and later refuse to load it there; before that it would load, and fail later or worse.
    """
    from importlib import import_module

    for name in ("_interpreters", "_xxsubinterpreters"):  # From 3.13 on, and before.
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "cuttlefish_signaling can not be used in a subinterpreter: use it in the main interpreter, or in a "
                "process of its own"
            )
        return
