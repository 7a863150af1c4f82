"""Solutions of lesson 04 as learners write them, independently of the package's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

# ------------------------------------------------------------------ mix


def mix_in_two_lines(soft, hard, temperature, alpha):
    soft = soft * temperature * temperature
    return soft + alpha * (hard - soft)


right(
    "ex04.mix",
    mix_in_two_lines,
    lambda soft, hard, T, a: a * hard + (1.0 - a) * (T**2 * soft),
)
mutants(
    "ex04.mix",
    alpha_on_the_soft_term=lambda s, h, T, a: (1 - a) * h + a * (s * T * T),
    T_squared_forgotten=lambda s, h, T, a: s + a * (h - s),
    T_not_squared=lambda s, h, T, a: a * h + (1 - a) * (s * T),
    T_squared_on_both_terms=lambda s, h, T, a: (a * h + (1 - a) * s) * T * T,
    T_squared_on_the_hard_term=lambda s, h, T, a: s - a * s + a * h * T**2,
    divided_by_T_squared=lambda s, h, T, a: (1 - a) * s * T**-2 + a * h,
    soft_term_unweighed=lambda s, h, T, a: s * T**2 + h * a,
    hard_term_unweighed=lambda s, h, T, a: h + s * T**2 * (1 - a),
)

# ------------------------------------------------------------------ soft_gradient


def gradient_by_log_softmax(student_logits, teacher_logits, temperature):
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    return temperature * log_q.exp() - temperature * log_p.exp()


def gradient_by_the_chain_rule(student_logits, teacher_logits, temperature):
    inner = 1 / temperature
    p, q = (
        torch.nn.Softmax(dim=-1)(z * inner) for z in (teacher_logits, student_logits)
    )
    return temperature**2 * inner * (q - p)


right("ex04.soft_gradient", gradient_by_log_softmax, gradient_by_the_chain_rule)


def qp(student, teacher, T):
    return F.softmax(student / T, dim=-1), F.softmax(teacher / T, dim=-1)


@mutant("ex04.soft_gradient", "sign")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, temperature)
    return -temperature * (q - p)


@mutant("ex04.soft_gradient", "T cancelled")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, temperature)
    return -(p - q)


@mutant("ex04.soft_gradient", "inner derivative forgotten")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, temperature)
    return temperature * temperature * q - temperature**2 * p


@mutant("ex04.soft_gradient", "T squared forgotten")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, temperature)
    return q / temperature - p / temperature


@mutant("ex04.soft_gradient", "not softened")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, 1)
    return temperature * (q - p)


@mutant("ex04.soft_gradient", "not softened")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, 1)
    return q - p


@mutant("ex04.soft_gradient", "one side softened")
def _(student_logits, teacher_logits, temperature):
    q = F.softmax(student_logits / temperature, dim=-1)
    return temperature * (q - F.softmax(teacher_logits, dim=-1))


@mutant("ex04.soft_gradient", "one side softened")
def _(student_logits, teacher_logits, temperature):
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature * (F.softmax(student_logits, dim=-1) - p)


@mutant("ex04.soft_gradient", "one-hot teacher")
def _(student_logits, teacher_logits, temperature):
    q = F.softmax(student_logits / temperature, dim=-1)
    best = teacher_logits.max(dim=-1, keepdim=True).indices
    return temperature * q.scatter_add(-1, best, torch.full_like(q, -1.0))


@mutant("ex04.soft_gradient", "divided by the vocabulary")
def _(student_logits, teacher_logits, temperature):
    q, p = qp(student_logits, teacher_logits, temperature)
    return temperature * (q - p) / student_logits.size(-1)


@mutant("ex04.soft_gradient", "softmax over another axis")
def _(student_logits, teacher_logits, temperature):
    q = F.softmax(student_logits / temperature, dim=0)
    p = F.softmax(teacher_logits / temperature, dim=0)
    return temperature * (q - p)


@mutant("ex04.soft_gradient", "overflow")
def _(student_logits, teacher_logits, temperature):
    e_s = torch.exp(student_logits / temperature)
    e_t = torch.exp(teacher_logits / temperature)
    q = e_s / e_s.sum(dim=-1, keepdim=True)
    p = e_t / e_t.sum(dim=-1, keepdim=True)
    return temperature * (q - p)


# ------------------------------------------------------------------ kd_loss


def kd_with_kl_div(student_logits, teacher_logits, labels, temperature):
    mask = labels.ne(-100)
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


def kd_with_a_weight(student_logits, teacher_logits, labels, temperature):
    weight = (labels != -100).float()
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    token = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return temperature * temperature * (token * weight).sum() / weight.sum()


def kd_as_difference_of_entropies(student_logits, teacher_logits, labels, temperature):
    real = labels.flatten() != -100
    z_s = student_logits.flatten(0, 1)[real] / temperature
    z_t = teacher_logits.flatten(0, 1)[real] / temperature
    p = z_t.softmax(-1)
    log_p = z_t - z_t.logsumexp(-1, keepdim=True)
    log_q = z_s - z_s.logsumexp(-1, keepdim=True)
    return temperature**2 * torch.mean(torch.sum(p * log_p - p * log_q, -1))


right("ex04.kd_loss", kd_with_kl_div, kd_with_a_weight, kd_as_difference_of_entropies)


def each(student, teacher, T):
    """T² KL by kl_div, entry by entry: (B, L, V)."""
    log_q = F.log_softmax(student / T, dim=-1)
    return F.kl_div(log_q, F.softmax(teacher / T, dim=-1), reduction="none") * T**2


@mutant("ex04.kd_loss", "mean over the vocabulary")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return torch.mean(F.kl_div(log_q, p, reduction="none")) * temperature**2


@mutant("ex04.kd_loss", "divided by sentences")
def _(student_logits, teacher_logits, labels, temperature):
    values = each(student_logits, teacher_logits, temperature)
    values = values.masked_fill((labels == -100)[..., None], 0.0)
    return values.sum() / student_logits.size(0)


@mutant("ex04.kd_loss", "batchmean of all")
def _(student_logits, teacher_logits, labels, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


@mutant("ex04.kd_loss", "mean of all")
def _(student_logits, teacher_logits, labels, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="none").mean() * temperature**2


@mutant("ex04.kd_loss", "pads averaged in")
def _(student_logits, teacher_logits, labels, temperature):
    return each(student_logits, teacher_logits, temperature).sum(dim=-1).mean()


@mutant("ex04.kd_loss", "pads learned")
def _(student_logits, teacher_logits, labels, temperature):
    values = each(student_logits, teacher_logits, temperature)
    return values.sum() / (labels >= 0).sum()


@mutant("ex04.kd_loss", "divided by positions")
def _(student_logits, teacher_logits, labels, temperature):
    values = each(student_logits, teacher_logits, temperature).sum(-1)
    return torch.where(labels == -100, 0.0, values).mean()


@mutant("ex04.kd_loss", "divided twice")
def _(student_logits, teacher_logits, labels, temperature):
    loss = kd_with_kl_div(student_logits, teacher_logits, labels, temperature)
    return loss / (labels != -100).sum()


@mutant("ex04.kd_loss", "sum")
def _(student_logits, teacher_logits, labels, temperature):
    return each(student_logits, teacher_logits, temperature)[labels != -100].sum()


@mutant("ex04.kd_loss", "mean of means")
def _(student_logits, teacher_logits, labels, temperature):
    rows = zip(student_logits, teacher_logits, labels, strict=True)
    sentences = [
        kd_with_kl_div(s[None], t[None], y[None], temperature) for s, t, y in rows
    ]
    return torch.stack(sentences).mean()


@mutant("ex04.kd_loss", "mask one place off")
def _(student_logits, teacher_logits, labels, temperature):
    return kd_with_kl_div(
        student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:], temperature
    )


@mutant("ex04.kd_loss", "teacher one place off")
def _(student_logits, teacher_logits, labels, temperature):
    return kd_with_kl_div(
        student_logits[:, :-1], teacher_logits[:, 1:], labels[:, :-1], temperature
    )


@mutant("ex04.kd_loss", "token zero masked")
def _(student_logits, teacher_logits, labels, temperature):
    labels = labels.masked_fill(labels == 0, -100)
    return kd_with_kl_div(student_logits, teacher_logits, labels, temperature)


@mutant("ex04.kd_loss", "softmax over time")
def _(student_logits, teacher_logits, labels, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits / temperature, dim=1)
    values = F.kl_div(log_q, p, reduction="none")[labels != -100]
    return values.sum(-1).mean() * temperature**2


@mutant("ex04.kd_loss", "softmax over the batch")
def _(student_logits, teacher_logits, labels, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=0)
    p = F.softmax(teacher_logits / temperature, dim=0)
    values = F.kl_div(log_q, p, reduction="none")[labels != -100]
    return values.sum(-1).mean() * temperature**2


@mutant("ex04.kd_loss", "swapped")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    log_p = F.log_softmax(teacher_logits[mask] / temperature, dim=-1)
    q = F.softmax(student_logits[mask] / temperature, dim=-1)
    return F.kl_div(log_p, q, reduction="batchmean") * temperature**2


@mutant("ex04.kd_loss", "softmax for log-softmax")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    q = F.softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return F.kl_div(q, p, reduction="batchmean") * temperature**2


@mutant("ex04.kd_loss", "log target")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits[mask] / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="batchmean") * temperature**2


@mutant("ex04.kd_loss", "T squared forgotten")
def _(student_logits, teacher_logits, labels, temperature):
    return kd_with_kl_div(
        student_logits / temperature, teacher_logits / temperature, labels, 1
    )


@mutant("ex04.kd_loss", "T not squared")
def _(student_logits, teacher_logits, labels, temperature):
    soft = (student_logits / temperature, teacher_logits / temperature)
    return temperature * kd_with_kl_div(*soft, labels, 1)


@mutant("ex04.kd_loss", "T squared twice")
def _(student_logits, teacher_logits, labels, temperature):
    loss = kd_with_kl_div(student_logits, teacher_logits, labels, temperature)
    return loss * temperature**2


@mutant("ex04.kd_loss", "not softened")
def _(student_logits, teacher_logits, labels, temperature):
    return temperature**2 * kd_with_kl_div(student_logits, teacher_logits, labels, 1)


@mutant("ex04.kd_loss", "not softened")
def _(student_logits, teacher_logits, labels, temperature):
    return kd_with_kl_div(student_logits, teacher_logits, labels, 1)


def one_side(T_s, T_t, T):
    def loss(student_logits, teacher_logits, labels, temperature):
        mask = labels != -100
        powers = {"T": temperature, "1": 1.0}
        log_q = F.log_softmax(student_logits[mask] / powers[T_s], dim=-1)
        p = F.softmax(teacher_logits[mask] / powers[T_t], dim=-1)
        return F.kl_div(log_q, p, reduction="batchmean") * powers[T] ** 2

    return loss


for T_s, T_t, T in ("T1T", "1TT", "T11", "1T1"):
    mutant("ex04.kd_loss", "one side softened")(one_side(T_s, T_t, T))


@mutant("ex04.kd_loss", "cross-entropy")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return F.cross_entropy(student_logits[mask] / temperature, p) * temperature**2


@mutant("ex04.kd_loss", "hard labels")
def _(student_logits, teacher_logits, labels, temperature):
    return F.cross_entropy(student_logits.transpose(1, 2), labels)


@mutant("ex04.kd_loss", "hard labels")
def _(student_logits, teacher_logits, labels, temperature):
    return F.cross_entropy(student_logits.transpose(1, 2) / temperature, labels)


@mutant("ex04.kd_loss", "hard labels")
def _(student_logits, teacher_logits, labels, temperature):
    softened = student_logits.transpose(1, 2) / temperature
    return F.cross_entropy(softened, labels) * temperature**2


@mutant("ex04.kd_loss", "one-hot teacher")
def _(student_logits, teacher_logits, labels, temperature):
    best = teacher_logits.argmax(dim=-1).masked_fill(labels == -100, -100)
    softened = student_logits.transpose(1, 2) / temperature
    return F.cross_entropy(softened, best) * temperature**2


@mutant("ex04.kd_loss", "sign")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits[mask] / temperature, dim=-1)
    return temperature**2 * (log_p.exp() * (log_q - log_p)).sum(-1).mean()


@mutant("ex04.kd_loss", "overflow")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    q = F.softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


@mutant("ex04.kd_loss", "overflow")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    q = F.softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return temperature**2 * (p * torch.log(p / q)).sum(-1).mean()


@mutant("ex04.kd_loss", "overflow")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    q = F.softmax(student_logits[mask] / temperature, dim=-1) + 1e-10
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return F.kl_div(q.log(), p, reduction="batchmean") * temperature**2


@mutant("ex04.kd_loss", "overflow")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    q = F.softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    per_token = (p * (torch.log(p + 1e-9) - torch.log(q + 1e-9))).sum(-1)
    return temperature**2 * per_token.mean()


@mutant("ex04.kd_loss", "overflow")
def _(student_logits, teacher_logits, labels, temperature):
    mask = labels != -100
    e_s = torch.exp(student_logits[mask] / temperature)
    e_t = torch.exp(teacher_logits[mask] / temperature)
    q = e_s / e_s.sum(dim=-1, keepdim=True)
    p = e_t / e_t.sum(dim=-1, keepdim=True)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


@mutant("ex04.kd_loss", "no gradient")
def _(student_logits, teacher_logits, labels, temperature):
    with torch.no_grad():
        return kd_with_kl_div(student_logits, teacher_logits, labels, temperature)


@mutant("ex04.kd_loss", "no gradient")
def _(student_logits, teacher_logits, labels, temperature):
    loss = kd_with_kl_div(student_logits, teacher_logits, labels, temperature)
    return float(loss.detach())


# ------------------------------------------------------------------ the limit


def limit_by_variance(student_logits, teacher_logits):
    return (student_logits - teacher_logits).var(dim=-1, correction=0) / 2


def limit_by_centring_each(student_logits, teacher_logits):
    z_s = student_logits - student_logits.mean(-1, keepdim=True)
    z_t = teacher_logits - teacher_logits.mean(-1, keepdim=True)
    return 0.5 * F.mse_loss(z_s, z_t, reduction="none").mean(-1)


right("ex04.high_temperature_limit", limit_by_variance, limit_by_centring_each)
mutants(
    "ex04.high_temperature_limit",
    not_centred=lambda s, t: 0.5 * F.mse_loss(s, t, reduction="none").mean(-1),
    half_forgotten=lambda s, t: (s - t).var(-1, correction=0),
    sum_over_the_vocabulary=lambda s, t: (
        0.5 * ((s - t) - (s - t).mean(-1, keepdim=True)).pow(2).sum(-1)
    ),
    root=lambda s, t: (s - t).std(-1, correction=0) / 2,
    absolute_values=lambda s, t: (
        0.5 * torch.abs((s - t) - torch.mean(s - t, -1, keepdim=True)).mean(-1)
    ),
    of_probabilities=lambda s, t: (
        0.5 * F.mse_loss(F.softmax(s, -1), F.softmax(t, -1), reduction="none").mean(-1)
    ),
)
mutant("ex04.high_temperature_limit", "divided by V - 1")(
    lambda s, t: torch.var(s - t, dim=-1) / 2
)
mutant("ex04.high_temperature_limit", "divided by V twice")(
    lambda s, t: torch.var(s - t, dim=-1, correction=0) / (2 * s.shape[-1])
)


@mutant("ex04.high_temperature_limit", "one number")
def _(student_logits, teacher_logits):
    d = student_logits - teacher_logits
    return torch.mean((d - d.mean(dim=-1, keepdim=True)) ** 2) / 2


@mutant("ex04.high_temperature_limit", "one number")
def _(student_logits, teacher_logits):
    return (student_logits - teacher_logits).var(correction=0) / 2


# ------------------------------------------------------------------ bucket_kl


def bucket_with_cat(student_logits, indices, log_probs, log_rest):
    kept = torch.zeros_like(student_logits, dtype=torch.bool)
    kept.scatter_(1, indices, True)
    others = student_logits.masked_fill(kept, float("-inf"))
    merged = torch.cat(
        [student_logits.gather(1, indices), others.logsumexp(1, keepdim=True)], dim=1
    )
    log_q = merged.log_softmax(1)
    log_p = torch.cat([log_probs, log_rest[:, None]], dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def bucket_by_rows(student_logits, indices, log_probs, log_rest):
    result = []
    for n in range(len(student_logits)):
        log_q = F.log_softmax(student_logits[n], dim=0)
        rest = torch.ones(len(log_q), dtype=torch.bool)
        rest[indices[n]] = False
        log_s = torch.logsumexp(log_q[rest], dim=0)
        p = torch.exp(log_probs[n])
        loss = torch.dot(p, log_probs[n] - log_q[indices[n]])
        result.append(loss + torch.exp(log_rest[n]) * (log_rest[n] - log_s))
    return torch.stack(result)


right("ex04.bucket_kl", bucket_with_cat, bucket_by_rows)


def kept_terms(student_logits, indices, log_probs):
    log_q = torch.gather(F.log_softmax(student_logits, dim=-1), 1, indices)
    return torch.sum(torch.exp(log_probs) * (log_probs - log_q), dim=1)


def rest_of(student_logits, indices):
    log_q = F.log_softmax(student_logits, dim=-1).clone()
    for row, kept in zip(log_q, indices, strict=True):
        row[kept] = float("-inf")
    return torch.logsumexp(log_q, dim=1)


@mutant("ex04.bucket_kl", "bucket left out")
def _(student_logits, indices, log_probs, log_rest):
    return kept_terms(student_logits, indices, log_probs)


@mutant("ex04.bucket_kl", "teacher renormalised")
def _(student_logits, indices, log_probs, log_rest):
    p = log_probs.exp() / log_probs.exp().sum(1, keepdim=True)
    return kept_terms(student_logits, indices, p.log())


@mutant("ex04.bucket_kl", "both renormalised")
def _(student_logits, indices, log_probs, log_rest):
    p = F.softmax(log_probs, dim=1)
    log_q = F.log_softmax(student_logits.gather(1, indices), dim=1)
    return F.kl_div(log_q, p, reduction="none").sum(1)


@mutant("ex04.bucket_kl", "rest spread evenly")
def _(student_logits, indices, log_probs, log_rest):
    size, k = student_logits.shape[1], indices.shape[1]
    p = (log_rest.exp() / (size - k))[:, None].repeat(1, size)
    p = p.scatter(1, indices, log_probs.exp())
    return (p * (p.log() - F.log_softmax(student_logits, dim=1))).sum(1)


@mutant("ex04.bucket_kl", "bucket unweighed")
def _(student_logits, indices, log_probs, log_rest):
    bucket = log_rest - rest_of(student_logits, indices)
    return kept_terms(student_logits, indices, log_probs) + bucket


@mutant("ex04.bucket_kl", "bucket turned round")
def _(student_logits, indices, log_probs, log_rest):
    bucket = log_rest.exp() * (rest_of(student_logits, indices) - log_rest)
    return kept_terms(student_logits, indices, log_probs) + bucket


@mutant("ex04.bucket_kl", "swapped")
def _(student_logits, indices, log_probs, log_rest):
    log_q = F.log_softmax(student_logits, dim=1).gather(1, indices)
    log_s = rest_of(student_logits, indices)
    kept = (log_q.exp() * (log_q - log_probs)).sum(1)
    return kept + log_s.exp() * (log_s - log_rest)


@mutant("ex04.bucket_kl", "first k entries")
def _(student_logits, indices, log_probs, log_rest):
    log_q = F.log_softmax(student_logits, dim=1)
    k = indices.shape[1]
    log_s = log_q[:, k:].logsumexp(1)
    kept = (log_probs.exp() * (log_probs - log_q[:, :k])).sum(1)
    return kept + log_rest.exp() * (log_rest - log_s)


@mutant("ex04.bucket_kl", "raw logits")
def _(student_logits, indices, log_probs, log_rest):
    kept = torch.zeros_like(student_logits).scatter(1, indices, 1.0).bool()
    z_rest = student_logits.masked_fill(kept, float("-inf")).logsumexp(1)
    z = student_logits.gather(1, indices)
    return (log_probs.exp() * (log_probs - z)).sum(1) + log_rest.exp() * (
        log_rest - z_rest
    )


@mutant("ex04.bucket_kl", "cancellation")
def _(student_logits, indices, log_probs, log_rest):
    q = F.softmax(student_logits, dim=1).gather(1, indices)
    log_s = torch.log(1 - q.sum(1))
    bucket = log_rest.exp() * (log_rest - log_s)
    return kept_terms(student_logits, indices, log_probs) + bucket


@mutant("ex04.bucket_kl", "cancellation")
def _(student_logits, indices, log_probs, log_rest):
    q = F.log_softmax(student_logits, dim=1).gather(1, indices).exp()
    s = (1 - q.sum(1)).clamp(min=1e-9)
    r = log_rest.exp()
    return kept_terms(student_logits, indices, log_probs) + r * torch.log(r / s)


@mutant("ex04.bucket_kl", "softmax, then log")
def _(student_logits, indices, log_probs, log_rest):
    q = F.softmax(student_logits, dim=1)
    kept = torch.zeros_like(q, dtype=torch.bool).scatter(1, indices, True)
    s = q.masked_fill(kept, 0.0).sum(1)
    log_q = F.log_softmax(student_logits, dim=1).gather(1, indices)
    of_kept = (log_probs.exp() * (log_probs - log_q)).sum(1)
    return of_kept + log_rest.exp() * (log_rest - torch.log(s))


@mutant("ex04.bucket_kl", "one number")
def _(student_logits, indices, log_probs, log_rest):
    return bucket_with_cat(student_logits, indices, log_probs, log_rest).mean()


@mutant("ex04.bucket_kl", "one number")
def _(student_logits, indices, log_probs, log_rest):
    return torch.sum(bucket_by_rows(student_logits, indices, log_probs, log_rest))


# ------------------------------------------------------------------ feature_loss


def features_with_mse(student_features, teacher_features, projection, mask):
    projected = F.linear(student_features, projection.T)
    return F.mse_loss(projected[mask], teacher_features[mask])


def features_with_weights(student_features, teacher_features, projection, mask):
    gap = torch.einsum("bls,st->blt", student_features, projection) - teacher_features
    per_token = gap.pow(2).mean(dim=-1)
    return (per_token * mask).sum() / mask.sum()


right("ex04.feature_loss", features_with_mse, features_with_weights)


def squares(student, teacher, projection):
    return F.mse_loss(torch.matmul(student, projection), teacher, reduction="none")


def features_one_by_one(student, teacher, projection, mask):
    rows = zip(student, teacher, mask, strict=True)
    return torch.stack([F.mse_loss(s[m] @ projection, t[m]) for s, t, m in rows]).mean()


def features_padded(student, teacher, projection, mask):
    gap = teacher.shape[-1] - student.shape[-1]
    student = F.pad(student, (0, max(0, gap)))
    teacher = F.pad(teacher, (0, max(0, -gap)))
    return F.mse_loss(student[mask], teacher[mask])


mutants(
    "ex04.feature_loss",
    pads_averaged_in=lambda s, t, w, m: F.mse_loss(s @ w, t),
    pads_learned=lambda s, t, w, m: squares(s, t, w).mean(-1).sum() / m.sum(),
    divided_by_positions=lambda s, t, w, m: (
        squares(s, t, w) * m.unsqueeze(-1).float()
    ).mean(),
    summed_over_dimensions=lambda s, t, w, m: squares(s, t, w)[m].sum() / m.sum(),
    sum=lambda s, t, w, m: (squares(s, t, w) * m[..., None]).sum(),
    root=lambda s, t, w, m: torch.sqrt(F.mse_loss((s @ w)[m], t[m])),
    mean_of_means=features_one_by_one,
    teacher_projected=lambda s, t, w, m: F.mse_loss(s[m], F.linear(t[m], w)),
    widths_cut=features_padded,
    projection_not_learned=lambda s, t, w, m: features_with_mse(
        s, t, w.clone().detach(), m
    ),
    no_gradient=lambda s, t, w, m: torch.tensor(features_with_mse(s, t, w, m).item()),
)
mutant("ex04.feature_loss", "divided by the student's width")(
    lambda s, t, w, m: squares(s, t, w)[m].sum() / (m.sum() * s.shape[-1])
)
mutant("ex04.feature_loss", "root")(
    lambda s, t, w, m: torch.norm(s[m] @ w - t[m], dim=-1).mean()
)


@mutant("ex04.feature_loss", "student not learned")
def _(student_features, teacher_features, projection, mask):
    given = student_features.detach()[mask] @ projection
    return F.mse_loss(given, teacher_features[mask])


@mutant("ex04.feature_loss", "widths cut")
def _(student_features, teacher_features, projection, mask):
    width = min(student_features.shape[-1], teacher_features.shape[-1])
    return F.mse_loss(
        student_features[mask][:, :width], teacher_features[mask][:, :width]
    )


# ------------------------------------------------------------------ relation_loss


def relations_with_cosine_similarity(student_features, teacher_features, mask):
    s, t = student_features[mask], teacher_features[mask]
    of_s = F.cosine_similarity(s[:, None], s[None], dim=-1)
    of_t = F.cosine_similarity(t[:, None], t[None], dim=-1)
    return F.mse_loss(of_s, of_t)


def relations_with_norms(student_features, teacher_features, mask):
    matrices = []
    for x in (student_features[mask], teacher_features[mask]):
        length = x.norm(dim=1)
        matrices.append(x @ x.T / torch.outer(length, length))
    gap = matrices[0] - matrices[1]
    return (gap * gap).sum() / len(gap) ** 2


right("ex04.relation_loss", relations_with_cosine_similarity, relations_with_norms)


def gaps(student, teacher, mask):
    """Differences of cosines, (N, N)."""
    s = student[mask] / student[mask].norm(dim=-1, keepdim=True)
    t = teacher[mask] / teacher[mask].norm(dim=-1, keepdim=True)
    return s.mm(s.t()) - t.mm(t.t())


def products(student, teacher, mask):
    s, t = student[mask], teacher[mask]
    return F.mse_loss(s @ s.T, t @ t.T)


def over_tokens(student, teacher, mask):
    s = student[mask] / student[mask].norm(dim=0, keepdim=True)
    t = teacher[mask] / teacher[mask].norm(dim=0, keepdim=True)
    return F.mse_loss(s @ s.T, t @ t.T)


def pads_too(student, teacher, mask):
    s, t = student.flatten(0, 1), teacher.flatten(0, 1)
    return relations_with_norms(s, t, torch.ones(len(s), dtype=torch.bool))


def pads_as_zeros(student, teacher, mask):
    s = F.normalize(student, dim=-1).reshape(-1, student.shape[-1])
    t = F.normalize(teacher, dim=-1).reshape(-1, teacher.shape[-1])
    real = mask.reshape(-1).float()
    return ((s @ s.T - t @ t.T) * torch.outer(real, real)).pow(2).mean()


def sentence_by_sentence(student, teacher, mask):
    rows = zip(student, teacher, mask, strict=True)
    losses = [relations_with_norms(s, t, m) for s, t, m in rows]
    return torch.stack(losses).mean()


def same_sentence_pairs(student, teacher, mask):
    s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    gap = torch.bmm(s, s.transpose(1, 2)) - torch.bmm(t, t.transpose(1, 2))
    pairs = mask[:, :, None] & mask[:, None, :]
    return gap[pairs].pow(2).mean()


mutants(
    "ex04.relation_loss",
    not_normalised=products,
    normalised_over_tokens=over_tokens,
    pads_averaged_in=pads_too,
    within_sentences=sentence_by_sentence,
    divided_by_the_tokens=lambda s, t, m: (gaps(s, t, m) ** 2).sum() / m.sum(),
    sum=lambda s, t, m: (gaps(s, t, m) ** 2).sum(),
    pairs_with_itself_left_out=lambda s, t, m: (
        gaps(s, t, m)[~torch.eye(int(m.sum()), dtype=torch.bool)] ** 2
    ).mean(),
    absolute_values=lambda s, t, m: gaps(s, t, m).abs().mean(),
    no_gradient=lambda s, t, m: relations_with_norms(s.detach(), t, m),
)
mutant("ex04.relation_loss", "pads averaged in")(pads_as_zeros)
mutant("ex04.relation_loss", "within sentences")(same_sentence_pairs)


@mutant("ex04.relation_loss", "root")
def _(student_features, teacher_features, mask):
    return gaps(student_features, teacher_features, mask).pow(2).mean().sqrt()


@mutant("ex04.relation_loss", "root")
def _(student_features, teacher_features, mask):
    return torch.linalg.matrix_norm(gaps(student_features, teacher_features, mask))


from . import ex04_museum  # noqa: E402, F401
