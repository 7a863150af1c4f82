"""The training loop: exact resumption, budgets, batches, honest losses."""

import math
import random
import subprocess
import sys
import textwrap

import pytest
import tiny
import torch
from runs import kill_midway, weights

from kdcourse.errors import KdcourseError
from kdcourse.translation.corpus import Row
from kdcourse.translation.examples import SampledEpochs, fixed_examples
from kdcourse.translation.models import build_model
from kdcourse.translation.training import (
    IGNORE,
    Batch,
    Example,
    Trainer,
    collate,
    learning_rate,
    real_tokens,
    reference_loss,
    student_logits,
    token_batches,
    token_logits,
    validation_loss,
)


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def examples(vocabulary):
    return fixed_examples(*tiny.pairs(), vocabulary)


def trainer(vocabulary, examples, folder=None, budget=2_000, **options):
    model = build_model(tiny.TINY, vocabulary, 1)
    return Trainer(
        model, tiny.recipe(budget), lambda epoch: examples, folder=folder, **options
    )


def test_a_pair_of_batches_holds_each_example_once(examples):
    seen = [
        k
        for b in token_batches(examples, 100, tiny.PAD, random.Random(1))
        for k in b.keys
    ]
    assert sorted(seen) == list(range(len(examples)))


def test_batches_hold_the_wanted_tokens_and_little_padding(examples):
    batches = list(token_batches(examples, 100, tiny.PAD, random.Random(1)))
    assert max(b.tokens for b in batches) <= 100
    real = sum(b.tokens for b in batches)
    assert real > 0.95 * sum(b.labels.numel() for b in batches)
    naive = collate(examples, tiny.PAD)
    assert real < 0.9 * naive.labels.numel()


def test_grouped_by_source_the_order_knows_nothing_of_the_targets(examples):
    longer = [Example(e.source, e.target * 2, e.key) for e in examples]
    orders = [
        [b.keys for b in token_batches(rows, 80, tiny.PAD, random.Random(4), "source")]
        for rows in (examples, longer)
    ]
    assert orders[0] == orders[1]
    by_target = [b.keys for b in token_batches(longer, 80, tiny.PAD, random.Random(4))]
    assert by_target != orders[0]


def test_the_first_token_is_learned_though_the_start_token_is_the_pad(vocabulary):
    """Pitfall 5: a mask made from decoder inputs would lose the first token."""
    batch = collate([Example([5, 0], [7, 8, 0]), Example([5, 6, 0], [9, 0])], tiny.PAD)
    model = build_model(tiny.TINY, vocabulary, 1).eval()
    assert batch.real_labels.tolist() == [7, 8, 0, 9, 0]
    everywhere = student_logits(model, batch, "float32")
    real, labels = real_tokens(everywhere, batch)
    assert labels.tolist() == [7, 8, 0, 9, 0]
    torch.testing.assert_close(token_logits(model, batch, "float32"), real)


def test_padding_changes_nothing(vocabulary):
    model = build_model(tiny.TINY, vocabulary, 1).eval()
    one = [Example([5, 6, 0], [7, 8, 0])]
    other = Example([9] * 12 + [0], [10] * 9 + [0])
    alone = reference_loss(
        token_logits(model, b := collate(one, tiny.PAD), "float32"), b
    )
    both = collate([*one, other], tiny.PAD)
    only_first = Batch(
        both.input_ids, both.attention_mask, both.labels.clone(), both.keys
    )
    only_first.labels[1] = IGNORE
    logits = token_logits(model, only_first, "float32")
    torch.testing.assert_close(reference_loss(logits, only_first), alone)


def test_pads_get_no_gradient(vocabulary):
    batch = collate([Example([5, 0], [7, 0]), Example([5, 0], [7, 8, 9, 0])], tiny.PAD)
    logits = torch.randn(2, 4, tiny.SIZE, requires_grad=True)
    real, _ = real_tokens(logits, batch)
    (gradient,) = torch.autograd.grad(reference_loss(real, batch), logits)
    assert (gradient[0, 2:] == 0).all()
    assert (gradient[0, :2].abs().sum(-1) > 0).all()


def test_learning_lowers_the_loss_on_unseen_sentences(vocabulary, examples):
    run = trainer(vocabulary, examples, budget=12_000)
    unseen = fixed_examples(*tiny.pairs(50, seed=9), vocabulary)
    before = validation_loss(run.model, unseen)
    after = validation_loss(run.run(), unseen)
    assert after < 0.5 * before


def test_the_budget_is_spent_to_the_token(vocabulary, examples):
    run = trainer(vocabulary, examples)
    run.run()
    assert 2_000 <= run.state["tokens"] < 2_100
    assert run.state["tokens"] == run.history[-1]["tokens"]


def test_the_rate_warms_up_and_ends_at_zero():
    recipe = tiny.recipe(peak_learning_rate=1.0, warmup_steps=10)
    assert learning_rate(0.0, 0, recipe) == pytest.approx(0.1)
    assert learning_rate(0.0, 9, recipe) == pytest.approx(1.0)
    assert learning_rate(0.5, 99, recipe) == pytest.approx(0.5)
    assert learning_rate(1.0, 99, recipe) == 0.0


def test_two_runs_are_bit_identical_and_another_seed_is_not(vocabulary, examples):
    first = weights(trainer(vocabulary, examples).run())
    assert torch.equal(first, weights(trainer(vocabulary, examples).run()))
    model = build_model(tiny.TINY, vocabulary, 2)
    other = Trainer(model, tiny.recipe(seed=2), lambda epoch: examples).run()
    assert not torch.equal(first, weights(other))


def test_validating_does_not_disturb_the_training(vocabulary, examples):
    plain = weights(trainer(vocabulary, examples).run())

    def noisy(model):
        torch.rand(5)
        return {"val": 0.0}

    watched = trainer(vocabulary, examples, validate=noisy, validate_every=300)
    assert torch.equal(plain, weights(watched.run()))
    assert len(watched.history) >= 6


KILLED = """
    import sys, tiny
    from kdcourse.translation.examples import fixed_examples
    from kdcourse.translation.models import build_model
    from kdcourse.translation.training import Trainer
    from kdcourse.translation.vocabulary import load_vocabulary
    import torch
    torch.set_num_threads(1)
    vocabulary = load_vocabulary(sys.argv[2])  # trained again, its ids would differ
    examples = fixed_examples(*tiny.pairs(), vocabulary)
    model = build_model(tiny.TINY, vocabulary, 1)
    Trainer(
        model, tiny.recipe(60_000), lambda epoch: examples,
        folder=sys.argv[1], save_seconds=0.2, validate_every=700,
        validate=lambda model: {"val": 1.0},
    ).run()
"""


def test_killed_and_resumed_is_bit_identical(vocabulary, examples, tmp_path, root):
    """SIGKILL at no chosen moment, then go on: the same weights as never killed."""
    folder = tmp_path / "run"
    vocabulary.save_pretrained(tmp_path / "vocabulary")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILLED),
            str(folder),
            str(tmp_path / "vocabulary"),
        ],
        cwd=root / "tests",
    )
    kill_midway(process, (folder / "checkpoint.pt").exists)
    options = {"validate_every": 700, "validate": lambda model: {"val": 1.0}}
    resumed = trainer(vocabulary, examples, folder, 60_000, **options)
    assert resumed.resume()
    assert 0 < resumed.state["tokens"] < 60_000
    whole = trainer(vocabulary, examples, None, 60_000, **options)
    whole_weights = weights(whole.run())
    again = trainer(vocabulary, examples, folder, 60_000, **options)
    assert torch.equal(weights(again.run()), whole_weights)
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
        for run in (again, whole)
    ]
    assert timeless[0] == timeless[1]


def test_a_finished_training_is_not_trained_on(vocabulary, examples, tmp_path):
    """Killed after its last checkpoint and started again, it must not move."""
    whole = weights(trainer(vocabulary, examples, tmp_path).run())
    again = trainer(vocabulary, examples, tmp_path)
    assert torch.equal(weights(again.run()), whole)
    assert again.state["tokens"] == again.history[-1]["tokens"]


def test_a_checkpoint_of_another_recipe_is_refused(vocabulary, examples, tmp_path):
    trainer(vocabulary, examples, tmp_path).run()
    with pytest.raises(KdcourseError, match="made by another recipe"):
        trainer(vocabulary, examples, tmp_path, budget=9_999).run()


def test_a_half_written_checkpoint_is_not_read(vocabulary, examples, tmp_path):
    (tmp_path / "checkpoint.pt.part").write_bytes(b"half")
    assert not trainer(vocabulary, examples, tmp_path).resume()


def test_epochs_depend_on_their_number_alone(vocabulary):
    rows = [Row(s, t, "", "") for s, t in zip(*tiny.pairs(40), strict=True)]
    rows.append(Row("Alexa error {host}", "fallo Alexa {host}", "", ""))
    epochs = SampledEpochs(rows, vocabulary)
    assert epochs(5) == SampledEpochs(rows, vocabulary)(5)
    assert epochs(5) != epochs(6)


def test_sources_are_sampled_and_targets_are_not(vocabulary):
    rows = [Row(s, t, "", "") for s, t in zip(*tiny.pairs(40), strict=True)]
    epoch = SampledEpochs(rows, vocabulary, invented_names=0.0)(0)
    best = vocabulary([r.target for r in rows])["input_ids"]
    assert [e.target for e in epoch] == best
    best = vocabulary([r.source for r in rows])["input_ids"]
    assert [e.source for e in epoch] != best
    spelled = [vocabulary.decode(e.source[:-1]) for e in epoch]
    assert spelled == [r.source for r in rows]  # cut otherwise, the text is the same


def test_brands_and_streams_give_other_draws(vocabulary):
    rows = [Row("Alexa error {host}", "fallo Alexa {host}", "", "")] * 30
    first, grown = (
        SampledEpochs(rows, vocabulary, invented_names=1.0, stream=stream)(0)
        for stream in ("data", "grown")
    )
    assert first != grown
    brands = SampledEpochs(rows, vocabulary, invented_names=1.0, brands=True)
    assert brands.augment.ordinary == ["error"]
    assert not SampledEpochs(rows, vocabulary).augment.ordinary


def test_an_exchanged_name_makes_no_row_a_held_out_string(vocabulary):
    rows = [Row("Alexa error", "fallo Alexa", "", "")] * 30
    free = SampledEpochs(rows, vocabulary, invented_names=1.0)
    changed = [e for e in free(0) if e.target != free(0)[0].target]
    assert changed
    everything = AnyKey()
    kept = SampledEpochs(rows, vocabulary, invented_names=1.0, held=everything)
    own = vocabulary(text_target=["fallo Alexa"])["input_ids"][0]
    assert {tuple(e.target) for e in kept(0)} == {tuple(own)}


class AnyKey(frozenset):
    """Keys of which each string has one."""

    def __rand__(self, keys):
        return keys


def test_of_no_examples_there_is_no_loss(vocabulary):
    model = build_model(tiny.TINY, vocabulary, 1)
    assert math.isnan(validation_loss(model, []))
