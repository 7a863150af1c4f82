"""Checks of lesson 03: divergences by hand, from logits, their limits and slopes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .core import Case, Exercise, Misconception

INF = float("inf")
Tensor = torch.Tensor


def _rows(*rows: list[float]) -> Tensor:
    """Probabilities or logits in float32, one list or several."""
    return torch.tensor(rows[0] if len(rows) == 1 else list(rows))


def _random(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) (...) of probabilities (..., V), with 0 log 0 = 0."""
    return torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum(-1)


def _raw_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) where 0 log 0 is NaN, as a computer has it."""
    return (p * (p / q).log()).sum(-1)


# --- total_variation ------------------------------------------------------------


def _total_variation(p: Tensor, q: Tensor) -> Tensor:
    """The gain of the best event: what p gives more than q, summed where it does."""
    more = p - q
    return torch.where(more > 0, more, torch.zeros_like(more)).sum(-1)


def _variation_cases() -> list[Case]:
    def case(name: str, p: Tensor, q: Tensor) -> Case:
        return Case(name, {"p": p, "q": q})

    many = [_random(2, 3, 5, seed=seed).softmax(-1) for seed in (1, 2)]
    return [
        case("three to one against one to one", _rows([0.75, 0.25]), _rows([0.5, 0.5])),
        case("nothing in common", _rows([1.0, 0.0]), _rows([0.0, 1.0])),
        case("equal", _rows([0.2, 0.3, 0.5]), _rows([0.2, 0.3, 0.5])),
        case(
            "one word against many",
            _rows([0.7, 0.1, 0.1, 0.1]),
            _rows([0.1, 0.3, 0.3, 0.3]),
        ),
        case("two sentences of three tokens", *many),
    ]


total_variation = Exercise(
    name="ex03.total_variation",
    call="total_variation(p, q)",
    reference=_total_variation,
    cases=_variation_cases,
    difficulty=1,
    minutes=3,
    hints=(
        "First the difference at each word, then its size, then one sum over the "
        "words of a position.",
        "(p - q).abs() is the size. The words stand in the last dimension: "
        ".sum(dim=-1).",
        "Two distributions that share nothing must come out at 1. What does your sum "
        "give for (1, 0) and (0, 1)?",
    ),
    misconceptions=(
        Misconception(
            "half forgotten",
            "Twice too large: what p gives more to some words it gives less to the "
            "others, so the sum counts every difference twice. Multiply by one half.",
            lambda p, q: (p - q).abs().sum(-1),
        ),
        Misconception(
            "largest word",
            "This is the largest difference at a single word. The event on which the "
            "two differ most may be a set of many words: take half of the sum.",
            lambda p, q: (p - q).abs().amax(-1),
            lambda p, q: (p - q).abs().amax(-1) / 2,
            lambda p, q: (p - q).amax(-1),
        ),
        Misconception(
            "squares",
            "The differences are squared. Total variation takes their size as it is: "
            ".abs(), not ** 2.",
            lambda p, q: (p - q).square().sum(-1),
            lambda p, q: (p - q).square().sum(-1) / 2,
            lambda p, q: (p - q).square().sum(-1).sqrt(),
            lambda p, q: (p - q).square().sum(-1).sqrt() / 2,
        ),
        Misconception(
            "signs kept",
            "The signs were kept, and both distributions sum to 1: the differences "
            "cancel. Take .abs() before the sum.",
            lambda p, q: (p - q).sum(-1) / 2,
            lambda p, q: (p - q).sum(-1).abs() / 2,
            lambda p, q: (p - q).sum(-1),
            lambda p, q: (p - q).sum(-1).abs(),
        ),
        Misconception(
            "mean over the vocabulary",
            "The result is divided by the number of words. A longer vocabulary would "
            "make the same two distributions closer: sum over the words.",
            lambda p, q: (p - q).abs().mean(-1),
            lambda p, q: (p - q).abs().mean(-1) / 2,
        ),
        Misconception(
            "one number",
            "All positions were thrown into one number. Each position has a total "
            "variation of its own: sum over the last dimension alone.",
            lambda p, q: (p - q).abs().sum() / 2,
            lambda p, q: (p - q).abs().sum(-1).mean() / 2,
            lambda p, q: (p - q).abs().sum(),
        ),
        Misconception(
            "over positions",
            "The sum runs over positions instead of words. The words stand in the "
            "last dimension: dim=-1.",
            lambda p, q: (p - q).abs().sum(0) / 2,
            lambda p, q: (p - q).abs().sum(-2 if p.dim() > 1 else -1) / 2,
        ),
    ),
)

# --- forward_kl -----------------------------------------------------------------


def _forward_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Word by word where p is above 0, from logits whose largest is 0."""
    log_q, log_p = (
        z - z.detach().amax(-1, keepdim=True) for z in (student_logits, teacher_logits)
    )
    log_q, log_p = (z - z.exp().sum(-1, keepdim=True).log() for z in (log_q, log_p))
    said = log_p.exp() > 0
    zero = torch.zeros_like(log_p)
    gap = torch.where(said, log_p, zero) - torch.where(said, log_q, zero)
    return (log_p.exp() * gap).sum(-1)


def _value_and_slope(function: Callable, arguments: tuple) -> dict:
    """What is compared: the value, and where it is finite its slope in the student."""
    student, teacher = arguments
    leaf = student.detach().clone().requires_grad_(True)
    watched = leaf * 1.0  # the function may edit this one; the leaf keeps the slope
    value = function(watched, teacher)
    student.copy_(watched.detach())  # shows the engine whether it was changed
    if value is ...:
        return value  # a blank; the engine knows it
    slope = None
    if _has_slope(value, leaf):
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return {"the divergence": value, "its gradient": slope}


def _has_slope(value: object, leaf: Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.requires_grad
        and value.device == leaf.device
        and bool(value.isfinite().all())
    )


def _kl_cases() -> list[Case]:
    def case(name: str, student: Tensor, teacher: Tensor) -> Case:
        return Case(name, {"student_logits": student, "teacher_logits": teacher})

    even, three_to_one = _rows([0.0, 0.0]), _rows([math.log(3.0), 0.0])
    barred = torch.tensor([False, False, True, False, True])
    student, teacher = (_random(2, 3, 5, seed=seed) for seed in (3, 4))
    return [
        case("q = (1/2, 1/2), p = (3/4, 1/4)", even, three_to_one),
        case("q = (3/4, 1/4), p = (1/2, 1/2)", three_to_one, even),
        case("two sentences of three tokens", student, teacher),
        case("student and teacher are equal", teacher, teacher.clone()),
        case(
            "two words that neither can say",
            student.masked_fill(barred, -INF),
            teacher.masked_fill(barred, -INF),
        ),
        case(
            "two words that the teacher cannot say",
            student,
            teacher.masked_fill(barred, -INF),
        ),
        case(
            "logits of ten thousand",
            _rows([1e4, 0.0, -1e4], [0.0, 50.0, 0.0]),
            _rows([0.0, 1e4, 0.0], [50.0, 0.0, 50.0]),
        ),
        case(
            "the teacher says a word that the student cannot: infinite",
            _rows([0.0, -INF, 1.0], [0.0, 1.0, -INF], [0.0, -INF, -INF]),
            _rows([0.0, 1.0, 1.0], [1.0, 1.0, -INF], [30.0, 0.0, -INF]),
        ),
    ]


def _logs(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return student.log_softmax(-1), teacher.log_softmax(-1)


def _said(log_p: Tensor, values: Tensor) -> Tensor:
    """p · values, 0 where p is 0: the right way to multiply."""
    p = log_p.exp()
    return torch.where(p > 0, p * values, torch.zeros_like(p))


def _terms(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return _said(log_p, log_p - log_q)


def _kl_ways(last: Callable[[Tensor], Tensor]) -> tuple[Callable, ...]:
    """A wrong last step, after a right product at p = 0 and after two careless ones."""

    def careful(student: Tensor, teacher: Tensor) -> Tensor:
        return last(_terms(student, teacher))

    def careless(student: Tensor, teacher: Tensor) -> Tensor:
        log_q, log_p = _logs(student, teacher)
        return last(log_p.exp() * (log_p - log_q))

    def as_kl_div(student: Tensor, teacher: Tensor) -> Tensor:
        log_q, log_p = _logs(student, teacher)
        p = log_p.exp()
        return last(torch.xlogy(p, p) - p * log_q)

    return careful, careless, as_kl_div


def _swapped(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return _said(log_q, log_q - log_p).sum(-1)


def _swapped_careless(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def _swapped_masked(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    q = log_q.exp()
    return (q * (log_q - log_p).masked_fill(q == 0, 0.0)).sum(-1)


def _cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return -_said(log_p, log_q).sum(-1)


def _cross_entropy_careless(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return -(log_p.exp() * log_q).sum(-1)


def _careless(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _cleaned_too_late(**others: float) -> Callable:
    """NaN becomes 0 behind the sum, and takes a whole position with it."""

    def function(student: Tensor, teacher: Tensor) -> Tensor:
        return _careless(student, teacher).nan_to_num(0.0, **others)

    return function


def _careless_target(student: Tensor, teacher: Tensor) -> Tensor:
    """0 log 0 is known for p log p alone: what torch's kl_div does."""
    log_q, log_p = _logs(student, teacher)
    p = log_p.exp()
    return (torch.xlogy(p, p) - p * log_q).sum(-1)


def _ratio_of_softmaxes(student: Tensor, teacher: Tensor) -> Tensor:
    return _raw_kl(teacher.softmax(-1), student.softmax(-1))


def _ratio_where_said(student: Tensor, teacher: Tensor) -> Tensor:
    return _kl(teacher.softmax(-1), student.softmax(-1))


def _logs_of_softmaxes(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.softmax(-1), teacher.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def _logs_where_said(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.softmax(-1), teacher.softmax(-1)
    zero = torch.zeros_like(p)
    return torch.where(p > 0, p * (p.log() - q.log()), zero).sum(-1)


def _naive_softmax(kl: Callable) -> Callable:
    def function(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = (z.exp() / z.exp().sum(-1, keepdim=True) for z in (student, teacher))
        return kl(p, q)

    return function


def _masked_kl(p: Tensor, q: Tensor) -> Tensor:
    """As ``_kl``, but NaN in p stays NaN."""
    return (p * (p / q).log()).masked_fill(p == 0, 0.0).sum(-1)


def _with_epsilon(epsilon: float, both: bool = False) -> Callable:
    """A wrong solution that adds a crumb inside the logarithm."""

    def function(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = student.softmax(-1), teacher.softmax(-1)
        top = p + epsilon if both else p
        return _said(p.log(), (top / (q + epsilon)).log()).sum(-1)

    return function


def _clamped(smallest: float) -> Callable:
    def function(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = student.softmax(-1).clamp_min(smallest), teacher.softmax(-1)
        return _kl(p, q)

    return function


def _both_clamped(smallest: float) -> Callable:
    def function(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = (z.softmax(-1).clamp_min(smallest) for z in (student, teacher))
        return _raw_kl(p, q)

    return function


def _infinity_filled(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return (log_p.exp() * (log_p - log_q)).nan_to_num(0.0, 0.0, 0.0).sum(-1)


def _infinity_large(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    return (log_p.exp() * (log_p - log_q)).nan_to_num(0.0).sum(-1)


def _rare_words_dropped(smallest: float) -> Callable:
    """A word that the teacher hardly ever says counts as one that it never says."""

    def function(student: Tensor, teacher: Tensor) -> Tensor:
        log_q, log_p = _logs(student, teacher)
        p, zero = log_p.exp(), torch.zeros_like(log_p)
        return torch.where(p > smallest, p * (log_p - log_q), zero).sum(-1)

    return function


def _common_words(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = _logs(student, teacher)
    both = (log_q > -INF) & (log_p > -INF)
    zero = torch.zeros_like(log_p)
    gap = torch.where(both, log_p, zero) - torch.where(both, log_q, zero)
    return (log_p.exp() * gap).sum(-1)


forward_kl = Exercise(
    name="ex03.forward_kl",
    call="forward_kl(student_logits, teacher_logits)",
    reference=_forward_kl,
    observe=_value_and_slope,
    cases=_kl_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Go from logits to log-probabilities first: log_p and log_q. Who speaks in "
        "the forward KL, and whose logarithm is subtracted?",
        "torch.log_softmax(..., dim=-1) gives both logarithms, at any size of the "
        "logits. Then sum p * (log_p - log_q) over the words, with p = log_p.exp().",
        "Where p is 0 that product is 0 times infinity: NaN. torch.where(p > 0, p * "
        "(log_p - log_q), 0.0) puts the 0 that is meant, and leaves infinity where it "
        "is true.",
    ),
    misconceptions=(
        Misconception(
            "swapped",
            "This is the reverse KL: the student speaks in your sum. In the forward KL "
            "the teacher does: sum p (log p - log q).",
            _swapped,
            _swapped_masked,
            _swapped_careless,
        ),
        Misconception(
            "cross-entropy",
            "This is the cross-entropy. It has the same gradient, but at equality it "
            "is the teacher's entropy and not 0: log p is missing from the bracket.",
            _cross_entropy,
            _cross_entropy_careless,
        ),
        Misconception(
            "zero times infinity",
            "A word that the teacher cannot say has p = 0, and adds nothing. In the "
            "computer 0 times infinity is NaN: put 0 there, for instance with "
            "torch.where(p > 0, ..., 0.0), and before the sum.",
            _careless,
            _careless_target,
            _cleaned_too_late(),
            _cleaned_too_late(posinf=INF),
        ),
        Misconception(
            "softmax, then log",
            "The logarithm was taken of a softmax. A probability that is too small for "
            "float32 is rounded to 0, and its logarithm is infinite. log_softmax stays "
            "in logarithms.",
            _ratio_of_softmaxes,
            _ratio_where_said,
            _logs_of_softmaxes,
            _logs_where_said,
        ),
        Misconception(
            "exp overflows",
            "exp() of a large logit is infinite. torch.log_softmax subtracts the "
            "largest logit first.",
            *(_naive_softmax(kl) for kl in (_kl, _masked_kl)),
        ),
        Misconception(
            "a crumb added",
            "A crumb was added to the probabilities, or they were clamped. That hides "
            "the infinity where the student cannot say what its teacher says, and "
            "bends every value that is nearly so. Work with log_softmax, and leave "
            "infinity where it is true.",
            *(_with_epsilon(e) for e in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)),
            *(_with_epsilon(e, both=True) for e in (1e-12, 1e-10, 1e-8, 1e-6)),
            *(_clamped(e) for e in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)),
            *(_both_clamped(e) for e in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)),
        ),
        Misconception(
            "infinity hidden",
            "Where the teacher says a word that the student cannot, the forward KL is "
            "infinite, and your function hides it. Only NaN is to become 0, and only "
            "where p is 0.",
            _infinity_filled,
            _infinity_large,
            _common_words,
            *(_rare_words_dropped(e) for e in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)),
        ),
        Misconception(
            "mean over the vocabulary",
            "The sum is divided by the number of words, as KLDivLoss does by default. "
            "A longer vocabulary would shrink the same divergence: sum over words.",
            *_kl_ways(lambda terms: terms.mean(-1)),
        ),
        Misconception(
            "one number",
            "All positions were thrown into one number. Each has a divergence of its "
            "own: sum over the last dimension alone.",
            *_kl_ways(lambda terms: terms.sum()),
            *_kl_ways(lambda terms: terms.mean()),
            *_kl_ways(lambda terms: terms.sum(-1).mean()),
            *_kl_ways(lambda terms: terms.sum() / len(terms)),
        ),
        Misconception(
            "sign",
            "The sign is wrong: a divergence is never negative.",
            *_kl_ways(lambda terms: -terms.sum(-1)),
        ),
        Misconception(
            "bits",
            "The logarithm has base 2: these are bits. The course counts in nats, "
            "with the natural logarithm.",
            *_kl_ways(lambda terms: terms.sum(-1) / math.log(2.0)),
        ),
        Misconception(
            "probabilities as logits",
            "A softmax was taken of probabilities. The logits go into log_softmax as "
            "they are.",
            lambda s, t: _terms(s.softmax(-1), t.softmax(-1)).sum(-1),
        ),
        Misconception(
            "log target",
            "Log-probabilities stand where probabilities are wanted: the teacher's "
            "weight in the sum is log p in place of p (as in kl_div without "
            "log_target=True).",
            lambda s, t: torch.nn.functional.kl_div(
                s.log_softmax(-1), t.log_softmax(-1), reduction="none"
            ).sum(-1),
            lambda s, t: (
                t.log_softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))
            ).sum(-1),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it to the student's "
            "logits: nothing would be learned. No .detach(), .item() or torch.tensor() "
            "on the way, and no torch.no_grad().",
            lambda s, t: _forward_kl(s, t).detach(),
        ),
    ),
)

# --- alpha_for_ceiling ----------------------------------------------------------


def _alpha(nats: float) -> float:
    return math.e ** (-nats)


def _ceiling_cases() -> list[Case]:
    return [
        Case("a ceiling of log 2", {"nats": math.log(2.0)}),
        Case("a ceiling of log 10", {"nats": math.log(10.0)}),
        Case("a ceiling of 5 nats", {"nats": 5.0}),
        Case("a low ceiling, a tenth of a nat", {"nats": 0.1}),
    ]


alpha_for_ceiling = Exercise(
    name="ex03.alpha_for_ceiling",
    call="alpha_for_ceiling(nats)",
    reference=_alpha,
    cases=_ceiling_cases,
    difficulty=2,
    minutes=4,
    hints=(
        "When is the skew KL as large as it can be? Let teacher and student have no "
        "word in common.",
        "Then p / m = 1 / α wherever the teacher speaks, so the divergence is "
        "log(1/α). Set it equal to the ceiling, and solve for α.",
        "math.exp and math.log undo each other. A ceiling of log 2 must give one half.",
    ),
    misconceptions=(
        Misconception(
            "sign",
            "A larger α lowers the ceiling: log(1/α) = -log α. The exponent needs a "
            "minus, or α is above 1.",
            lambda nats: math.exp(nats),
        ),
        Misconception(
            "logarithm forgotten",
            "1 over the ceiling is not it: the ceiling is log(1/α), not 1/α.",
            lambda nats: 1 / nats,
            lambda nats: min(1.0, 1 / nats),
        ),
        Misconception(
            "the ceiling of an alpha",
            "This goes the other way: it is the ceiling that an α would give. Solve "
            "log(1/α) = nats for α.",
            lambda nats: -math.log(nats),
            lambda nats: math.log(1 / nats),
            lambda nats: math.log(nats),
        ),
        Misconception(
            "the student's share",
            "This is 1 - α, the share of the student in the mixture. α is the "
            "teacher's share.",
            lambda nats: 1 - math.exp(-nats),
        ),
        Misconception(
            "bits",
            "This is for a ceiling in bits. In nats the base is e.",
            lambda nats: 2**-nats,
        ),
        Misconception(
            "base ten",
            "This is for a logarithm of base 10. In nats the base is e.",
            lambda nats: 10**-nats,
        ),
        Misconception(
            "two terms",
            "Only the Jensen-Shannon divergence weighs two terms. The skew KL has one, "
            "KL(p ‖ m), with the ceiling log(1/α).",
            lambda nats: math.exp(-nats) / 2,
            lambda nats: math.exp(-nats / 2),
            lambda nats: math.exp(-2 * nats),
        ),
    ),
)

# --- js_dial --------------------------------------------------------------------


def _js_dial(p: Tensor, q: Tensor, beta: float) -> Tensor:
    if beta == 0:
        return _kl(p, q)
    if beta == 1:
        return _kl(q, p)
    m = beta * p + (1 - beta) * q
    return _kl(p, m) / (1 - beta) + _kl(q, m) / beta


def _dial_cases() -> list[Case]:
    def case(name: str, p: Tensor, q: Tensor, beta: float) -> Case:
        return Case(name, {"p": p, "q": q, "beta": beta})

    p, q = _rows([0.75, 0.25]), _rows([0.5, 0.5])
    many = [_random(2, 3, 5, seed=seed).softmax(-1) for seed in (5, 6)]
    holes = _rows([0.6, 0.4, 0.0, 0.0]), _rows([0.5, 0.0, 0.5, 0.0])
    return [
        case("one half: the Jensen-Shannon divergence times 4", p, q, 0.5),
        case("beta = 0.1, near the forward KL", *many, 0.1),
        case("beta = 0.8, nearer to the reverse KL", *many, 0.8),
        case("beta = 0: the forward KL", *many, 0.0),
        case("beta = 1: the reverse KL", *many, 1.0),
        case("words that one or both cannot say", *holes, 0.3),
        case(
            "beta = 0, a word that the teacher cannot say",
            _rows([0.75, 0.25, 0.0]),
            _rows([0.25, 0.5, 0.25]),
            0.0,
        ),
    ]


def _dial(
    inside: Callable,
    zero: Callable = _kl,
    one: Callable = lambda p, q: _kl(q, p),
) -> Callable:
    """A solution from the formula inside and the two ends."""

    def dial(p: Tensor, q: Tensor, beta: float) -> Tensor:
        if beta == 0:
            return zero(p, q)
        if beta == 1:
            return one(p, q)
        return inside(p, q, beta)

    return dial


def _js(
    p: Tensor,
    q: Tensor,
    beta: float,
    kl: Callable = _kl,
    mixed: Callable = lambda p, q, b: b * p + (1 - b) * q,
    weights: Callable = lambda b: (b, 1 - b),
) -> Tensor:
    """The generalised JS with its parts exchangeable."""
    m = mixed(p, q, beta)
    of_p, of_q = weights(beta)
    return of_p * kl(p, m) + of_q * kl(q, m)


def _divided(p: Tensor, q: Tensor, beta: float, **parts: Callable) -> Tensor:
    return _js(p, q, beta, **parts) / (beta * (1 - beta))


def _other_mixture(p: Tensor, q: Tensor, beta: float) -> Tensor:
    return beta * q + (1 - beta) * p


def _other_weights(beta: float) -> tuple[float, float]:
    return 1 - beta, beta


def _raw_js(p: Tensor, q: Tensor, beta: float) -> Tensor:
    return _divided(p, q, beta, kl=_raw_kl)


def _raw_reverse(p: Tensor, q: Tensor) -> Tensor:
    return _raw_kl(q, p)


def _to_mixture_swapped(p: Tensor, q: Tensor, beta: float) -> Tensor:
    return _divided(p, q, beta, kl=lambda a, m: _kl(m, a))


def _zero(p: Tensor, q: Tensor) -> Tensor:
    return torch.zeros_like(p[..., 0])


def _endless(p: Tensor, q: Tensor) -> Tensor:
    return torch.full_like(p[..., 0], float("nan"))


def _divides_by_zero(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * (1 / 0)


js_dial = Exercise(
    name="ex03.js_dial",
    call="js_dial(p, q, beta)",
    reference=_js_dial,
    cases=_dial_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Write a small kl(a, b) first, with 0 log 0 = 0. Everything else is built of "
        "it: KL(p ‖ m), KL(q ‖ m) and the two ends.",
        "m = beta * p + (1 - beta) * q. Then (beta * kl(p, m) + (1 - beta) * kl(q, "
        "m)) / (beta * (1 - beta)).",
        "At beta = 0 or 1 you would divide 0 by 0. Ask for these first: if beta == 0: "
        "return kl(p, q).",
    ),
    misconceptions=(
        Misconception(
            "mixture backwards",
            "The mixture has the weights the other way round: m = β p + (1 - β) q. At "
            "β = 1/2 nobody notices; elsewhere the dial is read backwards.",
            _dial(lambda p, q, b: _divided(p, q, b, mixed=_other_mixture)),
            lambda p, q, b: (
                _divided(p, q, b, mixed=_other_mixture)
                if 0 < b < 1
                else (_kl(q, p) if b == 0 else _kl(p, q))
            ),
        ),
        Misconception(
            "weights backwards",
            "The mixture is right, but the two KLs have each other's weight: β belongs "
            "to KL(p ‖ m), 1 - β to KL(q ‖ m).",
            _dial(lambda p, q, b: _divided(p, q, b, weights=_other_weights)),
            _dial(lambda p, q, b: _js(p, q, b, weights=_other_weights)),
        ),
        Misconception(
            "read backwards",
            "β is read as 1 - β everywhere, or p and q have changed places: at small β "
            "your dial stands near the reverse KL.",
            lambda p, q, b: _js_dial(q, p, b),
            _dial(lambda p, q, b: _js_dial(q, p, b)),
        ),
        Misconception(
            "not divided",
            "Inside, this is the generalised JS as it is. Near both ends it goes to 0 "
            "and the dial turns the volume down: divide by β (1 - β).",
            _dial(_js),
            lambda p, q, b: _js(p, q, b),
        ),
        Misconception(
            "divided by one",
            "Divided by one of β and 1 - β only, the dial is right at one end and goes "
            "to 0 at the other. Divide by both.",
            _dial(lambda p, q, b: _js(p, q, b) / b),
            _dial(lambda p, q, b: _js(p, q, b) / (1 - b)),
        ),
        Misconception(
            "ends exchanged",
            "Inside all is right; the two ends have changed places. β = 0 is the "
            "forward KL(p ‖ q), β = 1 the reverse.",
            _dial(_divided, lambda p, q: _kl(q, p), _kl),
        ),
        Misconception(
            "ends missing",
            "At β = 0 and β = 1 the quotient is 0/0. Its limits are wanted there: "
            "KL(p ‖ q) at 0 and KL(q ‖ p) at 1.",
            _dial(_divided, _zero, _zero),
            _dial(_divided, _endless, _endless),
            _dial(_divided, _divides_by_zero, _divides_by_zero),
            _dial(_raw_js, _divides_by_zero, _divides_by_zero),
        ),
        Misconception(
            "zero times log zero",
            "A word with probability 0 adds nothing, but in the computer 0 log 0 is "
            "NaN. Put 0 there, for instance with torch.where(p > 0, ..., 0.0).",
            _dial(_raw_js, _raw_kl, _raw_reverse),
            _dial(_raw_js),
        ),
        Misconception(
            "arguments of the KLs",
            "The mixture stands on the wrong side of the KLs: KL(m ‖ p) in place of "
            "KL(p ‖ m). The two that are compared speak; the mixture answers.",
            _dial(_to_mixture_swapped),
        ),
        Misconception(
            "interpolated KLs",
            "This mixes the two KLs themselves, without a mixture of the "
            "distributions. It has the same ends but is infinite where one of the two "
            "has no word.",
            lambda p, q, b: (
                (1 - b) * _kl(p, q) + b * _kl(q, p)
                if 0 < b < 1
                else (_kl(p, q) if b == 0 else _kl(q, p))
            ),
            lambda p, q, b: (1 - b) * _kl(p, q) + b * _kl(q, p),
            _dial(lambda p, q, b: b * _kl(p, q) + (1 - b) * _kl(q, p)),
        ),
    ),
)

# --- reverse_kl_gradient --------------------------------------------------------


def _reverse_gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """By autograd: independent of whatever a learner derives."""
    leaf = student_logits.detach().clone().requires_grad_(True)
    log_q, log_p = _logs(leaf, teacher_logits)
    (slope,) = torch.autograd.grad((log_q.exp() * (log_q - log_p)).sum(), leaf)
    return slope


def _gradient_cases() -> list[Case]:
    def case(name: str, student: Tensor, teacher: Tensor) -> Case:
        return Case(name, {"student_logits": student, "teacher_logits": teacher})

    teacher = _random(2, 3, 5, seed=8)
    return [
        case(
            "q = (1/2, 1/2), p = (3/4, 1/4): -1/4 log 3 and +1/4 log 3",
            _rows([0.0, 0.0]),
            _rows([math.log(3.0), 0.0]),
        ),
        case("two sentences of three tokens", _random(2, 3, 5, seed=7), teacher),
        case("student and teacher are equal: no slope", teacher, teacher.clone()),
        case(
            "a student that is sure of another word",
            _rows([0.0, 12.0, 0.0], [200.0, 0.0, 0.0]),
            _rows([5.0, 0.0, 1.0], [0.0, 0.0, 300.0]),
        ),
    ]


def _slope(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """A wrong solution from a rule of (log q, log p)."""

    def function(student: Tensor, teacher: Tensor) -> Tensor:
        return rule(*_logs(student, teacher))

    return function


def _mean_of(values: Tensor, log_weights: Tensor) -> Tensor:
    return (log_weights.exp() * values).sum(-1, keepdim=True)


def _through_softmaxes(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.softmax(-1), teacher.softmax(-1)
    gap = (q / p).log()
    return q * (gap - (q * gap).sum(-1, keepdim=True))


def _difference_of_logs(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.softmax(-1), teacher.softmax(-1)
    gap = q.log() - p.log()
    return q * (gap - (q * gap).sum(-1, keepdim=True))


reverse_kl_gradient = Exercise(
    name="ex03.reverse_kl_gradient",
    call="reverse_kl_gradient(student_logits, teacher_logits)",
    reference=_reverse_gradient,
    cases=_gradient_cases,
    difficulty=4,
    minutes=10,
    hints=(
        "Write r_v = log q_v - log p_v, so that KL(q ‖ p) = Σ q_v r_v. First ask how "
        "each q_v moves with the logit z_w, then how the sum moves with each q_v.",
        "The softmax moves as dq_v / dz_w = q_v (1[v = w] - q_w). And the sum moves "
        "with q_v as r_v + 1; the ones cancel, as the q always sum to 1.",
        "What remains is q_w r_w - q_w Σ_v q_v r_v, and the sum in it is the KL "
        "itself: the slope at w is q_w (r_w - KL). Keep the KL's last dimension "
        "(keepdim=True).",
    ),
    misconceptions=(
        Misconception(
            "forward slope",
            "q - p is the slope of the forward KL. In the reverse KL the student's own "
            "q weighs the sum, and moves with the logits, too.",
            _slope(lambda log_q, log_p: log_q.exp() - log_p.exp()),
        ),
        Misconception(
            "mean forgotten",
            "This is q (log q - log p): the softmax was treated as if each q moved "
            "with its own logit alone. But all q sum to 1; subtract the mean, which is "
            "the KL, inside the bracket.",
            _slope(lambda log_q, log_p: log_q.exp() * (log_q - log_p)),
            _slope(lambda log_q, log_p: log_q.exp() * (log_q - log_p + 1)),
        ),
        Misconception(
            "slope in q",
            "This is how the divergence moves with the probabilities q. The logits act "
            "through the softmax: dq_v / dz_w = q_v (1[v = w] - q_w).",
            _slope(lambda log_q, log_p: log_q - log_p + 1),
            _slope(lambda log_q, log_p: log_q - log_p),
        ),
        Misconception(
            "q forgotten",
            "The bracket is right, but the softmax also multiplies it by q: words that "
            "the student hardly says hardly move.",
            _slope(
                lambda log_q, log_p: (log_q - log_p) - _mean_of(log_q - log_p, log_q)
            ),
        ),
        Misconception(
            "one kept",
            "A 1 is left over. r + 1 has the mean KL + 1, so that the ones cancel: q "
            "(r - KL).",
            _slope(
                lambda log_q, log_p: (
                    log_q.exp() * (log_q - log_p + 1 - _mean_of(log_q - log_p, log_q))
                )
            ),
        ),
        Misconception(
            "teacher's mean",
            "The mean that is subtracted is weighted by the teacher. It comes from the "
            "student's softmax: Σ q (log q - log p).",
            _slope(
                lambda log_q, log_p: (
                    log_q.exp() * ((log_q - log_p) - _mean_of(log_q - log_p, log_p))
                )
            ),
            _slope(
                lambda log_q, log_p: (
                    log_q.exp() * ((log_q - log_p) - _mean_of(log_p - log_q, log_p))
                )
            ),
        ),
        Misconception(
            "plain mean",
            "The plain mean over the vocabulary was subtracted. The words weigh with "
            "q: Σ q (log q - log p).",
            _slope(
                lambda log_q, log_p: (
                    log_q.exp()
                    * ((log_q - log_p) - (log_q - log_p).mean(-1, keepdim=True))
                )
            ),
        ),
        Misconception(
            "weighted by p",
            "The bracket is weighted by the teacher's p. The logits that move are the "
            "student's: q (r - KL).",
            _slope(
                lambda log_q, log_p: (
                    log_p.exp() * ((log_q - log_p) - _mean_of(log_q - log_p, log_q))
                )
            ),
        ),
        Misconception(
            "sign",
            "The sign is wrong: this points downhill. The gradient points uphill, and "
            "gradient descent subtracts it.",
            lambda student, teacher: -_reverse_gradient(student, teacher),
        ),
        Misconception(
            "all positions",
            "The sum runs over all positions at once. Each has a KL of its own: sum "
            "over the last dimension, with keepdim=True.",
            _slope(
                lambda log_q, log_p: (
                    log_q.exp()
                    * ((log_q - log_p) - (log_q.exp() * (log_q - log_p)).sum())
                )
            ),
        ),
        Misconception(
            "softmax, then log",
            "A logarithm was taken of a softmax. A probability that is too small for "
            "float32 is rounded to 0, and its logarithm is infinite: use log_softmax.",
            _through_softmaxes,
            _difference_of_logs,
        ),
        Misconception(
            "divided by positions",
            "This is the slope of a mean over positions. Each position's own slope is "
            "wanted, undivided.",
            lambda student, teacher: (
                _reverse_gradient(student, teacher) / max(1, student.shape[:-1].numel())
            ),
        ),
    ),
)

# --- best_independent -----------------------------------------------------------


def _best_independent(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Entry by entry: the sums of rows and of columns."""
    first = torch.stack([sum(row) for row in joint])
    second = torch.stack([sum(column) for column in joint.T])
    return first, second


def _independent_cases() -> list[Case]:
    def case(name: str, *rows: list[float]) -> Case:
        return Case(name, {"joint": torch.tensor(rows)})

    wide = _random(12, seed=9, scale=1.0).softmax(-1).view(3, 4)
    return [
        case(
            "the bill: la or el; cuenta, factura or pico",
            [0.35, 0.25, 0.0],
            [0.0, 0.0, 0.4],
        ),
        case("the bank: two pairs", [0.6, 0.0], [0.0, 0.4]),
        case("already independent", [0.42, 0.28], [0.18, 0.12]),
        case("one article for all", [0.2, 0.3, 0.5]),
        Case("three words, then four", {"joint": wide}),
        case("a certain teacher", [0.0, 1.0], [0.0, 0.0]),
    ]


def _marginals(joint: Tensor) -> tuple[Tensor, Tensor]:
    return joint.sum(1), joint.sum(0)


def _normed(values: Tensor) -> Tensor:
    return values / values.sum()


def _one_hot(index: Tensor | int, size: int) -> Tensor:
    return torch.eye(size)[int(index)]


def _likeliest_pair(joint: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = joint.shape
    row, column = divmod(int(joint.argmax()), columns)
    return _one_hot(row, rows), _one_hot(column, columns)


def _likeliest_each(joint: Tensor) -> tuple[Tensor, Tensor]:
    first, second = _marginals(joint)
    return _one_hot(first.argmax(), len(first)), _one_hot(second.argmax(), len(second))


def _one_row(joint: Tensor) -> tuple[Tensor, Tensor]:
    first = joint.sum(1)
    best = int(first.argmax())
    return _one_hot(best, len(first)), joint[best] / first[best]


def _conditional(joint: Tensor) -> tuple[Tensor, Tensor]:
    first = joint.sum(1)
    return first, joint[int(first.argmax())] / first.max()


best_independent = Exercise(
    name="ex03.best_independent",
    call="best_independent(joint)",
    reference=_best_independent,
    cases=_independent_cases,
    difficulty=4,
    minutes=8,
    hints=(
        "KL = Σ p log p - Σ p log q, and only the second part moves. What happens to "
        "log q(a, n) when q(a, n) = q(a) q(n)?",
        "It becomes log q(a) + log q(n). In the first of the two sums p(a, n) is "
        "summed over n: what is left is a cross-entropy between the teacher's share "
        "of each article and q(a). When is a cross-entropy smallest?",
        "It is smallest where the two are equal: q(a) = Σ_n p(a, n) and q(n) = Σ_a "
        "p(a, n). joint.sum(dim=1) sums over the second word.",
    ),
    misconceptions=(
        Misconception(
            "exchanged",
            "The two answers have changed places: dim=1 sums over the second word and "
            "leaves the first.",
            lambda joint: _marginals(joint)[::-1],
        ),
        Misconception(
            "likeliest pair",
            "This student says the teacher's likeliest pair and nothing else. Every "
            "other pair of the teacher then costs the forward KL infinity.",
            _likeliest_pair,
        ),
        Misconception(
            "likeliest words",
            "This student says the likeliest word at each place and nothing else. "
            "Whatever else the teacher says costs the forward KL infinity.",
            _likeliest_each,
        ),
        Misconception(
            "mode seeking",
            "This student keeps to one first word and never says the others: the best "
            "for the reverse KL. The forward KL is infinite for it.",
            _one_row,
        ),
        Misconception(
            "conditional",
            "The second word is given for the likeliest first word alone. The student "
            "cannot look back: it needs one distribution for all first words.",
            _conditional,
        ),
        Misconception(
            "uniform",
            "Equal shares say nothing of the teacher. Some words are likelier than "
            "others, whatever stands beside them.",
            lambda joint: tuple(torch.full((n,), 1 / n) for n in joint.shape),
        ),
        Misconception(
            "largest entries",
            "The largest entry of each row or column was taken in place of its sum: a "
            "word with many partners counts with all of them.",
            lambda joint: (_normed(joint.amax(1)), _normed(joint.amax(0))),
            lambda joint: (joint.amax(1), joint.amax(0)),
        ),
        Misconception(
            "means",
            "The means of rows and columns are proportional to the answer but do not "
            "sum to 1. Sum.",
            lambda joint: (joint.mean(1), joint.mean(0)),
        ),
        Misconception(
            "softmax of sums",
            "A softmax was taken of probabilities. The sums are the answer as they "
            "are: they already sum to 1.",
            lambda joint: tuple(m.softmax(-1) for m in _marginals(joint)),
        ),
    ),
)
