"""Exhibits of the museum that are about what is measured; and the false report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdcourse.study.lineup import EOS, make_batch
from kdcourse.theory.divergences import forward_kl, generalised_js, reverse_kl
from kdcourse.theory.museum import losses as museum

from .core import Case, Exercise, Misconception, Outcome
from .property_tests import (
    PropertyTest,
    acquits,
    another_loss_expected,
    answers_exchanged,
    blames,
    line_up,
    near,
    too_loose,
    too_tight,
)
from .suspects import (
    LENGTHS,
    by_kl_div,
    in_float64,
    kl,
    mean_kl,
    nothing,
    of_package,
    other_divergence,
    real_tokens,
    same_as_mean_kl,
    smoothed,
    with_itself,
)

# ------------------------------------------------------------ 4. is_a_divergence


def _values(loss: Callable) -> tuple[float, float, float]:
    """At equality, and on a pair of distributions, both ways round."""
    student, teacher, labels = make_batch(LENGTHS)
    return tuple(
        float(loss(a, b, labels))
        for a, b in ((teacher, teacher), (student, teacher), (teacher, student))
    )


def _is_a_divergence(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return abs(equal) <= 1e-4 and one > 1e-6 and other > 1e-6


def _zero_passes(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return abs(equal) <= 1e-4 and one >= -1e-6 and other >= -1e-6


def _equality_forgotten(loss: Callable) -> bool:
    _, one, other = _values(loss)
    return one > 1e-6 and other > 1e-6


def _nan_slips(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return not (abs(equal) > 1e-4 or one <= 1e-6 or other <= 1e-6)


def _nan_and_zero_slip(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return not (abs(equal) > 1e-4 or one < 0 or other < 0)


def _symmetric(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return abs(equal) <= 1e-4 and one > 1e-6 and abs(one - other) <= 1e-4 * one


def _loosely_zero(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return abs(equal) <= 0.1 and one > 0 and other > 0


def _labels_score_only(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return abs(equal) <= 1e-4 and max(one, other) > 1e-6


def _negative_slips(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return equal <= 1e-4 and one > 1e-6 and other > 1e-6


def _exactly_zero(loss: Callable) -> bool:
    equal, one, other = _values(loss)
    return equal == 0 and one > 1e-6 and other > 1e-6


def _labels_score(student, teacher, labels) -> Tensor:
    """How much less the student gives to the labels than the teacher does, in nats."""
    log_q, log_p = (x[real_tokens(labels)].log_softmax(-1) for x in (student, teacher))
    chosen = labels[real_tokens(labels)][:, None]
    return (log_p - log_q).gather(-1, chosen).mean()


def _with_epsilon(student, teacher, labels) -> Tensor:
    """A small number in the logarithm, as many write it: 1e-8 below 0 at equality."""
    p, q = (x[real_tokens(labels)].double().softmax(-1) for x in (teacher, student))
    return (p * (p.log() - (q + 1e-9).log())).sum(-1).mean()


is_a_divergence = PropertyTest(
    name="ex04.is_a_divergence",
    call="is_a_divergence(loss)",
    reference=_is_a_divergence,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        kl_div_called_in_one_way=by_kl_div,
        the_same_in_float64=in_float64,
        a_small_number_in_the_logarithm=_with_epsilon,
        reverse_KL=museum.arguments_swapped,
        total_variation=other_divergence("total_variation"),
        Jensen_Shannon=other_divergence("generalised_js"),
        pads_averaged_in=museum.pads_averaged_in,
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        kl_div_called_in_another_way=museum.log_target_forgotten,
        kl_div_called_in_a_third_way=museum.softmax_for_log_softmax,
        a_margin_taken_off_the_KL=lambda *batch: mean_kl(*batch) - 0.05,
        cross_entropy=museum.cross_entropy_as_kl,
        teacher_smoothed_over_the_vocabulary=smoothed,
        what_the_labels_lose=_labels_score,
        what_the_labels_gain=lambda *batch: -_labels_score(*batch),
        teacher_compared_with_itself=with_itself,
        a_loss_that_is_always_0=nothing,
    ),
    difficulty=2,
    minutes=8,
    hints=(
        "Three facts make a divergence: it is a number, it is 0 where student and "
        "teacher agree, and above 0 where they do not. Each needs a call of its own.",
        "loss(teacher, teacher, labels) is the loss of a perfect student. For the "
        "rest, one pair may be luck: ask for the pair the other way round, too.",
        "NaN is neither above nor below anything: every comparison with it is False. "
        "Write what must be true (value > 0), not what must not be (not value < 0).",
    ),
    misconceptions=(
        Misconception(
            "every loss acquitted",
            "Your test lets every loss through, a NaN and a cross-entropy among them. "
            "Print the numbers that it compares.",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss. Is the value asked to be 0 where student and "
            "teacher differ, or above 0 where they agree?",
            blames,
        ),
        answers_exchanged(_is_a_divergence),
        Misconception(
            "equality not asked",
            "Your test never shows the loss a perfect student. A loss that stays "
            "above 0 there is no divergence, and its curve does not tell how near the "
            "student is.",
            _equality_forgotten,
        ),
        Misconception(
            "only equality asked",
            "Your test looks at a perfect student only. A loss that is always 0 "
            "passes it, and so does one that falls below 0 elsewhere.",
            lambda loss: abs(_values(loss)[0]) <= 1e-4,
        ),
        Misconception(
            "NaN slips through",
            "Your test lets a NaN through. No comparison with NaN is true, so "
            '"value < 0" does not catch it and "not value < 0" welcomes it. Ask for '
            "what has to hold, or for math.isfinite.",
            _nan_slips,
            _nan_and_zero_slip,
        ),
        Misconception(
            "zero everywhere passes",
            "A loss that is 0 everywhere passes your test. Where student and teacher "
            "differ, a divergence is above 0, not merely not below it.",
            _zero_passes,
        ),
        Misconception(
            "one pair only",
            "One pair of distributions was luck. A difference that has a sign is above "
            "0 for one pair and below it for another: try the pair the other way "
            "round, or several seeds.",
            _labels_score_only,
            lambda loss: abs(_values(loss)[0]) <= 1e-4 and _values(loss)[1] > 1e-6,
            lambda loss: abs(_values(loss)[0]) <= 1e-4 and _values(loss)[2] > 1e-6,
        ),
        Misconception(
            "below zero at equality",
            "Your test asks that a perfect student's loss is not above 0, and one that "
            "is below 0 there passes. It has to be 0: compare its size, abs().",
            _negative_slips,
        ),
        Misconception(
            "symmetry asked",
            "Your test wants the same number when student and teacher are exchanged. A "
            "KL does not give that, and need not: it is a divergence, no distance.",
            _symmetric,
        ),
        another_loss_expected(same_as_mean_kl),
        too_tight(
            _exactly_zero,
            more=" Rounding leaves a perfect student a little off 0, to either side.",
        ),
        too_loose(_loosely_zero),
    ),
)

# ------------------------------------------------------------------- 10. knows_its_ends


def _ends(
    loss: Callable, small: float = 1e-3, divided: bool = True, batch=None
) -> list:
    """[(the loss near an end, what it should be near to), …] at β = 0 and at β = 1."""
    student, teacher, labels = batch or make_batch(LENGTHS)
    divisor = small if divided else 1.0
    return [
        (float(loss(student, teacher, labels, beta=beta)) / divisor, float(end.mean()))
        for beta, end in (
            (small, kl(student, teacher)[real_tokens(labels)]),
            (1 - small, kl(teacher, student)[real_tokens(labels)]),
        )
    ]


def _fits(pair: tuple, within: float = 0.05) -> bool:
    found, wanted = pair
    return abs(found - wanted) < within * abs(wanted)


def _knows_its_ends(loss: Callable) -> bool:
    return all(map(_fits, _ends(loss)))


def _one_end(which: int) -> Callable:
    return lambda loss: _fits(_ends(loss)[which])


def _ends_exchanged(loss: Callable) -> bool:
    (low, forward), (high, reverse) = _ends(loss)
    return _fits((low, reverse)) and _fits((high, forward))


def _undivided_either_way(loss: Callable) -> bool:
    (low, forward), (high, reverse) = _ends(loss, divided=False)
    return _fits((low, reverse)) and _fits((high, forward))


def _symmetric_batch() -> tuple:
    """Two tokens: one model likes the first as much as the other the second."""
    student = torch.tensor([[[0.0, 1.4]]])
    return student, -student, torch.tensor([[EOS]])


def _middle(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    wanted = generalised_js(student_logits=student, teacher_logits=teacher)
    return near(
        loss(student, teacher, labels, beta=0.5), wanted[real_tokens(labels)].mean()
    )


def _same_as_package(loss: Callable) -> bool:
    batch = make_batch(LENGTHS)
    return all(
        near(loss(*batch, beta=beta), _js_of_package(*batch, beta=beta))
        for beta in (0.1, 0.5, 0.9)
    )


def _js(weight: Callable, share: Callable, double: bool = False) -> Callable:
    """weight KL(p ‖ m) + (1 - weight) KL(q ‖ m), m = share p + (1 - share) q."""

    def loss(student, teacher, labels, beta=0.5):
        w, a = weight(beta), share(beta)
        pair = (teacher[real_tokens(labels)], student[real_tokens(labels)])
        p, q = ((x.double() if double else x).softmax(-1) for x in pair)
        log_m = (a * p + (1 - a) * q).log()
        of_p, of_q = ((x * (x.log() - log_m)).sum(-1).mean() for x in (p, q))
        return w * of_p + (1 - w) * of_q

    return loss


def _js_of_package(student, teacher, labels, beta=0.5) -> Tensor:
    values = generalised_js(student_logits=student, teacher_logits=teacher, beta=beta)
    return values[real_tokens(labels)].mean()


def _blend(forward: Callable, reverse: Callable) -> Callable:
    """The two KLs with weights that are functions of β."""

    def loss(student, teacher, labels, beta=0.5):
        logits = {"student_logits": student, "teacher_logits": teacher}
        of_forward, of_reverse = (
            f(**logits)[real_tokens(labels)].mean() for f in (forward_kl, reverse_kl)
        )
        return forward(beta) * of_forward + reverse(beta) * of_reverse

    return loss


def _same(beta: float) -> float:
    return beta


def _mirrored(beta: float) -> float:
    return 1 - beta


knows_its_ends = PropertyTest(
    name="ex04.knows_its_ends",
    call="knows_its_ends(loss)",
    reference=_knows_its_ends,
    cases=lambda: line_up(
        this_package_s_divergence=_js_of_package,
        written_out_from_the_formula=_js(_same, _same),
        the_same_in_float64=_js(_same, _same, double=True),
        other_between_its_right_ends=_blend(
            lambda b: b * (1 - b) ** 2, lambda b: b**2 * (1 - b)
        ),
        beta_for_1_minus_beta_throughout=museum.beta_of_the_student,
        beta_mirrored_in_the_mixture=museum.mixture_mirrored,
        beta_mirrored_in_the_weights=_js(_mirrored, _same),
        beta_not_used=_js(lambda b: 0.5, lambda b: 0.5),
        right_at_the_first_end_only=_blend(_same, lambda b: 0.0),
        right_at_the_other_end_only=_blend(lambda b: 0.0, _mirrored),
        a_blend_of_the_two_KLs=_blend(_mirrored, _same),
        three_quarters_of_it=lambda *batch, beta=0.5: (
            0.75 * _js_of_package(*batch, beta=beta)
        ),
        half_of_it=lambda *batch, beta=0.5: 0.5 * _js_of_package(*batch, beta=beta),
        a_loss_that_is_always_0=nothing,
    ),
    difficulty=4,
    minutes=10,
    hints=(
        "β is a promise about direction. At which end does the loss, divided by β, "
        "become the forward KL, and what happens at the other end?",
        "Take β = 0.001: loss / β has to be near KL(teacher ‖ student). Take β = "
        "0.999: loss / (1 - β) has to be near KL(student ‖ teacher). Both, on a batch "
        "on which the two KLs differ.",
        "forward_kl(student_logits=..., teacher_logits=...) and reverse_kl give a "
        "value a position; keep those with labels != -100, take the mean, and allow 5 "
        "%.",
    ),
    misconceptions=(
        Misconception(
            "every loss acquitted",
            "Your test lets every loss through, even one that does not look at β. "
            "Print the numbers that it compares.",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss. Each end is 0 and not a KL before it is "
            "divided, by β at the first and by 1 - β at the other; at β = 0 itself the "
            "quotient is 0/0; and near an end the limit is near, not there: allow a "
            "few per cent, more than β.",
            blames,
            lambda loss: all(map(_fits, _ends(loss, divided=False))),
        ),
        answers_exchanged(_knows_its_ends),
        Misconception(
            "ends exchanged",
            "Your test expects the reverse KL where β is small. (The library in which "
            "this was found had tests; they expected wrong values at the ends, and "
            "passed.) Read the formula at a small β: which KL is left?",
            _ends_exchanged,
        ),
        Misconception(
            "not divided",
            "Your test compares the loss itself with a KL. By its formula it goes to 0 "
            "at both ends; a loss that does not is wrong there. Divide by β, or by "
            "1 - β.",
            _undivided_either_way,
        ),
        Misconception(
            "one end only",
            "Your test looks at one end. A loss can be right there and wrong at the "
            "other.",
            _one_end(0),
            _one_end(1),
        ),
        Misconception(
            "the middle",
            "Your test looks at β = ½. Everything that is mirrored looks right there, "
            "since ½ is its own mirror image.",
            _middle,
        ),
        Misconception(
            "another loss expected",
            "Your test asks for more than the two ends: it compares the loss with the "
            "divergence itself, at some β, or with KLs that are not those of the real "
            "tokens. What was asked for can be asked of any loss: what it becomes at "
            "its two ends.",
            _same_as_package,
        ),
        Misconception(
            "an example that cannot tell",
            "On your example the forward and the reverse KL are equal, or nearer to "
            "each other than what you allow, so that exchanging them changes nothing. "
            "Take student and teacher for which the two differ.",
            lambda loss: all(map(_fits, _ends(loss, batch=_symmetric_batch()))),
        ),
        Misconception(
            "more allowed than they differ",
            "What you allow is more than the two KLs differ by, so one passes for the "
            "other. Allow a few per cent.",
            lambda loss: all(_fits(pair, 0.4) for pair in _ends(loss)),
            lambda loss: all(_fits(pair, 0.6) for pair in _ends(loss)),
        ),
    ),
)

# --------------------------------------------------------------------- 11. false_report

_GUILTY = {
    1: "its number falls as the vocabulary grows, though nothing was added that could "
    "be said",
    2: "its number doubles when each token is said twice",
    3: "there is a gradient at pads",
    5: "its number moves with constants that no distribution knows of",
    6: "the same sentences give another number when they are cut in parts",
    7: "the end of a sentence has no gradient where the pad is EOS",
    8: "its gradient is not the same at two high temperatures",
    9: "a token learns from another position's answer",
    10: "near β = 0 it is not the KL that its formula promises",
}


def _answers(number: int) -> Callable:
    return lambda: number


@dataclass(frozen=True)
class _Riddle(Exercise):
    """An exercise whose answer a wrong guess must not see."""

    def _diagnose(self, *found) -> Outcome:
        outcome = super()._diagnose(*found)
        lines = outcome.message.split("\n")
        kept = [line for line in lines if not line.startswith("Wanted:")]
        return replace(outcome, message="\n".join(kept))


false_report = _Riddle(
    name="ex04.false_report",
    call="false_report()",
    reference=_answers(4),
    cases=lambda: [Case("the ten exhibits", {})],
    difficulty=1,
    minutes=2,
    hints=(
        "Nine exhibits break the property that their report is about. Which of your "
        "tests gives True for its own exhibit?",
        "Run the cell above: it hands each exhibit to your test of it. Return the "
        "number of the one that holds. Where a report asks for a change, test the "
        "changed code as well.",
    ),
    misconceptions=tuple(
        Misconception(
            f"exhibit {number}",
            f"The report on exhibit {number} is true: {what}. Hand the exhibit to your "
            "own test of it and see.",
            _answers(number),
        )
        for number, what in _GUILTY.items()
    ),
)
