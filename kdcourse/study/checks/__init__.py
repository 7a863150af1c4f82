"""The checks of the exercises: ``from kdcourse.study.checks import ex11``.

``ex11.batch_loss.check(my_function)``, ``.hint()``, ``.hint(2)``, ``.solution()``.
"""

from .core import CheckFailed, Exercise, NotAttempted, Outcome, solutions

__all__ = [
    "CheckFailed",
    "Exercise",
    "NotAttempted",
    "Outcome",
    "exercise_names",
    "solutions",
]


def exercise_names(lesson: str | None = None) -> list[str]:
    """Names such as ``ex11.batch_loss``, of one lesson or of all, in order."""
    return [n for n in solutions() if lesson is None or n.startswith(f"ex{lesson}.")]
