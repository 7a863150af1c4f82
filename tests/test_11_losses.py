"""The losses against independent references, and their properties."""

import math

import pytest
import torch

from kdcourse.theory.losses import cross_entropy, top_k_divergence, word_level
from kdcourse.theory.signals import TopKSignal, top_k_signal

TOKENS, SIZE = 7, 11


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(3)
    shape = (TOKENS, SIZE)
    return (
        torch.randn(shape, generator=generator, dtype=torch.float32) * 2,
        torch.randn(shape, generator=generator, dtype=torch.float32) * 2,
        torch.randint(0, SIZE, (TOKENS,), generator=generator),
    )


def naive_kl(student, teacher):
    """KL(Pr^t || Pr^s), summed, with Python's own floats and no shared code."""
    total = 0.0
    for q_row, p_row in zip(student.tolist(), teacher.tolist(), strict=True):
        p_sum = sum(math.exp(v) for v in p_row)
        q_sum = sum(math.exp(v) for v in q_row)
        for p_v, q_v in zip(p_row, q_row, strict=True):
            p, q = math.exp(p_v) / p_sum, math.exp(q_v) / q_sum
            total += p * math.log(p / q)
    return total


def gradient(loss, at):
    at = at.clone().requires_grad_(True)
    (result,) = torch.autograd.grad(loss(at), at)
    return result


def test_cross_entropy_has_torchs_value_and_gradient(logits):
    student, _, labels = logits
    expected = torch.nn.functional.cross_entropy(student, labels, reduction="sum")
    assert cross_entropy(student, labels) == pytest.approx(expected.item(), rel=1e-5)
    ours = gradient(lambda z: cross_entropy(z, labels) / 3, student)
    theirs = gradient(
        lambda z: torch.nn.functional.cross_entropy(z, labels, reduction="sum") / 3,
        student,
    )
    torch.testing.assert_close(ours, theirs)


def test_cross_entropy_may_be_differentiated_twice_over_the_same_graph(logits):
    student, _, labels = logits
    z = student.clone().requires_grad_(True)
    loss = cross_entropy(z, labels)
    first = torch.autograd.grad(loss, z, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(first, second)  # the backward pass spends no state


def test_all_entries_kept_is_the_full_kl(logits):
    student, teacher, _ = logits
    signal = top_k_signal(teacher, SIZE)
    expected = naive_kl(student, teacher)
    assert top_k_divergence(student, signal).item() == pytest.approx(expected, rel=1e-4)


def test_fewer_entries_bound_the_kl_from_below_and_approach_it(logits):
    student, teacher, _ = logits
    full = naive_kl(student, teacher)
    values = [
        top_k_divergence(student, top_k_signal(teacher, k)).item()
        for k in range(1, SIZE + 1)
    ]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] <= full * 1.0001


def test_zero_at_equality_with_zero_gradient(logits):
    _, teacher, _ = logits
    for k in (1, 4, SIZE):
        signal = top_k_signal(teacher, k)
        assert top_k_divergence(teacher, signal).item() == pytest.approx(0, abs=1e-4)
        grad = gradient(lambda z, s=signal: top_k_divergence(z, s), teacher)
        assert grad.abs().max() < 1e-4


def test_missing_mass_is_not_renormalised(logits):
    """Renormalised targets would pull the student off its teacher at equality."""
    student, teacher, _ = logits
    signal = top_k_signal(teacher, 3)
    assert (signal.missing > 0.01).all()
    total = signal.log_probs.exp().sum(dim=1) + signal.missing
    torch.testing.assert_close(total, torch.ones(TOKENS))
    renormalised = TopKSignal(signal.indices, signal.log_probs.log_softmax(dim=-1))
    grad = gradient(lambda z: top_k_divergence(z, renormalised), teacher)
    assert grad.abs().max() > 1e-2


def test_direction_is_forward(logits):
    """Forward KL punishes a student that misses the teacher's second mode."""
    teacher = torch.tensor([[0.5, 0.5]]).log()
    student = torch.tensor([[0.9, 0.1]]).log()
    loss = top_k_divergence(student, top_k_signal(teacher, 2)).item()
    assert loss == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_sum_over_tokens_does_not_depend_on_the_split(logits):
    student, teacher, labels = logits
    signal = top_k_signal(teacher, 4)
    whole = word_level(student, signal, labels, alpha=0.3)
    parts = [
        word_level(
            student[rows],
            TopKSignal(signal.indices[rows], signal.log_probs[rows]),
            labels[rows],
            alpha=0.3,
        )
        for rows in (slice(0, 2), slice(2, TOKENS))
    ]
    torch.testing.assert_close(whole, sum(parts))


def test_alpha_mixes_hard_and_soft(logits):
    student, teacher, labels = logits
    signal = top_k_signal(teacher, 4)
    soft = top_k_divergence(student, signal)
    hard = cross_entropy(student, labels)
    mixed = word_level(student, signal, labels, alpha=0.25)
    torch.testing.assert_close(mixed, 0.75 * soft + 0.25 * hard)
    with pytest.raises(ValueError, match="alpha is 1.5"):
        word_level(student, signal, labels, alpha=1.5)


def test_low_precision_logits_are_computed_in_float32(logits):
    student, teacher, labels = logits
    signal = top_k_signal(teacher, 4)
    loss = word_level(student.bfloat16(), signal, labels, alpha=0.5)
    assert loss.dtype == torch.float32


def test_a_confident_student_gives_finite_losses_and_gradients():
    teacher = torch.tensor([[8.0, 1.0, 0.0, -1.0]])
    student = torch.tensor([[60.0, 0.0, 0.0, 0.0]])
    signal = top_k_signal(teacher, 2)
    assert torch.isfinite(top_k_divergence(student, signal))
    grad = gradient(lambda z: top_k_divergence(z, signal), student)
    assert torch.isfinite(grad).all()


def test_signals_say_what_is_wrong():
    with pytest.raises(ValueError, match="k is 12"):
        top_k_signal(torch.zeros(2, SIZE), 12)
    with pytest.raises(ValueError, match="both must be"):
        TopKSignal(torch.zeros(2, 3), torch.zeros(2, 4))
