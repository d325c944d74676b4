"""Mutants of the small signaling server: each breaks one rule, and names the rules that have to find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from small_server import SmallServer

Mutate = Callable[[SmallServer], None]


@dataclass(frozen=True)
class Mutant:
    """A server with one fault."""

    name: str
    finds: tuple[str, ...]
    """Numbers of docs/protocol.md. For each, a rule that holds it fails."""
    sign: str | None
    """Each failure of a rule that holds none of these numbers matches this pattern by `expected | heard`."""
    mutate: Mutate


MUTANTS: list[Mutant] = []


def mutant(*finds: str, sign: str | None = None) -> Callable[[Mutate], Mutate]:
    """Adds a function that breaks a server."""

    def add(mutate: Mutate) -> Mutate:
        MUTANTS.append(Mutant(mutate.__name__, finds, sign, mutate))
        return mutate

    return add
