"""What is compared of a loss that learners write: its value and its slopes."""

from __future__ import annotations

from collections.abc import Callable

import torch


def loss_and_slopes(*names: str) -> Callable:
    """An ``observe`` for losses: the value, and how it moves with the first arguments.

    Each name is what the slope in one of these tensors is called. It is 0 where the
    loss does not hang on that tensor, and None where the loss has no slope at all.
    """

    def observe(function: Callable, arguments: tuple):
        tensors, others = arguments[: len(names)], arguments[len(names) :]
        leaves = [tensor.detach().clone().requires_grad_(True) for tensor in tensors]
        watched = [leaf * 1.0 for leaf in leaves]  # the function may edit these
        loss = function(*watched, *others)
        for tensor, seen in zip(tensors, watched, strict=True):
            tensor.copy_(seen.detach())  # shows the engine whether one was changed
        if loss is ...:
            return loss  # a blank; the engine knows it
        slopes = [None] * len(names)
        if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
            slopes = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        return {"the loss": loss} | dict(zip(names, slopes, strict=True))

    return observe
