"""From what was measured of a loss to the mistakes of the museum it makes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..museum import DIAGNOSES
from .calling import Refused
from .measurements import Measured, gradient_of
from .references import OPPOSITE, OTHER_FORMULAS, REFERENCES, alike, near
from .worlds import SIZE, World, logits_raised_over_time


def rule_holds(rule: Callable, measured) -> bool:
    """Whether a rule is true of what was measured; a refused call is no conviction."""
    try:
        return bool(rule(measured))
    except Refused:
        return False


def diagnose(m: Measured, blocked: str | None) -> list[str]:
    """The slugs of the mistakes that what was measured convicts it of."""
    if blocked is not None:
        return ["log-target-forgotten"] if rule_holds(_log_target_forgotten, m) else []
    for slug, rule in _ALONE:
        if rule_holds(rule, m):
            return [slug]
    found = [slug for slug, rule in _RULES if rule_holds(rule, m)]
    for name in (_mask_mistake, _formula_mistake, _temperature_mistake):
        slug = _safely(name, m)
        found += [slug] if slug else []
    return sorted(found, key=list(DIAGNOSES).index)


def _safely(rule: Callable[[Measured], str | None], m: Measured) -> str | None:
    try:
        return rule(m)
    except Refused:
        return None


def _log_target_forgotten(m: Measured) -> bool:
    """NaN, but the gradient is that of Σ log p (log log p - log q): -log p on log q."""
    value, gradient = m.base
    if not math.isnan(value) or not gradient.isfinite().all():
        return False
    leaf = m.world.student.double().requires_grad_(True)
    target = m.world.teacher.double().log_softmax(-1)
    wanted = gradient_of(-(target * leaf.log_softmax(-1)).sum(), leaf)
    ours, theirs = (x[m.world.real].flatten() for x in (gradient, wanted))
    return torch.cosine_similarity(ours, theirs, dim=0).item() > 0.999


def _softmax_over_time(m: Measured) -> bool:
    over_time = m.value(logits_raised_over_time(m.world))
    return near(over_time, m.base_value) and abs(m.shift_ratio - 1.0) > 0.01


def _soft_term_without_gradient(m: Measured) -> bool:
    value, gradient = m.run(m.other_teacher)
    return not near(value, m.base_value, 1e-5) and alike(
        gradient, m.base_gradient, 1e-5
    )


def _hard_term_without_gradient(m: Measured) -> bool:
    if "alpha" not in m.accepts:
        return False
    value, gradient = m.run(m.world, alpha=1.0)
    return abs(value) > 1e-5 and not gradient.any()


def _teacher_unused(m: Measured) -> bool:
    shares = (0.0, 0.5, 1.0) if "alpha" in m.accepts else (0.0,)
    for alpha in shares:
        value, gradient = m.run(m.world, alpha=alpha)
        other_value, other_gradient = m.run(m.other_teacher, alpha=alpha)
        if not near(value, other_value, 1e-5):
            return False
        if not alike(gradient, other_gradient, 1e-5):
            return False
    return True


def _mask_mistake(m: Measured) -> str | None:
    slug = mistaken_mask(m.seen, m.world.real, lambda: m.follows_decoder_inputs)
    if slug == "pads-averaged-in" and near(m.longer_ratio, 1.0):
        return None  # they have a gradient, but for another reason
    if slug is None:
        (row, position), moved = m.moved
        where = moved.nonzero().tolist()
        if where in ([[row, position - 1]], [[row, position + 1]]):
            return "off-by-one"
    return slug


def mistaken_mask(
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


def _formula_mistake(m: Measured) -> str | None:
    found = m.formula[0]
    if found == "cross_entropy":
        return "cross-entropy-as-kl"
    if found in OTHER_FORMULAS:
        return "not-log-probabilities"
    if found is not None and found == OPPOSITE.get(m.divergence):
        return "wrong-direction"
    return None


def _temperature_mistake(m: Measured) -> str | None:
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


def _mean_over_vocabulary(m: Measured) -> bool:
    """V / (V + 3) of the value, and of distributions: a mean over logits is no KL."""
    return near(m.vocabulary_ratio, SIZE / (SIZE + 3)) and near(m.shift_ratio, 1.0)


def _divided_by_sentences(m: Measured) -> bool:
    return near(m.length_ratio, 2.0) and near(m.batch_ratio, 1.0)


def _divided_twice(m: Measured) -> bool:
    return near(m.length_ratio, 0.5) and near(m.batch_ratio, 0.5)


def _padded_with_zeros(m: Measured) -> bool:
    """Two sizes give just what the shorter one gives with zeros, and not the truth."""
    return any(
        near(*found, 1e-5) and not near(found[0], m.base_value)
        for found in m.two_sizes
        if found is not None
    )


def _top_k_renormalised(m: Measured) -> bool:
    return "k" in m.accepts and m.reading_of_top_k is not None


def _mean_of_means(m: Measured) -> bool:
    if "normalizer" not in m.accepts or not m.ignores_normalizer:
        return False
    return not near(*m.in_parts)


def _eos_erased(m: Measured) -> bool:
    if "pad_token_id" not in m.accepts:
        return False
    return eos_alone_erased(m.seen, m.seen_where_pad_is_eos, m.world)


def eos_alone_erased(before: Tensor, where_pad_is_eos: Tensor, world: World) -> bool:
    """Only the positions of EOS lose their gradient once the pad token is EOS."""
    eos = world.labels == world.eos
    return bool(before[eos].any() and where_pad_is_eos.equal(before & ~eos))


def _in_low_precision(m: Measured) -> bool:
    return any(m.low_precision.values())


def _beta_mirrored(m: Measured) -> bool:
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
