"""The mistakes by name: what happens, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """A mistake with a name: its row in the bug museum, what happens, the remedy."""

    slug: str
    row: int
    effect: str
    remedy: str


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
