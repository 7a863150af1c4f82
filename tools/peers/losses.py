"""The same loss from four libraries, each called as its own users call it.

All are the forward KL at T = 1, the mean over the real tokens, where the library can
be made to give it. ``real`` losses are given the real tokens alone, (N, V), as one has
to where a library knows no mask; the others get (B, L, V) and the labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of its status

import torch
from textbrewer.losses import kd_ce_loss
from torch import Tensor
from torch.nn import functional as F
from torchdistill.losses.mid_level import KDLoss
from trl.experimental.gkd.gkd_trainer import GKDTrainer

from kdcourse.theory.arguments import IGNORE
from kdcourse.theory.losses import distillation_loss

Loss = Callable[..., Tensor]

trl_jsd = GKDTrainer.generalized_jsd_loss


def torchdistill_kd(
    student_logits: Tensor, teacher_logits: Tensor, **options
) -> Tensor:
    """torchdistill's KDLoss on what it is given, through its dictionaries."""
    options = {"temperature": 1.0, "alpha": 0.0} | options
    loss = KDLoss("head", "output", "head", "output", **options)
    student, teacher = (
        {"head": {"output": x}} for x in (student_logits, teacher_logits)
    )
    return loss(student, teacher)


def real(loss: Loss) -> Loss:
    """The loss on the real tokens alone, in a batch without pads at no cost."""

    def on_real_tokens(student_logits, teacher_logits, labels, **options):
        keep = labels != IGNORE
        if keep.all():
            pair = (x.flatten(0, 1) for x in (student_logits, teacher_logits))
        else:
            pair = (x[keep] for x in (student_logits, teacher_logits))
        return loss(*pair, **options)

    return on_real_tokens


def whole(loss: Loss) -> Loss:
    """The loss on (B, L, V) as it stands; it is told nothing of the labels."""
    return lambda student_logits, teacher_logits, labels, **options: loss(
        student_logits, teacher_logits, **options
    )


def torch_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """torch's own kl_div, used right."""
    log_q, log_p = (x.log_softmax(-1) for x in (student_logits, teacher_logits))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


LOSSES: dict[str, Loss] = {
    "kdcourse": lambda s, t, y: distillation_loss(s, t, labels=y),
    "torch kl_div, real tokens": real(torch_kl),
    "torchdistill KDLoss, real tokens": real(torchdistill_kd),
    "torchdistill KDLoss, (B, L, V)": whole(torchdistill_kd),
    "TextBrewer kd_ce_loss, real tokens": real(kd_ce_loss),
    "TextBrewer kd_ce_loss, (B, L, V)": whole(kd_ce_loss),
    "TRL generalized_jsd_loss, beta 0": lambda s, t, y: trl_jsd(s, t, labels=y, beta=0),
}
"""Name to loss(student_logits, teacher_logits, labels); the names begin with whose."""

OURS = "kdcourse"


def reference(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor):
    """The value and its gradient, from the definition, a token at a time in float64."""
    keep = (labels != IGNORE).flatten()
    gradient = torch.zeros_like(student_logits).flatten(0, 1)
    pairs = (x.detach().flatten(0, 1) for x in (student_logits, teacher_logits))
    total, count = 0.0, int(keep.sum())
    for row, (s, t) in enumerate(zip(*pairs, strict=True)):
        if keep[row]:
            p, q = t.double().softmax(-1), s.double().softmax(-1)
            total += float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum())
            gradient[row] = (q - p) / count
    return total / count, gradient.view_as(student_logits)
