"""How a learner's test is tested: verdicts on a line-up of losses.

A property test takes any loss and is True where a property holds and False where it is
broken. It is right when it judges a line-up as the reference does: right losses of
several kinds, the mistake and its cousins, and losses that are wrong in another way, of
which this property has nothing to say. A vacuous test, a blind one and one that blames
what is right each give another row of verdicts, by which they are known.

Tolerances cannot be read off verdicts, as rounding differs between machines. So a test
that errs is tried again on the same losses rounded to four digits, and on the same
losses a thousand times larger: if it is right then, its tolerance was the matter.
Such changes are the exercise's probes; each stands for the misconception of its key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .core import Case, Exercise, Misconception, Outcome


def verdict_of(test: Callable, arguments: tuple) -> object:
    """The test's answer; a bool of torch or NumPy is as good as one of Python."""
    answer = test(*arguments)
    if isinstance(answer, Tensor) and answer.dtype == torch.bool and not answer.dim():
        return bool(answer)
    return bool(answer) if type(answer).__module__ == "numpy" else answer


class _Rounded(torch.autograd.Function):
    """The same numbers, forwards or backwards, with four digits."""

    @staticmethod
    def forward(ctx, x, forwards):
        ctx.forwards = forwards
        return _four_digits(x) if forwards else x.clone()

    @staticmethod
    def backward(ctx, grad):
        return (grad if ctx.forwards else _four_digits(grad)), None


def _four_digits(x: Tensor) -> Tensor:
    largest = x.detach().abs().max() if x.numel() else torch.zeros(())
    if not largest.isfinite() or largest < 1e-6:
        return torch.zeros_like(x) if largest.isfinite() else x
    unit = 10.0 ** (math.floor(math.log10(largest)) - 3)
    return (x / unit).round() * unit


def rounded(loss: Callable) -> Callable:
    """The loss, its value and its gradient rounded to four digits."""

    def changed(student, *rest, **options):
        if isinstance(student, Tensor):
            student = _Rounded.apply(student, False)
        return _Rounded.apply(loss(student, *rest, **options), True)

    return changed


def magnified(loss: Callable) -> Callable:
    """The loss, a thousand times larger."""
    return lambda *inputs, **options: 1000.0 * loss(*inputs, **options)


PROBES = {"too tight": rounded, "too loose": magnified}

_ERRS = {
    True: "Your test gives True, but this one breaks the property. Which batch, and "
    "which look at it, would show the difference?",
    False: "Your test gives False, but this one keeps the property. It may be wrong "
    "in another way, or of another kind: a property test has to let that pass.",
}


@dataclass(frozen=True)
class PropertyTest(Exercise):
    """An exercise whose solution is a property test, called with each suspect.

    ``probes`` are changes of a loss by the key of a misconception: a wrong test that is
    right on losses so changed has that misconception.
    """

    observe: Callable = verdict_of
    probes: dict[str, Callable] = field(default_factory=lambda: PROBES)

    def _diagnose(self, function, cases, wanted, seen, wrong: list[int]) -> Outcome:
        """A tolerance that is at fault, or what the engine finds, or what is plain."""
        found = (function, cases, wanted, seen, wrong)
        known = {m.key: m for m in self.misconceptions}
        for key, change in self.probes.items():
            if key in known and self._is_right_on(function, cases, wanted, change):
                return self._told(key, known[key].diagnosis, *found)
        outcome = super()._diagnose(*found)
        first = seen[wrong[0]]
        if outcome.diagnosis == "value" and isinstance(first.value, bool):
            key = "lets one through" if first.value else "blames one without cause"
            text = _ERRS[first.value]
            return self._told(key, text, *found)
        return outcome

    def _is_right_on(self, function, cases, wanted, change: Callable) -> bool:
        for case, verdict in zip(cases, wanted, strict=True):
            ((name, loss),) = case.arguments.items()
            again = self._watch(function, Case(case.name, {name: change(loss)}))
            if again.error is not None or again.value is not verdict.value:
                return False
        return True

    def _told(self, key: str, text: str, function: Callable, *rest) -> Outcome:
        """The engine's message with this diagnosis."""
        alone = replace(self, misconceptions=(Misconception(key, text, function),))
        return Exercise._diagnose(alone, function, *rest)


def _suspect(loss: Callable) -> Callable:
    """A loss under a name that does not give away what it is, in 32 bits."""

    def suspect(*inputs, **options):
        return loss(*inputs, **options).float()

    return suspect


def line_up(argument: str = "loss", /, **losses: Callable) -> list[Case]:
    """A case a loss; ``_`` in a name stands for a space."""
    return [
        Case(name.replace("_", " "), {argument: _suspect(loss)})
        for name, loss in losses.items()
    ]


def near(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two numbers are the same up to rounding; NaN and inf are near nothing."""
    a, b = float(a), float(b)
    apart = abs(a - b)
    return apart < math.inf and apart <= tolerance * max(abs(a), abs(b)) + 1e-7


def acquits(*inputs) -> bool:
    """The test that lets everything through."""
    return True


def blames(*inputs) -> bool:
    """The test that lets nothing through."""
    return False


def _not(test: Callable) -> Callable:
    return lambda loss: not test(loss)


def answers_exchanged(test: Callable) -> Misconception:
    """The misconception that True is for a loss which is wrong."""
    return Misconception(
        "answers exchanged",
        "Your test has found everything, and says it the wrong way round: True is for "
        "a loss that keeps the property, False for one that breaks it.",
        _not(test),
    )


def too_tight(*functions: Callable, more: str = "") -> Misconception:
    """The misconception that two sums are equal to the last digit."""
    return Misconception(
        "too tight",
        "Your comparison asks for more than numbers in 32 bits can give: sums taken in "
        "another order differ in the seventh digit. Leave room for rounding, say one "
        f"part in 10,000 (torch.isclose with rtol=1e-4).{more}",
        *functions,
    )


def too_loose(*functions: Callable) -> Misconception:
    """The misconception that a fixed amount is small beside every loss."""
    return Misconception(
        "too loose",
        "Your tolerance swallows the mistake: some losses here are small, and what "
        "they lose is smaller than what you allow. Measure a difference against the "
        "numbers that are compared, not against a fixed amount, and allow little of "
        "it: one part in 10,000 is enough for rounding.",
        *functions,
    )


def one_direction(test: Callable, what: str) -> Misconception:
    """The misconception that a number which must stay may move one way.

    ``test`` takes a loss and the comparison of two numbers, the second of which is that
    of the changed batch; ``what`` says what was changed.
    """
    return Misconception(
        "one direction only",
        f"Your test sees that a loss moves with {what} in one direction only: one that "
        "moves the other way passes. Compare with torch.isclose, or the size of the "
        "difference.",
        lambda loss: test(loss, lambda a, b: bool(b <= a * (1 + 1e-4))),
        lambda loss: test(loss, lambda a, b: bool(b >= a * (1 - 1e-4))),
    )


def another_loss_expected(test: Callable) -> Misconception:
    """The misconception that a property is equality with one loss."""
    return Misconception(
        "another loss expected",
        "Your test compares the loss with a loss of your own. That tells whether the "
        "two are the same, not whether the property holds: it blames every other "
        "divergence, and every mistake that is none of this property's business. Ask "
        "the loss twice, and compare it with itself.",
        test,
    )


def exactly(a: Tensor, b: Tensor) -> bool:
    """A comparison without any room."""
    return bool(a == b)


def within(amount: float) -> Callable:
    """A comparison with a fixed room."""
    return lambda a, b: bool((a - b).abs() < amount)
