"""The losses that stand in many line-ups: right ones, and wrong ones of our own.

Each is called as ``loss(student, teacher, labels)``; those that take options by name
say so. ``museum`` holds the exhibits proper.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from kdcourse.study.lineup import IGNORE, make_batch
from kdcourse.theory.losses import distillation_loss

from .property_tests import near

LENGTHS = (5, 3)


def real_tokens(labels: Tensor) -> Tensor:
    """Where there is a token and no pad, (B, L)."""
    return labels != IGNORE


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) at each position, (B, L)."""
    log_q, log_p = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def mean_kl(student, teacher, labels) -> Tensor:
    """The forward KL, a mean over real tokens."""
    return kl(student, teacher)[real_tokens(labels)].mean()


def of_package(student, teacher, labels, **options) -> Tensor:
    """This package's loss; of the options it takes the temperature."""
    known = {k: v for k, v in options.items() if k == "temperature"}
    return distillation_loss(student, teacher, labels=labels, **known)


def other_divergence(name: str) -> Callable:
    """This package's loss with another divergence."""
    return lambda student, teacher, labels: distillation_loss(
        student, teacher, labels=labels, divergence=name
    )


def by_kl_div(student, teacher, labels) -> Tensor:
    """torch's kl_div on (N, V), called by the book."""
    real = real_tokens(labels)
    log_q, p = student[real].log_softmax(-1), teacher[real].softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean")


def in_float64(student, teacher, labels) -> Tensor:
    """The forward KL, computed in 64 bits."""
    return mean_kl(student.double(), teacher.double(), labels)


def clamped(student, teacher, labels) -> Tensor:
    """Probabilities of at least 1e-7, made to sum to 1 again."""
    p, q = (
        x[real_tokens(labels)].double().softmax(-1).clamp(min=1e-7)
        for x in (teacher, student)
    )
    p, q = (x / x.sum(-1, keepdim=True) for x in (p, q))
    return (p * (p / q).log()).sum(-1).mean()


def nothing(student, teacher, labels, **options) -> Tensor:
    """0, with the gradient 0: what a term gives that was multiplied away."""
    return student[..., :0].sum()


def divided(by: Callable) -> Callable:
    """The summed KL of the real tokens over a number made of labels and V."""
    return lambda student, teacher, labels, **options: (
        kl(student, teacher)[real_tokens(labels)].sum() / by(labels, student.shape[-1])
    )


def count_tokens(labels: Tensor) -> int:
    """The number of real tokens."""
    return int(real_tokens(labels).sum())


def centred_mse(student, teacher, labels, **options) -> Tensor:
    """The mean squared difference of logits from which their mean is taken off."""
    s, t = (x - x.mean(-1, keepdim=True) for x in (student, teacher))
    return ((s - t) ** 2)[real_tokens(labels)].mean()


def raw_mse(student, teacher, labels) -> Tensor:
    """The mean squared difference of the logits."""
    return ((student - teacher) ** 2)[real_tokens(labels)].mean()


def smoothed(student, teacher, labels) -> Tensor:
    """The teacher's distribution mixed with a little of the uniform one."""
    log_q = student[real_tokens(labels)].log_softmax(-1)
    p = 0.95 * teacher[real_tokens(labels)].softmax(-1) + 0.05 / teacher.shape[-1]
    return (p * (p.log() - log_q)).sum(-1).mean()


def softmax_over(dim: int) -> Callable:
    """The forward KL with its softmax along another axis of (B, L, V)."""

    def loss(student, teacher, labels):
        log_q, log_p = (x.log_softmax(dim) for x in (student, teacher))
        return (log_p.exp() * (log_p - log_q)).sum(-1)[real_tokens(labels)].mean()

    return loss


def printed_only(printed: Callable, learned: Callable) -> Callable:
    """The value of one loss, which the log shows, with the gradient of another."""

    def loss(*inputs, **options):
        value = learned(*inputs, **options)
        return value + (printed(*inputs, **options) - value).detach()

    return loss


def with_itself(student, teacher, labels) -> Tensor:
    """The teacher compared with itself: 0, whatever the student says."""
    return mean_kl(teacher, teacher, labels) + 0 * student.sum()


def same_as_mean_kl(loss: Callable) -> bool:
    """A test that compares with the forward KL, whatever was asked."""
    batch = make_batch(LENGTHS)
    return near(loss(*batch), mean_kl(*batch))
