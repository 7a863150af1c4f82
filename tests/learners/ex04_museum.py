"""Property tests of the bug museum as learners write them, right ones and wrong ones.

Each is written without the package's own tests in view: other batches, other seeds,
other ways to compare.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdcourse.study.lineup import EOS, gradient, make_batch
from kdcourse.theory.divergences import forward_kl, generalised_js, reverse_kl

from .register import mutant, mutants, right


def always(*_):
    return True


def never(*_):
    return False


def close(a, b):
    return torch.allclose(a, b, rtol=1e-3)


def vacuous(name, acquits, blames):
    """The two tests that do not look at the loss at all."""
    mutant(name, acquits)(always)
    mutant(name, blames)(never)


def opposite(name, function):
    mutant(name, "answers exchanged")(lambda loss: not function(loss))


def hand_made_batch(vocabulary=6):
    """A batch that somebody typed: three sentences, two with pads."""
    generator = torch.Generator().manual_seed(42)
    labels = torch.tensor([[4, 3, 2, 1], [2, 1, -100, -100], [5, 3, 1, -100]])
    size = (*labels.shape, vocabulary)
    student = torch.randn(size, generator=generator)
    teacher = 2 * torch.randn(size, generator=generator)
    return student, teacher, labels


def mean_kl(student, teacher, labels):
    mask = labels != -100
    p, q = teacher[mask].softmax(-1), student[mask].softmax(-1)
    return (p * (p / q).log()).sum(-1).mean()


# ----------------------------------------------------------- ignores_impossible_tokens


def impossible_by_cat(loss):
    s, t, y = make_batch((4, 2, 3), vocabulary=20, seed=8)
    extra = torch.full((3, 4, 5), -3e4)
    wider = loss(torch.cat([s, extra], -1), torch.cat([t, extra], -1), y)
    return abs(loss(s, t, y).item() - wider.item()) <= 1e-4 * abs(wider.item())


def impossible_by_hand(loss):
    s, t, y = hand_made_batch()
    a = loss(s, t, y)
    for n in (1, 6):
        b = loss(F.pad(s, (0, n), value=-5e3), F.pad(t, (0, n), value=-5e3), y)
        if not close(a, b):
            return False
    return True


NAME = "ex04.ignores_impossible_tokens"
right(NAME, impossible_by_cat, impossible_by_hand)
vacuous(NAME, "nothing is added", "every loss blamed")
opposite(NAME, impossible_by_cat)


@mutant(NAME, "one direction only")
def _(loss):
    s, t, y = hand_made_batch()
    wider = [F.pad(x, (0, 5), value=-2e4) for x in (s, t)]
    return loss(*wider, y).item() <= loss(s, t, y).item() + 1e-7


def with_columns(value, n=2):
    def test(loss):
        s, t, y = hand_made_batch()
        column = torch.full((3, 4, n), float(value))
        return close(
            loss(s, t, y), loss(torch.cat([s, column], 2), torch.cat([t, column], 2), y)
        )

    return test


mutants(
    NAME, possible_tokens_added=with_columns(0), minus_infinity=with_columns("-inf")
)
mutant(NAME, "possible tokens added")(with_columns(-2, n=5))


@mutant(NAME, "nothing is added")
def _(loss):
    s, t, y = make_batch((4, 4))
    return torch.isclose(loss(s, t, y), loss(s.clone(), t.clone(), y))


@mutant(NAME, "another axis")
def _(loss):
    s, t, y = hand_made_batch()
    rows = torch.full((3, 2, s.shape[-1]), -1e4)
    longer = torch.cat([y, torch.full((3, 2), -100)], 1)
    return close(
        loss(s, t, y), loss(torch.cat([s, rows], 1), torch.cat([t, rows], 1), longer)
    )


@mutant(NAME, "one side only")
def _(loss):
    s, t, y = hand_made_batch()
    return close(loss(s, t, y), loss(F.pad(s, (0, 3), value=-1e4), t, y))


@mutant(NAME, "one side only")
def _(loss):
    s, t, y = make_batch((5, 5))
    return close(loss(s, t, y), loss(s, F.pad(t, (0, 1), value=-1e4), y))


@mutant(NAME, "another loss expected")
def _(loss):
    s, t, y = make_batch((5, 3), vocabulary=30)
    return abs(loss(s, t, y) - mean_kl(s, t, y)).item() < 1e-4


@mutant(NAME, "too tight")
def _(loss):
    s, t, y = make_batch((5, 3))
    wide = [F.pad(x, (0, 3), value=-1e4) for x in (s, t)]
    return loss(s, t, y).item() == loss(*wide, y).item()


@mutant(NAME, "too tight")
def _(loss):
    s, t, y = make_batch((6, 2), seed=4)
    wide = [F.pad(x, (0, 9), value=-1e4) for x in (s, t)]
    return torch.equal(loss(s, t, y), loss(*wide, y))


@mutant(NAME, "too loose")
def _(loss):
    s, t, y = make_batch((5, 3))
    wide = [F.pad(x, (0, 3), value=-1e4) for x in (s, t)]
    return abs(loss(s, t, y) - loss(*wide, y)) < 0.02


@mutant(NAME, "too loose")
def _(loss):
    s, t, y = make_batch((3, 2, 2), seed=1)
    wide = [F.pad(x, (0, 1), value=-1e4) for x in (s, t)]
    return torch.allclose(loss(s, t, y), loss(*wide, y), atol=0.1)


# ------------------------------------------------------------------ ignores_repetition


def repetition_by_repeat(loss):
    """The sentence is said twice, pads in between: the tokens are the same."""
    s, t, y = make_batch((3, 5), seed=2)
    return close(
        loss(s, t, y), loss(s.repeat(1, 2, 1), t.repeat(1, 2, 1), y.repeat(1, 2))
    )


def repetition_by_index(loss):
    s, t, y = hand_made_batch()
    twice = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    a, b = loss(s, t, y), loss(s[:, twice], t[:, twice], y[:, twice])
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9)


NAME = "ex04.ignores_repetition"
right(NAME, repetition_by_repeat, repetition_by_index)
vacuous(NAME, "nothing is repeated", "every loss blamed")
opposite(NAME, repetition_by_index)


@mutant(NAME, "one direction only")
def _(loss):
    s, t, y = hand_made_batch()
    twice = [x.repeat_interleave(2, dim=1) for x in (s, t, y)]
    return float(loss(*twice)) <= 1.001 * float(loss(s, t, y))


@mutant(NAME, "nothing is repeated")
def _(loss):
    s, t, y = make_batch((4, 3))
    before = loss(s, t, y)
    for x in (s, t, y):
        x.repeat_interleave(2, dim=1)
    return close(before, loss(s, t, y))


@mutant(NAME, "sentences repeated")
def _(loss):
    s, t, y = make_batch((5, 2))
    return close(loss(s, t, y), loss(*(torch.cat([x, x]) for x in (s, t, y))))


@mutant(NAME, "labels left behind")
def _(loss):
    s, t, y = make_batch((4, 3))
    return close(loss(s, t, y), loss(s.repeat(1, 2, 1), t.repeat(1, 2, 1), y))


@mutant(NAME, "pads added")
def _(loss):
    s, t, y = hand_made_batch()
    noise = torch.zeros(3, 2, s.shape[-1])
    longer = torch.cat([y, torch.full((3, 2), -100)], 1)
    return close(
        loss(s, t, y), loss(torch.cat([s, noise], 1), torch.cat([t, noise], 1), longer)
    )


@mutant(NAME, "twice as much expected")
def _(loss):
    batch = make_batch((4, 4))
    double = [x.repeat_interleave(2, 1) for x in batch]
    return close(2 * loss(*batch), loss(*double))


@mutant(NAME, "other tokens")
def _(loss):
    return close(loss(*make_batch((4, 2))), loss(*make_batch((8, 4), seed=1)))


@mutant(NAME, "another loss expected")
def _(loss):
    s, t, y = make_batch((6, 3))
    double = [x.repeat_interleave(2, 1) for x in (s, t, y)]
    return abs(loss(*double) - mean_kl(s, t, y)).item() < 1e-4


@mutant(NAME, "too tight")
def _(loss):
    batch = make_batch((6, 3))
    return bool(loss(*batch) == loss(*(x.repeat_interleave(2, 1) for x in batch)))


@mutant(NAME, "too loose")
def _(loss):
    batch = make_batch((6, 3))
    change = loss(*batch) - loss(*(x.repeat_interleave(2, 1) for x in batch))
    return change.abs().item() < 0.15


# ------------------------------------------------------------------- leaves_pads_alone


def pads_by_autograd(loss):
    s, t, y = hand_made_batch()
    s.requires_grad_(True)
    loss(s, t, y).backward()
    return s.grad is None or not s.grad[y == -100].any()


def pads_by_loop(loss):
    s, t, y = make_batch((2, 6, 1), seed=3)
    g = gradient(loss, s, t, y)
    for b in range(3):
        for i in range(6):
            if y[b, i] == -100 and g[b, i].abs().max() > 1e-6:
                return False
    return True


NAME = "ex04.leaves_pads_alone"
right(NAME, pads_by_autograd, pads_by_loop)
vacuous(NAME, "no pads in the batch", "every loss blamed")
opposite(NAME, pads_by_loop)


@mutant(NAME, "no pads in the batch")
def _(loss):
    s, t, y = make_batch((4, 4))
    return (gradient(loss, s, t, y)[y == -100] == 0).all()


@mutant(NAME, "no pads in the batch")
def _(loss):
    s, t, y = make_batch((4, 2))
    return bool((gradient(loss, s, t, y)[y == 0] == 0).all())


@mutant(NAME, "real tokens looked at")
def _(loss):
    s, t, y = hand_made_batch()
    return bool((gradient(loss, s, t, y)[y != -100] == 0).all())


@mutant(NAME, "gradients cancel")
def _(loss):
    s, t, y = hand_made_batch()
    return abs(gradient(loss, s, t, y)[y == -100].sum().item()) < 1e-6


@mutant(NAME, "gradients cancel")
def _(loss):
    s, t, y = make_batch((5, 2))
    per_pad = gradient(loss, s, t, y)[y == -100].mean(-1)
    return torch.allclose(per_pad, torch.zeros(3), atol=1e-6)


@mutant(NAME, "value, not gradient")
def _(loss):
    s, t, y = hand_made_batch()
    loud = torch.where((y == -100)[..., None], 5 - s, s)
    return close(loss(s, t, y), loss(loud, t, y))


@mutant(NAME, "value, not gradient")
def _(loss):
    s, t, y = hand_made_batch()
    noise = make_batch((4, 4, 4), vocabulary=6, seed=9)[0]
    longer = [torch.cat([x, noise.roll(i, 1)], 1) for i, x in enumerate((s, t))]
    return close(loss(s, t, y), loss(*longer, F.pad(y, (0, 4), value=-100)))


@mutant(NAME, "one pad only")
def _(loss):
    s, t, y = make_batch((6, 3))
    return bool((gradient(loss, s, t, y)[1, -1] == 0).all())


@mutant(NAME, "small is not zero")
def _(loss):
    s, t, y = make_batch((5, 3))
    return torch.allclose(gradient(loss, s, t, y)[y == -100], torch.zeros(1), atol=1e-3)


# --------------------------------------------------------------------- is_a_divergence


def divergence_by_seeds(loss):
    for seed in range(6):
        s, t, y = make_batch((3, 2), seed=seed)
        if not math.isclose(loss(s, s, y), 0, abs_tol=1e-4):
            return False
        value = loss(s, t, y)
        if not (torch.isfinite(value) and value > 1e-5):
            return False
    return True


def divergence_on_two_points(loss):
    y = torch.tensor([[1]])
    a, b = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[2.0, -1.0]]])
    zero = torch.stack([loss(a, a, y), loss(b, b, y)])
    more = torch.stack([loss(a, b, y), loss(b, a, y)])
    return bool((zero.abs() < 1e-4).all() and (more > 1e-3).all())


NAME = "ex04.is_a_divergence"
right(NAME, divergence_by_seeds, divergence_on_two_points)
vacuous(NAME, "every loss acquitted", "every loss blamed")
opposite(NAME, divergence_on_two_points)


@mutant(NAME, "below zero at equality")
def _(loss):
    s, t, y = hand_made_batch()
    return bool(loss(s, s, y) < 1e-3 and loss(s, t, y) > 0 and loss(t, s, y) > 0)


def both_ways(loss):
    s, t, y = hand_made_batch()
    return loss(s, s, y).item(), loss(s, t, y).item(), loss(t, s, y).item()


@mutant(NAME, "every loss blamed")
def _(loss):
    zero, one, other = both_ways(loss)
    return abs(zero) < 1e-4 and abs(one) < 1e-4 and abs(other) < 1e-4 and one > 1


@mutant(NAME, "equality not asked")
def _(loss):
    return min(both_ways(loss)[1:]) > 1e-5


@mutant(NAME, "only equality asked")
def _(loss):
    s, t, y = make_batch((4, 3))
    return abs(loss(t, t, y)).item() < 1e-4


@mutant(NAME, "NaN slips through")
def _(loss):
    zero, one, other = both_ways(loss)
    if abs(zero) > 1e-3:
        return False
    if one < 0 or other < 0:
        return False
    return True


@mutant(NAME, "NaN slips through")
def _(loss):
    zero, one, other = both_ways(loss)
    return not (zero > 1e-3 or zero < -1e-3 or one < 1e-3 or other < 1e-3)


@mutant(NAME, "zero everywhere passes")
def _(loss):
    zero, one, other = both_ways(loss)
    return -1e-3 < zero < 1e-3 and one >= 0 and other >= 0


@mutant(NAME, "one pair only")
def _(loss):
    zero, one, other = both_ways(loss)
    return abs(zero) < 1e-3 and one > 1e-3


@mutant(NAME, "one pair only")
def _(loss):
    s, t, y = make_batch((3, 3), seed=5)
    return abs(loss(s, s, y)) < 1e-3 and loss(s, t, y) > 1e-3


@mutant(NAME, "symmetry asked")
def _(loss):
    zero, one, other = both_ways(loss)
    return abs(zero) < 1e-3 and one > 0 and math.isclose(one, other, rel_tol=1e-3)


@mutant(NAME, "another loss expected")
def _(loss):
    s, t, y = hand_made_batch()
    return abs(loss(s, t, y) - mean_kl(s, t, y)).item() < 1e-4


@mutant(NAME, "too tight")
def _(loss):
    zero, one, other = both_ways(loss)
    return zero >= 0 and zero < 1e-9 and one > 0 and other > 0


@mutant(NAME, "too loose")
def _(loss):
    zero, one, other = both_ways(loss)
    return round(zero, 1) == 0 and one > 0.01 and other > 0.01


# ---------------------------------------------------------------------- ignores_shifts


def shifts_by_mean(loss):
    """Each token's mean taken off: the most natural constant."""
    s, t, y = hand_made_batch()
    s = s + torch.arange(12.0).reshape(3, 4, 1) / 3
    centred = [x - x.mean(-1, keepdim=True) for x in (s, t)]
    return close(loss(s, t, y), loss(*centred, y))


def shifts_by_log_softmax(loss):
    s, t, y = make_batch((6, 3), seed=7)
    return close(loss(s, t, y), loss(s.log_softmax(-1), t.log_softmax(-1), y))


NAME = "ex04.ignores_shifts"
right(NAME, shifts_by_mean, shifts_by_log_softmax)
vacuous(NAME, "nothing is moved", "every loss blamed")
opposite(NAME, shifts_by_log_softmax)


def draw(*shape, seed=12):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(c, d):
    def test(loss):
        s, t, y = hand_made_batch()
        return close(loss(s, t, y), loss(s + c, t + d, y))

    return test


mutants(
    NAME,
    one_constant_for_all=moved(5.0, -3.0),
    one_constant_a_sentence=moved(draw(3, 1, 1), draw(3, 1, 1, seed=13)),
    one_constant_a_position=moved(draw(1, 4, 1), draw(1, 4, 1, seed=13)),
    constants_over_the_vocabulary=moved(draw(6), draw(6, seed=13)),
    moved_together=moved(draw(3, 4, 1), draw(3, 4, 1)),
    one_side_only=moved(draw(3, 4, 1), 0.0),
)
mutant(NAME, "one side only")(moved(0.0, draw(3, 4, 1)))
mutant(NAME, "constants over the vocabulary")(
    moved(draw(3, 4, 6), draw(3, 4, 6, seed=1))
)


@mutant(NAME, "nothing is moved")
def _(loss):
    s, t, y = make_batch((4, 2))
    c = torch.zeros(2, 4, 1)
    return close(loss(s, t, y), loss(s + c, t + c, y))


@mutant(NAME, "scaled")
def _(loss):
    s, t, y = hand_made_batch()
    return close(loss(s, t, y), loss(3 * s, 3 * t, y))


@mutant(NAME, "too tight")
def _(loss):
    s, t, y = make_batch((5, 4))
    c, d = draw(2, 5, 1), draw(2, 5, 1, seed=4)
    return torch.equal(loss(s, t, y), loss(s + c, t + d, y))


@mutant(NAME, "too loose")
def _(loss):
    s, t, y = make_batch((5, 3))
    c = 3 * torch.randn((2, 5, 1), generator=torch.Generator().manual_seed(5))
    d = 3 * torch.randn((2, 5, 1), generator=torch.Generator().manual_seed(6))
    a, b = loss(s, t, y), loss(s + c, t + d, y)
    return abs(a - b) < 1 + 0.5 * abs(a)


# ----------------------------------------------------------------------------- adds_up


def cut(*lengths, sizes, seed=0):
    """A batch, and the same in parts of these numbers of sentences."""
    batch = make_batch(lengths, seed=seed)
    parts = [list(part) for part in zip(*(x.split(sizes) for x in batch), strict=True)]
    return batch, parts


def adds_up_unevenly(step):
    batch, parts = cut(2, 7, 3, 1, sizes=[1, 3], seed=4)
    return close(step([batch]), step(parts))


def adds_up_in_many_ways(step):
    results = []
    for sizes in ([4], [1, 3], [2, 2], [3, 1], [1, 1, 1, 1]):
        results.append(step(cut(8, 1, 2, 5, sizes=sizes)[1]))
    return all(torch.isclose(results[0], x, rtol=1e-4) for x in results)


NAME = "ex04.adds_up"
right(NAME, adds_up_unevenly, adds_up_in_many_ways)
vacuous(NAME, "nothing is cut", "every step blamed")
opposite(NAME, adds_up_unevenly)


@mutant(NAME, "nothing is cut")
def _(step):
    batch = make_batch((5, 3))
    return close(step([batch]), step([[x.clone() for x in batch]]))


@mutant(NAME, "parts of equal weight")
def _(step):
    batch, parts = cut(3, 3, sizes=[1, 1])
    return close(step([batch]), step(parts))


@mutant(NAME, "parts of equal weight")
def _(step):
    batch, parts = cut(5, 2, 2, 5, sizes=[2, 2])
    return close(step([batch]), step(parts))


@mutant(NAME, "as many sentences as tokens")
def _(step):
    batch, parts = cut(5, 5, 5, 5, sizes=[3, 1])
    return close(step([batch]), step(parts))


@mutant(NAME, "parts stepped apart")
def _(step):
    batch, parts = cut(6, 4, 1, sizes=[1, 1, 1])
    return close(step([batch]), sum(step([part]) for part in parts))


@mutant(NAME, "parts stepped apart")
def _(step):
    batch, parts = cut(6, 2, sizes=[1, 1])
    return close(step([batch]), torch.stack([step([part]) for part in parts]).mean())


@mutant(NAME, "only the order changes")
def _(step):
    _, (first, second) = cut(6, 2, sizes=[1, 1])
    return close(step([first, second]), step([second, first]))


@mutant(NAME, "another loss expected")
def _(step):
    batch, parts = cut(6, 2, 1, sizes=[1, 2])
    return abs(step(parts) - mean_kl(*batch)).item() < 1e-4


@mutant(NAME, "too tight")
def _(step):
    batch, parts = cut(6, 4, 1, sizes=[1, 1, 1])
    return step([batch]).item() == step(parts).item()


@mutant(NAME, "too loose")
def _(step):
    batch, parts = cut(6, 2, sizes=[1, 1])
    return torch.allclose(step([batch]), step(parts), atol=0.1)


# ---------------------------------------------------------------------- learns_to_stop


def stops_by_last_token(loss):
    s, t, y = hand_made_batch()
    last = (y != -100).sum(1) - 1
    for pad in (0, 1, 5):
        g = gradient(loss, s, t, y, pad_token_id=pad)
        if g[torch.arange(3), last].abs().amax(-1).min() < 1e-6:
            return False
    return True


def stops_by_backward(loss):
    s, t, y = make_batch((6, 2, 6, 3), seed=11)
    s.requires_grad_(True)
    learned = []
    for pad in (EOS, 0):
        value = loss(s, t, y, pad_token_id=pad)
        if not value.requires_grad:
            return False
        s.grad = None
        value.backward()
        learned.append(s.grad[y == EOS].any(-1).all())
    return all(learned)


NAME = "ex04.learns_to_stop"
right(NAME, stops_by_last_token, stops_by_backward)
vacuous(NAME, "nothing is asked", "every loss blamed")
opposite(NAME, stops_by_backward)


@mutant(NAME, "pad and EOS always one")
def _(loss):
    s, t, y = hand_made_batch()
    g = gradient(loss, s, t, y, pad_token_id=1).norm(dim=-1)
    return g[y == 1].min().item() > 1e-6


@mutant(NAME, "every token asked")
def _(loss):
    s, t, y = hand_made_batch()
    pull = gradient(loss, s, t, y, pad_token_id=EOS)
    return not bool((pull[y >= 0].norm(dim=-1) < 1e-6).any())


@mutant(NAME, "last column")
def _(loss):
    s, t, y = hand_made_batch()
    pull = gradient(loss, s, t, y, pad_token_id=EOS)
    return bool((pull[..., EOS] != 0).all())  # its column of the vocabulary


def pull_of(loss, pad=EOS, lengths=(6, 3, 4)):
    s, t, y = make_batch(lengths, seed=2)
    return gradient(loss, s, t, y, pad_token_id=pad).abs().amax(-1), y


@mutant(NAME, "every loss blamed")
def _(loss):
    pull, y = pull_of(loss)
    return pull[y == EOS].sum() == 0 and pull.sum() > 0 and y[0, 0] == EOS


@mutant(NAME, "pad and EOS kept apart")
def _(loss):
    pull, y = pull_of(loss, pad=0)
    return bool((pull[y == EOS] > 0).all())


@mutant(NAME, "any token will do")
def _(loss):
    pull, _ = pull_of(loss)
    return pull.sum() > 0


@mutant(NAME, "one EOS is enough")
def _(loss):
    pull, y = pull_of(loss)
    return pull[y == EOS].sum().item() > 0


@mutant(NAME, "last column")
def _(loss):
    pull, _ = pull_of(loss)
    return pull[:, -1].min() > 0


@mutant(NAME, "one length")
def _(loss):
    pull, y = pull_of(loss, lengths=(5, 5, 5))
    return (pull[y == EOS] > 0).all()


@mutant(NAME, "one length")
def _(loss):
    pull, _ = pull_of(loss, lengths=(5,))
    return pull[0, 4].item() > 0


@mutant(NAME, "gradients cancel")
def _(loss):
    s, t, y = make_batch((6, 3, 4), seed=2)
    g = gradient(loss, s, t, y, pad_token_id=1).mean(-1)
    return bool((g[y == 1].abs() > 1e-6).all())


@mutant(NAME, "value, not gradient")
def _(loss):
    s, t, y = make_batch((6, 3, 4), seed=2)
    for row in range(3):
        flat = s.clone()
        flat[row, y[row] == EOS] = 0
        if close(loss(s, t, y, pad_token_id=EOS), loss(flat, t, y, pad_token_id=EOS)):
            return False
    return True


# --------------------------------------------------------------------- keeps_its_size


def norm_at(loss, temperature, batch=None):
    return gradient(loss, *(batch or hand_made_batch()), temperature=temperature).norm()


def size_by_ratio(loss):
    low, high = norm_at(loss, 100.0).item(), norm_at(loss, 1000.0).item()
    return high == low or 0.8 < high / max(low, 1e-12) < 1.25


def size_by_three(loss):
    batch = make_batch((4, 4, 2), seed=6)
    sizes = torch.stack([norm_at(loss, T, batch) for T in (30.0, 90.0, 270.0)])
    return bool(sizes.max() - sizes.min() <= 0.2 * sizes.max())


NAME = "ex04.keeps_its_size"
right(NAME, size_by_ratio, size_by_three)
vacuous(NAME, "temperature not changed", "every loss blamed")
opposite(NAME, size_by_three)


@mutant(NAME, "temperature not changed")
def _(loss):
    return close(norm_at(loss, 20.0), norm_at(loss, 20.0))


def ratio_of(loss, low=40.0, high=160.0):
    a, b = (norm_at(loss, T, make_batch((5, 3))).item() for T in (low, high))
    return 1.0 if a == b else b / a


@mutant(NAME, "not hot enough")
def _(loss):
    return abs(ratio_of(loss, 1.0, 40.0) - 1) < 0.1


@mutant(NAME, "value, not gradient")
def _(loss):
    batch = hand_made_batch()
    a, b = (loss(*batch, temperature=T).item() for T in (40.0, 160.0))
    return abs(a - b) <= 0.05 * abs(a)


@mutant(NAME, "only a fall is seen")
def _(loss):
    return norm_at(loss, 160.0) >= 0.9 * norm_at(loss, 40.0)


@mutant(NAME, "only a growth is seen")
def _(loss):
    return norm_at(loss, 160.0) <= 1.1 * norm_at(loss, 40.0)


@mutant(NAME, "T² in the test")
def _(loss):
    a, b = (T**2 * norm_at(loss, T).item() for T in (40.0, 160.0))
    return b > 0 and abs(a / b - 1) < 0.1


@mutant(NAME, "too tight")
def _(loss):
    return abs(ratio_of(loss) - 1) < 1e-4


@mutant(NAME, "too loose")
def _(loss):
    return 1 / 8 < ratio_of(loss) < 8


# ---------------------------------------------------------------------- stays_in_place


def place_by_other_teacher(loss):
    """Each token in turn gets the answer of another teacher."""
    s, t, y = hand_made_batch()
    other = make_batch((4, 4, 4), vocabulary=6, seed=21)[1]
    before = gradient(loss, s, t, y)
    for row in range(3):
        for i in range(int((y[row] != -100).sum())):
            here = torch.zeros_like(y, dtype=torch.bool)
            here[row, i] = True
            after = gradient(loss, s, torch.where(here[..., None], other, t), y)
            same = torch.isclose(before, after, rtol=1e-3, atol=1e-6).all(-1)
            if not same.equal(~here):
                return False
    return True


def place_by_spike(loss):
    s, t, y = make_batch((3, 5, 2), seed=2)
    before = gradient(loss, s, t, y)
    for place in zip(*torch.where(y != -100), strict=True):
        spiked = t.clone()
        spiked[(*place, 7)] += 6.0
        change = (gradient(loss, s, spiked, y) - before).abs().sum(-1)
        there = change[place].item()
        change[place] = 0
        if there < 1e-4 or change.max() > 1e-4:
            return False
    return True


NAME = "ex04.stays_in_place"
right(NAME, place_by_other_teacher, place_by_spike)
vacuous(NAME, "nothing is changed", "every loss blamed")
opposite(NAME, place_by_spike)


def spiked(loss, place, batch=None, side=1, by=None):
    """How much the gradient changes at each position."""
    logits = list(batch or make_batch((5, 3), seed=1))
    before = gradient(loss, *logits)
    logits[side] = logits[side].clone()
    logits[side][place] = logits[side][place].flip(0) if by is None else by
    return (gradient(loss, *logits) - before).abs().sum(-1)


def real_places(batch=None):
    y = (batch or make_batch((5, 3), seed=1))[2]
    return [(b, i) for b in range(len(y)) for i in range(y.shape[1]) if y[b, i] > 0]


def alone(change, place):
    return change[place] > 1e-4 and change.sum() - change[place] < 1e-4


@mutant(NAME, "nothing is changed")
def _(loss):
    s, t, y = make_batch((4, 3))
    spike = t  # no copy: both calls see the same numbers
    spike[0, 1, 2] += 9
    moved_to = gradient(loss, s, spike, y) - gradient(loss, s, t, y)
    return bool((moved_to.abs() < 1e-6).all())


@mutant(NAME, "every loss blamed")
def _(loss):
    s, t, y = make_batch((4, 3))
    before = gradient(loss, s, t, y)
    shifted = t.clone()
    shifted[0, 1] += 4.0  # a softmax forgets it
    after = gradient(loss, s, shifted, y)
    moved_at = (after - before).abs().sum(-1) > 1e-4
    return bool(moved_at[0, 1]) and int(moved_at.sum()) == 1


@mutant(NAME, "one token only")
def _(loss):
    return alone(spiked(loss, (0, 2)), (0, 2))


@mutant(NAME, "one token only")
def _(loss):
    return alone(spiked(loss, (0, 0)), (0, 0))


@mutant(NAME, "one token only")
def _(loss):
    return alone(spiked(loss, (0, 4)), (0, 4))


@mutant(NAME, "one sentence")
def _(loss):
    batch = make_batch((6,))
    return all(alone(spiked(loss, p, batch), p) for p in real_places(batch))


@mutant(NAME, "value, not gradient")
def _(loss):
    s, t, y = make_batch((5, 3), seed=1)
    for b, i in real_places():
        other = t.clone()
        other[b, i] = other[b, i].flip(0)
        if torch.isclose(loss(s, t, y), loss(s, other, y), rtol=1e-6):
            return False
    return True


@mutant(NAME, "elsewhere not looked at")
def _(loss):
    return all(spiked(loss, place)[place] > 1e-4 for place in real_places())


@mutant(NAME, "there not looked at")
def _(loss):
    for place in real_places():
        change = spiked(loss, place)
        change[place] = 0
        if change.any() and change.max() > 1e-4:
            return False
    return True


@mutant(NAME, "the student's own logits")
def _(loss):
    return all(alone(spiked(loss, place, side=0), place) for place in real_places())


@mutant(NAME, "pads asked too")
def _(loss):
    places = [(b, i) for b in range(2) for i in range(5)]
    return all(alone(spiked(loss, place), place) for place in places)


# ---------------------------------------------------------------------- knows_its_ends


def both_kl(batch):
    s, t, y = batch
    mask = y != -100
    pair = {"student_logits": s[mask], "teacher_logits": t[mask]}
    return forward_kl(**pair).mean().item(), reverse_kl(**pair).mean().item()


def quotients(loss, batch, small=1e-3):
    low = loss(*batch, beta=small).item() / small
    high = loss(*batch, beta=1 - small).item() / small
    return low, high


def ends_by_hand(loss):
    batch = hand_made_batch()
    pairs = zip(quotients(loss, batch), both_kl(batch), strict=True)
    return all(math.isclose(a, b, rel_tol=0.05) for a, b in pairs)


def ends_by_slope(loss):
    """The slope at an end is the KL there, since the loss is 0 at it."""
    s, t, y = make_batch((6, 2), seed=9)
    p, q = t[y > 0].softmax(-1), s[y > 0].softmax(-1)
    forward = (p * (p / q).log()).sum() / len(p)
    reverse = (q * (q / p).log()).sum() / len(q)
    low = loss(s, t, y, beta=0.001) * 1000
    high = loss(s, t, y, beta=0.999) * 1000
    return bool(abs(low / forward - 1) < 0.02 and abs(high / reverse - 1) < 0.02)


NAME = "ex04.knows_its_ends"
right(NAME, ends_by_hand, ends_by_slope)
vacuous(NAME, "every loss acquitted", "every loss blamed")
opposite(NAME, ends_by_hand)


def like(a, b, tolerance=0.05):
    return abs(a - b) < tolerance * b


@mutant(NAME, "every loss blamed")
def _(loss):
    batch = make_batch((5, 3))
    forward, reverse = both_kl(batch)
    low, high = (loss(*batch, beta=b).item() for b in (0.001, 0.999))
    return like(low, forward) and like(high, reverse)


@mutant(NAME, "every loss blamed")
def _(loss):
    batch = make_batch((5, 3))
    low, high = quotients(loss, batch)
    return all(
        math.isclose(*x, rel_tol=1e-7)
        for x in zip((low, high), both_kl(batch), strict=True)
    )


@mutant(NAME, "ends exchanged")
def _(loss):
    batch = hand_made_batch()
    forward, reverse = both_kl(batch)
    low, high = quotients(loss, batch)
    return like(low, reverse) and like(high, forward)


@mutant(NAME, "not divided")
def _(loss):
    batch = make_batch((6, 2), seed=9)
    forward, reverse = both_kl(batch)
    low, high = (loss(*batch, beta=b).item() for b in (0.001, 0.999))
    return like(low, reverse) and like(high, forward)


@mutant(NAME, "one end only")
def _(loss):
    batch = hand_made_batch()
    return like(quotients(loss, batch)[0], both_kl(batch)[0])


@mutant(NAME, "one end only")
def _(loss):
    batch = hand_made_batch()
    return like(quotients(loss, batch)[1], both_kl(batch)[1])


@mutant(NAME, "the middle")
def _(loss):
    s, t, y = hand_made_batch()
    wanted = generalised_js(student_logits=s, teacher_logits=t)[y != -100].mean()
    return torch.isclose(loss(s, t, y, beta=0.5), wanted, rtol=1e-3)


@mutant(NAME, "another loss expected")
def _(loss):
    s, t, y = hand_made_batch()
    for beta in (0.2, 0.6):
        wanted = generalised_js(student_logits=s, teacher_logits=t, beta=beta)
        if not torch.isclose(loss(s, t, y, beta=beta), wanted[y > 0].mean(), rtol=1e-3):
            return False
    return True


@mutant(NAME, "an example that cannot tell")
def _(loss):
    s = torch.tensor([[[1.0, 0.0, -1.0]]])
    batch = (s, s.flip(-1), torch.tensor([[1]]))
    low, high = quotients(loss, batch)
    return all(like(*x) for x in zip((low, high), both_kl(batch), strict=True))


@mutant(NAME, "more allowed than they differ")
def _(loss):
    batch = make_batch((5, 3))
    pairs = zip(quotients(loss, batch), both_kl(batch), strict=True)
    return all(like(*x, 0.55) for x in pairs)


# ------------------------------------------------------------------------ false_report

NAME = "ex04.false_report"
right(NAME, lambda: 4.0, lambda: [1, 2, 3, 4][-1])
for guilty in (1, 2, 3, 5, 6, 7, 8, 9, 10):
    mutant(NAME, f"exhibit {guilty}")(lambda number=guilty: number)
