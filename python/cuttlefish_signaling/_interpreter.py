"""A check that this is the main interpreter: the server runs in no other."""

from __future__ import annotations


def require_main() -> None:
    """Raises ImportError in a subinterpreter.

    The Rust core keeps one set of Python types for the whole process. It also needs `threading`, which some
    subinterpreters lack. CPython 3.12 and later refuse to load the core there; earlier versions load it, and it fails
    later.
    """
    from importlib import import_module

    for name in ("_interpreters", "_xxsubinterpreters"):  # Python 3.13 and later; Python 3.12 and earlier.
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "cuttlefish_signaling cannot be used in a subinterpreter: use it in the main interpreter, or in "
                "another process"
            )
        return
