"""The bug museum: mistakes in distillation code that were made in public.

``DIAGNOSES`` gives each mistake its name, ``EXHIBITS`` re-creates it in a few lines of
our own, wrong on purpose, with the place where it was seen. ``audit`` convicts every
exhibit of its own diagnosis and of no other; one exhibit is right, and stands here
because it was reported as wrong.

The functions have the form that ``audit`` calls: a loss takes (student_logits,
teacher_logits, labels), logits (B, L, V) and labels (B, L) that are -100 at pads; a
step takes (student, teacher, batches).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import IGNORE

__all__ = ["DIAGNOSES", "EXHIBITS", "Diagnosis", "Exhibit"]


@dataclass(frozen=True)
class Diagnosis:
    """A mistake with a name: its row in the bug museum, what happens, the remedy."""

    slug: str
    row: int
    effect: str
    remedy: str


@dataclass(frozen=True)
class Exhibit:
    """One mistake: where it was seen, what it does, and code that makes it.

    ``kind`` is "loss" or "step", ``diagnosis`` a slug of ``DIAGNOSES``. Where
    ``false_report`` is set the code is right, the diagnosis None, and ``claim`` tells
    what was asked for and why not.
    """

    number: int
    slug: str
    title: str
    seen_in: str
    effect: str
    kind: str
    function: Callable[..., Tensor]
    diagnosis: str | None
    false_report: bool = False
    claim: str = ""


# -------------------------------------------------------------- the mistakes by name

DIAGNOSES = {
    found.slug: found
    for found in (
        Diagnosis(
            "mean-over-vocabulary",
            1,
            "The mean runs over the vocabulary too: value and gradient are V times too "
            "small, so that beside any other term the teacher hardly counts.",
            'Sum (reduction="sum") and divide by the number of real tokens.',
        ),
        Diagnosis(
            "divided-by-sentences",
            2,
            "The sum over all tokens is divided by the batch size alone: the loss "
            "grows with the length of the sentences, and so does the step.",
            'Divide by the number of real tokens; "batchmean" does it on (N, V) only.',
        ),
        Diagnosis(
            "pads-averaged-in",
            3,
            "Pads are learned and counted like tokens: the loss depends on how "
            "sentences were batched together.",
            "Select the positions with labels != -100 before summing and dividing.",
        ),
        Diagnosis(
            "divided-twice",
            4,
            "A mean over the tokens is divided by their number again: the loss shrinks "
            "as the batch grows.",
            "Divide a sum once, or leave a mean alone.",
        ),
        Diagnosis(
            "mask-from-decoder-inputs",
            5,
            "The mask is made from decoder_input_ids, whose start token is the pad "
            "token: the first token is never learned, and one pad is.",
            "Make the mask from the labels: labels != -100.",
        ),
        Diagnosis(
            "off-by-one",
            6,
            "Student, teacher and mask do not stand at the same position: a token is "
            "learned from its neighbour's answer, or the end of a sentence not at all.",
            "Compare position t with t, and shift nothing: the decoder's input is "
            "shifted already.",
        ),
        Diagnosis(
            "softmax-over-time",
            7,
            "The softmax runs over the positions of the sentence, not over the "
            "vocabulary: no token has a distribution that sums to 1.",
            "Take softmax(dim=-1); dim=1 is the vocabulary of (N, V) only.",
        ),
        Diagnosis(
            "not-log-probabilities",
            8,
            "kl_div got something else than log-probabilities as its input: the value "
            "is no divergence, and it is not least where student and teacher agree.",
            "Call kl_div(log_softmax(student, -1), softmax(teacher, -1)).",
        ),
        Diagnosis(
            "wrong-direction",
            8,
            "Student and teacher are swapped: it is the divergence in the other "
            "direction, which seeks modes where the declared one covers them, or the "
            "reverse.",
            "Put the student first in kl_div(student, teacher), or declare "
            "divergence= if this direction is meant.",
        ),
        Diagnosis(
            "log-target-forgotten",
            9,
            "The target is log-probabilities, but is read as probabilities: the log of "
            "a negative number makes the value NaN.",
            "Pass softmax(teacher), or log_target=True with log_softmax(teacher).",
        ),
        Diagnosis(
            "t-squared-forgotten",
            10,
            "The factor T² is missing: the gradient of the soft term falls as 1/T², so "
            "that raising T switches the teacher off.",
            "Multiply the soft term by T².",
        ),
        Diagnosis(
            "t-squared-doubled",
            10,
            "The factor T² stands there twice: the gradient of the soft term grows as "
            "T², so that raising T drowns the labels.",
            "Multiply by T² in one place.",
        ),
        Diagnosis(
            "t-squared-one-branch",
            10,
            "The factor T² differs between the branch with and the branch without hard "
            "labels: switching them off changes the size of the soft term.",
            "Multiply the soft term by T² in both branches.",
        ),
        Diagnosis(
            "one-side-softened",
            10,
            "Only one of teacher and student is divided by T: the student is asked to "
            "be softer, or sharper, than the teacher is.",
            "Divide both logits by T.",
        ),
        Diagnosis(
            "cross-entropy-as-kl",
            11,
            "It is a cross-entropy, H(p, q) = H(p) + KL(p ‖ q): the gradient is right, "
            "but at equality it is the teacher's entropy and not 0, so that the curve "
            "does not show how near the student is.",
            "Subtract H(p), or call it cross-entropy.",
        ),
        Diagnosis(
            "teacher-in-train-mode",
            12,
            "The teacher runs with its dropout on: it gives another, worse answer to "
            "the same question each time.",
            "Call teacher.eval(), and again after any train() that reaches it.",
        ),
        Diagnosis(
            "student-in-eval-mode",
            12,
            "The student is trained in eval mode, left there by the last evaluation: "
            "its dropout is off.",
            "Call student.train() at the start of the step.",
        ),
        Diagnosis(
            "vocabulary-padded-with-zeros",
            13,
            "Where one vocabulary is smaller, its missing logits are set to 0: tokens "
            "that do not exist get probability.",
            "Refuse logits of two sizes, cut both to the common entries, or pad with "
            "-inf.",
        ),
        Diagnosis(
            "top-k-renormalised",
            14,
            "The k kept entries are made to sum to 1: the student is taught that the "
            "rest is impossible, or its mass there is not looked at. The bias grows "
            "with T.",
            "Keep the missing mass as one more event, the bucket of all others.",
        ),
        Diagnosis(
            "mean-of-means",
            16,
            "Each micro-batch is divided by its own number of tokens: a token in a "
            "short micro-batch weighs more, and accumulation changes the result.",
            "Divide every micro-batch by the real tokens of the whole step.",
        ),
        Diagnosis(
            "eos-erased",
            17,
            "Labels equal to the pad token are ignored, and here that is the "
            "end-of-sentence token: the student never learns to stop.",
            "Make the mask from labels != -100, and set -100 by position, not by id.",
        ),
        Diagnosis(
            "low-precision",
            18,
            "The divergence is computed in the 16 bits of its inputs: where student "
            "and teacher are near, rounding is larger than the value, and tokens "
            "come out negative.",
            "Raise the logits first: logits.float().",
        ),
        Diagnosis(
            "beta-mirrored",
            19,
            "β is read the other way round: a small β gives the reverse KL where the "
            "forward KL is meant.",
            "Use m = β teacher + (1-β) student, and weigh the teacher's KL by β.",
        ),
        Diagnosis(
            "term-without-gradient",
            23,
            "A term is in the value but not in the gradient: it is printed, and "
            "teaches nothing.",
            "Look for detach(), item() or no_grad() between the student and the term.",
        ),
        Diagnosis(
            "teacher-with-itself",
            23,
            "Another teacher changes nothing: one side is compared with itself, or the "
            "teacher not at all, and the curve looks perfect.",
            "Pass the student's logits and the teacher's, each from its own model.",
        ),
    )
}
"""Every named mistake by its slug; ``row`` is its number in the bug museum."""


# ------------------------------------------------------ what the exhibits do right


def _log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return (logits.float() / temperature).log_softmax(-1)


def _kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of each position, (B, L)."""
    log_q, log_p = (_log_softmax(x, temperature) for x in (student, teacher))
    return F.kl_div(log_q, log_p.exp(), reduction="none").sum(-1)


def _mean(per_token: Tensor, labels: Tensor) -> Tensor:
    return per_token[labels != IGNORE].mean()


def _hard(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the labels, the mean over real tokens."""
    logits = student.float().flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def _tokens(batches: list[dict]) -> int:
    return sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)


def _inputs(batch: dict) -> tuple[Tensor, Tensor, Tensor]:
    return batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"]


def _answers(student, teacher, batch: dict) -> tuple[Tensor, Tensor]:
    """The student's logits and the teacher's."""
    with torch.no_grad():
        teacher_logits = teacher(*_inputs(batch)).logits
    return student(*_inputs(batch)).logits, teacher_logits


def _accumulate(student, teacher, batches: list[dict]) -> Tensor:
    """A right step, once the modes of both models are set."""
    tokens, total = _tokens(batches), torch.zeros(())
    for batch in batches:
        per_token = _kl(*_answers(student, teacher, batch))
        loss = per_token[batch["labels"] != IGNORE].sum() / tokens
        loss.backward()
        total += loss.detach()
    return total


# ------------------------------------------------------------------- losses, by row


def mean_over_vocabulary(student_logits, teacher_logits, labels):
    """Row 1: the mean over (N, V), which is kl_div's default reduction."""
    log_q, log_p = (_log_softmax(x) for x in (student_logits, teacher_logits))
    real = labels != IGNORE
    return F.kl_div(log_q[real], log_p[real].exp(), reduction="none").mean()


def divided_by_sentences(student_logits, teacher_logits, labels):
    """Row 2: "batchmean" divides (B, L, V) by B."""
    per_token = _kl(student_logits, teacher_logits)
    return per_token[labels != IGNORE].sum() / len(labels)


def pads_averaged_in(student_logits, teacher_logits, labels):
    """Row 3: the mean over all positions."""
    return _kl(student_logits, teacher_logits).mean()


def divided_twice(student_logits, teacher_logits, labels):
    """Row 4: a mean, divided by the number of tokens once more."""
    loss = _mean(_kl(student_logits, teacher_logits), labels)
    return loss / (labels != IGNORE).sum()


def mask_from_decoder_inputs(
    student_logits, teacher_logits, labels, *, decoder_input_ids, pad_token_id
):
    """Row 5: the start token is the pad token, so the mask lies one to the right."""
    mask = decoder_input_ids != pad_token_id
    return _kl(student_logits, teacher_logits)[mask].mean()


def mask_off_by_one(student_logits, teacher_logits, labels):
    """Row 6: logits cut for a causal model, labels not: position t, mask of t + 1."""
    per_token = _kl(student_logits[:, :-1], teacher_logits[:, :-1])
    return per_token[labels[:, 1:] != IGNORE].mean()


def teacher_off_by_one(student_logits, teacher_logits, labels):
    """Row 6: the student at t is compared with the teacher at t + 1."""
    per_token = _kl(student_logits[:, :-1], teacher_logits[:, 1:])
    return per_token[labels[:, :-1] != IGNORE].mean()


def softmax_over_time(student_logits, teacher_logits, labels):
    """Row 7: dim=1 is the vocabulary of (N, V), and the time of (B, L, V)."""
    log_q = student_logits.float().log_softmax(1)
    p = teacher_logits.float().softmax(1)
    return _mean(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def softmax_for_log_softmax(student_logits, teacher_logits, labels):
    """Row 8: kl_div's input is a distribution, where its logarithm belongs."""
    q, p = (_log_softmax(x).exp() for x in (student_logits, teacher_logits))
    return _mean(F.kl_div(q, p, reduction="none").sum(-1), labels)


def arguments_swapped(student_logits, teacher_logits, labels):
    """Row 8: the teacher stands where the student belongs."""
    return _mean(_kl(teacher_logits, student_logits), labels)


def log_target_forgotten(student_logits, teacher_logits, labels):
    """Row 9: log-probabilities as a target that is read as probabilities."""
    log_q, log_p = (_log_softmax(x) for x in (student_logits, teacher_logits))
    return _mean(F.kl_div(log_q, log_p, reduction="none").sum(-1), labels)


def reported_though_right(student_logits, teacher_logits, labels):
    """Row 9, the false report: log-probabilities and probabilities, as kl_div asks."""
    log_q, p = _log_softmax(student_logits), _log_softmax(teacher_logits).exp()
    return _mean(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def t_squared_forgotten(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: softened, and left small."""
    return _mean(_kl(student_logits, teacher_logits, temperature), labels)


def t_squared_doubled(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: T² within the term, and once more where the terms are added."""
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature)
    return temperature**2 * _mean(soft, labels)


def t_squared_with_labels_only(
    student_logits, teacher_logits, labels, *, temperature, alpha
):
    """Row 10: the early return without hard labels has no T²."""
    soft = _mean(_kl(student_logits, teacher_logits, temperature), labels)
    if not alpha:
        return soft
    return alpha * _hard(student_logits, labels) + (1 - alpha) * temperature**2 * soft


def student_alone_softened(student_logits, teacher_logits, labels, *, temperature):
    """Row 10: the teacher's logits are not divided by T."""
    log_q = _log_softmax(student_logits, temperature)
    p = _log_softmax(teacher_logits).exp()
    soft = F.kl_div(log_q, p, reduction="none").sum(-1)
    return temperature**2 * _mean(soft, labels)


def cross_entropy_as_kl(student_logits, teacher_logits, labels):
    """Row 11: -Σ p log q, printed as "kl"."""
    log_q, p = _log_softmax(student_logits), _log_softmax(teacher_logits).exp()
    return _mean(-(p * log_q).sum(-1), labels)


def vocabulary_padded_with_zeros(student_logits, teacher_logits, labels):
    """Row 13: the missing logits are 0, which is a probability like any other."""
    sizes = student_logits.shape[-1], teacher_logits.shape[-1]
    pair = [
        F.pad(x, (0, max(sizes) - x.shape[-1]))
        for x in (student_logits, teacher_logits)
    ]
    return _mean(_kl(*pair), labels)


def top_k_teacher_renormalised(student_logits, teacher_logits, labels, *, k):
    """Row 14: a softmax over what was kept of the teacher."""
    kept, indices = teacher_logits.topk(k, dim=-1)
    log_q = _log_softmax(student_logits).gather(-1, indices)
    p = _log_softmax(kept).exp()
    return _mean(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def top_k_both_renormalised(student_logits, teacher_logits, labels, *, k):
    """Row 14: a softmax of both over the kept entries, blind to all others."""
    kept, indices = teacher_logits.topk(k, dim=-1)
    return _mean(_kl(student_logits.gather(-1, indices), kept), labels)


def normalizer_ignored(student_logits, teacher_logits, labels, *, normalizer):
    """Row 16: the tokens of the whole step are handed over, and not used."""
    return _mean(_kl(student_logits, teacher_logits), labels)


def eos_taken_for_pad(student_logits, teacher_logits, labels, *, pad_token_id):
    """Row 17: pads are recognised by their id, which EOS may share."""
    mask = (labels != IGNORE) & (labels != pad_token_id)
    return _kl(student_logits, teacher_logits)[mask].mean()


def kl_in_16_bits(student_logits, teacher_logits, labels):
    """Row 18: computed in the dtype that the models gave."""
    log_q, p = student_logits.log_softmax(-1), teacher_logits.softmax(-1)
    return _mean(F.kl_div(log_q, p, reduction="none").sum(-1), labels)


def _generalised_js(student_logits, teacher_logits, weight: float, share: float):
    """weight KL(p ‖ m) + (1 - weight) KL(q ‖ m), m = share p + (1 - share) q."""
    p, q = (_log_softmax(x).exp() for x in (teacher_logits, student_logits))
    m = share * p + (1 - share) * q
    of_p, of_q = ((torch.xlogy(x, x) - torch.xlogy(x, m)).sum(-1) for x in (p, q))
    return weight * of_p + (1 - weight) * of_q


def beta_of_the_student(student_logits, teacher_logits, labels, *, beta):
    """Row 19: β is taken for the student's share and weight, throughout."""
    per_token = _generalised_js(student_logits, teacher_logits, 1 - beta, 1 - beta)
    return _mean(per_token, labels)


def mixture_mirrored(student_logits, teacher_logits, labels, *, beta):
    """Row 19: only the mixture takes β for the student's share."""
    per_token = _generalised_js(student_logits, teacher_logits, beta, 1 - beta)
    return _mean(per_token, labels)


def hard_term_detached(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: the labels' term comes out of a function that records no gradient."""
    soft = _mean(_kl(student_logits, teacher_logits), labels)
    hard = _hard(student_logits, labels).detach()
    return alpha * hard + (1 - alpha) * soft


def soft_term_detached(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: the soft term is detached for the log, and then added."""
    soft = _mean(_kl(student_logits, teacher_logits), labels).detach()
    return alpha * _hard(student_logits, labels) + (1 - alpha) * soft


def teacher_against_itself(student_logits, teacher_logits, labels, *, alpha):
    """Row 23: one name for both, and the KL is 0 from the first step on."""
    soft = _mean(_kl(teacher_logits, teacher_logits), labels)
    return alpha * _hard(student_logits, labels) + (1 - alpha) * soft


# -------------------------------------------------------------------- steps, by row


def teacher_never_in_eval(student, teacher, batches):
    """Row 12: nobody called teacher.eval()."""
    student.train()
    return _accumulate(student, teacher, batches)


def student_left_in_eval(student, teacher, batches):
    """Row 12: train() stood before the first epoch, and the evaluation undid it."""
    teacher.eval()
    return _accumulate(student, teacher, batches)


def mean_of_micro_batch_means(student, teacher, batches):
    """Row 16: each micro-batch its own mean, divided by their number."""
    student.train()
    teacher.eval()
    total = torch.zeros(())
    for batch in batches:
        per_token = _kl(*_answers(student, teacher, batch))
        loss = _mean(per_token, batch["labels"]) / len(batches)
        loss.backward()
        total += loss.detach()
    return total


def eos_erased_by_padding(student, teacher, batches):
    """Row 17: labels are set to -100 wherever the pad token's id stands."""
    for batch in batches:
        erased = batch["labels"] == batch["pad_token_id"]
        batch["labels"] = batch["labels"].masked_fill(erased, IGNORE)
    student.train()
    teacher.eval()
    return _accumulate(student, teacher, batches)


def term_for_the_log_only(student, teacher, batches):
    """Row 23: the divergence is computed where no gradient is recorded."""
    student.train()
    teacher.eval()
    tokens, total = _tokens(batches), torch.zeros(())
    for batch in batches:
        real = batch["labels"] != IGNORE
        student_logits, teacher_logits = _answers(student, teacher, batch)
        with torch.no_grad():
            soft = _kl(student_logits, teacher_logits)[real].sum() / tokens
        hard = _hard(student_logits, batch["labels"]) * real.sum() / tokens
        (soft + hard).backward()
        total += (soft + hard).detach()
    return total


def teacher_answers_for_both(student, teacher, batches):
    """Row 23: the teacher's logits stand on both sides of the divergence."""
    student.train()
    teacher.eval()
    tokens, total = _tokens(batches), torch.zeros(())
    for batch in batches:
        real = batch["labels"] != IGNORE
        student_logits, teacher_logits = _answers(student, teacher, batch)
        soft = _kl(teacher_logits, teacher_logits)[real].sum() / tokens
        hard = _hard(student_logits, batch["labels"]) * real.sum() / tokens
        (soft + hard).backward()
        total += (soft + hard).detach()
    return total


EXHIBITS = (
    Exhibit(
        1,
        "mean-over-vocabulary",
        "The mean that divides by the vocabulary too",
        "haitongli/knowledge-distillation-pytorch#48, facebookresearch/deit#61, "
        "HikariTJU/LD#74",
        "The loss is V times too small: 7.8e-5 where 2.53 is right, at V = 32,000.",
        "loss",
        mean_over_vocabulary,
        "mean-over-vocabulary",
    ),
    Exhibit(
        2,
        "batchmean-over-sentences",
        '"batchmean" divides by sentences, not by tokens',
        "huggingface/transformers#1181, neuralmagic/sparseml#592",
        "The loss is as many times too large as a sentence has tokens.",
        "loss",
        divided_by_sentences,
        "divided-by-sentences",
    ),
    Exhibit(
        3,
        "pads-averaged-in",
        "Pads are averaged in",
        "TextBrewer's default, KD_Lib",
        "A student that is right at each real token pays: 1.05 where the truth is 0.",
        "loss",
        pads_averaged_in,
        "pads-averaged-in",
    ),
    Exhibit(
        4,
        "divided-twice",
        "Divided by the tokens twice",
        "modelscope/easydistill#34",
        "The loss has 1/N of its size, and less the larger the batch.",
        "loss",
        divided_twice,
        "divided-twice",
    ),
    Exhibit(
        5,
        "mask-from-decoder-inputs",
        "A mask from the decoder's inputs",
        "f-distill, Hugging Face's old seq2seq-distillation",
        "The first token is never learned, and one pad of each shorter sentence is.",
        "loss",
        mask_from_decoder_inputs,
        "mask-from-decoder-inputs",
    ),
    Exhibit(
        6,
        "mask-off-by-one",
        "Logits cut, mask not",
        "DistillKit's trainer, f-distill's chat code, modelscope/ms-swift#8436",
        "The last token, the end of the sentence, is never learned, in silence.",
        "loss",
        mask_off_by_one,
        "off-by-one",
    ),
    Exhibit(
        6,
        "teacher-off-by-one",
        "Teacher and student one position apart",
        "linkedin/fmchisel#23",
        "Each token is learned from the answer to the next one, in silence.",
        "loss",
        teacher_off_by_one,
        "off-by-one",
    ),
    Exhibit(
        7,
        "softmax-over-time",
        "Softmax over time",
        "torchdistill's KDLoss on (B, L, V)",
        "No distribution is compared with another: 44,739 where 25.1 is right.",
        "loss",
        softmax_over_time,
        "softmax-over-time",
    ),
    Exhibit(
        8,
        "softmax-for-log-softmax",
        "A softmax where a log-softmax belongs",
        "KD_Lib, microsoft/ProDA#43",
        "The value is below 0 even at equality, and lowest somewhere else.",
        "loss",
        softmax_for_log_softmax,
        "not-log-probabilities",
    ),
    Exhibit(
        8,
        "arguments-swapped",
        "Teacher and student swapped",
        "haitongli/knowledge-distillation-pytorch#27",
        "The reverse KL is trained under the name of the forward one.",
        "loss",
        arguments_swapped,
        "wrong-direction",
    ),
    Exhibit(
        9,
        "log-target-forgotten",
        "Log-probabilities as the target",
        "asked for in nlp-with-transformers/notebooks#94",
        "The value is NaN.",
        "loss",
        log_target_forgotten,
        "log-target-forgotten",
    ),
    Exhibit(
        9,
        "reported-though-right",
        "The false report",
        "nlp-with-transformers/notebooks#94",
        "None: the code that was reported as wrong is right.",
        "loss",
        reported_though_right,
        None,
        false_report=True,
        claim="The maintainers were asked to pass log_softmax(teacher) as kl_div's "
        "target, since its input is a log_softmax too. The call was right: kl_div "
        "takes the logarithm of its target itself, unless log_target=True is given. "
        "The change that was asked for makes the loss NaN, as the exhibit before this.",
    ),
    Exhibit(
        10,
        "t-squared-forgotten",
        "T² forgotten",
        "IntelLabs/distiller#122, TextBrewer, keras-team/keras-io#869",
        "The soft term fades: its gradient falls 525 times from T = 1 to T = 20.",
        "loss",
        t_squared_forgotten,
        "t-squared-forgotten",
    ),
    Exhibit(
        10,
        "t-squared-doubled",
        "T² twice",
        "a variation on row 10, for comparison",
        "The soft term's gradient grows as T², and drowns the labels.",
        "loss",
        t_squared_doubled,
        "t-squared-doubled",
    ),
    Exhibit(
        10,
        "t-squared-with-labels-only",
        "T² only where labels are mixed in",
        "torchdistill with alpha=None",
        "Leaving the labels out makes the soft term T² times smaller.",
        "loss",
        t_squared_with_labels_only,
        "t-squared-one-branch",
    ),
    Exhibit(
        10,
        "student-alone-softened",
        "T divides the student only",
        "a variation on row 10, for comparison",
        "The student is asked to be sharper than its teacher: not 0 at equality.",
        "loss",
        student_alone_softened,
        "one-side-softened",
    ),
    Exhibit(
        11,
        "cross-entropy-as-kl",
        "A cross-entropy that is called KL",
        "MiniLLM, DistiLLM, torchtune",
        "The curve ends at the teacher's entropy: 8.37 at equality, where 0 is right.",
        "loss",
        cross_entropy_as_kl,
        "cross-entropy-as-kl",
    ),
    Exhibit(
        12,
        "teacher-never-in-eval",
        "The teacher's dropout is on",
        "yxuansu/TaCL#11",
        "The teacher gives another, worse answer each time, in silence.",
        "step",
        teacher_never_in_eval,
        "teacher-in-train-mode",
    ),
    Exhibit(
        12,
        "student-left-in-eval",
        "The student's dropout is off",
        "KD_Lib after its first epoch",
        "From the second epoch on the student trains without dropout, in silence.",
        "step",
        student_left_in_eval,
        "student-in-eval-mode",
    ),
    Exhibit(
        13,
        "vocabulary-padded-with-zeros",
        "Missing tokens get logit 0",
        "the base class of Liger's distillation losses",
        "Tokens that do not exist get probability: KL 0.156 where 0 is right.",
        "loss",
        vocabulary_padded_with_zeros,
        "vocabulary-padded-with-zeros",
    ),
    Exhibit(
        14,
        "top-k-teacher-renormalised",
        "The kept entries are made to sum to 1",
        "modelscope/easydistill 1.0, and many others",
        "The student is taught that the rest is impossible, more so at a higher T.",
        "loss",
        top_k_teacher_renormalised,
        "top-k-renormalised",
    ),
    Exhibit(
        14,
        "top-k-both-renormalised",
        "Only the kept entries are compared",
        "modelscope/easydistill 1.0, and many others",
        "What the student puts outside of the kept entries costs nothing.",
        "loss",
        top_k_both_renormalised,
        "top-k-renormalised",
    ),
    Exhibit(
        16,
        "normalizer-ignored",
        "The tokens of the whole step are not used",
        "huggingface/trl#4719, huggingface/trl#6006",
        "Tokens of short micro-batches weigh more: 0.533 where 0.458 is right.",
        "loss",
        normalizer_ignored,
        "mean-of-means",
    ),
    Exhibit(
        16,
        "mean-of-micro-batch-means",
        "The mean of micro-batch means",
        "huggingface/trl#4719, huggingface/trl#6006",
        "Accumulating a batch in parts changes its gradient.",
        "step",
        mean_of_micro_batch_means,
        "mean-of-means",
    ),
    Exhibit(
        17,
        "eos-taken-for-pad",
        "EOS is taken for a pad by the loss",
        "huggingface/trl#6357",
        "The student never learns to stop.",
        "loss",
        eos_taken_for_pad,
        "eos-erased",
    ),
    Exhibit(
        17,
        "eos-erased-by-padding",
        "EOS is taken for a pad in the step",
        "huggingface/trl#6357",
        "The student never learns to stop.",
        "step",
        eos_erased_by_padding,
        "eos-erased",
    ),
    Exhibit(
        18,
        "kl-in-16-bits",
        "A KL in bfloat16",
        "modelscope/ms-swift#10156",
        "More than half of the tokens, 57 %, come out below 0.",
        "loss",
        kl_in_16_bits,
        "low-precision",
    ),
    Exhibit(
        19,
        "beta-of-the-student",
        "β taken for the student's share",
        "a variation on row 19, for comparison",
        "What is asked for as nearly forward is nearly reverse.",
        "loss",
        beta_of_the_student,
        "beta-mirrored",
    ),
    Exhibit(
        19,
        "mixture-mirrored",
        "β mirrored in the mixture only",
        "huggingface/trl#3043, whose tests were wrong too",
        "As β → 0 it is the reverse KL, undivided.",
        "loss",
        mixture_mirrored,
        "beta-mirrored",
    ),
    Exhibit(
        23,
        "hard-term-detached",
        "The labels' term is printed but not learned",
        "axolotl-ai-cloud/axolotl#3660",
        "With the labels alone the gradient is 0, and the curve shows nothing of it.",
        "loss",
        hard_term_detached,
        "term-without-gradient",
    ),
    Exhibit(
        23,
        "soft-term-detached",
        "The teacher's term is printed but not learned",
        "a variation on row 23, for comparison",
        "The soft term is in the curve and not in the gradient.",
        "loss",
        soft_term_detached,
        "term-without-gradient",
    ),
    Exhibit(
        23,
        "teacher-against-itself",
        "A teacher compared with itself",
        "labmlai/annotated_deep_learning_paper_implementations#66",
        "The soft term is 0 from the first step: the curve looks perfect.",
        "loss",
        teacher_against_itself,
        "teacher-with-itself",
    ),
    Exhibit(
        23,
        "term-for-the-log-only",
        "A divergence computed without a gradient",
        "a variation on row 23, for comparison",
        "The soft term is in the curve and not in the gradient.",
        "step",
        term_for_the_log_only,
        "term-without-gradient",
    ),
    Exhibit(
        23,
        "teacher-answers-for-both",
        "The teacher's answer on both sides",
        "labmlai/annotated_deep_learning_paper_implementations#66",
        "The soft term is 0 from the first step: the curve looks perfect.",
        "step",
        teacher_answers_for_both,
        "teacher-with-itself",
    ),
)
"""The mistakes that can be seen in code, in the order of the museum's rows."""
