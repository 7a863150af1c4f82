"""A student's own vocabulary: texts can teach it, a teacher's distributions cannot."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from opus_format import make_opus

from kdcourse.errors import KdcourseError
from kdcourse.translation.caching import cache_corpus, cache_signals
from kdcourse.translation.decoding import open_translator
from kdcourse.translation.distil import distil
from kdcourse.translation.evaluation import score
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.labelling import Labels, label_corpus
from kdcourse.translation.losses import live_loss
from kdcourse.translation.models import (
    STUDENT,
    Architecture,
    build_model,
    count_parameters,
    load_model,
    save_model,
)
from kdcourse.translation.own_vocabulary import (
    OtherVocabulary,
    check_same_vocabulary,
    check_teacher,
    differing_entries,
    own_vocabulary,
    parameters_saved,
    same_vocabulary,
    tokens_per_text,
)
from kdcourse.translation.training import collate, token_logits, validation_loss
from kdcourse.translation.vocabulary import UNK_ID, load_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")
PAIRS = itertools.combinations_with_replacement(sorted(tiny.WORDS), 2)
SOURCES = [" ".join(pair) for pair in PAIRS]  # 55
REFERENCES = [" ".join(tiny.WORDS[w] for w in s.split()) for s in SOURCES]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher in the format of the Hub's opus-mt."""
    return make_opus(tmp_path_factory.mktemp("opus"))


@pytest.fixture(scope="module")
def labels(teacher, tmp_path_factory):
    """The teacher's translations of the sources."""
    found = label_corpus(SOURCES, teacher, tmp_path_factory.mktemp("labels") / "es")
    return [found[source] for source in SOURCES]


@pytest.fixture(scope="module")
def own(labels):
    return own_vocabulary(SOURCES, labels, 60)


def learn(method, labels, vocabulary, budget, **answers):
    recipe = tiny.recipe(
        budget, group_by="source", average_decay=0.9, peak_learning_rate=1e-2
    )
    return distil(
        method,
        SOURCES,
        labels,
        vocabulary,
        recipe,
        architecture=tiny.TINY,
        **answers,
    )


def swapped(folder: Path, place: Path) -> Path:
    """The folder again, two of its vocabulary's pieces exchanged: of the same size."""
    shutil.copytree(folder, place)
    path = place / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    pieces = state["model"]["vocab"]
    pieces[7], pieces[9] = pieces[9], pieces[7]
    path.write_text(json.dumps(state), encoding="utf-8")
    return place


# ------------------------------------------------------------------ the vocabulary


def test_it_can_say_all_that_it_was_made_from(own, labels):
    assert len(own) <= 60 and own.pad_token_id == len(own) - 1
    assert len(own_vocabulary(SOURCES, labels, 35)) == 35
    rare = own_vocabulary([*SOURCES, "ñandú 🔥"], labels, 60)
    for text in [*SOURCES, *labels]:
        assert UNK_ID not in own(text).input_ids
    assert UNK_ID not in rare("ñandú 🔥").input_ids


def test_one_without_room_for_the_characters_is_refused(labels):
    characters = len({*"".join([*SOURCES, *labels])} - {" "})
    with pytest.raises(KdcourseError, match=f"for texts of {characters} characters"):
        own_vocabulary(SOURCES, labels, characters + 4)
    assert len(own_vocabulary(SOURCES, labels, characters + 5)) <= characters + 5


def test_what_it_saves_is_what_a_count_of_the_parameters_finds(own):
    bigger = tiny.vocabulary()
    models = [build_model(STUDENT, v, 1) for v in (bigger, own)]
    before, after = map(count_parameters, models)
    assert parameters_saved(STUDENT, bigger, own) == before - after > 0
    assert parameters_saved(STUDENT, own, bigger) == after - before


def test_fewer_entries_make_longer_texts(own, root):
    assert tokens_per_text(own, ["luz", ""]) == (len(own("luz").input_ids) + 1) / 2
    shipped = Labels.load(root / "kdcourse" / "assets" / "labels" / "es")
    texts = list(shipped.targets.values())[:2000]  # a real language has longer pieces
    more, fewer = (own_vocabulary([], texts, size) for size in (300, 160))
    assert len(more) == 300 and len(fewer) == 160
    assert tokens_per_text(fewer, texts) > 1.2 * tokens_per_text(more, texts)


def test_targets_are_counted_as_targets(teacher):
    """The source's model of an opus-mt folder would cut them into letters."""
    vocabulary = load_vocabulary(teacher)
    letters = len(vocabulary("puerta").input_ids)
    assert tokens_per_text(vocabulary, ["puerta"]) < letters


# ------------------------------------------------------------------ are they the same?


def test_vocabularies_are_the_same_where_every_id_is_the_same_token(
    own, teacher, tmp_path
):
    own.save_pretrained(tmp_path / "own")
    assert same_vocabulary(own, load_vocabulary(tmp_path / "own"))
    assert same_vocabulary(load_vocabulary(teacher), load_vocabulary(teacher))
    mixed = load_vocabulary(swapped(tmp_path / "own", tmp_path / "mixed"))
    assert len(mixed) == len(own) and not same_vocabulary(own, mixed)
    a, b = own.convert_ids_to_tokens([7, 9])
    assert differing_entries(own, mixed) == [(7, a, b), (9, b, a)]
    more = len(own)
    longer = own_vocabulary([*SOURCES, "ñ" * 9], REFERENCES, 60)
    assert differing_entries(own, longer)[-1] == (more, None, "<pad>")
    check_same_vocabulary(own, own)


def test_the_first_entries_that_differ_are_shown(own, tmp_path):
    own.save_pretrained(tmp_path / "own")
    mixed = load_vocabulary(swapped(tmp_path / "own", tmp_path / "mixed"))
    a, b = own.convert_ids_to_tokens([7, 9])
    with pytest.raises(OtherVocabulary) as error:
        check_same_vocabulary(own, mixed)
    assert f"2 ids differ: 7 is {a!r} there and {b!r} here, 9 is" in error.value.given
    with pytest.raises(OtherVocabulary) as error:
        check_same_vocabulary(tiny.vocabulary(), own)
    assert f"own ({len(own)} entries)" in error.value.given
    assert f"another vocabulary ({tiny.SIZE})" in error.value.given


def test_of_a_teacher_built_in_memory_only_the_size_is_known(own):
    check_teacher(build_model(tiny.TINY, own, 1), own)
    with pytest.raises(OtherVocabulary, match=rf"\({tiny.SIZE}\)"):
        check_teacher(build_model(tiny.TINY, tiny.vocabulary(), 1), own)


# ------------------------------------------------------------------ word-level: refused


def refusals(labels, vocabulary, folder, place):
    """Every door to word-level distillation."""
    teacher = load_model(folder)
    examples = fixed_examples(SOURCES, labels, vocabulary)
    yield lambda: check_teacher(teacher, vocabulary)
    yield lambda: cache_corpus(SOURCES, labels, vocabulary, folder, place)
    yield lambda: learn("word", labels, vocabulary, 100, teacher=teacher)
    yield lambda: learn("on-policy", labels, vocabulary, 100, teacher=teacher)
    cache = cache_signals(teacher, examples[:3], k=4)
    yield lambda: learn("both", labels, vocabulary, 100, signals=cache)


def check_refusals(labels, vocabulary, folder, place):
    doors = 0
    for door in refusals(labels, vocabulary, folder, place):
        with pytest.raises(OtherVocabulary, match="vocabulary of its own") as error:
            door()
        assert "each id must be the same token in both" in error.value.wanted
        assert "Distil sequence-level" in error.value.todo
        doors += 1
    assert doors == 5 and not place.exists()


def test_word_level_is_refused_at_every_door(teacher, labels, tmp_path):
    fewer = own_vocabulary(SOURCES, labels, 35)
    assert len(fewer) < len(load_vocabulary(teacher))
    check_refusals(labels, fewer, teacher, tmp_path / "signals")


def test_word_level_is_refused_where_only_the_sizes_are_the_same(own, labels, tmp_path):
    """Where nothing else would fail: every number has its place, and means another."""
    save_model(build_model(tiny.TINY, own, 1), own, tmp_path / "teacher")
    mixed = load_vocabulary(swapped(tmp_path / "teacher", tmp_path / "mixed"))
    check_refusals(labels, mixed, tmp_path / "teacher", tmp_path / "signals")


def test_a_loss_that_gets_past_the_doors_still_says_it(own, labels, teacher):
    """As in a loop of one's own, which gives the models to the loss directly."""
    examples = fixed_examples(SOURCES[:4], labels[:4], own)
    batch = collate(examples, own.pad_token_id)
    student = build_model(Architecture(16, 32, 2, 1, 1), own, 1)
    other = build_model(Architecture(16, 32, 2, 1, 1), tiny.vocabulary(), 1)
    with pytest.raises(OtherVocabulary, match=rf"{len(own)} entries.*\({tiny.SIZE}\)"):
        live_loss(other, 0.0)(token_logits(student, batch, "float32"), batch)


# ------------------------------------------------------------------ texts: they work


def test_a_teacher_of_the_hub_teaches_a_student_of_another_vocabulary(
    teacher, labels, own, tmp_path
):
    """Labels, training, saving, loading, both engines: only texts pass between them."""
    fresh, _ = learn("sequence", labels, own, 100)
    student, _ = learn("sequence", labels, own, 12_000)
    said = {}
    for name, model in (("fresh", fresh), ("student", student)):
        folder = save_model(model, own, tmp_path / name, torch.float32)
        assert load_vocabulary(folder).is_fast
        for beam in (1, 4):
            engines = [
                open_translator(folder, engine, beam).translate(SOURCES)
                for engine in ("ctranslate2", "torch")
            ]
            assert len(SOURCES) >= 50 and engines[0] == engines[1]
            said[name, beam] = engines[0]
    before, after = (score(said[name, 1], labels).chrf for name in ("fresh", "student"))
    assert after > 25 and after > before + 15
    examples = fixed_examples(SOURCES, labels, own)
    untold, told = (validation_loss(m, examples) for m in (fresh, student))
    assert told < 0.5 * untold
