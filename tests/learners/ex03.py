"""Solutions of lesson 03 as learners write them, independently of the package's own."""

from __future__ import annotations

import math

import numpy
import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

# ------------------------------------------------------------------- total_variation


def variation_by_norm(p, q):
    return 0.5 * torch.linalg.vector_norm(p - q, ord=1, dim=-1)


def variation_by_overlap(p, q):
    return 1.0 - torch.minimum(p, q).sum(-1)


def variation_by_relu(p, q):
    return F.relu(q - p).sum(dim=-1)


right("ex03.total_variation", variation_by_norm, variation_by_overlap)
right("ex03.total_variation", variation_by_relu)

mutants(
    "ex03.total_variation",
    half_forgotten=lambda p, q: torch.linalg.vector_norm(p - q, ord=1, dim=-1),
    largest_word=lambda p, q: torch.max(torch.abs(p - q), dim=-1).values,
    squares=lambda p, q: torch.linalg.vector_norm(p - q, dim=-1) * 0.5,
    signs_kept=lambda p, q: 0.5 * (p.sum(-1) - q.sum(-1)),
    mean_over_the_vocabulary=lambda p, q: F.l1_loss(p, q, reduction="none").mean(-1),
    one_number=lambda p, q: 0.5 * F.l1_loss(p, q, reduction="sum"),
    over_positions=lambda p, q: 0.5 * torch.abs(p - q).sum(axis=0),
)
mutants(
    "ex03.total_variation",
    squares=lambda p, q: ((p - q) ** 2).sum(-1) / 2,
    half_forgotten=lambda p, q: 2 - 2 * torch.minimum(p, q).sum(-1),
    one_number=lambda p, q: torch.abs(p - q).sum(-1).mul(0.5).mean(),
)


@mutant("ex03.total_variation", "largest word")
def _(p, q):
    return torch.sub(p, q).max(dim=-1).values


@mutant("ex03.total_variation", "largest word")
def _(p, q):
    gap = torch.abs(p - q)
    return gap.sort(dim=-1, descending=True).values[..., 0]


# ------------------------------------------------------------------------ forward_kl


def kl_with_masked_fill(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, -1)
    log_p = F.log_softmax(teacher_logits, -1)
    weights = F.softmax(teacher_logits, -1)
    ratio = (log_p - log_q).masked_fill(weights == 0, 0.0)
    return torch.sum(weights * ratio, dim=-1)


def kl_by_logsumexp(student_logits, teacher_logits):
    s = student_logits - student_logits.logsumexp(dim=-1, keepdim=True)
    t = teacher_logits - teacher_logits.logsumexp(dim=-1, keepdim=True)
    p = t.exp()
    terms = p * (t - s)
    return torch.where(p == 0, torch.zeros_like(terms), terms).sum(-1)


def kl_without_nan(student_logits, teacher_logits):
    log_q = student_logits.log_softmax(-1)
    log_p = teacher_logits.log_softmax(-1)
    terms = log_p.exp() * (log_p - log_q)
    return terms.masked_fill(terms.isnan(), 0.0).sum(-1)


def kl_through_kl_div(student_logits, teacher_logits):
    log_q = torch.log_softmax(student_logits, -1)
    p = torch.softmax(teacher_logits, -1)
    log_q = torch.where(p > 0, log_q, torch.zeros_like(log_q))
    return F.kl_div(log_q, p, reduction="none").sum(-1)


right("ex03.forward_kl", kl_with_masked_fill, kl_by_logsumexp)
right("ex03.forward_kl", kl_without_nan, kl_through_kl_div)


def safe_kl_terms(student_logits, teacher_logits):
    """p (log p - log q) with 0 where p is 0, (..., V)."""
    log_q = F.log_softmax(student_logits, -1)
    log_p = F.log_softmax(teacher_logits, -1)
    p = log_p.exp()
    return p * (log_p - log_q).masked_fill(p == 0, 0.0)


@mutant("ex03.forward_kl", "swapped")
def _(student_logits, teacher_logits):
    return safe_kl_terms(teacher_logits, student_logits).sum(-1)


@mutant("ex03.forward_kl", "swapped")
def _(student_logits, teacher_logits):
    log_p = F.log_softmax(teacher_logits, -1)
    log_q = F.log_softmax(student_logits, -1)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)


@mutant("ex03.forward_kl", "cross-entropy")
def _(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, -1)
    p = F.softmax(teacher_logits, -1)
    return -(p * log_q.masked_fill(p == 0, 0.0)).sum(-1)


@mutant("ex03.forward_kl", "cross-entropy")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    return -(p * F.log_softmax(student_logits, -1)).sum(-1)


@mutant("ex03.forward_kl", "zero times infinity")
def _(student_logits, teacher_logits):
    log_p = F.log_softmax(teacher_logits, -1)
    terms = log_p.exp() * (log_p - F.log_softmax(student_logits, -1))
    total = terms.sum(-1)
    return torch.where(total.isnan(), torch.zeros_like(total), total)


@mutant("ex03.forward_kl", "zero times infinity")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    return F.kl_div(F.log_softmax(student_logits, -1), p, reduction="none").sum(-1)


@mutant("ex03.forward_kl", "zero times infinity")
def _(student_logits, teacher_logits):
    log_p = F.log_softmax(teacher_logits, -1)
    log_q = F.log_softmax(student_logits, -1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


@mutant("ex03.forward_kl", "softmax, then log")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    q = F.softmax(student_logits, -1)
    return (p * torch.log(p / q)).sum(-1)


@mutant("ex03.forward_kl", "softmax, then log")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    q = F.softmax(student_logits, -1)
    return (p * (p.log() - q.log()).masked_fill(p == 0, 0.0)).sum(-1)


@mutant("ex03.forward_kl", "exp overflows")
def _(student_logits, teacher_logits):
    q = torch.exp(student_logits)
    q = q / q.sum(-1, keepdim=True)
    p = torch.exp(teacher_logits)
    p = p / p.sum(-1, keepdim=True)
    return (p * torch.log(p / q).masked_fill(p == 0, 0.0)).sum(-1)


@mutant("ex03.forward_kl", "a crumb added")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1).clamp(min=1e-9)
    q = F.softmax(student_logits, -1).clamp(min=1e-9)
    return (p * torch.log(p / q)).sum(-1)


@mutant("ex03.forward_kl", "a crumb added")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    q = F.softmax(student_logits, -1)
    return (p * torch.log((p + 1e-8) / (q + 1e-8))).sum(-1)


@mutant("ex03.forward_kl", "a crumb added")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    q = torch.clamp(F.softmax(student_logits, -1), min=1e-12)
    return torch.where(p > 0, p * (torch.log(p) - torch.log(q)), 0.0).sum(-1)


@mutant("ex03.forward_kl", "infinity hidden")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    gap = F.log_softmax(teacher_logits, -1) - F.log_softmax(student_logits, -1)
    return (p * gap).masked_fill(p <= 1e-8, 0.0).sum(-1)


@mutant("ex03.forward_kl", "infinity hidden")
def _(student_logits, teacher_logits):
    terms = safe_kl_terms(student_logits, teacher_logits)
    return torch.where(terms.isfinite(), terms, torch.zeros_like(terms)).sum(-1)


@mutant("ex03.forward_kl", "infinity hidden")
def _(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, -1)
    log_p = F.log_softmax(teacher_logits, -1)
    return torch.nan_to_num(log_p.exp() * (log_p - log_q)).sum(-1)


@mutant("ex03.forward_kl", "mean over the vocabulary")
def _(student_logits, teacher_logits):
    return safe_kl_terms(student_logits, teacher_logits).mean(-1)


@mutant("ex03.forward_kl", "one number")
def _(student_logits, teacher_logits):
    return safe_kl_terms(student_logits, teacher_logits).sum()


@mutant("ex03.forward_kl", "one number")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    return F.kl_div(F.log_softmax(student_logits, -1), p, reduction="none").mean()


@mutant("ex03.forward_kl", "one number")
def _(student_logits, teacher_logits):
    p = F.softmax(teacher_logits, -1)
    log_q = F.log_softmax(student_logits, -1)
    return F.kl_div(log_q, p, reduction="batchmean")


@mutant("ex03.forward_kl", "sign")
def _(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, -1)
    log_p = F.log_softmax(teacher_logits, -1)
    p = log_p.exp()
    return (p * (log_q - log_p).masked_fill(p == 0, 0.0)).sum(-1)


@mutant("ex03.forward_kl", "bits")
def _(student_logits, teacher_logits):
    return safe_kl_terms(student_logits, teacher_logits).sum(-1) / numpy.log(2)


@mutant("ex03.forward_kl", "probabilities as logits")
def _(student_logits, teacher_logits):
    q, p = F.softmax(student_logits, -1), F.softmax(teacher_logits, -1)
    return safe_kl_terms(q, p).sum(-1)


@mutant("ex03.forward_kl", "log target")
def _(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, -1)
    log_p = F.log_softmax(teacher_logits, -1)
    return F.kl_div(log_q, log_p, reduction="none").sum(-1)


@mutant("ex03.forward_kl", "no gradient")
def _(student_logits, teacher_logits):
    with torch.no_grad():
        return kl_with_masked_fill(student_logits, teacher_logits)


# ----------------------------------------------------------------- alpha_for_ceiling


def alpha_by_reciprocal(nats):
    return 1 / math.exp(nats)


def alpha_with_torch(nats):
    return torch.tensor(-nats).exp().item()


def alpha_by_halving(nats):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if -math.log(middle) < nats else (middle, high)
    return high


right("ex03.alpha_for_ceiling", alpha_by_reciprocal, alpha_with_torch)
right("ex03.alpha_for_ceiling", alpha_by_halving)

mutants(
    "ex03.alpha_for_ceiling",
    sign=lambda nats: numpy.exp(nats),
    logarithm_forgotten=lambda nats: 1.0 / nats,
    the_ceiling_of_an_alpha=lambda nats: numpy.log(1 / nats),
    bits=lambda nats: 1 / 2**nats,
    base_ten=lambda nats: 1 / 10**nats,
    two_terms=lambda nats: numpy.exp(-nats) * 0.5,
)
mutant("ex03.alpha_for_ceiling", "the student's share")(lambda nats: -math.expm1(-nats))


# --------------------------------------------------------------------------- js_dial


def kl_by_entropies(a, b):
    cross = torch.where(a > 0, a * b.log(), 0.0).sum(-1)
    return -torch.special.entr(a).sum(-1) - cross


def dial_by_entropies(p, q, beta):
    if beta in (0, 1):
        return kl_by_entropies(p, q) if beta == 0 else kl_by_entropies(q, p)
    m = beta * p + (1 - beta) * q
    h = torch.special.entr
    d = h(m).sum(-1) - beta * h(p).sum(-1) - (1 - beta) * h(q).sum(-1)
    return d / beta / (1 - beta)


def dial_with_nansum(p, q, beta):
    def kl(a, b):
        return torch.nansum(a * torch.log(a / b), dim=-1)

    if beta == 0.0:
        return kl(p, q)
    elif beta == 1.0:
        return kl(q, p)
    m = torch.lerp(q, p, beta)
    return kl(p, m) / (1 - beta) + kl(q, m) / beta


right("ex03.js_dial", dial_by_entropies, dial_with_nansum)


def safe_kl(a, b):
    return torch.xlogy(a, a / torch.where(a > 0, b, 1.0)).sum(-1)


def dial_from(
    inside, at_zero=lambda p, q: safe_kl(p, q), at_one=lambda p, q: safe_kl(q, p)
):
    def dial(p, q, beta):
        if beta == 0:
            return at_zero(p, q)
        return at_one(p, q) if beta == 1 else inside(p, q, beta)

    return dial


def js_sum(p, q, m, of_p, of_q):
    return of_p * safe_kl(p, m) + of_q * safe_kl(q, m)


mutants(
    "ex03.js_dial",
    mixture_backwards=dial_from(
        lambda p, q, b: js_sum(p, q, torch.lerp(p, q, b), b, 1 - b) / (b - b * b)
    ),
    weights_backwards=dial_from(
        lambda p, q, b: js_sum(p, q, torch.lerp(q, p, b), 1 - b, b) / (b - b * b)
    ),
    read_backwards=lambda p, q, b: dial_with_nansum(p, q, 1 - b),
    not_divided=dial_from(lambda p, q, b: js_sum(p, q, torch.lerp(q, p, b), b, 1 - b)),
    divided_by_one=dial_from(
        lambda p, q, b: js_sum(p, q, torch.lerp(q, p, b), 1, (1 - b) / b)
    ),
    ends_exchanged=dial_from(
        dial_with_nansum,
        at_zero=lambda p, q: safe_kl(q, p),
        at_one=lambda p, q: safe_kl(p, q),
    ),
    interpolated_KLs=lambda p, q, b: b * safe_kl(q, p) + (1 - b) * safe_kl(p, q),
)


@mutant("ex03.js_dial", "mixture backwards")
def _(p, q, beta):
    if beta == 0:
        return safe_kl(q, p)
    if beta == 1:
        return safe_kl(p, q)
    m = (1 - beta) * p + beta * q
    return (beta * safe_kl(p, m) + (1 - beta) * safe_kl(q, m)) / beta / (1 - beta)


@mutant("ex03.js_dial", "ends missing")
def _(p, q, beta):
    m = beta * p + (1 - beta) * q
    return js_sum(p, q, m, beta, 1 - beta) / (beta * (1 - beta))


@mutant("ex03.js_dial", "ends missing")
def _(p, q, beta):
    weight = torch.tensor(beta)
    m = weight * p + (1 - weight) * q
    return js_sum(p, q, m, weight, 1 - weight) / (weight * (1 - weight))


@mutant("ex03.js_dial", "not divided")
def _(p, q, beta):
    m = beta * p + (1 - beta) * q
    return js_sum(p, q, m, beta, 1 - beta)


@mutant("ex03.js_dial", "zero times log zero")
def _(p, q, beta):
    def kl(a, b):
        return (a * (a.log() - b.log())).sum(-1)

    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    m = beta * p + (1 - beta) * q
    return (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))


@mutant("ex03.js_dial", "arguments of the KLs")
def _(p, q, beta):
    if beta in (0, 1):
        return dial_with_nansum(p, q, beta)
    m = beta * p + (1 - beta) * q
    d = beta * F.kl_div(p.log(), m, reduction="none").nansum(-1)
    d = d + (1 - beta) * F.kl_div(q.log(), m, reduction="none").nansum(-1)
    return d / (beta * (1 - beta))


@mutant("ex03.js_dial", "read backwards")
def _(p, q, beta):
    p, q = q, p
    return dial_by_entropies(p, q, beta)


# --------------------------------------------------------------- reverse_kl_gradient


def gradient_by_jacobian(student_logits, teacher_logits):
    log_q = student_logits.log_softmax(-1)
    q = log_q.exp()
    r = log_q - teacher_logits.log_softmax(-1)
    jacobian = torch.diag_embed(q) - q[..., :, None] * q[..., None, :]
    return (jacobian @ (r + 1)[..., None]).squeeze(-1)


def gradient_from_raw_logits(student_logits, teacher_logits):
    gap = student_logits - teacher_logits  # the two log-sums cancel with the mean
    q = F.softmax(student_logits, dim=-1)
    return q * gap - q * torch.einsum("...v,...v->...", q, gap).unsqueeze(-1)


def gradient_by_autograd(student_logits, teacher_logits):
    z = student_logits.clone().requires_grad_(True)
    log_q = z.log_softmax(-1)
    loss = F.kl_div(
        teacher_logits.log_softmax(-1), log_q, reduction="sum", log_target=True
    )
    loss.backward()
    return z.grad


right("ex03.reverse_kl_gradient", gradient_by_jacobian, gradient_from_raw_logits)
right("ex03.reverse_kl_gradient", gradient_by_autograd)


def logs_and_q(student_logits, teacher_logits):
    log_q = F.log_softmax(student_logits, dim=-1)
    return log_q, F.log_softmax(teacher_logits, dim=-1), log_q.exp()


def gradient_rule(rule):
    return lambda s, t: rule(*logs_and_q(s, t))


mutants(
    "ex03.reverse_kl_gradient",
    forward_slope=lambda s, t: F.softmax(s, -1) - F.softmax(t, -1),
    mean_forgotten=gradient_rule(lambda lq, lp, q: q * lq - q * lp),
    slope_in_q=gradient_rule(lambda lq, lp, q: 1 + lq - lp),
    q_forgotten=gradient_rule(
        lambda lq, lp, q: lq - lp - (q * (lq - lp)).sum(-1, keepdim=True)
    ),
    one_kept=gradient_rule(
        lambda lq, lp, q: q * (lq - lp + 1) - q * (q * (lq - lp)).sum(-1, True)
    ),
    plain_mean=gradient_rule(
        lambda lq, lp, q: q * ((lq - lp) - torch.mean(lq - lp, -1, keepdim=True))
    ),
    weighted_by_p=gradient_rule(
        lambda lq, lp, q: lp.exp() * (lq - lp - (q * (lq - lp)).sum(-1, True))
    ),
    sign=lambda s, t: -gradient_by_jacobian(s, t),
    all_positions=gradient_rule(
        lambda lq, lp, q: q * (lq - lp - torch.sum(q * (lq - lp)))
    ),
)
mutants(
    "ex03.reverse_kl_gradient",
    mean_forgotten=gradient_rule(lambda lq, lp, q: q * (1 + lq - lp)),
    slope_in_q=gradient_rule(lambda lq, lp, q: lq - lp),
)


@mutant("ex03.reverse_kl_gradient", "teacher's mean")
def _(student_logits, teacher_logits):
    log_q, log_p, q = logs_and_q(student_logits, teacher_logits)
    forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    return q * (log_q - log_p - forward.sum(-1, keepdim=True))


@mutant("ex03.reverse_kl_gradient", "softmax, then log")
def _(student_logits, teacher_logits):
    q, p = student_logits.softmax(-1), teacher_logits.softmax(-1)
    r = torch.log(q) - torch.log(p)
    return q * (r - (q * r).sum(-1, keepdim=True))


@mutant("ex03.reverse_kl_gradient", "divided by positions")
def _(student_logits, teacher_logits):
    z = student_logits.clone().requires_grad_(True)
    log_q = z.log_softmax(-1)
    log_p = teacher_logits.log_softmax(-1)
    (log_q.exp() * (log_q - log_p)).sum(-1).mean().backward()
    return z.grad


# ------------------------------------------------------------------ best_independent


def independent_by_einsum(joint):
    return torch.einsum("an->a", joint), torch.einsum("an->n", joint)


def independent_by_loop(joint):
    rows, columns = joint.shape
    q_a, q_n = torch.zeros(rows), torch.zeros(columns)
    for a in range(rows):
        for n in range(columns):
            q_a[a] += joint[a, n]
            q_n[n] += joint[a, n]
    return [q_a, q_n]


right("ex03.best_independent", independent_by_einsum, independent_by_loop)


def one_hot(index, size):
    return F.one_hot(torch.as_tensor(index), size).float()


mutants(
    "ex03.best_independent",
    exchanged=lambda joint: (joint.sum(dim=0), joint.sum(dim=1)),
    uniform=lambda joint: (
        torch.ones(joint.shape[0]) / joint.shape[0],
        torch.ones(joint.shape[1]) / joint.shape[1],
    ),
    means=lambda joint: (joint.mean(dim=1), joint.mean(dim=0)),
    softmax_of_sums=lambda joint: (
        F.softmax(joint.sum(1), -1),
        F.softmax(joint.sum(0), -1),
    ),
    largest_entries=lambda joint: (
        joint.max(1).values / joint.max(1).values.sum(),
        joint.max(0).values / joint.max(0).values.sum(),
    ),
)


@mutant("ex03.best_independent", "likeliest pair")
def _(joint):
    where = (joint == joint.max()).nonzero()[0].tolist()
    return one_hot(where[0], joint.shape[0]), one_hot(where[1], joint.shape[1])


@mutant("ex03.best_independent", "likeliest words")
def _(joint):
    return tuple(
        one_hot(joint.sum(other).argmax(), joint.shape[own])
        for own, other in ((0, 1), (1, 0))
    )


@mutant("ex03.best_independent", "mode seeking")
def _(joint):
    a = joint.sum(1).argmax()
    return one_hot(a, joint.shape[0]), joint[a] / joint[a].sum()


@mutant("ex03.best_independent", "conditional")
def _(joint):
    articles = joint.sum(1)
    return articles, joint[articles.argmax()] / articles.max()
