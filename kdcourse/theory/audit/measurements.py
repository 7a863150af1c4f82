"""A loss and what was measured of it, each measurement made once, on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from .calling import Refused, call_loss
from .references import (
    OTHER_FORMULAS,
    REFERENCES,
    both_probabilities,
    kl,
    match_formula,
    mixed_kl,
    near,
    ratio_of,
)
from .worlds import (
    World,
    logits_raised,
    make_world,
    near_worlds,
    top_k_worlds,
    two_point_worlds,
)


class Measured:
    """A loss and what was measured of it; each measurement is made once, on demand."""

    def __init__(self, fn: Callable, accepts: frozenset[str], divergence: str):
        self.fn, self.accepts, self.divergence = fn, accepts, divergence
        self.world = make_world(seed=0)
        other = make_world(seed=1).teacher
        self.other_teacher = replace(self.world, teacher=other)

    def run(self, world: World, **changed) -> tuple[float, Tensor]:
        """The value, and its gradient in the student's logits."""
        leaf, loss = self._from_leaf(world, changed)
        return loss.detach().double().item(), gradient_of(loss, leaf)

    def value(self, world: World, **changed) -> float:
        """The value alone."""
        return self._from_leaf(world, changed)[1].detach().double().item()

    def gradient(self, world: World, **changed) -> Tensor:
        """The gradient alone."""
        return self.run(world, **changed)[1]

    def _from_leaf(self, world: World, changed: dict) -> tuple[Tensor, Tensor]:
        # As in a model the logits are no leaf; copies, for a loss may overwrite them.
        leaf = world.student.clone().requires_grad_(True)
        return leaf, self._loss(leaf.clone(), world.teacher.clone(), world, changed)

    def _loss(self, student, teacher, world, changed) -> Tensor:
        options = {**world.options, **changed}
        known = {name: x for name, x in options.items() if name in self.accepts}
        return call_loss(self.fn, student, teacher, world.labels.clone(), **known)

    @cached_property
    def base(self) -> tuple[float, Tensor]:
        """Value and gradient on the first world, on which most questions are asked."""
        return self.run(self.world)

    @property
    def base_value(self) -> float:
        """The value on the first world."""
        return self.base[0]

    @property
    def base_gradient(self) -> Tensor:
        """The gradient on the first world."""
        return self.base[1]

    @cached_property
    def twice(self) -> tuple[float, float]:
        """The values of two calls on the same inputs."""
        return self.base_value, self.value(self.world)

    @property
    def blocked(self) -> str | None:
        """Why nothing more can be measured, or None."""
        if not math.isfinite(self.base_value):
            return "the value is not finite"
        if not self.base_gradient.isfinite().all():
            return "the gradient is not finite"
        if not near(*self.twice, 1e-6):
            return "two calls give two values"
        return None

    # ---- positions

    @cached_property
    def seen(self) -> Tensor:
        """Which positions (B, L) have a gradient."""
        return seen_positions(self.base_gradient)

    @cached_property
    def moved(self) -> tuple[tuple[int, int], Tensor]:
        """A position, and where the gradient moves when its teacher does."""
        place = (0, 3)
        teacher = self.world.teacher.clone()
        teacher[place] = self.other_teacher.teacher[place]
        changed = self.gradient(replace(self.world, teacher=teacher))
        return place, seen_positions(changed - self.base_gradient)

    @cached_property
    def follows_decoder_inputs(self) -> bool:
        """Whether another start token, which is no pad, brings the first token back."""
        if "decoder_input_ids" not in self.accepts:
            return False
        inputs = self.world.options["decoder_input_ids"].clone()
        inputs[:, 0] = 2
        seen = seen_positions(self.gradient(self.world, decoder_input_ids=inputs))
        return bool(seen[:, 0].all() and not self.seen[:, 0].any())

    @cached_property
    def seen_where_pad_is_eos(self) -> Tensor:
        """Which positions have a gradient where one token is both pad and EOS."""
        return seen_positions(self.gradient(replace(self.world, pad=self.world.eos)))

    # ---- sizes

    @cached_property
    def batch_ratio(self) -> float:
        """By what factor the value changes when every sentence comes twice."""
        world = self.world.each(lambda x: torch.cat([x, x]))
        return ratio_of(self.value(world), self.base_value)

    @cached_property
    def length_ratio(self) -> float:
        """By what factor the value changes when every token comes twice."""
        world = self.world.each(lambda x: x.repeat_interleave(2, dim=1))
        return ratio_of(self.value(world), self.base_value)

    @cached_property
    def with_impossible_tokens(self) -> tuple[float, float, Tensor]:
        """The logit of three more tokens that cannot be said, value and gradient.

        -inf, or where 0 · log 0 makes that NaN, as in torch's kl_div, a logit whose
        probability is 0 all the same.
        """
        for fill in (-math.inf, -1e4):
            try:
                value, gradient = self.run(self.world.wider(fill, fill))
            except Refused:
                if fill == -1e4:
                    raise
                continue
            if math.isfinite(value) and gradient.isfinite().all():
                break
        return fill, value, gradient

    @cached_property
    def longer_ratio(self) -> float:
        """By what factor the value changes with three more pads a row."""
        return ratio_of(self.value(self.world.longer()), self.base_value)

    @cached_property
    def vocabulary_ratio(self) -> float:
        """By what factor the value changes with three more impossible tokens."""
        return ratio_of(self.with_impossible_tokens[1], self.base_value)

    @cached_property
    def two_sizes(self) -> list[tuple[float, float] | None]:
        """With three impossible tokens more on one side: the value, and that with
        zeros for the logits that the other side lacks; None where it refuses."""
        found = []
        for shorter, padded in (
            (self.world.wider(None, -1e4), self.world.wider(0.0, -1e4)),
            (self.world.wider(-1e4, None), self.world.wider(-1e4, 0.0)),
        ):
            try:
                value = self.value(shorter)
            except Refused:
                found.append(None)
            else:
                found.append((value, self.value(padded)))
        return found

    @cached_property
    def shift_ratio(self) -> float:
        """By what factor the value changes when all logits of a token are raised."""
        return ratio_of(self.value(logits_raised(self.world)), self.base_value)

    # ---- formula

    def on_two_points(self, **changed) -> Tensor:
        """The values on the two-point distributions, in their order."""
        values = [self.value(world, **changed) for world in two_point_worlds()]
        return torch.tensor(values, dtype=torch.float64)

    @cached_property
    def formula(self) -> tuple[str | None, float]:
        """The formula that its values on two-point distributions obey, and a factor."""
        pairs = [both_probabilities(world) for world in two_point_worlds()]
        logits = [world.student.double() for world in two_point_worlds()]
        candidates = {
            name: torch.stack([f(p, q).mean() for p, q in pairs])
            for name, f in REFERENCES.items()
        }
        for name, f in OTHER_FORMULAS.items():
            trios = zip(pairs, logits, strict=True)
            candidates[name] = torch.stack([f(p, q, z).mean() for (p, q), z in trios])
        return match_formula(self.on_two_points(), candidates)

    @property
    def model(self) -> Callable:
        """The divergence to compare with: the one it is, or else the declared one."""
        known = REFERENCES.get(self.formula[0])
        return known or REFERENCES.get(self.divergence, kl)

    @cached_property
    def reference(self) -> float:
        """The declared divergence of the base world, the mean over real tokens."""
        p, q = both_probabilities(self.world)
        return REFERENCES[self.divergence](p, q)[self.world.real].mean().item()

    # ---- temperature

    def soft_size(self, temperature: float, alpha: float) -> float:
        """The size of the soft term's gradient beside that of T² D.

        It is measured on the difference of two teachers, in which hard labels cancel.
        """
        options = {"temperature": temperature, "alpha": alpha}
        worlds = (self.world, self.other_teacher)
        ours = [self.gradient(world, **options) for world in worlds]
        theirs = [self._soft_reference(world, temperature) for world in worlds]
        return ratio_of(
            (ours[0] - ours[1]).norm().item(), (theirs[0] - theirs[1]).norm().item()
        )

    def _soft_reference(self, world: World, temperature: float) -> Tensor:
        leaf = world.student.double().requires_grad_(True)
        p, q = both_probabilities(replace(world, student=leaf), temperature)
        loss = temperature**2 * self.model(p, q)[world.real].mean()
        return gradient_of(loss, leaf)

    @cached_property
    def growth(self) -> float:
        """By which power of T the soft term's gradient outgrows T² D; 0 is right."""
        return self._growth(0.0)

    @cached_property
    def growth_with_labels(self) -> float:
        """The same with hard labels mixed in by half."""
        return self._growth(0.5) if "alpha" in self.accepts else self.growth

    def _growth(self, alpha: float) -> float:
        low, high = self.soft_size(30.0, alpha), self.soft_size(120.0, alpha)
        ratio = ratio_of(high, low)
        return math.log(ratio, 4) if ratio > 0 else math.nan

    @cached_property
    def softened(self) -> str | None:
        """Whose logits are divided by T: "both", "teacher" or "student"."""
        worlds = two_point_worlds()
        hard = [both_probabilities(world) for world in worlds]
        soft = [both_probabilities(world, 4.0) for world in worlds]
        sides = {"both": (soft, soft), "teacher": (soft, hard), "student": (hard, soft)}
        candidates = {
            side: torch.stack(
                [self.model(a[0], b[1]).mean() for a, b in zip(*pairs, strict=True)]
            )
            for side, pairs in sides.items()
        }
        return match_formula(self.on_two_points(temperature=4.0), candidates)[0]

    # ---- options

    @cached_property
    def reading_of_beta(self) -> str | None:
        """How β is read, from the values at 0.1: "right", or in which other way."""
        beta, pairs = 0.1, [both_probabilities(world) for world in two_point_worlds()]
        readings = {
            "right": (beta, beta),
            "mirrored": (1 - beta, 1 - beta),
            "mirrored in the mixture": (beta, 1 - beta),
            "mirrored in the weights": (1 - beta, beta),
        }
        candidates = {
            name: torch.stack([mixed_kl(p, q, *shares).mean() for p, q in pairs])
            for name, shares in readings.items()
        }
        return match_formula(self.on_two_points(beta=beta), candidates)[0]

    @cached_property
    def reading_of_top_k(self) -> str | None:
        """ "teacher" or "both" where those are renormalised over three kept entries."""
        teacher_only, both, values = [], [], []
        for world in top_k_worlds():
            p, q = (x[0, 0] for x in both_probabilities(world))
            kept = p.topk(3).indices
            cut = torch.zeros_like(p).index_copy(0, kept, p[kept] / p[kept].sum())
            teacher_only.append(self.model(cut, q))
            both.append(self.model(cut[kept], q[kept] / q[kept].sum()))
            values.append(self.value(world, k=3))
        candidates = {"teacher": torch.stack(teacher_only), "both": torch.stack(both)}
        values = torch.tensor(values, dtype=torch.float64)
        return match_formula(values, candidates)[0]

    @cached_property
    def in_parts(self) -> tuple[float, float]:
        """The whole batch, and the sum of its parts under the whole's normalizer."""
        rows = (slice(0, 1), slice(1, None))
        parts = [self.world.each(lambda x, r=r: x[r]) for r in rows]
        total = sum(self.value(p, normalizer=self.world.count) for p in parts)
        return self.base_value, total

    @cached_property
    def ignores_normalizer(self) -> bool:
        """Whether another normalizer leaves the value as it was."""
        doubled = self.value(self.world, normalizer=2 * self.world.count)
        return near(doubled, self.base_value)

    @cached_property
    def low_precision(self) -> dict[str, str]:
        """What is wrong in each dtype of the inputs, in words; refused ones are left
        out, and "" is a dtype in which nothing is."""
        found = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            try:
                wrong = self._is_rough() if dtype == torch.float32 else None
                wrong = wrong or self._differs_in(dtype)
            except Refused:
                continue
            found[str(dtype).removeprefix("torch.")] = wrong
        return found

    def _differs_in(self, dtype: torch.dtype) -> str:
        """The same numbers in this dtype and in float32, near equality."""
        far = negative = False
        for world in near_worlds():
            pair = [x.to(dtype) for x in (world.student, world.teacher)]
            low, high = (
                self.value(replace(world, student=s, teacher=t))
                for s, t in (pair, [x.float() for x in pair])
            )
            far = far or (math.isfinite(high) and not near(low, high, 0.02))
            negative = negative or low < -1e-6 <= high
        below = ", some values below 0" if negative else ""
        return f"off by more than 2 %{below}" if far else ""

    def _is_rough(self) -> str:
        """Whether a small step along the gradient does not change the value by it."""
        for world in near_worlds():
            value, gradient = self.run(world)
            size = gradient.norm().item()
            if not size > 0.0 or not math.isfinite(value):
                continue
            student = world.student + (0.02 / size * gradient).float()
            change = self.value(replace(world, student=student)) - value
            if abs(change - 0.02 * size) > 0.01 * size:
                return "the value moves in steps, as in 16 bits"
        return ""


def gradient_of(loss: Tensor, leaf: Tensor) -> Tensor:
    """The gradient in a leaf, in float64; zeros where none flows."""
    found = None
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    return (torch.zeros_like(leaf) if found is None else found).detach().double()


def seen_positions(gradient: Tensor) -> Tensor:
    """Positions whose gradient is more than rounding beside the largest."""
    sizes = gradient.norm(dim=-1)
    return sizes > 1e-5 * sizes.max()
