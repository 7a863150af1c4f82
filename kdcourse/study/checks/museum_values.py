"""Exhibits of the museum that show in the loss's value: what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcourse.study.lineup import IGNORE, make_batch
from kdcourse.theory.losses import distillation_loss
from kdcourse.theory.museum import losses as museum

from .core import Misconception
from .property_tests import (
    PropertyTest,
    acquits,
    another_loss_expected,
    answers_exchanged,
    blames,
    exactly,
    line_up,
    near,
    one_direction,
    too_loose,
    too_tight,
    within,
)
from .suspects import (
    LENGTHS,
    by_kl_div,
    centred_mse,
    clamped,
    count_tokens,
    divided,
    in_float64,
    kl,
    mean_kl,
    nothing,
    of_package,
    other_divergence,
    raw_mse,
    real_tokens,
    same_as_mean_kl,
    smoothed,
    softmax_over,
)

# --------------------------------------------------------- 1. ignores_impossible_tokens


def _with_more_tokens(loss: Callable, logit: float, near: Callable = near) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    wider = (F.pad(x, (0, 3), value=logit) for x in (student, teacher))
    return near(loss(student, teacher, labels), loss(*wider, labels))


def _ignores_impossible_tokens(loss: Callable) -> bool:
    return _with_more_tokens(loss, -1e4)


def _widened_on_time(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    longer = (F.pad(x, (0, 0, 0, 3), value=-1e4) for x in (student, teacher))
    return near(
        loss(student, teacher, labels),
        loss(*longer, F.pad(labels, (0, 3), value=IGNORE)),
    )


def _widened_on_one_side(loss: Callable, side: int) -> bool:
    *logits, labels = make_batch(LENGTHS)
    before = loss(*logits, labels)
    logits[side] = F.pad(logits[side], (0, 3), value=-1e4)
    return near(before, loss(*logits, labels))


ignores_impossible_tokens = PropertyTest(
    name="ex04.ignores_impossible_tokens",
    call="ignores_impossible_tokens(loss)",
    reference=_ignores_impossible_tokens,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        kl_div_by_the_book=by_kl_div,
        the_same_in_float64=in_float64,
        probabilities_of_at_least_1e_7=clamped,
        reverse_KL=other_divergence("reverse_kl"),
        total_variation=other_divergence("total_variation"),
        a_loss_that_is_always_0=nothing,
        cross_entropy=museum.cross_entropy_as_kl,
        divided_by_the_sentences=museum.divided_by_sentences,
        divided_by_the_tokens_twice=museum.divided_twice,
        pads_averaged_in=museum.pads_averaged_in,
        softmax_over_time=softmax_over(1),
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        the_same_over_all_positions=lambda s, t, y: F.kl_div(
            s.log_softmax(-1), t.softmax(-1), reduction="none"
        ).mean(),
        divided_by_V_and_by_the_tokens_twice=divided(
            lambda labels, size: size * count_tokens(labels) ** 2
        ),
        divided_by_log_V=divided(
            lambda labels, size: count_tokens(labels) * math.log(size)
        ),
        multiplied_by_V_and_very_small=divided(lambda labels, size: 1e5 / size),
        teacher_smoothed_over_the_vocabulary=smoothed,
    ),
    difficulty=2,
    minutes=8,
    hints=(
        "Two calls of the loss: one on a batch, one on the same batch with a few more "
        "entries in the vocabulary of student and teacher. What has to be true of the "
        "two numbers?",
        "F.pad(x, (0, 3), value=...) adds three entries at the end of the last axis. "
        "The softmax must give them nothing, and the loss must stay a number.",
        "exp(-10000) is exactly 0 in 32 bits, and -10000 is still a number that "
        "0 can be multiplied with. Compare with torch.isclose(a, b, rtol=1e-4).",
    ),
    misconceptions=(
        Misconception(
            "nothing is added",
            "Your test lets every loss through. Are there really two different sizes "
            "of vocabulary in it? Two batches of the same size agree whatever a loss "
            "divides by.",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss, even one that is always 0. Look at what it "
            "does at its end: it never reaches True.",
            blames,
        ),
        answers_exchanged(_ignores_impossible_tokens),
        Misconception(
            "possible tokens added",
            "The tokens that you added can be said: a logit of 0 has a probability "
            "like any other, and the distributions change with it. Give them a logit "
            "whose probability is 0.",
            partial(_with_more_tokens, logit=0.0),
            partial(_with_more_tokens, logit=1.0),
            partial(_with_more_tokens, logit=-1.0),
        ),
        Misconception(
            "minus infinity",
            "The tokens that you added have the logit -inf. kl_div multiplies their "
            "probability 0 by their log-probability -inf, which is NaN, and a good "
            "loss is blamed for it. A very low number does the same service: its "
            "probability is 0, too.",
            partial(_with_more_tokens, logit=-math.inf),
        ),
        Misconception(
            "another axis",
            "You made the sentences longer, not the vocabulary larger: the last axis "
            "of (B, L, V) is the vocabulary. Your test finds losses that count pads.",
            _widened_on_time,
        ),
        Misconception(
            "one side only",
            "Only one of student and teacher got the new tokens. Both speak the same "
            "language: widen both.",
            partial(_widened_on_one_side, side=0),
            partial(_widened_on_one_side, side=1),
        ),
        another_loss_expected(same_as_mean_kl),
        one_direction(
            lambda loss, near: _with_more_tokens(loss, -1e4, near), "the vocabulary"
        ),
        too_tight(partial(_with_more_tokens, logit=-1e4, near=exactly)),
        too_loose(
            partial(_with_more_tokens, logit=-1e4, near=within(0.1)),
            partial(_with_more_tokens, logit=-1e4, near=within(0.01)),
        ),
    ),
)

# ---------------------------------------------------------------- 2. ignores_repetition


def _twice(loss: Callable, dim: int = 1, factor: float = 1.0, near=near) -> bool:
    batch = make_batch(LENGTHS)
    double = (x.repeat_interleave(2, dim=dim) for x in batch)
    return near(factor * loss(*batch), loss(*double))


def _ignores_repetition(loss: Callable) -> bool:
    return _twice(loss)


def _logits_twice(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    double = (x.repeat_interleave(2, dim=1) for x in (student, teacher))
    return near(loss(student, teacher, labels), loss(*double, labels))


def _more_padding(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    longer = (F.pad(x, (0, 0, 0, 5)) for x in (student, teacher))
    return near(
        loss(student, teacher, labels),
        loss(*longer, F.pad(labels, (0, 5), value=IGNORE)),
    )


def _longer_sentences(loss: Callable) -> bool:
    return near(loss(*make_batch((3, 3))), loss(*make_batch((6, 6))))


ignores_repetition = PropertyTest(
    name="ex04.ignores_repetition",
    call="ignores_repetition(loss)",
    reference=_ignores_repetition,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        kl_div_by_the_book=by_kl_div,
        divided_by_the_tokens_and_a_trifle=divided(
            lambda labels, size: count_tokens(labels) + 1e-5
        ),
        the_same_in_float64=in_float64,
        reverse_KL=other_divergence("reverse_kl"),
        a_loss_that_is_always_0=nothing,
        cross_entropy=museum.cross_entropy_as_kl,
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        pads_averaged_in=museum.pads_averaged_in,
        MSE_of_the_logits=raw_mse,
        divided_by_the_sentences=museum.divided_by_sentences,
        batchmean_of_all_positions=lambda s, t, y: F.kl_div(
            s.log_softmax(-1), t.softmax(-1), reduction="batchmean"
        ),
        not_divided_at_all=divided(lambda labels, size: 1),
        divided_by_the_tokens_twice=museum.divided_twice,
        not_divided_and_very_small=divided(lambda labels, size: 1e5),
        divided_by_the_root_of_the_tokens=divided(
            lambda labels, size: math.sqrt(count_tokens(labels))
        ),
        divided_by_V_and_by_the_tokens_twice=divided(
            lambda labels, size: size * count_tokens(labels) ** 2
        ),
    ),
    difficulty=2,
    minutes=6,
    hints=(
        "If each token is said twice, the sum over tokens doubles, and so does their "
        "number. What happens to their ratio?",
        "x.repeat_interleave(2, dim=...) repeats along one axis. Which of (B, L) is "
        "the one that a loss divided by B cannot see? The labels have to keep up.",
        "Repeat all three tensors along dim=1 and compare the two losses with "
        "torch.isclose(a, b, rtol=1e-4).",
    ),
    misconceptions=(
        Misconception(
            "nothing is repeated",
            "Your test lets every loss through. Does the second call really see more "
            "tokens than the first? repeat_interleave returns a new tensor and leaves "
            "the old one as it is.",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss, even one that is always 0. Look at what it "
            "does at its end: it never reaches True.",
            blames,
        ),
        answers_exchanged(_ignores_repetition),
        Misconception(
            "sentences repeated",
            "You repeated whole sentences: B doubles together with the number of "
            "tokens, so a loss that is divided by B looks right. Make the sentences "
            "longer, not more.",
            partial(_twice, dim=0),
        ),
        Misconception(
            "labels left behind",
            "The logits were repeated, the labels were not. They say which positions "
            "are real, so they need the same shape (B, 2 L).",
            _logits_twice,
        ),
        Misconception(
            "pads added",
            "You made the batch longer with pads. No token was added, so the number "
            "of tokens and the number of sentences both stay: a loss that divides by "
            "the wrong one of them is not found.",
            _more_padding,
        ),
        Misconception(
            "twice as much expected",
            "Your test asks for twice the loss when each token is said twice. That "
            "holds of a sum. A loss of one token, a mean, has to stay.",
            partial(_twice, factor=2.0),
        ),
        Misconception(
            "other tokens",
            "The longer batch is not the shorter one with its tokens said twice, but "
            "other tokens: a right loss gives another number for them. Build the "
            "second batch from the first.",
            _longer_sentences,
        ),
        another_loss_expected(same_as_mean_kl),
        one_direction(
            lambda loss, near: _twice(loss, near=near), "the length of the sentences"
        ),
        too_tight(partial(_twice, near=exactly)),
        too_loose(
            partial(_twice, near=within(0.2)), partial(_twice, near=within(0.05))
        ),
    ),
)

# -------------------------------------------------------------------- 5. ignores_shifts

_DRAW = torch.Generator


def _shift(shape: tuple, seed: int = 5) -> Tensor:
    return 3 * torch.randn(shape, generator=_DRAW().manual_seed(seed))


def _shifted(loss: Callable, ones: tuple, teachers: bool = True, students: bool = True,
             near: Callable = near) -> bool:  # fmt: skip
    """Add to the logits constants of shape (B, L, V) with 1 along these axes."""
    student, teacher, labels = make_batch(LENGTHS)
    shape = [1 if axis in ones else n for axis, n in enumerate(student.shape)]
    moved = (
        student + students * _shift(shape),
        teacher + teachers * _shift(shape, seed=6),
    )
    return near(loss(student, teacher, labels), loss(*moved, labels))


def _ignores_shifts(loss: Callable) -> bool:
    return _shifted(loss, (2,))


def _moved_together(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    both = _shift((*labels.shape, 1))
    return near(
        loss(student, teacher, labels), loss(student + both, teacher + both, labels)
    )


def _scaled(loss: Callable) -> bool:
    student, teacher, labels = make_batch(LENGTHS)
    return near(loss(student, teacher, labels), loss(2 * student, 2 * teacher, labels))


def _standardised(student, teacher, labels) -> Tensor:
    """The KL of logits that were brought to mean 0 and variance 1 at each token."""
    s, t = (
        (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
        for x in (student, teacher)
    )
    return mean_kl(s, t, labels)


def _raw_student(student, teacher, labels) -> Tensor:
    """kl_div with logits as its input."""
    real = real_tokens(labels)
    return F.kl_div(student[real], teacher[real].softmax(-1), reduction="batchmean")


def _raw_teacher(student, teacher, labels) -> Tensor:
    """exp of the teacher's logits, taken for probabilities."""
    real = real_tokens(labels)
    p, log_q = teacher[real].exp(), student[real].log_softmax(-1)
    return (p * (teacher[real] - log_q)).sum(-1).mean()


ignores_shifts = PropertyTest(
    name="ex04.ignores_shifts",
    call="ignores_shifts(loss)",
    reference=_ignores_shifts,
    cases=lambda: line_up(
        this_package_s_loss=of_package,
        kl_div_by_the_book=by_kl_div,
        the_same_in_float64=in_float64,
        reverse_KL=other_divergence("reverse_kl"),
        total_variation=other_divergence("total_variation"),
        MSE_of_centred_logits=centred_mse,
        KL_of_standardised_logits=_standardised,
        a_loss_that_is_always_0=nothing,
        cross_entropy=museum.cross_entropy_as_kl,
        kl_div_with_probabilities_as_input=museum.softmax_for_log_softmax,
        pads_averaged_in=museum.pads_averaged_in,
        mean_over_the_vocabulary=museum.mean_over_vocabulary,
        softmax_over_time=softmax_over(1),
        softmax_over_the_batch=softmax_over(0),
        raw_logits_as_kl_div_s_input=_raw_student,
        exp_of_the_teacher_s_raw_logits=_raw_teacher,
        MSE_of_the_logits=raw_mse,
    ),
    difficulty=3,
    minutes=8,
    hints=(
        "A softmax over the vocabulary forgets a constant that is added to all V "
        "logits of a token. Which softmax would not forget it?",
        "One constant for the whole batch is forgotten by every softmax. Draw another "
        "one for each token: a tensor of shape (B, L, 1), and one more for the "
        "teacher.",
        "c = torch.randn(B, L, 1), made with a generator of its own, added to the "
        "student; d to the teacher. Compare the losses with rtol=1e-4; keep the "
        "constants small, for 1.5 + 10000 has lost its digits.",
    ),
    misconceptions=(
        Misconception(
            "nothing is moved",
            "Your test lets every loss through, even one of raw logits. Do the logits "
            "of the second call really differ from those of the first?",
            acquits,
        ),
        Misconception(
            "every loss blamed",
            "Your test blames every loss, even one that is always 0. Look at what it "
            "does at its end: it never reaches True.",
            blames,
        ),
        answers_exchanged(_ignores_shifts),
        Misconception(
            "one constant for all",
            "You added one constant to the whole batch. Every softmax forgets that, "
            "along whichever axis it runs. Give each token a constant of its own.",
            partial(_shifted, ones=(0, 1, 2)),
        ),
        Misconception(
            "one constant a sentence",
            "All tokens of a sentence got the same constant, so a softmax that runs "
            "along the sentence forgets it as well. Give each token its own.",
            partial(_shifted, ones=(1, 2)),
        ),
        Misconception(
            "one constant a position",
            "The tokens at one position of all sentences got the same constant, so a "
            "softmax that runs over the batch forgets it as well. Give each token its "
            "own, in a batch of two sentences or more.",
            partial(_shifted, ones=(0, 2)),
        ),
        Misconception(
            "constants over the vocabulary",
            "Your constants differ between the entries of the vocabulary: that changes "
            "the distributions, and right losses are blamed. Within one token all V "
            "logits get the same.",
            partial(_shifted, ones=(0, 1)),
            partial(_shifted, ones=(0,)),
            partial(_shifted, ones=(1,)),
            partial(_shifted, ones=()),
        ),
        Misconception(
            "scaled",
            "You multiplied the logits. That is a temperature: the distributions "
            "change, and a right loss with them. Add.",
            _scaled,
        ),
        Misconception(
            "moved together",
            "Student and teacher got the same constants, so a loss that only looks at "
            "the difference of their logits does not notice. Each needs its own.",
            _moved_together,
        ),
        Misconception(
            "one side only",
            "Only one of student and teacher was moved. The other one's softmax may be "
            "missing or run along another axis, and you would not see it.",
            partial(_shifted, ones=(2,), teachers=False),
            partial(_shifted, ones=(2,), students=False),
        ),
        too_tight(
            partial(_shifted, ones=(2,), near=exactly),
            more=" The larger a constant, the fewer digits are left for the logit.",
        ),
        Misconception(
            "too loose",
            "Your tolerance swallows the mistake. Measure a difference against the "
            "numbers that are compared: one part in 10,000 is enough for rounding.",
            partial(
                _shifted, ones=(2,), near=lambda a, b: abs(a - b) < 1 + 0.5 * abs(a)
            ),
        ),
    ),
)

# --------------------------------------------------------------------------- 6. adds_up

Batches = list[tuple[Tensor, Tensor, Tensor]]


def _one_by_one(batch: tuple) -> Batches:
    """A batch as micro-batches of one sentence."""
    return list(zip(*(x.split(1) for x in batch), strict=True))


def _cut(lengths: tuple, step: Callable, near: Callable = near) -> bool:
    batch = make_batch(lengths)
    return near(step([batch]), step(_one_by_one(batch)))


def _adds_up(step: Callable) -> bool:
    batch = make_batch((6, 4, 1))
    first, rest = [x[:1] for x in batch], [x[1:] for x in batch]
    whole = step([batch])
    return near(whole, step(_one_by_one(batch))) and near(whole, step([first, rest]))


def _sums_up(of: Callable, over: Callable) -> Callable:
    """A step: what the micro-batches give, added up, over what they count."""
    return lambda batches: sum(of(*b) for b in batches) / sum(over(*b) for b in batches)


def _summed(student, teacher, labels) -> Tensor:
    return kl(student, teacher)[real_tokens(labels)].sum()


def _tokens(student, teacher, labels) -> int:
    return count_tokens(labels)


def _through_package(batches: Batches) -> Tensor:
    tokens = sum(_tokens(*batch) for batch in batches)
    return sum(
        distillation_loss(s, t, labels=y, normalizer=tokens) for s, t, y in batches
    )


def _mean_of_means(batches: Batches) -> Tensor:
    return sum(mean_kl(*batch) for batch in batches) / len(batches)


def _weighted_by_sentences(batches: Batches) -> Tensor:
    sentences = sum(len(y) for _, _, y in batches)
    return sum(mean_kl(s, t, y) * len(y) for s, t, y in batches) / sentences


def _sum_of_means(batches: Batches) -> Tensor:
    return sum(mean_kl(*batch) for batch in batches)


def _last_one_returned(batches: Batches) -> Tensor:
    return mean_kl(*batches[-1])


def _tokens_of_the_first(batches: Batches) -> Tensor:
    return sum(_summed(*b) for b in batches) / _tokens(*batches[0])


def _divided_by_parts_too(batches: Batches) -> Tensor:
    return _through_package(batches) / len(batches)


def _small_error(batches: Batches) -> Tensor:
    """Divided by V and by the tokens squared, and then the mean of the parts."""
    tokens = sum(_tokens(*batch) for batch in batches)
    size = batches[0][0].shape[-1]
    return _mean_of_means(batches) / (tokens * size)


def _each_alone(step: Callable, join: Callable) -> bool:
    batch = make_batch((6, 4, 1))
    parts = [step([part]) for part in _one_by_one(batch)]
    return near(step([batch]), join(parts))


def _reordered(step: Callable) -> bool:
    batches = _one_by_one(make_batch((6, 4, 1)))
    return near(step(batches), step(batches[::-1]))


def _own_step(step: Callable) -> bool:
    batches = _one_by_one(make_batch((6, 4, 1)))
    return near(step(batches), _through_package(batches))


adds_up = PropertyTest(
    name="ex04.adds_up",
    call="adds_up(step)",
    reference=_adds_up,
    cases=lambda: line_up(
        "step",
        this_package_s_loss_with_its_normalizer=_through_package,
        sum_over_tokens=_sums_up(_summed, _tokens),
        the_same_in_float64=_sums_up(
            lambda s, t, y: _summed(s.double(), t.double(), y), _tokens
        ),
        each_part_s_tokens_and_a_trifle=_sums_up(
            lambda s, t, y: _summed(s.double(), t.double(), y),
            lambda s, t, y: count_tokens(y) + 3e-6,
        ),
        not_divided_at_all=lambda batches: sum(_summed(*batch) for batch in batches),
        divided_by_the_sentences=_sums_up(_summed, lambda s, t, y: len(y)),
        pads_averaged_in=_sums_up(
            lambda s, t, y: kl(s, t).sum(), lambda s, t, y: y.numel()
        ),
        mean_over_the_vocabulary=_sums_up(
            _summed, lambda s, t, y: count_tokens(y) * s.shape[-1]
        ),
        always_0=lambda batches: sum(s[..., :0].sum() for s, _, _ in batches),
        mean_of_the_parts_means=_mean_of_means,
        means_weighted_by_sentences=_weighted_by_sentences,
        sum_of_the_parts_means=_sum_of_means,
        the_last_part_s_mean=_last_one_returned,
        the_tokens_of_the_first_part=_tokens_of_the_first,
        divided_by_the_parts_once_more=_divided_by_parts_too,
        mean_of_means_and_very_small=_small_error,
    ),
    difficulty=3,
    minutes=8,
    hints=(
        "The same sentences, once as one batch and once as several: step must not "
        "notice. step([batch]) is the whole; how do you cut it?",
        "A mean of means is right where all parts have the same number of tokens. "
        "Take sentences of different lengths.",
        "x[:1] and x[1:] of each of the three tensors are two parts; put them into one "
        "list and call step once with it. Compare with rtol=1e-4.",
    ),
    misconceptions=(
        Misconception(
            "nothing is cut",
            "Your test lets every step through. Does one of its calls get a list of "
            "more than one micro-batch, and the other the same sentences as one?",
            acquits,
        ),
        Misconception(
            "every step blamed",
            "Your test blames every step, even one that always gives 0. Look at what "
            "it does at its end: it never reaches True.",
            blames,
        ),
        answers_exchanged(_adds_up),
        Misconception(
            "parts of equal weight",
            "Your parts hold the same number of tokens, and then the mean of the means "
            "is the mean: the mistake cannot show. Take sentences of different "
            "lengths.",
            partial(_cut, (4, 4)),
            partial(_cut, (4, 4, 4)),
        ),
        Misconception(
            "as many sentences as tokens",
            "Your two parts differ in tokens only as they differ in sentences, so a "
            "step that weighs means by sentences passes. Let sentences differ in "
            "length, too.",
            lambda step: near(
                step([make_batch((4, 4, 4))]),
                step(
                    [
                        [x[:1] for x in make_batch((4, 4, 4))],
                        [x[1:] for x in make_batch((4, 4, 4))],
                    ]
                ),
            ),  # fmt: skip
        ),
        Misconception(
            "parts stepped apart",
            "You call step once for each part, and join the results yourself. A step "
            "with one part cannot know the others' tokens: hand it all parts in one "
            "list.",
            partial(_each_alone, join=sum),
            partial(_each_alone, join=lambda parts: sum(parts) / len(parts)),
        ),
        Misconception(
            "only the order changes",
            "Both calls get the same parts in another order. A mean of means does not "
            "mind that: compare with the whole batch as one part.",
            _reordered,
        ),
        Misconception(
            "another loss expected",
            "Your test compares step with a loss of your own. That tells whether the "
            "two are the same, and blames every mistake that has nothing to do with "
            "cutting. Ask step twice, and compare it with itself.",
            _own_step,
        ),
        too_tight(partial(_cut, (6, 4, 1), near=exactly)),
        too_loose(
            partial(_cut, (6, 4, 1), near=within(0.5)),
            partial(_cut, (6, 4, 1), near=within(0.05)),
        ),
    ),
)
