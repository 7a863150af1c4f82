"""Distillation losses as pure functions of (student logits, signal, mask).

All are computed in float32 (float64 stays float64), summed over the real tokens and
divided once by their number, so that a loss does not depend on padding, on the shape
of the batch or on gradient accumulation. They work through the tokens in chunks and
keep nothing but the gradient: one tensor of the size of the logits, where autograd
would keep four or five.
"""

from __future__ import annotations

import torch

from .arguments import (
    IGNORE,
    BadArgument,
    as_rows,
    check_choice,
    check_count,
    check_device,
    check_features,
    check_labels,
    check_logits,
    check_mask,
    check_share,
    check_softening,
    is_number,
    widen,
)
from .divergences import FROM_LOG_PROBS
from .signals import Dense, Signal, _log_softmax

CHUNK_ENTRIES = 1 << 18  # of logits at a time: a megabyte in float32 stays in the cache


def distillation_loss(
    student_logits: torch.Tensor,
    signal: Signal | torch.Tensor,
    *,
    labels: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    temperature: float = 1.0,
    alpha: float = 0.0,
    divergence: str = "forward_kl",
    normalizer: float | None = None,
) -> torch.Tensor:
    """Response-based distillation, with hard labels mixed in.

    L = 1/N Σ_t [ (1 - α) T² D(Pr^t_T ‖ Pr^s_T) - α log Pr^s(y_t) ], over the N real
    tokens, in nats; Pr_T is the softmax at temperature T (Hinton et al. 2015; token by
    token for translation, Kim & Rush 2016). T² keeps the gradient's size: that of the
    soft term alone would fall as 1/T².

    Args:
        student_logits: (..., V), the only argument that receives a gradient.
        signal: the teacher's answers, ``Dense`` or ``TopK``, or its logits (..., V).
        labels: (...) token ids, -100 where there is none; needed where α > 0.
        mask: (...) bool, True for a real token. Without it, the tokens with a label;
            without labels, all tokens.
        temperature: T in 1e-18..1e18. The hard labels are always scored at T = 1.
        alpha: share of the hard labels, in 0..1.
        divergence: "forward_kl", or another name of ``divergences.DIVERGENCES``.
        normalizer: what to divide by instead of N: the number of real tokens of the
            whole step where the batch is a part of it, or 1 for the sum.

    Raises:
        BadArgument: a shape, dtype, device or number that cannot be right.
    """
    check_logits("student_logits", student_logits, values=False)
    if isinstance(signal, torch.Tensor):
        signal = Dense(signal)
    terms = _Terms(signal, labels, temperature, alpha, divergence)
    terms.check(student_logits)
    index = _real_tokens(student_logits, labels, mask)
    divisor = _divisor(normalizer, index)
    total = _RowLoss.apply(student_logits, terms, index)
    if total.isnan():
        check_logits("student_logits", student_logits.detach())
        terms.explain("student_logits")
    return total / divisor


def fused_distillation_loss(
    hidden: torch.Tensor,
    lm_head: torch.nn.Linear,
    signal: Signal | torch.Tensor,
    *,
    labels: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    temperature: float = 1.0,
    alpha: float = 0.0,
    divergence: str = "forward_kl",
    normalizer: float | None = None,
    chunk_tokens: int = 16,
) -> torch.Tensor:
    """``distillation_loss(lm_head(hidden), …)`` without ever holding those logits.

    The logits of ``chunk_tokens`` tokens are made, used and dropped, and their
    gradient at once carried on to ``hidden`` (..., d) and to the head's weight (V, d)
    and bias: same value and same gradients, in memory of one chunk. ``signal`` is
    read a chunk at a time too; the other arguments are those of distillation_loss.
    """
    check_logits("hidden", hidden, values=False)
    if isinstance(signal, torch.Tensor):
        signal = Dense(signal)
    weight, bias = _head(lm_head, hidden)
    check_count("chunk_tokens", chunk_tokens)
    terms = _Terms(signal, labels, temperature, alpha, divergence)
    terms.check(hidden[..., :1].expand(*hidden.shape[:-1], len(weight)))
    index = _real_tokens(hidden, labels, mask)
    divisor = _divisor(normalizer, index)
    with torch.autocast(hidden.device.type, enabled=False):  # one dtype throughout
        total = _FusedLoss.apply(hidden, weight, bias, terms, index, chunk_tokens)
    if total.isnan():
        parts = {"hidden": hidden, "lm_head.weight": weight, "lm_head.bias": bias}
        for name, part in parts.items():
            if part is not None:
                check_features(name, part.detach())
        terms.explain("hidden")
    return total / divisor


def _head(lm_head: torch.nn.Module, hidden: torch.Tensor):
    """Weight (V, d) and bias (V,) or None of an output layer that fits ``hidden``."""
    weight, bias = (getattr(lm_head, part, None) for part in ("weight", "bias"))
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        raise BadArgument(
            "lm_head",
            f"a {type(lm_head).__name__}",
            wanted="a torch.nn.Linear from the width of hidden to the vocabulary",
            todo="Pass the output layer itself, such as model.lm_head.",
        )
    if hidden.shape[-1] != weight.shape[1]:
        raise BadArgument(
            "hidden",
            f"of width {hidden.shape[-1]}",
            wanted=f"{weight.shape[1]}, the input width of lm_head",
            todo="Pass the decoder's last hidden states, before lm_head.",
        )
    check_device("hidden", hidden, "lm_head.weight", weight)
    if hidden.dtype != weight.dtype:
        raise BadArgument(
            "hidden",
            f"of {hidden.dtype}",
            wanted=f"{weight.dtype}, as lm_head.weight",
            todo="Pass hidden.to(lm_head.weight.dtype).",
        )
    return weight, bias


class _Terms:
    """What a token's loss is made of; ``rows`` gives the losses (n,) of some tokens."""

    def __init__(self, signal, labels, temperature, alpha, divergence):
        check_softening(temperature)
        check_share("alpha", alpha)
        check_choice("divergence", divergence, FROM_LOG_PROBS)
        self.signal, self.labels = signal, labels
        self.temperature, self.alpha = temperature, alpha
        self.divergence = FROM_LOG_PROBS[divergence]

    def check(self, student_logits: torch.Tensor) -> None:
        if not hasattr(self.signal, "log_distributions"):
            raise BadArgument(
                "signal",
                f"a {type(self.signal).__name__}",
                wanted="Dense, TopK, or the teacher's logits",
                todo="Wrap the teacher's answer: Dense(teacher_logits).",
            )
        self.signal.check(student_logits, self.temperature)
        if self.labels is not None:
            check_labels(self.labels, "student_logits", student_logits)
        elif self.alpha:
            raise BadArgument(
                "labels",
                f"None with alpha = {self.alpha}",
                wanted="token ids of the shape of student_logits without V",
                todo="Pass labels=, or alpha=0 for the teacher alone.",
            )

    def explain(self, name: str) -> None:
        """Say why a loss is NaN though ``name`` itself is in order.

        It is looked for only once it has happened. +inf is no mistake: it is the true
        value where the student cannot say what the teacher says.
        """
        self.signal.check_values()
        raise BadArgument(
            name,
            "of finite numbers whose loss is NaN",
            wanted="logits that stay finite when divided by the temperature, "
            f"{self.temperature!r}",
            todo="Look at the largest of them, and compute in float32.",
        )

    def rows(self, student_logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        loss = 0.0
        log_q = _log_softmax(student_logits, self.temperature)
        if self.alpha < 1.0:
            answers = self.signal.rows(index)
            soft = self.divergence(*answers.log_distributions(log_q, self.temperature))
            loss = (1.0 - self.alpha) * self.temperature**2 * soft
        if self.alpha > 0.0:
            if self.temperature != 1.0:  # the hard labels are scored at T = 1
                log_q = _log_softmax(student_logits)
            labels = self.labels.flatten().index_select(0, index).long()
            loss = loss - self.alpha * log_q.gather(1, labels[:, None]).squeeze(1)
        return loss


def _real_tokens(logits, labels, mask) -> torch.Tensor:
    """The numbers (N,) of the real tokens in the flattened leading shape."""
    shape, blamed = logits.shape[:-1], "labels" if mask is None else "mask"
    if mask is None:
        if labels is None:
            return torch.arange(shape.numel(), device=logits.device)
        mask = labels != IGNORE
    check_mask(mask, "student_logits", logits)
    if labels is not None and (mask & (labels == IGNORE)).any():
        raise BadArgument(
            "mask",
            "True where labels are -100",
            wanted="real tokens only",
            todo="Leave mask out: it is then made from the labels.",
        )
    index = mask.flatten().nonzero().squeeze(1)
    if not len(index):
        raise BadArgument(
            blamed,
            "without a single real token",
            wanted="at least one",
            todo="Leave such a batch out: its loss is 0/0.",
        )
    return index


def _divisor(normalizer: float | None, index: torch.Tensor) -> float:
    if normalizer is None:
        return float(len(index))
    # A count may also be a tensor () or one of numpy's numbers.
    number = normalizer.item() if getattr(normalizer, "ndim", 1) == 0 else normalizer
    if not is_number(number) or not 0.0 < number < float("inf"):
        raise BadArgument(
            "normalizer",
            f"{normalizer!r}",
            wanted="a finite number above 0",
            todo="Give the number of real tokens of the whole step.",
        )
    return float(number)


class _RowLoss(torch.autograd.Function):
    """Sum of the rows' losses; the gradient is made chunk by chunk in the forward."""

    @staticmethod
    def forward(ctx, logits, terms, index):
        wanted = ctx.needs_input_grad[0]
        total, ctx.gradient = _over_rows(logits, terms, index, wanted)
        ctx.terms, ctx.index = terms, index
        ctx.save_for_backward(logits)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        gradient, ctx.gradient = ctx.gradient, None  # scaled in place, so given once
        if gradient is None:  # a second backward through the same graph
            gradient = _over_rows(*ctx.saved_tensors, ctx.terms, ctx.index, True)[1]
        return gradient.mul_(upstream.to(gradient.dtype)), None, None


def _over_rows(logits, terms, index, wanted: bool):
    """Σ of the losses of these rows, and where wanted its gradient in the logits."""
    flat = as_rows(logits.detach())
    make = torch.empty_like if len(index) == len(flat) else torch.zeros_like
    gradient = make(flat) if wanted else None
    total = _zero(logits)
    for rows in index.split(max(1, CHUNK_ENTRIES // flat.shape[1])):
        some = flat.index_select(0, rows)
        value, slope = _value_and_gradient(terms, some, rows, wanted)
        total += value
        if wanted:
            gradient.index_copy_(0, rows, slope)
    return total, gradient.view(logits.shape) if wanted else None


class _FusedLoss(torch.autograd.Function):
    """The same from the hidden states: the logits live for one chunk."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, terms, index, chunk_tokens):
        given = (hidden, weight, bias, terms, index, chunk_tokens)
        wanted = any(ctx.needs_input_grad)
        total, ctx.gradients = _over_hidden(*given, wanted)
        ctx.rest = given[3:]
        ctx.save_for_backward(*given[:3])
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = _over_hidden(*ctx.saved_tensors, *ctx.rest, True)[1]
        scaled = (g if g is None else g.mul_(upstream.to(g.dtype)) for g in gradients)
        return *scaled, None, None, None


def _over_hidden(hidden, weight, bias, terms, index, chunk_tokens, wanted: bool):
    """The sum of the losses, and its gradients in hidden states, weight and bias.

    Of a chunk's logits there is one copy, over which their gradient is written. The
    gradients that all chunks add to are summed in float32: in 16 bits each addition
    would round, and the error grow with the number of chunks.
    """
    hidden, weight = hidden.detach(), weight.detach()
    bias = None if bias is None else bias.detach()
    flat, total = as_rows(hidden), _zero(hidden)
    shared = (None if x is None else torch.zeros_like(widen(x)) for x in (weight, bias))
    sums = [torch.zeros_like(flat), *shared]
    for rows in index.split(chunk_tokens):
        some = flat.index_select(0, rows)
        logits = torch.nn.functional.linear(some, weight, bias)
        small = max(1, CHUNK_ENTRIES // 4 // len(weight))  # a dozen temporaries each
        for part, numbers in zip(logits.split(small), rows.split(small), strict=True):
            value, slope = _value_and_gradient(terms, part, numbers, wanted)
            total += value
            if wanted:
                part.copy_(slope)
        if wanted:
            sums[0].index_copy_(0, rows, logits @ weight)
            sums[1].addmm_(widen(logits).T, widen(some))
            if bias is not None:
                sums[2] += widen(logits).sum(0)
    sums[1:] = (None if x is None else x.to(weight.dtype) for x in sums[1:])
    return total, [sums[0].view(hidden.shape), *sums[1:]]


def _zero(like: torch.Tensor) -> torch.Tensor:
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.zeros((), dtype=kind, device=like.device)


def _value_and_gradient(terms: _Terms, logits, rows, wanted: bool):
    """The sum of some rows' losses, and where wanted its gradient in their logits."""
    with torch.set_grad_enabled(wanted):
        logits = logits.detach().requires_grad_(wanted)
        value = terms.rows(logits, rows).sum()
        slope = torch.autograd.grad(value, logits)[0] if wanted else None
        return value.detach(), slope


def cross_entropy(student_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-Σ_t log Pr^s(y_t | y_<t, z), in nats.

    With labels from the reference this trains an untaught student; with the teacher's
    own output ŷ it is the target-generated loss of sequence-level distillation
    (Kim & Rush 2016, eq. 8). ``student_logits`` (N, V); ``labels`` (N,) token ids.

    Raises:
        BadArgument: logits or labels of another shape, dtype or device, ids outside
            0..V-1, which -100 is too, or NaN.
    """
    check_logits("student_logits", student_logits, values=False)
    if student_logits.dim() != 2:
        raise BadArgument(
            "student_logits",
            f"of shape {tuple(student_logits.shape)}",
            wanted="(N, V), one row for each real token",
            todo="Take the real tokens: logits[labels != -100].",
        )
    check_labels(labels, "student_logits", student_logits)
    if (labels == IGNORE).any():
        raise BadArgument(
            "labels",
            f"{IGNORE} at some rows",
            wanted="a token id for each row",
            todo="Leave pads out: logits[labels != -100], labels[labels != -100].",
        )
    total = _CrossEntropy.apply(widen(student_logits), labels.long())
    if not total.isfinite():
        check_logits("student_logits", student_logits.detach())
    return total


class _CrossEntropy(torch.autograd.Function):
    """Summed cross-entropy that keeps one (N, V) tensor where autograd keeps three.

    Value: -Σ log softmax(z)_y; gradient: softmax(z) - onehot(y).
    """

    @staticmethod
    def forward(ctx, logits, labels):
        probabilities = torch.softmax(logits, dim=-1)
        ctx.save_for_backward(probabilities, labels)
        chosen = logits.gather(1, labels[:, None]).squeeze(1)
        return (torch.logsumexp(logits, dim=-1) - chosen).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        gradient, labels = ctx.saved_tensors
        minus_one = gradient.new_full((len(labels), 1), -1.0)
        return gradient.scatter_add(1, labels[:, None], minus_one).mul_(upstream), None
