"""Checks of lesson 05: losses of whole sentences, and the three choices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from .core import Case, Exercise, Misconception
from .slopes import loss_and_slopes

NEVER = float("-inf")  # the logarithm of a probability of 0

# --- sequence_loss --------------------------------------------------------------


def _sequence_loss(teacher: dict, student: dict) -> float:
    total = 0.0
    for y, p in teacher.items():
        if p > 0:
            total -= p * student[y]
    return total


def _logs(**probabilities: float) -> dict[str, float]:
    return {y: math.log(q) if q else NEVER for y, q in probabilities.items()}


def _sequence_cases() -> list[Case]:
    return [
        Case(
            "the boat of section 1; the loss is 1.00",
            {
                "teacher": {"ve": 0.6, "él": 0.4},
                "student": _logs(ve=0.3, él=0.5, otro=0.2),
            },
        ),
        Case(
            "the student's outputs stand in another order",
            {
                "teacher": {"a": 0.2, "b": 0.5, "c": 0.3},
                "student": _logs(c=0.25, d=0.05, a=0.6, b=0.1),
            },
        ),
        Case(
            "an output that neither of them ever says",
            {
                "teacher": {"a": 0.7, "b": 0.0, "c": 0.3},
                "student": _logs(b=0.0, a=0.9, c=0.1),
            },
        ),
        Case(
            "an output that the student cannot say; the loss is infinite",
            {"teacher": {"a": 0.9, "b": 0.1}, "student": _logs(a=1.0, b=0.0)},
        ),
        Case(
            "a teacher that is sure",
            {"teacher": {"a": 1.0}, "student": _logs(b=0.5, a=0.5)},
        ),
    ]


class _LogarithmError(ValueError):
    """There is no such logarithm; any other ValueError is another mistake."""


_LogarithmError.__name__ = "ValueError"  # what the learner's code has raised


def _result(function: Callable, arguments: tuple):
    try:
        return function(*arguments)
    except ValueError as error:
        if "domain" in str(error) or "positive input" in str(error):
            told = _LogarithmError(str(error))
            raise told.with_traceback(error.__traceback__) from None
        raise


def _terms(teacher: dict, student: dict) -> list[float]:
    return [p * student[y] for y, p in teacher.items() if p > 0]


def _best(teacher: dict) -> str:
    return max(teacher, key=teacher.get)


def _backwards(teacher: dict, student: dict) -> float:
    return -sum(math.exp(student[y]) * math.log(p) for y, p in teacher.items())


def _backwards_tensors(teacher: dict, student: dict) -> float:
    p = torch.tensor(list(teacher.values()), dtype=torch.float64)
    q = torch.tensor([student[y] for y in teacher], dtype=torch.float64).exp()
    return -(q * p.log()).sum().item()


def _backwards_careful(teacher: dict, student: dict) -> float:
    rows = [(math.exp(student[y]), p) for y, p in teacher.items() if p > 0]
    return -sum(q * math.log(p) for q, p in rows)


def _kl_of_tables(teacher: dict, student: dict) -> float:
    return sum(p * (math.log(p) - student[y]) for y, p in teacher.items() if p > 0)


sequence_loss = Exercise(
    name="ex05.sequence_loss",
    call="sequence_loss(teacher, student)",
    reference=_sequence_loss,
    observe=_result,
    cases=_sequence_cases,
    difficulty=1,
    minutes=4,
    hints=(
        "Go through the teacher's outputs: each adds its probability times the "
        "student's logarithm. What becomes of the sign?",
        "Look the student's number up by its output: student[y]. The two tables need "
        "not have the same order.",
        "An output with Pr^t = 0 adds nothing. Leave it out: 0 times -inf is NaN for a "
        "computer.",
    ),
    misconceptions=(
        Misconception(
            "sign",
            "The sign is wrong: this grows as the student gets better. A loss is minus "
            "the sum.",
            lambda teacher, student: sum(_terms(teacher, student)),
        ),
        Misconception(
            "direction",
            "Teacher and student are exchanged: the teacher's probability weighs the "
            "student's logarithm, not the other way round.",
            _backwards,
            _backwards_tensors,
            _backwards_careful,
        ),
        Misconception(
            "by position",
            "The tables were joined by position. Their order means nothing: look the "
            "student up under the output, student[y]. Misaligned answers are a classic "
            "of the bug museum.",
            lambda teacher, student: (
                -sum(
                    p * q
                    for p, q in zip(teacher.values(), student.values(), strict=False)
                    if p > 0
                )
            ),
            lambda teacher, student: (
                -sum(
                    p * q
                    for p, q in zip(teacher.values(), student.values(), strict=False)
                )
            ),
        ),
        Misconception(
            "entropy subtracted",
            "This is the KL divergence: the teacher's entropy has been subtracted. The "
            "sequence-level loss is the cross-entropy, -Σ Pr^t log Pr^s.",
            _kl_of_tables,
        ),
        Misconception(
            "mean",
            "The sum is divided by the number of outputs. The teacher's probabilities "
            "are the weights already, and they sum to 1.",
            lambda teacher, student: -sum(_terms(teacher, student)) / len(teacher),
        ),
        Misconception(
            "zero times infinity",
            "Where neither says an output, 0 · -inf makes NaN. The term is 0: leave "
            "outputs with Pr^t = 0 out of the sum.",
            lambda teacher, student: -sum(p * student[y] for y, p in teacher.items()),
        ),
        Misconception(
            "infinity hidden",
            "An output that the teacher says and the student cannot was left out. The "
            "loss is infinite there, and should say so. Leave out what the *teacher* "
            "never says.",
            lambda teacher, student: (
                -sum(p * student[y] for y, p in teacher.items() if student[y] > NEVER)
            ),
        ),
        Misconception(
            "unweighted",
            "All outputs count alike. Weigh each logarithm with the teacher's "
            "probability of that output.",
            lambda teacher, student: (
                -sum(student[y] for y, p in teacher.items() if p > 0)
            ),
            lambda teacher, student: -sum(student[y] for y in teacher),
        ),
        Misconception(
            "best only",
            "Only the teacher's best output counts here. That is the target-generated "
            "loss, the next exercise. This one sums over all outputs.",
            lambda teacher, student: -student[_best(teacher)],
        ),
        Misconception(
            "logarithm twice",
            "The student's table holds logarithms already; their logarithm does not "
            "exist. Use the numbers as they are.",
            lambda teacher, student: (
                -sum(p * math.log(student[y]) for y, p in teacher.items())
            ),
        ),
        Misconception(
            "no logarithm",
            "The student's logarithms were turned back into probabilities. The loss "
            "needs the logarithms: they make a small probability costly.",
            lambda teacher, student: (
                -sum(p * math.exp(student[y]) for y, p in teacher.items())
            ),
        ),
    ),
)

# --- target_generated_loss ------------------------------------------------------


def _target_generated_loss(teacher: list, student: list) -> float:
    best, found = -math.inf, 0.0
    for theirs, ours in zip(teacher, student, strict=True):
        if sum(theirs) > best:
            best, found = sum(theirs), -sum(ours)
    return found


def _token_logs(*outputs: list[float]) -> list[list[float]]:
    return [[math.log(p) for p in output] for output in outputs]


def _target_cases() -> list[Case]:
    def case(name: str, teacher: list, student: list) -> Case:
        return Case(
            name, {"teacher": _token_logs(*teacher), "student": _token_logs(*student)}
        )

    return [
        case(
            "two outputs of two tokens; ŷ is the second",
            [[0.4, 0.9], [0.6, 0.8]],
            [[0.7, 0.9], [0.3, 0.5]],
        ),
        case(
            "a long output has the larger mean, a short one is more probable",
            [[0.5, 0.9], [0.4, 0.99, 0.99, 0.99, 0.99]],
            [[0.2, 0.4], [0.6, 0.9, 0.8, 0.9, 0.9]],
        ),
        case(
            "the best first token leads astray",
            [[0.55, 0.3, 0.9], [0.35, 0.95, 0.95], [0.1, 0.9, 0.8]],
            [[0.5, 0.4, 0.7], [0.25, 0.5, 0.6], [0.2, 0.9, 0.3]],
        ),
        case(
            "sure tokens do not make up for one doubtful one",
            [[0.9, 0.9, 0.2], [0.6, 0.6, 0.6], [0.4, 0.5, 0.5, 0.5]],
            [[0.9, 0.8, 0.5], [0.5, 0.5, 0.4], [0.2, 0.3, 0.9, 0.5]],
        ),
        case("one output", [[0.9, 0.8, 0.7]], [[0.5, 0.5, 0.25]]),
    ]


def _score_by(choose: Callable, loss: Callable) -> Callable:
    """A solution that chooses an output n and returns loss(teacher, student, n)."""

    def solution(teacher: list, student: list) -> float:
        n = choose(teacher, student)
        return loss(teacher, student, n)

    return solution


def _arg(scores: list[float], pick: Callable = max) -> int:
    return scores.index(pick(scores))


def _best_mean(teacher: list, student: list) -> int:
    return _arg([sum(tokens) / len(tokens) for tokens in teacher])


def _most_probable(teacher: list, student: list) -> int:
    return _arg([sum(tokens) for tokens in teacher])


def _minus_sum(teacher: list, student: list, n: int) -> float:
    return -sum(student[n])


target_generated_loss = Exercise(
    name="ex05.target_generated_loss",
    call="target_generated_loss(teacher, student)",
    reference=_target_generated_loss,
    cases=_target_cases,
    difficulty=2,
    minutes=6,
    hints=(
        "Two steps: find the number n of the teacher's most probable output, then "
        "score that output with the student.",
        "log Pr(y) of a whole output is the sum of its tokens' logarithms. ŷ is the "
        "output with the largest sum in teacher.",
        "The loss is -sum(student[n]): with a minus, and without a division.",
    ),
    misconceptions=(
        Misconception(
            "sign",
            "This is log Pr^s(ŷ), as some books print it. Minimising it teaches the "
            "student to avoid ŷ. The loss is minus that.",
            _score_by(_most_probable, lambda t, s, n: sum(s[n])),
        ),
        Misconception(
            "mean over tokens",
            "The sum over the tokens of ŷ is divided by their number. log Pr^s(ŷ) is "
            "the whole sum.",
            _score_by(_most_probable, lambda t, s, n: -sum(s[n]) / len(s[n])),
        ),
        Misconception(
            "choice by mean",
            "ŷ was chosen by the mean over its tokens. That favours long outputs; ŷ is "
            "the output of the largest probability, so of the largest sum.",
            _score_by(_best_mean, _minus_sum),
        ),
        Misconception(
            "two means",
            "Both steps take the mean over the tokens. ŷ has the largest *sum*, and "
            "the loss is minus the whole sum.",
            _score_by(_best_mean, lambda t, s, n: -sum(s[n]) / len(s[n])),
        ),
        Misconception(
            "no logarithm",
            "The logarithms were turned back into a probability. The loss is minus the "
            "logarithm of Pr^s(ŷ): the plain sum of the numbers given.",
            _score_by(_most_probable, lambda t, s, n: -math.exp(sum(s[n]))),
            _score_by(_most_probable, lambda t, s, n: math.exp(sum(s[n]))),
        ),
        Misconception(
            "first token",
            "ŷ was chosen by its first token alone, as a greedy search would. A better "
            "continuation can outweigh a weaker beginning: compare whole outputs.",
            _score_by(lambda t, s: _arg([y[0] for y in t]), _minus_sum),
        ),
        Misconception(
            "student's favourite",
            "This output is the student's own favourite. ŷ is the teacher's: the "
            "student has to learn it, like it or not.",
            _score_by(lambda t, s: _arg([sum(y) for y in s]), _minus_sum),
        ),
        Misconception(
            "teacher scored",
            "ŷ is right, but it was scored with the teacher's own numbers. They do not "
            "depend on θ: the student would not learn. Use student[n].",
            _score_by(_most_probable, lambda t, s, n: -sum(t[n])),
        ),
        Misconception(
            "weighted",
            "The term is multiplied by Pr^t(ŷ). The stand-in puts all of the mass on "
            "ŷ: its weight is 1.",
            _score_by(_most_probable, lambda t, s, n: -math.exp(sum(t[n])) * sum(s[n])),
        ),
        Misconception(
            "least probable",
            "This is the teacher's least probable output. Logarithms of probabilities "
            "are negative; the largest, nearest to 0, is the best.",
            _score_by(lambda t, s: _arg([sum(y) for y in t], min), _minus_sum),
        ),
        Misconception(
            "first output",
            "The first output was taken. The outputs come in any order: look for the "
            "largest sum.",
            _score_by(lambda t, s: 0, _minus_sum),
        ),
        Misconception(
            "full sum",
            "All outputs are summed, weighted by the teacher. That is the "
            "sequence-level loss; here one output stands in for all.",
            lambda teacher, student: (
                -sum(
                    math.exp(sum(t)) * sum(s)
                    for t, s in zip(teacher, student, strict=True)
                )
            ),
        ),
    ),
)

# --- kl_by_tokens ---------------------------------------------------------------

Table = dict[tuple[str, ...], dict[str, float]]


def _kl_by_tokens(teacher: Table, student: Table) -> float:
    def below(prefix: tuple[str, ...], mass: float) -> float:
        if prefix not in teacher or mass == 0:
            return 0.0
        total = 0.0
        for token, p in teacher[prefix].items():
            if p > 0:
                total += mass * p * math.log(p / student[prefix][token])
            total += below((*prefix, token), mass * p)
        return total

    return below((), 1.0)


END = {"<eos>": 1.0}


def _of_the_lesson() -> tuple[Table, Table]:
    teacher = {
        (): {"ve": 0.6, "ella": 0.4},
        ("ve",): {"banco": 0.8, "orilla": 0.2},
        ("ella",): {"banco": 0.8, "orilla": 0.2},
    }
    student = {
        (): {"ve": 0.5, "ella": 0.5},
        ("ve",): {"banco": 0.5, "orilla": 0.5},
        ("ella",): {"banco": 0.8, "orilla": 0.2},
    }
    for first in ("ve", "ella"):
        for noun in ("banco", "orilla"):
            teacher[first, noun], student[first, noun] = dict(END), dict(END)
    return teacher, student


def _of_unequal_lengths() -> tuple[Table, Table]:
    teacher = {  # the longest prefixes first: the order of a table means nothing
        ("a", "b", "a"): {"<eos>": 0.75, "a": 0.0, "b": 0.25},
        ("a", "b", "a", "b"): dict(END),
        ("a", "b"): {"<eos>": 0.2, "a": 0.8},
        ("b",): {"<eos>": 0.9, "b": 0.1},
        ("b", "b"): dict(END),
        ("a",): {"<eos>": 0.5, "b": 0.5},
        (): {"<eos>": 0.1, "a": 0.7, "b": 0.2},
    }
    student = {
        (): {"<eos>": 0.2, "a": 0.3, "b": 0.5},
        ("a",): {"<eos>": 0.7, "b": 0.3},
        ("b",): {"<eos>": 0.4, "b": 0.6},
        ("a", "b"): {"<eos>": 0.5, "a": 0.5},
        ("b", "b"): {"<eos>": 0.8},
        ("a", "b", "a"): {"<eos>": 0.25, "a": 0.25, "b": 0.5},
        ("a", "b", "a", "b"): {"<eos>": 0.5},
    }
    return teacher, student


def _tree_cases() -> list[Case]:
    teacher, student = _of_the_lesson()
    long_teacher, long_student = _of_unequal_lengths()
    return [
        Case(
            "the bank of section 2; the KL is 0.14",
            {"teacher": teacher, "student": student},
        ),
        Case(
            "a student that says more than its teacher",
            {
                "teacher": {(): {"<eos>": 0.25, "a": 0.75}, ("a",): dict(END)},
                "student": {
                    (): {"b": 0.1, "<eos>": 0.4, "a": 0.5},
                    ("b",): dict(END),
                    ("a",): {"<eos>": 0.9, "a": 0.1},
                    ("a", "a"): dict(END),
                },
            },
        ),
        Case(
            "unequal lengths, a token that is never said, prefixes out of order",
            {"teacher": long_teacher, "student": long_student},
        ),
        Case(
            "a student that is its teacher",
            {"teacher": teacher, "student": dict(reversed(teacher.items()))},
        ),
    ]


def _mass(table: Table, prefix: tuple[str, ...]) -> float:
    return math.prod(
        table.get(prefix[:t], {}).get(prefix[t], 0.0) for t in range(len(prefix))
    )


def _step(p: dict[str, float], q: dict[str, float]) -> float:
    return sum(p[v] * math.log(p[v] / q[v]) for v in p if p[v] > 0)


def _summed(weight: Callable, step: Callable = _step) -> Callable:
    """Σ over prefixes of weight(teacher, student, prefix) times a step's divergence."""
    return lambda teacher, student: sum(
        weight(teacher, student, prefix) * step(teacher[prefix], student[prefix])
        for prefix in teacher
    )


def _teachers_mass(teacher: Table, student: Table, prefix: tuple[str, ...]) -> float:
    return _mass(teacher, prefix)


def _last_step(teacher: Table, student: Table, prefix: tuple[str, ...]) -> float:
    return teacher[prefix[:-1]][prefix[-1]] if prefix else 1.0


def _on_best_path(teacher: Table, student: Table, prefix: tuple[str, ...]) -> float:
    path: tuple[str, ...] = ()
    while path in teacher:
        if path == prefix:
            return 1.0
        path += (max(teacher[path], key=teacher[path].get),)
    return 0.0


def _reversed_step(p: dict[str, float], q: dict[str, float]) -> float:
    """What is left of the reverse KL where it is not infinite."""
    return sum(q[v] * math.log(q[v] / p[v]) for v in p if p[v] > 0)


def _cross_entropy_step(p: dict[str, float], q: dict[str, float]) -> float:
    return -sum(p[v] * math.log(q[v]) for v in p if p[v] > 0)


def _divided_by_length(teacher: Table, student: Table) -> float:
    length = sum(_mass(teacher, prefix) for prefix in teacher)
    return _summed(_teachers_mass)(teacher, student) / length


def _divided_by_prefixes(teacher: Table, student: Table) -> float:
    return _summed(_teachers_mass)(teacher, student) / len(teacher)


kl_by_tokens = Exercise(
    name="ex05.kl_by_tokens",
    call="kl_by_tokens(teacher, student)",
    reference=_kl_by_tokens,
    cases=_tree_cases,
    difficulty=4,
    minutes=10,
    hints=(
        "For each prefix of the teacher you need two numbers: how often the teacher "
        "comes by, and the KL of the next token there.",
        "The mass of a prefix is a product: Pr^t(a, b) = Pr^t(a) · Pr^t(b | a). A "
        "function that walks down from (), and hands the mass on, needs no search.",
        "def below(prefix, mass): if prefix is no key of teacher, 0. Else mass times "
        "the KL here, plus below((*prefix, token), mass * p) for each token. Leave "
        "tokens with p = 0 out.",
    ),
    misconceptions=(
        Misconception(
            "unweighted",
            "Every prefix counts fully. A prefix that the teacher seldom reaches must "
            "count seldom: weigh its KL with Pr^t(y_<t).",
            _summed(lambda teacher, student, prefix: 1.0),
        ),
        Misconception(
            "student's mass",
            "The prefixes are weighted by how often the *student* comes by. The "
            "forward KL walks where the teacher walks.",
            _summed(lambda teacher, student, prefix: _mass(student, prefix)),
        ),
        Misconception(
            "last step",
            "A prefix is weighted by the probability of its last token only. The mass "
            "that arrives there is the product over all of its tokens.",
            _summed(_last_step),
        ),
        Misconception(
            "best path",
            "Only the prefixes along the likeliest tokens are counted. The sum runs "
            "over every prefix that the teacher can say.",
            _summed(_on_best_path),
            _summed(
                lambda t, s, prefix: _mass(t, prefix) * _on_best_path(t, s, prefix)
            ),
        ),
        Misconception(
            "reverse",
            "The KL at each step is the wrong way round: Σ Pr^t log(Pr^t / Pr^s) is "
            "wanted.",
            _summed(_teachers_mass, _reversed_step),
            lambda teacher, student: (
                -_summed(
                    _teachers_mass,
                    lambda p, q: sum(
                        q[v] * math.log(p[v] / q[v]) for v in p if p[v] > 0
                    ),
                )(teacher, student)
            ),
            _summed(_teachers_mass, lambda p, q: _step(q, p)),
        ),
        Misconception(
            "exchanged",
            "Teacher and student are exchanged everywhere: this walks where the "
            "student walks, and takes the reverse KL there. What is wanted walks with "
            "the teacher: Σ Pr^t log(Pr^t / Pr^s).",
            _summed(lambda t, s, prefix: _mass(s, prefix), _reversed_step),
        ),
        Misconception(
            "sign",
            "The sign is wrong. A KL is never negative: the fraction in the logarithm "
            "is Pr^t / Pr^s.",
            lambda teacher, student: -_summed(_teachers_mass)(teacher, student),
        ),
        Misconception(
            "bits",
            "This is in bits: the logarithm was taken to the base 2. A nat is that of "
            "math.log.",
            lambda teacher, student: (
                _summed(_teachers_mass)(teacher, student) / math.log(2)
            ),
        ),
        Misconception(
            "cross-entropy",
            "This is the cross-entropy: it is not 0 where the student is the teacher. "
            "The KL has Pr^t below the student's logarithm: log(Pr^t / Pr^s).",
            _summed(_teachers_mass, _cross_entropy_step),
        ),
        Misconception(
            "mean over prefixes",
            "The sum is divided by the number of prefixes. The chain rule is a sum; "
            "the weights are in it already.",
            _divided_by_prefixes,
        ),
        Misconception(
            "per token",
            "This is the KL a token: divided by the teacher's mean length. The KL of "
            "whole sentences is the sum itself.",
            _divided_by_length,
        ),
        Misconception(
            "first token",
            "Only the first token was compared. Go on below each token that the "
            "teacher can say.",
            lambda teacher, student: _step(teacher[()], student[()]),
        ),
    ),
)

# --- mixed_loss -----------------------------------------------------------------


def _mixed_loss(data_losses, own_losses, own_probabilities, lam) -> torch.Tensor:
    weights = own_probabilities.tolist()
    own = sum(w * loss for w, loss in zip(weights, own_losses, strict=True))
    return (1.0 - lam) * sum(data_losses) / len(data_losses) + lam * own


def _mixed_cases() -> list[Case]:
    def case(name: str, data: list, own: list, probabilities: list, lam: float) -> Case:
        numbers = [torch.tensor(row) for row in (data, own, probabilities)]
        names = ("data_losses", "own_losses", "own_probabilities")
        return Case(name, dict(zip(names, numbers, strict=True)) | {"lam": lam})

    return [
        case("a quarter on-policy", [1.0, 2.0], [4.0, 8.0], [0.75, 0.25], 0.25),
        case("half and half", [0.5, 2.0, 3.5], [0.25, 6.0], [0.9, 0.1], 0.5),
        case("all references", [1.5, 0.5], [3.0, 5.0, 0.0], [0.5, 0.3, 0.2], 0.0),
        case("all on-policy", [2.5], [1.0, 9.0, 2.0], [0.6, 0.1, 0.3], 1.0),
    ]


def _mix(data: torch.Tensor, own: torch.Tensor, lam: float) -> torch.Tensor:
    return (1 - lam) * data + lam * own


mixed_loss = Exercise(
    name="ex05.mixed_loss",
    call="mixed_loss(data_losses, own_losses, own_probabilities, lam)",
    reference=_mixed_loss,
    observe=loss_and_slopes(
        "slope in data_losses", "slope in own_losses", "slope in own_probabilities"
    ),
    cases=_mixed_cases,
    difficulty=3,
    minutes=6,
    hints=(
        "Two expectations: over the references, which are all alike, and over the "
        "student's own outputs, which are not.",
        "The first is data_losses.mean(), the second the sum of probability times "
        "loss. λ is the share of the second.",
        "No gradient through μ: own_probabilities.detach() are plain weights.",
    ),
    misconceptions=(
        Misconception(
            "lambda reversed",
            "λ is the share of the student's own outputs. At λ = 0 the references "
            "alone count; yours does it the other way round.",
            lambda d, o, p, lam: _mix((p.detach() * o).sum(), d.mean(), lam),
        ),
        Misconception(
            "gradient through the sampling",
            "The value is right, but a gradient flows through the probabilities of the "
            "student's outputs. GKD treats them as given: detach() them.",
            lambda d, o, p, lam: _mix(d.mean(), (p * o).sum(), lam),
        ),
        Misconception(
            "wrong side detached",
            "The gradient of the own outputs' losses was cut, that of their "
            "probabilities kept. The student is to answer better on its own outputs: "
            "detach the probabilities, not the losses.",
            lambda d, o, p, lam: _mix(d.mean(), (p * o.detach()).sum(), lam),
        ),
        Misconception(
            "own part detached",
            "No gradient reaches the losses of the student's own outputs: the whole "
            "product was cut off. Detach the probabilities alone.",
            lambda d, o, p, lam: _mix(d.mean(), (p * o).sum().detach(), lam),
        ),
        Misconception(
            "own outputs alike",
            "The student's outputs count alike. It says them with different "
            "probabilities, and an expectation weighs them so. (A plain mean is right "
            "for drawn samples; here all outputs are listed.)",
            lambda d, o, p, lam: _mix(d.mean(), o.mean(), lam),
        ),
        Misconception(
            "data summed",
            "The losses of the references are summed. Their expectation is the mean.",
            lambda d, o, p, lam: _mix(d.sum(), (p.detach() * o).sum(), lam),
        ),
        Misconception(
            "own mean of products",
            "The products of probability and loss are averaged. The probabilities are "
            "the weights already: sum.",
            lambda d, o, p, lam: _mix(d.mean(), (p.detach() * o).mean(), lam),
        ),
        Misconception(
            "pooled",
            "All outputs were put into one pool, so that the number of references "
            "decides the shares. λ decides them: mix the two expectations.",
            lambda d, o, p, lam: torch.cat([(1 - lam) * d, lam * o]).mean(),
            lambda d, o, p, lam: torch.cat([d, o]).mean(),
            lambda d, o, p, lam: torch.cat(
                [(1 - lam) * d, lam * p.detach() * o]
            ).mean(),
        ),
        Misconception(
            "lambda forgotten",
            "The two parts are added as they are. Their shares are 1 - λ and λ, and "
            "sum to 1.",
            lambda d, o, p, lam: d.mean() + (p.detach() * o).sum(),
        ),
        Misconception(
            "added on top",
            "The references keep their full weight, and the own outputs come on top. A "
            "mix takes from one what it gives to the other: 1 - λ and λ.",
            lambda d, o, p, lam: d.mean() + lam * (p.detach() * o).sum(),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it to the losses: nothing "
            "would be learned. Detach the probabilities alone, and return a tensor.",
            lambda d, o, p, lam: _mix(d.mean(), (p * o).sum(), lam).detach(),
            lambda d, o, p, lam: _mix(d.mean(), (p * o).sum(), lam).item(),
        ),
    ),
)

# --- interpolated_target --------------------------------------------------------


def _interpolated_target(candidates, reference, n, similarity) -> str:
    left, chosen, best = dict(candidates), None, -math.inf
    for _ in range(min(n, len(left))):
        y = max(left, key=left.get)
        del left[y]
        if similarity(y, reference) > best:
            chosen, best = y, similarity(y, reference)
    return chosen


def _shared_words(y: str, reference: str) -> float:
    """The share of the words of y that stand in the reference: not symmetric."""
    words = y.split()
    return sum(word in reference.split() for word in words) / len(words)


def _target_choices() -> list[Case]:
    bank = {
        "ahorra el banco ligero": 0.3,
        "ella salva la orilla clara": 0.05,
        "ella ahorra el banco": 0.2,
        "salva la orilla": 0.25,
        "la orilla": 0.2 - 1e-3,
    }

    def case(name: str, candidates: dict, reference: str, n: int) -> Case:
        arguments = {"candidates": candidates, "reference": reference, "n": n}
        return Case(name, arguments | {"similarity": _shared_words})

    return [
        case("the closest is not among the two best", bank, "la orilla es clara", 2),
        case("the closest is the fourth, and three may stand", bank, "la orilla", 3),
        case("three best", bank, "ella ahorra la orilla y el banco", 3),
        case("the short one is closest of all", bank, "la orilla y el banco", 5),
        case(
            "a tie: the more probable wins",
            {"la carga": 0.2, "el cargo": 0.5, "un cargo": 0.3},
            "el un la",
            3,
        ),
        case("more asked for than there are", {"ve": 0.1, "la ve": 0.9}, "ella ve", 9),
        case(
            "a near miss that is likely, a hit that is not",
            {"guarda el banco": 0.1, "ve el banco": 0.85, "guarda la silla": 0.05},
            "guarda el banco",
            2,
        ),
    ]


def _n_best(candidates: dict, n: int) -> list[str]:
    return sorted(candidates, key=candidates.get, reverse=True)[:n]


def _similarity_first(candidates, reference, n, similarity) -> str:
    near = sorted(candidates, key=lambda y: similarity(y, reference), reverse=True)
    return max(near[:n], key=candidates.get)


interpolated_target = Exercise(
    name="ex05.interpolated_target",
    call="interpolated_target(candidates, reference, n, similarity)",
    reference=_interpolated_target,
    cases=_target_choices,
    difficulty=2,
    minutes=5,
    hints=(
        "Two steps, in this order: who is allowed to stand, and who of these is the "
        "closest?",
        "sorted(candidates, key=candidates.get, reverse=True)[:n] are the n most "
        "probable, best first.",
        "max(..., key=lambda y: similarity(y, reference)) returns the first of equals: "
        "with the best first, that is the more probable one.",
    ),
    misconceptions=(
        Misconception(
            "most probable",
            "This is ŷ, whatever the reference says. Among the n best, take the one "
            "that is most similar to the reference.",
            lambda candidates, reference, n, similarity: _n_best(candidates, 1)[0],
        ),
        Misconception(
            "n ignored",
            "An output that is not among the teacher's n best was chosen. The teacher "
            "hardly says it: first the n most probable, then the similarity.",
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, len(candidates)),
                key=lambda y: similarity(y, reference),
            ),
        ),
        Misconception(
            "off by one",
            "The cut is off by one: exactly n of the teacher's outputs may stand.",
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, n + 1), key=lambda y: similarity(y, reference)
            ),
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, n - 1), key=lambda y: similarity(y, reference)
            ),
        ),
        Misconception(
            "n least probable",
            "The n *least* probable outputs were let in: sorted() begins with the "
            "smallest, unless it is told reverse=True.",
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, len(candidates))[::-1][:n],
                key=lambda y: similarity(y, reference),
            ),
        ),
        Misconception(
            "the reference",
            "This is the reference itself. Interpolation chooses one of the teacher's "
            "own outputs, which are easier for the student.",
            lambda candidates, reference, n, similarity: reference,
        ),
        Misconception(
            "first listed",
            "The first n entries were taken as they are listed. The n best are those "
            "with the largest probabilities.",
            lambda candidates, reference, n, similarity: max(
                list(candidates)[:n], key=lambda y: similarity(y, reference)
            ),
        ),
        Misconception(
            "steps exchanged",
            "The steps are exchanged: the n most similar were taken, and of these the "
            "most probable. Probability decides who stands, similarity who wins.",
            _similarity_first,
        ),
        Misconception(
            "arguments swapped",
            "similarity was called with its arguments exchanged. Hypothesis first, "
            "reference second: most such measures are not symmetric.",
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, n), key=lambda y: similarity(reference, y)
            ),
        ),
        Misconception(
            "least similar",
            "The least similar of the n best was chosen.",
            lambda candidates, reference, n, similarity: min(
                _n_best(candidates, n), key=lambda y: similarity(y, reference)
            ),
        ),
        Misconception(
            "tie",
            "Where two are equally similar, the less probable one was taken. The "
            "teacher decides a tie: put the most probable first.",
            lambda candidates, reference, n, similarity: max(
                reversed(_n_best(candidates, n)),
                key=lambda y: similarity(y, reference),
            ),
        ),
        Misconception(
            "weighted",
            "Similarity was multiplied by probability. That is the quantity which the "
            "method approximates; what it does is to take the most similar of the n "
            "best.",
            lambda candidates, reference, n, similarity: max(
                _n_best(candidates, n),
                key=lambda y: similarity(y, reference) * candidates[y],
            ),
            lambda candidates, reference, n, similarity: max(
                candidates, key=lambda y: similarity(y, reference) * candidates[y]
            ),
        ),
    ),
)

# --- without_context ------------------------------------------------------------


def _without_context(shares: dict, teacher: dict) -> dict:
    outputs = [y for said in teacher.values() for y in said]
    return {y: sum(shares[c] * teacher[c].get(y, 0.0) for c in shares) for y in outputs}


def _context_cases() -> list[Case]:
    def case(name: str, shares: dict, teacher: dict) -> Case:
        return Case(name, {"shares": shares, "teacher": teacher})

    bank = {
        "kitchen": {"banco": 0.8, "orilla": 0.2},
        "finance": {"banco": 0.97, "orilla": 0.03},
        "river": {"banco": 0.03, "orilla": 0.97},
    }
    bill = {
        "river": {"pico": 0.9, "cuenta": 0.1},
        "kitchen": {"cuenta": 0.7, "nota": 0.3},
        "finance": {"factura": 0.6, "cuenta": 0.4},
    }
    shares = {"kitchen": 1 / 6, "finance": 1 / 2, "river": 1 / 3}
    return [
        case("the bank: 0.63 for banco", shares, bank),
        case("outputs that occur in one context, another order", shares, bill),
        case("one context", {"river": 1.0}, {"river": bank["river"]}),
    ]


def _all_outputs(teacher: dict) -> list[str]:
    return list(dict.fromkeys(y for said in teacher.values() for y in said))


def _geometric(shares: dict, teacher: dict) -> dict:
    products = {
        y: math.prod(teacher[c].get(y, 0.0) ** share for c, share in shares.items())
        for y in _all_outputs(teacher)
    }
    total = sum(products.values())
    return {y: p / total for y, p in products.items()}


def _overwritten(shares: dict, teacher: dict) -> dict:
    found = {}
    for c in shares:
        found.update({y: shares[c] * p for y, p in teacher[c].items()})
    return found


def _first_kept(shares: dict, teacher: dict) -> dict:
    return _overwritten({c: shares[c] for c in reversed(shares)}, teacher)


def _overwritten_in_teachers_order(shares: dict, teacher: dict) -> dict:
    return _overwritten({c: shares[c] for c in teacher}, teacher)


def _of_the_bests(shares: dict, teacher: dict) -> dict:
    found = dict.fromkeys(_all_outputs(teacher), 0.0)
    for c, share in shares.items():
        found[_best(teacher[c])] += share
    return found


def _of_the_bests_alone(shares: dict, teacher: dict) -> dict:
    return {y: p for y, p in _of_the_bests(shares, teacher).items() if p > 0}


def _paired_by_position(shares: dict, teacher: dict) -> dict:
    return _without_context(dict(zip(teacher, shares.values(), strict=False)), teacher)


def _mean(shares: dict, teacher: dict) -> dict:
    return _without_context(dict.fromkeys(shares, 1 / len(shares)), teacher)


def _common_alone(shares: dict, teacher: dict) -> dict:
    mixed = _without_context(shares, teacher)
    return {
        y: p for y, p in mixed.items() if all(y in said for said in teacher.values())
    }


def _largest(shares: dict, teacher: dict) -> dict:
    return {
        y: max(shares[c] * teacher[c].get(y, 0.0) for c in shares)
        for y in _all_outputs(teacher)
    }


without_context = Exercise(
    name="ex05.without_context",
    call="without_context(shares, teacher)",
    reference=_without_context,
    cases=_context_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "The student gives one answer in all contexts. How often is each output right, "
        "on average over them?",
        "For each output: the sum over contexts of shares[c] times the teacher's "
        "probability of it in c.",
        "An output may occur in one context alone: teacher[c].get(y, 0.0). Start each "
        "sum at 0 and add to it.",
    ),
    misconceptions=(
        Misconception(
            "unweighted",
            "All contexts count alike. The student meets them with Pr(c|z): weigh with "
            "shares[c].",
            _mean,
        ),
        Misconception(
            "likeliest context",
            "Only the likeliest context counts. The student is trained in all of them.",
            lambda shares, teacher: dict(teacher[_best(shares)]),
            lambda shares, teacher: {
                y: teacher[_best(shares)].get(y, 0.0) for y in _all_outputs(teacher)
            },
        ),
        Misconception(
            "common outputs alone",
            "Outputs that are missing in some context were left out. There the teacher "
            "gives them 0; they keep what the other contexts give.",
            _common_alone,
        ),
        Misconception(
            "geometric",
            "This is the normalised product, a geometric mean: the best student under "
            "the *reverse* KL. The forward KL is least at the weighted sum.",
            _geometric,
        ),
        Misconception(
            "overwritten",
            "A later context overwrites an earlier one where both have an output. Add "
            "to what is there.",
            _overwritten,
            _overwritten_in_teachers_order,
        ),
        Misconception(
            "first kept",
            "Where two contexts have an output, only the first of them counts. Add the "
            "later ones to it.",
            _first_kept,
        ),
        Misconception(
            "bests alone",
            "Each context contributes its best output only. So ends a student that was "
            "trained on ŷ; here the teacher's whole distribution is mixed.",
            _of_the_bests,
            _of_the_bests_alone,
        ),
        Misconception(
            "by position",
            "Shares and answers were joined by position. Look both up under the "
            "context: shares[c], teacher[c].",
            _paired_by_position,
        ),
        Misconception(
            "shares forgotten",
            "The contexts are added without their shares; the result sums to the "
            "number of contexts.",
            lambda shares, teacher: _without_context(
                dict.fromkeys(shares, 1.0), teacher
            ),
        ),
        Misconception(
            "largest",
            "For each output the largest term was taken. The chances of different "
            "contexts add up.",
            _largest,
        ),
    ),
)

# --- smoothed_loss --------------------------------------------------------------


def _smoothed_loss(logits, labels, epsilon) -> torch.Tensor:
    """Row by row and token by token, with a target that is written out."""
    rows = []
    for scores, label in zip(logits, labels.tolist(), strict=True):
        total = torch.logsumexp(scores, dim=0)
        for v in range(len(scores)):
            target = epsilon / len(scores) + (1 - epsilon) * (v == label)
            rows.append(target * (total - scores[v]))
    return sum(rows) / len(logits)


def _smoothed_cases() -> list[Case]:
    def case(name: str, rows: int, size: int, epsilon: float, scale: float) -> Case:
        generator = torch.Generator().manual_seed(5)
        logits = scale * torch.randn(rows, size, generator=generator)
        labels = torch.randint(size, (rows,), generator=generator)
        return Case(name, {"logits": logits, "labels": labels, "epsilon": epsilon})

    by_hand = torch.tensor([[0.0, math.log(3.0)]])
    return [
        Case(
            "one token of two, ε = 0.2; the loss is 0.40",
            {"logits": by_hand, "labels": torch.tensor([1]), "epsilon": 0.2},
        ),
        case("three tokens of five", 3, 5, 0.1, 2.0),
        case("no smoothing", 2, 4, 0.0, 1.5),
        case("a teacher that knows nothing at all", 2, 3, 1.0, 1.0),
        Case(
            "logits of ±10,000",
            {
                "logits": torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]),
                "labels": torch.tensor([1, 2]),
                "epsilon": 0.1,
            },
        ),
    ]


def _two_parts(logits, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,): the hard loss, and the cross-entropy to the uniform distribution."""
    log_q = torch.log_softmax(logits, dim=-1)
    return -log_q.gather(1, labels[:, None])[:, 0], -log_q.mean(dim=-1)


def _blend(hard, soft, epsilon) -> torch.Tensor:
    return ((1 - epsilon) * hard + epsilon * soft).mean()


def _smoothed_student(logits, labels, epsilon) -> torch.Tensor:
    q = torch.softmax(logits, dim=-1)
    mixed = (1 - epsilon) * q + epsilon / logits.shape[-1]
    return -mixed.gather(1, labels[:, None]).log().mean()


def _to_the_others(logits, labels, epsilon) -> torch.Tensor:
    hard, soft = _two_parts(logits, labels)
    size = logits.shape[-1]
    return _blend(hard, (size * soft - hard) / (size - 1), epsilon)


def _own_entropy(logits, labels, epsilon) -> torch.Tensor:
    hard, _ = _two_parts(logits, labels)
    q = torch.softmax(logits, dim=-1)
    return _blend(hard, -(q * torch.log_softmax(logits, dim=-1)).sum(-1), epsilon)


def _kl_to_target(logits, labels, epsilon) -> torch.Tensor:
    size = logits.shape[-1]
    target = torch.nn.functional.one_hot(labels, size) * (1 - epsilon) + epsilon / size
    entropy = torch.special.entr(target).sum(-1).mean()
    return _blend(*_two_parts(logits, labels), epsilon) - entropy


def _softmax_over_rows(logits, labels, epsilon) -> torch.Tensor:
    log_q = torch.log_softmax(logits, dim=0)
    hard = -log_q.gather(1, labels[:, None])[:, 0]
    return _blend(hard, -log_q.mean(dim=-1), epsilon)


def _by_separate_log(logits, labels, epsilon) -> torch.Tensor:
    log_q = torch.softmax(logits, dim=-1).log()
    return _blend(-log_q.gather(1, labels[:, None])[:, 0], -log_q.mean(-1), epsilon)


def _by_exponentials(logits, labels, epsilon) -> torch.Tensor:
    q = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    log_q = q.log()
    return _blend(-log_q.gather(1, labels[:, None])[:, 0], -log_q.mean(-1), epsilon)


def _by_one_target(make_log: Callable) -> Callable:
    """-Σ target · log q: the same mistake written with one smoothed target."""

    def solution(logits, labels, epsilon):
        size = logits.shape[-1]
        target = torch.nn.functional.one_hot(labels, size) * (1 - epsilon)
        return -((target + epsilon / size) * make_log(logits)).sum(-1).mean()

    return solution


smoothed_loss = Exercise(
    name="ex05.smoothed_loss",
    call="smoothed_loss(logits, labels, epsilon)",
    reference=_smoothed_loss,
    observe=loss_and_slopes("its gradient"),
    cases=_smoothed_cases,
    difficulty=3,
    minutes=6,
    hints=(
        "Two cross-entropies for each row: to the label, and to a teacher that gives "
        "each of the V tokens 1/V.",
        "The second is -Σ_v (1/V) log Pr^s(v): minus the mean of log_softmax over the "
        "vocabulary.",
        "(1 - epsilon) times the first plus epsilon times the second, then the mean "
        "over the rows. torch.log_softmax keeps large logits finite.",
    ),
    misconceptions=(
        Misconception(
            "uniform over the others",
            "The share ε goes to the wrong tokens alone. A uniform teacher gives the "
            "label its 1/V as well.",
            _to_the_others,
        ),
        Misconception(
            "epsilon reversed",
            "ε is the small share of the uniform teacher; at ε = 0 the hard labels "
            "alone count. Yours does it the other way round.",
            lambda logits, labels, epsilon: _blend(
                *_two_parts(logits, labels), 1 - epsilon
            ),
        ),
        Misconception(
            "KL to uniform",
            "The slope is right, but ε log V is missing: this is the KL to the uniform "
            "distribution. Label smoothing is defined with the cross-entropy.",
            lambda logits, labels, epsilon: (
                _blend(*_two_parts(logits, labels), epsilon)
                - epsilon * math.log(logits.shape[-1])
            ),
        ),
        Misconception(
            "not divided by V",
            "The uniform part is summed over the vocabulary without its 1/V: it is V "
            "times too strong.",
            lambda logits, labels, epsilon: _blend(
                _two_parts(logits, labels)[0],
                logits.shape[-1] * _two_parts(logits, labels)[1],
                epsilon,
            ),
        ),
        Misconception(
            "mean over the vocabulary",
            "The mean was taken over all N · V entries, so this is V times too small. "
            "Sum over the vocabulary, then take the mean over the rows.",
            lambda logits, labels, epsilon: (
                _blend(*_two_parts(logits, labels), epsilon) / logits.shape[-1]
            ),
        ),
        Misconception(
            "added on top",
            "The hard labels keep their full weight, and the uniform teacher comes on "
            "top. The shares are 1 - ε and ε.",
            lambda logits, labels, epsilon: (
                _two_parts(logits, labels)[0] + epsilon * _two_parts(logits, labels)[1]
            ).mean(),
        ),
        Misconception(
            "KL to the target",
            "The slope is right, but the entropy of the smoothed target is missing: "
            "this is the KL to it. Label smoothing is defined with the cross-entropy.",
            _kl_to_target,
        ),
        Misconception(
            "softmax over the rows",
            "The softmax runs over the rows. Each row is a distribution over the "
            "vocabulary, the last dimension: dim=-1.",
            _softmax_over_rows,
        ),
        Misconception(
            "sign",
            "The sign is wrong: this is negative, and grows as the student gets "
            "better.",
            lambda logits, labels, epsilon: (
                -_blend(*_two_parts(logits, labels), epsilon)
            ),
        ),
        Misconception(
            "student smoothed",
            "The student's own probabilities were mixed with 1/V. It is the target "
            "that is smoothed, outside the logarithm.",
            _smoothed_student,
        ),
        Misconception(
            "own entropy",
            "The second part is the student's own entropy: weights Pr^s. A uniform "
            "teacher weighs each log Pr^s(v) with 1/V.",
            _own_entropy,
        ),
        Misconception(
            "sum",
            "This is the sum over the rows. Divide by their number.",
            lambda logits, labels, epsilon: (
                len(labels) * _blend(*_two_parts(logits, labels), epsilon)
            ),
        ),
        Misconception(
            "overflow",
            "exp() of a large logit is infinite, or the logarithm meets a probability "
            "that was rounded to 0. Use torch.log_softmax.",
            _by_separate_log,
            _by_exponentials,
            _by_one_target(lambda logits: logits.softmax(-1).log()),
            _by_one_target(
                lambda logits: (logits.exp() / logits.exp().sum(-1, True)).log()
            ),
        ),
        Misconception(
            "labels alone",
            "The uniform teacher is not there at all: this is the loss of hard labels, "
            "whatever ε is.",
            lambda logits, labels, epsilon: cross_entropy(logits, labels),
            lambda logits, labels, epsilon: (
                (1 - epsilon) * cross_entropy(logits, labels)
            ),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself.",
            lambda logits, labels, epsilon: _smoothed_loss(
                logits, labels, epsilon
            ).detach(),
            lambda logits, labels, epsilon: _smoothed_loss(
                logits, labels, epsilon
            ).item(),
        ),
    ),
)
