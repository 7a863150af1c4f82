"""Time and peak memory of our losses beside other libraries': ``make bench``.

Same tensors, one run: losses take turns in time, and each has a process of its own for
its peak of resident memory, which is counted above what stood before the call (both
logits and the labels). The batches have no pads, which is kindest to losses that know
no mask. A configuration counts only where value and gradient are right.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from kdcourse.theory.audit import audit
from kdcourse.theory.losses import distillation_loss, fused_distillation_loss

from . import losses

SHAPES = ((16, 64, 32_000), (4, 256, 60_000))
WIDTH = 256  # of the hidden states before the head
ROUNDS = 5
TOLERANCE = 1e-3
HEADS = {
    "kdcourse, plain": lambda h, head, t, y: distillation_loss(head(h), t, labels=y),
    "kdcourse, fused": lambda h, head, t, y: fused_distillation_loss(
        h, head, t, labels=y
    ),
}
"""From hidden states on, where the student's logits are no longer given."""


def tensors(shape: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    """Student's and teacher's logits and labels, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(*shape, generator=generator) for _ in range(2))
    labels = torch.randint(shape[2], shape[:2], generator=generator)
    return student.requires_grad_(True), teacher, labels


def head_tensors(shape: tuple[int, int, int]):
    """Hidden states, a head, the teacher's logits and labels."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape[:2], WIDTH, generator=generator).requires_grad_(True)
    head = torch.nn.Linear(WIDTH, shape[2], bias=False)
    torch.nn.init.normal_(head.weight, std=WIDTH**-0.5, generator=generator)
    teacher = 2 * torch.randn(*shape, generator=generator)
    return (
        hidden,
        head,
        teacher,
        torch.randint(shape[2], shape[:2], generator=generator),
    )


def case(name: str, shape: tuple[int, int, int]):
    """The call to be measured: one forward and one backward pass."""
    if name in HEADS:
        inputs = head_tensors(shape)
        leaves = [inputs[0], *inputs[1].parameters()]
        loss = HEADS[name]
    else:
        inputs, loss = tensors(shape), losses.LOSSES[name]
        leaves = [inputs[0]]

    def call() -> float:
        for leaf in leaves:
            leaf.grad = None
        value = loss(*inputs)
        value.backward()
        return value.item()

    return call, leaves


def peak_kilobytes() -> int:
    """The highest resident memory since ``reset_peak``, in KiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1])
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def reset_peak() -> int:
    """Forget the peak, where the system can; returns what counts as nothing now."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return peak_kilobytes()


def own_peak(name: str, shape: tuple[int, int, int]) -> float:
    """Megabytes that one call takes at its highest, in this process."""
    small, _ = case(name, (2, 3, 50))
    small()  # libraries load what they need before memory is counted
    call, _ = case(name, shape)
    before = reset_peak()
    call()
    return (peak_kilobytes() - before) * 1024 / 1e6


def peak(name: str, shape: tuple[int, int, int]) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "peers.bench", "--peak", name, json.dumps(shape)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def times(names: list[str], shape: tuple[int, int, int]) -> dict[str, float]:
    """Median seconds of each; they take turns, so that all share a busy moment."""
    calls = {name: case(name, shape)[0] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def what_is_wrong(name: str, shape: tuple[int, int, int], wanted) -> str:
    """In words; empty where value and gradient are those of the definition."""
    call, (student,) = case(name, shape)
    value, (right, gradient) = call(), wanted
    found = []
    if abs(value / right - 1) > TOLERANCE:
        found.append(f"value x {value / right:.3g}")
    if (student.grad - gradient).norm() > TOLERANCE * gradient.norm():
        found.append(f"gradient x {student.grad.norm() / gradient.norm():.3g}")
    return f"{', '.join(found)}: {mistakes_of(name)}" if found else ""


def mistakes_of(name: str) -> str:
    """Why a loss is wrong: the mistakes of which the audit convicts it."""
    return ", ".join(found.slug for found in audit(losses.LOSSES[name]).diagnoses)


def compare(shape: tuple[int, int, int]) -> list[tuple[str, bool]]:
    """Print the table of one shape; returns the bars and whether they are met."""
    names = list(losses.LOSSES)
    wanted = losses.reference(*tensors(shape))
    wrong = {name: what_is_wrong(name, shape, wanted) for name in names}
    seconds = times(names, shape)
    memory = {name: peak(name, shape) for name in names}
    size = shape[0] * shape[1] * shape[2] * 4 / 1e6
    print(f"\n(B, L, V) = {shape}: student's logits {size:.0f} MB")
    print(f"{'loss':36}{'time':>8}{'peak':>10}{'logits':>8}  right?")
    ours = seconds[losses.OURS]
    for name in names:
        print(
            f"{name:36}{seconds[name] / ours:7.2f}x{memory[name]:7.0f} MB"
            f"{memory[name] / size:7.1f}x  {wrong[name] or 'yes'}"
        )
    peers = [name for name in names if name != losses.OURS and not wrong[name]]
    fastest, leanest = min(map(seconds.get, peers)), min(map(memory.get, peers))
    return [
        (f"plain {ours / fastest:.2f}x the time of the fastest", ours <= fastest),
        (
            f"plain {memory[losses.OURS] / leanest:.2f}x the peak of the leanest",
            memory[losses.OURS] <= leanest / 2,
        ),
        *compare_fused(shape),
    ]


def compare_fused(shape: tuple[int, int, int]) -> list[tuple[str, bool]]:
    """Plain and fused from hidden states on, the head's gradient included."""
    seconds = times(list(HEADS), shape)
    memory = {name: peak(name, shape) for name in HEADS}
    plain, fused = HEADS
    print(f"from hidden states of {WIDTH} on, with the head and its gradient:")
    for name in HEADS:
        print(f"{name:36}{seconds[name] / seconds[plain]:7.2f}x{memory[name]:7.0f} MB")
    share = memory[fused] / memory[plain]
    return [(f"fused 1/{1 / share:.1f} of the plain one's peak", share <= 1 / 6)]


def main(arguments: list[str] | None = None) -> int:
    """Both shapes, then the bars; 1 where one is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "SHAPE"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.peak:
        print(own_peak(given.peak[0], tuple(json.loads(given.peak[1]))))
        return 0
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"torch {torch.__version__}, {given.threads} thread(s), load {load}")
    bars = [bar for shape in SHAPES for bar in compare(shape)]
    print()
    for text, met in bars:
        print(f"{'met' if met else 'NOT MET':8} {text}")
    return 0 if all(met for _, met in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
