"""`overload` without `typing`, which takes longer to import than all else that the definition of a server needs."""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import overload as overload
else:

    def overload(function):
        """Returns the function. Type checkers see that of `typing`."""
        return function
