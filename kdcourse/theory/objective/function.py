"""L(θ) itself, and the divergence of whole sequences that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .. import divergences
from ..arguments import BadArgument, check_choice, check_kind, check_temperature
from ..toy import Outputs, Student, sequence_cross_entropy
from ..toy.students import check_student
from .data import Data, check_data, check_model, check_samples, needed
from .models import Ids, Model, language, next_logits
from .rows import Row

NAMES = {"cross_entropy": divergences.cross_entropy, **divergences.DIVERGENCES}
PARAMETERS = {"generalised_js": "beta", "skew_kl": "alpha", "skew_reverse_kl": "alpha"}
TARGETS = ("teacher", "one_hot", "uniform")
PER = ("sequence", "length", "token")


@dataclass(frozen=True)
class Divergence:
    """D with its parameter: ``Divergence("generalised_js", beta=0.1)``.

    ``name`` is one of ``divergences.DIVERGENCES``, or "cross_entropy"; ``beta`` belongs
    to generalised_js, ``alpha`` to the two skew divergences. None is their default.

    Raises:
        BadArgument: an unknown name, a parameter that the divergence does not have, or
            one outside its range.
    """

    name: str
    beta: float | None = None
    alpha: float | None = None

    def __post_init__(self):
        check_choice("divergence", self.name, NAMES)
        for parameter in ("beta", "alpha"):
            value = getattr(self, parameter)
            if value is not None and PARAMETERS.get(self.name) != parameter:
                raise BadArgument(
                    parameter,
                    f"{value!r} for {self.name}",
                    wanted="None: it has no such parameter",
                    todo="beta is of generalised_js, alpha of the skew divergences.",
                )
        some = torch.zeros(2)
        self(student_logits=some, teacher_logits=some)  # an error for a wrong number

    def __call__(self, *, student_logits, teacher_logits, temperature=1.0):
        """D at each position (...) of logits (..., V), in nats."""
        given = {"beta": self.beta, "alpha": self.alpha}
        return NAMES[self.name](
            student_logits=student_logits,
            teacher_logits=teacher_logits,
            temperature=temperature,
            **{name: value for name, value in given.items() if value is not None},
        )

    def __str__(self) -> str:
        for name in ("beta", "alpha"):
            if getattr(self, name) is not None:
                return f"{self.name}({name}={getattr(self, name):g})"
        return self.name


def as_divergence(divergence: str | Divergence) -> Divergence:
    """A divergence by its name, or as it is."""
    if isinstance(divergence, str):
        return Divergence(divergence)
    if not isinstance(divergence, Divergence):
        raise BadArgument(
            "divergence",
            f"a {type(divergence).__name__}",
            wanted="a name or a Divergence",
            todo="Take 'forward_kl', or Divergence('skew_kl', alpha=0.1).",
        )
    return divergence


def objective(
    student: Student,
    teacher: Model | None,
    rows: Sequence[Row],
    *,
    data: Data,
    divergence: str | Divergence = "forward_kl",
    target: str = "teacher",
    temperature: float = 1.0,
    per: str = "sequence",
    samples: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """L(θ) = E_{(c,c',z)} E_{y~μ} Σ_t D( Pr^t(·|c,z,y_<t) ‖ Pr^s_θ(·|c',z,y_<t) ).

    The expectations are exact: the rows by their weights, y by enumeration. A prefix
    y_<t is counted with the mass of μ that passes it. The gradient is that in the
    student's answers; whether it also flows through μ = the student's samples is
    said by ``StudentSamples``. The teacher receives none.

    Args:
        student: Pr^s_θ, a ``Student`` of the toy language.
        teacher: Pr^t, the toy language or a frozen ``Student``; None where neither the
            data nor the target needs one.
        rows: the (c, c', z), with references where the data need them.
        data: μ, for example ``References()``.
        divergence: D, a name or a ``Divergence``.
        target: what stands for the teacher in D. "teacher": Pr^t itself. "one_hot": a
            point mass on y_t, the data's own next token, for hard labels and for
            targets that a teacher generated. "uniform": each token that can be said,
            alike.
        temperature: T > 0 of both softmaxes in D, without a factor T²; μ stays at 1.
        per: "sequence" sums over the tokens of y; "length" divides each sum by |y|,
            inside the expectation (GKD); "token" divides the whole by the expected
            number of tokens, as ``distillation_loss`` divides a batch.
        samples: None for the exact expectation; else so many y are drawn from μ for
            each row: an unbiased estimate of it (for "token", of its two parts).
        generator: the source of randomness of ``samples``.

    Returns:
        The loss, (), in nats (a probability for total variation).

    Raises:
        BadArgument: an argument that cannot be right, a missing teacher or reference,
            or a μ that cannot be enumerated.
    """
    divergence = as_divergence(divergence)
    _check(student, teacher, rows, data, target, temperature, per)
    check_samples(samples, generator)
    loss = tokens = 0.0
    for row in rows:
        mu = data.outputs(student, teacher, row, samples=samples, generator=generator)
        check_kind("data", mu, Outputs, "Return one from its outputs().")
        share = row.weight / sum(row.weight for row in rows)
        steps = _Steps(mu, mean=per == "length")
        gap = _expected_divergence(
            steps, student, teacher, row, divergence, target, temperature
        )
        loss = loss + share * gap
        if per == "token":
            tokens = tokens + share * steps.weights.sum()
    return loss / tokens if per == "token" else loss


class _Steps:
    """The steps (y_<t, y_t) of the sequences of μ, each once with the mass it has."""

    def __init__(self, mu: Outputs, mean: bool):
        edges: dict[tuple[Ids, int], int] = {}
        steps = [
            (n, edges.setdefault((y[:t], token), len(edges)))
            for n, y in enumerate(mu.sequences)
            for t, token in enumerate(y)
        ]
        owner, edge = torch.tensor(steps).unbind(dim=1)
        mass = mu.probabilities
        if mean:
            mass = mass / torch.tensor([len(y) for y in mu.sequences])
        self.weights = mass.new_zeros(len(edges)).index_add(0, edge, mass[owner])
        self.tokens = torch.tensor([token for _, token in edges])
        numbers: dict[Ids, int] = {}
        places = [numbers.setdefault(y, len(numbers)) for y, _ in edges]
        self.prefixes, self.places = list(numbers), torch.tensor(places)

    def by_prefix(self) -> torch.Tensor:
        """The mass (P,) that passes each prefix."""
        none = self.weights.new_zeros(len(self.prefixes))
        return none.index_add(0, self.places, self.weights)


def _expected_divergence(
    steps, student, teacher, row, divergence, target, temperature
) -> torch.Tensor:
    """Σ of the steps' masses times D(target ‖ Pr^s_θ(·|c',z,y_<t))."""
    logits = next_logits(student, steps.prefixes, row.z, row.read_by_student)
    weights = steps.by_prefix()
    if target == "teacher":
        with torch.no_grad():
            answers = next_logits(teacher, steps.prefixes, row.z, row.c)
    elif target == "uniform":
        answers = torch.zeros_like(logits)
        answers[:, student.toy.pad] = float("-inf")
    else:
        logits, weights = logits[steps.places], steps.weights
        answers = torch.full_like(logits, float("-inf"))
        answers.scatter_(1, steps.tokens[:, None], 0.0)
    gaps = divergence(
        student_logits=logits, teacher_logits=answers, temperature=temperature
    )
    return (weights * gaps).sum()


def sequence_divergence(
    outputs: Outputs,
    student_log_probs: torch.Tensor,
    divergence: str | Divergence = "forward_kl",
) -> torch.Tensor:
    """D( Pr^t(·|c,z) ‖ Pr^s_θ(·|c',z) ) of whole sequences, exactly, ().

    ``outputs`` are all of the teacher's, ``student_log_probs`` (N,) the student's
    log Pr^s_θ of them. What the student says beside them counts as one more event, to
    which the teacher gives 0: for no divergence does it matter how that mass is spread.

    For the forward KL it is L(θ) with μ = the teacher's samples, by the chain rule. For
    Jensen-Shannon and total variation the token-wise losses of f-distill (Wen et al.
    2023) are upper bounds of it. The reverse KL is +inf unless the student says only
    what the teacher says.

    Raises:
        BadArgument: as ``sequence_cross_entropy``, or an unknown divergence.
    """
    divergence = as_divergence(divergence)
    sequence_cross_entropy(outputs, student_log_probs)  # checks the two
    log_p = outputs.probabilities.log()
    beside = 1.0 - student_log_probs.exp().sum()
    none = beside <= 0.0  # all of the student's mass is listed, but for rounding
    beside = beside.masked_fill(none, 1.0).log().masked_fill(none, float("-inf"))
    nothing = log_p.new_full((1,), float("-inf"))
    return divergence(
        student_logits=torch.cat([student_log_probs, beside[None]]),
        teacher_logits=torch.cat([log_p, nothing]),
    )


# ----------------------------------------------------------------------------- checks


def _check(student, teacher, rows, data, target, temperature, per) -> None:
    check_student(student)
    if teacher is not None:
        check_model("teacher", teacher)
        ours, theirs = language(student).vocabulary, language(teacher).vocabulary
        if ours != theirs:
            raise BadArgument(
                "teacher",
                f"of a language of {len(theirs)} tokens, not the student's",
                wanted=f"the student's vocabulary, {len(ours)} tokens in one order",
                todo="Make both from one toy_language().",
            )
    for name, model in (("student", student), ("teacher", teacher)):
        if isinstance(model, Student):
            _check_parameters(name, model)
    _check_rows(rows)
    check_data("data", data)
    check_choice("target", target, TARGETS)
    if target == "teacher":
        needed(teacher, "target='teacher'")
    check_temperature(temperature)
    check_choice("per", per, PER)


def _check_parameters(name: str, model: Student) -> None:
    if any(parameter.isnan().any() for parameter in model.parameters()):
        raise BadArgument(
            name,
            "a model with NaN among its parameters",
            wanted="numbers",
            todo="Look at the step before: a smaller learning rate, or a finite loss.",
        )


def _check_rows(rows) -> None:
    todo = "Pass a list: [Row(z, c, reference=y)]."
    if not isinstance(rows, list | tuple):
        given = f"a {type(rows).__name__}"
        raise BadArgument("rows", given, wanted="a list of Row", todo=todo)
    if not rows:
        raise BadArgument("rows", "empty", wanted="at least one Row", todo=todo)
    for row in rows:
        if not isinstance(row, Row):
            given = f"with a {type(row).__name__} among them"
            raise BadArgument("rows", given, wanted="a list of Row", todo=todo)
