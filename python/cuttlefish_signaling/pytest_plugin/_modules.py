"""Imports the modules that fixtures, fake peers and reports need, before the first test.

pytest rewrites the assertions of a plugin's package when a module is imported. That must not happen in the middle of a
test: it takes long, and CPython 3.11 can fail with a SystemError where several threads compile at a time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

import pytest

PACKAGE = __package__.rpartition(".")[0]
OTHERS = {"__main__", "_conform_arguments", "_media", "cli", "conformance", "pytest_plugin", "testing", "webrtc"}
"""Modules that no fixture needs, or that have dependencies of their own."""


def load_for(session: pytest.Session) -> None:
    """Imports the modules if a test uses a fixture of the plugin, or its modules use the package."""
    is_used = f"{PACKAGE}._run" in sys.modules or any(_uses(item) for item in session.items)
    if not is_used or session.config.option.collectonly:
        return
    package = import_module(PACKAGE)
    names = [f"{PACKAGE}.{module.name}" for module in iter_modules(package.__path__) if module.name not in OTHERS]
    for folder in ("_remote", *(["testing"] if find_spec("websockets") is not None else [])):
        inner = import_module(f"{PACKAGE}.{folder}")
        names += [f"{PACKAGE}.{folder}.{module.name}" for module in iter_modules(inner.__path__)]
    for name in names:
        import_module(name)


def _uses(item: pytest.Item) -> bool:
    info = getattr(item, "_fixtureinfo", None)
    definitions = [] if info is None else list(info.name2fixturedefs.values())
    return any(one.func.__module__.startswith(f"{__package__}.") for found in definitions for one in found)
