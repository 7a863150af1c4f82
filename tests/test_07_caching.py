"""The teacher's cached answers: the right ones, found by their row, refused if not."""

import json
import math
import random
from dataclasses import replace

import pytest
import tiny
import torch
from runs import contents

from kdcourse.errors import KdcourseError
from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.losses import distillation_loss
from kdcourse.theory.signals import Dense, top_k
from kdcourse.translation import caching
from kdcourse.translation.caching import (
    SignalCache,
    cache_corpus,
    cache_signals,
    row_key,
    vocabulary_hash,
)
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.models import build_model, load_model, save_model
from kdcourse.translation.training import Example, collate, token_logits
from kdcourse.translation.vocabulary import load_vocabulary, train_vocabulary

SOURCES, TARGETS = tiny.pairs(60)
OPTIONS = {"k": 4, "shard_size": 9, "batch_tokens": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a teacher that has learned to be rather sure."""
    return tiny.save_trained(tmp_path_factory.mktemp("teacher"), 8_000)


@pytest.fixture(scope="module")
def vocabulary(folder):
    return load_vocabulary(folder)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def stranger(vocabulary, tmp_path_factory):
    """The folder of another teacher of the same vocabulary."""
    model = build_model(tiny.TINY, vocabulary, 2)
    return save_model(model, vocabulary, tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def examples(vocabulary):
    return fixed_examples(SOURCES, TARGETS, vocabulary)


@pytest.fixture(scope="module")
def whole(folder, vocabulary, tmp_path_factory):
    """The folder of a cache that nobody disturbed."""
    out = tmp_path_factory.mktemp("signals")
    cache_corpus(SOURCES, TARGETS, vocabulary, folder, out, **OPTIONS)
    return out


def other_vocabulary():
    return train_vocabulary(SOURCES, 40)


def live(model, batch):
    with torch.inference_mode():
        return token_logits(model, batch, "float32")


def load(folder, vocabulary, **options):
    return SignalCache.load(folder, SOURCES, TARGETS, vocabulary, **options)


# ------------------------------------------------------------------ what is kept


def test_each_token_gets_what_the_teacher_says_live(teacher, examples):
    cache = cache_signals(teacher, examples, 5, temperature=2.0, batch_tokens=80)
    batch = collate(random.Random(1).sample(examples, 20), tiny.PAD)
    kept, asked = cache.signal(batch), top_k(live(teacher, batch), 5, temperature=2.0)
    assert kept.temperature == cache.temperature == 2.0
    assert (kept.indices == asked.indices).float().mean() > 0.99  # ties may swap
    for name in ("log_probs", "log_rest"):
        mine, theirs = getattr(kept, name).float(), getattr(asked, name)
        torch.testing.assert_close(mine, theirs, atol=1e-2, rtol=1e-3)


def test_an_ensemble_says_the_mean_of_its_probabilities(teacher, stranger, examples):
    teachers = [teacher, load_model(stranger)]
    batch = collate(examples[:7], tiny.PAD)
    for temperature, weights in ((1.0, None), (3.0, (1, 3))):
        cache = cache_signals(
            teachers, examples[:7], 6, temperature=temperature, weights=weights
        )
        shares = torch.tensor(weights or (1, 1)) / sum(weights or (1, 1))
        softened = [
            (live(model, batch) / temperature).softmax(-1) for model in teachers
        ]
        mean = sum(w * p for w, p in zip(shares, softened, strict=True))
        kept = cache.signal(batch)
        best, _ = mean.topk(6)
        torch.testing.assert_close(
            kept.log_probs.float().exp(), best, atol=1e-3, rtol=5e-3
        )
        torch.testing.assert_close(
            kept.log_rest.float().exp(), 1 - best.sum(-1), atol=1e-3, rtol=5e-3
        )
        assert kept.temperature == temperature


def test_an_ensemble_of_one_is_that_one(teacher, examples):
    alone, listed = (cache_signals(t, examples[:9]) for t in (teacher, [teacher]))
    assert torch.equal(alone.answers.log_probs, listed.answers.log_probs)
    twice = cache_signals([teacher, teacher], examples[:9], weights=[0.2, 0.8])
    torch.testing.assert_close(
        twice.answers.log_probs, alone.answers.log_probs, atol=1e-2, rtol=1e-2
    )


def test_k_trades_size_for_the_distance_to_the_whole_answer(teacher, examples):
    """The bucket's loss is a lower bound, and closes in on the whole one as k grows."""
    batch = collate(examples, tiny.PAD)
    student = torch.randn(batch.tokens, tiny.SIZE, generator=torch.Generator())
    losses, sizes = [], []
    for k in (1, 4, 16, tiny.SIZE, None):
        cache = cache_signals(teacher, examples, k)
        losses.append(float(distillation_loss(student, cache.signal(batch))))
        sizes.append(cache.bytes_per_token)
    everything = float(distillation_loss(student, Dense(live(teacher, batch))))
    assert sizes == [4 + 2, 16 + 2, 64 + 2, 4 * tiny.SIZE, 2 * tiny.SIZE]
    assert losses[0] < losses[1] < losses[2] < everything
    assert losses[3] == pytest.approx(everything, rel=1e-3)
    assert losses[4] == pytest.approx(everything, rel=1e-3)


def test_whole_answers_are_softened_when_they_are_used(teacher, examples):
    batch = collate(examples[:9], tiny.PAD)
    cache = cache_signals(teacher, examples[:9], None)
    assert cache.temperature == 1.0 and cache.kept_mass == 1.0
    student = torch.randn(batch.tokens, tiny.SIZE, generator=torch.Generator())
    kept, asked = (
        float(distillation_loss(student, signal, temperature=4.0))
        for signal in (cache.signal(batch), Dense(live(teacher, batch)))
    )
    assert kept == pytest.approx(asked, rel=1e-3)
    with pytest.raises(KdcourseError, match="whole distribution at temperature 2"):
        cache_signals(teacher, examples, None, temperature=2.0)


def test_the_missing_mass_of_a_sure_teacher_needs_a_number_of_its_own(
    teacher, examples
):
    """Where r is small, one minus the rounded entries is rounding and no mass."""
    batch = collate(examples, tiny.PAD)
    cache = cache_signals(teacher, examples, 8, temperature=0.25)  # very sure
    kept = cache.signal(batch)
    true = top_k(live(teacher, batch).double(), 8, temperature=0.25).log_rest.exp()
    small = true < 1e-4
    assert small.sum() > 20
    errors = [
        ((rest.double() - true)[small] / true[small]).abs().max()
        for rest in (kept.missing, 1 - kept.log_probs.double().exp().sum(-1))
    ]
    assert errors[0] < 0.02 and errors[1] > 0.2


def test_large_vocabularies_get_wide_ids():
    small = caching._empty(3, 2, 32_768)["indices"].dtype
    large = caching._empty(3, 2, 32_769)["indices"].dtype
    assert (small, large) == (torch.int16, torch.int32)


def test_requests_that_cannot_be_met_are_explained(teacher, examples, vocabulary):
    with pytest.raises(KdcourseError, match=r"Weights \[1.0\] for 2 teachers"):
        cache_signals([teacher, teacher], examples, weights=[1])
    for weight in (0, -1, math.nan, math.inf):
        with pytest.raises(KdcourseError, match="one positive number"):
            cache_signals([teacher, teacher], examples, weights=[1, weight])
    with pytest.raises(KdcourseError, match="no teachers"):
        cache_signals([], examples)
    with pytest.raises(BadArgument, match="k is 0"):
        cache_signals(teacher, examples, 0)
    with pytest.raises(BadArgument, match="temperature is 0"):
        cache_signals(teacher, examples, temperature=0.0)
    other = build_model(tiny.TINY, other_vocabulary(), 1)
    with pytest.raises(KdcourseError, match="Teachers of .* tokens"):
        cache_signals([teacher, other], examples)
    endless = Example([5] * 600 + [0], [5, 0])
    with pytest.raises(KdcourseError, match="Row 1 of the examples has 601 tokens"):
        cache_signals(teacher, [examples[0], endless])
    broken = build_model(tiny.TINY, vocabulary, 1)
    broken.final_logits_bias[0, 5] = math.nan
    with pytest.raises(KdcourseError, match="not numbers"):
        cache_signals(broken, examples)


def test_a_row_that_was_not_cached_is_refused(teacher, examples):
    cache = cache_signals(teacher, examples[:5])
    with pytest.raises(KdcourseError, match="rows 7 to 7"):
        cache.signal(collate([examples[7]], tiny.PAD))


# ------------------------------------------------------------------ on disk


def test_the_stored_answers_are_the_teachers_row_by_row(
    whole, vocabulary, teacher, examples
):
    cache = load(whole, vocabulary)
    batch = collate(random.Random(2).sample(examples, 15), tiny.PAD)
    kept, asked = cache.signal(batch), top_k(live(teacher, batch), 4)
    torch.testing.assert_close(
        kept.log_probs.float(), asked.log_probs, atol=1e-2, rtol=1e-3
    )
    assert (kept.indices == asked.indices).float().mean() > 0.99
    assert cache.bytes_per_token == 4 * (2 + 2) + 2


def test_the_files_are_what_the_manifest_says(whole, vocabulary):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["complete"] and manifest["k"] == 4
    assert manifest["count"] == len(set(zip(SOURCES, TARGETS, strict=True)))
    assert set(contents(whole)) == {"manifest.json", *manifest["shards"]}
    data = (whole / "shard-00000.safetensors").read_bytes()
    shard = caching.safetensors.torch.load(data)
    assert set(shard) == {"keys", "lengths", "indices", "log_probs", "log_rest"}
    kinds = {name: str(values.dtype)[6:] for name, values in shard.items()}
    assert kinds["indices"] == "int16" and kinds["log_probs"] == "float16"
    keys = [bytes(key.tolist()) for key in shard["keys"]]
    assert keys == sorted(keys) and len(keys) == 9
    assert int(shard["lengths"].sum()) == len(shard["indices"])
    assert set(keys) < {row_key(*pair) for pair in zip(SOURCES, TARGETS, strict=True)}


def test_order_repetition_and_workers_do_not_matter(
    whole, folder, vocabulary, tmp_path
):
    pairs = list(zip(SOURCES, TARGETS, strict=True))
    pairs += pairs[:13]
    random.Random(3).shuffle(pairs)
    sources, targets = map(list, zip(*pairs, strict=True))
    cache = cache_corpus(
        sources, targets, vocabulary, folder, tmp_path, workers=3, **OPTIONS
    )
    assert contents(tmp_path) == contents(whole)
    straight = load(whole, vocabulary)
    for pair in (pairs[0], pairs[-1]):
        (example,) = fixed_examples([pair[0]], [pair[1]], vocabulary)
        rows = pairs.index(pair), SOURCES.index(pair[0])
        answers = [
            cached.signal(collate([replace(example, key=row)], tiny.PAD))
            for cached, row in zip((cache, straight), rows, strict=True)
        ]
        assert torch.equal(answers[0].log_probs, answers[1].log_probs)


def test_some_of_the_rows_can_be_loaded(whole, vocabulary, examples):
    some = SignalCache.load(whole, SOURCES[20:30], TARGETS[20:30], vocabulary)
    mine = some.signal(
        collate(fixed_examples(SOURCES[20:30], TARGETS[20:30], vocabulary), tiny.PAD)
    )
    theirs = load(whole, vocabulary).signal(collate(examples[20:30], tiny.PAD))
    assert torch.equal(mine.indices, theirs.indices)


def test_a_shard_is_made_on_one_thread_whatever_torch_is_set_to(
    folder, vocabulary, tmp_path, monkeypatch
):
    seen, ask = set(), caching._ask

    def watched(*arguments):
        seen.add(torch.get_num_threads())
        return ask(*arguments)

    monkeypatch.setattr(caching, "_ask", watched)
    torch.set_num_threads(2)
    cache_corpus(SOURCES[:9], TARGETS[:9], vocabulary, folder, tmp_path, workers=2)
    assert seen == {1} and torch.get_num_threads() == 2


def test_what_is_done_is_not_done_again(whole, folder, vocabulary, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr(caching, "load_model", None)
    cache_corpus(SOURCES, TARGETS, vocabulary, folder, whole, **OPTIONS)
    assert contents(whole) == before


def test_whole_answers_and_ensembles_are_stored_too(
    folder, stranger, vocabulary, tmp_path
):
    rows = SOURCES[:20], TARGETS[:20]
    dense = cache_corpus(*rows, vocabulary, folder, tmp_path / "dense", k=None)
    assert isinstance(dense.answers, Dense)
    assert dense.bytes_per_token == 2 * tiny.SIZE
    both = [folder, stranger]
    cache_corpus(*rows, vocabulary, both, tmp_path / "both", weights=[3, 1])
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert len(manifest["teacher"]) == 2 and manifest["weights"] == [0.75, 0.25]
    SignalCache.load(tmp_path / "both", *rows, vocabulary, teacher=both)
    with pytest.raises(KdcourseError, match="another teacher"):
        SignalCache.load(tmp_path / "both", *rows, vocabulary, teacher=folder)


def test_a_vocabulary_is_known_by_what_it_does(vocabulary, tmp_path):
    before = vocabulary_hash(vocabulary)
    vocabulary.save_pretrained(tmp_path)
    again = load_vocabulary(tmp_path)
    again(["open door", "light"], padding=True, truncation=True, max_length=3)
    assert vocabulary_hash(again) == before
    assert vocabulary_hash(other_vocabulary()) != before


# ------------------------------------------------------------------ mixed up


def test_the_cache_of_another_teacher_is_refused(whole, folder, stranger, vocabulary):
    load(whole, vocabulary, teacher=folder)
    with pytest.raises(KdcourseError, match="signals of another teacher"):
        load(whole, vocabulary, teacher=stranger)


def test_the_cache_of_another_vocabulary_is_refused(whole):
    with pytest.raises(KdcourseError, match="signals of another vocabulary"):
        load(whole, other_vocabulary())


def test_the_cache_of_other_rows_is_refused(whole, vocabulary):
    """The same source with another target is another question to the teacher."""
    with pytest.raises(KdcourseError, match=r"another corpus: 2 of 60 pairs .* 'x'"):
        SignalCache.load(whole, SOURCES, ["x", "y", *TARGETS[2:]], vocabulary)
    shifted = [*TARGETS[1:], TARGETS[0]]
    with pytest.raises(KdcourseError, match="another corpus: .* pairs"):
        SignalCache.load(whole, SOURCES, shifted, vocabulary)


def test_a_teacher_of_another_vocabulary_cannot_be_asked(folder, tmp_path):
    with pytest.raises(KdcourseError, match="another vocabulary") as error:
        cache_corpus(SOURCES, TARGETS, other_vocabulary(), folder, tmp_path)
    assert "sequence-level" in error.value.todo
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"k": 5}, "k 4 for 5"),
        ({"k": None}, "k 4 for 'all'"),
        ({"temperature": 2.0}, "temperature 1.0 for 2.0"),
        ({"precision": "bfloat16"}, "precision 'float32' for 'bfloat16'"),
        ({"shard_size": 10}, "shard_size 9 for 10"),
        ({"targets": ["x", *TARGETS[1:]]}, "rows '"),
        ({"teacher_folder": "stranger"}, "teacher "),
    ],
)
def test_the_cache_of_other_settings_is_not_gone_on_with(
    changes, named, whole, folder, stranger, vocabulary
):
    before = contents(whole)
    wanted = {"sources": SOURCES, "targets": TARGETS, "teacher_folder": folder}
    wanted |= OPTIONS | changes
    if "teacher_folder" in changes:
        wanted["teacher_folder"] = stranger
    with pytest.raises(KdcourseError, match=f"holds other signals.*{named}"):
        cache_corpus(vocabulary=vocabulary, out_folder=whole, **wanted)
    assert contents(whole) == before


def test_bad_requests_are_explained(folder, vocabulary, tmp_path):
    with pytest.raises(KdcourseError, match="0 sources and 0 targets"):
        cache_corpus([], [], vocabulary, folder, tmp_path)
    with pytest.raises(KdcourseError, match="60 sources and 59 targets"):
        cache_corpus(SOURCES, TARGETS[1:], vocabulary, folder, tmp_path)
    with pytest.raises(KdcourseError, match="No signals in"):
        load(tmp_path, vocabulary)
