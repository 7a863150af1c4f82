"""The audit on wrong losses, which it must convict, and right ones, which it must not.

A report costs a few hundredths of a second, so each is made once and kept.
"""

from __future__ import annotations

import functools
import math
import sys

import pytest
import torch
from torch.nn import functional as F

from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.audit import (
    DIAGNOSES,
    OPTIONS,
    Diagnosis,
    Finding,
    Report,
    adapt,
    audit,
    audit_step,
    references,
    worlds,
)
from kdcourse.theory.divergences import DIVERGENCES, FROM_LOG_PROBS, generalised_js
from kdcourse.theory.losses import distillation_loss, fused_distillation_loss
from kdcourse.theory.museum import EXHIBITS
from kdcourse.theory.signals import top_k


def slugs(report):
    return [found.slug for found in report.diagnoses]


def finding(report, label):
    (found,) = (f for f in report.findings if f.property == label)
    return found


def failed(report):
    return {f.property for f in report.failed}


@functools.cache
def report_of(exhibit):
    return (audit if exhibit.kind == "loss" else audit_step)(exhibit.function)


@functools.cache
def plain_audit(fn):
    return audit(fn)


# ------------------------------------------------------------------------- the museum


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda e: f"{e.number}-{e.slug}")
def test_each_exhibit_is_convicted_of_its_mistake_and_of_no_other(exhibit):
    report = report_of(exhibit)
    wanted = [] if exhibit.false_report else [exhibit.diagnosis]
    assert slugs(report) == wanted, str(report)
    assert report.passed == exhibit.false_report
    assert all(found.row == exhibit.number for found in report.diagnoses)


def test_the_museum_holds_every_row_that_code_can_show():
    rows = {exhibit.number for exhibit in EXHIBITS}
    assert rows == {*range(1, 15), *range(16, 20), 23}
    assert len({exhibit.slug for exhibit in EXHIBITS}) == len(EXHIBITS)
    for exhibit in EXHIBITS:
        assert exhibit.title and exhibit.seen_in and exhibit.effect.endswith(".")
        assert exhibit.kind in ("loss", "step")
    shown = {exhibit.diagnosis for exhibit in EXHIBITS} - {None}
    assert shown == set(DIAGNOSES), "each diagnosis has its exhibit"


def test_the_false_report_is_right_and_says_why():
    (exhibit,) = (e for e in EXHIBITS if e.false_report)
    assert exhibit.number == 9 and exhibit.diagnosis is None
    assert "log_target=True" in exhibit.claim
    report_of(exhibit).raise_if_failed()


def test_the_audit_measures_what_each_mistake_does():
    """A few of the figures, from the museum's own description of the mistake."""
    by_slug = {exhibit.slug: report_of(exhibit) for exhibit in EXHIBITS}
    for slug, label, words in (
        ("mean-over-vocabulary", "impossible tokens", "0.786 times"),  # 11 / 14
        ("batchmean-over-sentences", "length", "2 times as large"),
        ("batchmean-over-sentences", "batch size", "the value is the same"),
        ("divided-twice", "batch size", "0.5 times as large"),
        ("divided-twice", "scale", "the square of the 15 real tokens"),
        ("pads-averaged-in", "pads", "6 of 6 pads have a gradient"),
        ("mask-from-decoder-inputs", "real tokens", "first tokens: 0 of 3"),
        ("mask-from-decoder-inputs", "pads", "2 of 6 pads"),
        ("mask-off-by-one", "real tokens", "end-of-sentence tokens: 0 of 3"),
        ("teacher-off-by-one", "position", "at row 0, position 2"),
        ("arguments-swapped", "divergence", "reverse_kl and not forward_kl"),
        ("t-squared-forgotten", "temperature: gradient", "T² D times T^-2"),
        ("t-squared-with-labels-only", "temperature: gradient", "with hard labels T^0"),
        ("top-k-both-renormalised", "top-k: missing mass", "elsewhere costs 0"),
        ("normalizer-ignored", "micro-batches", "normalizer changes nothing"),
        ("eos-taken-for-pad", "EOS where the pad token is EOS", "tokens: 0 of 3"),
        ("kl-in-16-bits", "precision", "bfloat16 near equality: off by more than 2 %"),
        ("mixture-mirrored", "beta", "near 0 it is a multiple of reverse_kl"),
        ("hard-term-detached", "hard labels", "at alpha = 1 no gradient"),
        ("mean-of-micro-batch-means", "micro-batches", "the mean of the parts' own"),
        ("teacher-never-in-eval", "teacher in eval mode", "in 1 of 1 calls"),
    ):
        found = finding(by_slug[slug], label)
        assert found.status == "failed" or "the same" in words, (slug, found)
        assert words in found.evidence, (slug, found.evidence)


# --------------------------------------------------------------------- what is right


def ours(divergence):
    def loss(s, t, y, *, temperature, alpha, normalizer):
        return distillation_loss(
            s,
            t,
            labels=y,
            temperature=temperature,
            alpha=alpha,
            normalizer=normalizer,
            divergence=divergence,
        )

    return loss


def ours_of_top_k(divergence):
    def loss(s, t, y, *, temperature, alpha, k):
        signal = top_k(t, k, temperature=temperature)
        return distillation_loss(
            s,
            signal,
            labels=y,
            temperature=temperature,
            alpha=alpha,
            divergence=divergence,
        )

    return loss


def ours_fused(s, t, y, *, temperature, alpha, normalizer):
    """The student's logits as hidden states, and a head that changes nothing."""
    head = torch.nn.Linear(s.shape[-1], s.shape[-1], bias=False, dtype=s.dtype)
    with torch.no_grad():
        head.weight.copy_(torch.eye(s.shape[-1]))
    options = {"temperature": temperature, "alpha": alpha, "normalizer": normalizer}
    return fused_distillation_loss(s, head, t, labels=y, **options)


def ours_generalised_js(s, t, y, *, temperature, beta):
    pair = {"student_logits": s, "teacher_logits": t}
    per_token = generalised_js(**pair, beta=beta, temperature=temperature)
    return temperature**2 * per_token[y != -100].mean()


def loops(s, t, y):
    """Token by token, with Python's own loop."""
    total, count = 0.0, 0
    for z_s, z_t, label in zip(
        s.flatten(0, 1), t.flatten(0, 1), y.flatten(), strict=True
    ):
        if label != -100:
            log_q, log_p = z_s.float().log_softmax(0), z_t.float().log_softmax(0)
            total = total + torch.dot(log_p.exp(), log_p - log_q)
            count += 1
    return total / count


def torchs_kl_div(s, t, y):
    real = y != -100
    log_q, p = s[real].float().log_softmax(-1), t[real].float().softmax(-1)
    return F.kl_div(log_q, p, reduction="sum") / real.sum()


def torchs_kl_div_of_logs(s, t, y, *, temperature=1.0):
    """log_target=True, "batchmean" on (N, V), T² outside."""
    real = y != -100
    log_q, log_p = ((x[real].float() / temperature).log_softmax(-1) for x in (s, t))
    loss = F.kl_div(log_q, log_p.detach(), reduction="batchmean", log_target=True)
    return loss * temperature**2


def einsum(s, t, y, *, normalizer=None):
    log_q, log_p = s.float().log_softmax(-1), t.float().log_softmax(-1)
    mask = (y != -100).float()
    total = torch.einsum("blv,blv,bl->", log_p.exp(), log_p - log_q, mask)
    return total / (mask.sum() if normalizer is None else normalizer)


def in_float64(s, t, y, *, alpha, temperature):
    """Masked by a product, hard labels by hand, all in float64."""
    mask = (y != -100).double()
    log_q, log_p = ((x.double() / temperature).log_softmax(-1) for x in (s, t))
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
    picked = y.clamp_min(0)[..., None]
    hard = -s.double().log_softmax(-1).gather(-1, picked).squeeze(-1)
    return (((1 - alpha) * soft + alpha * hard) * mask).sum() / mask.sum()


def cross_entropies(s, t, y):
    """H(p, q) - H(p), by torch's cross_entropy on probabilities."""
    real = y != -100
    p = t[real].float().softmax(-1)
    q_part = F.cross_entropy(s[real].float(), p)
    return q_part - F.cross_entropy(t[real].float(), p)


def mask_of_decoder_inputs_read_right(
    s, t, y, *, decoder_input_ids, pad_token_id, eos_token_id
):
    """It takes all these options, and needs none of them."""
    return torchs_kl_div(s, t, y)


def common_vocabulary(s, t, y, *, k):
    """Cut to the entries that both have, and to the bucket of all others."""
    size = min(s.shape[-1], t.shape[-1])
    signal = top_k(t[..., :size], min(k, size))
    return distillation_loss(s[..., :size], signal, labels=y)


def half_the_result(s, t, y):
    """Computed in float32, and only then given in the dtype of the student."""
    return torchs_kl_div(s, t, y).to(s.dtype)


def reverse(s, t, y):
    real = y != -100
    log_q, log_p = (x[real].float().log_softmax(-1) for x in (s, t))
    return F.kl_div(log_p, log_q, reduction="sum", log_target=True) / real.sum()


def squared_difference(s, t, y):
    p, q = t.float().softmax(-1), s.float().softmax(-1)
    return (p - q).square().sum(-1)[y != -100].mean()


def refuses_16_bits(s, t, y):
    if s.dtype not in (torch.float32, torch.float64):
        raise TypeError("float32 or float64, please")
    return torchs_kl_div(s, t, y)


class AsModule(torch.nn.Module):
    """A loss that is a module, as torch's own are."""

    def forward(self, student_logits, teacher_logits, labels, temperature: float = 1.0):
        return torchs_kl_div_of_logs(
            student_logits, teacher_logits, labels, temperature=temperature
        )


def as_trl_documents_it(
    student_logits, teacher_logits, labels=None, beta=0.5, temperature=1.0
):
    """Generalised JS of GKD with its two ends, divided by the real tokens; no T²."""
    log_q, log_p = (
        (x / temperature).log_softmax(-1) for x in (student_logits, teacher_logits)
    )
    if beta == 0:
        loss = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    elif beta == 1:
        loss = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    else:
        parts = log_q + math.log(1 - beta), log_p + math.log(beta)
        log_m = torch.logsumexp(torch.stack(parts), dim=0)
        of_p, of_q = (
            F.kl_div(log_m, x, reduction="none", log_target=True)
            for x in (log_p, log_q)
        )
        loss = beta * of_p + (1 - beta) * of_q
    mask = labels != -100
    return loss[mask].sum() / mask.sum()


def other_order(teacher, student):
    """(N, V) each, a sum, and the teacher first."""
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum")


def with_mask_and_short_names(s, t, mask, T=1.0):
    log_q, log_p = ((x.float() / T).log_softmax(-1) for x in (s, t))
    per_token = (log_p.exp() * (log_p - log_q)).sum(-1)
    return T**2 * (per_token * mask).sum() / mask.sum()


RIGHT = {
    **{f"ours, {name}": (ours(name), name) for name in DIVERGENCES},
    **{f"top-k, {name}": (ours_of_top_k(name), name) for name in DIVERGENCES},
    "fused": (ours_fused, None),
    "generalised JS with beta": (ours_generalised_js, None),
    "loops": (loops, None),
    "torch's kl_div": (torchs_kl_div, None),
    "torch's kl_div of logs": (torchs_kl_div_of_logs, None),
    "einsum": (einsum, None),
    "float64": (in_float64, None),
    "cross-entropies": (cross_entropies, None),
    "needless options": (mask_of_decoder_inputs_read_right, None),
    "common vocabulary": (common_vocabulary, None),
    "result in 16 bits": (half_the_result, None),
    "reverse, declared": (reverse, "reverse_kl"),
    "any": (squared_difference, "any"),
    "total variation as any": (ours("total_variation"), "any"),
    "refuses 16 bits": (refuses_16_bits, None),
    "a module": (AsModule(), None),
    "a partial": (functools.partial(torchs_kl_div_of_logs, temperature=1.0), None),
    "TRL's, adapted": (
        adapt(as_trl_documents_it, options=["beta"], float32=True),
        None,
    ),
    "KLDivLoss, adapted": (
        adapt(
            torch.nn.KLDivLoss(reduction="sum"),
            takes="student_log_probs teacher_probs",
            tokens="real",
            divide=True,
        ),
        None,
    ),
    "KLDivLoss of logs, adapted": (
        adapt(
            torch.nn.KLDivLoss(reduction="batchmean", log_target=True),
            takes="student_log_probs teacher_log_probs",
            tokens="real",
        ),
        None,
    ),
    "another order, adapted": (
        adapt(
            other_order,
            takes="teacher_logits student_logits",
            tokens="real",
            divide=True,
            float32=True,
        ),
        None,
    ),
    "a mask, adapted": (
        adapt(
            with_mask_and_short_names,
            takes="student_logits teacher_logits mask",
            rename={"temperature": "T"},
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_loss_is_not_blamed(name):
    fn, divergence = RIGHT[name]
    report = audit(fn, divergence=divergence)
    assert report.diagnoses == () and report.passed, str(report)
    report.raise_if_failed()


def test_right_code_without_the_adapter_s_help_is_told_what_it_lacks():
    """TRL's leaves T² and float32 to its caller, and is told so where it is asked."""
    assert slugs(audit(as_trl_documents_it)) == ["t-squared-forgotten", "low-precision"]
    adapted = adapt(as_trl_documents_it, float32=True)
    assert slugs(audit(adapted)) == ["t-squared-forgotten"]


# ----------------------------------------------------------------------------- steps


def kl_sum(student_logits, teacher_logits, labels):
    return torchs_kl_div(student_logits, teacher_logits, labels) * (
        labels != -100
    ).sum().clamp_min(1)


def inputs(batch):
    return {
        name: batch[name]
        for name in ("input_ids", "attention_mask", "decoder_input_ids")
    }


def step_by_step(student, teacher, batches):
    """A backward pass for each micro-batch, and one divisor for all."""
    student.train()
    teacher.eval()
    tokens = sum((batch["labels"] != -100).sum() for batch in batches)
    total = 0.0
    for batch in batches:
        with torch.no_grad():
            wanted = teacher(**inputs(batch)).logits
        logits = student(**inputs(batch)).logits
        loss = kl_sum(logits, wanted, batch["labels"]) / tokens
        loss.backward()
        total = total + loss.detach()
    return total


def step_at_once(student, teacher, batches):
    """One backward pass, hard labels mixed in, an evaluation in between."""
    student.train()
    teacher.train(False).requires_grad_(False)
    sums, tokens = [], 0
    for batch in batches:
        arguments = tuple(inputs(batch).values())
        logits, wanted = student(*arguments).logits, teacher(*arguments).logits
        soft = kl_sum(logits, wanted, batch["labels"])
        hard = F.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
        )
        sums.append(0.7 * soft + 0.3 * hard)
        tokens += int((batch["labels"] != -100).sum())
    student.eval()
    with torch.no_grad():
        student(*arguments)
    student.train()
    loss = torch.stack(sums).sum() / tokens
    loss.backward()
    return loss


@pytest.mark.parametrize("step", [step_by_step, step_at_once])
def test_a_right_step_is_not_blamed(step):
    report = audit_step(step)
    assert report.diagnoses == () and report.passed, str(report)


def step_with(mask_of):
    def step(student, teacher, batches):
        student.train()
        teacher.eval()
        tokens = sum(int((b["labels"] != -100).sum()) for b in batches)
        total = 0.0
        for batch in batches:
            with torch.no_grad():
                wanted = teacher(**inputs(batch)).logits
            logits = student(**inputs(batch)).logits
            marked = mask_of(batch).long() - 1  # 0 where real, -1 else
            labels = marked.masked_fill(marked < 0, -100)
            loss = kl_sum(logits, wanted, labels) / tokens
            loss.backward()
            total = total + loss.detach()
        return total

    return step


@pytest.mark.parametrize(
    ("mask_of", "slug"),
    [
        (lambda b: b["labels"] == b["labels"], "pads-averaged-in"),
        (
            lambda b: b["decoder_input_ids"] != b["pad_token_id"],
            "mask-from-decoder-inputs",
        ),
        (
            lambda b: F.pad(b["labels"], (0, 1), value=-100)[:, 1:] != -100,
            "off-by-one",
        ),
        (
            lambda b: F.pad(b["labels"], (1, 0), value=-100)[:, :-1] != -100,
            "off-by-one",
        ),
    ],
)
def test_a_mask_is_judged_within_a_step_too(mask_of, slug):
    assert slugs(audit_step(step_with(mask_of))) == [slug]


all_positions = step_with(lambda batch: batch["labels"] == batch["labels"])
ends_left_out = step_with(lambda batch: batch["labels"] > 1)


def not_a_number(student, teacher, batches):
    return step_by_step(student, teacher, batches) * math.nan


def teaches_both(student, teacher, batches):
    student.train()
    teacher.eval()
    (logits, wanted) = (m(**inputs(batches[0])).logits for m in (student, teacher))
    loss = torchs_kl_div(logits, wanted, batches[0]["labels"])
    loss.backward()
    return loss


def without_gradient(student, teacher, batches):
    student.train()
    teacher.eval()
    with torch.no_grad():
        (logits, wanted) = (m(**inputs(batches[0])).logits for m in (student, teacher))
        return torchs_kl_div(logits, wanted, batches[0]["labels"])


def test_a_step_that_teaches_the_teacher_or_nobody():
    report = audit_step(teaches_both)
    assert failed(report) == {"teacher learns nothing", "micro-batches"}
    assert "a gradient stands on the teacher's parameters" in str(report)
    report = audit_step(without_gradient)
    assert {"student learns", "another teacher"} <= failed(report)
    assert slugs(report) == ["term-without-gradient"]


# ----------------------------------------------- mistakes that are not in the museum


def kl(s, t, temperature=1.0):
    log_q, log_p = ((x.float() / temperature).log_softmax(-1) for x in (s, t))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def masked_mean(per_token, y):
    return per_token[y != -100].mean()


def hard_labels(s, y):
    return F.cross_entropy(s.float().flatten(0, 1), y.flatten())


def batch_size_and_one(s, t, y):
    return kl(s, t)[y != -100].sum() / (len(y) + 1)


def a_sum(s, t, y):
    return kl(s, t)[y != -100].sum()


def a_sum_whatever_the_normalizer(s, t, y, *, normalizer):
    """Parts of it do add up."""
    return a_sum(s, t, y)


def mask_one_late(s, t, y, *, decoder_input_ids, pad_token_id):
    """The mask of row 5, but not made from the decoder's inputs."""
    late = F.pad(y, (1, 0), value=-100)[:, :-1]
    return masked_mean(kl(s, t), late)


def pads_in_the_divisor(s, t, y):
    return (kl(s, t) * (y != -100)).mean()


def mean_of_sentence_means(s, t, y):
    mask = y != -100
    return ((kl(s, t) * mask).sum(1) / mask.sum(1)).mean()


def halved_logits(s, t, y):
    return masked_mean(kl(s, t, 2.0), y)


def alpha_twice(s, t, y, *, alpha):
    soft = (1 - alpha) * masked_mean(kl(s, t), y)
    return alpha * hard_labels(s, y) + (1 - alpha) * soft


def alpha_mirrored(s, t, y, *, alpha):
    return alpha * masked_mean(kl(s, t), y) + (1 - alpha) * hard_labels(s, y)


def t_squared_on_the_labels_too(s, t, y, *, temperature, alpha):
    soft = masked_mean(kl(s, t, temperature), y)
    return temperature**2 * (alpha * hard_labels(s, y) + (1 - alpha) * soft)


def t_once(s, t, y, *, temperature):
    return temperature * masked_mean(kl(s, t, temperature), y)


def logits_times_t(s, t, y, *, temperature):
    return masked_mean(kl(s, t, 1 / temperature), y)


def dropout_on_the_logits(s, t, y):
    return masked_mean(kl(F.dropout(s, 0.3), t), y)


def clamped_logits(s, t, y):
    return masked_mean(kl(s.clamp(-5, 5), t.clamp(-5, 5)), y)


def inverted_mask(s, t, y):
    return kl(s, t)[y == -100].mean()


def root_of_the_loss(s, t, y):
    return masked_mean(kl(s, t), y).sqrt()


def softmax_twice(s, t, y):
    return masked_mean(kl(s.float().softmax(-1), t.float().softmax(-1)), y)


def best_answer_only(s, t, y):
    picked = s.float().log_softmax(-1).gather(-1, t.argmax(-1, keepdim=True))
    return masked_mean(-picked.squeeze(-1), y)


def smoothed_logarithm(s, t, y):
    p, q = t.float().softmax(-1), s.float().softmax(-1)
    return masked_mean((p * ((p + 1e-2).log() - (q + 1e-2).log())).sum(-1), y)


def always_in_bfloat16(s, t, y):
    log_q, log_p = (x.bfloat16().log_softmax(-1) for x in (s, t))
    return masked_mean((log_p.exp() * (log_p - log_q)).sum(-1), y)


def difference_of_logits(s, t, y):
    return masked_mean((s - t).float().square().mean(-1), y)


def softmax_over_the_batch(s, t, y):
    log_q, log_p = s.float().log_softmax(0), t.float().log_softmax(0)
    return masked_mean((log_p.exp() * (log_p - log_q)).sum(-1), y)


def tail_forgotten(s, t, y, *, k):
    """The sum over the kept entries alone: it can fall below 0."""
    log_p, kept = t.float().log_softmax(-1).topk(k, dim=-1)
    log_q = s.float().log_softmax(-1).gather(-1, kept)
    return masked_mean((log_p.exp() * (log_p - log_q)).sum(-1), y)


def beta_weights_mirrored(s, t, y, *, beta):
    """(1-β) KL(p ‖ m) + β KL(q ‖ m): continuous with both KLs, and not GKD's."""
    p, q = t.float().softmax(-1), s.float().softmax(-1)
    m = beta * p + (1 - beta) * q
    of_p, of_q = ((torch.xlogy(x, x) - torch.xlogy(x, m)).sum(-1) for x in (p, q))
    return masked_mean((1 - beta) * of_p + beta * of_q, y)


def softens_in_place(s, t, y):
    t /= 2.0
    return masked_mean(kl(s, 2 * t), y)


def reverse_by_kl_div(s, t, y):
    """Right where all is possible; at q = 0 torch's gradient is 0 · log 0."""
    return torchs_kl_div(t, s, y)


def wrong_on_wide_logits(s, t, y):
    if s.shape[-1] > 12:
        raise RuntimeError("no kernel for this size")
    return masked_mean(kl(s, t), y)


SHIFTED = "a constant added to all logits of a token"
# function, a property that fails, words of its evidence, diagnoses
WILD = [
    (batch_size_and_one, "scale", "a sum divided by the sentences and one more, 4", []),
    (a_sum, "scale", "a sum divided by nothing", []),
    (a_sum_whatever_the_normalizer, "scale", "a sum divided by nothing", []),
    (mask_one_late, "real tokens", "first tokens: 0 of 3", ["off-by-one"]),
    (pads_in_the_divisor, "scale", "the 21 positions, pads included", []),
    (mean_of_sentence_means, "scale", "times forward_kl", []),
    (halved_logits, "divergence", "no multiple of forward_kl", []),
    (alpha_twice, "hard labels", "at alpha = 0.5", []),
    (alpha_mirrored, "hard labels", "alpha is the teacher's share here", []),
    (t_squared_on_the_labels_too, "hard labels", "alpha = 1, T = 4 16 times", []),
    (t_once, "temperature: gradient", "T² D times T^-1", []),
    (logits_times_t, "temperature: gradient", "T² D times T^1", []),
    (dropout_on_the_logits, "repeatable", "the same inputs give", []),
    (clamped_logits, "constant shift", SHIFTED, []),
    (inverted_mask, "real tokens", "0 of 15 real tokens have a gradient", []),
    (root_of_the_loss, "least at equality", "not finite", []),
    (softmax_twice, "divergence", "no multiple of forward_kl", []),
    (best_answer_only, "zero at equality", "the value is", []),
    (smoothed_logarithm, "divergence", "no multiple of forward_kl", []),
    (always_in_bfloat16, "precision", "moves in steps", ["low-precision"]),
    (difference_of_logits, "constant shift", SHIFTED, []),
    (softmax_over_the_batch, "constant shift", SHIFTED, []),
    (tail_forgotten, "top-k: bound", "no rising bound", []),
    (beta_weights_mirrored, "beta", "at 0.1 beta is mirrored in the weights", []),
    (softens_in_place, "inputs left alone", "the logits of the teacher", []),
    (wrong_on_wide_logits, "impossible tokens", "it raises RuntimeError: no ker", []),
]


@pytest.mark.parametrize(
    ("fn", "label", "words", "wanted"), WILD, ids=[row[0].__name__ for row in WILD]
)
def test_a_mistake_outside_the_museum_fails_and_is_not_blamed_on_another(
    fn, label, words, wanted
):
    report = plain_audit(fn)
    assert not report.passed
    found = finding(report, label)
    assert found.status == "failed" and words in found.evidence, str(report)
    assert slugs(report) == wanted, str(report)
    assert wanted or "No mistake of the museum fits" in str(report)


LOSS_PROPERTIES = """finite, repeatable, inputs left alone, zero at equality,
least at equality, never negative, divergence, scale, pads, real tokens, position,
batch size, length, impossible tokens, vocabularies of two sizes, constant shift,
micro-batches, student learns, another teacher, temperature: gradient,
temperature: value, hard labels, beta, top-k: bound, top-k: missing mass, precision,
EOS where the pad token is EOS"""
STEP_PROPERTIES = """finite, student learns, student in train mode,
teacher in eval mode, teacher learns nothing, another teacher, pads, real tokens,
EOS where the pad token is EOS, micro-batches"""


def listed(names):
    return " ".join(names.split()).split(", ")


def test_each_property_of_a_loss_is_failed_by_something():
    reports = [report_of(exhibit) for exhibit in EXHIBITS if exhibit.kind == "loss"]
    reports += [plain_audit(row[0]) for row in WILD]
    reports.append(plain_audit(learns_nothing))
    for report in reports:
        assert [f.property for f in report.findings] == listed(LOSS_PROPERTIES)
    assert set().union(*map(failed, reports)) == set(listed(LOSS_PROPERTIES))


def learns_nothing(s, t, y):
    return masked_mean(kl(s, t), y).detach()


def test_each_property_of_a_step_is_failed_by_something():
    reports = [report_of(exhibit) for exhibit in EXHIBITS if exhibit.kind == "step"]
    steps = [without_gradient, teaches_both, not_a_number]
    steps += [all_positions, ends_left_out]
    reports += map(audit_step, steps)
    for report in reports:
        assert [f.property for f in report.findings] == listed(STEP_PROPERTIES)
    assert set().union(*map(failed, reports)) == set(listed(STEP_PROPERTIES))


@pytest.mark.parametrize(
    ("fn", "wanted"),
    [
        # As they come in the wild: two mistakes in one line.
        (
            adapt(
                torch.nn.KLDivLoss(reduction="batchmean"),
                takes="student_log_probs teacher_probs",
            ),
            ["divided-by-sentences", "pads-averaged-in"],
        ),
        (
            lambda s, t, y, *, temperature: kl(s, t, temperature).mean(),
            ["pads-averaged-in", "t-squared-forgotten"],
        ),
        (
            lambda s, t, y, *, normalizer: masked_mean(kl(t, s), y),
            ["wrong-direction", "mean-of-means"],
        ),
        (
            lambda s, t, y, *, temperature: masked_mean(
                -(t / temperature).softmax(-1) * (s / temperature).log_softmax(-1), y
            ),
            [
                "mean-over-vocabulary",
                "t-squared-forgotten",
                "cross-entropy-as-kl",
            ],
        ),
        (
            lambda s, t, y, *, alpha: (
                alpha * hard_labels(s, y)
                + (1 - alpha) * masked_mean(kl(s, t), y).detach()
            ),
            ["term-without-gradient"],
        ),
        (
            lambda s, t, y: 0.5 * hard_labels(s, y) + masked_mean(kl(t, t), y),
            ["teacher-with-itself"],
        ),
        (
            lambda s, t, y, *, temperature: (
                temperature**2 * masked_mean(kl(s * temperature, t, temperature), y)
            ),
            ["one-side-softened"],
        ),
    ],
)
def test_several_mistakes_at_once_are_all_named(fn, wanted):
    assert slugs(audit(fn)) == wanted


def test_the_reverse_kl_by_torchs_kl_div_has_no_gradient_where_q_is_0():
    report = audit(reverse_by_kl_div, divergence="reverse_kl")
    assert failed(report) == {"impossible tokens"} and slugs(report) == []
    evidence = finding(report, "impossible tokens").evidence
    assert evidence.endswith("the value is finite, but not the gradient")


def test_a_divergence_is_wrong_only_where_another_was_declared():
    assert slugs(audit(reverse)) == ["wrong-direction"]
    assert slugs(audit(torchs_kl_div, divergence="reverse_kl")) == ["wrong-direction"]
    assert audit(reverse, divergence="any").passed
    report = audit(ours("total_variation"))
    assert slugs(report) == []
    assert finding(report, "divergence").evidence.endswith(
        "which is total_variation and not forward_kl"
    )


# -------------------------------------------------------------------------- the report


def test_what_a_loss_has_no_option_for_is_not_applicable():
    report = audit(torchs_kl_div)
    status = {f.property: f.status for f in report.findings}
    for label in (
        "temperature: gradient",
        "temperature: value",
        "hard labels",
        "beta",
        "top-k: bound",
        "micro-batches",
        "EOS where the pad token is EOS",
    ):
        assert status[label] == "not applicable"
    assert status["pads"] == status["scale"] == "passed"
    assert finding(report, "beta").evidence == "no option beta"


def test_any_leaves_the_formula_untested_and_nothing_else():
    report = audit(squared_difference, divergence="any")
    untested = {f.property for f in report.findings if 'divergence="any"' in f.evidence}
    assert untested == {"divergence", "scale"}
    assert finding(report, "pads").status == "passed"


def test_nothing_is_measured_of_a_loss_that_is_not_a_number():
    report = audit(lambda s, t, y: kl(s, t).sum() * math.nan)
    assert failed(report) == {"finite"} and slugs(report) == []
    assert finding(report, "pads").evidence == (
        "not tested, since the value is not finite"
    )
    # With the gradient of a KL it is not the NaN of a forgotten log_target.
    assert slugs(audit(lambda s, t, y: masked_mean(kl(s, t), y) + math.nan)) == []
    infinite = audit(lambda s, t, y: kl(s, t).sum().detach() + math.inf)
    assert failed(infinite) == {"finite"}


TEXT = """\
Audit of mean_over_vocabulary: FAILED, 17 of 19 properties hold
Diagnosis mean-over-vocabulary (museum, row 1)
  What happens: The mean runs over the vocabulary too: value and gradient are V times
         too small, so that beside any other term the teacher hardly counts.
  Remedy: Sum (reduction="sum") and divide by the number of real tokens.
  FAILED scale: the value is 0.0909 times forward_kl, a mean over real tokens, a sum
         divided by real tokens times entries of the vocabulary, 15 · 11
  FAILED impossible tokens: with three tokens of logit -1e4 (with -inf it is not finite)
         more the value is 0.786 times as large, with another gradient
  passed finite: one number, 0.191, with a finite gradient
  passed repeatable: two calls on the same inputs give the same value
  passed inputs left alone: the logits are the same after the call
  passed zero at equality: where the student is the teacher the value is 0
  passed least at equality: where the student is the teacher there is no gradient
  passed never negative: no value of 11 is below 0
  passed divergence: teacher (0.75, 0.25), student (0.5, 0.5): 0.0654, as 0.5 times
         forward_kl on 5 such pairs
  passed pads: 0 of 6 pads have a gradient; with three pads more in each row the value
         is the same
"""


def test_the_text_of_a_report():
    (exhibit,) = (e for e in EXHIBITS if e.slug == "mean-over-vocabulary")
    text = str(report_of(exhibit))
    assert text.startswith(TEXT), text
    assert "  n/a    beta: no option beta\n" in text
    assert all(len(line) <= 88 for line in text.splitlines())


@pytest.mark.parametrize("slug", ["t-squared-with-labels-only", "kl-in-16-bits"])
def test_the_text_is_the_same_each_time_whatever_was_drawn_before(slug):
    (exhibit,) = (e for e in EXHIBITS if e.slug == slug)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    with torch.no_grad():  # nor does it matter whether the caller records gradients
        again = audit(exhibit.function)
    assert str(again) == str(report_of(exhibit))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_draws_at_random_gets_the_same_report_too():
    texts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        texts.append(str(audit(dropout_on_the_logits)))
    assert texts[0] == texts[1]


def test_raise_if_failed_raises_the_text():
    audit(torchs_kl_div).raise_if_failed()
    with pytest.raises(AssertionError, match="Audit of my loss: FAILED") as caught:
        audit(a_sum, name="my loss").raise_if_failed()
    assert "a sum divided by nothing" in " ".join(str(caught.value).split())


def test_the_parts_of_a_report_are_values():
    report = Report("x", (Finding("p", "failed", "e"),), (DIAGNOSES["off-by-one"],))
    assert not report.passed and report.failed[0].evidence == "e"
    assert isinstance(report.diagnoses[0], Diagnosis)
    with pytest.raises(AttributeError):
        report.name = "y"
    assert audit(AsModule()).name == "AsModule"
    assert audit(RIGHT["a partial"][0]).name == "torchs_kl_div_of_logs"


# ------------------------------------------------------------------------- bad use


def raises(s, t, y):
    raise KeyError("logits")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: audit("kl"), "loss_fn is a str. Wanted: a function loss_fn"),
        (lambda: audit(torch.tensor(1.0)), "loss_fn is a Tensor"),
        (
            lambda: audit(lambda s, t, y: kl(s, t)),
            r"returns a tensor of shape \(3, 7\)\. Wanted: one number",
        ),
        (
            lambda: audit(lambda s, t, y: kl(s, t).sum()[None]),
            r"returns a tensor of shape \(1,\)",
        ),
        (lambda: audit(lambda s, t, y: 1.0), "returns a float and no tensor"),
        (lambda: audit(raises), "a function that raises KeyError: 'logits'"),
        (lambda: audit(lambda s, t: kl(s, t).sum()), "too many positional arguments"),
        (
            lambda: audit(lambda s, t, y, *, mask: kl(s, t).sum()),
            "missing a required argument: 'mask'.* To do: .*adapt",
        ),
        (lambda: audit(torchs_kl_div, divergence="kl"), "divergence is 'kl'"),
        (lambda: audit_step(3), "step_fn is a int. Wanted: a function step_fn"),
        (lambda: audit_step(lambda s, t, b: None), "returns a NoneType and no tensor"),
        (lambda: audit_step(raises), "step_fn is a function that raises KeyError"),
        (lambda: audit(lambda s, t, y: kl(s, t).sum() * 1j), "tensor of torch.complex"),
        (lambda: audit(lambda s, t, y: kl(s, t).sum().to_sparse()), "torch.sparse_coo"),
        (lambda: audit(lambda s, t, y: kl(s, t).sum().to("meta")), "a tensor on meta"),
        (lambda: audit(torchs_kl_div, name=3), "name is 3. Wanted: a text"),
        (lambda: audit(torchs_kl_div, divergence=["kl"]), r"divergence is \['kl'\]"),
        (lambda: audit_step(lambda s, t, b: torch.tensor(1j)), "torch.complex"),
        (lambda: audit_step(lambda s, t, b: torch.ones((), device="meta")), "on meta"),
        (lambda: audit_step(raises, name=3), "name is 3. Wanted: a text"),
        (lambda: adapt(1), "fn is a int"),
        (lambda: adapt(raises, takes=["labels"]), r"takes is \['labels'\]. Wanted: a"),
        (lambda: adapt(raises, takes=" "), "takes is ' '. Wanted: a text of one"),
        (lambda: adapt(raises, tokens=["all"]), r"tokens is \['all'\]"),
        (lambda: adapt(raises, options="temperature"), "options is 'temperature'"),
        (lambda: adapt(raises, options=None), "options is None. Wanted: a list"),
        (lambda: adapt(raises, options=[["k"]]), r"options is \['k'\]"),
        (lambda: adapt(raises, rename=["k"]), r"rename is \['k'\]. Wanted: a dict"),
        (lambda: adapt(raises, divide="no"), "divide is 'no'. Wanted: True or False"),
        (lambda: adapt(raises, float32=1), "float32 is 1. Wanted: True or False"),
        (lambda: adapt(raises, takes="logits"), "takes is 'logits'"),
        (lambda: adapt(raises, tokens="some"), "tokens is 'some'"),
        (lambda: adapt(raises, options=["T"]), "options is 'T'"),
        (lambda: adapt(raises, rename={"T": "t"}), "rename is 'T'"),
        (
            lambda: adapt(raises, rename={"temperature": "t0"}),
            "rename is temperature='t0'",
        ),
    ],
)
def test_bad_use_is_one_clear_sentence(call, words):
    with pytest.raises(BadArgument, match=words):
        call()


@pytest.mark.parametrize("divergence", [None, *DIVERGENCES, "any"])
@pytest.mark.parametrize(
    "loss",
    [lambda s, t, y: 0 * s.sum(), lambda s, t, y: torch.tensor(3)],
    ids=["nothing, with a graph", "a whole number"],
)
def test_a_loss_that_says_nothing_gets_its_report(loss, divergence):
    report = audit(loss, divergence=divergence)
    assert not report.passed and "FAILED" in str(report)


def test_what_was_raised_inside_is_kept_as_the_cause():
    with pytest.raises(BadArgument) as caught:
        audit(raises)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_is_not_taken_for_a_mistake_of_the_loss():
    def interrupted(s, t, y):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(interrupted)


# ------------------------------------------------------------ what the audit rests on


def test_the_references_are_the_divergences():
    """Written out in float64 on their own, they agree with the package's."""
    assert references.REFERENCES.keys() == DIVERGENCES.keys()
    generator = torch.Generator().manual_seed(2)
    logits = [
        torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2)
    ]
    log_p, log_q = (x.log_softmax(-1) for x in logits)
    for name, reference in references.REFERENCES.items():
        ours = FROM_LOG_PROBS[name](log_p, log_q)
        assert (reference(log_p.exp(), log_q.exp()) - ours).abs().max() < 1e-12


def test_the_formulas_differ_by_far_more_than_the_tolerance():
    """On the two-point examples no formula is nearly a multiple of another."""
    points = worlds.two_point_worlds()
    pairs = [references.both_probabilities(world) for world in points]
    logits = [world.student.double() for world in points]
    values = [
        torch.stack([f(p, q).mean() for p, q in pairs])
        for f in references.REFERENCES.values()
    ] + [
        torch.stack(
            [f(p, q, z).mean() for (p, q), z in zip(pairs, logits, strict=True)]
        )
        for f in references.OTHER_FORMULAS.values()
    ]
    units = torch.stack([v / v.norm() for v in values])
    for i, unit in enumerate(units):
        others = torch.cat([units[:i], units[i + 1 :]])
        nearest = (others - (others @ unit)[:, None] * unit).norm(dim=1).min()
        assert nearest > 0.02


def test_the_world_tells_the_divisors_apart():
    world = worlds.make_world(0)
    b, length, size = world.student.shape
    n = world.count
    divisors = [1, b, b + 1, n, length, size, b * length, n * size, b * length * size]
    divisors += [n * n, n + 1, n - 1]
    assert len(set(divisors)) == len(divisors)


def test_the_module_s_text_names_every_option():
    for option in OPTIONS:
        assert f"``{option}``" in sys.modules["kdcourse.theory.audit"].__doc__
