"""Losses that are wrong on purpose, by their row in the museum."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..losses import IGNORE
from .parts import hard_loss, kl, log_softmax, mean_over_real


def mean_over_vocabulary(student_logits, teacher_logits, labels):
    """Row 1: the mean over (N, V), which is kl_div's default reduction."""
    log_q, log_p = (log_softmax(x) for x in (student_logits, teacher_logits))
    real = labels != IGNORE
    return F.kl_div(log_q[real], log_p[real].exp(), reduction="none").mean()


def divided_by_sentences(student_logits, teacher_logits, labels):
    """Row 2: "batchmean" divides (B, L, V) by B."""
    per_token = kl(student_logits, teacher_logits)
    return per_token[labels != IGNORE].sum() / len(labels)


def pads_averaged_in(student_logits, teacher_logits, labels):
    """Row 3: the mean over all positions."""
    return kl(student_logits, teacher_logits).mean()


def divided_twice(student_logits, teacher_logits, labels):
    """Row 4: a mean, divided by the number of tokens once more."""
    loss = mean_over_real(kl(student_logits, teacher_logits), labels)
    return loss / (labels != IGNORE).sum()


def mask_from_decoder_inputs(
    student_logits, teacher_logits, labels, *, decoder_input_ids, pad_token_id
):
    """Row 5: the start token is the pad token, so the mask lies one to the right."""
    mask = decoder_input_ids != pad_token_id
    return kl(student_logits, teacher_logits)[mask].mean()


def mask_off_by_one(student_logits, teacher_logits, labels):
    """Row 6: logits cut for a causal model, labels not: position t, mask of t + 1."""
    per_token = kl(student_logits[:, :-1], teacher_logits[:, :-1])
    return per_token[labels[:, 1:] != IGNORE].mean()


def teacher_off_by_one(student_logits, teacher_logits, labels):
    """Row 6: the student at t is compared with the teacher at t + 1."""
    per_token = kl(student_logits[:, :-1], teacher_logits[:, 1:])
    return per_token[labels[:, :-1] != IGNORE].mean()


def softmax_over_time(student_logits, teacher_logits, labels):
    """Row 7: dim=1 is the vocabulary of (N, V), and the time of (B, L, V)."""
    log_q = student_logits.float().log_softmax(1)
    p = teacher_logits.float().softmax(1)
    return mean_over_real(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def softmax_for_log_softmax(student_logits, teacher_logits, labels):
    """Row 8: kl_div's input is a distribution, where its logarithm belongs."""
    q, p = (log_softmax(x).exp() for x in (student_logits, teacher_logits))
    return mean_over_real(F.kl_div(q, p, reduction="none").sum(-1), labels)


def arguments_swapped(student_logits, teacher_logits, labels):
    """Row 8: the teacher stands where the student belongs."""
    return mean_over_real(kl(teacher_logits, student_logits), labels)


def log_target_forgotten(student_logits, teacher_logits, labels):
    """Row 9: log-probabilities as a target that is read as probabilities."""
    log_q, log_p = (log_softmax(x) for x in (student_logits, teacher_logits))
    return mean_over_real(F.kl_div(log_q, log_p, reduction="none").sum(-1), labels)


def reported_though_right(student_logits, teacher_logits, labels):
    """Row 9, the false report: log-probabilities and probabilities, as kl_div asks."""
    log_q, p = log_softmax(student_logits), log_softmax(teacher_logits).exp()
    return mean_over_real(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def t_squared_forgotten(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: softened, and left small."""
    return mean_over_real(kl(student_logits, teacher_logits, temperature), labels)


def t_squared_doubled(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: T² within the term, and once more where the terms are added."""
    soft = temperature**2 * kl(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_over_real(soft, labels)


def t_squared_with_labels_only(
    student_logits, teacher_logits, labels, *, temperature, alpha
):
    """Row 10: the early return without hard labels has no T²."""
    soft = mean_over_real(kl(student_logits, teacher_logits, temperature), labels)
    if not alpha:
        return soft
    return (
        alpha * hard_loss(student_logits, labels) + (1 - alpha) * temperature**2 * soft
    )


def student_alone_softened(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: the teacher's logits are not divided by T."""
    log_q = log_softmax(student_logits, temperature)
    p = log_softmax(teacher_logits).exp()
    soft = F.kl_div(log_q, p, reduction="none").sum(-1)
    return temperature**2 * mean_over_real(soft, labels)


def cross_entropy_as_kl(student_logits, teacher_logits, labels):
    """Row 11: -Σ p log q, printed as "kl"."""
    log_q, p = log_softmax(student_logits), log_softmax(teacher_logits).exp()
    return mean_over_real(-(p * log_q).sum(-1), labels)


def vocabulary_padded_with_zeros(student_logits, teacher_logits, labels):
    """Row 13: the missing logits are 0, which is a probability like any other."""
    sizes = student_logits.shape[-1], teacher_logits.shape[-1]
    pair = [
        F.pad(x, (0, max(sizes) - x.shape[-1]))
        for x in (student_logits, teacher_logits)
    ]
    return mean_over_real(kl(*pair), labels)


def top_k_teacher_renormalised(student_logits, teacher_logits, labels, *, k):
    """Row 14: a softmax over what was kept of the teacher."""
    kept, indices = teacher_logits.topk(k, dim=-1)
    log_q = log_softmax(student_logits).gather(-1, indices)
    p = log_softmax(kept).exp()
    return mean_over_real(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def top_k_both_renormalised(student_logits, teacher_logits, labels, *, k):
    """Row 14: a softmax of both over the kept entries, blind to all others."""
    kept, indices = teacher_logits.topk(k, dim=-1)
    return mean_over_real(kl(student_logits.gather(-1, indices), kept), labels)


def normalizer_ignored(student_logits, teacher_logits, labels, *, normalizer):
    """Row 16: the tokens of the whole step are handed over, and not used."""
    return mean_over_real(kl(student_logits, teacher_logits), labels)


def eos_taken_for_pad(student_logits, teacher_logits, labels, *, pad_token_id):
    """Row 17: pads are recognised by their id, which EOS may share."""
    mask = (labels != IGNORE) & (labels != pad_token_id)
    return kl(student_logits, teacher_logits)[mask].mean()


def kl_in_16_bits(student_logits, teacher_logits, labels):
    """Row 18: computed in the dtype that the models gave."""
    log_q, p = student_logits.log_softmax(-1), teacher_logits.softmax(-1)
    return mean_over_real(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def _generalised_js(student_logits, teacher_logits, weight: float, share: float):
    """weight KL(p ‖ m) + (1 - weight) KL(q ‖ m), m = share p + (1 - share) q."""
    p, q = (log_softmax(x).exp() for x in (teacher_logits, student_logits))
    m = share * p + (1 - share) * q
    of_p, of_q = ((torch.xlogy(x, x) - torch.xlogy(x, m)).sum(-1) for x in (p, q))
    return weight * of_p + (1 - weight) * of_q


def beta_of_the_student(student_logits, teacher_logits, labels, *, beta):
    """Row 19: β is taken for the student's share and weight, throughout."""
    per_token = _generalised_js(student_logits, teacher_logits, 1 - beta, 1 - beta)
    return mean_over_real(per_token, labels)


def mixture_mirrored(student_logits, teacher_logits, labels, *, beta):
    """Row 19: only the mixture takes β for the student's share."""
    per_token = _generalised_js(student_logits, teacher_logits, beta, 1 - beta)
    return mean_over_real(per_token, labels)


def hard_term_detached(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: the labels' term comes out of a function that records no gradient."""
    soft = mean_over_real(kl(student_logits, teacher_logits), labels)
    hard = hard_loss(student_logits, labels).detach()
    return alpha * hard + (1 - alpha) * soft


def soft_term_detached(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: the soft term is detached for the log, and then added."""
    soft = mean_over_real(kl(student_logits, teacher_logits), labels).detach()
    return alpha * hard_loss(student_logits, labels) + (1 - alpha) * soft


def teacher_against_itself(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: one name for both, and the KL is 0 from the first step on."""
    soft = mean_over_real(kl(teacher_logits, teacher_logits), labels)
    return alpha * hard_loss(student_logits, labels) + (1 - alpha) * soft
