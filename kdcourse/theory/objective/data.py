"""The data μ: on whose prefixes teacher and student are compared.

Each kind of data is a value; ``outputs`` gives μ for one row as sequences with their
probabilities: all of them, or ``samples`` drawn ones of equal weight.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..arguments import (
    BadArgument,
    check_count,
    check_flag,
    check_kind,
    check_share,
    is_number,
)
from ..toy import Outputs, Student, Toy
from ..toy.students import check_student
from .models import Ids, Model, all_outputs, draw, language, next_logits
from .rows import Row


class Data:
    """What the kinds of data have in common."""

    def outputs(
        self,
        student: Student,
        teacher: Model | None,
        row: Row,
        *,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Outputs:
        """μ for one row: sequences y and their probabilities, which sum to 1.

        Args:
            student: Pr^s_θ, asked for its own outputs with the row's c'.
            teacher: Pr^t, asked for its outputs with the row's c; None where μ needs
                no teacher.
            row: the (c, c', z), and the reference where μ needs one.
            samples: how many sequences to draw of a μ that is a distribution; None for
                all of them with their exact probabilities.
            generator: the source of randomness for ``samples``.

        Raises:
            BadArgument: μ needs a teacher or a reference that is not there, or more
                sequences than can be enumerated.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class References(Data):
    """μ = the data: the row's own reference y, all of the mass on it."""

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        """The reference."""
        return _certain(reference_of(row, student))

    def __str__(self) -> str:
        return "references"


@dataclass(frozen=True)
class TeacherBest(Data):
    """μ = the teacher's own output ŷ = argmax_y Pr^t(y|c,z), all of the mass on it.

    A beam search looks for it; here it is found exactly. Of a student that teaches,
    outputs of at most ``max_length`` tokens are compared.
    """

    max_length: int = 12
    floor: float = 0.0

    def __post_init__(self):
        _check_cut(self.max_length, self.floor)

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        """ŷ."""
        return _certain(_best(1, teacher, row, self)[0])

    def __str__(self) -> str:
        return "teacher's best"


@dataclass(frozen=True)
class TeacherSamples(Data):
    """μ = Pr^t(·|c,z): what the teacher says, as often as it says it."""

    max_length: int = 12
    floor: float = 0.0

    def __post_init__(self):
        _check_cut(self.max_length, self.floor)

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        """All that the teacher can say, or ``samples`` of it."""
        teacher = needed(teacher, self)
        _check_row(row)
        return _said_by(teacher, row.z, row.c, self, samples, generator)

    def __str__(self) -> str:
        return "teacher's samples"


@dataclass(frozen=True)
class StudentSamples(Data):
    """μ = Pr^s_θ(·|c',z): what the student itself says, on-policy.

    μ depends on θ. By default no gradient flows through it: the sequences count as
    given, as in GKD, f-distill and DistiLLM, and the student learns to answer better
    on the prefixes that it visits, not to visit others. With ``stop_gradient=False``
    the gradient is that of the whole expectation, exactly; the authors who want it
    (MiniLLM) have to estimate it as in reinforcement learning.

    A student may say infinitely many sequences. They are cut after ``max_length``
    tokens, as generation is in practice, or where their probability is no more than
    ``floor``. At ``floor=0`` nothing else is left out; a student that says too much for
    that needs a floor, with which the loss is a lower bound, or ``samples=``.
    """

    stop_gradient: bool = True
    max_length: int = 12
    floor: float = 0.0

    def __post_init__(self):
        check_flag("stop_gradient", self.stop_gradient)
        _check_cut(self.max_length, self.floor)

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        """All that the student says, or ``samples`` of it."""
        check_student(student)
        _check_row(row)
        z, c = row.z, row.read_by_student
        said = _said_by(student, z, c, self, samples, generator)
        if self.stop_gradient:
            return said
        if samples is not None:
            raise BadArgument(
                "stop_gradient",
                "False with samples",
                wanted="True: a drawn sequence carries no gradient",
                todo="Leave samples out: the exact expectation has the gradient.",
            )
        return Outputs(said.sequences, _probabilities(student, said.sequences, z, c))

    def __str__(self) -> str:
        return "student's samples"


@dataclass(frozen=True)
class Mix(Data):
    """μ = (1-λ) a + λ b, for example references and the student's samples in GKD.

    With ``samples`` as many are drawn from each of the two, and weighted; tossing a
    coin for each batch, as training code does, has the same expectation.
    """

    lam: float
    a: Data
    b: Data

    def __post_init__(self):
        check_share("lam", self.lam)
        for name in ("a", "b"):
            check_data(name, getattr(self, name))

    def outputs(self, student, teacher, row, **options):
        """Both, each with its share; a part without a share is not asked."""
        parts = [(1.0 - self.lam, self.a), (self.lam, self.b)]
        said = [
            (share, part.outputs(student, teacher, row, **options))
            for share, part in parts
            if share > 0.0
        ]
        sequences = tuple(y for _, outputs in said for y in outputs.sequences)
        weights = [share * outputs.probabilities for share, outputs in said]
        return Outputs(sequences, torch.cat(weights))

    def __str__(self) -> str:
        return f"{1 - self.lam:g} {self.a} + {self.lam:g} {self.b}"


@dataclass(frozen=True)
class ClosestOfNBest(Data):
    """μ = ỹ, the one of the teacher's n best that is closest to the reference.

    Kim & Rush 2016, sequence-level interpolation: ỹ = argmax_y sim(y, reference) ·
    Pr^t(y|c,z), approximated by the argmax of sim alone among the n best of the
    teacher's beam, with sim a smoothed sentence-level BLEU. Here the n best are exact.
    The more probable one wins a tie.
    """

    n: int = 5
    similarity: Callable[[Ids, Ids], float] | None = None  # None is sentence_bleu
    max_length: int = 12
    floor: float = 0.0

    def __post_init__(self):
        check_count("n", self.n)
        if self.similarity is not None and not callable(self.similarity):
            raise self._dissimilar(f"a {type(self.similarity).__name__}")
        _check_cut(self.max_length, self.floor)

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        """ỹ."""
        reference = reference_of(row, student)
        candidates = _best(self.n, teacher, row, self)
        similarity = self.similarity or sentence_bleu
        found = [similarity(y, reference) for y in candidates]
        for number in found:
            if not is_number(number) or number != number:
                raise self._dissimilar(f"a function that returns {number!r}")
        return _certain(candidates[found.index(max(found))])

    def _dissimilar(self, given: str) -> BadArgument:
        return BadArgument(
            "similarity",
            given,
            wanted="a function of two tuples of ids that returns a number",
            todo="Return a float, the larger the more alike, or leave it out.",
        )

    def __str__(self) -> str:
        return f"closest of teacher's {self.n} best"


def sentence_bleu(y: Ids, reference: Ids) -> float:
    """Smoothed sentence-level BLEU of ids that end in ``<eos>``, in 0..1.

    exp(min(0, 1 - r/h)) · (Π_{n=1..4} p_n)^¼ with r and h the lengths of reference and
    hypothesis without ``<eos>``, and p_n the precisions of n-grams, clipped; for n > 1
    one is added to matches and total (Lin & Och 2004; technique 2 of Chen & Cherry
    2014), so that a short sentence without a common 4-gram is not worth 0.

    Raises:
        BadArgument: one of the two is no tuple or list of ids.
    """
    y, reference = _ids("y", y)[:-1], _ids("reference", reference)[:-1]
    if not y:
        return 0.0 if reference else 1.0
    logs = 0.0
    for n in range(1, 5):
        said, wanted = _n_grams(y, n), _n_grams(reference, n)
        extra = int(n > 1)
        matches = (said & wanted).total() + extra
        if not matches:
            return 0.0
        logs += math.log(matches / (said.total() + extra))
    return math.exp(min(0.0, 1.0 - len(reference) / len(y)) + logs / 4)


def _ids(name: str, given: Sequence[int]) -> Ids:
    whole = isinstance(given, list | tuple) and all(
        isinstance(i, int) and not isinstance(i, bool) for i in given
    )
    if not whole:
        raise BadArgument(
            name,
            f"{given!r}",
            wanted="a tuple of target ids that ends in <eos>",
            todo="Make one: toy.encode('la orilla') + (toy.eos,).",
        )
    return tuple(given)


def _n_grams(y: Ids, n: int) -> Counter:
    return Counter(y[i : i + n] for i in range(len(y) - n + 1))


# ------------------------------------------------------------------------------ parts


def reference_of(row: Row, student: Student) -> Ids:
    """The row's reference, checked to be a sequence of the student's language."""
    _check_row(row)
    check_student(student)
    if row.reference is None:
        raise BadArgument(
            "rows",
            f"with no reference for {' '.join(row.z)!r}",
            wanted="a reference in each row: these data are made of them",
            todo="Give Row(…, reference=y), or let the teacher write: TeacherBest().",
        )
    language(student).padded([row.reference])
    return row.reference


def needed(teacher: Model | None, what) -> Model:
    """The teacher, where there is one."""
    if teacher is None:
        raise BadArgument(
            "teacher",
            f"None for {what}",
            wanted="the toy language or a frozen student",
            todo="Pass toy_language(), or freeze(student).",
        )
    check_model("teacher", teacher)
    return teacher


def check_model(name: str, model: Model) -> None:
    """The toy language or a student of it."""
    if not isinstance(model, Toy | Student):
        raise BadArgument(
            name,
            f"a {type(model).__name__}",
            wanted="the toy language or a frozen student",
            todo="Pass toy_language(), or freeze(student).",
        )


def _check_row(row: Row) -> None:
    check_kind("row", row, Row, "Make one: Row(z, c, reference=y).")


def check_data(name: str, data: Data) -> None:
    """One of the kinds of data."""
    if not isinstance(data, Data):
        raise BadArgument(
            name,
            f"{data!r}",
            wanted="References(), TeacherBest(), TeacherSamples(), StudentSamples(), "
            "Mix(…) or ClosestOfNBest(…)",
            todo="Make such a value; the brackets belong to it.",
        )


def check_samples(samples, generator) -> None:
    """How many to draw, and from which source of randomness; None draws nothing."""
    if samples is None:
        return
    check_count("samples", samples)
    if not isinstance(generator, torch.Generator):
        raise BadArgument(
            "generator",
            f"{generator!r} with samples={samples}",
            wanted="a torch.Generator",
            todo="Pass torch.Generator().manual_seed(0).",
        )


def _certain(y: Ids) -> Outputs:
    return Outputs((y,), torch.ones(1, dtype=torch.float64))


def _best(n: int, teacher: Model | None, row: Row, data) -> list[Ids]:
    """The n most probable of the teacher's finished outputs."""
    teacher = needed(teacher, data)
    _check_row(row)
    said = all_outputs(teacher, row.z, row.c, data.max_length, data.floor)
    eos = language(teacher).eos
    best = [y for y in said.sequences if y[-1] == eos][:n]
    if not best:
        raise BadArgument(
            "max_length",
            f"{data.max_length}, within which the teacher finishes nothing",
            wanted="room for at least one whole output",
            todo="Take a larger max_length.",
        )
    return best


def _said_by(model: Model, z, c, data, samples, generator) -> Outputs:
    if samples is None:
        return all_outputs(model, z, c, data.max_length, data.floor)
    check_samples(samples, generator)
    drawn = draw(model, z, c, data.max_length, samples, generator)
    return Outputs(
        tuple(drawn), torch.full((samples,), 1.0 / samples, dtype=torch.float64)
    )


def _probabilities(student: Student, sequences, z, c) -> torch.Tensor:
    """Pr^s_θ(y|c',z) (N,) with gradient, also of sequences that were cut."""
    number = {prefix: 0 for y in sequences for prefix in (y[:t] for t in range(len(y)))}
    number = {prefix: n for n, prefix in enumerate(number)}
    log_q = next_logits(student, list(number), z, c).log_softmax(dim=-1)
    steps = [
        (n, number[y[:t]], y[t]) for n, y in enumerate(sequences) for t in range(len(y))
    ]
    owner, place, token = torch.tensor(steps).unbind(dim=1)
    logs = log_q.new_zeros(len(sequences)).index_add(0, owner, log_q[place, token])
    return logs.exp()


def _check_cut(max_length: int, floor: float) -> None:
    check_count("max_length", max_length)
    if not is_number(floor) or not 0.0 <= floor < 1.0:
        raise BadArgument(
            "floor",
            f"{floor!r}",
            wanted="a number from 0 up to, but not including, 1",
            todo="Take 0, or 1e-3 where a student says too much.",
        )
