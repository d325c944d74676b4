"""The hooks of `--hooks`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
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
    try:
        if not (place.endswith(".py") or os.sep in place):
            sys.path.insert(0, os.getcwd())
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location("cuttlefish_signaling_hooks", place)
        if spec is None or spec.loader is None:
            raise ConfigError("hooks", f"{place} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except SignalingError:
        raise
    except Exception as error:  # A file of the user can raise any exception.
        raise ConfigError("hooks", f"cannot load {target}: {type(error).__name__}: {error}") from error
    return module
