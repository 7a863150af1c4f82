"""A conformance report for any distillation loss: ``print(audit(my_loss))``.

A loss is called as ``loss_fn(student_logits, teacher_logits, labels, **options)`` with
logits (B, L, V), labels (B, L) int64 that are -100 at pads, and returns one number, the
mean over real tokens. Position t's logits are compared with the label at t. Options are
recognised by name in the signature, and what needs one that is missing is reported as
not applicable:

``temperature``
    T, of teacher and student; the soft term is multiplied by T² (Hinton et al. 2015).
``alpha``
    share of the hard labels in 0..1; 0, the teacher alone, unless it is what is tested.
``beta``
    of β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q (Agarwal et al. 2024, GKD):
    divided by β it tends to the forward KL as β → 0, and divided by 1-β to the reverse
    KL as β → 1. p is the teacher's distribution, q the student's.
``k``
    how many of the teacher's best entries are kept of each token, at most V.
``normalizer``
    the real tokens of the whole step, of which the batch may be a part.
``decoder_input_ids``, ``pad_token_id``, ``eos_token_id``
    the decoder's input, labels shifted right; its start token is the pad token.

A function of another form goes through ``adapt``. What lives in the training step and
not in the loss is the matter of ``audit_step``.

How it works: a property is a small function that measures the loss and gives a verdict
with its evidence. A diagnosis is not a list of failed properties, since one mistake
breaks several, but a pattern of its own: which positions have a gradient, by what
factor the value changes when the batch, the length or the vocabulary does, which
formula the values on two-point distributions obey.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .arguments import IGNORE, BadArgument, check_choice
from .divergences import DIVERGENCES
from .museum import DIAGNOSES, Diagnosis

__all__ = [
    "DIAGNOSES",
    "Diagnosis",
    "Finding",
    "OPTIONS",
    "Report",
    "adapt",
    "audit",
    "audit_step",
]

OPTIONS = (
    "temperature",
    "alpha",
    "beta",
    "k",
    "normalizer",
    "decoder_input_ids",
    "pad_token_id",
    "eos_token_id",
)
"""The options of a loss that the audit knows how to set."""

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


# -------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class Finding:
    """One property, its status and what was measured, in words."""

    property: str
    status: str
    evidence: str


@dataclass(frozen=True)
class Report:
    """What an audit found; ``print`` it, or let it fail a test in one line."""

    name: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[Diagnosis, ...]

    @property
    def passed(self) -> bool:
        """Whether no property failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return self._of(FAILED)

    def _of(self, status: str) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.status == status)

    def raise_if_failed(self) -> None:
        """An AssertionError that holds the report, where a property failed."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        tested = len(self.findings) - len(self._of(NOT_APPLICABLE))
        verdict = "FAILED" if self.failed else "passed"
        counts = f"{tested - len(self.failed)} of {tested} properties hold"
        lines = [f"Audit of {self.name}: {verdict}, {counts}"]
        for found in self.diagnoses:
            lines.append(f"Diagnosis {found.slug} (museum, row {found.row})")
            lines += _wrap("What happens: ", found.effect)
            lines += _wrap("Remedy: ", found.remedy)
        if self.failed and not self.diagnoses:
            lines.append("No mistake of the museum fits; what failed tells more.")
        for status, mark in ((FAILED, "FAILED "), (PASSED, "passed ")):
            for f in self._of(status):
                lines += _wrap(mark, f"{f.property}: {f.evidence}")
        for f in self._of(NOT_APPLICABLE):
            lines += _wrap("n/a    ", f"{f.property}: {f.evidence}")
        return "\n".join(lines)


def _wrap(mark: str, text: str) -> list[str]:
    return textwrap.wrap(
        mark + text, 88, initial_indent="  ", subsequent_indent=" " * 9
    )


# ------------------------------------------------------------------------ what is asked


def audit(
    loss_fn: Callable[..., Tensor],
    *,
    name: str | None = None,
    divergence: str | None = None,
) -> Report:
    """Test a distillation loss, anybody's, against what such a loss must fulfil.

    Args:
        loss_fn: ``loss_fn(student_logits, teacher_logits, labels, **options)``; see
            the module's text.
        name: how the report calls it; else the function's own name.
        divergence: what it claims to be, a name of ``divergences.DIVERGENCES``, or
            "any" to leave direction, scale and the value at high T untested. Without
            it: "generalised_js" where there is an option ``beta``, else "forward_kl".

    Raises:
        BadArgument: it cannot be called like this, raises, or returns no single number.
    """
    accepts = _options_of("loss_fn", loss_fn)
    if divergence is None:
        divergence = "generalised_js" if "beta" in accepts else "forward_kl"
    check_choice("divergence", divergence, (*DIVERGENCES, "any"))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)  # a loss that draws at random gets one report, not many
        measured = _Measured(loss_fn, accepts, divergence)
        try:
            blocked = measured.blocked
        except _Refused as error:
            raise error.as_argument("loss_fn") from error.__cause__
        findings = [_find(check, measured, blocked) for check in _PROPERTIES]
        slugs = _diagnose(measured, blocked)
    return _report(name or _name_of(loss_fn), findings, slugs)


def audit_step(step_fn: Callable[..., Tensor], *, name: str | None = None) -> Report:
    """Test a training step for what does not show in its loss function.

    ``step_fn(student, teacher, batches)`` gets two modules, called as
    ``model(input_ids, attention_mask, decoder_input_ids).logits``, and a list of
    micro-batches: dictionaries with those three, ``labels`` (-100 at pads),
    ``pad_token_id`` and ``eos_token_id``. It must leave the gradient of the whole step
    on ``student.parameters()`` and return the loss.

    The modules come as a run leaves them: the teacher as built, in train mode, and
    the student in eval mode, as after an evaluation. The step has to set both.

    Raises:
        BadArgument: it cannot be called like this, raises, or returns no single number.
    """
    if not callable(step_fn):
        raise _not_callable("step_fn", step_fn, "step_fn(student, teacher, batches)")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        steps = _Steps(step_fn)
        try:
            steps.try_out()
        except _Refused as error:
            raise error.as_argument("step_fn") from error.__cause__
        findings = [_find(check, steps, None) for check in _STEP_PROPERTIES]
        slugs = [slug for slug, rule in _STEP_RULES if _holds(rule, steps)]
    return _report(name or _name_of(step_fn), findings, slugs)


_VIEWS = {
    "student_logits": lambda s, t, y: s,
    "teacher_logits": lambda s, t, y: t,
    "student_log_probs": lambda s, t, y: s.float().log_softmax(-1),
    "teacher_log_probs": lambda s, t, y: t.float().log_softmax(-1),
    "student_probs": lambda s, t, y: s.float().softmax(-1),
    "teacher_probs": lambda s, t, y: t.float().softmax(-1),
    "labels": lambda s, t, y: y,
    "mask": lambda s, t, y: y != IGNORE,
}


def adapt(
    fn: Callable[..., Tensor],
    *,
    takes: str = "student_logits teacher_logits labels",
    tokens: str = "all",
    divide: bool = False,
    float32: bool = False,
    rename: dict[str, str] | None = None,
    options: Iterable[str] = OPTIONS,
) -> Callable[..., Tensor]:
    """Another library's loss in the form that ``audit`` calls.

    ``adapt(torch.nn.KLDivLoss(reduction="sum"), divide=True, tokens="real",
    takes="student_log_probs teacher_probs")`` is the forward KL of torch.

    Args:
        fn: the loss.
        takes: what it takes by position, in its order: words of student_logits,
            teacher_logits, the same with log_probs or probs, labels, mask (bool).
        tokens: "all" for (B, L, V), or "real" for the real tokens alone, (N, V).
        divide: whether it returns a sum, to be divided by the real tokens.
        float32: raise the logits first, where fn relies on its caller for that.
        rename: the audit's name of an option to that of fn: {"temperature": "T"}.
        options: which options are to be set; others keep fn's default.
    """
    takes, rename, options = takes.split(), rename or {}, tuple(options)
    theirs = _parameters("fn", fn)
    check_choice("tokens", tokens, ("all", "real"))
    for name, words, choices in (
        ("takes", takes, _VIEWS),
        ("options", options, OPTIONS),
        ("rename", rename, OPTIONS),
    ):
        for word in words:
            check_choice(name, word, choices)
    _check_renamed(rename, theirs)
    known = [option for option in options if rename.get(option, option) in theirs]

    def adapted(student_logits, teacher_logits, labels, **given):
        divisor = given.pop("normalizer", None) if divide else None
        if divide and divisor is None:
            divisor = (labels != IGNORE).sum()
        parts = (student_logits, teacher_logits, labels)
        if tokens == "real":
            real = labels != IGNORE
            parts = tuple(x[real] for x in parts)
        if float32:
            parts = (parts[0].float(), parts[1].float(), parts[2])
        inputs = [_VIEWS[word](*parts) for word in takes]
        result = fn(*inputs, **{rename.get(o, o): v for o, v in given.items()})
        return result / divisor if divide else result

    adapted.__name__ = _name_of(fn)
    adapted.__signature__ = _signature({*known, *(["normalizer"] if divide else [])})
    return adapted


def _check_renamed(rename: dict[str, str], theirs: Iterable[str]) -> None:
    for ours, name in rename.items():
        if name not in theirs:
            raise BadArgument(
                "rename",
                f"{ours}={name!r}",
                wanted="the name of an option that fn has",
                todo="Look at the signature of fn.",
            )


def _signature(options: set[str]) -> inspect.Signature:
    kind = inspect.Parameter
    first = ("student_logits", "teacher_logits", "labels")
    return inspect.Signature(
        [kind(x, kind.POSITIONAL_OR_KEYWORD) for x in first]
        + [kind(x, kind.KEYWORD_ONLY, default=None) for x in OPTIONS if x in options]
    )


def _parameters(name: str, fn: Callable) -> dict[str, inspect.Parameter]:
    if not callable(fn):
        raise _not_callable(
            name, fn, "loss_fn(student_logits, teacher_logits, labels, **options)"
        )
    try:
        return dict(inspect.signature(_called(fn)).parameters)
    except (TypeError, ValueError):  # some built-in functions have none
        return {}


def _called(fn: Callable) -> Callable:
    """What holds the signature: a module's is that of its forward."""
    return fn.forward if isinstance(fn, nn.Module) else fn


def _options_of(name: str, fn: Callable) -> frozenset[str]:
    parameters = _parameters(name, fn)
    accepts = frozenset(parameters) & set(OPTIONS)
    if parameters:
        signature = inspect.signature(_called(fn))
        try:
            signature.bind(0, 0, 0, **dict.fromkeys(accepts, 0))
        except TypeError as error:
            raise BadArgument(
                name,
                f"{_name_of(fn)}{signature}: {error}",
                wanted="loss_fn(student_logits, teacher_logits, labels, **options)",
                todo="Bring it into this form with adapt(fn, takes=…, rename=…).",
            ) from None
    return accepts


def _not_callable(name: str, given: object, wanted: str) -> BadArgument:
    return BadArgument(
        name,
        f"a {type(given).__name__}",
        wanted=f"a function {wanted}",
        todo="Pass the function itself, without calling it.",
    )


def _name_of(fn: Callable) -> str:
    fn = getattr(fn, "func", fn)  # of a functools.partial
    return getattr(fn, "__name__", type(fn).__name__)


def _report(name: str, findings: list[Finding], slugs: list[str]) -> Report:
    return Report(name, tuple(findings), tuple(DIAGNOSES[slug] for slug in slugs))


def _find(check, measured, blocked: str | None) -> Finding:
    """Run one property; what the loss itself raises is a failure of the property."""
    label, needs, function = check
    if blocked is not None and label not in _ALWAYS:
        return Finding(label, NOT_APPLICABLE, f"not tested, since {blocked}")
    missing = [x for x in needs if x not in measured.accepts]
    if missing:
        return Finding(label, NOT_APPLICABLE, f"no option {', '.join(missing)}")
    try:
        holds, evidence = function(measured)
    except _Refused as error:
        holds, evidence = False, f"it {error}"
    status = {True: PASSED, False: FAILED, None: NOT_APPLICABLE}[holds]
    return Finding(label, status, evidence)


def _holds(rule: Callable, measured) -> bool:
    try:
        return bool(rule(measured))
    except _Refused:
        return False


class _Refused(Exception):
    """The loss raised something, or gave back what is no single number."""

    def as_argument(self, name: str) -> BadArgument:
        return BadArgument(
            name,
            f"a function that {self}",
            wanted="one number, torch.Size([]), for any batch",
            todo="Call it by hand on logits (2, 3, 5) and labels (2, 3), and see.",
        )


def _call(fn: Callable, *inputs, **options) -> Tensor:
    try:
        result = fn(*inputs, **options)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:100]
        raise _Refused(f"raises {type(error).__name__}: {first}") from error
    if not isinstance(result, Tensor):
        raise _Refused(f"returns a {type(result).__name__} and no tensor")
    if result.dim():
        raise _Refused(f"returns a tensor of shape {tuple(result.shape)}")
    return result


# --------------------------------------------------------------------------- the worlds


@dataclass(frozen=True)
class _World:
    """One batch that a loss is asked about."""

    student: Tensor  # (B, L, V)
    teacher: Tensor
    labels: Tensor  # (B, L)
    pad: int = 0
    eos: int = 1

    @property
    def real(self) -> Tensor:
        return self.labels != IGNORE

    @property
    def count(self) -> int:
        return int(self.real.sum())

    @property
    def options(self) -> dict[str, object]:
        return {
            "temperature": 1.0,
            "alpha": 0.0,
            "beta": 0.5,
            "k": min(self.student.shape[-1], self.teacher.shape[-1]),
            "normalizer": self.count,
            "decoder_input_ids": _shifted_right(self.labels, self.pad),
            "pad_token_id": self.pad,
            "eos_token_id": self.eos,
        }

    def each(self, change: Callable[[Tensor], Tensor]) -> _World:
        """The same change on all three tensors, such as repeating rows."""
        parts = (change(x) for x in (self.student, self.teacher, self.labels))
        return _World(*parts, self.pad, self.eos)

    def equal(self) -> _World:
        return replace(self, student=self.teacher)

    def wider(self, student: float | None, teacher: float | None) -> _World:
        """Three more entries of the vocabulary with this logit; None adds none."""
        return replace(
            self,
            student=_widened(self.student, student),
            teacher=_widened(self.teacher, teacher),
        )

    def longer(self) -> _World:
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


def _widened(logits: Tensor, fill: float | None) -> Tensor:
    return logits if fill is None else nn.functional.pad(logits, (0, 3), value=fill)


def _shifted_right(labels: Tensor, pad: int) -> Tensor:
    """The decoder's input: start token, which is the pad token, then the labels."""
    start = torch.full_like(labels[:, :1], pad)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORE, pad)


LENGTHS = (7, 5, 3)  # no two of B, L, N, V and their products are the same number
SIZE = 11


def _labels(generator: torch.Generator, pad: int = 0, eos: int = 1) -> Tensor:
    """Rows of several lengths that end in EOS, and pads."""
    labels = torch.randint(2, SIZE, (len(LENGTHS), max(LENGTHS)), generator=generator)
    for row, length in zip(labels, LENGTHS, strict=True):
        row[length - 1] = eos
        row[length:] = IGNORE
    return labels


def _world(seed: int) -> _World:
    generator = torch.Generator().manual_seed(seed)
    labels = _labels(generator)
    student, teacher = (
        1.5 * torch.randn(*labels.shape, SIZE, generator=generator) for _ in range(2)
    )
    return _World(student, teacher, labels)


def _same_token(student: Tensor, teacher: Tensor) -> _World:
    """One sentence with one token (V,) at every position.

    A loss that shifts, masks or counts wrongly differs here from a right one by a
    factor only, so its formula can be read off alone.
    """
    student, teacher = (x.expand(1, 4, -1).clone() for x in (student, teacher))
    return _World(student, teacher, torch.ones(1, 4, dtype=torch.int64))


# Probabilities of the first of two tokens, the teacher's and the student's.
TWO_POINTS = ((0.75, 0.5), (0.9, 0.2), (0.3, 0.6), (0.05, 0.5), (0.6, 0.95))


@cache
def _two_point_worlds() -> list[_World]:
    # Logits (log odds, 0) are not normalised: a forgotten log-softmax shows.
    return [
        _same_token(*(torch.tensor([math.log(x / (1 - x)), 0.0]) for x in (q, p)))
        for p, q in TWO_POINTS
    ]


# ----------------------------------------------------------------------- the references
#
# Written out from the definitions in float64, with no code of the losses under test.


def _kl(a: Tensor, b: Tensor) -> Tensor:
    return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(-1)


def _mixed(p: Tensor, q: Tensor, beta: float, share: float) -> Tensor:
    m = share * p + (1 - share) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


REFERENCES = {
    "forward_kl": _kl,
    "reverse_kl": lambda p, q: _kl(q, p),
    "generalised_js": lambda p, q, beta=0.5: _mixed(p, q, beta, beta),
    "skew_kl": lambda p, q: _kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: _kl(q, 0.9 * p + 0.1 * q),
    "total_variation": lambda p, q: 0.5 * (p - q).abs().sum(-1),
}
"""What ``divergences.DIVERGENCES`` should give of p (teacher) and q (student)."""

_OPPOSITE = {
    "forward_kl": "reverse_kl",
    "reverse_kl": "forward_kl",
    "skew_kl": "skew_reverse_kl",
    "skew_reverse_kl": "skew_kl",
}

# What comes out of kl_div(input, target) = Σ target (log target - input) where the
# input is no log-probability, and of a cross-entropy.
_OTHER_FORMULAS = {
    "cross_entropy": lambda p, q, z: -torch.xlogy(p, q).sum(-1),
    "kl_div of probabilities": lambda p, q, z: (torch.xlogy(p, p) - p * q).sum(-1),
    "kl_div of probabilities, swapped": lambda p, q, z: (torch.xlogy(q, q) - q * p).sum(
        -1
    ),
    "kl_div of raw logits": lambda p, q, z: (torch.xlogy(p, p) - p * z).sum(-1),
}


def _probabilities(world: _World, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's, in this order."""
    pair = (world.teacher, world.student)
    return tuple((x.double() / temperature).softmax(-1) for x in pair)


def _match(values: Tensor, candidates: dict[str, Tensor], tolerance: float = 1e-3):
    """(name, factor) of the candidate that the values are a positive multiple of."""
    if not values.isfinite().all() or values.norm() < 1e-7:
        return None, math.nan
    for name, wanted in candidates.items():
        if not wanted.isfinite().all():
            continue
        factor = ((values @ wanted) / (wanted @ wanted)).item()
        misses = (values - factor * wanted).norm()
        if factor > 0 and misses < tolerance * values.norm():
            return name, factor
    return None, math.nan


def _near(a: float, b: float, tolerance: float = 1e-3) -> bool:
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-7


def _alike(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    """Tensors whose difference is small beside the larger of them."""
    return bool((a - b).norm() <= tolerance * max(a.norm(), b.norm()) + 1e-9)


def _ratio(a: float, b: float) -> float:
    return a / b if abs(b) > 1e-9 else math.nan


def _figure(number: float) -> str:
    """Three digits at most; what is only rounding is 0 on every machine."""
    return "0" if abs(number) < 1e-5 else f"{number:.3g}"


# --------------------------------------------------------------------- what is measured


class _Measured:
    """A loss and what was measured of it; each measurement is made once, on demand."""

    def __init__(self, fn: Callable, accepts: frozenset[str], divergence: str):
        self.fn, self.accepts, self.divergence = fn, accepts, divergence
        self.world = _world(seed=0)
        other = _world(seed=1).teacher
        self.other_teacher = replace(self.world, teacher=other)

    def run(self, world: _World, **changed) -> tuple[float, Tensor]:
        """The value, and its gradient in the student's logits."""
        leaf, loss = self._from_leaf(world, changed)
        return loss.detach().double().item(), _gradient(loss, leaf)

    def value(self, world: _World, **changed) -> float:
        return self._from_leaf(world, changed)[1].detach().double().item()

    def gradient(self, world: _World, **changed) -> Tensor:
        return self.run(world, **changed)[1]

    def _from_leaf(self, world: _World, changed: dict) -> tuple[Tensor, Tensor]:
        # As in a model the logits are no leaf; copies, for a loss may overwrite them.
        leaf = world.student.clone().requires_grad_(True)
        return leaf, self._loss(leaf.clone(), world.teacher.clone(), world, changed)

    def _loss(self, student, teacher, world, changed) -> Tensor:
        options = {**world.options, **changed}
        known = {name: x for name, x in options.items() if name in self.accepts}
        return _call(self.fn, student, teacher, world.labels.clone(), **known)

    @cached_property
    def base(self) -> tuple[float, Tensor]:
        return self.run(self.world)

    @property
    def base_value(self) -> float:
        return self.base[0]

    @property
    def base_gradient(self) -> Tensor:
        return self.base[1]

    @cached_property
    def twice(self) -> tuple[float, float]:
        return self.base_value, self.value(self.world)

    @property
    def blocked(self) -> str | None:
        """Why nothing more can be measured, or None."""
        if not math.isfinite(self.base_value):
            return "the value is not finite"
        if not self.base_gradient.isfinite().all():
            return "the gradient is not finite"
        if not _near(*self.twice, 1e-6):
            return "two calls give two values"
        return None

    # ---- positions

    @cached_property
    def seen(self) -> Tensor:
        """Which positions (B, L) have a gradient."""
        return _seen(self.base_gradient)

    @cached_property
    def moved(self) -> tuple[tuple[int, int], Tensor]:
        """A position, and where the gradient moves when its teacher does."""
        place = (0, 3)
        teacher = self.world.teacher.clone()
        teacher[place] = self.other_teacher.teacher[place]
        changed = self.gradient(replace(self.world, teacher=teacher))
        return place, _seen(changed - self.base_gradient)

    @cached_property
    def follows_decoder_inputs(self) -> bool:
        """Whether another start token, which is no pad, brings the first token back."""
        if "decoder_input_ids" not in self.accepts:
            return False
        inputs = self.world.options["decoder_input_ids"].clone()
        inputs[:, 0] = 2
        seen = _seen(self.gradient(self.world, decoder_input_ids=inputs))
        return bool(seen[:, 0].all() and not self.seen[:, 0].any())

    @cached_property
    def seen_where_pad_is_eos(self) -> Tensor:
        return _seen(self.gradient(replace(self.world, pad=self.world.eos)))

    # ---- sizes

    @cached_property
    def batch_ratio(self) -> float:
        world = self.world.each(lambda x: torch.cat([x, x]))
        return _ratio(self.value(world), self.base_value)

    @cached_property
    def length_ratio(self) -> float:
        world = self.world.each(lambda x: x.repeat_interleave(2, dim=1))
        return _ratio(self.value(world), self.base_value)

    @cached_property
    def with_impossible_tokens(self) -> tuple[float, float, Tensor]:
        """The logit of three more tokens that cannot be said, value and gradient.

        -inf, or where 0 · log 0 makes that NaN, as in torch's kl_div, a logit whose
        probability is 0 all the same.
        """
        for fill in (-math.inf, -1e4):
            try:
                value, gradient = self.run(self.world.wider(fill, fill))
            except _Refused:
                if fill == -1e4:
                    raise
                continue
            if math.isfinite(value) and gradient.isfinite().all():
                break
        return fill, value, gradient

    @cached_property
    def longer_ratio(self) -> float:
        return _ratio(self.value(self.world.longer()), self.base_value)

    @cached_property
    def vocabulary_ratio(self) -> float:
        return _ratio(self.with_impossible_tokens[1], self.base_value)

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
            except _Refused:
                found.append(None)
            else:
                found.append((value, self.value(padded)))
        return found

    @cached_property
    def shift_ratio(self) -> float:
        return _ratio(self.value(_shifted(self.world)), self.base_value)

    # ---- formula

    def on_two_points(self, **changed) -> Tensor:
        values = [self.value(world, **changed) for world in _two_point_worlds()]
        return torch.tensor(values, dtype=torch.float64)

    @cached_property
    def formula(self) -> tuple[str | None, float]:
        """The formula that its values on two-point distributions obey, and a factor."""
        pairs = [_probabilities(world) for world in _two_point_worlds()]
        logits = [world.student.double() for world in _two_point_worlds()]
        candidates = {
            name: torch.stack([f(p, q).mean() for p, q in pairs])
            for name, f in REFERENCES.items()
        }
        for name, f in _OTHER_FORMULAS.items():
            trios = zip(pairs, logits, strict=True)
            candidates[name] = torch.stack([f(p, q, z).mean() for (p, q), z in trios])
        return _match(self.on_two_points(), candidates)

    @property
    def model(self) -> Callable:
        """The divergence to compare with: the one it is, or else the declared one."""
        known = REFERENCES.get(self.formula[0])
        return known or REFERENCES.get(self.divergence, _kl)

    @cached_property
    def reference(self) -> float:
        """The declared divergence of the base world, the mean over real tokens."""
        p, q = _probabilities(self.world)
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
        return _ratio(
            (ours[0] - ours[1]).norm().item(), (theirs[0] - theirs[1]).norm().item()
        )

    def _soft_reference(self, world: _World, temperature: float) -> Tensor:
        leaf = world.student.double().requires_grad_(True)
        p, q = _probabilities(replace(world, student=leaf), temperature)
        loss = temperature**2 * self.model(p, q)[world.real].mean()
        return _gradient(loss, leaf)

    @cached_property
    def growth(self) -> float:
        """By which power of T the soft term's gradient outgrows T² D; 0 is right."""
        return self._growth(0.0)

    @cached_property
    def growth_with_labels(self) -> float:
        return self._growth(0.5) if "alpha" in self.accepts else self.growth

    def _growth(self, alpha: float) -> float:
        low, high = self.soft_size(30.0, alpha), self.soft_size(120.0, alpha)
        ratio = _ratio(high, low)
        return math.log(ratio, 4) if ratio > 0 else math.nan

    @cached_property
    def softened(self) -> str | None:
        """Whose logits are divided by T: "both", "teacher" or "student"."""
        worlds = _two_point_worlds()
        hard = [_probabilities(world) for world in worlds]
        soft = [_probabilities(world, 4.0) for world in worlds]
        sides = {"both": (soft, soft), "teacher": (soft, hard), "student": (hard, soft)}
        candidates = {
            side: torch.stack(
                [self.model(a[0], b[1]).mean() for a, b in zip(*pairs, strict=True)]
            )
            for side, pairs in sides.items()
        }
        return _match(self.on_two_points(temperature=4.0), candidates)[0]

    # ---- options

    @cached_property
    def reading_of_beta(self) -> str | None:
        """How β is read, from the values at 0.1: "right", or in which other way."""
        beta, pairs = 0.1, [_probabilities(world) for world in _two_point_worlds()]
        readings = {
            "right": (beta, beta),
            "mirrored": (1 - beta, 1 - beta),
            "mirrored in the mixture": (beta, 1 - beta),
            "mirrored in the weights": (1 - beta, beta),
        }
        candidates = {
            name: torch.stack([_mixed(p, q, *shares).mean() for p, q in pairs])
            for name, shares in readings.items()
        }
        return _match(self.on_two_points(beta=beta), candidates)[0]

    @cached_property
    def reading_of_top_k(self) -> str | None:
        """ "teacher" or "both" where those are renormalised over three kept entries."""
        teacher_only, both, values = [], [], []
        for world in _top_k_worlds():
            p, q = (x[0, 0] for x in _probabilities(world))
            kept = p.topk(3).indices
            cut = torch.zeros_like(p).index_copy(0, kept, p[kept] / p[kept].sum())
            teacher_only.append(self.model(cut, q))
            both.append(self.model(cut[kept], q[kept] / q[kept].sum()))
            values.append(self.value(world, k=3))
        candidates = {"teacher": torch.stack(teacher_only), "both": torch.stack(both)}
        values = torch.tensor(values, dtype=torch.float64)
        return _match(values, candidates)[0]

    @cached_property
    def in_parts(self) -> tuple[float, float]:
        """The whole batch, and the sum of its parts under the whole's normalizer."""
        rows = (slice(0, 1), slice(1, None))
        parts = [self.world.each(lambda x, r=r: x[r]) for r in rows]
        total = sum(self.value(p, normalizer=self.world.count) for p in parts)
        return self.base_value, total

    @cached_property
    def ignores_normalizer(self) -> bool:
        doubled = self.value(self.world, normalizer=2 * self.world.count)
        return _near(doubled, self.base_value)

    @cached_property
    def low_precision(self) -> dict[str, str]:
        """What is wrong in each dtype of the inputs, in words; refused ones are left
        out, and "" is a dtype in which nothing is."""
        found = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            try:
                wrong = self._is_rough() if dtype == torch.float32 else None
                wrong = wrong or self._differs_in(dtype)
            except _Refused:
                continue
            found[str(dtype).removeprefix("torch.")] = wrong
        return found

    def _differs_in(self, dtype: torch.dtype) -> str:
        """The same numbers in this dtype and in float32, near equality."""
        far = negative = False
        for world in _near_worlds():
            pair = [x.to(dtype) for x in (world.student, world.teacher)]
            low, high = (
                self.value(replace(world, student=s, teacher=t))
                for s, t in (pair, [x.float() for x in pair])
            )
            far = far or (math.isfinite(high) and not _near(low, high, 0.02))
            negative = negative or low < -1e-6 <= high
        below = ", some values below 0" if negative else ""
        return f"off by more than 2 %{below}" if far else ""

    def _is_rough(self) -> str:
        """Whether a small step along the gradient does not change the value by it."""
        for world in _near_worlds():
            value, gradient = self.run(world)
            size = gradient.norm().item()
            if not size > 0.0 or not math.isfinite(value):
                continue
            student = world.student + (0.02 / size * gradient).float()
            change = self.value(replace(world, student=student)) - value
            if abs(change - 0.02 * size) > 0.01 * size:
                return "the value moves in steps, as in 16 bits"
        return ""


def _gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    found = None
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    return (torch.zeros_like(leaf) if found is None else found).detach().double()


def _seen(gradient: Tensor) -> Tensor:
    """Positions whose gradient is more than rounding beside the largest."""
    sizes = gradient.norm(dim=-1)
    return sizes > 1e-5 * sizes.max()


@cache
def _top_k_worlds() -> list[_World]:
    generator = torch.Generator().manual_seed(4)
    return [
        _same_token(*(torch.randn(6, generator=generator) for _ in range(2)))
        for _ in range(5)
    ]


@cache
def _near_worlds() -> list[_World]:
    """Tokens at which the student is near its teacher, where rounding tells."""
    generator = torch.Generator().manual_seed(5)
    worlds = []
    for _ in range(6):
        teacher, noise = (torch.randn(SIZE, generator=generator) for _ in range(2))
        worlds.append(_same_token(2 * teacher + 0.2 * noise, 2 * teacher))
    return worlds


# ----------------------------------------------------------- the properties of a loss
#
# Each returns (True, False or None for not applicable; the evidence in words).

_ALWAYS = ("finite", "repeatable")
_PROPERTIES: list[tuple[str, tuple[str, ...], Callable]] = []
_STEP_PROPERTIES: list[tuple[str, tuple[str, ...], Callable]] = []

Verdict = tuple[bool | None, str]


def _property(label: str, *needs: str, of: list = _PROPERTIES):
    def enter(function):
        of.append((label, needs, function))
        return function

    return enter


@_property("finite")
def _finite(m: _Measured) -> Verdict:
    value, gradient = m.base
    if not math.isfinite(value):
        return False, f"the value is {value} on ordinary logits"
    if not gradient.isfinite().all():
        return False, "the gradient is not finite on ordinary logits"
    return True, f"one number, {_figure(value)}, with a finite gradient"


@_property("repeatable")
def _repeatable(m: _Measured) -> Verdict:
    if not math.isfinite(m.base_value):
        return None, "not tested, since the value is not finite"
    first, second = m.twice
    same = _near(first, second, 1e-6)
    if same:
        return True, "two calls on the same inputs give the same value"
    return False, f"the same inputs give {_figure(first)}, then {_figure(second)}"


@_property("inputs left alone")
def _inputs_left_alone(m: _Measured) -> Verdict:
    student, teacher = m.world.student.clone(), m.world.teacher.clone()
    m._loss(student, teacher, m.world, {})
    changed = [
        name
        for name, x, was in (
            ("student", student, m.world.student),
            ("teacher", teacher, m.world.teacher),
        )
        if not torch.equal(x, was)
    ]
    if changed:
        return False, f"the call changes the logits of the {' and the '.join(changed)}"
    return True, "the logits are the same after the call"


@_property("zero at equality")
def _zero_at_equality(m: _Measured) -> Verdict:
    value = m.value(m.world.equal())
    zero = abs(value) <= 1e-4 * abs(m.base_value)
    shown = "0" if zero else _figure(value)
    return zero, f"where the student is the teacher the value is {shown}"


@_property("least at equality")
def _least_at_equality(m: _Measured) -> Verdict:
    gradient = m.gradient(m.world.equal())
    if not gradient.isfinite().all():
        return False, "where the student is the teacher the gradient is not finite"
    share = _ratio(gradient.norm().item(), m.base_gradient.norm().item())
    if math.isnan(share) or share < 1e-4:
        return True, "where the student is the teacher there is no gradient"
    return False, (
        "where the student is the teacher the gradient is "
        f"{_figure(share)} times that elsewhere, and not 0"
    )


@_property("never negative")
def _never_negative(m: _Measured) -> Verdict:
    worlds = [m.world, m.other_teacher, *_two_point_worlds(), *_near_worlds()[:4]]
    values = [m.value(world) for world in worlds]
    if any(math.isnan(v) for v in values):
        return False, "on some logits the value is not a number"
    least = min(values)
    if least >= -1e-5 * abs(m.base_value):
        return True, f"no value of {len(values)} is below 0"
    return False, f"the least of {len(values)} values is {_figure(least)}"


@_property("divergence")
def _divergence(m: _Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    found, factor = m.formula
    p, q = TWO_POINTS[0]
    value = m.value(_two_point_worlds()[0])
    start = f"teacher ({p}, {_figure(1 - p)}), student ({q}, {_figure(1 - q)}): "
    if not math.isfinite(value):
        return False, f"{start}the value is not finite"
    start += f"{_figure(value)}, "
    if found is None:
        return False, f"{start}and on other pairs no multiple of {m.divergence}"
    times = "" if _near(factor, 1.0) else f"{_figure(factor)} times "
    if found == m.divergence:
        return True, f"{start}as {times}{found} on {len(TWO_POINTS)} such pairs"
    return False, f"{start}which is {times}{found} and not {m.divergence}"


@_property("scale")
def _scale(m: _Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    ratio = m.base_value / m.reference
    if _near(ratio, 1.0):
        return True, f"the value is that of {m.divergence}, a mean over real tokens"
    divisor = _divisor(m, ratio)
    told = f", a sum divided by {divisor}" if divisor else ""
    return False, (
        f"the value is {_figure(ratio)} times {m.divergence}, "
        f"a mean over real tokens{told}"
    )


def _divisor(m: _Measured, ratio: float) -> str | None:
    """What the sum over real tokens is divided by, in words, where it has a name."""
    b, length, size, n = *m.world.student.shape, m.world.count
    names = {
        "nothing": 1,
        f"the {b} sentences": b,
        f"the sentences and one more, {b + 1}": b + 1,
        f"the {b * length} positions, pads included": b * length,
        f"real tokens times entries of the vocabulary, {n} · {size}": n * size,
        f"all entries of the logits, {b} · {length} · {size}": b * length * size,
        f"the square of the {n} real tokens": n * n,
    }
    return next((name for name, x in names.items() if _near(n / ratio, x)), None)


@_property("pads")
def _pads(m: _Measured) -> Verdict:
    at_pads = m.base_gradient[~m.world.real].norm(dim=-1)
    learned = int((at_pads > 0).sum())
    ratio = 1.0 if m.base_value == 0.0 else m.longer_ratio
    holds = not learned and _near(ratio, 1.0)
    return holds, (
        f"{learned} of {len(at_pads)} pads have a gradient; with three pads more in "
        f"each row {_times(ratio)}"
    )


@_property("real tokens")
def _real_tokens(m: _Measured) -> Verdict:
    return _all_learned(m.seen, m.world.real)


def _all_learned(seen: Tensor, real: Tensor) -> Verdict:
    last = real & ~torch.nn.functional.pad(real, (0, 1))[:, 1:]
    counts = f"{int((seen & real).sum())} of {int(real.sum())} real tokens"
    ends = (
        f"first tokens: {int((seen & real)[:, 0].sum())} of {len(real)}, "
        f"end-of-sentence tokens: {int((seen & last).sum())} of {int(last.sum())}"
    )
    return bool(seen[real].all()), f"{counts} have a gradient ({ends})"


@_property("position")
def _position(m: _Measured) -> Verdict:
    place, moved = m.moved
    where = [tuple(x) for x in moved.nonzero().tolist()]
    start = f"another teacher at row {place[0]}, position {place[1]} moves the gradient"
    if where == [place]:
        return True, f"{start} there alone"
    if len(where) > 3:
        return False, f"{start} at {len(where)} positions"
    shown = ", ".join(f"row {b}, position {t}" for b, t in where) or "nowhere"
    return False, f"{start} at {shown}" if where else f"{start} nowhere"


@_property("batch size")
def _batch_size(m: _Measured) -> Verdict:
    return _unchanged("the batch repeated", m.batch_ratio)


@_property("length")
def _length(m: _Measured) -> Verdict:
    return _unchanged("each token repeated", m.length_ratio)


def _unchanged(what: str, ratio: float) -> Verdict:
    if math.isnan(ratio):
        return None, f"{what}: not tested, since the value is 0"
    return _near(ratio, 1.0), f"{what}: {_times(ratio)}"


def _times(ratio: float) -> str:
    if _near(ratio, 1.0):
        return "the value is the same"
    return f"the value is {_figure(ratio)} times as large"


@_property("impossible tokens")
def _impossible_tokens(m: _Measured) -> Verdict:
    fill, value, gradient = m.with_impossible_tokens
    told = "-inf" if fill == -math.inf else "-1e4 (with -inf it is not finite)"
    start = f"with three tokens of logit {told} more"
    if not math.isfinite(value):
        return False, f"{start} the value is not finite"
    if not gradient.isfinite().all():
        return False, f"{start} the value is finite, but not the gradient"
    ratio = _ratio(value, m.base_value) if m.base_value else 1.0
    told = "the same gradient"
    if not _alike(gradient[..., :SIZE], m.base_gradient):
        told = "another gradient"
    elif gradient[..., SIZE:].any():
        told = "a gradient for these tokens"
    holds = told == "the same gradient" and _near(ratio, 1.0)
    return holds, f"{start} {_times(ratio)}, with {told}"


@_property("vocabularies of two sizes")
def _two_vocabularies(m: _Measured) -> Verdict:
    wrong, refused = [], 0
    for side, found in zip(("student", "teacher"), m.two_sizes, strict=True):
        refused += found is None
        if found is not None and not _near(found[0], m.base_value):
            ratio = _figure(_ratio(found[0], m.base_value))
            wrong.append(f"{side} smaller by three impossible tokens: {ratio} times")
    if wrong:
        return False, f"{'; '.join(wrong)} the value without them"
    return True, "refused" if refused == 2 else "tokens that one side lacks count 0"


@_property("constant shift")
def _constant_shift(m: _Measured) -> Verdict:
    return _unchanged("a constant added to all logits of a token", m.shift_ratio)


def _shifted(world: _World) -> _World:
    """Each token's logits plus a number of its own, which no softmax over V sees."""
    b, length = world.labels.shape
    numbers = torch.linspace(-9.0, 9.0, b * length).view(b, length, 1)
    return replace(
        world, student=world.student + numbers, teacher=world.teacher - numbers
    )


def _shifted_over_time(world: _World) -> _World:
    """Each entry of a sentence plus a number, which no softmax over time sees."""
    b, _, size = world.student.shape
    numbers = torch.linspace(-9.0, 9.0, b * size).view(b, 1, size)
    return replace(
        world, student=world.student + numbers, teacher=world.teacher - numbers
    )


@_property("micro-batches", "normalizer")
def _micro_batches(m: _Measured) -> Verdict:
    whole, parts = m.in_parts
    ratio = _ratio(parts, whole)
    ignored = ", as normalizer changes nothing" if m.ignores_normalizer else ""
    return _near(ratio, 1.0), (
        "two parts under the normalizer of the whole add up to "
        f"{_figure(ratio)} times the whole{ignored}"
    )


@_property("student learns")
def _student_learns(m: _Measured) -> Verdict:
    if not m.base_gradient.any():
        return False, "no gradient reaches the student's logits"
    teacher = m.world.teacher.clone().requires_grad_(True)
    student = m.world.student.clone().requires_grad_(True)
    loss = m._loss(student.clone(), teacher.clone(), m.world, {})
    leaks = _gradient(loss, teacher).any()
    if leaks:
        return True, (
            "the student has a gradient; so would the teacher: call the teacher under "
            "torch.no_grad()"
        )
    return True, "the student has a gradient, the teacher has none"


@_property("another teacher")
def _another_teacher(m: _Measured) -> Verdict:
    value, gradient = m.run(m.other_teacher)
    changes = {
        "value": not _near(value, m.base_value, 1e-5),
        "gradient": not _alike(gradient, m.base_gradient, 1e-5),
    }
    told = [f"{'another' if x else 'the same'} {name}" for name, x in changes.items()]
    return all(changes.values()), f"another teacher gives {' and '.join(told)}"


@_property("temperature: gradient", "temperature")
def _temperature_gradient(m: _Measured) -> Verdict:
    powers = [m.growth]
    if "alpha" in m.accepts:
        powers.append(m.growth_with_labels)
    if any(math.isnan(x) for x in powers):
        return False, "at T = 120 the soft term has no gradient"
    allowed = (0.0, 1.0) if m.divergence == "any" else (0.0,)
    holds = all(any(abs(x - a) < 0.1 for a in allowed) for x in powers)
    told = " and with hard labels ".join(f"T^{_figure(round(x, 1))}" for x in powers)
    if all(abs(x) < 0.1 for x in powers):
        return holds, "from T = 30 to 120 its size goes with that of T² D"
    return holds, f"from T = 30 to 120 its size goes with that of T² D times {told}"


@_property("temperature: value", "temperature")
def _temperature_value(m: _Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    model = REFERENCES[m.divergence]
    parts = []
    for temperature in (4.0, 50.0):
        p, q = _probabilities(m.world, temperature)
        wanted = temperature**2 * model(p, q)[m.world.real].mean().item()
        value = m.value(m.world, temperature=temperature)
        parts.append((temperature, _ratio(value, wanted)))
    # The scale is another property's matter: only its change with T is judged.
    scale = m.base_value / m.reference
    holds = all(_near(ratio, scale, 0.02) for _, ratio in parts)
    told = " and ".join(f"{_figure(r)} times at T = {t:g}" for t, r in parts)
    return holds, f"the value is {told} that of T² D{_limit(m)}"


def _limit(m: _Measured) -> str:
    """T² KL tends to half the mean square of the centred difference of logits."""
    if m.divergence not in ("forward_kl", "reverse_kl"):
        return ""
    difference = (m.world.student - m.world.teacher).double()
    centred = difference - difference.mean(-1, keepdim=True)
    limit = 0.5 * centred.square().mean(-1)[m.world.real].mean().item()
    ratio = _ratio(m.value(m.world, temperature=50.0), limit)
    return f", and {_figure(round(ratio, 2))} times its limit for large T"


@_property("hard labels", "alpha")
def _hard_labels(m: _Measured) -> Verdict:
    real, labels = m.world.real, m.world.labels
    log_q = m.world.student.double().log_softmax(-1)[real]
    wanted = -log_q.gather(1, labels[real][:, None]).mean().item()
    value, gradient = m.run(m.world, alpha=1.0)
    half = m.value(m.world, alpha=0.5)
    wrong = []
    if _near(m.base_value, wanted):
        wrong.append("alpha is the teacher's share here, and not the labels'")
    if not _near(value, wanted):
        wrong.append(f"at alpha = 1 {_figure(value / wanted)} times the cross-entropy")
    if value and not gradient.any():
        wrong.append("at alpha = 1 no gradient")
    if not _near(half, 0.5 * (m.base_value + value)):
        share = _ratio(half, 0.5 * (m.base_value + value))
        wrong.append(f"at alpha = 0.5 {_figure(share)} times the mean of both ends")
    if "temperature" in m.accepts:
        warm = m.value(m.world, alpha=1.0, temperature=4.0)
        if not _near(warm, value):
            wrong.append(f"at alpha = 1, T = 4 {_figure(_ratio(warm, value))} times")
    if wrong:
        return False, "; ".join(wrong)
    return True, "the cross-entropy at T = 1, mixed in by its share alpha"


@_property("beta", "beta")
def _beta(m: _Measured) -> Verdict:
    if m.divergence != "generalised_js":
        return None, f"not tested, as divergence={m.divergence!r}"
    pairs = [_probabilities(world) for world in _two_point_worlds()]
    candidates = {
        name: torch.stack([REFERENCES[name](p, q).mean() for p, q in pairs])
        for name in ("forward_kl", "reverse_kl")
    }
    limits = [
        _match(m.on_two_points(beta=beta), candidates, 0.02)[0] or "neither KL"
        for beta in (1e-3, 1 - 1e-3)
    ]
    reading = m.reading_of_beta or "no multiple of the divergence"
    told = (
        f"near 0 it is a multiple of {limits[0]}, near 1 of {limits[1]}; "
        f"at 0.1 beta is {reading}"
    )
    return limits == ["forward_kl", "reverse_kl"] and reading == "right", told


@_property("top-k: bound", "k")
def _top_k_bound(m: _Measured) -> Verdict:
    for world in _top_k_worlds():
        values = [m.value(world, k=k) for k in (1, 2, 3, 4, 6)]
        steps = zip(values, values[1:], strict=False)
        if values[0] < -1e-6 or any(b < a - 1e-4 * abs(a) - 1e-6 for a, b in steps):
            told = ", ".join(map(_figure, values))
            return False, f"for k = 1, 2, 3, 4 and all 6: {told}, no rising bound"
    return True, "it is never below 0 and rises with k to the full value"


@_property("top-k: missing mass", "k")
def _top_k_missing_mass(m: _Measured) -> Verdict:
    teacher = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5])
    raised = teacher + torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    equal = m.value(_same_token(teacher, teacher), k=3)
    blind = m.value(_same_token(raised, teacher), k=3)
    full = m.value(_same_token(raised, teacher), k=6)
    if abs(equal) > 1e-4 * abs(full):
        return False, f"k = 3 of 6: at equality the value is {_figure(equal)}, not 0"
    if abs(blind) < 1e-2 * abs(full):
        return False, "k = 3 of 6: a student with too much mass elsewhere costs 0"
    return True, "k = 3 of 6: 0 at equality, and mass elsewhere costs"


@_property("precision")
def _precision(m: _Measured) -> Verdict:
    told = [f"{name} near equality: {x}" for name, x in m.low_precision.items() if x]
    if told:
        return False, "; ".join(told)
    kinds = [name for name in m.low_precision if name != "float32"]
    if not kinds:
        return True, "float32 is used to its full; inputs of 16 bits are refused"
    return True, f"{' and '.join(kinds)} inputs give what they give in float32, to 2 %"


@_property("EOS where the pad token is EOS", "pad_token_id")
def _eos(m: _Measured) -> Verdict:
    return _all_learned(m.seen_where_pad_is_eos, m.world.real)


# -------------------------------------------------------------- the diagnoses of a loss


def _diagnose(m: _Measured, blocked: str | None) -> list[str]:
    """The slugs of the mistakes that what was measured convicts it of."""
    if blocked is not None:
        return ["log-target-forgotten"] if _holds(_log_target_forgotten, m) else []
    for slug, rule in _ALONE:
        if _holds(rule, m):
            return [slug]
    found = [slug for slug, rule in _RULES if _holds(rule, m)]
    for name in (_mask_mistake, _formula_mistake, _temperature_mistake):
        slug = _safely(name, m)
        found += [slug] if slug else []
    return sorted(found, key=list(DIAGNOSES).index)


def _safely(rule: Callable[[_Measured], str | None], m: _Measured) -> str | None:
    try:
        return rule(m)
    except _Refused:
        return None


def _log_target_forgotten(m: _Measured) -> bool:
    """NaN, but the gradient is that of Σ log p (log log p - log q): -log p on log q."""
    value, gradient = m.base
    if not math.isnan(value) or not gradient.isfinite().all():
        return False
    leaf = m.world.student.double().requires_grad_(True)
    target = m.world.teacher.double().log_softmax(-1)
    wanted = _gradient(-(target * leaf.log_softmax(-1)).sum(), leaf)
    ours, theirs = (x[m.world.real].flatten() for x in (gradient, wanted))
    return torch.cosine_similarity(ours, theirs, dim=0).item() > 0.999


def _softmax_over_time(m: _Measured) -> bool:
    over_time = m.value(_shifted_over_time(m.world))
    return _near(over_time, m.base_value) and abs(m.shift_ratio - 1.0) > 0.01


def _soft_term_without_gradient(m: _Measured) -> bool:
    value, gradient = m.run(m.other_teacher)
    return not _near(value, m.base_value, 1e-5) and _alike(
        gradient, m.base_gradient, 1e-5
    )


def _hard_term_without_gradient(m: _Measured) -> bool:
    if "alpha" not in m.accepts:
        return False
    value, gradient = m.run(m.world, alpha=1.0)
    return abs(value) > 1e-5 and not gradient.any()


def _teacher_unused(m: _Measured) -> bool:
    shares = (0.0, 0.5, 1.0) if "alpha" in m.accepts else (0.0,)
    for alpha in shares:
        value, gradient = m.run(m.world, alpha=alpha)
        other_value, other_gradient = m.run(m.other_teacher, alpha=alpha)
        if not _near(value, other_value, 1e-5):
            return False
        if not _alike(gradient, other_gradient, 1e-5):
            return False
    return True


def _mask_mistake(m: _Measured) -> str | None:
    slug = _mistaken_mask(m.seen, m.world.real, lambda: m.follows_decoder_inputs)
    if slug == "pads-averaged-in" and _near(m.longer_ratio, 1.0):
        return None  # they have a gradient, but for another reason
    if slug is None:
        (row, position), moved = m.moved
        where = moved.nonzero().tolist()
        if where in ([[row, position - 1]], [[row, position + 1]]):
            return "off-by-one"
    return slug


def _mistaken_mask(
    seen: Tensor, real: Tensor, follows_decoder_inputs: Callable[[], bool]
) -> str | None:
    """What mask would give a gradient at these positions (B, L)."""
    if seen.equal(real):
        return None
    if seen.all():
        return "pads-averaged-in"
    later = torch.nn.functional.pad(real, (1, 0))[:, :-1]
    earlier = torch.nn.functional.pad(real, (0, 1))[:, 1:]
    if (seen.equal(later) or seen.equal(later & real)) and follows_decoder_inputs():
        return "mask-from-decoder-inputs"
    if seen.equal(later) or seen.equal(earlier):
        return "off-by-one"
    return None


def _formula_mistake(m: _Measured) -> str | None:
    found = m.formula[0]
    if found == "cross_entropy":
        return "cross-entropy-as-kl"
    if found in _OTHER_FORMULAS:
        return "not-log-probabilities"
    if found is not None and found == _OPPOSITE.get(m.divergence):
        return "wrong-direction"
    return None


def _temperature_mistake(m: _Measured) -> str | None:
    divergences = (*REFERENCES, "cross_entropy")
    if "temperature" not in m.accepts or m.formula[0] not in divergences:
        return None
    if m.softened in ("student", "teacher"):
        return "one-side-softened"
    powers = m.growth, m.growth_with_labels
    if any(math.isnan(x) or abs(x - round(x)) > 0.1 for x in powers):
        return None
    alone, mixed = map(round, powers)
    if alone != mixed:
        return "t-squared-one-branch"
    return {-2: "t-squared-forgotten", 2: "t-squared-doubled"}.get(alone)


def _mean_over_vocabulary(m: _Measured) -> bool:
    """V / (V + 3) of the value, and of distributions: a mean over logits is no KL."""
    return _near(m.vocabulary_ratio, SIZE / (SIZE + 3)) and _near(m.shift_ratio, 1.0)


def _divided_by_sentences(m: _Measured) -> bool:
    return _near(m.length_ratio, 2.0) and _near(m.batch_ratio, 1.0)


def _divided_twice(m: _Measured) -> bool:
    return _near(m.length_ratio, 0.5) and _near(m.batch_ratio, 0.5)


def _padded_with_zeros(m: _Measured) -> bool:
    """Two sizes give just what the shorter one gives with zeros, and not the truth."""
    return any(
        _near(*found, 1e-5) and not _near(found[0], m.base_value)
        for found in m.two_sizes
        if found is not None
    )


def _top_k_renormalised(m: _Measured) -> bool:
    return "k" in m.accepts and m.reading_of_top_k is not None


def _mean_of_means(m: _Measured) -> bool:
    if "normalizer" not in m.accepts or not m.ignores_normalizer:
        return False
    return not _near(*m.in_parts)


def _eos_erased(m: _Measured) -> bool:
    if "pad_token_id" not in m.accepts:
        return False
    return _erased(m.seen, m.seen_where_pad_is_eos, m.world)


def _erased(before: Tensor, where_pad_is_eos: Tensor, world: _World) -> bool:
    """Only the positions of EOS lose their gradient once the pad token is EOS."""
    eos = world.labels == world.eos
    return bool(before[eos].any() and where_pad_is_eos.equal(before & ~eos))


def _in_low_precision(m: _Measured) -> bool:
    return any(m.low_precision.values())


def _beta_mirrored(m: _Measured) -> bool:
    if "beta" not in m.accepts or m.divergence != "generalised_js":
        return False
    return m.reading_of_beta in ("mirrored", "mirrored in the mixture")


# These leave nothing else to be read off: no other rule is asked after one holds.
_ALONE = (
    ("softmax-over-time", _softmax_over_time),
    ("term-without-gradient", _soft_term_without_gradient),
    ("teacher-with-itself", _teacher_unused),
)

_RULES = (
    ("mean-over-vocabulary", _mean_over_vocabulary),
    ("divided-by-sentences", _divided_by_sentences),
    ("divided-twice", _divided_twice),
    ("vocabulary-padded-with-zeros", _padded_with_zeros),
    ("top-k-renormalised", _top_k_renormalised),
    ("mean-of-means", _mean_of_means),
    ("eos-erased", _eos_erased),
    ("low-precision", _in_low_precision),
    ("beta-mirrored", _beta_mirrored),
    ("term-without-gradient", _hard_term_without_gradient),
)


# --------------------------------------------------------------------- a training step


class _FixedDropout(nn.Module):
    """Dropout that always drops the same half: what train mode does, repeatably."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("kept", torch.arange(width) % 2 * 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept if self.training else x


class _Model(nn.Module):
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
class _Run:
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
        return _seen(total) if total.any() else torch.zeros(shape[:2], dtype=torch.bool)


class _Steps:
    """A training step and what was measured of it."""

    accepts = frozenset()

    def __init__(self, fn: Callable):
        self.fn = fn
        labels = _labels(torch.Generator().manual_seed(0))
        self.world = _World(torch.zeros(0), torch.zeros(0), labels)  # no logits needed

    def run(self, batches: list[dict], teacher_seed: int = 1) -> _Run:
        student, teacher = _Model(seed=0), _Model(seed=teacher_seed)
        student.eval()
        given = [{k: _copied(v) for k, v in batch.items()} for batch in batches]
        value = _call(self.fn, student, teacher, given).detach().item()
        parts = [
            torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
            for p in student.parameters()
        ]
        leaked = [
            p.grad.abs().sum() for p in teacher.parameters() if p.grad is not None
        ]
        return _Run(
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
    def whole(self) -> _Run:
        return self.run([_batch(self.world)])

    @cached_property
    def split(self) -> _Run:
        return self.run(self.parts)

    @property
    def parts(self) -> list[dict]:
        """The whole batch as two micro-batches with different numbers of tokens."""
        labels = self.world.labels
        halves = (labels[:1], labels[1:])
        return [_batch(replace(self.world, labels=half)) for half in halves]

    @cached_property
    def each_part(self) -> list[_Run]:
        return [self.run([part]) for part in self.parts]

    @cached_property
    def other_teacher(self) -> _Run:
        return self.run([_batch(self.world)], teacher_seed=2)

    @cached_property
    def pad_is_eos(self) -> _Run:
        return self.run([_batch(replace(self.world, pad=self.world.eos))])

    def follows_decoder_inputs(self) -> bool:
        """Whether another start token, which is no pad, brings the first token back."""
        batch = _batch(self.world)
        batch["decoder_input_ids"][:, 0] = 2
        return bool(self.run([batch]).seen[:, 0].all())


def _copied(value):
    return value.clone() if isinstance(value, Tensor) else value


def _batch(world: _World) -> dict[str, object]:
    """A micro-batch whose source is its target, which is enough to be learned from."""
    return {
        "input_ids": world.labels.masked_fill(~world.real, world.pad),
        "attention_mask": world.real.long(),
        "decoder_input_ids": _shifted_right(world.labels, world.pad),
        "labels": world.labels,
        "pad_token_id": world.pad,
        "eos_token_id": world.eos,
    }


@_property("finite", of=_STEP_PROPERTIES)
def _step_finite(s: _Steps) -> Verdict:
    finite = math.isfinite(s.whole.value) and bool(s.whole.gradient.isfinite().all())
    shown = _figure(s.whole.value)
    return finite, f"one number, {shown}" if finite else "the loss is not finite"


@_property("student learns", of=_STEP_PROPERTIES)
def _step_student_learns(s: _Steps) -> Verdict:
    if s.whole.gradient.any():
        return True, "a gradient stands on the student's parameters"
    return False, "no gradient stands on the student's parameters"


@_property("student in train mode", of=_STEP_PROPERTIES)
def _step_student_mode(s: _Steps) -> Verdict:
    calls = s.whole.student_calls
    if not calls:
        return None, "the student is not called where a gradient is recorded"
    right = sum(call.training for call in calls)
    return right == len(calls), f"in {right} of {len(calls)} calls its dropout is on"


@_property("teacher in eval mode", of=_STEP_PROPERTIES)
def _step_teacher_mode(s: _Steps) -> Verdict:
    calls = s.whole.teacher_calls
    if not calls:
        return None, "the teacher is not called"
    wrong = sum(call.training for call in calls)
    return not wrong, f"in {wrong} of {len(calls)} calls its dropout is on"


@_property("teacher learns nothing", of=_STEP_PROPERTIES)
def _step_teacher_learns(s: _Steps) -> Verdict:
    if s.whole.teacher_gradient:
        return False, "a gradient stands on the teacher's parameters"
    return True, "no gradient stands on the teacher's parameters"


@_property("another teacher", of=_STEP_PROPERTIES)
def _step_another_teacher(s: _Steps) -> Verdict:
    value, gradient = _same_for_both_teachers(s)
    told = [
        f"{'the same' if same else 'another'} {what}"
        for same, what in ((value, "loss"), (gradient, "gradient"))
    ]
    return not value and not gradient, f"another teacher gives {' and '.join(told)}"


def _same_for_both_teachers(s: _Steps) -> tuple[bool, bool]:
    """Whether the loss and whether the gradient is the same."""
    one, other = s.whole, s.other_teacher
    same_value = _near(one.value, other.value, 1e-5)
    return same_value, _alike(one.gradient, other.gradient, 1e-5)


@_property("pads", of=_STEP_PROPERTIES)
def _step_pads(s: _Steps) -> Verdict:
    seen = s.whole.seen
    if seen.shape != s.world.real.shape:
        return None, "the student's logits have no gradient"
    pads = ~s.world.real
    learned = int((seen & pads).sum())
    return not learned, f"{learned} of {int(pads.sum())} pads have a gradient"


def _step_learned(seen: Tensor, real: Tensor) -> Verdict:
    if seen.shape != real.shape:
        return None, "the student's logits have no gradient"
    return _all_learned(seen, real)


@_property("real tokens", of=_STEP_PROPERTIES)
def _step_real_tokens(s: _Steps) -> Verdict:
    return _step_learned(s.whole.seen, s.world.real)


@_property("EOS where the pad token is EOS", of=_STEP_PROPERTIES)
def _step_eos(s: _Steps) -> Verdict:
    return _step_learned(s.pad_is_eos.seen, s.world.real)


@_property("micro-batches", of=_STEP_PROPERTIES)
def _step_micro_batches(s: _Steps) -> Verdict:
    if _alike(s.split.gradient, s.whole.gradient):
        return True, "a batch in two parts leaves the gradient of the whole"
    means = [run.gradient for run in s.each_part]
    start = "a batch in two parts leaves another gradient than the whole"
    if _alike(s.split.gradient, sum(means) / 2):
        return False, f"{start}: the mean of the parts' own"
    if _alike(s.split.gradient, sum(means)):
        return False, f"{start}: the sum of the parts' own"
    return False, start


def _step_mask(s: _Steps) -> str | None:
    if s.whole.seen.shape != s.world.real.shape or not s.whole.seen.any():
        return None
    return _mistaken_mask(s.whole.seen, s.world.real, s.follows_decoder_inputs)


def _step_mean_of_means(s: _Steps) -> bool:
    mean = sum(run.gradient for run in s.each_part) / 2
    return _alike(s.split.gradient, mean) and not _alike(mean, s.whole.gradient)


def _step_eos_erased(s: _Steps) -> bool:
    seen = (s.whole.seen, s.pad_is_eos.seen)
    if any(x.shape != s.world.real.shape for x in seen):
        return False
    return _erased(*seen, s.world)


_STEP_RULES = (
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
