"""The properties of a loss: each measures, and gives a verdict with its evidence.

Each returns (True, False or None for not applicable; the evidence in words).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .calling import Refused
from .measurements import Measured, gradient_of
from .references import (
    REFERENCES,
    alike,
    both_probabilities,
    figure,
    match_formula,
    near,
    ratio_of,
)
from .report import FAILED, NOT_APPLICABLE, PASSED, Finding
from .worlds import (
    SIZE,
    TWO_POINTS,
    near_worlds,
    same_token,
    top_k_worlds,
    two_point_worlds,
)


def check_property(check, measured, blocked: str | None) -> Finding:
    """Run one property; what the loss itself raises is a failure of the property."""
    label, needs, function = check
    if blocked is not None and label not in _ALWAYS:
        return Finding(label, NOT_APPLICABLE, f"not tested, since {blocked}")
    missing = [x for x in needs if x not in measured.accepts]
    if missing:
        return Finding(label, NOT_APPLICABLE, f"no option {', '.join(missing)}")
    try:
        holds, evidence = function(measured)
    except Refused as error:
        holds, evidence = False, f"it {error}"
    status = {True: PASSED, False: FAILED, None: NOT_APPLICABLE}[holds]
    return Finding(label, status, evidence)


_ALWAYS = ("finite", "repeatable")


PROPERTIES: list[tuple[str, tuple[str, ...], Callable]] = []


STEP_PROPERTIES: list[tuple[str, tuple[str, ...], Callable]] = []


Verdict = tuple[bool | None, str]


def property_of(label: str, *needs: str, of: list = PROPERTIES):
    """Enter a function among the properties, with the options that it needs."""

    def enter(function):
        of.append((label, needs, function))
        return function

    return enter


@property_of("finite")
def _finite(m: Measured) -> Verdict:
    value, gradient = m.base
    if not math.isfinite(value):
        return False, f"the value is {value} on ordinary logits"
    if not gradient.isfinite().all():
        return False, "the gradient is not finite on ordinary logits"
    return True, f"one number, {figure(value)}, with a finite gradient"


@property_of("repeatable")
def _repeatable(m: Measured) -> Verdict:
    if not math.isfinite(m.base_value):
        return None, "not tested, since the value is not finite"
    first, second = m.twice
    same = near(first, second, 1e-6)
    if same:
        return True, "two calls on the same inputs give the same value"
    return False, f"the same inputs give {figure(first)}, then {figure(second)}"


@property_of("inputs left alone")
def _inputs_left_alone(m: Measured) -> Verdict:
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


@property_of("zero at equality")
def _zero_at_equality(m: Measured) -> Verdict:
    value = m.value(m.world.equal())
    zero = abs(value) <= 1e-4 * abs(m.base_value)
    shown = "0" if zero else figure(value)
    return zero, f"where the student is the teacher the value is {shown}"


@property_of("least at equality")
def _least_at_equality(m: Measured) -> Verdict:
    gradient = m.gradient(m.world.equal())
    if not gradient.isfinite().all():
        return False, "where the student is the teacher the gradient is not finite"
    share = ratio_of(gradient.norm().item(), m.base_gradient.norm().item())
    if math.isnan(share) or share < 1e-4:
        return True, "where the student is the teacher there is no gradient"
    return False, (
        "where the student is the teacher the gradient is "
        f"{figure(share)} times that elsewhere, and not 0"
    )


@property_of("never negative")
def _never_negative(m: Measured) -> Verdict:
    worlds = [m.world, m.other_teacher, *two_point_worlds(), *near_worlds()[:4]]
    values = [m.value(world) for world in worlds]
    if any(math.isnan(v) for v in values):
        return False, "on some logits the value is not a number"
    least = min(values)
    if least >= -1e-5 * abs(m.base_value):
        return True, f"no value of {len(values)} is below 0"
    return False, f"the least of {len(values)} values is {figure(least)}"


@property_of("divergence")
def _divergence(m: Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    found, factor = m.formula
    p, q = TWO_POINTS[0]
    value = m.value(two_point_worlds()[0])
    start = f"teacher ({p}, {figure(1 - p)}), student ({q}, {figure(1 - q)}): "
    if not math.isfinite(value):
        return False, f"{start}the value is not finite"
    start += f"{figure(value)}, "
    if found is None:
        return False, f"{start}and on other pairs no multiple of {m.divergence}"
    times = "" if near(factor, 1.0) else f"{figure(factor)} times "
    if found == m.divergence:
        return True, f"{start}as {times}{found} on {len(TWO_POINTS)} such pairs"
    return False, f"{start}which is {times}{found} and not {m.divergence}"


@property_of("scale")
def _scale(m: Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    ratio = m.base_value / m.reference
    if near(ratio, 1.0):
        return True, f"the value is that of {m.divergence}, a mean over real tokens"
    divisor = _divisor(m, ratio)
    told = f", a sum divided by {divisor}" if divisor else ""
    return False, (
        f"the value is {figure(ratio)} times {m.divergence}, "
        f"a mean over real tokens{told}"
    )


def _divisor(m: Measured, ratio: float) -> str | None:
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
    return next((name for name, x in names.items() if near(n, ratio * x)), None)


@property_of("pads")
def _pads(m: Measured) -> Verdict:
    at_pads = m.base_gradient[~m.world.real].norm(dim=-1)
    learned = int((at_pads > 0).sum())
    ratio = 1.0 if m.base_value == 0.0 else m.longer_ratio
    holds = not learned and near(ratio, 1.0)
    return holds, (
        f"{learned} of {len(at_pads)} pads have a gradient; with three pads more in "
        f"each row {_times(ratio)}"
    )


@property_of("real tokens")
def _real_tokens(m: Measured) -> Verdict:
    return all_learned(m.seen, m.world.real)


def all_learned(seen: Tensor, real: Tensor) -> Verdict:
    """Whether every real token has a gradient, and if not, which one lacks it."""
    last = real & ~torch.nn.functional.pad(real, (0, 1))[:, 1:]
    counts = f"{int((seen & real).sum())} of {int(real.sum())} real tokens"
    ends = (
        f"first tokens: {int((seen & real)[:, 0].sum())} of {len(real)}, "
        f"end-of-sentence tokens: {int((seen & last).sum())} of {int(last.sum())}"
    )
    return bool(seen[real].all()), f"{counts} have a gradient ({ends})"


@property_of("position")
def _position(m: Measured) -> Verdict:
    place, moved = m.moved
    where = [tuple(x) for x in moved.nonzero().tolist()]
    start = f"another teacher at row {place[0]}, position {place[1]} moves the gradient"
    if where == [place]:
        return True, f"{start} there alone"
    if len(where) > 3:
        return False, f"{start} at {len(where)} positions"
    shown = ", ".join(f"row {b}, position {t}" for b, t in where) or "nowhere"
    return False, f"{start} at {shown}" if where else f"{start} nowhere"


@property_of("batch size")
def _batch_size(m: Measured) -> Verdict:
    return _unchanged("the batch repeated", m.batch_ratio)


@property_of("length")
def _length(m: Measured) -> Verdict:
    return _unchanged("each token repeated", m.length_ratio)


def _unchanged(what: str, ratio: float) -> Verdict:
    if math.isnan(ratio):
        return None, f"{what}: not tested, since the value is 0"
    return near(ratio, 1.0), f"{what}: {_times(ratio)}"


def _times(ratio: float) -> str:
    if near(ratio, 1.0):
        return "the value is the same"
    return f"the value is {figure(ratio)} times as large"


@property_of("impossible tokens")
def _impossible_tokens(m: Measured) -> Verdict:
    fill, value, gradient = m.with_impossible_tokens
    told = "-inf" if fill == -math.inf else "-1e4 (with -inf it is not finite)"
    start = f"with three tokens of logit {told} more"
    if not math.isfinite(value):
        return False, f"{start} the value is not finite"
    if not gradient.isfinite().all():
        return False, f"{start} the value is finite, but not the gradient"
    ratio = ratio_of(value, m.base_value) if m.base_value else 1.0
    told = "the same gradient"
    if not alike(gradient[..., :SIZE], m.base_gradient):
        told = "another gradient"
    elif gradient[..., SIZE:].any():
        told = "a gradient for these tokens"
    holds = told == "the same gradient" and near(ratio, 1.0)
    return holds, f"{start} {_times(ratio)}, with {told}"


@property_of("vocabularies of two sizes")
def _two_vocabularies(m: Measured) -> Verdict:
    wrong, refused = [], 0
    for side, found in zip(("student", "teacher"), m.two_sizes, strict=True):
        refused += found is None
        if found is not None and not near(found[0], m.base_value):
            ratio = figure(ratio_of(found[0], m.base_value))
            wrong.append(f"{side} smaller by three impossible tokens: {ratio} times")
    if wrong:
        return False, f"{'; '.join(wrong)} the value without them"
    return True, "refused" if refused == 2 else "tokens that one side lacks count 0"


@property_of("constant shift")
def _constant_shift(m: Measured) -> Verdict:
    return _unchanged("a constant added to all logits of a token", m.shift_ratio)


@property_of("micro-batches", "normalizer")
def _micro_batches(m: Measured) -> Verdict:
    whole, parts = m.in_parts
    ratio = ratio_of(parts, whole)
    ignored = ", as normalizer changes nothing" if m.ignores_normalizer else ""
    return near(ratio, 1.0), (
        "two parts under the normalizer of the whole add up to "
        f"{figure(ratio)} times the whole{ignored}"
    )


@property_of("student learns")
def _student_learns(m: Measured) -> Verdict:
    if not m.base_gradient.any():
        return False, "no gradient reaches the student's logits"
    teacher = m.world.teacher.clone().requires_grad_(True)
    student = m.world.student.clone().requires_grad_(True)
    loss = m._loss(student.clone(), teacher.clone(), m.world, {})
    leaks = gradient_of(loss, teacher).any()
    if leaks:
        return True, (
            "the student has a gradient; so would the teacher: call the teacher under "
            "torch.no_grad()"
        )
    return True, "the student has a gradient, the teacher has none"


@property_of("another teacher")
def _another_teacher(m: Measured) -> Verdict:
    value, gradient = m.run(m.other_teacher)
    changes = {
        "value": not near(value, m.base_value, 1e-5),
        "gradient": not alike(gradient, m.base_gradient, 1e-5),
    }
    told = [f"{'another' if x else 'the same'} {name}" for name, x in changes.items()]
    return all(changes.values()), f"another teacher gives {' and '.join(told)}"


@property_of("temperature: gradient", "temperature")
def _temperature_gradient(m: Measured) -> Verdict:
    powers = [m.growth]
    if "alpha" in m.accepts:
        powers.append(m.growth_with_labels)
    if any(math.isnan(x) for x in powers):
        return False, "at T = 120 the soft term has no gradient"
    allowed = (0.0, 1.0) if m.divergence == "any" else (0.0,)
    holds = all(any(abs(x - a) < 0.1 for a in allowed) for x in powers)
    told = " and with hard labels ".join(f"T^{figure(round(x, 1))}" for x in powers)
    if all(abs(x) < 0.1 for x in powers):
        return holds, "from T = 30 to 120 its size goes with that of T² D"
    return holds, f"from T = 30 to 120 its size goes with that of T² D times {told}"


@property_of("temperature: value", "temperature")
def _temperature_value(m: Measured) -> Verdict:
    if m.divergence == "any":
        return None, 'not tested, as divergence="any"'
    model = REFERENCES[m.divergence]
    parts = []
    for temperature in (4.0, 50.0):
        p, q = both_probabilities(m.world, temperature)
        wanted = temperature**2 * model(p, q)[m.world.real].mean().item()
        value = m.value(m.world, temperature=temperature)
        parts.append((temperature, ratio_of(value, wanted)))
    # The scale is another property's matter: only its change with T is judged.
    scale = m.base_value / m.reference
    holds = all(near(ratio, scale, 0.02) for _, ratio in parts)
    told = " and ".join(f"{figure(r)} times at T = {t:g}" for t, r in parts)
    return holds, f"the value is {told} that of T² D{_limit(m)}"


def _limit(m: Measured) -> str:
    """T² KL tends to half the mean square of the centred difference of logits."""
    if m.divergence not in ("forward_kl", "reverse_kl"):
        return ""
    difference = (m.world.student - m.world.teacher).double()
    centred = difference - difference.mean(-1, keepdim=True)
    limit = 0.5 * centred.square().mean(-1)[m.world.real].mean().item()
    ratio = ratio_of(m.value(m.world, temperature=50.0), limit)
    return f", and {figure(round(ratio, 2))} times its limit for large T"


@property_of("hard labels", "alpha")
def _hard_labels(m: Measured) -> Verdict:
    real, labels = m.world.real, m.world.labels
    log_q = m.world.student.double().log_softmax(-1)[real]
    wanted = -log_q.gather(1, labels[real][:, None]).mean().item()
    value, gradient = m.run(m.world, alpha=1.0)
    half = m.value(m.world, alpha=0.5)
    wrong = []
    if near(m.base_value, wanted):
        wrong.append("alpha is the teacher's share here, and not the labels'")
    if not near(value, wanted):
        wrong.append(f"at alpha = 1 {figure(value / wanted)} times the cross-entropy")
    if value and not gradient.any():
        wrong.append("at alpha = 1 no gradient")
    if not near(half, 0.5 * (m.base_value + value)):
        share = ratio_of(half, 0.5 * (m.base_value + value))
        wrong.append(f"at alpha = 0.5 {figure(share)} times the mean of both ends")
    if "temperature" in m.accepts:
        warm = m.value(m.world, alpha=1.0, temperature=4.0)
        if not near(warm, value):
            wrong.append(f"at alpha = 1, T = 4 {figure(ratio_of(warm, value))} times")
    if wrong:
        return False, "; ".join(wrong)
    return True, "the cross-entropy at T = 1, mixed in by its share alpha"


@property_of("beta", "beta")
def _beta(m: Measured) -> Verdict:
    if m.divergence != "generalised_js":
        return None, f"not tested, as divergence={m.divergence!r}"
    pairs = [both_probabilities(world) for world in two_point_worlds()]
    candidates = {
        name: torch.stack([REFERENCES[name](p, q).mean() for p, q in pairs])
        for name in ("forward_kl", "reverse_kl")
    }
    limits = [
        match_formula(m.on_two_points(beta=beta), candidates, 0.02)[0] or "neither KL"
        for beta in (1e-3, 1 - 1e-3)
    ]
    reading = m.reading_of_beta or "no multiple of the divergence"
    told = (
        f"near 0 it is a multiple of {limits[0]}, near 1 of {limits[1]}; "
        f"at 0.1 beta is {reading}"
    )
    return limits == ["forward_kl", "reverse_kl"] and reading == "right", told


@property_of("top-k: bound", "k")
def _top_k_bound(m: Measured) -> Verdict:
    for world in top_k_worlds():
        values = [m.value(world, k=k) for k in (1, 2, 3, 4, 6)]
        steps = zip(values, values[1:], strict=False)
        if values[0] < -1e-6 or any(b < a - 1e-4 * abs(a) - 1e-6 for a, b in steps):
            told = ", ".join(map(figure, values))
            return False, f"for k = 1, 2, 3, 4 and all 6: {told}, no rising bound"
    return True, "it is never below 0 and rises with k to the full value"


@property_of("top-k: missing mass", "k")
def _top_k_missing_mass(m: Measured) -> Verdict:
    teacher = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5])
    raised = teacher + torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    equal = m.value(same_token(teacher, teacher), k=3)
    blind = m.value(same_token(raised, teacher), k=3)
    full = m.value(same_token(raised, teacher), k=6)
    if abs(equal) > 1e-4 * abs(full):
        return False, f"k = 3 of 6: at equality the value is {figure(equal)}, not 0"
    if abs(blind) < 1e-2 * abs(full):
        return False, "k = 3 of 6: a student with too much mass elsewhere costs 0"
    return True, "k = 3 of 6: 0 at equality, and mass elsewhere costs"


@property_of("precision")
def _precision(m: Measured) -> Verdict:
    told = [f"{name} near equality: {x}" for name, x in m.low_precision.items() if x]
    if told:
        return False, "; ".join(told)
    kinds = [name for name in m.low_precision if name != "float32"]
    if not kinds:
        return True, "float32 is used to its full; inputs of 16 bits are refused"
    return True, f"{' and '.join(kinds)} inputs give what they give in float32, to 2 %"


@property_of("EOS where the pad token is EOS", "pad_token_id")
def _eos(m: Measured) -> Verdict:
    return all_learned(m.seen_where_pad_is_eos, m.world.real)
