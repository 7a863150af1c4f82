"""The teacher's answer as a value: what is kept, what is bounded, what it costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.divergences import FROM_LOG_PROBS
from kdcourse.theory.losses import distillation_loss
from kdcourse.theory.signals import Dense, TopK, log_softmax, to_dense, top_k

SIZE = 9
seeds = st.integers(0, 10_000)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def pair(seed, scale=3.0, shape=(4, SIZE)):
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(shape, generator=generator) * scale for _ in range(2))
    return tuple(row.double() for row in rows)


def divergence(name, student, signal):
    log_p, log_q = signal.log_distributions(log_softmax(student), 1.0)
    return FROM_LOG_PROBS[name](log_p, log_q)


@pytest.mark.parametrize("name", sorted(FROM_LOG_PROBS))
@quick
@given(seed=seeds, scale=st.sampled_from([0.3, 3.0, 12.0]))
def test_the_bucket_bounds_every_divergence_from_below(name, seed, scale):
    student, teacher = pair(seed, scale)
    full = divergence(name, student, Dense(teacher))
    values = [divergence(name, student, top_k(teacher, k)) for k in range(1, SIZE + 1)]
    for small, large in zip(values, values[1:], strict=False):
        assert (small <= large + 1e-9).all()  # splitting the bucket cannot lower it
    assert (values[0] >= -1e-9).all()
    torch.testing.assert_close(values[-1], full)


def test_the_bucket_is_the_formula_by_hand():
    """p = (.6, .2, .1, .1), q = (.4, .3, .2, .1), k = 2: r = .2, s = .3."""
    teacher, student = (
        torch.tensor([row], dtype=torch.float64).log()
        for row in ((0.6, 0.2, 0.1, 0.1), (0.4, 0.3, 0.2, 0.1))
    )
    expected = 0.6 * math.log(0.6 / 0.4) + 0.2 * math.log(0.2 / 0.3)
    expected += 0.2 * math.log(0.2 / 0.3)
    value = divergence("forward_kl", student, top_k(teacher, 2)).item()
    assert value == pytest.approx(expected, rel=1e-9)


def test_only_the_bucket_is_zero_and_at_rest_at_the_teacher():
    """Renormalised, the teacher itself would be told to change."""
    _, teacher = pair(1)
    for tail, quiet in (("bucket", True), ("renormalise", False)):
        at = teacher.clone().requires_grad_(True)
        value = divergence("forward_kl", at, top_k(teacher, 3, tail=tail)).sum()
        (gradient,) = torch.autograd.grad(value, at)
        assert (value.abs().item() < 1e-9) == quiet
        assert (gradient.abs().max().item() < 1e-9) == quiet


def test_tails_complete_the_distribution_as_they_say():
    _, teacher = pair(2)
    signal = top_k(teacher, 3)
    kept = signal.log_probs.exp()
    uniform = to_dense(signal, SIZE).logits.exp()
    torch.testing.assert_close(uniform.sum(-1), torch.ones(4).double())
    torch.testing.assert_close(uniform.gather(1, signal.indices), kept)
    assert (uniform.sort(dim=-1).values[:, : SIZE - 3].std(dim=-1) < 1e-12).all()
    closed = to_dense(signal, SIZE, "renormalise").logits.exp()
    torch.testing.assert_close(
        closed.gather(1, signal.indices), kept / kept.sum(-1, keepdim=True)
    )
    assert (closed > 0).sum() == 4 * 3
    with pytest.raises(BadArgument, match="tail is 'bucket'.*'uniform'"):
        signal.dense_log_probs(SIZE)


def test_everything_kept_loses_nothing():
    student, teacher = pair(3)
    for tail in ("bucket", "uniform", "renormalise"):
        at = student.clone().requires_grad_(True)
        value = divergence("forward_kl", at, top_k(teacher, SIZE, tail=tail)).sum()
        (gradient,) = torch.autograd.grad(value, at)
        expected = log_softmax(student).exp() - log_softmax(teacher).exp()
        torch.testing.assert_close(gradient, expected)


def test_a_student_that_cannot_say_the_rest_gets_no_nan():
    teacher = torch.tensor([[2.0, 1.0, -torch.inf, -torch.inf]])
    student = torch.tensor([[1.0, 1.0, -torch.inf, -torch.inf]]).requires_grad_(True)
    value = divergence("forward_kl", student, top_k(teacher, 2)).sum()
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()


def test_a_very_sure_student_is_summed_in_log_space():
    """Its others hold e^-300 of the mass, which float32 cannot hold itself."""
    student = torch.tensor([[300.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).requires_grad_(True)
    teacher = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    value = divergence("forward_kl", student, top_k(teacher, 1).rows(torch.arange(2)))
    p, rest = 1 / 3, 2 / 3
    others = -300.0 + math.log(2)
    expected = p * math.log(p) + rest * (math.log(rest) - others)
    kept = int(top_k(teacher, 1).indices[0])
    if kept != 0:
        expected = p * (math.log(p) + 300.0) + rest * math.log(rest)
    assert value[0].item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    full = student.detach().softmax(-1)
    assert torch.isfinite(gradient).all() and (gradient.sum(-1).abs() < 1e-5).all()
    assert gradient[0, kept].item() == pytest.approx(full[0, kept].item() - p, abs=1e-5)


def test_stored_small_and_read_back_close():
    _, teacher = pair(4, shape=(5, SIZE))
    signal = top_k(teacher.float(), 4)
    small = signal.compact()
    assert (small.indices.dtype, small.log_probs.dtype) == (torch.int16, torch.float16)
    assert small.bytes_per_token == 4 * (2 + 2) + 2
    assert Dense(teacher.float()).bytes_per_token == 4 * SIZE
    torch.testing.assert_close(small.missing, signal.missing, atol=4e-3, rtol=0)
    wide = TopK(signal.indices + 40_000, signal.log_probs).compact()
    assert wide.indices.dtype == torch.int32 and wide.bytes_per_token == 4 * (4 + 2)


def test_a_temperature_belongs_to_the_cache():
    student, teacher = pair(5)
    soft = top_k(teacher, 3, temperature=2.0)
    expected = (teacher / 2.0).softmax(-1).gather(1, soft.indices).log()
    torch.testing.assert_close(soft.log_probs, expected)
    soft.check(student, 2.0)
    with pytest.raises(BadArgument, match="temperature is 1.0 for answers cached at 2"):
        soft.check(student, 1.0)


def test_rows_are_numbered_in_the_flattened_shape():
    _, teacher = pair(6, shape=(2, 3, SIZE))
    index = torch.tensor([4, 0])
    flat = teacher.view(6, SIZE)[index]
    torch.testing.assert_close(Dense(teacher).rows(index).logits, flat)
    chosen = top_k(teacher, 2).rows(index)
    torch.testing.assert_close(chosen.log_probs, top_k(flat, 2).log_probs)
    assert top_k(teacher, 2).shape == Dense(teacher).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: top_k(torch.zeros(2, SIZE), 10), r"k is 10\. Wanted: .*1\.\.9"),
        (lambda: top_k(torch.zeros(2, SIZE), 2, temperature=0), "temperature is 0"),
        (
            lambda: top_k(torch.zeros(2, SIZE).long(), 2),
            "teacher_logits is a tensor of",
        ),
        (lambda: top_k([1.0], 1), "teacher_logits is a list"),
        (
            lambda: TopK(torch.zeros(2, 3), torch.zeros(2, 3)),
            "indices is of torch.float",
        ),
        (
            lambda: TopK(torch.zeros(2, 3).long(), torch.zeros(2, 4)),
            r"log_probs is of shape \(2, 4\)\. Wanted: \(2, 3\)",
        ),
        (
            lambda: TopK(torch.zeros(2, 3).long(), torch.zeros(2, 3), "drop"),
            "tail is 'drop'. Wanted: one of bucket, uniform, renormalise",
        ),
        (
            lambda: Dense(torch.zeros(2, 3)).check(torch.zeros(2, 4), 1.0),
            r"teacher_logits is of shape \(2, 3\)\. Wanted: \(2, 4\)",
        ),
        (
            lambda: top_k(torch.zeros(2, 3), 2).check(torch.zeros(4, 3), 1.0),
            r"signal is answers to \(2,\) tokens\. Wanted: \(4,\)",
        ),
        (
            lambda: top_k(torch.zeros(2, 9), 5).check(torch.zeros(2, 4), 1.0),
            r"k is 5\. Wanted: .*1\.\.4",
        ),
    ],
)
def test_wrong_signals_are_explained(make, words):
    with pytest.raises(BadArgument, match=words):
        make()


# ------------------------------------------------- what only the numbers of a cache say

STUDENT, TEACHER = (x.float() for x in pair(7, scale=1.0))
KEPT = top_k(TEACHER, 3)


def scored(tail="bucket", **changed):
    """The loss against a cache of which some parts were changed."""
    parts = {"indices": KEPT.indices, "log_probs": KEPT.log_probs, "tail": tail}
    signal = TopK(**{**parts, "log_rest": KEPT.log_rest, **changed})
    return distillation_loss(STUDENT, signal)


@pytest.mark.parametrize("tail", ["bucket", "uniform", "renormalise"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"log_probs": KEPT.log_probs.exp()}, "log_probs is of the mass"),
        ({"log_probs": TEACHER[:, :3] + 9}, "log_probs is of the mass"),
        (
            {"log_probs": KEPT.log_probs * 0},
            "log_probs is of the mass 3, with log_rest",
        ),
        (
            {"log_probs": KEPT.log_probs * 0, "log_rest": None},
            "log_probs is .* mass 3,",
        ),
        ({"log_probs": KEPT.log_probs * math.nan}, "log_probs is nan at"),
        ({"log_probs": KEPT.log_probs + math.inf}, "log_probs is inf at"),
        (
            {"log_probs": KEPT.log_probs - math.inf, "log_rest": None},
            "log_probs is -inf everywhere",
        ),
        (
            {"log_rest": KEPT.log_rest.exp()},
            "log_probs is of the mass .* with log_rest",
        ),
        ({"log_rest": KEPT.log_rest - math.inf}, "log_probs is .* with log_rest"),
        ({"log_rest": KEPT.log_rest + math.inf}, "log_probs is .* with log_rest"),
        ({"log_rest": KEPT.log_rest * math.nan}, "log_rest is nan"),
        ({"log_rest": KEPT.log_rest.tolist()}, "log_rest is of list"),
        ({"log_rest": KEPT.log_rest > 0}, "log_rest is of torch.bool"),
        ({"log_rest": KEPT.log_rest[:, None]}, r"log_rest is of shape \(4, 1\)"),
        ({"log_rest": KEPT.log_rest.to("meta")}, "log_rest is on meta"),
        ({"indices": KEPT.indices * 0, "log_rest": None}, "indices is one id twice"),
        ({"indices": KEPT.indices - SIZE}, "indices is -.* Wanted: ids in 0..8"),
        ({"indices": KEPT.indices + SIZE}, "indices is .* Wanted: ids in 0..8"),
    ],
)
def test_a_cache_that_is_no_distribution_is_explained(tail, changed, words):
    with pytest.raises(BadArgument, match=words):
        scored(tail, **changed)


@pytest.mark.parametrize("tail", ["bucket", "uniform", "renormalise"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cache_of_any_precision_is_a_distribution(tail, kind):
    """Also a flat one over a large vocabulary, whose rounding all goes one way."""
    low = scored(tail, log_probs=KEPT.log_probs.to(kind))
    assert low.item() == pytest.approx(scored(tail).item(), abs=0.02)
    flat = top_k(torch.zeros(1, 60_000), 60_000)
    distillation_loss(
        torch.zeros(1, 60_000), TopK(flat.indices, flat.log_probs.to(kind), tail)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: top_k(TEACHER * math.nan, 2), "teacher_logits is nan at"),
        (lambda: top_k(TEACHER + math.inf, 2), "teacher_logits is inf at"),
        (lambda: top_k(TEACHER - math.inf, 2), "teacher_logits is -inf everywhere"),
        (lambda: top_k(TEACHER, 2, temperature=1e-300), "temperature is 1e-300"),
        (lambda: top_k(TEACHER, 2, tail=["bucket"]), "tail is \\['bucket'\\]"),
        (lambda: top_k(TEACHER.to("meta"), 2), "teacher_logits is on meta"),
        (lambda: to_dense(Dense(TEACHER), SIZE), "signal is a Dense. Wanted: a TopK"),
        (lambda: to_dense(KEPT, "9"), "size is '9'. Wanted: a whole number from 1"),
        (lambda: to_dense(KEPT, 9.0), "size is 9.0"),
        (lambda: to_dense(KEPT, 0), "size is 0"),
        (
            lambda: to_dense(KEPT, 3),
            r"indices is . among others. Wanted: ids in 0\.\.2",
        ),
        (lambda: to_dense(KEPT, SIZE, "bucket"), "tail is 'bucket'"),
        (lambda: KEPT.rows([0]), "index is of list"),
        (lambda: KEPT.rows(torch.tensor([0.5])), "index is of torch.float32"),
        (lambda: KEPT.rows(torch.tensor([4])), r"index is \[4\]. Wanted: .* 0\.\.3"),
        (lambda: Dense(TEACHER).rows(torch.tensor([-1])), r"index is \[-1\]"),
        (lambda: Dense(TEACHER).check([0.0], 1.0), "student_logits is a list"),
        (lambda: KEPT.check(None, 1.0), "student_logits is a NoneType"),
        (lambda: log_softmax([1.0]), "logits is a list"),
        (lambda: log_softmax(TEACHER, 0.0), "temperature is 0.0"),
        (lambda: log_softmax(TEACHER * math.nan), "logits is nan"),
    ],
)
def test_wrong_use_of_a_signal_is_explained(make, words):
    with pytest.raises(BadArgument, match=words):
        make()
