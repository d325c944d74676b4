"""The hooks of `--hooks`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

from .._hook_checks import PARAMETERS, check_hook
from ..errors import ConfigError, SignalingError

HOOKS = tuple(PARAMETERS)


def load_hooks(target: str) -> dict[str, Any]:
    """Returns the hooks of `FILE.py:OBJECT` or `module:OBJECT`, or of a whole file or module. Raises ConfigError."""
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    owner: Any = _load(place, target)
    for part in filter(None, name.split(".")):
        try:
            owner = getattr(owner, part)
        except AttributeError:
            raise ConfigError("hooks", f"{target}: there is no {part!r} in {place}") from None
    if inspect.isclass(owner):
        try:
            owner = owner()
        except Exception as error:  # The code of the user can raise any exception.
            raise ConfigError("hooks", f"{target}() failed: {type(error).__name__}: {error}") from error
    found = {hook: getattr(owner, hook) for hook in HOOKS if getattr(owner, hook, None) is not None}
    if not found:
        raise ConfigError("hooks", f"{target} has none of {', '.join(HOOKS)}")
    for hook, function in found.items():
        if hook != "ice_servers" or callable(function):  # It may also be a list or a TurnRest.
            check_hook(hook, function, setting="hooks", place=f"{hook} of {target}")
    return found


def _load(place: str, target: str) -> Any:
    """Loads a file or a module anew. If that fails, the modules that were there stay."""
    is_file = place.endswith(".py") or os.sep in place
    name = "cuttlefish_signaling_hooks" if is_file else place
    before = {module: sys.modules[module] for module in list(sys.modules) if f"{module}.".startswith(f"{name}.")}
    try:
        for module in before:
            del sys.modules[module]
        return _load_file(place) if is_file else _load_module(place)
    except BaseException as error:
        for module in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
            del sys.modules[module]
        sys.modules.update(before)
        # A file of the user can raise any exception. One that ends the process is no error of the file.
        if isinstance(error, SignalingError) or not isinstance(error, Exception | SystemExit):
            raise
        where = _line_of(error)
        raise ConfigError("hooks", f"cannot load {target}{where}: {type(error).__name__}: {error}") from error


def _load_file(place: str) -> Any:
    loader = _SourceLoader("cuttlefish_signaling_hooks", place)
    spec = importlib.util.spec_from_file_location(loader.name, place, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader.exec_module(module)
    return module


def _load_module(place: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(place)
    if spec is None or type(spec.loader) is not SourceFileLoader or not spec.origin:
        return importlib.import_module(place)
    spec.loader = _SourceLoader(place, spec.origin)
    module = importlib.util.module_from_spec(spec)
    sys.modules[place] = module
    spec.loader.exec_module(module)
    return module


class _SourceLoader(SourceFileLoader):
    """Reads the source each time. Bytecode counts as current if size and second of the source are the same."""

    def get_code(self, fullname: str) -> CodeType:
        """Returns the code of the source."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _line_of(error: BaseException) -> str:
    """The place in a file that the user wrote: the last one of the traceback that is not of the import system."""
    if isinstance(error, SyntaxError):
        return ""  # Its text has the line.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    last = frames[-1] if frames else None
    if last is None or last.filename == __file__:
        return ""
    return f" ({last.filename}, line {last.lineno})"
