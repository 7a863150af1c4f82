"""The checks of the exercises: ``from kdcourse.study.checks import ex11``.

``ex11.batch_loss.check(my_function)``, ``.hint()``, ``.hint(2)``, ``.solution()``.
"""

from .core import (
    CheckFailed,
    Exercise,
    NotAttempted,
    Outcome,
    notebook_solutions,
    solutions,
)

__all__ = [
    "CheckFailed",
    "Exercise",
    "NotAttempted",
    "Outcome",
    "exercise_names",
    "names_in_notebook",
    "solutions",
]


def exercise_names(lesson: str | None = None) -> list[str]:
    """Names such as ``ex11.batch_loss``, of one lesson or of all, in order."""
    return [n for n in solutions() if lesson is None or n.startswith(f"ex{lesson}.")]


def names_in_notebook(stem: str) -> list[str]:
    """The exercises of the notebook of this name, or of its lesson where none has."""
    found = notebook_solutions().get(stem)
    return exercise_names(stem[:2]) if found is None else list(found)
