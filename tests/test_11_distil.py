"""Distillation on a tiny language: four methods, one order, signals that fit."""

import itertools
import random

import pytest
import tiny
import torch

from kdcourse.errors import KdcourseError
from kdcourse.theory.signals import top_k
from kdcourse.translation import distil as module
from kdcourse.translation.caching import cache_signals
from kdcourse.translation.corpus import near_keys
from kdcourse.translation.distil import (
    METHODS,
    Curriculum,
    StudentEpochs,
    distil,
    encode_targets,
    task_of,
    with_invented_names,
    word_loss,
)
from kdcourse.translation.models import Architecture, build_model
from kdcourse.translation.training import (
    Example,
    Trainer,
    collate,
    token_batches,
    token_logits,
)
from kdcourse.translation.vocabulary import SubwordSampler

SMALLER = Architecture(16, 32, 2, 1, 1, dropout=0.1)


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def rows():
    return tiny.pairs(120)


@pytest.fixture(scope="module")
def teacher(vocabulary, rows):
    sources, targets = rows
    epochs = StudentEpochs(
        sources, encode_targets(targets, vocabulary), SubwordSampler(vocabulary)
    )
    model = build_model(tiny.TINY, vocabulary, 1)
    return Trainer(model, tiny.recipe(8_000), epochs).run()


@pytest.fixture(scope="module")
def examples(vocabulary, rows):
    sources, targets = rows
    pairs = zip(
        vocabulary(sources)["input_ids"],
        encode_targets(targets, vocabulary),
        strict=True,
    )
    return [Example(s, t, i) for i, (s, t) in enumerate(pairs)]


@pytest.fixture(scope="module")
def signals(teacher, examples):
    return cache_signals(teacher, examples, k=4)


def recipe(**changes):
    return tiny.recipe(1_000, group_by="source", **changes)


def run(method, rows, vocabulary, signals=None, teacher=None, **options):
    told = METHODS[method]
    return distil(
        method,
        *rows,
        vocabulary,
        recipe(),
        signals=signals if told.cached else None,
        teacher=teacher if told.share else None,
        architecture=SMALLER,
        **options,
    )


def test_cached_signals_are_the_teachers_whatever_the_batch(teacher, examples, signals):
    """Pitfall 15: answers are found by row, so no order can misalign them."""
    shuffled = random.Random(5).sample(examples, 20)
    batch = collate(shuffled, tiny.PAD)
    logits = token_logits(teacher, batch, "float32")
    live, cached = top_k(logits, 4), signals.signal(batch)
    assert (live.indices == cached.indices).float().mean() > 0.99  # ties may swap
    torch.testing.assert_close(
        live.log_probs, cached.log_probs.float(), atol=2e-2, rtol=0
    )
    assert 0.5 < signals.kept_mass <= 1.0


def test_signals_of_other_targets_are_refused(signals):
    batch = collate([Example([5, 0], [7] * 30 + [0], 0)], tiny.PAD)
    with pytest.raises(KdcourseError, match="answers for 31 target tokens"):
        signals.signal(batch)


def test_another_teacher_changes_the_loss(vocabulary, examples, signals):
    """Pitfall 23: a term that does not depend on the teacher teaches nothing."""
    stranger = cache_signals(build_model(tiny.TINY, vocabulary, 9), examples, k=4)
    batch = next(token_batches(examples, 100, tiny.PAD, random.Random(1)))
    logits = torch.randn(batch.tokens, tiny.SIZE)
    first, second = (word_loss(s, 0.0)(logits, batch) for s in (signals, stranger))
    assert abs(float(first - second)) > 1.0


def test_every_method_starts_from_the_same_weights(
    monkeypatch, vocabulary, rows, signals, teacher
):
    starts = []

    class Watched(Trainer):
        def run(self):
            starts.append(torch.cat([w.detach().flatten() for w in self.weights]))
            return super().run()

    monkeypatch.setattr(module, "Trainer", Watched)
    ends = {
        m: torch.cat(
            [
                p.flatten()
                for p in run(m, rows, vocabulary, signals, teacher)[0].parameters()
            ]
        )
        for m in METHODS
    }
    assert all(torch.equal(starts[0], start) for start in starts)
    # And then each learns what it is told; here some were told the same references.
    same = ("sequence", "interpolation", "samples", "unlabelled", "both", "shuffled")
    same += ("self",)
    kinds = {m: end for m, end in ends.items() if m not in same}
    for one, other in itertools.combinations(kinds, 2):
        assert not torch.equal(ends[one], ends[other]), (one, other)
    assert torch.equal(ends["untaught"], ends["sequence"])
    assert torch.equal(ends["word"], ends["both"])
    assert torch.equal(ends["both"], ends["unlabelled"])


def test_every_method_reads_the_same_rows_in_the_same_order(vocabulary, rows):
    sources, targets = rows
    sampler = SubwordSampler(vocabulary)
    twins = [
        StudentEpochs(sources, encode_targets(t, vocabulary), sampler)(3)
        for t in (targets, [f"{t} {t}" for t in targets])
    ]
    orders = [
        [b.keys for b in token_batches(t, 60, tiny.PAD, random.Random(1), "source")]
        for t in twins
    ]
    assert orders[0] == orders[1]
    assert [e.source for e in twins[0]] == [e.source for e in twins[1]]


def test_a_curriculum_ends_with_the_jobs_own_rows(vocabulary, rows):
    sources, targets = rows
    ids, sampler = encode_targets(targets, vocabulary), SubwordSampler(vocabulary)
    epochs = StudentEpochs(sources, ids, sampler, Curriculum(100, general_epochs=2))
    plain = StudentEpochs(sources, ids, sampler)
    assert [len(epochs(epoch)) for epoch in range(4)] == [120, 120, 100, 100]
    # The rows that are left are what they are without a curriculum, keys included.
    for epoch in range(4):
        assert epochs(epoch) == plain(epoch)[: len(epochs(epoch))]


def test_a_curriculum_is_part_of_what_a_student_is_told(rows):
    tasks = {
        task_of(METHODS["unlabelled"], 0.0, *rows, curriculum)
        for curriculum in (None, Curriculum(100, 2), Curriculum(100, 3))
    }
    assert len(tasks) == 3


def test_the_budget_counts_target_tokens_for_every_method(
    vocabulary, rows, signals, teacher
):
    spent = [
        run(m, rows, vocabulary, signals, teacher)[1][-1]["tokens"] for m in METHODS
    ]
    assert all(1_000 <= tokens < 1_500 for tokens in spent)


def test_a_distilled_student_comes_closer_to_its_teacher(
    vocabulary, rows, signals, examples
):
    """Word-level training lowers the divergence from the teacher by far."""
    loss = word_loss(signals, 0.0)
    batch = collate(examples, tiny.PAD)

    def divergence(model):
        with torch.inference_mode():
            return float(loss(token_logits(model, batch, "float32"), batch))

    before = divergence(build_model(SMALLER, vocabulary, 1).eval())
    student, _ = distil(
        "word",
        *rows,
        vocabulary,
        tiny.recipe(12_000, group_by="source"),
        signals=signals,
        architecture=SMALLER,
    )
    assert divergence(student) < 0.3 * before


def test_names_are_exchanged_in_new_rows_only():
    sources = ["Alexa is on", "Alexa is off", "open door"]
    references = ["Alexa está activa", "Alexa está apagada", "abre puerta"]
    made, told = with_invented_names(sources, references, copies=2, seed=1)
    assert (made[:3], told[:3]) == (sources, references)
    assert len(made) == len(told) > 3
    assert len(set(made)) == len(made)
    for source, reference in zip(made[3:], told[3:], strict=True):
        if "open door" in source:  # a name was set beside a row that had none
            assert reference == source.replace("open door", "abre puerta")
            continue
        name = source.split(" is ")[0]
        assert reference.startswith(f"{name} está ") and name != "Alexa"
    assert with_invented_names(sources, references, 2, 1) == (made, told)


def test_endless_targets_are_cut_and_still_end(vocabulary):
    (ids,) = encode_targets(["puerta " * 400], vocabulary)
    assert len(ids) == 200 and ids[-1] == vocabulary.eos_token_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"method": "word", "signals": None}, "no answers of a teacher"),
        ({"method": "sequence"}, "given signals"),
        ({"method": "word", "targets": ["x"]}, "120 sources but 1 targets"),
        ({"method": "word", "recipe": tiny.recipe(10)}, "group_by is 'target'"),
    ],
)
def test_requests_that_cannot_be_met_are_explained(
    changes, message, vocabulary, rows, signals
):
    wanted = {
        "sources": rows[0],
        "targets": rows[1],
        "vocabulary": vocabulary,
        "recipe": recipe(),
        "signals": signals,
    } | changes
    with pytest.raises(KdcourseError, match=message):
        distil(**wanted)


def test_no_made_row_is_a_near_duplicate_of_a_held_out_string():
    sources, references = ["Alexa is on"], ["Alexa está activa"]
    made, told = with_invented_names(sources, references, copies=9, seed=1)
    barred = made[3]
    held = near_keys(barred.upper() + "!")  # as it may stand in the test split
    assert with_invented_names(sources, references, 9, 1, held) == (
        [s for s in made if s != barred],
        [t for s, t in zip(made, told, strict=True) if s != barred],
    )


def test_a_checkpoint_is_gone_on_with_for_the_same_lesson_only(
    rows, vocabulary, tmp_path
):
    sources, targets = rows
    recipe = tiny.recipe(1_000, group_by="source")
    how = {"architecture": SMALLER, "folder": tmp_path}
    distil("untaught", sources, targets, vocabulary, recipe, **how)
    distil("untaught", sources, targets, vocabulary, recipe, **how)  # goes on
    others = [("sequence", targets), ("untaught", targets[::-1])]
    for method, told in others:
        with pytest.raises(KdcourseError, match="another method or on other data"):
            distil(method, sources, told, vocabulary, recipe, **how)


def test_a_checkpoint_from_before_tasks_were_kept_is_gone_on_with(
    rows, vocabulary, tmp_path
):
    examples = [Example([5, 0], [5, 0])]
    first = Trainer(
        build_model(SMALLER, vocabulary, 1),
        tiny.recipe(),
        lambda e: examples,
        folder=tmp_path,
        task="a",
    )
    first.save()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del saved["task"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    assert first.resume()


@pytest.mark.parametrize("method", ["shuffled", "self"])
def test_a_live_teacher_is_refused_where_another_one_is_meant(
    method, rows, vocabulary, teacher
):
    recipe = tiny.recipe(group_by="source")
    with pytest.raises(KdcourseError, match="was given teacher"):
        distil(method, *rows, vocabulary, recipe, teacher=teacher)


def test_nothing_to_learn_from_is_explained(vocabulary):
    with pytest.raises(KdcourseError, match="no sources"):
        distil("untaught", [], [], vocabulary, tiny.recipe(group_by="source"))
