"""`help()`: each public function has a docstring, and each field of a frozen dataclass its meaning."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import pydoc
from collections.abc import Iterator
from typing import Any

import pytest

import cuttlefish_signaling


def modules() -> list[Any]:
    """The modules of the package. `__main__` is a program."""
    found = pkgutil.walk_packages(cuttlefish_signaling.__path__, "cuttlefish_signaling.")
    return [importlib.import_module(module.name) for module in found if not module.name.endswith("__main__")]


def public(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public names that a module or a class defines itself."""
    for name, value in list(vars(owner).items()):
        module = getattr(value, "__module__", None) or getattr(getattr(value, "fget", None), "__module__", None)
        if not name.startswith("_") and module == (owner.__name__ if inspect.ismodule(owner) else owner.__module__):
            yield name, value


def documented() -> Iterator[tuple[str, Any]]:
    """The public functions, classes, methods and properties."""
    for module in modules():
        for name, value in public(module):
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                for inner, member in public(value):
                    if callable(member) or isinstance(member, property | classmethod | staticmethod):
                        yield f"{module.__name__}.{name}.{inner}", member


def test_public_functions_have_docstrings() -> None:
    found = dict(documented())
    assert len(found) > 400
    assert [name for name, value in found.items() if not inspect.getdoc(value)] == []


# Fields of dataclasses ------------------------------------------------------------------------------------------------


def frozen() -> list[Any]:
    """The frozen dataclasses that users are given: those that a module exports, and the lines of a cassette."""
    exported = {name for module in [cuttlefish_signaling, *modules()] for name in getattr(module, "__all__", ())}
    classes: list[Any] = [value for _, value in documented() if dataclasses.is_dataclass(value)]
    return [found for found in classes if found.__dataclass_params__.frozen and found.__name__ in exported | {"Line"}]


def described(cls: Any) -> dict[str, tuple[str, str]]:
    """The fields in the help of a class: the line with type and default, and the text below it."""
    found: dict[str, tuple[str, str]] = {}
    name = ""
    lines = pydoc.plain(pydoc.render_doc(cls)).splitlines()
    begin = lines.index(" |  Fields:")
    for line in lines[begin + 1 :]:
        line = line.removeprefix(" |  ")
        if line.startswith(" " * 8):
            head, text = found[name]
            found[name] = (head, f"{text} {line.strip()}".strip())
        elif line.startswith(" " * 4):
            name = line.strip().split(":")[0]
            found[name] = (line.strip(), "")
        else:
            return found
    raise AssertionError(f"no end of the fields of {cls}")


def test_help_shows_each_field_of_a_frozen_dataclass() -> None:
    classes = frozen()
    names = {cls.__name__ for cls in classes}
    assert names >= {
        "Limits",
        "Keepalive",
        "Device",
        "Stats",
        "Entry",
        "Message",
        "SyncMessage",
        "Cassette",
        "IceServer",
    }
    for cls in classes:
        fields = described(cls)
        assert list(fields) == [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]
        for field in dataclasses.fields(cls):
            head, text = fields.get(field.name, ("", "x."))
            default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            assert head in ("", f"{field.name}: {field.type}{default}")
            assert text.endswith((".", ")")), f"{cls.__name__}.{field.name} has no docstring: {text!r}"


@pytest.mark.parametrize("group", ["limits", "keepalive"])
def test_help_of_settings_has_meaning_unit_default_and_reason(group: str) -> None:
    from cuttlefish_signaling import Keepalive, Limits
    from cuttlefish_signaling._settings import GROUPS

    fields = described({"limits": Limits, "keepalive": Keepalive}[group])
    assert sorted(fields) == sorted(row.name for row in GROUPS[group])
    for row in GROUPS[group]:
        head, text = fields[row.name]
        assert head.endswith(f" = {row.default!r}")
        assert row.reason, f"{row.name} has no reason"
        for part in (row.help, row.reason, f"Range: {row.kind.values}.", *map(": ".join, row.special)):
            assert part in text
        if row.kind.annotation.startswith("float"):
            assert "seconds" in text


def test_help_without_source_has_names_types_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuttlefish_signaling import Device

    def no_source(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(inspect, "getsource", no_source)
    assert "    since: float\n    identity: Any\n" in str(Device.__doc__)
    assert "    adb_port: int = 0\n" in str(Device.__doc__)
