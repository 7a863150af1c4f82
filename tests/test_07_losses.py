"""The losses of the training loop, each held against its formula."""

import random

import pytest
import tiny
import torch

from kdcourse.errors import KdcourseError
from kdcourse.theory import divergences
from kdcourse.theory.divergences import DIVERGENCES
from kdcourse.theory.losses import distillation_loss
from kdcourse.translation.caching import cache_signals
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.losses import live_loss, smoothed_loss, word_loss
from kdcourse.translation.models import build_model
from kdcourse.translation.training import token_batches, token_logits


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def examples(vocabulary):
    return fixed_examples(*tiny.pairs(40), vocabulary)


@pytest.fixture(scope="module")
def teacher(vocabulary):
    return build_model(tiny.TINY, vocabulary, 7).eval()


@pytest.fixture(scope="module")
def batch(examples):
    return next(token_batches(examples, 100, tiny.PAD, random.Random(1)))


@pytest.fixture(scope="module")
def logits(vocabulary, batch):
    model = build_model(tiny.TINY, vocabulary, 8).eval()
    with torch.no_grad():
        return token_logits(model, batch, "float32")


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_a_live_teacher_gives_the_divergence_of_the_whole_distribution(
    name, teacher, batch, logits
):
    with torch.no_grad():
        answers = token_logits(teacher, batch, "float32")
    wanted = DIVERGENCES[name](student_logits=logits, teacher_logits=answers).sum()
    found = live_loss(teacher, 0.0, name)(logits, batch)
    torch.testing.assert_close(found, wanted)
    hard = divergences.cross_entropy  # α mixes the labels in
    mixed = live_loss(teacher, 0.25, name)(logits, batch)
    one_hot = torch.full_like(logits, -torch.inf)
    one_hot.scatter_(1, batch.real_labels[:, None], 0.0)
    labels = hard(student_logits=logits, teacher_logits=one_hot).sum()
    torch.testing.assert_close(mixed, 0.75 * wanted + 0.25 * labels)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "total_variation"])
def test_a_cache_of_everything_says_what_the_live_teacher_says(
    name, teacher, examples, batch, logits
):
    whole = cache_signals(teacher, examples, k=tiny.SIZE - 1)
    found = word_loss(whole, 0.3, name)(logits, batch)
    live = live_loss(teacher, 0.3, name)(logits, batch)
    torch.testing.assert_close(found, live, rtol=5e-3, atol=1e-2)  # kept in float16
    few = word_loss(cache_signals(teacher, examples, k=2), 0.0, name)(logits, batch)
    assert few < live_loss(teacher, 0.0, name)(logits, batch)  # merging lowers any D


def test_a_softened_cache_is_used_at_its_own_temperature(
    teacher, examples, batch, logits
):
    soft = cache_signals(teacher, examples, k=tiny.SIZE - 1, temperature=2.0)
    with torch.no_grad():
        answers = token_logits(teacher, batch, "float32")
    wanted = distillation_loss(logits, answers, temperature=2.0, normalizer=1.0)
    found = word_loss(soft, 0.0)(logits, batch)
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=1e-2)


def test_the_live_teacher_is_frozen_and_not_dropped_out(vocabulary, batch, logits):
    teacher = build_model(tiny.TINY, vocabulary, 7).train()
    loss = live_loss(teacher, 0.0)
    assert not teacher.training
    asked = logits.clone().requires_grad_()
    loss(asked, batch).backward()
    assert torch.equal(loss(logits, batch), loss(logits, batch))
    assert all(w.grad is None for w in teacher.parameters())


def test_a_teacher_of_another_vocabulary_is_refused(teacher, batch, logits):
    with pytest.raises(KdcourseError, match="sequence-level"):
        live_loss(teacher, 0.0)(logits[:, :-3], batch)


def test_label_smoothing_is_cross_entropy_with_a_share_for_everybody(batch, logits):
    """Held against torch's own, which also counts the pad: so without it."""
    said = logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(
        said, batch.real_labels, label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(smoothed_loss(0.1)(logits, batch), wanted)
    with pytest.raises(Exception, match="epsilon"):
        smoothed_loss(1.5)
