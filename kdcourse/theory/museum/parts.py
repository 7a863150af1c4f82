"""What the exhibits do right: softmax, KL, the mean over real tokens, a step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import IGNORE


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / T) in float32, over the vocabulary."""
    return (logits.float() / temperature).log_softmax(-1)


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of each position, (B, L)."""
    log_q, log_p = (log_softmax(x, temperature) for x in (student, teacher))
    return F.kl_div(log_q, log_p.exp(), reduction="none").sum(-1)


def mean_over_real(per_token: Tensor, labels: Tensor) -> Tensor:
    """The mean of (B, L) over the real tokens."""
    return per_token[labels != IGNORE].mean()


def hard_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the labels, the mean over real tokens."""
    logits = student.float().flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def token_count(batches: list[dict]) -> int:
    """The real tokens of all micro-batches."""
    return sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)


def model_inputs(batch: dict) -> tuple[Tensor, Tensor, Tensor]:
    """What a model is called with."""
    return batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"]


def answers(student, teacher, batch: dict) -> tuple[Tensor, Tensor]:
    """The student's logits and the teacher's."""
    with torch.no_grad():
        teacher_logits = teacher(*model_inputs(batch)).logits
    return student(*model_inputs(batch)).logits, teacher_logits


def accumulate(student, teacher, batches: list[dict]) -> Tensor:
    """A right step, once the modes of both models are set."""
    tokens, total = token_count(batches), torch.zeros(())
    for batch in batches:
        per_token = kl(*answers(student, teacher, batch))
        loss = per_token[batch["labels"] != IGNORE].sum() / tokens
        loss.backward()
        total += loss.detach()
    return total
