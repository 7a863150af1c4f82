"""The named methods of distillation, each as its choices in the one objective.

A method is a weighted sum of terms; most have one. The makers below take the method's
own parameters; ``METHODS`` holds each with its defaults, for a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..arguments import (
    BadArgument,
    check_choice,
    check_flag,
    check_positive,
    check_share,
    check_softening,
    check_temperature,
)
from ..toy import Student
from .data import (
    ClosestOfNBest,
    Data,
    Mix,
    References,
    StudentSamples,
    TeacherBest,
    TeacherSamples,
    check_data,
)
from .function import PER, TARGETS, Divergence, as_divergence, objective
from .models import Model
from .rows import SAME, Row

TEACHER, EARLIER_SELF, NOBODY = "the teacher", "an earlier self", "nobody"


@dataclass(frozen=True)
class Term:
    """weight · L(θ) for one choice of μ, D, target and T; see ``objective``.

    Raises:
        BadArgument: a weight that is no finite number above 0, or a choice that
            ``objective`` does not have.
    """

    weight: float
    data: Data
    divergence: Divergence
    target: str = "teacher"
    temperature: float = 1.0

    def __post_init__(self):
        check_positive("weight", self.weight, "Leave a term out that shall not count.")
        check_data("data", self.data)
        as_divergence(self.divergence)
        check_choice("target", self.target, TARGETS)
        check_temperature(self.temperature)

    def __str__(self) -> str:
        named = {"teacher": "Pr^t", "one_hot": "one-hot y_t", "uniform": "uniform"}
        name, _, options = str(self.divergence).removesuffix(")").partition("(")
        if self.temperature != 1.0:
            options = f"T={self.temperature:g}"
        return f"{name}({named[self.target]}, Pr^s{options and '; '}{options})"


@dataclass(frozen=True)
class Method:
    """One row of the table: a method's choices, its formula and its paper.

    ``terms`` are summed with their weights. ``c_student`` is SAME, or None where the
    student reads no context whatever the rows say. ``teacher`` says who teaches;
    ``per`` how a sequence's tokens are summed (see ``objective``). ``formula`` is the
    loss of one row as its paper has it, in the notation of the course.

    Raises:
        BadArgument: no terms, or a choice that ``objective`` does not have.
    """

    name: str
    terms: tuple[Term, ...]
    formula: str
    paper: str
    teacher: str = TEACHER
    c_student: object = SAME
    per: str = "sequence"

    def __post_init__(self):
        right = isinstance(self.terms, list | tuple) and self.terms
        if not right or not all(isinstance(term, Term) for term in self.terms):
            raise BadArgument(
                "terms",
                f"{self.terms!r}",
                wanted="a tuple of one Term or more",
                todo="Make one: (Term(1.0, References(), Divergence('forward_kl')),).",
            )
        check_choice("teacher", self.teacher, (TEACHER, EARLIER_SELF, NOBODY))
        check_choice("per", self.per, PER)
        if not (self.c_student is SAME or self.c_student is None):
            raise BadArgument(
                "c_student",
                f"{self.c_student!r}",
                wanted="SAME, or None for a student that reads no context",
                todo="Give the student's context row by row: Row(…, c_student=c).",
            )

    @property
    def data(self) -> str:
        """μ in words, of each term once."""
        return " + ".join(dict.fromkeys(str(term.data) for term in self.terms))

    @property
    def divergence(self) -> str:
        """D in words, with the weights where there are several terms."""
        if len(self.terms) == 1:
            return str(self.terms[0])
        return " + ".join(f"{term.weight:g} {term}" for term in self.terms)

    @property
    def contexts(self) -> str:
        """What the student reads, beside z."""
        return "c' as in the row" if self.c_student == SAME else "c' empty"

    def loss(
        self,
        student: Student,
        teacher: Model | None,
        rows: Sequence[Row],
        *,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The method's loss on some rows, (), with gradient in the student.

        Exact, or from ``samples`` drawn sequences a row. ``teacher`` may be None where
        the method has none. Arguments and errors as for ``objective``.

        Raises:
            BadArgument: also where an earlier self is wanted and ``teacher`` is not a
                student of the student's own kind and size.
        """
        if self.teacher == EARLIER_SELF:
            _check_kin(student, teacher)
        if self.c_student != SAME and isinstance(rows, list | tuple):
            rows = [
                replace(row, c_student=self.c_student) if isinstance(row, Row) else row
                for row in rows
            ]
        loss = 0.0
        for term in self.terms:
            part = objective(
                student,
                teacher,
                rows,
                data=term.data,
                divergence=term.divergence,
                target=term.target,
                temperature=term.temperature,
                per=self.per,
                samples=samples,
                generator=generator,
            )
            loss = loss + term.weight * part
        return loss


def _check_kin(student: Student, teacher: Model | None) -> None:
    def kind(model):
        if not isinstance(model, Student):
            return None
        return type(model), [tuple(p.shape) for p in model.parameters()]

    if kind(student) != kind(teacher) or teacher is student:
        given = "the student itself" if teacher is student else type(teacher).__name__
        raise BadArgument(
            "teacher",
            given,
            wanted="an earlier self: a student of the same kind and size, frozen",
            todo="Train a student, and pass freeze(student).",
        )


# ----------------------------------------------------------------- hard and soft labels

CROSS_ENTROPY, FORWARD_KL = Divergence("cross_entropy"), Divergence("forward_kl")


def _sum(*weighted: tuple) -> tuple[Term, ...]:
    """Terms from their arguments, without those of weight 0."""
    return tuple(Term(*arguments) for arguments in weighted if arguments[0] > 0.0)


def hinton(temperature: float = 2.0, alpha: float = 0.5) -> Method:
    """Response-based distillation along the references, hard labels mixed in."""
    check_softening(temperature)
    check_share("alpha", alpha)
    soft = (1.0 - alpha) * temperature**2
    return Method(
        "hinton",
        _sum(
            (soft, References(), FORWARD_KL, "teacher", temperature),
            (alpha, References(), CROSS_ENTROPY, "one_hot"),
        ),
        "(1-α) T² Σ_t KL(Pr^t_T(·|y_<t) ‖ Pr^s_T(·|y_<t)) - α Σ_t log Pr^s(y_t|y_<t)",
        "Hinton et al. 2015",
    )


def word_level(alpha: float = 0.0) -> Method:
    """The teacher's next-token distributions along the references.

    α is the share of the hard labels, as everywhere here; Kim & Rush's α is 1 - α.
    """
    check_share("alpha", alpha)
    return Method(
        "word_level",
        _sum(
            (1.0 - alpha, References(), CROSS_ENTROPY),
            (alpha, References(), CROSS_ENTROPY, "one_hot"),
        ),
        "-Σ_t Σ_v Pr^t(v|c,z,y_<t) log Pr^s(v|c',z,y_<t), y the reference",
        "Kim & Rush 2016",
    )


def label_smoothing(epsilon: float = 0.1) -> Method:
    """Hard labels with a share ε of a teacher that finds all tokens alike."""
    check_share("epsilon", epsilon)
    return Method(
        "label_smoothing",
        _sum(
            (1.0 - epsilon, References(), CROSS_ENTROPY, "one_hot"),
            (epsilon, References(), CROSS_ENTROPY, "uniform"),
        ),
        "Σ_t [ -(1-ε) log Pr^s(y_t|y_<t) + ε H(u, Pr^s(·|y_<t)) ]",
        "Szegedy et al. 2016; Müller et al. 2019",
        teacher=NOBODY,
    )


def self_distillation() -> Method:
    """A student of the teacher's own kind: generation after generation."""
    return Method(
        "self_distillation",
        (Term(1.0, References(), CROSS_ENTROPY),),
        "-Σ_t Σ_v Pr^s_old(v|c,z,y_<t) log Pr^s(v|c',z,y_<t)",
        "Furlanello et al. 2018",
        teacher=EARLIER_SELF,
    )


# ---------------------------------------------------------------- the teacher's outputs


def sequence_level_exact() -> Method:
    """The sequence-level loss: the sum over all that the teacher can say."""
    return Method(
        "sequence_level_exact",
        (Term(1.0, TeacherSamples(), CROSS_ENTROPY, "one_hot"),),
        "-Σ_y Pr^t(y|c,z) log Pr^s(y|c',z)",
        "Kim & Rush 2016",
    )


def sequence_level() -> Method:
    """Target-generated: the teacher is replaced by a point mass on its own output."""
    return Method(
        "sequence_level",
        (Term(1.0, TeacherBest(), CROSS_ENTROPY, "one_hot"),),
        "-log Pr^s(ŷ|c',z), ŷ = argmax_y Pr^t(y|c,z)",
        "Kim & Rush 2016",
    )


def interpolation(n: int = 5) -> Method:
    """Of the teacher's n best outputs, the one that is closest to the reference."""
    return Method(
        "interpolation",
        (Term(1.0, ClosestOfNBest(n), CROSS_ENTROPY, "one_hot"),),
        "-log Pr^s(ỹ|c',z), ỹ = argmax of sim(y, reference) among the n best",
        "Kim & Rush 2016",
    )


def context_distillation() -> Method:
    """The teacher reads c, the student nothing but z.

    Askell et al. minimise this KL between sequences; Snell et al. train on what the
    teacher says when it reads c. In both papers teacher and student are one model.
    """
    return Method(
        "context_distillation",
        (Term(1.0, TeacherSamples(), FORWARD_KL),),
        "KL(Pr^t(·|c,z) ‖ Pr^s(·|z))",
        "Askell et al. 2021; Snell et al. 2022",
        c_student=None,
    )


# ---------------------------------------------------------------- the student's outputs


def on_policy() -> Method:
    """The teacher corrects what the student says; no gradient through the sampling."""
    return Method(
        "on_policy",
        (Term(1.0, StudentSamples(), FORWARD_KL),),
        "E_{y~Pr^s} 1/|y| Σ_t KL(Pr^t(·|c,z,y_<t) ‖ Pr^s(·|c',z,y_<t))",
        "Agarwal et al. 2024",
        per="length",
    )


def gkd(lam: float = 0.5, beta: float = 0.5) -> Method:
    """A share λ of the student's own outputs, and the generalised JS of β."""
    data = Mix(lam, References(), StudentSamples())
    return Method(
        "gkd",
        (Term(1.0, data, Divergence("generalised_js", beta=beta)),),
        "E_{y~(1-λ) data + λ Pr^s} 1/|y| Σ_t JSD_β(Pr^t(·|y_<t), Pr^s(·|y_<t))",
        "Agarwal et al. 2024",
        per="length",
    )


def f_distill_js() -> Method:
    """Jensen-Shannon, token by token: each half on the outputs of its own model."""
    return Method(
        "f_distill_js",
        (
            Term(0.5, TeacherSamples(), Divergence("skew_kl", alpha=0.5)),
            Term(0.5, StudentSamples(), Divergence("skew_reverse_kl", alpha=0.5)),
        ),
        "½ E_{y~Pr^t} Σ_t KL(Pr^t ‖ m) + ½ E_{y~Pr^s} Σ_t KL(Pr^s ‖ m), m their mean",
        "Wen et al. 2023",
    )


def f_distill_tvd() -> Method:
    """Total variation, token by token: half on the outputs of each model."""
    data = Mix(0.5, TeacherSamples(), StudentSamples())
    return Method(
        "f_distill_tvd",
        (Term(1.0, data, Divergence("total_variation")),),
        "½ (E_{y~Pr^t} + E_{y~Pr^s}) Σ_t ½ Σ_v |Pr^t(v|y_<t) - Pr^s(v|y_<t)|",
        "Wen et al. 2023",
    )


def distillm(alpha: float = 0.1, phi: float = 0.0, *, reverse: bool = False) -> Method:
    """Skew KL or skew reverse KL; a share φ of the student's own outputs.

    The authors take the student's outputs from a buffer and adapt φ while they train;
    the loss at one moment is this.
    """
    check_share("phi", phi)
    check_flag("reverse", reverse)
    data = Mix(phi, References(), StudentSamples()) if phi > 0.0 else References()
    name, formula = "skew_kl", "KL(Pr^t ‖ α Pr^t + (1-α) Pr^s)"
    if reverse:
        name, formula = "skew_reverse_kl", "KL(Pr^s ‖ (1-α) Pr^t + α Pr^s)"
    return Method(
        f"distillm_{name}",
        (Term(1.0, data, Divergence(name, alpha=alpha)),),
        f"Σ_t {formula}, each given y_<t",
        "Ko et al. 2024",
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        hinton(),
        word_level(),
        sequence_level_exact(),
        sequence_level(),
        interpolation(),
        on_policy(),
        gkd(),
        f_distill_js(),
        f_distill_tvd(),
        distillm(),
        distillm(reverse=True),
        context_distillation(),
        self_distillation(),
        label_smoothing(),
    )
}
"""Each method with its defaults: ``METHODS["gkd"].loss(student, toy, rows)``."""
