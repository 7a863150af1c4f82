"""Checks of lesson 04: the distillation loss, its gradient, limit and siblings."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .core import Case, Exercise, Misconception

IGNORE = -100

# -------------------------------------------------------- what several checks share


def _with_gradient(*places: int) -> Callable:
    """An observer: the loss, and how it moves the arguments at these places."""

    def observe(function: Callable, arguments: tuple) -> object:
        leaves = {i: arguments[i].clone().requires_grad_() for i in places}
        watched = {i: leaf * 1.0 for i, leaf in leaves.items()}
        loss = function(*(watched.get(i, x) for i, x in enumerate(arguments)))
        for i, seen in watched.items():
            arguments[i].copy_(seen.detach())  # shows whether they were changed
        if loss is ...:
            return loss  # a blank; the engine knows it
        gradients = [None] * len(places)
        if isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1:
            if loss.device == arguments[0].device:
                gradients = torch.autograd.grad(
                    loss.sum(), list(leaves.values()), allow_unused=True
                )
        names = ["its gradient", "the projection's gradient"]
        return {"the loss": loss, **dict(zip(names, gradients, strict=False))}

    return observe


def _random(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pair(temperature: float, student: Tensor, teacher: Tensor, dim: int = -1):
    """log q and log p, both softened."""
    return tuple((x / temperature).log_softmax(dim) for x in (student, teacher))


def _kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p ‖ q) of each position, without T²."""
    log_q, log_p = _pair(temperature, student, teacher)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


# The token of the lesson: "luz", "lámpara", "casa".
_TEACHER, _STUDENT = torch.tensor([16.0, 4.0, 1.0]), torch.tensor([1.0, 4.0, 9.0])
_TEACHER, _STUDENT = _TEACHER.log(), _STUDENT.log()

# --- mix ------------------------------------------------------------------------


def _mix(soft, hard, temperature: float, alpha: float):
    return alpha * hard + (1 - alpha) * soft * temperature**2


def _mix_cases() -> list[Case]:
    def case(name: str, soft, hard, temperature: float, alpha: float) -> Case:
        return Case(
            name,
            {"soft": soft, "hard": hard, "temperature": temperature, "alpha": alpha},
        )

    return [
        case("by hand: T = 2, a quarter of hard labels", 0.5, 1.25, 2.0, 0.25),
        case("the teacher alone", 0.3, 2.0, 4.0, 0.0),
        case("the labels alone", 0.3, 2.0, 4.0, 1.0),
        case("T = 1", 0.7, 1.1, 1.0, 0.9),
        case("a low temperature", 0.9, 0.4, 0.5, 0.3),
        case(
            "tensors, one entry a token",
            torch.tensor([0.2, 0.05, 0.6]),
            torch.tensor([1.5, 0.0, 3.0]),
            3.0,
            0.4,
        ),
    ]


mix = Exercise(
    name="ex04.mix",
    call="mix(soft, hard, temperature, alpha)",
    reference=_mix,
    cases=_mix_cases,
    difficulty=1,
    minutes=5,
    hints=(
        "Two terms, each with its share. Which of them belongs to the labels, and "
        "which of them was softened?",
        "alpha * hard is one of the two. The shares sum to 1, and T² belongs to the "
        "softened term alone.",
        "(1 - alpha) * temperature**2 * soft is the other one.",
    ),
    misconceptions=(
        Misconception(
            "alpha on the soft term",
            "alpha weighs the soft term here. In this course, and in kdcourse, it is "
            "the share of the hard labels. (Libraries differ: always look.)",
            lambda soft, hard, t, a: a * t**2 * soft + (1 - a) * hard,
        ),
        Misconception(
            "T squared forgotten",
            "The factor T² is missing: the gradient of the soft term falls as 1/T², so "
            "that raising T switches the teacher off.",
            lambda soft, hard, t, a: (1 - a) * soft + a * hard,
        ),
        Misconception(
            "T not squared",
            "The soft term is multiplied by T. Its gradient falls as 1/T², so it takes "
            "T² to make up for it.",
            lambda soft, hard, t, a: (1 - a) * t * soft + a * hard,
        ),
        Misconception(
            "T squared on both terms",
            "T² multiplies the hard term as well. The labels are scored at T = 1, and "
            "nothing shrinks there.",
            lambda soft, hard, t, a: t**2 * ((1 - a) * soft + a * hard),
        ),
        Misconception(
            "T squared on the hard term",
            "T² stands at the hard term. It belongs to the term that was softened.",
            lambda soft, hard, t, a: (1 - a) * soft + a * t**2 * hard,
        ),
        Misconception(
            "divided by T squared",
            "The soft term is divided by T². Softening has made its gradient small "
            "already; T² is to make up for it.",
            lambda soft, hard, t, a: (1 - a) * soft / t**2 + a * hard,
        ),
        Misconception(
            "soft term unweighed",
            "The soft term has no share of its own: the weights are to sum to 1, so "
            "that alpha = 1 leaves the teacher out.",
            lambda soft, hard, t, a: t**2 * soft + a * hard,
        ),
        Misconception(
            "hard term unweighed",
            "The hard term has no share of its own: the weights are to sum to 1, so "
            "that alpha = 0 leaves the labels out.",
            lambda soft, hard, t, a: (1 - a) * t**2 * soft + hard,
        ),
    ),
)

# --- soft_gradient --------------------------------------------------------------


def _soft_gradient(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    log_q, log_p = _pair(temperature, student_logits, teacher_logits)
    return (log_q.exp() - log_p.exp()) * temperature


def _softened_cases() -> list[Case]:
    def case(name: str, student: Tensor, teacher: Tensor, temperature: float) -> Case:
        return Case(
            name,
            {
                "student_logits": student,
                "teacher_logits": teacher,
                "temperature": temperature,
            },
        )

    barred = [_random(5, 2, 4), _random(6, 2, 4)]
    for logits in barred:
        logits[0, 1] = -torch.inf
    return [
        case("the token of the lesson, T = 2", _STUDENT, _TEACHER, 2.0),
        case("the same at T = 1", _STUDENT, _TEACHER, 1.0),
        case("a batch, T = 3", _random(1, 2, 3, 5), _random(2, 2, 3, 5), 3.0),
        case("a low temperature", _random(3, 4, 6), _random(4, 4, 6), 0.5),
        case("one token that cannot be said (-inf)", *barred, 2.0),
        case(
            "logits up to ±10,000",
            torch.tensor([[1e4, -1e4, 9.999e3], [0.0, 2.0, 1.0]]),
            torch.tensor([[9.998e3, 1e4, -1e4], [1e4, 1.0, 0.0]]),
            2.0,
        ),
    ]


def _force(combine: Callable) -> Callable:
    """A wrong gradient from q, p and T."""

    def gradient(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        q, p = ((x / temperature).softmax(-1) for x in (student, teacher))
        return combine(q, p, temperature)

    return gradient


def _naive(logits: Tensor, temperature: float) -> Tensor:
    weights = (logits / temperature).exp()
    return weights / weights.sum(-1, keepdim=True)


soft_gradient = Exercise(
    name="ex04.soft_gradient",
    call="soft_gradient(student_logits, teacher_logits, temperature)",
    reference=_soft_gradient,
    cases=_softened_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Only -Σ p log q depends on the student. With log q_v = z_v/T - log Σ exp(z/T) "
        "find the derivative of log q_v in z_w first.",
        "It is ((v == w) - q_w) / T. Weigh it by p_v, sum over v, and use that p sums "
        "to 1.",
        "The gradient of the KL is (q - p) / T; T² times that is T (q - p). Both come "
        "from torch.softmax(logits / temperature, dim=-1).",
    ),
    misconceptions=(
        Misconception(
            "sign",
            "The sign is turned. The gradient points uphill: where the student gives "
            "more than its teacher (q > p) it is positive, and a step goes against it.",
            _force(lambda q, p, t: t * (p - q)),
        ),
        Misconception(
            "T cancelled",
            "This is q - p. T² stands before the KL, and the derivative of z/T brings "
            "1/T: one factor T is left.",
            _force(lambda q, p, t: q - p),
        ),
        Misconception(
            "inner derivative forgotten",
            "This is T² (q - p). The logits are divided by T inside the softmax, so "
            "the chain rule brings a factor 1/T.",
            _force(lambda q, p, t: t**2 * (q - p)),
        ),
        Misconception(
            "T squared forgotten",
            "This is (q - p) / T, the gradient of the KL alone. The loss is T² times "
            "the KL.",
            _force(lambda q, p, t: (q - p) / t),
        ),
        Misconception(
            "not softened",
            "The probabilities are those at T = 1. The loss compares the softened "
            "ones: softmax(logits / T), on both sides.",
            lambda s, t, temperature: temperature * (s.softmax(-1) - t.softmax(-1)),
            lambda s, t, temperature: s.softmax(-1) - t.softmax(-1),
        ),
        Misconception(
            "one side softened",
            "Only one side is softened. T divides the student's logits and the "
            "teacher's, or the gradient is not 0 for a perfect copy.",
            lambda s, t, temperature: (
                temperature * ((s / temperature).softmax(-1) - t.softmax(-1))
            ),
            lambda s, t, temperature: (
                temperature * (s.softmax(-1) - (t / temperature).softmax(-1))
            ),
        ),
        Misconception(
            "one-hot teacher",
            "Only the teacher's best token counts here. That is the gradient of hard "
            "labels; the soft targets are all of its probabilities.",
            _force(
                lambda q, p, t: t * (q - F.one_hot(p.argmax(-1), p.shape[-1]).to(q))
            ),
        ),
        Misconception(
            "divided by the vocabulary",
            "The gradient is divided by V. A KL sums over the vocabulary; nothing "
            "divides by its size.",
            _force(lambda q, p, t: t * (q - p) / q.shape[-1]),
        ),
        Misconception(
            "softmax over another axis",
            "The softmax runs over the first axis. The vocabulary is the last one: "
            "dim=-1.",
            lambda s, t, temperature: (
                temperature
                * ((s / temperature).softmax(0) - (t / temperature).softmax(0))
            ),
        ),
        Misconception(
            "overflow",
            "exp() of a large logit is infinite, and infinite through infinite is no "
            "number. torch.softmax takes the largest logit away first.",
            lambda s, t, temperature: (
                temperature * (_naive(s, temperature) - _naive(t, temperature))
            ),
        ),
    ),
)

# --- kd_loss --------------------------------------------------------------------


def _kd_loss(student_logits, teacher_logits, labels, temperature) -> Tensor:
    """Token by token, slow and plain: independent of every vectorised solution."""
    losses = []
    for i, row in enumerate(labels.tolist()):
        for j, label in enumerate(row):
            if label != IGNORE:
                z_s, z_t = (x[i, j] for x in (student_logits, teacher_logits))
                log_q = z_s / temperature - (z_s / temperature).logsumexp(0)
                log_p = z_t / temperature - (z_t / temperature).logsumexp(0)
                losses.append(sum(log_p.exp() * (log_p - log_q)))
    return temperature**2 * sum(losses) / len(losses)


_PADDED = [[1, 2, 3, 0], [2, 0, IGNORE, IGNORE]]
_LENGTHS = [[5, 6, 1, 2, 0], [4, 0, *3 * [IGNORE]], [3, 3, 0, *2 * [IGNORE]]]


def _kd_cases() -> list[Case]:
    def case(
        name: str, labels: list, student: Tensor, teacher: Tensor, temperature: float
    ) -> Case:
        return Case(
            name,
            {
                "student_logits": student,
                "teacher_logits": teacher,
                "labels": torch.tensor(labels),
                "temperature": temperature,
            },
        )

    def drawn(name: str, labels: list, vocabulary: int, temperature: float) -> Case:
        shape = (len(labels), len(labels[0]), vocabulary)
        pair = _random(40, *shape), _random(41, *shape)
        return case(name, labels, *pair, temperature)

    other = torch.zeros(3)
    same = _random(42, 2, 4, 5)
    pads = torch.tensor(_PADDED)[..., None] == IGNORE
    sure = _random(43, 2, 3, 4, scale=4e3), _random(44, 2, 3, 4, scale=4e3)
    return [
        case(
            "the token of the lesson twice, and a pad; T = 2, the loss is 1.92",
            [[1, 0, IGNORE]],
            torch.stack([_STUDENT, _STUDENT, other])[None],
            torch.stack([_TEACHER, _TEACHER, _TEACHER])[None],
            2.0,
        ),
        drawn("no pads, one sentence cut off, T = 1", [[1, 2, 3], [3, 1, 0]], 4, 1.0),
        drawn("two sentences, one padded, T = 2", _PADDED, 5, 2.0),
        drawn("three lengths, T = 4", _LENGTHS, 7, 4.0),
        case(
            "the student copies its teacher at each real token: the loss is 0",
            _PADDED,
            same,
            torch.where(pads, 3 * same.flip(-1), same),
            2.0,
        ),
        case("logits up to ±10,000", [[1, 0, IGNORE], [2, 1, 0]], *sure, 2.0),
    ]


def _real(labels: Tensor) -> Tensor:
    return labels != IGNORE


def _tokens_mean(per_token: Callable) -> Callable:
    """A wrong loss, right in its mask: T² times the mean of ``per_token``."""

    def loss(student, teacher, labels, temperature):
        real = _real(labels)
        values = per_token(student, teacher, temperature)[real]
        return temperature**2 * values.sum() / real.sum()

    return loss


def _reduced(reduce: Callable) -> Callable:
    """A wrong loss, right at each token: ``reduce(values (B, L), labels, V)``."""

    def loss(student, teacher, labels, temperature):
        values = temperature**2 * _kl(student, teacher, temperature)
        return reduce(values, labels, student.shape[-1])

    return loss


def _sum(values: Tensor, labels: Tensor) -> Tensor:
    return values[_real(labels)].sum()


def _powered(change: Callable) -> Callable:
    """A wrong loss with another factor than T²."""

    def loss(student, teacher, labels, temperature):
        return _kd_loss(student, teacher, labels, temperature) * change(temperature)

    return loss


def _one_side(of_student: bool, squared: bool) -> Callable:
    def loss(student, teacher, labels, temperature):
        cold = (1.0, temperature) if of_student else (temperature, 1.0)
        log_p, log_q = (
            (x / t).log_softmax(-1)
            for x, t in zip((teacher, student), cold, strict=True)
        )
        values = (log_p.exp() * (log_p - log_q)).sum(-1)[_real(labels)]
        return (temperature**2 if squared else 1) * values.sum() / len(values)

    return loss


def _shifted(mask_only: bool) -> Callable:
    def loss(student, teacher, labels, temperature):
        if mask_only:
            pair, real = (student[:, :-1], teacher[:, :-1]), _real(labels[:, 1:])
        else:
            pair, real = (student[:, :-1], teacher[:, 1:]), _real(labels[:, :-1])
        values = _kl(*pair, temperature)[real]
        return temperature**2 * values.sum() / real.sum()

    return loss


def _hard(student, labels, temperature) -> Tensor:
    log_q = (student / temperature).log_softmax(-1)
    real = _real(labels)
    return -log_q[real].gather(-1, labels[real][:, None]).sum() / real.sum()


def _hard_teacher(student, teacher, temperature) -> Tensor:
    log_q = (student / temperature).log_softmax(-1)
    return -log_q.gather(-1, teacher.argmax(-1, keepdim=True))[..., 0]


def _log_of_softmax(student: bool, teacher: bool, eps: float = 0.0, form=None):
    """A KL whose logarithms are taken of probabilities that may be rounded to 0."""

    def loss(z_s, z_t, labels, temperature):
        real = _real(labels)
        q, p = ((x[real] / temperature).softmax(-1) for x in (z_s, z_t))
        log_q, log_p = _pair(temperature, z_s[real], z_t[real])
        if student:
            log_q = (q + eps).log()
        if teacher:
            log_p = (p + eps).log()
        if form == "kl_div":
            values = F.kl_div(log_q, p, reduction="sum")
        elif form == "ratio":
            values = (p * (p / (q + eps)).log()).sum()
        else:
            values = (p * (log_p - log_q)).sum()
        return temperature**2 * values / real.sum()

    return loss


def _exp_by_hand(form: str = "") -> Callable:
    def loss(student, teacher, labels, temperature):
        real = _real(labels)
        q, p = (_naive(x[real], temperature) for x in (student, teacher))
        if form == "log-softmax":
            log_q = (student[real] / temperature).log_softmax(-1)
            values = p * (p.log() - log_q)
        elif form == "ratio":
            values = p * (p / q).log()
        else:
            values = p * (p.log() - q.log())
        return temperature**2 * values.sum() / real.sum()

    return loss


def _sentence_means(values: Tensor, labels: Tensor, _: int) -> Tensor:
    real = _real(labels)
    return ((values * real).sum(1) / real.sum(1)).mean()


def _kl_div_of_all(reduction: str) -> Callable:
    """kl_div on (B, L, V) as it is, pads and all, with one of its reductions."""

    def loss(student, teacher, labels, temperature):
        values = temperature**2 * _kl(student, teacher, temperature).sum()
        return values / (len(labels) if reduction == "batchmean" else student.numel())

    return loss


def _over(dim: int) -> Callable:
    def values(student, teacher, temperature):
        log_q, log_p = _pair(temperature, student, teacher, dim)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    return _tokens_mean(values)


def _kl_div(student: str, teacher: str) -> Callable:
    """kl_div with the wrong kind of inputs."""

    def values(z_s, z_t, temperature):
        given = [
            getattr(x / temperature, kind)(-1)
            for x, kind in ((z_s, student), (z_t, teacher))
        ]
        return F.kl_div(*given, reduction="none").sum(-1)

    return _tokens_mean(values)


def _swapped_kl_div(student, teacher, labels, temperature):
    """Its gradient is NaN where the student's probability was rounded to 0."""
    real = _real(labels)
    log_p = (teacher[real] / temperature).log_softmax(-1)
    q = (student[real] / temperature).softmax(-1)
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")


kd_loss = Exercise(
    name="ex04.kd_loss",
    call="kd_loss(student_logits, teacher_logits, labels, temperature)",
    reference=_kd_loss,
    observe=_with_gradient(0),
    cases=_kd_cases,
    difficulty=4,
    minutes=15,
    hints=(
        "Take the real tokens first: real = labels != -100; student_logits[real] has "
        "shape (N, V). The labels are needed for nothing else.",
        "log_q and log_p are torch.log_softmax(logits / temperature, dim=-1) of "
        "student and teacher. The KL of a token is (log_p.exp() * (log_p - "
        "log_q)).sum(dim=-1).",
        "Sum it over all tokens, multiply by temperature**2, divide once by "
        "real.sum().",
    ),
    misconceptions=(
        Misconception(
            "mean over the vocabulary",
            "The loss is divided by V too: kl_div's mean, or .mean() of (N, V), runs "
            "over the vocabulary as well. Sum over it, and divide by the tokens only. "
            "(Museum, row 1.)",
            _reduced(lambda v, y, size: _sum(v, y) / _real(y).sum() / size),
        ),
        Misconception(
            "divided by sentences",
            'The sum is divided by the number of sentences, as "batchmean" does on '
            "(B, L, V): the loss grows with their length. Divide by the real tokens. "
            "(Museum, row 2.)",
            _reduced(lambda v, y, size: _sum(v, y) / len(y)),
        ),
        Misconception(
            "batchmean of all",
            'Two things at once: pads are in the sum, and "batchmean" on (B, L, V) '
            "divides by the number of sentences. Select the real tokens first: then "
            "there are N rows (N, V), and it divides by N. (Museum, rows 2 and 3.)",
            _kl_div_of_all("batchmean"),
        ),
        Misconception(
            "mean of all",
            "Two things at once: pads are in the sum, and it is divided by all B · L · "
            "V entries. Select the real tokens, sum over the vocabulary, and divide by "
            "their number. (Museum, rows 1 and 3.)",
            _kl_div_of_all("mean"),
        ),
        Misconception(
            "pads averaged in",
            "Pads are learned and counted like tokens: the loss depends on how "
            "sentences were batched together. Leave out where labels are -100. "
            "(Museum, row 3.)",
            _reduced(lambda v, y, size: v.mean()),
        ),
        Misconception(
            "pads learned",
            "Pads are in the sum, though not in the number that it is divided by. "
            "Select the real positions before summing.",
            _reduced(lambda v, y, size: v.sum() / _real(y).sum()),
        ),
        Misconception(
            "divided by positions",
            "The sum is right, but it is divided by all B · L positions: with more "
            "padding the same batch gets a smaller loss. Divide by the real tokens.",
            _reduced(lambda v, y, size: _sum(v, y) / y.numel()),
        ),
        Misconception(
            "divided twice",
            "The loss is divided by the number of tokens twice: a mean, and then "
            "again. It shrinks as the batch grows. (Museum, row 4.)",
            _reduced(lambda v, y, size: _sum(v, y) / _real(y).sum() ** 2),
        ),
        Misconception(
            "sum",
            "This is the sum over the tokens; it grows with the batch. Divide it, "
            "once, by the number of real tokens.",
            _reduced(lambda v, y, size: _sum(v, y)),
        ),
        Misconception(
            "mean of means",
            "This is the mean of each sentence's mean: a token of a short sentence "
            "weighs more. Sum over the whole batch first, divide once. (Museum, row "
            "16.)",
            _reduced(_sentence_means),
        ),
        Misconception(
            "mask one place off",
            "Logits and mask are one position apart: the last token of each sentence, "
            "its end, is never learned. Position t's logits belong to the label at t; "
            "shift nothing. (Museum, row 6.)",
            _shifted(mask_only=True),
        ),
        Misconception(
            "teacher one place off",
            "The student's answer at t is compared with the teacher's at t + 1. Both "
            "stand at the same place; shift nothing. (Museum, row 6.)",
            _shifted(mask_only=False),
        ),
        Misconception(
            "token zero masked",
            "Token 0 was left out together with the pads. Here 0 is </s>: a student "
            "that never learns it never stops. Only -100 marks a pad. (Museum, row "
            "17.)",
            _reduced(lambda v, y, size: v[y > 0].sum() / (y > 0).sum()),
        ),
        Misconception(
            "softmax over time",
            "The softmax runs over the positions of a sentence. Probabilities must sum "
            "to 1 over the vocabulary: dim=-1 of (B, L, V). (Museum, row 7.)",
            _over(1),
        ),
        Misconception(
            "softmax over the batch",
            "The softmax runs over the sentences of the batch. Probabilities must sum "
            "to 1 over the vocabulary: dim=-1 of (B, L, V).",
            _over(0),
        ),
        Misconception(
            "swapped",
            "Student and teacher are swapped: this is KL(q ‖ p). Wanted is the forward "
            "one, KL(p ‖ q): the teacher's probabilities weigh the logarithms, and "
            "kl_div takes the student first. (Museum, row 8.)",
            _tokens_mean(lambda s, t, temperature: _kl(t, s, temperature)),
            _swapped_kl_div,
        ),
        Misconception(
            "softmax for log-softmax",
            "The student's probabilities stand where their logarithms belong: the "
            "value is no divergence, and not 0 for a perfect copy. kl_div wants "
            "log_softmax first. (Museum, row 8.)",
            _kl_div("softmax", "softmax"),
        ),
        Misconception(
            "log target",
            "kl_div's target is given as log-probabilities, but read as probabilities: "
            "their logarithm is NaN. Pass softmax(teacher), or log_target=True. "
            "(Museum, row 9.)",
            _kl_div("log_softmax", "log_softmax"),
        ),
        Misconception(
            "T squared forgotten",
            "The factor T² is missing: the gradient falls as 1/T², so that raising T "
            "switches the teacher off. (Museum, row 10.)",
            _powered(lambda t: t**-2),
        ),
        Misconception(
            "T not squared",
            "The KL is multiplied by T. Its gradient falls as 1/T², so it takes T².",
            _powered(lambda t: 1 / t),
        ),
        Misconception(
            "T squared twice",
            "The factor T² stands there twice: the loss grows as T², and drowns any "
            "other term. (Museum, row 10.)",
            _powered(lambda t: t**2),
        ),
        Misconception(
            "not softened",
            "The logits are not divided by T at all; only the factor T² is there.",
            _tokens_mean(lambda s, t, temperature: _kl(s, t)),
            lambda s, t, labels, temperature: _kd_loss(s, t, labels, 1.0),
        ),
        Misconception(
            "one side softened",
            "T divides only one of student and teacher: a perfect copy has a loss "
            "above 0, and the student is asked to be sharper, or softer, than its "
            "teacher. (Museum, row 10.)",
            *(_one_side(side, squared) for side in (1, 0) for squared in (1, 0)),
        ),
        Misconception(
            "cross-entropy",
            "This is a cross-entropy, -Σ p log q = H(p) + KL(p ‖ q): its gradient is "
            "right, but for a perfect copy it is the teacher's entropy, not 0. "
            "Subtract it: log p - log q. (Museum, row 11.)",
            _tokens_mean(
                lambda s, t, temperature: (
                    -(t / temperature).softmax(-1) * (s / temperature).log_softmax(-1)
                ).sum(-1)
            ),
        ),
        Misconception(
            "hard labels",
            "The student is compared with the labels, and the teacher is not asked. "
            "Here the labels only say which positions are real.",
            lambda s, t, labels, temperature: _hard(s, labels, 1.0),
            lambda s, t, labels, temperature: _hard(s, labels, temperature),
            lambda s, t, labels, temperature: (
                temperature**2 * _hard(s, labels, temperature)
            ),
        ),
        Misconception(
            "one-hot teacher",
            "Only the teacher's best token counts here. The soft targets are all of "
            "its probabilities.",
            _tokens_mean(_hard_teacher),
        ),
        Misconception(
            "sign",
            "The sign is turned: this loss is below 0, and falls as the student "
            "departs from its teacher. KL is Σ p (log p - log q).",
            lambda *arguments: -_kd_loss(*arguments),
        ),
        Misconception(
            "overflow",
            "exp() of a large logit is infinite, or a logarithm meets a probability "
            "that was rounded to 0. Use torch.log_softmax, for both, and no small "
            "number added.",
            *(
                _log_of_softmax(student, teacher, eps)
                for eps in (0.0, 1e-12, 1e-10, 1e-9, 1e-8)
                for student, teacher in ((1, 1), (1, 0))
            ),
            _log_of_softmax(0, 1),
            *(_log_of_softmax(1, 0, eps, "kl_div") for eps in (0.0, 1e-10, 1e-8)),
            *(_log_of_softmax(0, 0, eps, "ratio") for eps in (0.0, 1e-10, 1e-8)),
            *(_exp_by_hand(form) for form in ("", "log-softmax", "ratio")),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself: no .item(), .detach(), float() or "
            "torch.tensor().",
            lambda *arguments: _kd_loss(*arguments).item(),
            lambda *arguments: _kd_loss(*arguments).detach(),
        ),
    ),
)

# --- high_temperature_limit -----------------------------------------------------


def _limit(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """From all pairs, without a mean: 2 V Σ (d - d̄)² = Σ_v Σ_w (d_v - d_w)²."""
    d = student_logits - teacher_logits
    gaps = d[..., :, None] - d[..., None, :]
    return gaps.square().sum((-1, -2)) / (4 * d.shape[-1] ** 2)


def _limit_cases() -> list[Case]:
    def case(name: str, student: Tensor, teacher: Tensor) -> Case:
        return Case(name, {"student_logits": student, "teacher_logits": teacher})

    moved = _random(9, 3, 4)
    return [
        case("the token of the lesson: 2.07", _STUDENT, _TEACHER),
        case("a batch", _random(7, 2, 3, 6), _random(8, 2, 3, 6)),
        case("a constant added to all logits changes nothing", moved + 5.0, moved),
        case("two tokens", _random(11, 5, 2), _random(12, 5, 2)),
        case(
            "large logits, 100 and -100",
            torch.tensor([[100.0, -100.0, 3.0, 50.0]]),
            torch.tensor([[-100.0, 100.0, 7.0, 50.0]]),
        ),
    ]


def _moment(formula: Callable) -> Callable:
    """A wrong limit from d and its mean."""

    def limit(student: Tensor, teacher: Tensor) -> Tensor:
        d = student - teacher
        return formula(d, d - d.mean(-1, keepdim=True))

    return limit


high_temperature_limit = Exercise(
    name="ex04.high_temperature_limit",
    call="high_temperature_limit(student_logits, teacher_logits)",
    reference=_limit,
    cases=_limit_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "For large T the softmax is nearly uniform: p_v ≈ (1 + (z_v - z̄)/T) / V. Write "
        "down q - p with d = z_s - z_t.",
        "q - p ≈ (d - d̄) / (V T). Near the uniform distribution KL ≈ V/2 Σ (p - q)². "
        "Put one into the other, times T²: T is gone.",
        "Half the mean, over the vocabulary, of (d - d.mean(dim=-1, keepdim=True)) "
        "squared.",
    ),
    misconceptions=(
        Misconception(
            "not centred",
            "The differences are not centred. A constant added to all logits changes "
            "no probability, and must not change the limit: subtract the mean of d "
            "over the vocabulary.",
            _moment(lambda d, c: d.square().mean(-1) / 2),
        ),
        Misconception(
            "half forgotten",
            "It is twice as large as it should be: KL ≈ V/2 Σ (p - q)², so that half "
            "the mean square is left.",
            _moment(lambda d, c: c.square().mean(-1)),
        ),
        Misconception(
            "sum over the vocabulary",
            "The squares are summed. q - p ≈ (d - d̄)/(V T) has V below it, twice in a "
            "square, and KL brings one V: the mean over V is left.",
            _moment(lambda d, c: c.square().sum(-1) / 2),
            _moment(lambda d, c: c.square().sum(-1)),
        ),
        Misconception(
            "divided by V - 1",
            "The squares are divided by V - 1, as .var() does by default: it estimates "
            "the variance of something larger. Here V is all there is: .mean(), or "
            "var(correction=0).",
            _moment(lambda d, c: d.var(-1) / 2),
            _moment(lambda d, c: d.var(-1)),
        ),
        Misconception(
            "divided by V twice",
            "The squares are divided by V². KL ≈ V/2 Σ (p - q)² brings one V back.",
            _moment(lambda d, c: c.square().mean(-1) / 2 / d.shape[-1]),
        ),
        Misconception(
            "root",
            "A root was taken. The limit is half a mean *square*.",
            _moment(lambda d, c: c.square().mean(-1).sqrt() / 2),
            _moment(lambda d, c: c.square().mean(-1).sqrt()),
            _moment(lambda d, c: (c.square().mean(-1) / 2).sqrt()),
        ),
        Misconception(
            "absolute values",
            "Absolute differences were taken. KL is quadratic near equality: square "
            "them.",
            _moment(lambda d, c: c.abs().mean(-1) / 2),
            _moment(lambda d, c: c.abs().mean(-1)),
        ),
        Misconception(
            "of probabilities",
            "The difference of probabilities was taken. In the limit the loss matches "
            "the logits themselves.",
            lambda s, t: (s.softmax(-1) - t.softmax(-1)).square().mean(-1) / 2,
            lambda s, t: (s.softmax(-1) - t.softmax(-1)).square().mean(-1),
        ),
        Misconception(
            "one number",
            "One number for everything. Each position has a limit of its own: centre "
            "and average over the vocabulary, dim=-1.",
            _moment(lambda d, c: c.square().mean() / 2),
            _moment(lambda d, c: (d - d.mean()).square().mean() / 2),
        ),
    ),
)

# --- bucket_kl ------------------------------------------------------------------


def _bucket_kl(student_logits, indices, log_probs, log_rest) -> Tensor:
    rows = []
    for z, kept, log_p, log_r in zip(
        student_logits, indices.tolist(), log_probs, log_rest, strict=True
    ):
        others = [v for v in range(len(z)) if v not in kept]
        everything = z.logsumexp(0)
        log_s = z[others].logsumexp(0) - everything
        log_q = z[kept] - everything
        row = (log_p.exp() * (log_p - log_q)).sum() + log_r.exp() * (log_r - log_s)
        rows.append(row)
    return torch.stack(rows)


def _bucket_cases() -> list[Case]:
    def case(name: str, student: Tensor, teacher: Tensor, k: int) -> Case:
        best, indices = teacher.log_softmax(-1).topk(k)
        others = teacher.scatter(-1, indices, -torch.inf)
        log_rest = others.logsumexp(-1) - teacher.logsumexp(-1)
        return Case(
            name,
            {
                "student_logits": student,
                "indices": indices,
                "log_probs": best,
                "log_rest": log_rest,
            },
        )

    barred = _random(15, 2, 6)
    barred[0, 2] = barred[1, 0] = -torch.inf
    wants = torch.tensor([[3.0, 0.5, -torch.inf, 2.0, 0.0, 1.0]]).repeat(2, 1)
    wants[1, 0] = -torch.inf
    return [
        case("the token of the lesson, k = 1: 1.48", _STUDENT[None], _TEACHER[None], 1),
        case("k = 2 of 5", _random(13, 4, 5), _random(14, 4, 5), 2),
        case("k = 3 of 9", _random(16, 5, 9), _random(17, 5, 9), 3),
        case("the student is its teacher: 0", _random(18, 3, 6), _random(18, 3, 6), 2),
        case("a token that cannot be said (-inf)", barred, wants, 2),
        case(
            "a student that is very sure",
            torch.tensor([[40.0, 0.0, 1.0, 0.5], [0.0, 1e4, -1e4, 3.0]]),
            torch.tensor([[2.0, 0.0, 1.0, 0.0], [0.5, 3.0, 1.0, 0.0]]),
            1,
        ),
    ]


def _bucket(formula: Callable) -> Callable:
    """A wrong bound from (log q kept, log s, log p kept, log r), each (N, …)."""

    def loss(student_logits, indices, log_probs, log_rest):
        log_q = student_logits.log_softmax(-1)
        others = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
        return formula(log_q.gather(-1, indices), others, log_probs, log_rest)

    return loss


def _parts(log_q, log_s, log_p, log_r) -> tuple[Tensor, Tensor]:
    kept = (log_p.exp() * (log_p - log_q)).sum(-1)
    return kept, log_r.exp() * (log_r - log_s)


def _renormalised(student_too: bool) -> Callable:
    def formula(log_q, log_s, log_p, log_r):
        log_p = log_p.log_softmax(-1)
        log_q = log_q.log_softmax(-1) if student_too else log_q
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    return _bucket(formula)


def _uniform_tail(student_logits, indices, log_probs, log_rest):
    log_q = student_logits.log_softmax(-1)
    spread = log_rest - math.log(log_q.shape[-1] - indices.shape[-1])
    log_p = spread[:, None].expand_as(log_q).scatter(-1, indices, log_probs)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _first_k(student_logits, indices, log_probs, log_rest):
    first = torch.arange(indices.shape[-1]).expand_as(indices)
    return _bucket_kl(student_logits, first, log_probs, log_rest)


def _raw_logits(student_logits, indices, log_probs, log_rest):
    z = student_logits.gather(-1, indices)
    others = student_logits.scatter(-1, indices, -torch.inf).logsumexp(-1)
    return sum(_parts(z, others, log_probs, log_rest))


def _one_minus(rest: Callable) -> Callable:
    """s = 1 - Σ q, which float32 rounds to 0 for a student that is sure."""

    def formula(log_q, log_s, log_p, log_r):
        kept = (log_p.exp() * (log_p - log_q)).sum(-1)
        return kept + log_r.exp() * (log_r - rest(log_q.exp().sum(-1)))

    return _bucket(formula)


def _rest_of_softmax(log_of_kept: bool) -> Callable:
    """s from the probabilities of the others, each of which may be rounded to 0."""

    def loss(student_logits, indices, log_probs, log_rest):
        q = student_logits.softmax(-1)
        log_q = q.log() if log_of_kept else student_logits.log_softmax(-1)
        log_s = q.scatter(-1, indices, 0.0).sum(-1).log()
        return sum(_parts(log_q.gather(-1, indices), log_s, log_probs, log_rest))

    return loss


bucket_kl = Exercise(
    name="ex04.bucket_kl",
    call="bucket_kl(student_logits, indices, log_probs, log_rest)",
    reference=_bucket_kl,
    cases=_bucket_cases,
    difficulty=4,
    minutes=12,
    hints=(
        "It is a KL over k + 1 events. For the k kept tokens you have log p; "
        "log_softmax of the student, gathered at indices, gives log q. What are the "
        "two masses of the last event?",
        "The teacher's is r = exp(log_rest). The student's, s, is the mass outside the "
        "kept tokens. 1 - Σ q would be rounding for a sure student: stay in "
        "logarithms.",
        "others = log_q.scatter(1, indices, float('-inf')) removes the kept tokens; "
        "others.logsumexp(dim=1) is log s. Add r (log r - log s) to the kept terms.",
    ),
    misconceptions=(
        Misconception(
            "bucket left out",
            "Only the kept tokens are summed. The mass of all others is an event too; "
            "without it the value can even be below 0.",
            _bucket(lambda *parts: _parts(*parts)[0]),
        ),
        Misconception(
            "teacher renormalised",
            "The teacher's kept entries are made to sum to 1: the student is taught "
            "that the rest is impossible. Keep log_probs as they are, and add the "
            "bucket. (Museum, row 14.)",
            _renormalised(student_too=False),
        ),
        Misconception(
            "both renormalised",
            "Only the kept entries are compared, made to sum to 1 on both sides: what "
            "the student puts elsewhere costs nothing. Add the bucket. (Museum, row "
            "14.)",
            _renormalised(student_too=True),
        ),
        Misconception(
            "rest spread evenly",
            "The missing mass is spread evenly over the other tokens. That is an "
            "assumption and no bound: compare the two masses as one event.",
            _uniform_tail,
        ),
        Misconception(
            "bucket unweighed",
            "The bucket's logarithm is not weighed. Each term of a KL is weighed by "
            "the teacher's probability: r log(r/s).",
            _bucket(lambda q, s, p, r: _parts(q, s, p, r)[0] + r - s),
        ),
        Misconception(
            "bucket turned round",
            "The bucket's ratio is turned round: r log(r/s), the teacher's mass above "
            "the student's, as in every other term.",
            _bucket(lambda *parts: _parts(*parts)[0] - _parts(*parts)[1]),
        ),
        Misconception(
            "swapped",
            "This is the reverse KL, weighed by the student. Wanted is the forward "
            "one: the teacher's probabilities weigh all k + 1 terms.",
            _bucket(lambda q, s, p, r: sum(_parts(p, r, q, s))),
        ),
        Misconception(
            "first k entries",
            "The first k entries of the vocabulary were taken. indices says which "
            "tokens were kept: gather(1, indices).",
            _first_k,
        ),
        Misconception(
            "raw logits",
            "The student's raw logits stand where log-probabilities belong. Take "
            "log_softmax over the whole vocabulary first.",
            _raw_logits,
        ),
        Misconception(
            "cancellation",
            "1 - Σ q is what float32 leaves over: 0, or a rounding error, for a "
            "student that is sure. Sum the other tokens, in logarithms: logsumexp.",
            _one_minus(lambda q: (1 - q).log()),
            _one_minus(lambda q: (-q).log1p()),
            *(
                _one_minus(lambda q, eps=eps: (1 - q).clamp_min(eps).log())
                for eps in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
            ),
            *(
                _one_minus(lambda q, eps=eps: (1 - q + eps).log())
                for eps in (1e-12, 1e-10, 1e-9, 1e-8)
            ),
        ),
        Misconception(
            "softmax, then log",
            "The others' mass was added up from probabilities. Those of a student that "
            "is very sure are rounded to 0, and the logarithm of 0 is infinite. Sum "
            "them in logarithms: logsumexp.",
            _rest_of_softmax(True),
            _rest_of_softmax(False),
        ),
        Misconception(
            "one number",
            "One number for all tokens. Wanted is one for each, shape (N,): sum over "
            "the k + 1 events alone.",
            lambda *arguments: _bucket_kl(*arguments).mean(),
            lambda *arguments: _bucket_kl(*arguments).sum(),
        ),
    ),
)

# --- feature_loss ---------------------------------------------------------------


def _feature_loss(student_features, teacher_features, projection, mask) -> Tensor:
    squares = []
    for i, row in enumerate(mask.tolist()):
        for j, real in enumerate(row):
            if real:
                projected = sum(
                    x * line
                    for x, line in zip(student_features[i, j], projection, strict=True)
                )
                squares += list((projected - teacher_features[i, j]) ** 2)
    return sum(squares) / len(squares)


_MASK = torch.tensor([[True, True, True], [True, False, False]])
_HAND_STUDENT = torch.tensor([[[1.0, 2.0], [7.0, 7.0]]])
_HAND_TEACHER = torch.tensor([[[1.0, 2.0, 5.0], [0.0, 0.0, 0.0]]])


def _feature_cases() -> list[Case]:
    def case(name: str, student, teacher, projection, mask) -> Case:
        return Case(
            name,
            {
                "student_features": student,
                "teacher_features": teacher,
                "projection": projection,
                "mask": mask,
            },
        )

    lengths = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    return [
        case(
            "by hand, one token and one pad: 4/3",
            _HAND_STUDENT,
            _HAND_TEACHER,
            torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
            torch.tensor([[True, False]]),
        ),
        case(
            "two sentences, 3 wide and 5",
            _random(20, 2, 3, 3),
            _random(21, 2, 3, 5),
            _random(22, 3, 5, scale=0.5),
            _MASK,
        ),
        case(
            "three lengths, 4 wide and 6",
            _random(23, 3, 4, 4),
            _random(24, 3, 4, 6),
            _random(25, 4, 6, scale=0.5),
            lengths,
        ),
        case(
            "a teacher that is narrower than its student",
            _random(26, 2, 3, 4),
            _random(27, 2, 3, 2),
            _random(28, 4, 2, scale=0.5),
            _MASK,
        ),
    ]


def _projected(reduce: Callable, detached: bool = False) -> Callable:
    """A wrong loss from the squares (B, L, d_t), the mask and the student's width."""

    def loss(student, teacher, projection, mask):
        projection = projection.detach() if detached else projection
        squares = (student @ projection - teacher).square()
        return reduce(squares, mask, student.shape[-1])

    return loss


def _sentence_features(squares: Tensor, mask: Tensor, _: int) -> Tensor:
    rows = squares.mean(-1) * mask
    return (rows.sum(1) / mask.sum(1)).mean()


def _cut(student, teacher, projection, mask) -> Tensor:
    width = min(student.shape[-1], teacher.shape[-1])
    return (student[..., :width] - teacher[..., :width])[mask].square().mean()


def _filled_up(student, teacher, projection, mask) -> Tensor:
    width = max(student.shape[-1], teacher.shape[-1])
    student, teacher = (F.pad(x, (0, width - x.shape[-1])) for x in (student, teacher))
    return (student - teacher)[mask].square().mean()


feature_loss = Exercise(
    name="ex04.feature_loss",
    call="feature_loss(student_features, teacher_features, projection, mask)",
    reference=_feature_loss,
    observe=_with_gradient(0, 2),
    cases=_feature_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "Bring the student's features to the teacher's width, subtract, square. Over "
        "what is the mean taken?",
        "student_features[mask] has shape (N, d_s), and (N, d_s) @ (d_s, d_t) is "
        "(N, d_t).",
        "(student_features[mask] @ projection - teacher_features[mask]).square() has "
        "one entry for each real token and dimension: take its mean.",
    ),
    misconceptions=(
        Misconception(
            "pads averaged in",
            "Pads are counted like tokens. What a model computes at a pad means "
            "nothing: select the real positions with the mask.",
            _projected(lambda x, mask, width: x.mean()),
        ),
        Misconception(
            "pads learned",
            "Pads are in the sum, though not in the number that it is divided by. "
            "Select the real positions before summing.",
            _projected(lambda x, mask, width: x.sum() / mask.sum() / x.shape[-1]),
        ),
        Misconception(
            "divided by positions",
            "The sum is right, but it is divided by all B · L positions: with more "
            "padding the same batch gets a smaller loss. Divide by the real tokens.",
            _projected(lambda x, mask, width: x[mask].sum() / x.numel()),
        ),
        Misconception(
            "summed over dimensions",
            "The squares are summed over the dimensions: a wider teacher would make "
            "the loss larger. Take the mean over tokens and dimensions.",
            _projected(lambda x, mask, width: x[mask].sum(-1).mean()),
        ),
        Misconception(
            "divided by the student's width",
            "The squares are divided by d_s. After the projection there are d_t of "
            "them a token.",
            _projected(lambda x, mask, width: x[mask].sum() / mask.sum() / width),
        ),
        Misconception(
            "sum",
            "This is the sum over tokens and dimensions; it grows with the batch. Take "
            "the mean.",
            _projected(lambda x, mask, width: x[mask].sum()),
        ),
        Misconception(
            "root",
            "A root was taken. The loss is the mean *squared* difference.",
            _projected(lambda x, mask, width: x[mask].mean().sqrt()),
            _projected(lambda x, mask, width: x[mask].sum(-1).sqrt().mean()),
        ),
        Misconception(
            "mean of means",
            "This is the mean of each sentence's mean: a token of a short sentence "
            "weighs more. Take one mean over all real tokens.",
            _projected(_sentence_features),
        ),
        Misconception(
            "teacher projected",
            "The teacher is projected to the student's width, and loses what the "
            "student cannot hold. Project the student: φ belongs to it.",
            lambda s, t, projection, mask: (s - t @ projection.T)[mask].square().mean(),
        ),
        Misconception(
            "widths cut",
            "Dimensions were cut off, or filled up with zeros, until the widths "
            "agreed. Dimension 1 of the student has nothing to do with dimension 1 of "
            "the teacher: use the projection.",
            _cut,
            _filled_up,
        ),
        Misconception(
            "projection not learned",
            "The projection gets no gradient: it is trained together with the student, "
            "so do not detach it.",
            _projected(lambda x, mask, width: x[mask].mean(), detached=True),
        ),
        Misconception(
            "student not learned",
            "The student's features get no gradient: only the projection would learn. "
            "Do not detach them.",
            lambda s, t, projection, mask: _feature_loss(
                s.detach(), t, projection, mask
            ),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself: no .item(), .detach() or no_grad().",
            lambda *arguments: _feature_loss(*arguments).item(),
            lambda *arguments: _feature_loss(*arguments).detach(),
        ),
    ),
)

# --- relation_loss --------------------------------------------------------------


def _relation_loss(student_features, teacher_features, mask) -> Tensor:
    real = [tuple(place) for place in mask.nonzero().tolist()]

    def cosine(features: Tensor, a: tuple, b: tuple) -> Tensor:
        x, y = features[a], features[b]
        return (x * y).sum() / ((x * x).sum() * (y * y).sum()).sqrt()

    squares = [
        (cosine(student_features, a, b) - cosine(teacher_features, a, b)) ** 2
        for a in real
        for b in real
    ]
    return sum(squares) / len(squares)


def _relation_cases() -> list[Case]:
    def case(name: str, student, teacher, mask) -> Case:
        return Case(
            name,
            {"student_features": student, "teacher_features": teacher, "mask": mask},
        )

    turned = _random(30, 2, 3, 2)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    lengths = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    return [
        case(
            "by hand, two tokens and a pad: (24/25)²/2",
            torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]),
            torch.tensor([[[3.0, 4.0], [4.0, 3.0], [1.0, 0.0]]]),
            torch.tensor([[True, True, False]]),
        ),
        case("two sentences", _random(31, 2, 3, 3), _random(32, 2, 3, 5), _MASK),
        case("three lengths", _random(33, 3, 4, 4), _random(34, 3, 4, 6), lengths),
        case(
            "axes turned and features doubled: the relations are the same, 0",
            2 * turned @ quarter,
            turned,
            _MASK,
        ),
    ]


def _related(reduce: Callable, unit: Callable | None = None) -> Callable:
    """A wrong loss from the difference (N, N) of the two models' relations."""
    unit = unit or (lambda x: F.normalize(x, dim=-1))

    def loss(student, teacher, mask):
        s, t = unit(student[mask]), unit(teacher[mask])
        return reduce(s @ s.T - t @ t.T)

    return loss


def _mean_square(gaps: Tensor) -> Tensor:
    return gaps.square().mean()


def _unlike_pairs(gaps: Tensor) -> Tensor:
    n = len(gaps)
    return gaps.square().sum() / (n * (n - 1))


def _all_positions(student, teacher, mask) -> Tensor:
    return _relation_loss(student, teacher, torch.ones_like(mask))


def _within_sentences(student, teacher, mask, weigh_sentences: bool) -> Tensor:
    sums, counts = [], []
    for s, t, real in zip(student, teacher, mask, strict=True):
        s, t = F.normalize(s[real], dim=-1), F.normalize(t[real], dim=-1)
        squares = (s @ s.T - t @ t.T).square()
        sums.append(squares.sum())
        counts.append(squares.numel())
    if weigh_sentences:
        return sum(x / n for x, n in zip(sums, counts, strict=True)) / len(sums)
    return sum(sums) / sum(counts)


def _zeroed_pads(student, teacher, mask) -> Tensor:
    """Pads are made 0, so that they relate to nothing, but count among the pairs."""
    s, t = (
        (F.normalize(x, dim=-1) * mask[..., None]).flatten(0, 1)
        for x in (student, teacher)
    )
    return (s @ s.T - t @ t.T).square().mean()


relation_loss = Exercise(
    name="ex04.relation_loss",
    call="relation_loss(student_features, teacher_features, mask)",
    reference=_relation_loss,
    observe=_with_gradient(0),
    cases=_relation_cases,
    difficulty=3,
    minutes=7,
    hints=(
        "Take the real tokens of the whole batch, N of them. Divide each feature by "
        "its length: then a product of two is their cosine.",
        "unit = x / x.norm(dim=-1, keepdim=True), or torch.nn.functional.normalize; "
        "unit @ unit.T holds the cosines of all pairs, (N, N).",
        "Subtract the teacher's matrix from the student's, square, and take the mean "
        "over all N² entries.",
    ),
    misconceptions=(
        Misconception(
            "not normalised",
            "Products were taken, not cosines: long features would count more than "
            "short ones. Divide each feature by its length first.",
            _related(_mean_square, lambda x: x),
        ),
        Misconception(
            "normalised over tokens",
            "Each dimension was normalised over the tokens. A cosine needs each "
            "*token's* feature at length 1: dim=-1.",
            _related(_mean_square, lambda x: F.normalize(x, dim=0)),
        ),
        Misconception(
            "pads averaged in",
            "Pads are related like tokens. Select the real positions with the mask "
            "before anything is related.",
            _all_positions,
            _zeroed_pads,
        ),
        Misconception(
            "within sentences",
            "Each sentence was taken by itself. Here every pair of real tokens in the "
            "batch counts, also across sentences.",
            lambda s, t, mask: _within_sentences(s, t, mask, True),
            lambda s, t, mask: _within_sentences(s, t, mask, False),
        ),
        Misconception(
            "divided by the tokens",
            "The squares are divided by N. There are N² pairs: divide by their number.",
            _related(lambda gaps: gaps.square().sum() / len(gaps)),
        ),
        Misconception(
            "sum",
            "This is the sum over the pairs; it grows with the square of the batch. "
            "Take the mean over all N² pairs.",
            _related(lambda gaps: gaps.square().sum()),
        ),
        Misconception(
            "pairs with itself left out",
            "The pairs of a token with itself were left out of the number of pairs. "
            "Here all N² count (those give 0).",
            _related(_unlike_pairs),
        ),
        Misconception(
            "absolute values",
            "Absolute differences were taken: square them.",
            _related(lambda gaps: gaps.abs().mean()),
        ),
        Misconception(
            "root",
            "A root was taken. The loss is the mean *squared* difference.",
            _related(lambda gaps: gaps.square().sum().sqrt()),
            _related(lambda gaps: gaps.square().mean().sqrt()),
            # The same, but with a slope where there is no gap: 0 instead of NaN.
            _related(torch.linalg.vector_norm),
            _related(lambda gaps: torch.linalg.vector_norm(gaps) / gaps.numel() ** 0.5),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself: no .item(), .detach() or no_grad().",
            lambda *arguments: _relation_loss(*arguments).item(),
            lambda *arguments: _relation_loss(*arguments).detach(),
        ),
    ),
)

# --- the bug museum: its exercises belong to this lesson, behind those above ------
# In the order of its notebook, which is the order of the learner's map.

from .ex04_museum import (  # noqa: E402, F401, I001
    ignores_impossible_tokens,
    ignores_repetition,
    leaves_pads_alone,
    is_a_divergence,
    ignores_shifts,
    adds_up,
    learns_to_stop,
    keeps_its_size,
    stays_in_place,
    knows_its_ends,
    false_report,
)
