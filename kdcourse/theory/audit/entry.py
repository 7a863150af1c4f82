"""``audit`` and ``audit_step``: run the properties, then the diagnoses, and report."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import BadArgument, check_choice
from ..divergences import DIVERGENCES
from ..museum import DIAGNOSES
from .calling import Refused, name_of, not_callable, options_of
from .diagnoses import diagnose, rule_holds
from .measurements import Measured
from .properties import PROPERTIES, STEP_PROPERTIES, check_property
from .report import Finding, Report
from .steps import STEP_RULES, MeasuredStep


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
    _check_name(name)
    accepts = options_of("loss_fn", loss_fn)
    if divergence is None:
        divergence = "generalised_js" if "beta" in accepts else "forward_kl"
    check_choice("divergence", divergence, (*DIVERGENCES, "any"))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)  # a loss that draws at random gets one report, not many
        measured = Measured(loss_fn, accepts, divergence)
        try:
            blocked = measured.blocked
        except Refused as error:
            raise error.as_argument("loss_fn") from error.__cause__
        findings = [check_property(check, measured, blocked) for check in PROPERTIES]
        slugs = diagnose(measured, blocked)
    return make_report(name or name_of(loss_fn), findings, slugs)


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
    _check_name(name)
    if not callable(step_fn):
        raise not_callable("step_fn", step_fn, "step_fn(student, teacher, batches)")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        steps = MeasuredStep(step_fn)
        try:
            steps.try_out()
        except Refused as error:
            raise error.as_argument("step_fn") from error.__cause__
        findings = [check_property(check, steps, None) for check in STEP_PROPERTIES]
        slugs = [slug for slug, rule in STEP_RULES if rule_holds(rule, steps)]
    return make_report(name or name_of(step_fn), findings, slugs)


def _check_name(name: str | None) -> None:
    if name is not None and not isinstance(name, str):
        raise BadArgument(
            "name",
            f"{name!r}",
            wanted="a text, or None for the function's own name",
            todo="Put it in quotes.",
        )


def make_report(name: str, findings: list[Finding], slugs: list[str]) -> Report:
    """The report with the diagnoses of these slugs."""
    return Report(name, tuple(findings), tuple(DIAGNOSES[slug] for slug in slugs))
