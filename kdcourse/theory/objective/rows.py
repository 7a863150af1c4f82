"""A row of the training data D': what is asked, with which contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..arguments import BadArgument, check_positive


class _Same(Enum):
    """The mark that the student reads the teacher's own context."""

    SAME = "SAME"

    def __repr__(self) -> str:
        return self.value


SAME = _Same.SAME
"""c' = c: the student reads what the teacher reads."""


@dataclass(frozen=True)
class Row:
    """One (c, c', z), with a reference translation where there is one.

    Args:
        z: the user's input, a source sentence as a list of words; both read it.
        c: the teacher's context, or None.
        c_student: c', the student's context: ``SAME`` (the ordinary case), a context,
            or None, the empty one (context distillation).
        reference: y as target ids that end in ``<eos>``, or None: what the data say.
        weight: the row's share in E_{(c,c',z)}; shares are divided by their sum.

    Raises:
        BadArgument: a weight that is no finite number above 0, or a reference that is
            no tuple of ids.
    """

    z: Sequence[str]
    c: str | None = None
    c_student: str | None | _Same = SAME
    reference: tuple[int, ...] | None = None
    weight: float = 1.0

    def __post_init__(self):
        check_positive("weight", self.weight, "Leave rows out that shall not count.")
        if self.reference is not None and not isinstance(self.reference, tuple):
            raise BadArgument(
                "reference",
                f"a {type(self.reference).__name__}",
                wanted="a tuple of target ids that ends in <eos>, or None",
                todo="Make one: toy.encode('la orilla') + (toy.eos,).",
            )

    @property
    def read_by_student(self) -> str | None:
        """c' itself: the context that the student reads."""
        return self.c if self.c_student is SAME else self.c_student
