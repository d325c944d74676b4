"""The functions that fixtures return, with errors that name the fixture."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import ConfigError


class Factory:
    """A function that a fixture returns. A use of the fixture without a call is an error that says so."""

    def __init__(self, fixture: str, kind: str, start: Callable[..., Any], *, positional: int) -> None:
        self.__name__ = fixture
        self._kind = kind
        self._start = start
        self._positional = positional

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if len(arguments) > self._positional:
            allowed = "no positional argument" if self._positional == 0 else "one positional argument"
            raise ConfigError(self.__name__, f"takes {allowed}, got {arguments!r}; name the others: NAME=VALUE")
        return self._start(*arguments, **options)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(self._misuse(f".{name}"))

    def __enter__(self) -> NoReturn:
        raise ConfigError(self.__name__, self._misuse(" in a with statement"))

    def __exit__(self, *error: object) -> None:
        """Never called."""

    def _misuse(self, use: str) -> str:
        return (
            f"the fixture {self.__name__} is a function that returns {self._kind}, so it has no use{use}: "
            f"call it, {self.__name__}(...), and use the result"
        )

    def __repr__(self) -> str:
        return f"<function of the fixture {self.__name__}>"


_known: dict[type[Any], list[str]] = {}


def _options(kind: type[Any]) -> list[str]:
    """The options of a fake peer. `inspect` takes long to find them, and most tests have such peers."""
    if kind not in _known:
        own = (name for name in inspect.signature(kind).parameters if name not in ("server", "device_id"))
        _known[kind] = ["server", *own]
    return _known[kind]


def check_peer(fixture: str, kind: type[Any], device_id: Any, options: dict[str, Any]) -> None:
    """Raises ConfigError for arguments that the class of the fake peer does not take."""
    if not isinstance(device_id, str):
        raise ConfigError(f"{fixture}: device_id", f"must be a string, like 'cvd-1', got {device_id!r}")
    known = _options(kind)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"options: {', '.join(known)}"
            raise ConfigError(f"{fixture}: {name}", f"unknown option; {hint}")


@contextmanager
def named(fixture: str) -> Iterator[None]:
    """Adds the name of the fixture to a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{fixture}: {error.setting}", error.what) from None


class Starting:
    """An asynchronous fake peer that starts: `await` it, or use it in an `async with` statement."""

    def __init__(self, fixture: str, start: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._fixture = fixture
        self._start = start
        self._peer: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._start().__await__()

    async def __aenter__(self) -> Any:
        self._peer = await self._start()
        return self._peer

    async def __aexit__(self, *error: object) -> None:
        await self._peer.close()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"{self._fixture}(...) was not awaited: write (await {self._fixture}(...)).{name}")

    def __enter__(self) -> NoReturn:
        raise ConfigError(self._fixture, "write async with, or await the call: its peers are asynchronous")

    def __exit__(self, *error: object) -> None:
        """Never called."""
