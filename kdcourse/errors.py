"""The errors of the package: messages that a learner can act on."""

from __future__ import annotations


class KdcourseError(Exception):
    """What was given, what is wanted, and what to do about it.

    All three are asked for, so that no error can be raised without its remedy::

        raise KdcourseError(
            "Unknown engine 'cuda'.",
            wanted="one of torch, ctranslate2",
            todo="Leave --engine out, or name one of the two.",
        )

    Subclass it where a caller needs to tell one kind of error from another.
    """

    def __init__(self, given: str, wanted: str, todo: str):
        super().__init__(given, wanted, todo)  # all in args: the error can be pickled
        self.given, self.wanted, self.todo = given, wanted, todo

    def __str__(self) -> str:
        return f"{self.given}\n  Wanted: {self.wanted}\n  To do: {self.todo}"
