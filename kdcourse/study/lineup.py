"""What a property test of a loss needs: a small batch, and the gradient of a loss.

The bug museum's exercises use both; each is short enough to be read first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["EOS", "IGNORE", "gradient", "make_batch"]

EOS, IGNORE = 1, -100


def make_batch(
    lengths: Sequence[int], vocabulary: int = 11, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits (B, L, V), teacher logits (B, L, V) and labels (B, L).

    One sentence for each of ``lengths``, L the longest. Its last token is EOS, which is
    1, the tokens before it are drawn from 2..V-1; behind it labels are -100, at pads,
    where both logits are random too. The same arguments give the same batch.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    labels = torch.randint(2, vocabulary, shape, generator=generator)
    for row, length in zip(labels, lengths, strict=True):
        row[length - 1] = EOS
        row[length:] = IGNORE
    student = 1.5 * torch.randn(*shape, vocabulary, generator=generator)
    teacher = 1.5 * torch.randn(*shape, vocabulary, generator=generator)
    return student, teacher, labels


def gradient(
    loss: Callable[..., Tensor],
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    **options: object,
) -> Tensor:
    """The derivative of ``loss(student, teacher, labels, **options)`` by each student
    logit, (B, L, V); zeros where no gradient reaches them."""
    leaf = student.detach().clone().requires_grad_(True)
    value = loss(leaf, teacher, labels, **options)
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found
