"""What lives in a training step and not in its loss: modes, masks, micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .calling import call_loss
from .diagnoses import eos_alone_erased, mistaken_mask
from .measurements import seen_positions
from .properties import STEP_PROPERTIES, Verdict, all_learned, property_of
from .references import alike, figure, near
from .worlds import SIZE, World, make_labels, shifted_right


class _FixedDropout(nn.Module):
    """Dropout that always drops the same half: what train mode does, repeatably."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("kept", torch.arange(width) % 2 * 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept if self.training else x


class _SmallModel(nn.Module):
    """A translator small enough to be asked often, which notes how it was asked."""

    def __init__(self, seed: int, width: int = 8):
        super().__init__()
        self.embedding = nn.Embedding(SIZE, width)
        self.dropout = _FixedDropout(width)
        self.lm_head = nn.Linear(width, SIZE)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.calls: list[SimpleNamespace] = []

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> SimpleNamespace:
        weights = attention_mask[..., None].float()
        sentence = (self.embedding(input_ids) * weights).sum(1) / weights.sum(1)
        states = torch.tanh(self.embedding(decoder_input_ids) + sentence[:, None])
        logits = self.lm_head(self.dropout(states))
        if logits.requires_grad:
            logits.retain_grad()
        self.calls.append(SimpleNamespace(training=self.training, logits=logits))
        return SimpleNamespace(logits=logits)


@dataclass(frozen=True)
class _StepRun:
    """One call of a step: its loss, the student's gradient, and how both were asked."""

    value: float
    gradient: Tensor  # of all the student's parameters, in one row
    teacher_gradient: float
    student_calls: list[SimpleNamespace]
    teacher_calls: list[SimpleNamespace]

    @cached_property
    def seen(self) -> Tensor:
        """Positions (B, L) of the last micro-batch whose logits got a gradient."""
        shape = self.student_calls[-1].logits.shape if self.student_calls else (0, 0)
        total = torch.zeros(shape)
        for call in self.student_calls:
            if call.logits.grad is not None and call.logits.shape == total.shape:
                total += call.logits.grad.abs()
        return (
            seen_positions(total)
            if total.any()
            else torch.zeros(shape[:2], dtype=torch.bool)
        )


class MeasuredStep:
    """A training step and what was measured of it."""

    accepts = frozenset()

    def __init__(self, fn: Callable):
        self.fn = fn
        labels = make_labels(torch.Generator().manual_seed(0))
        self.world = World(torch.zeros(0), torch.zeros(0), labels)  # no logits needed

    def run(self, batches: list[dict], teacher_seed: int = 1) -> _StepRun:
        """One call of the step on fresh models."""
        student, teacher = _SmallModel(seed=0), _SmallModel(seed=teacher_seed)
        student.eval()
        given = [{k: _copied(v) for k, v in batch.items()} for batch in batches]
        value = call_loss(self.fn, student, teacher, given).detach().item()
        parts = [
            torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
            for p in student.parameters()
        ]
        leaked = [
            p.grad.abs().sum() for p in teacher.parameters() if p.grad is not None
        ]
        return _StepRun(
            value,
            torch.cat(parts),
            float(sum(leaked)),
            [call for call in student.calls if call.logits.requires_grad],
            teacher.calls,
        )

    def try_out(self) -> None:
        """One micro-batch and two: a step that cannot run shows here."""
        self.whole, self.split  # noqa: B018  kept, as both are needed anyway

    @cached_property
    def whole(self) -> _StepRun:
        """The batch as one."""
        return self.run([_batch(self.world)])

    @cached_property
    def split(self) -> _StepRun:
        """The batch as two micro-batches."""
        return self.run(self.parts)

    @property
    def parts(self) -> list[dict]:
        """The whole batch as two micro-batches with different numbers of tokens."""
        labels = self.world.labels
        halves = (labels[:1], labels[1:])
        return [_batch(replace(self.world, labels=half)) for half in halves]

    @cached_property
    def each_part(self) -> list[_StepRun]:
        """Each micro-batch as a step of its own."""
        return [self.run([part]) for part in self.parts]

    @cached_property
    def other_teacher(self) -> _StepRun:
        """The batch with another teacher."""
        return self.run([_batch(self.world)], teacher_seed=2)

    @cached_property
    def pad_is_eos(self) -> _StepRun:
        """The batch with one token that is both pad and EOS."""
        return self.run([_batch(replace(self.world, pad=self.world.eos))])

    def follows_decoder_inputs(self) -> bool:
        """Whether another start token, which is no pad, brings the first token back."""
        batch = _batch(self.world)
        batch["decoder_input_ids"][:, 0] = 2
        return bool(self.run([batch]).seen[:, 0].all())


def _copied(value):
    return value.clone() if isinstance(value, Tensor) else value


def _batch(world: World) -> dict[str, object]:
    """A micro-batch whose source is its target, which is enough to be learned from."""
    return {
        "input_ids": world.labels.masked_fill(~world.real, world.pad),
        "attention_mask": world.real.long(),
        "decoder_input_ids": shifted_right(world.labels, world.pad),
        "labels": world.labels,
        "pad_token_id": world.pad,
        "eos_token_id": world.eos,
    }


@property_of("finite", of=STEP_PROPERTIES)
def _step_finite(s: MeasuredStep) -> Verdict:
    finite = math.isfinite(s.whole.value) and bool(s.whole.gradient.isfinite().all())
    shown = figure(s.whole.value)
    return finite, f"one number, {shown}" if finite else "the loss is not finite"


@property_of("student learns", of=STEP_PROPERTIES)
def _step_student_learns(s: MeasuredStep) -> Verdict:
    if s.whole.gradient.any():
        return True, "a gradient stands on the student's parameters"
    return False, "no gradient stands on the student's parameters"


@property_of("student in train mode", of=STEP_PROPERTIES)
def _step_student_mode(s: MeasuredStep) -> Verdict:
    calls = s.whole.student_calls
    if not calls:
        return None, "the student is not called where a gradient is recorded"
    right = sum(call.training for call in calls)
    return right == len(calls), f"in {right} of {len(calls)} calls its dropout is on"


@property_of("teacher in eval mode", of=STEP_PROPERTIES)
def _step_teacher_mode(s: MeasuredStep) -> Verdict:
    calls = s.whole.teacher_calls
    if not calls:
        return None, "the teacher is not called"
    wrong = sum(call.training for call in calls)
    return not wrong, f"in {wrong} of {len(calls)} calls its dropout is on"


@property_of("teacher learns nothing", of=STEP_PROPERTIES)
def _step_teacher_learns(s: MeasuredStep) -> Verdict:
    if s.whole.teacher_gradient:
        return False, "a gradient stands on the teacher's parameters"
    return True, "no gradient stands on the teacher's parameters"


@property_of("another teacher", of=STEP_PROPERTIES)
def _step_another_teacher(s: MeasuredStep) -> Verdict:
    value, gradient = _same_for_both_teachers(s)
    told = [
        f"{'the same' if same else 'another'} {what}"
        for same, what in ((value, "loss"), (gradient, "gradient"))
    ]
    return not value and not gradient, f"another teacher gives {' and '.join(told)}"


def _same_for_both_teachers(s: MeasuredStep) -> tuple[bool, bool]:
    """Whether the loss and whether the gradient is the same."""
    one, other = s.whole, s.other_teacher
    same_value = near(one.value, other.value, 1e-5)
    return same_value, alike(one.gradient, other.gradient, 1e-5)


@property_of("pads", of=STEP_PROPERTIES)
def _step_pads(s: MeasuredStep) -> Verdict:
    seen = s.whole.seen
    if seen.shape != s.world.real.shape:
        return None, "the student's logits have no gradient"
    pads = ~s.world.real
    learned = int((seen & pads).sum())
    return not learned, f"{learned} of {int(pads.sum())} pads have a gradient"


def _step_learned(seen: Tensor, real: Tensor) -> Verdict:
    if seen.shape != real.shape:
        return None, "the student's logits have no gradient"
    return all_learned(seen, real)


@property_of("real tokens", of=STEP_PROPERTIES)
def _step_real_tokens(s: MeasuredStep) -> Verdict:
    return _step_learned(s.whole.seen, s.world.real)


@property_of("EOS where the pad token is EOS", of=STEP_PROPERTIES)
def _step_eos(s: MeasuredStep) -> Verdict:
    return _step_learned(s.pad_is_eos.seen, s.world.real)


@property_of("micro-batches", of=STEP_PROPERTIES)
def _step_micro_batches(s: MeasuredStep) -> Verdict:
    if alike(s.split.gradient, s.whole.gradient):
        return True, "a batch in two parts leaves the gradient of the whole"
    means = [run.gradient for run in s.each_part]
    start = "a batch in two parts leaves another gradient than the whole"
    if alike(s.split.gradient, sum(means) / 2):
        return False, f"{start}: the mean of the parts' own"
    if alike(s.split.gradient, sum(means)):
        return False, f"{start}: the sum of the parts' own"
    return False, start


def _step_mask(s: MeasuredStep) -> str | None:
    if s.whole.seen.shape != s.world.real.shape or not s.whole.seen.any():
        return None
    return mistaken_mask(s.whole.seen, s.world.real, s.follows_decoder_inputs)


def _step_mean_of_means(s: MeasuredStep) -> bool:
    mean = sum(run.gradient for run in s.each_part) / 2
    return alike(s.split.gradient, mean) and not alike(mean, s.whole.gradient)


def _step_eos_erased(s: MeasuredStep) -> bool:
    seen = (s.whole.seen, s.pad_is_eos.seen)
    if any(x.shape != s.world.real.shape for x in seen):
        return False
    return eos_alone_erased(*seen, s.world)


STEP_RULES = (
    ("pads-averaged-in", lambda s: _step_mask(s) == "pads-averaged-in"),
    ("mask-from-decoder-inputs", lambda s: _step_mask(s) == "mask-from-decoder-inputs"),
    ("off-by-one", lambda s: _step_mask(s) == "off-by-one"),
    ("teacher-in-train-mode", lambda s: any(c.training for c in s.whole.teacher_calls)),
    (
        "student-in-eval-mode",
        lambda s: any(not c.training for c in s.whole.student_calls),
    ),
    ("mean-of-means", _step_mean_of_means),
    ("eos-erased", _step_eos_erased),
    ("term-without-gradient", lambda s: _same_for_both_teachers(s) == (False, True)),
    ("teacher-with-itself", lambda s: _same_for_both_teachers(s) == (True, True)),
)
