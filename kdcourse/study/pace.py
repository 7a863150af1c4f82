"""How fast this machine is beside the one on which the lessons' times were recorded.

``python -m kdcourse doctor`` measures it in five seconds and keeps it beside the
learner's progress; from then on printed times are this machine's own. What cannot be
measured, kept or read is left out: the times are then those that were recorded.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from . import progress

VERSION = 1
FILE = "machine.json"  # in the folder that holds the learner's progress
SECONDS = 5.0  # for both measurements together
ROUNDS = 3  # of each, at least
SIDE, PRODUCTS, STEPS = 512, 100, 5  # of the matrices; repetitions in a round
SANE = (0.02, 100.0)  # a factor outside is a mistake, not a machine


@dataclass(frozen=True)
class Speed:
    """Milliseconds of processor time, on one thread: less is faster."""

    matrix: float  # one product of two 512 x 512 matrices in float32
    step: float  # one training step of a student: 4 + 1 layers of 128, 192 tokens

    def factor(self) -> float:
        """How many times the reference's time this machine takes (2: half as fast).

        The geometric mean of both ratios: large products and many small operations
        count alike.
        """
        return math.sqrt(self.matrix / REFERENCE.matrix * self.step / REFERENCE.step)


REFERENCE = Speed(matrix=1.3, step=60.0)  # where notebooks/timings.json was recorded


def measure(
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.process_time,
    wall: Callable[[], float] = time.monotonic,
) -> Speed:
    """Measure this machine for about so many seconds, with torch on one thread.

    Processor time, not time on the wall, so that other programs disturb it little;
    the median of as many rounds as the time allows, after one to warm up.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            product, step = matrix_product(), training_step()
        return Speed(
            matrix=1e3 * typical(product, PRODUCTS, seconds / 2, clock, wall),
            step=1e3 * typical(step, STEPS, seconds / 2, clock, wall),
        )
    finally:
        torch.set_num_threads(threads)


def typical(
    work: Callable[[], object],
    repeats: int,
    seconds: float,
    clock: Callable[[], float],
    wall: Callable[[], float],
) -> float:
    """Seconds by ``clock`` of one call, the median over rounds of ``repeats`` calls.

    Rounds go on until ``seconds`` have passed on the ``wall``, but for ``ROUNDS`` at
    least.
    """
    end, rounds = wall() + seconds, []
    work()
    while len(rounds) < ROUNDS or wall() < end:
        begin = clock()
        for _ in range(repeats):
            work()
        rounds.append((clock() - begin) / repeats)
    return median(rounds)


def matrix_product() -> Callable[[], object]:
    """One large product: what the arithmetic itself can do."""
    import torch

    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return lambda: left @ right


def training_step() -> Callable[[], object]:
    """A student's training step in miniature: many small operations, there and back."""
    import torch
    from torch import nn

    size, vocabulary, batch, length = 128, 4000, 16, 12
    shape = {"d_model": size, "nhead": 4, "dim_feedforward": 512, "dropout": 0.0}
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(vocabulary, size),
            "encoder": nn.ModuleList(
                nn.TransformerEncoderLayer(**shape, batch_first=True) for _ in range(4)
            ),
            "decoder": nn.TransformerDecoderLayer(**shape, batch_first=True),
        }
    )
    source, target = torch.randint(vocabulary, (2, batch, length))
    later = nn.Transformer.generate_square_subsequent_mask(length)

    def step() -> None:
        model.zero_grad()
        hidden = model["words"](source)
        for layer in model["encoder"]:
            hidden = layer(hidden)
        states = model["decoder"](model["words"](target), hidden, tgt_mask=later)
        logits = states[:, :-1] @ model["words"].weight.T
        loss = nn.functional.cross_entropy(
            logits.reshape(-1, vocabulary), target[:, 1:].reshape(-1)
        )
        loss.backward()

    return step


# ---------------------------------------------------------------------- kept and used


def machine_path() -> Path | None:
    """Where the speed is kept; None where nothing of the learner's is."""
    path = progress.progress_path()
    return None if path is None else path.with_name(FILE)


def keep(speed: Speed) -> bool:
    """Remember the speed; False where it cannot be, which stops nothing."""
    path = machine_path()
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rounded = {name: round(ms, 3) for name, ms in asdict(speed).items()}
        progress.write_whole(path, {"version": VERSION, **_machine(), **rounded})
    except OSError:
        return False
    return True


def kept() -> Speed | None:
    """The speed of this machine, if it was measured here and can be read."""
    path = machine_path()
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path else None
        if {"version": VERSION, **_machine()}.items() <= data.items():
            speed = Speed(float(data["matrix"]), float(data["step"]))
            return speed if sane(speed) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # none, another version's, or damaged: as if it had not been measured
    return None


def sane(speed: Speed) -> bool:
    """True for times that a machine can have."""
    positive = all(0 < ms < math.inf for ms in (speed.matrix, speed.step))
    return positive and SANE[0] <= speed.factor() <= SANE[1]


def factor() -> float:
    """By how much recorded times are stretched here; 1 where nothing is known."""
    speed = kept()
    return speed.factor() if speed else 1.0


def here(recorded: list[float]) -> list[float]:
    """Recorded seconds, as this machine is expected to need them."""
    stretch = factor()
    return [seconds * stretch for seconds in recorded]


def _machine() -> dict:
    """By what a data folder that several machines share tells them apart."""
    return {"processor": platform.machine(), "cores": os.cpu_count() or 1}
