"""The teacher's answer as a value: a loss never asks where it came from.

``Dense`` holds logits over the whole vocabulary, from a live model. ``TopK`` holds the
k best entries of each token, from a cache on disk, and says what is to be thought of
the mass that it does not hold. A loss asks either of them for the same thing: two
distributions over one set of events, the teacher's and the student's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from .arguments import (
    BadArgument,
    as_rows,
    check_choice,
    check_count,
    check_device,
    check_integers,
    check_k,
    check_kind,
    check_logits,
    check_same,
    check_softening,
    check_temperature,
    widen,
)
from .distributions import log_probabilities

TAILS = ("bucket", "uniform", "renormalise")


def log_softmax(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log softmax(z / T) in float32, or in float64 where the logits are.

    Raises:
        BadArgument: as ``distributions.log_probabilities``.
    """
    return log_probabilities(logits, temperature=temperature)


def _log_softmax(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """``log_softmax`` without its checks, for what runs at each training step."""
    logits = widen(logits)
    if temperature != 1.0:
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def _pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The numbered ones of the tokens (N, ...)."""
    check_integers("index", index)
    try:
        return values.index_select(0, index)
    except IndexError:
        raise BadArgument(
            "index",
            f"{index.tolist()}",
            wanted=f"numbers (n,) in 0..{len(values) - 1}",
            todo="Number the tokens in the flattened shape.",
        ) from None


@dataclass(frozen=True)
class Dense:
    """The teacher's logits (..., V): all that it has to say.

    ``bytes_per_token`` is what a cache of it would cost: 4 V bytes in float32.
    """

    logits: torch.Tensor

    def __post_init__(self):
        check_logits("teacher_logits", self.logits, values=False)

    @property
    def shape(self) -> torch.Size:
        """The leading shape (...): one answer for each of these tokens."""
        return self.logits.shape[:-1]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's answer."""
        return self.logits.shape[-1] * self.logits.element_size()

    def check(self, student_logits: torch.Tensor, temperature: float) -> None:
        """An error where these logits cannot be compared with the student's."""
        check_logits("student_logits", student_logits, values=False)
        check_temperature(temperature)
        check_same("teacher_logits", self.logits, "student_logits", student_logits)

    def check_values(self) -> None:
        """An error where there are NaN among the logits."""
        check_logits("teacher_logits", self.logits)

    def rows(self, index: torch.Tensor) -> Dense:
        """The answers (n, V) to some tokens, numbered in the flattened shape."""
        return Dense(_pick(as_rows(self.logits), index))

    def log_distributions(
        self, log_q: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log Pr^t at a temperature, and the student's log Pr^s as given, (..., V)."""
        with torch.no_grad():
            return _log_softmax(self.logits, temperature), log_q


@dataclass(frozen=True)
class TopK:
    """The k most probable entries of each token; the rest by an explicit policy.

    ``indices`` (..., k) are token ids and ``log_probs`` (..., k) natural logarithms of
    the teacher's probabilities at ``temperature``, never renormalised. ``log_rest``
    (...), where it was kept, is log r, r = 1 - Σ_{v ∈ top k} p_v the missing mass; a
    difference of rounded numbers cannot give it where it is small. ``tail`` says how
    the missing mass is treated:

    ``"bucket"``
        All other entries are one event. With S the kept set, the loss is
        D_k = Σ_{v ∈ S} p_v log(p_v / q_v) + r log(r / s), s = 1 - Σ_{v ∈ S} q_v.
        *It is a lower bound of the full divergence.* Proof for KL: by the log-sum
        inequality, Σ_{v ∉ S} p_v log(p_v / q_v) ≥ (Σ p_v) log(Σ p_v / Σ q_v)
        = r log(r / s); add the kept terms on both sides. Equality holds where p and q
        are proportional outside S, so at k = V it is exact, and no bucket can be
        split without the bound rising. The same holds for every f-divergence (reverse
        KL, Jensen-Shannon, skew KL, total variation): merging events cannot raise one.
    ``"uniform"``
        r is spread evenly over the other V - k entries: an assumption, not a bound.
    ``"renormalise"``
        p_v / Σ p_v: the rest is said to be impossible. It biases the student, more so
        the softer the distribution; it is here to be measured, not recommended.

    A cache cannot be softened afterwards, for the shape of its tail is lost: cache at
    the temperature at which you train.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    tail: str = "bucket"
    temperature: float = 1.0
    log_rest: torch.Tensor | None = None

    def __post_init__(self):
        check_integers("indices", self.indices)
        check_logits("log_probs", self.log_probs, values=False)
        check_same("log_probs", self.log_probs, "indices", self.indices)
        check_choice("tail", self.tail, TAILS)
        check_temperature(self.temperature)
        if self.log_rest is not None:
            _check_rest(self.log_rest)
            check_same("log_rest", self.log_rest, "indices", self.indices[..., 0])

    @property
    def shape(self) -> torch.Size:
        """The leading shape (...): one answer for each of these tokens."""
        return self.indices.shape[:-1]

    @property
    def k(self) -> int:
        """The number of kept entries a token."""
        return self.indices.shape[-1]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's answer: k ids and k probabilities, and r if kept."""
        sizes = self.indices.element_size() + self.log_probs.element_size()
        rest = 0 if self.log_rest is None else self.log_rest.element_size()
        return self.k * sizes + rest

    @property
    def missing(self) -> torch.Tensor:
        """The mass r (...) outside the k entries, at least 0."""
        if self.log_rest is not None:
            return widen(self.log_rest).exp()
        return (1.0 - widen(self.log_probs).exp().sum(dim=-1)).clamp_min(0.0)

    def check(self, student_logits: torch.Tensor, temperature: float) -> None:
        """An error where these answers cannot be compared with the student's."""
        check_logits("student_logits", student_logits, values=False)
        check_temperature(temperature)
        check_device("signal", self.indices, "student_logits", student_logits)
        if self.shape != student_logits.shape[:-1]:
            raise BadArgument(
                "signal",
                f"answers to {tuple(self.shape)} tokens",
                wanted=f"{tuple(student_logits.shape[:-1])}, as student_logits",
                todo="Select the answers to the very tokens that are scored.",
            )
        if temperature != self.temperature:
            raise BadArgument(
                "temperature",
                f"{temperature} for answers cached at {self.temperature}",
                wanted="one temperature for both",
                todo=f"Cache again with top_k(…, temperature={temperature}).",
            )
        self._check_ids(student_logits.shape[-1])

    def _check_ids(self, size: int) -> None:
        check_k(self.k, size)
        low, high = (int(edge) for edge in self.indices.aminmax())
        if low < 0 or high >= size:
            raise BadArgument(
                "indices",
                f"{low if low < 0 else high} among others",
                wanted=f"ids in 0..{size - 1}",
                todo="Use a cache made over the student's own vocabulary.",
            )

    def _check_mass(self) -> None:
        """An error where the numbers are no part of a distribution, as they stand.

        Rounding to 16 bits moves a mass by a few per cent at most; probabilities in
        the place of their logarithms, logits, or the same id twice move it by more.
        """
        mass = widen(self.log_probs).exp().sum(dim=-1)
        right = (mass > 0.0) & (mass < 1.05)
        if self.log_rest is not None:
            total = mass + widen(self.log_rest).exp()
            right &= (total - 1.0).abs() < 0.05
        if not right.all():
            self.check_values()
            raise BadArgument(
                "log_probs",
                f"of the mass {mass[~right][0].item():.3g}"
                f"{'' if self.log_rest is None else ', with log_rest'}, among others",
                wanted="natural logarithms of probabilities that sum to at most 1, "
                "to 1 with log_rest",
                todo="Make them with top_k, or keep log_softmax(z), not softmax(z).",
            )
        ordered = self.indices.sort(dim=-1).values
        if (ordered[..., 1:] == ordered[..., :-1]).any():
            raise BadArgument(
                "indices",
                "one id twice for the same token",
                wanted="k different ids",
                todo="Make them with top_k.",
            )

    def check_values(self) -> None:
        """An error where there are NaN among the log-probabilities."""
        check_logits("log_probs", self.log_probs)
        if self.log_rest is not None and self.log_rest.isnan().any():
            raise BadArgument(
                "log_rest",
                "nan at some tokens",
                wanted="log r, and -inf where nothing is missing",
                todo="Make it with top_k, or leave it out.",
            )

    def rows(self, index: torch.Tensor) -> TopK:
        """The answers (n, k) to some tokens, numbered in the flattened shape."""
        parts = (self.indices, self.log_probs)
        indices, log_probs = (_pick(as_rows(x), index) for x in parts)
        rest = self.log_rest
        rest = None if rest is None else _pick(rest.flatten(), index)
        return replace(self, indices=indices, log_probs=log_probs, log_rest=rest)

    def log_distributions(
        self, log_q: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log Pr^t and log Pr^s over the same events: k + 1 of a bucket, else V.

        ``log_q`` (..., V) is the student's log Pr^s at the temperature of the cache.
        """
        if self.tail != "bucket":
            return self.dense_log_probs(log_q.shape[-1]).to(log_q.dtype), log_q
        self._check_mass()
        indices, kept = self.indices.long(), widen(self.log_probs).to(log_q.dtype)
        others = _log_sum_of_others(log_q, indices)
        log_rest = self._log_rest(others.isneginf().squeeze(-1)).to(kept)
        log_p = torch.cat([kept, log_rest[..., None]], dim=-1)
        return log_p, torch.cat([log_q.gather(-1, indices), others], dim=-1)

    def _log_rest(self, impossible: torch.Tensor) -> torch.Tensor:
        """log r (...); ``impossible`` marks tokens whose student has no other entry."""
        if self.log_rest is not None:
            return widen(self.log_rest)
        # One minus the kept is uncertain by their rounding, which is no mass.
        rounding = 1e-2 if self.log_probs.dtype == torch.float16 else 1e-5
        rest = self.missing
        return rest.masked_fill(impossible & (rest < rounding), 0.0).log()

    def dense_log_probs(self, size: int) -> torch.Tensor:
        """log Pr^t (..., V) as the tail policy completes it; V is ``size``.

        Raises:
            BadArgument: the policy is "bucket", which says nothing about single
                entries, the vocabulary is smaller than k or than an id, or the numbers
                are no logarithms of probabilities.
        """
        check_count("size", size)
        self._check_ids(size)
        kept = widen(self.log_probs)
        if self.tail == "bucket":
            raise BadArgument(
                "tail",
                "'bucket'",
                wanted="'uniform' or 'renormalise' to name every entry",
                todo="Compare with tail='bucket' directly, or choose another policy.",
            )
        self._check_mass()
        if self.tail == "renormalise":
            kept, rest = (
                kept.log_softmax(dim=-1),
                torch.full_like(kept[..., :1], -torch.inf),
            )
        else:
            nothing = torch.full(self.shape, self.k == size)
            rest = self._log_rest(nothing.to(kept.device))[..., None].to(kept)
            rest = rest - math.log(max(1, size - self.k))
        full = rest.expand(*self.shape, size).clone()
        return full.scatter_(-1, self.indices.long(), kept)

    def compact(self) -> TopK:
        """The same answers as they are stored: float16, ids in 16 or 32 bits."""
        small = int(self.indices.max()) <= torch.iinfo(torch.int16).max
        kind = torch.int16 if small else torch.int32
        half = self.log_probs.half()
        # Below float16's -65504 there is no mass to speak of.
        rest = None if self.log_rest is None else self.log_rest.half()
        return replace(
            self, indices=self.indices.to(kind), log_probs=half, log_rest=rest
        )


def top_k(
    teacher_logits: torch.Tensor,
    k: int,
    *,
    temperature: float = 1.0,
    tail: str = "bucket",
) -> TopK:
    """The k best of softmax(z / T) of teacher logits (..., V), 1 ≤ k ≤ V.

    Raises:
        BadArgument: logits that are no floating-point tensor, are empty, hold NaN or
            +inf or bar every token of a position; k, T or the tail out of range.
    """
    check_logits("teacher_logits", teacher_logits, values=False)
    check_k(k, teacher_logits.shape[-1])
    check_softening(temperature)
    with torch.no_grad():
        log_probs = _log_softmax(teacher_logits, temperature)
        values, indices = log_probs.topk(k, dim=-1)
        if values.isnan().any():  # one NaN or +inf is at every entry of its row
            check_logits("teacher_logits", teacher_logits)
        rest = _log_sum_of_others(log_probs, indices).squeeze(-1)
    return TopK(indices, values, tail, temperature, rest)


def to_dense(signal: TopK, size: int, tail: str = "uniform") -> Dense:
    """Logits of the distribution that a tail policy makes of a top-k answer.

    Raises:
        BadArgument: no ``TopK``, or as ``TopK.dense_log_probs``.
    """
    check_kind("signal", signal, TopK, "Make one with top_k(teacher_logits, k).")
    return Dense(replace(signal, tail=tail).dense_log_probs(size))


def _check_rest(log_rest: torch.Tensor) -> None:
    if not isinstance(log_rest, torch.Tensor) or not log_rest.is_floating_point():
        raise BadArgument(
            "log_rest",
            f"of {getattr(log_rest, 'dtype', type(log_rest).__name__)}",
            wanted="a floating-point tensor, the logarithm of the missing mass",
            todo="Make it with top_k, or leave it out.",
        )


def _log_sum_of_others(log_q: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """log Σ_{v ∉ S} q_v (..., 1), summed: one minus the kept would be rounding."""
    rest = log_q.exp().scatter(-1, indices, 0.0).sum(dim=-1, keepdim=True)
    lost = rest < torch.finfo(rest.dtype).tiny  # underflow, or none can be said
    logs = rest.masked_fill(lost, 1.0).log()
    rows = lost.squeeze(-1)
    if rows.any():  # a student that is very sure: sum these few in log space
        few = log_q[rows].scatter(-1, indices[rows], -torch.inf)
        none = few.isneginf().all(dim=-1, keepdim=True)
        # log 0 has no gradient; logsumexp alone would give NaN.
        summed = few.masked_fill(none, 0.0).logsumexp(dim=-1, keepdim=True)
        logs = logs.masked_scatter(lost, summed.masked_fill(none, -torch.inf))
    return logs


Signal = Dense | TopK
