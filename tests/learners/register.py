"""Where each lesson's file enters its right solutions and its wrong ones."""

from __future__ import annotations

RIGHT: dict[str, list] = {}
MUTANTS: dict[str, list] = {}


def right(name: str, *functions):
    """Register solutions that are right, each written in another way."""
    RIGHT.setdefault(name, []).extend(functions)


def mutant(name: str, key: str):
    """Register a wrong solution under the diagnosis that it must get."""

    def register(function):
        MUTANTS.setdefault(name, []).append((key, function))
        return function

    return register


def mutants(name: str, **functions):
    """Register short ones; ``_`` in a keyword stands for a space."""
    for key, function in functions.items():
        mutant(name, key.replace("_", " "))(function)
