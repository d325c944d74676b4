"""Hooks that cannot be called: found when the server is made, in words that name the hook and its arguments."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from cuttlefish_signaling import ConfigError, SignalingServer, StaticTokens
from cuttlefish_signaling.cli import main

CALLED = {
    "authorize": "authorize(ctx)",
    "filter_device_info": "filter_device_info(info, ctx)",
    "ice_servers": "ice_servers(ctx)",
}


class Hooks:
    """Hooks as methods."""

    def one(self, ctx: Any) -> Any:
        return ctx

    def two(self, info: Any, ctx: Any) -> Any:
        return info

    @classmethod
    def of_class(cls, ctx: Any) -> Any:
        return ctx

    @staticmethod
    def of_no_class(ctx: Any) -> Any:
        return ctx

    async def later(self, ctx: Any) -> Any:
        return ctx

    def __call__(self, ctx: Any) -> Any:
        return ctx


def none() -> Any:
    return None


def two(info: Any, ctx: Any) -> Any:
    return info


def three(info: Any, ctx: Any, extra: Any) -> Any:
    return info


def with_default(ctx: Any, extra: Any = None) -> Any:
    return ctx


def with_keyword(ctx: Any, *, extra: Any) -> Any:
    return ctx


def with_default_keyword(ctx: Any, *, extra: Any = None) -> Any:
    return ctx


def keywords_only(*, ctx: Any) -> Any:
    return ctx


def passes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Passes an argument of its own, as a decorator for a database may."""

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        return function("database", *arguments)

    return wrapped


FITS: list[tuple[str, Any]] = [
    ("authorize", lambda ctx: None),
    ("authorize", lambda *arguments: None),
    ("authorize", with_default),
    ("authorize", with_default_keyword),
    ("authorize", Hooks().one),
    ("authorize", Hooks.of_class),
    ("authorize", Hooks.of_no_class),
    ("authorize", Hooks().later),
    ("authorize", Hooks()),
    ("authorize", functools.partial(two, None)),
    ("authorize", functools.partial(with_keyword, extra=1)),
    ("authorize", functools.lru_cache(with_default)),
    ("authorize", passes(two)),
    ("authorize", StaticTokens(["token"])),
    ("authorize", MagicMock()),
    ("authorize", AsyncMock()),
    ("authorize", dict.fromkeys),
    ("authorize", min),
    ("filter_device_info", two),
    ("filter_device_info", Hooks().two),
    ("filter_device_info", passes(three)),
    ("filter_device_info", max),
    ("ice_servers", list),
    ("ice_servers", with_default),
]

MISFITS: list[tuple[str, Any, str]] = [
    ("authorize", none, "none takes () -> "),
    ("authorize", two, "missing a required argument: 'ctx'"),
    ("authorize", Hooks, "Hooks takes ()"),
    ("authorize", with_keyword, "missing a required"),
    ("authorize", keywords_only, "keywords_only takes"),
    ("authorize", Hooks.one, "Hooks.one takes (self, ctx"),
    ("authorize", Hooks().two, "Hooks.two takes (info"),
    ("authorize", functools.partial(two, 1, 2), "too many positional arguments"),
    ("filter_device_info", lambda info: info, "too many positional arguments"),
    ("filter_device_info", three, "missing a required argument: 'extra'"),
    ("filter_device_info", Hooks(), "too many positional arguments"),
    ("ice_servers", none, "too many positional arguments"),
    ("ice_servers", two, "missing a required argument"),
    ("ice_servers", functools.partial(three, 1), "missing a required argument"),
]


@pytest.mark.parametrize(("hook", "function"), FITS)
def test_function_that_can_be_called_is_taken(hook: str, function: Any) -> None:
    SignalingServer(**{hook: function})


@pytest.mark.parametrize(("hook", "function", "said"), MISFITS)
def test_function_with_other_parameters_is_refused_at_construction(hook: str, function: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        SignalingServer(**{hook: function})
    assert error.value.setting == hook
    assert error.value.what.startswith(f"is called as {CALLED[hook]}, and ")
    assert said in error.value.what


@pytest.mark.parametrize("value", [7, "hook", b"hook", object(), True])
@pytest.mark.parametrize("hook", ["authorize", "filter_device_info"])
def test_value_that_is_no_function_is_refused(hook: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{hook}: must be callable, got "):
        SignalingServer(**{hook: value})


# `yield` --------------------------------------------------------------------------------------------------------------


def yields(*arguments: Any) -> Iterator[Any]:
    yield arguments


async def yields_later(*arguments: Any) -> AsyncIterator[Any]:
    yield arguments


class Yields:
    """An object whose call is a generator."""

    async def __call__(self, *arguments: Any) -> AsyncIterator[Any]:
        yield arguments


@pytest.mark.parametrize(
    "function",
    [yields, yields_later, Yields(), functools.partial(yields_later)],
    ids=["def", "async", "call", "partial"],
)
@pytest.mark.parametrize("hook", ["authorize", "filter_device_info"])
def test_hook_with_yield_is_refused(hook: str, function: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{hook}: .*has a `yield`, so its result is a generator: return"):
        SignalingServer(**{hook: function})


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def authorize(): ...", "authorize of {file}: is called as authorize(ctx), and authorize takes ()"),
        (
            "def filter_device_info(ctx): ...",
            "filter_device_info of {file}: is called as filter_device_info(info, ctx)",
        ),
        ("def ice_servers(a, b): ...", "ice_servers of {file}: is called as ice_servers(ctx), and ice_servers takes"),
        ("authorize = 7", "authorize of {file}: must be callable, got 7"),
        ("async def authorize(ctx): yield", "authorize of {file}: authorize has a `yield`"),
    ],
)
def test_hook_of_a_file_is_refused_with_its_place(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "farm.py"
    file.write_text(text + "\n")
    assert main(["serve", "--port", "0", "--no-tls", "--hooks", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"cuttlefish-signaling: error: --hooks: {said.format(file=file)}")
