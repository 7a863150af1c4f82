"""Exhibits of the museum that show in the gradient: who learns, and how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcourse.study.lineup import EOS, IGNORE, gradient, make_batch
from kdcourse.theory.museum import losses as museum

from .core import Misconception
from .property_tests import (
    PropertyTest,
    acquits,
    answers_exchanged,
    blames,
    line_up,
    near,
)
from .suspects import (
    LENGTHS,
    by_kl_div,
    centred_mse,
    count_tokens,
    divided,
    in_float64,
    kl,
    mean_kl,
    nothing,
    of_package,
    other_divergence,
    printed_only,
    raw_mse,
    real_tokens,
    softmax_over,
    with_itself,
)

# ----------------------------------------------------------------- 3. leaves_pads_alone


def _pads_gradient(loss: Callable) -> Tensor:
    """The gradient at the pads of a batch that has some: (pads, V)."""
    student, teacher, labels = make_batch(LENGTHS)
    return gradient(loss, student, teacher, labels)[labels == IGNORE]


def _leaves_pads_alone(loss: Callable) -> bool:
    return bool((_pads_gradient(loss).abs() <= 1e-7).all())


def _sum_is_zero(loss: Callable) -> bool:
    return abs(float(_pads_gradient(loss).sum())) <= 1e-6


def _last_pad(loss: Callable) -> bool:
    return bool((_pads_gradient(loss)[-1].abs() <= 1e-7).all())


def _real_tokens_zero(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    return not gradient(loss, student, teacher, labels)[real_tokens(labels)].any()


def _value_with_more_pads(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    loud = make_batch((8, 8), seed=1)
    longer = (
        torch.cat([x, n[:, :3]], 1)
        for x, n in zip((student, teacher), loud[:2], strict=True)
    )
    return near(
        loss(student, teacher, labels),
        loss(*longer, F.pad(labels, (0, 3), value=IGNORE)),
    )


def _value_with_other_pads(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    other = torch.where(real_tokens(labels)[..., None], student, 3 * student + 1)
    return near(loss(student, teacher, labels), loss(other, teacher, labels))


def _z_loss(student, teacher, labels) -> Tensor:
    """The KL, and a small pull of each position's log-sum-exp towards 0, pads too."""
    pull = 1e-3 * student.logsumexp(-1).square().sum() / count_tokens(labels)
    return mean_kl(student, teacher, labels) + pull


def _first_pad_learned(student, teacher, labels) -> Tensor:
    """A mask that lies one position too far to the right."""
    mask = F.pad(real_tokens(labels), (1, 0))[:, :-1]
    return kl(student, teacher)[mask].mean()


def _multiplied_by_mask(student, teacher, labels) -> Tensor:
    mask = real_tokens(labels).float()
    return (kl(student, teacher) * mask).sum() / mask.sum()


leaves_pads_alone = PropertyTest(
    name="ex04.leaves_pads_alone",
    call="leaves_pads_alone(loss)",
    reference=_leaves_pads_alone,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        kl_div_by_the_book=by_kl_div,
        multiplied_by_the_mask=_multiplied_by_mask,
        the_same_in_float64=in_float64,
        reverse_KL=other_divergence("reverse_kl"),
        a_loss_that_is_always_0=nothing,
        masked_but_divided_by_all_positions=divided(
            lambda labels, size: labels.numel()
        ),
        divided_by_the_sentences=museum.divided_by_sentences,
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        the_last_token_left_out=museum.mask_off_by_one,
        pads_averaged_in=museum.pads_averaged_in,
        a_mask_one_too_far_to_the_right=_first_pad_learned,
        a_small_penalty_on_all_logits=_z_loss,
        softmax_over_time=softmax_over(1),
        prints_without_pads_but_learns_with_them=printed_only(
            mean_kl, museum.pads_averaged_in
        ),
    ),
    difficulty=2,
    minutes=7,
    hints=(
        "A pad that is learned pulls at the student's weights. The pull of a position "
        "is the gradient at its logits; gradient(loss, student, teacher, labels) gives "
        "all of them, (B, L, V).",
        "labels == -100 is a mask (B, L) that picks the pads out of (B, L, V). Has "
        "your batch any? Then look at each number, since numbers can cancel.",
        "Take lengths that differ, index the gradient with the mask, and ask that its "
        "largest absolute value is 0, or no more than 1e-7.",
    ),
    misconceptions=(
        Misconception(
            "no pads in the batch",
            "Your test lets every loss through. Are there pads in your batch, and does "
            "your mask find them, by their label -100? Where sentences have one length "
            "there are none, and all() of nothing is True.",
            acquits,
        ),
        Misconception(
            "real tokens looked at",
            "Your test blames losses for the gradient of real tokens. Those are to be "
            "learned; only where the label is -100 must the gradient be 0.",
            _real_tokens_zero,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss, even one that is always 0. Look at what it "
            "does at its end: it never reaches True.",
            blames,
        ),
        answers_exchanged(_leaves_pads_alone),
        Misconception(
            "gradients cancel",
            "You added the gradient up. Behind a softmax the gradients of one position "
            "sum to 0 over the vocabulary, whatever the loss does there. Look at "
            "absolute values.",
            _sum_is_zero,
        ),
        Misconception(
            "value, not gradient",
            "You compare values. A loss can be divided by a wrong number and still "
            "leave pads alone, or print a fine value and learn from pads: what is "
            "asked for is the gradient.",
            _value_with_more_pads,
            _value_with_other_pads,
        ),
        Misconception(
            "one pad only",
            "You look at one pad, or at the last column, or are content with any one "
            "that is left alone. A mask that is one position off learns the first pad "
            "of a sentence and leaves the others alone: ask it of all of them.",
            _last_pad,
        ),
        Misconception(
            "small is not zero",
            "You allow a pad some gradient. A penalty with a small weight pulls at all "
            "the pads of a batch, and there are many of them: outside of the mask the "
            "gradient is exactly 0.",
            lambda loss: bool((_pads_gradient(loss).abs() < 1e-2).all()),
            lambda loss: bool((_pads_gradient(loss).abs() < 1e-3).all()),
        ),
    ),
)

# -------------------------------------------------------------------- 7. learns_to_stop


def _pulls(loss: Callable, lengths: tuple = (5, 3, 4), pad: int = EOS) -> tuple:
    """The gradient's size at each position (B, L), and where EOS stands (B, L)."""
    batch = make_batch(lengths)
    found = gradient(loss, *batch, pad_token_id=pad)
    return found.abs().sum(-1), batch[2] == EOS


def _learns_to_stop(loss: Callable) -> bool:
    return all(
        bool((pull[eos] > 1e-6).all())
        for pull, eos in (_pulls(loss), _pulls(loss, pad=0))
    )


def _pad_apart(loss: Callable) -> bool:
    pull, eos = _pulls(loss, pad=0)
    return bool((pull[eos] > 1e-6).all())


def _pad_is_eos(loss: Callable) -> bool:
    pull, eos = _pulls(loss)
    return bool((pull[eos] > 1e-6).all())


def _some_eos(loss: Callable) -> bool:
    pull, eos = _pulls(loss)
    return bool((pull[eos] > 1e-6).any())


def _any_token(loss: Callable) -> bool:
    return bool(_pulls(loss)[0].any())


def _last_column(loss: Callable) -> bool:
    return bool((_pulls(loss)[0][:, -1] > 1e-6).all())


def _every_token(loss: Callable) -> bool:
    labels = make_batch((5, 3, 4))[2]
    return bool((_pulls(loss)[0][real_tokens(labels)] > 1e-6).all())


def _one_length(loss: Callable) -> bool:
    pull, eos = _pulls(loss, lengths=(4, 4))
    return bool((pull[eos] > 1e-6).all())


def _one_sentence(loss: Callable) -> bool:
    pull, eos = _pulls(loss, lengths=(4,))
    return bool((pull[eos] > 1e-6).all())


def _eos_cancels(loss: Callable) -> bool:
    student, teacher, labels = make_batch((5, 3, 4))
    found = gradient(loss, student, teacher, labels, pad_token_id=EOS)
    return bool((found.sum(-1)[labels == EOS].abs() > 1e-6).all())


def _value_at_eos(loss: Callable) -> bool:
    """Whether the value changes with the logits at each EOS."""
    student, teacher, labels = make_batch((5, 3, 4))
    before = float(loss(student, teacher, labels, pad_token_id=EOS))
    for place in (labels == EOS).nonzero().tolist():
        other = student.clone()
        other[tuple(place)] *= -1
        after = float(loss(other, teacher, labels, pad_token_id=EOS))
        if abs(after - before) <= 1e-6:
            return False
    return True


def _kl_where(real: Callable) -> Callable:
    """The mean KL where ``real(labels, pad_token_id)`` says so."""
    return lambda student, teacher, labels, pad_token_id=0: kl(student, teacher)[
        real(labels, pad_token_id)
    ].mean()


def _before_the_first_pad_id(labels: Tensor, pad: int) -> Tensor:
    return real_tokens(labels) & ((labels == pad).cumsum(1) == 0)


def _next_is_real_too(labels: Tensor, pad: int) -> Tensor:
    """Loses the last token of each sentence that has a pad behind it."""
    return real_tokens(labels) & F.pad(real_tokens(labels), (0, 1), value=True)[:, 1:]


def _last_column_cut(labels: Tensor, pad: int) -> Tensor:
    """Loses the last token of the longest sentences."""
    return real_tokens(labels) & F.pad(real_tokens(labels)[:, 1:], (0, 1)).any(0)


def _ignoring_pad_id(loss: Callable) -> Callable:
    return lambda student, teacher, labels, pad_token_id=0: loss(
        student, teacher, labels
    )


learns_to_stop = PropertyTest(
    name="ex04.learns_to_stop",
    call="learns_to_stop(loss)",
    reference=_learns_to_stop,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        a_mask_from_the_labels=_kl_where(lambda labels, pad: real_tokens(labels)),
        kl_div_by_the_book=_ignoring_pad_id(by_kl_div),
        pads_averaged_in=_ignoring_pad_id(museum.pads_averaged_in),
        mean_over_the_vocabulary=_ignoring_pad_id(museum.mean_over_vocabulary),
        MSE_of_the_logits=_ignoring_pad_id(raw_mse),
        divided_by_the_sentences=_ignoring_pad_id(museum.divided_by_sentences),
        the_first_token_left_out=_ignoring_pad_id(_first_left_out),
        a_mask_without_the_pad_s_id=_kl_where(
            lambda labels, pad: real_tokens(labels) & (labels != pad)
        ),
        everything_before_the_first_pad_id=_kl_where(_before_the_first_pad_id),
        the_last_token_left_out=_ignoring_pad_id(museum.mask_off_by_one),
        left_out_where_a_pad_follows=_kl_where(_next_is_real_too),
        the_last_column_left_out=_kl_where(_last_column_cut),
        a_mask_without_EOS_where_the_pad_has_an_id=_kl_where(
            lambda labels, pad: real_tokens(labels) & ((labels != EOS) | (pad == EOS))
        ),
        ids_0_and_1_left_out_as_special=_kl_where(lambda labels, pad: labels > 1),
        prints_EOS_but_does_not_learn_it=printed_only(
            _ignoring_pad_id(mean_kl), _kl_where(lambda labels, pad: labels > 1)
        ),
        a_loss_that_is_always_0=nothing,
    ),
    difficulty=3,
    minutes=8,
    hints=(
        "A student learns to stop if the position of EOS pulls at it: the gradient "
        "there must not be 0. For each sentence, and for every pad_token_id that may "
        "come.",
        "gradient(loss, student, teacher, labels, pad_token_id=...) passes the option "
        "on. When does an id say pad and mean EOS?",
        "Let pad_token_id be the id of EOS, take sentences of different lengths, and "
        "look at the largest absolute gradient of each position with labels == 1.",
    ),
    misconceptions=(
        Misconception(
            "nothing is asked",
            "Your test lets every loss through, even one without any gradient. Print "
            "the gradient at EOS that it looks at.",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss. Is the gradient at EOS asked to be 0? A "
            "token with a gradient is one that is learned.",
            blames,
        ),
        answers_exchanged(_learns_to_stop),
        Misconception(
            "pad and EOS kept apart",
            "In your test the pad has an id of its own. Many models have none and pad "
            "with EOS: give pad_token_id the id of EOS, too.",
            _pad_apart,
        ),
        Misconception(
            "pad and EOS always one",
            "In your test the pad has the id of EOS each time. A loss may lose EOS "
            "just where the pad has an id of its own: try both.",
            _pad_is_eos,
        ),
        Misconception(
            "any token will do",
            "Your test is content with a gradient at some token. Whether the student "
            "learns to stop is decided at EOS alone.",
            _any_token,
        ),
        Misconception(
            "one EOS is enough",
            "Your test is content if one sentence learns its end. Some losses lose "
            "the end of the longest sentence only, others that of the shorter ones: "
            "ask for all.",
            _some_eos,
        ),
        Misconception(
            "every token asked",
            "You ask for a gradient at every real token. Whether the student learns to "
            "stop is decided at EOS alone: a loss that leaves out another token is "
            "wrong in another way, and has to pass.",
            _every_token,
        ),
        Misconception(
            "last column",
            "You look at pads, too: in the last column of the batch, or at every "
            "position. There the gradient is rightly 0. Find the positions of EOS by "
            "their label: labels == EOS is a mask (B, L).",
            _last_column,
        ),
        Misconception(
            "one length",
            "All your sentences have one length, or there is one only. A loss that "
            "loses EOS where a pad follows is not found: mix lengths.",
            _one_length,
            _one_sentence,
        ),
        Misconception(
            "gradients cancel",
            "You added the gradient up over the vocabulary. Behind a softmax that sum "
            "is 0 at every token, learned or not. Look at absolute values.",
            _eos_cancels,
        ),
        Misconception(
            "value, not gradient",
            "You look at the value. A term may stand in the value and carry no "
            "gradient: it is printed, and nothing is learned. Ask for the gradient.",
            _value_at_eos,
        ),
    ),
)

# -------------------------------------------------------------------- 8. keeps_its_size


def _size(loss: Callable, temperature: float) -> float:
    batch = make_batch(LENGTHS)
    return float(gradient(loss, *batch, temperature=temperature).norm())


def _ratio(loss: Callable, low: float, high: float) -> float:
    """By what factor the gradient grows from one temperature to the other; 0/0 = 1."""
    one, other = _size(loss, low), _size(loss, high)
    return 1.0 if one == other else other / one if one else math.inf


def _keeps_its_size(loss: Callable) -> bool:
    return abs(_ratio(loss, 50.0, 200.0) - 1) < 0.1


def _compared(low: float, high: float, wanted: float = 1.0, within: float = 0.1):
    return lambda loss: abs(_ratio(loss, low, high) / wanted - 1) < within


def _values_compared(loss: Callable) -> bool:
    batch = make_batch(LENGTHS)
    one, other = (float(loss(*batch, temperature=t)) for t in (50.0, 200.0))
    return abs(one - other) <= 0.1 * abs(one)


def _soft(power: float, kl: Callable = kl) -> Callable:
    """T to a power, times the mean KL at T."""
    return lambda student, teacher, labels, temperature=1.0: (
        temperature**power
        * kl(student, teacher, temperature)[real_tokens(labels)].mean()
    )


def _in_64(student, teacher, temperature) -> Tensor:
    return kl(student.double(), teacher.double(), temperature)


def _reversed_kl(student, teacher, temperature) -> Tensor:
    return kl(teacher, student, temperature)


def _tv(student, teacher, temperature) -> Tensor:
    p, q = ((x / temperature).softmax(-1) for x in (teacher, student))
    return 0.5 * (p - q).abs().sum(-1)


def _hard_labels(student, teacher, labels, temperature=1.0) -> Tensor:
    return F.cross_entropy(student.transpose(1, 2), labels, ignore_index=IGNORE)


def _over_vocabulary(student, teacher, labels, temperature=1.0) -> Tensor:
    return _soft(2)(student, teacher, labels, temperature) / student.shape[-1]


def _low_ones_raised(loss: Callable) -> Callable:
    """The loss at a high temperature where it is asked at a low one."""
    return lambda *batch, temperature=1.0: loss(
        *batch, temperature=temperature if temperature >= 20 else 50 * temperature
    )


def _at_the_limit(loss: Callable) -> Callable:
    """The loss at temperatures so high that five digits of its gradient are fixed."""
    return lambda student, teacher, labels, temperature=1.0: loss(
        student.double(), teacher.double(), labels, temperature=1e3 * temperature
    )


keeps_its_size = PropertyTest(
    name="ex04.keeps_its_size",
    call="keeps_its_size(loss)",
    probes={"not hot enough": _low_ones_raised, "too tight": _at_the_limit},
    reference=_keeps_its_size,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        T2_times_the_KL=_soft(2),
        the_same_in_float64=_soft(2, _in_64),
        the_same_of_larger_logits=_soft(2, lambda s, t, T: kl(3 * s, 3 * t, T)),
        the_same_of_smaller_logits=_soft(2, lambda s, t, T: kl(0.8 * s, 0.8 * t, T)),
        T2_times_the_reverse_KL=_soft(2, _reversed_kl),
        MSE_of_centred_logits=centred_mse,
        hard_labels_at_T_1=_hard_labels,
        divided_by_V_but_with_T2=_over_vocabulary,
        a_loss_that_is_always_0=nothing,
        the_KL_alone=museum.t_squared_forgotten,
        T4_times_the_KL=museum.t_squared_doubled,
        T_times_the_KL=_soft(1),
        T_divides_the_student_only=museum.student_alone_softened,
        T2_times_the_total_variation=_soft(2, _tv),
        prints_T2_but_learns_without=printed_only(_soft(2), _soft(0)),
    ),
    difficulty=3,
    minutes=10,
    hints=(
        "What a term teaches is its gradient. How large is it at one temperature, and "
        "how large at another? Use gradient(loss, …, temperature=T).norm().",
        "The gradient *tends* to a constant: low temperatures are not there yet. Take "
        "two high ones that are far apart, such as 50 and 200.",
        "Ask that the ratio of the two norms is near 1, within 10 %, so that neither "
        "a fall nor a growth passes. A loss without any gradient neither falls nor "
        "grows: compare in a way that survives 0.",
    ),
    misconceptions=(
        Misconception(
            "temperature not changed",
            "Your test lets every loss through. Do its two gradients really belong to "
            "two temperatures, and is what you allow less than a factor T?",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss, even one that is always 0, which neither "
            "falls nor grows. 0 / 0 is NaN, and NaN is near to nothing: compare a "
            "difference with what is allowed.",
            blames,
        ),
        answers_exchanged(_keeps_its_size),
        Misconception(
            "not hot enough",
            "At low temperatures a right loss changes its gradient, too: the constant "
            "is a limit. Take both temperatures high, far apart.",
            _compared(1.0, 10.0),
            _compared(1.0, 20.0),
            _compared(1.0, 100.0),
        ),
        Misconception(
            "value, not gradient",
            "You compare values. A loss can print a fine value and learn from "
            "something else: only the gradient moves the student.",
            _values_compared,
        ),
        Misconception(
            "only a fall is seen",
            "Your test finds gradients that fade, but not those that grow with T and "
            "drown the labels. Ask for both.",
            lambda loss: _ratio(loss, 50.0, 200.0) > 0.9,
            lambda loss: _ratio(loss, 50.0, 200.0) > 0.5,
        ),
        Misconception(
            "only a growth is seen",
            "Your test finds gradients that grow, but not those that fade with T and "
            "leave the teacher unheard. Ask for both, and measure the change against "
            "the gradient itself: a faded one has less left than any fixed amount.",
            lambda loss: _ratio(loss, 50.0, 200.0) < 1.1,
            lambda loss: _ratio(loss, 50.0, 200.0) < 2.0,
        ),
        Misconception(
            "T² in the test",
            "Your test multiplies by T² itself, or expects the gradient to fall as "
            "1/T². That is how a loss *without* the factor behaves: the gradient of "
            "the one you test has to stay.",
            _compared(50.0, 200.0, wanted=1 / 16),
        ),
        Misconception(
            "too tight",
            "The gradient tends to its limit and is never quite there, so equality, or "
            "nearly, is too much to ask. A forgotten T² is a factor, not a per cent: "
            "allow 10 %.",
            _compared(50.0, 200.0, within=1e-4),
            _compared(50.0, 200.0, within=1e-3),
        ),
        Misconception(
            "too loose",
            "What you allow is so much that a missing factor T fits in. From 50 to 200 "
            "one factor T is 4, and T² is 16.",
            lambda loss: 0.1 < _ratio(loss, 50.0, 200.0) < 10,
            lambda loss: 0.2 < _ratio(loss, 50.0, 200.0) < 5,
        ),
    ),
)

# -------------------------------------------------------------------- 9. stays_in_place


def _moved(loss: Callable, place: tuple, lengths: tuple = (4, 3), who: str = "teacher",
           spike: Callable = lambda x: -x) -> Tensor:  # fmt: skip
    """How far the gradient moves at each position (B, L) after a spike at one."""
    student, teacher, labels = make_batch(lengths)
    before = gradient(loss, student, teacher, labels)
    if who in ("student", "both"):
        student = student.clone()
        student[place] = spike(student[place])
    if who in ("teacher", "both"):
        teacher = teacher.clone()
        teacher[place] = spike(teacher[place])
    after = gradient(loss, student, teacher, labels)
    return (after - before).abs().amax(-1)


def _places(lengths: tuple = (4, 3)) -> list[tuple]:
    return [tuple(x) for x in real_tokens(make_batch(lengths)[2]).nonzero().tolist()]


def _holds_at(places: list, loss: Callable, there=True, elsewhere=True, **how) -> bool:
    for place in places:
        moved = _moved(loss, place, **how) > 1e-5
        if there and not moved[place]:
            return False
        moved[place] = False
        if elsewhere and moved.any():
            return False
    return True


def _stays_in_place(loss: Callable) -> bool:
    return _holds_at(_places(), loss)


def _values_move(loss: Callable) -> bool:
    student, teacher, labels = make_batch((4, 3))
    before = float(loss(student, teacher, labels))
    for place in _places():
        other = teacher.clone()
        other[place] *= -1
        if abs(float(loss(student, other, labels)) - before) < 1e-6:
            return False
    return True


def _off_by(shift: int, dim: int = 1) -> Callable:
    """Each position is compared with the teacher's answer to another one."""
    return lambda student, teacher, labels: mean_kl(
        student, teacher.roll(shift, dim), labels
    )


def _read_backwards(student, teacher, labels) -> Tensor:
    """The teacher's answers in the reverse order, as of one that writes leftwards."""
    turned = teacher.clone()
    for row, n in zip(
        range(len(labels)), real_tokens(labels).sum(1).tolist(), strict=True
    ):
        turned[row, :n] = teacher[row, :n].flip(0)
    return mean_kl(student, turned, labels)


def _mixed_with_neighbour(student, teacher, labels) -> Tensor:
    """The teacher's logits smoothed a little along the sentence."""
    return mean_kl(student, 0.9 * teacher + 0.1 * teacher.roll(1, 1), labels)


def _first_left_out(student, teacher, labels) -> Tensor:
    return mean_kl(student[:, 1:], teacher[:, 1:], labels[:, 1:])


stays_in_place = PropertyTest(
    name="ex04.stays_in_place",
    call="stays_in_place(loss)",
    reference=_stays_in_place,
    cases=lambda: line_up(
        teacher_one_position_ahead=museum.teacher_off_by_one,
        teacher_one_position_behind=_off_by(1),
        teacher_s_answers_in_reverse_order=_read_backwards,
        teacher_of_another_sentence=_off_by(1, dim=0),
        the_last_token_left_out=museum.mask_off_by_one,
        the_first_token_left_out=_first_left_out,
        a_little_of_the_neighbour_s_answer=_mixed_with_neighbour,
        softmax_over_time=softmax_over(1),
        teacher_compared_with_itself=with_itself,
        this_package_s_loss=of_package,
        kl_div_by_the_book=by_kl_div,
        the_same_in_float64=in_float64,
        reverse_KL=other_divergence("reverse_kl"),
        pads_averaged_in=museum.pads_averaged_in,
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        divided_by_the_sentences=museum.divided_by_sentences,
        cross_entropy=museum.cross_entropy_as_kl,
    ),
    difficulty=4,
    minutes=10,
    hints=(
        "Change what the teacher says at one token. Which positions of the student "
        "may feel it, and which must?",
        "Compare the gradient (B, L, V) before and after. It has to move at that token "
        "and nowhere else; and so for each real token, the first and the last too.",
        "Loop over (labels != -100).nonzero(). Clone the teacher, flip the sign of its "
        "logits at that place, take moved = (after - before).abs().amax(-1) > 1e-5, "
        "and compare moved with the one place.",
    ),
    misconceptions=(
        Misconception(
            "nothing is changed",
            "Your test lets every loss through, even one that never looks at the "
            "teacher. Is the teacher's answer really another one the second time?",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss. A constant added to all logits of a token "
            "moves nothing, since a softmax forgets it; a change that is not made on a "
            "clone stays for the next token; and what counts as moved must be more "
            "than rounding, and less than a gradient.",
            blames,
        ),
        answers_exchanged(_stays_in_place),
        Misconception(
            "one token only",
            "You change the teacher at one token, or at some. A loss that leaves the "
            "first or the last one out goes unnoticed: ask at each real token.",
            partial(_holds_at, [(0, 1)]),
            partial(_holds_at, [(0, 0)]),
            partial(_holds_at, [(0, 2)]),
            partial(_holds_at, [(0, 3)]),
            partial(_holds_at, [(0, 2)], lengths=(5, 3)),
        ),
        Misconception(
            "one sentence",
            "Your batch has one sentence. A loss that compares a sentence with the "
            "teacher's answer to another one needs two to be seen.",
            partial(_holds_at, _places((4,)), lengths=(4,)),
            partial(_holds_at, _places((5,)), lengths=(5,)),
        ),
        Misconception(
            "value, not gradient",
            "You look at the value. It moves wherever the teacher is read, at the "
            "right position or a wrong one; only the gradient says which token of the "
            "student is taught by it.",
            _values_move,
        ),
        Misconception(
            "elsewhere not looked at",
            "Your test asks that the gradient moves at that token, but not that it "
            "stays everywhere else.",
            partial(_holds_at, _places(), elsewhere=False),
        ),
        Misconception(
            "there not looked at",
            "Your test asks that the gradient stays elsewhere, but not that it moves "
            "at that token: a loss that leaves the token out passes.",
            partial(_holds_at, _places(), there=False),
        ),
        Misconception(
            "the student's own logits",
            "You changed the student's logits. Its gradient moves at that token in any "
            "case, whichever answer of the teacher it is compared with: change the "
            "teacher's.",
            partial(_holds_at, _places(), who="student"),
        ),
        Misconception(
            "pads asked too",
            "You ask the same of pads. A right loss does not learn there, so nothing "
            "may move: ask at real tokens only.",
            partial(_holds_at, [(b, t) for b in range(2) for t in range(4)]),
        ),
    ),
)
