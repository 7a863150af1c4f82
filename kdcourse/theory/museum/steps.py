"""Training steps that are wrong on purpose, by their row in the museum."""

from __future__ import annotations

import torch

from ..losses import IGNORE
from .parts import accumulate, answers, hard_loss, kl, mean_over_real, token_count


def teacher_never_in_eval(student, teacher, batches):
    """Row 12: nobody called teacher.eval()."""
    student.train()
    return accumulate(student, teacher, batches)


def student_left_in_eval(student, teacher, batches):
    """Row 12: train() stood before the first epoch, and the evaluation undid it."""
    teacher.eval()
    return accumulate(student, teacher, batches)


def mean_of_micro_batch_means(student, teacher, batches):
    """Row 16: each micro-batch its own mean, divided by their number."""
    student.train()
    teacher.eval()
    total = torch.zeros(())
    for batch in batches:
        per_token = kl(*answers(student, teacher, batch))
        loss = mean_over_real(per_token, batch["labels"]) / len(batches)
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
    return accumulate(student, teacher, batches)


def term_for_the_log_only(student, teacher, batches):
    """Row 23: the divergence is computed where no gradient is recorded."""
    student.train()
    teacher.eval()
    tokens, total = token_count(batches), torch.zeros(())
    for batch in batches:
        real = batch["labels"] != IGNORE
        student_logits, teacher_logits = answers(student, teacher, batch)
        with torch.no_grad():
            soft = kl(student_logits, teacher_logits)[real].sum() / tokens
        hard = hard_loss(student_logits, batch["labels"]) * real.sum() / tokens
        (soft + hard).backward()
        total += (soft + hard).detach()
    return total


def teacher_answers_for_both(student, teacher, batches):
    """Row 23: the teacher's logits stand on both sides of the divergence."""
    student.train()
    teacher.eval()
    tokens, total = token_count(batches), torch.zeros(())
    for batch in batches:
        real = batch["labels"] != IGNORE
        student_logits, teacher_logits = answers(student, teacher, batch)
        soft = kl(teacher_logits, teacher_logits)[real].sum() / tokens
        hard = hard_loss(student_logits, batch["labels"]) * real.sum() / tokens
        (soft + hard).backward()
        total += (soft + hard).detach()
    return total
