"""The annotations of all that is public can be evaluated, as pydantic, Sphinx and others do."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import cuttlefish_signaling
from cuttlefish_signaling import Device, SignalingServer
from cuttlefish_signaling._annotations import LateAnnotations

PUBLIC = (
    "",
    ".conformance",
    ".errors",
    ".faults",
    ".mobly",
    ".probe",
    ".pytest_plugin",
    ".testing",
    ".webrtc",
)


def names_of(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", None) or (name for name in dir(module) if not name.startswith("_")))


def annotated(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A class with its methods and properties, those of its bases in this package included; or a function."""
    if inspect.isfunction(value):
        yield name, value
    if not inspect.isclass(value):
        return
    yield name, value
    for base in value.__mro__:
        if not base.__module__.startswith("cuttlefish_signaling"):
            continue
        for member_name, member in vars(base).items():
            parts = (member.fget, member.fset) if isinstance(member, property) else (member,)
            for part in parts:
                function = getattr(part, "__func__", part)
                # The standard library makes methods of dataclasses, some with names of its own.
                if inspect.isfunction(function) and function.__module__.startswith("cuttlefish_signaling"):
                    yield f"{name}.{member_name}", function


def public() -> Iterator[tuple[str, Any]]:
    for suffix in PUBLIC:
        module = importlib.import_module(f"cuttlefish_signaling{suffix}")
        for name in names_of(module):
            value = getattr(module, name)
            if str(getattr(value, "__module__", "")).startswith("cuttlefish_signaling"):
                yield from annotated(f"{module.__name__}.{name}", value)


def test_annotations_of_all_that_is_public_can_be_evaluated() -> None:
    pytest.importorskip("aiortc")
    found, failed = 0, {}
    for name, value in public():
        found += 1
        try:
            typing.get_type_hints(value)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert failed == {}
    assert found > 500


def test_hints_are_the_types() -> None:
    hints = typing.get_type_hints(SignalingServer.devices)
    assert hints["return"] == list[Device]
    hints = typing.get_type_hints(SignalingServer.__init__)
    assert (hints["port"], hints["one_client_per_device"]) == (int, bool)
    assert hints["on_duplicate"] == typing.Literal["reject", "replace"]
    signature = inspect.signature(SignalingServer.wait_for_device, eval_str=True)
    assert signature.return_annotation is Device


@pytest.mark.parametrize(
    "read",
    [
        "dict(hints)",
        "{**hints}",
        "hints.copy()",
        "list(hints)",
        "hints['return']",
        "hints.get('return')",
        "list(hints.items())",
        "list(hints.values())",
        "list(hints.keys())",
    ],
)
def test_names_are_imported_when_annotations_are_read_and_not_before(read: str) -> None:
    program = f"""
from cuttlefish_signaling import _server_peers as module
from cuttlefish_signaling import SignalingServer
hints = SignalingServer.devices.__annotations__
assert len(hints) and "return" in hints
assert "Journal" not in vars(module), "too early"
{read}
assert "Journal" in vars(module)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_annotations_stay_strings() -> None:
    annotations = SignalingServer.devices.__annotations__
    assert isinstance(annotations, LateAnnotations)
    assert annotations == {"return": "list[Device]"}
    assert repr(annotations) == "{'return': 'list[Device]'}"


def test_module_without_source_keeps_its_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("without_source")
    exec("from __future__ import annotations\ndef f(x: Missing) -> None: ...", module.__dict__)
    monkeypatch.setitem(sys.modules, "without_source", module)
    function = module.__dict__["f"]
    cuttlefish_signaling._annotations.late_annotations(module.__dict__)
    assert dict(function.__annotations__) == {"x": "Missing", "return": "None"}
