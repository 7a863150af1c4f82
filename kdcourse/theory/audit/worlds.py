"""The batches that a loss is asked about: small, seeded, each made for one question."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from ..arguments import IGNORE


@dataclass(frozen=True)
class World:
    """One batch that a loss is asked about."""

    student: Tensor  # (B, L, V)
    teacher: Tensor
    labels: Tensor  # (B, L)
    pad: int = 0
    eos: int = 1

    @property
    def real(self) -> Tensor:
        """Which positions (B, L) hold a real token."""
        return self.labels != IGNORE

    @property
    def count(self) -> int:
        """How many real tokens there are."""
        return int(self.real.sum())

    @property
    def options(self) -> dict[str, object]:
        """Every option at its plainest value."""
        return {
            "temperature": 1.0,
            "alpha": 0.0,
            "beta": 0.5,
            "k": min(self.student.shape[-1], self.teacher.shape[-1]),
            "normalizer": self.count,
            "decoder_input_ids": shifted_right(self.labels, self.pad),
            "pad_token_id": self.pad,
            "eos_token_id": self.eos,
        }

    def each(self, change: Callable[[Tensor], Tensor]) -> World:
        """The same change on all three tensors, such as repeating rows."""
        parts = (change(x) for x in (self.student, self.teacher, self.labels))
        return World(*parts, self.pad, self.eos)

    def equal(self) -> World:
        """The student as its teacher."""
        return replace(self, student=self.teacher)

    def wider(self, student: float | None, teacher: float | None) -> World:
        """Three more entries of the vocabulary with this logit; None adds none."""
        return replace(
            self,
            student=widened(self.student, student),
            teacher=widened(self.teacher, teacher),
        )

    def longer(self) -> World:
        """Three more pads at the end of each row, with loud logits."""
        generator = torch.Generator().manual_seed(9)
        shape = (len(self.labels), 3, self.student.shape[-1])
        noise = (8 * torch.randn(shape, generator=generator) for _ in range(2))
        student, teacher = (
            torch.cat([x, n.to(x)], 1)
            for x, n in zip((self.student, self.teacher), noise, strict=True)
        )
        pads = torch.full((len(self.labels), 3), IGNORE)
        return replace(
            self,
            student=student,
            teacher=teacher,
            labels=torch.cat([self.labels, pads], 1),
        )


def widened(logits: Tensor, fill: float | None) -> Tensor:
    """Three more entries of this logit, or none."""
    return logits if fill is None else nn.functional.pad(logits, (0, 3), value=fill)


def shifted_right(labels: Tensor, pad: int) -> Tensor:
    """The decoder's input: start token, which is the pad token, then the labels."""
    start = torch.full_like(labels[:, :1], pad)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORE, pad)


LENGTHS = (7, 5, 3)  # no two of B, L, N, V and their products are the same number


SIZE = 11


def make_labels(generator: torch.Generator, pad: int = 0, eos: int = 1) -> Tensor:
    """Rows of several lengths that end in EOS, and pads."""
    labels = torch.randint(2, SIZE, (len(LENGTHS), max(LENGTHS)), generator=generator)
    for row, length in zip(labels, LENGTHS, strict=True):
        row[length - 1] = eos
        row[length:] = IGNORE
    return labels


def make_world(seed: int) -> World:
    """Sentences of several lengths with random logits."""
    generator = torch.Generator().manual_seed(seed)
    labels = make_labels(generator)
    student, teacher = (
        1.5 * torch.randn(*labels.shape, SIZE, generator=generator) for _ in range(2)
    )
    return World(student, teacher, labels)


def same_token(student: Tensor, teacher: Tensor) -> World:
    """One sentence with one token (V,) at every position.

    A loss that shifts, masks or counts wrongly differs here from a right one by a
    factor only, so its formula can be read off alone.
    """
    student, teacher = (x.expand(1, 4, -1).clone() for x in (student, teacher))
    return World(student, teacher, torch.ones(1, 4, dtype=torch.int64))


# Probabilities of the first of two tokens, the teacher's and the student's.
TWO_POINTS = ((0.75, 0.5), (0.9, 0.2), (0.3, 0.6), (0.05, 0.5), (0.6, 0.95))


@cache
def two_point_worlds() -> list[World]:
    """A world for each pair of TWO_POINTS."""
    # Logits (log odds, 0) are not normalised: a forgotten log-softmax shows.
    return [
        same_token(*(torch.tensor([math.log(x / (1 - x)), 0.0]) for x in (q, p)))
        for p, q in TWO_POINTS
    ]


@cache
def top_k_worlds() -> list[World]:
    """Tokens with six possible values, for losses that keep k of them."""
    generator = torch.Generator().manual_seed(4)
    return [
        same_token(*(torch.randn(6, generator=generator) for _ in range(2)))
        for _ in range(5)
    ]


@cache
def near_worlds() -> list[World]:
    """Tokens at which the student is near its teacher, where rounding tells."""
    generator = torch.Generator().manual_seed(5)
    worlds = []
    for _ in range(6):
        teacher, noise = (torch.randn(SIZE, generator=generator) for _ in range(2))
        worlds.append(same_token(2 * teacher + 0.2 * noise, 2 * teacher))
    return worlds


def logits_raised(world: World) -> World:
    """Each token's logits plus a number of its own, which no softmax over V sees."""
    b, length = world.labels.shape
    numbers = torch.linspace(-9.0, 9.0, b * length).view(b, length, 1)
    return replace(
        world, student=world.student + numbers, teacher=world.teacher - numbers
    )


def logits_raised_over_time(world: World) -> World:
    """Each entry of a sentence plus a number, which no softmax over time sees."""
    b, _, size = world.student.shape
    numbers = torch.linspace(-9.0, 9.0, b * size).view(b, 1, size)
    return replace(
        world, student=world.student + numbers, teacher=world.teacher - numbers
    )
