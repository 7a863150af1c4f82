"""The student's own samples: their distribution, their labels, their place in a mix."""

import pytest
import tiny
import torch

from kdcourse.errors import KdcourseError
from kdcourse.translation.caching import cache_signals
from kdcourse.translation.distil import Method, distil
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.losses import live_loss
from kdcourse.translation.models import build_model
from kdcourse.translation.on_policy import OnPolicyMix
from kdcourse.translation.sampling import own_outputs
from kdcourse.translation.training import IGNORE, Example, collate, token_logits
from kdcourse.translation.vocabulary import EOS_ID


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def model(vocabulary):
    """A model that has learned enough to end its sentences."""
    return tiny.trained(vocabulary, 20_000)


@pytest.fixture(scope="module")
def batch(vocabulary):
    return collate(fixed_examples(*tiny.pairs(30, seed=9), vocabulary), tiny.PAD)


def test_labels_end_with_one_eos_and_hold_no_pad(model, batch):
    torch.manual_seed(1)
    said = own_outputs(model, batch)
    assert torch.equal(said.input_ids, batch.input_ids) and said.keys == batch.keys
    assert said.labels.shape[0] == len(batch.keys)
    ended = 0
    for row in said.labels.tolist():
        real = [token for token in row if token != IGNORE]
        assert row == real + [IGNORE] * (len(row) - len(real))  # nothing after it
        assert tiny.PAD not in real and EOS_ID not in real[:-1] and real
        ended += real[-1] == EOS_ID
    assert ended >= 25  # pitfall 17: the EOS is a label like any other


def test_greedy_outputs_are_what_the_model_finds_likeliest(model, batch):
    said = own_outputs(model, batch, sample=False)
    with torch.no_grad():
        logits = token_logits(model, said, "float32")
    assert (logits.argmax(-1) == said.real_labels).float().mean() > 0.999


def test_samples_have_the_probability_that_the_model_gives_them(model, vocabulary):
    """Whole sentences, so that each step counts, not the first alone."""
    ids = vocabulary("open door window")["input_ids"]
    many = collate([Example(ids, [EOS_ID], k) for k in range(3000)], tiny.PAD)
    torch.manual_seed(2)
    said = own_outputs(model, many)
    kinds, counts = said.labels.unique(dim=0, return_counts=True)
    often = counts.topk(min(5, len(counts))).indices
    for labels, count in zip(kinds[often], counts[often], strict=True):
        one = collate([Example(ids, labels[labels != IGNORE].tolist())], tiny.PAD)
        with torch.no_grad():
            log_p = token_logits(model, one, "float32").log_softmax(-1)
        wanted = log_p.gather(1, one.real_labels[:, None]).sum().exp()
        error = 4 * (wanted * (1 - wanted) / 3000).sqrt() + 1e-4
        assert abs(count / 3000 - wanted) < error


def test_the_mode_and_the_gradients_are_left_alone(model, batch):
    model.zero_grad(set_to_none=True)
    model.train()
    own_outputs(model, batch)
    assert model.training and all(w.grad is None for w in model.parameters())
    model.eval()
    own_outputs(model, batch)
    assert not model.training


def test_dropout_is_off_while_the_student_speaks(model, batch):
    model.train()
    first, second = (own_outputs(model, batch, sample=False).labels for _ in range(2))
    model.eval()
    assert torch.equal(first, second)


@pytest.mark.parametrize("share, steps", [(0.0, 0), (1.0, 200), (0.25, 50)])
def test_lambda_is_the_share_of_steps_on_samples(model, batch, share, steps):
    few = collate([Example([5, EOS_ID], [6, EOS_ID])], tiny.PAD)
    mix = OnPolicyMix(model, share)
    torch.manual_seed(3)
    for _ in range(200):
        taken = mix.rewrite(model, few)
        assert mix.sampled == (taken is not few)
    assert abs(mix.steps["samples"] - steps) <= 15
    assert mix.steps["samples"] + mix.steps["data"] == 200


def test_hard_labels_count_on_data_only(model, vocabulary, batch):
    student = build_model(tiny.TINY, vocabulary, 5).eval()
    with torch.no_grad():
        logits = token_logits(student, batch, "float32")
    mix = OnPolicyMix(model, 0.5, "reverse_kl", alpha=0.4)
    for sampled, alpha in ((False, 0.4), (True, 0.0)):
        mix.sampled = sampled
        wanted = live_loss(model, alpha, "reverse_kl")(logits, batch)
        torch.testing.assert_close(mix.loss(logits, batch), wanted)
    assert set(mix.seconds) == {"sampling", "scoring"}


def test_a_student_learns_from_its_own_samples(model, vocabulary, batch):
    """On-policy alone: no reference is ever read, yet it nears its teacher."""
    rows = tiny.pairs(100, seed=4)
    recipe = tiny.recipe(15_000, group_by="source")
    told = Method(divergence="generalised_js", share=1.0)
    gap = live_loss(model, 0.0)
    fresh = build_model(tiny.TINY, vocabulary, recipe.seed).eval()
    nonsense = ["error"] * len(rows[0])
    student, _ = distil(
        told,
        rows[0],
        nonsense,
        vocabulary,
        recipe,
        teacher=model,
        architecture=tiny.TINY,
    )
    with torch.no_grad():
        before, after = (
            float(gap(token_logits(m, batch, "float32"), batch))
            for m in (fresh, student)
        )
    assert after < 0.7 * before


def test_on_policy_wants_its_teacher_live(vocabulary):
    rows = tiny.pairs(10)
    with pytest.raises(KdcourseError, match="teacher"):
        distil("on-policy", *rows, vocabulary, tiny.recipe(group_by="source"))


def test_cached_answers_serve_the_steps_on_data(model, vocabulary, batch):
    examples = fixed_examples(*tiny.pairs(30, seed=9), vocabulary)
    signals = cache_signals(model, examples, k=tiny.SIZE - 1)
    student = build_model(tiny.TINY, vocabulary, 5).eval()
    with torch.no_grad():
        logits = token_logits(student, batch, "float32")
    live = OnPolicyMix(model, 0.5, "reverse_kl", 0.2)
    cached = OnPolicyMix(model, 0.5, "reverse_kl", 0.2, signals)
    wanted, found = (mix.loss(logits, batch) for mix in (live, cached))
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=1e-2)
    assert not torch.equal(found, wanted)  # it was kept in float16
    for mix in (live, cached):
        mix.sampled = True
    torch.testing.assert_close(*(mix.loss(logits, batch) for mix in (live, cached)))
