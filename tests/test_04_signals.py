"""The teacher's answer as a value: what is kept, what is bounded, what it costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.divergences import FROM_LOG_PROBS
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
