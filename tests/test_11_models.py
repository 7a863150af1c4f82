"""Vocabulary, models and made-up names: the contracts with every runtime."""

import json
import random
from collections import Counter
from string import ascii_letters

import pytest
import tiny
import torch

from kdcourse.errors import KdcourseError
from kdcourse.translation.augmentation import Augmenter, name_spans
from kdcourse.translation.corpus import placeholders
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.models import (
    STUDENT,
    Architecture,
    build_model,
    count_parameters,
    grow,
    load_model,
    save_model,
    shrink,
    spread,
)
from kdcourse.translation.pipeline import read_recipe
from kdcourse.translation.training import (
    Example,
    collate,
    reference_loss,
    student_logits,
    token_logits,
)
from kdcourse.translation.vocabulary import (
    EOS_ID,
    SubwordSampler,
    load_vocabulary,
    train_vocabulary,
)


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


def test_special_ids_are_where_the_runtimes_expect_them(vocabulary):
    pieces = vocabulary.convert_ids_to_tokens([0, 1, len(vocabulary) - 1])
    assert pieces == ["</s>", "<unk>", "<pad>"]
    assert vocabulary.pad_token_id == len(vocabulary) - 1 == tiny.PAD


def test_text_comes_back_with_eos_at_the_end(vocabulary, tmp_path):
    vocabulary.save_pretrained(tmp_path)
    for known in (vocabulary, load_vocabulary(tmp_path)):
        ids = known(["open door {host}"])["input_ids"][0]
        assert ids[-1] == EOS_ID
        assert known.decode(ids, skip_special_tokens=True) == "open door {host}"


def test_sampled_subwords_vary_but_spell_the_same(vocabulary):
    sampler, rng = SubwordSampler(vocabulary), random.Random(1)
    cuts = [sampler.encode("battery window", rng) for _ in range(30)]
    assert len({tuple(c) for c in cuts}) > 3
    texts = {vocabulary.decode(c, skip_special_tokens=True) for c in cuts}
    assert texts == {"battery window"}


def test_what_may_be_a_name_is_cut_the_same_on_both_sides(vocabulary):
    sampler, rng = SubwordSampler(vocabulary), random.Random(1)
    for word in ("Battery", "battery2", "{battery}", "xBox", "battery_window"):
        best = vocabulary([word])["input_ids"][0]
        assert all(sampler.encode(word, rng) == best for _ in range(20)), word


def test_the_likeliest_sample_is_the_tokenizers_own(vocabulary):
    """Against the library: with a large alpha only the best segmentation is left."""
    sampler = SubwordSampler(vocabulary, alpha=1000.0)
    for text in (*tiny.pairs(30)[0], "Alexa {host}", "日本 door", "x日y"):
        assert (
            sampler.encode(text, random.Random(1)) == vocabulary([text])["input_ids"][0]
        )


def test_equal_seeds_give_equal_weights_and_leave_the_stream_alone(vocabulary):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (build_model(tiny.TINY, vocabulary, 3) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_pad_row_stays_zero_and_the_pad_is_never_said(vocabulary):
    """CTranslate2 starts decoding from zeros: a pad row that learns breaks parity."""
    model = build_model(tiny.TINY, vocabulary, 1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    batch = collate(
        [Example([5, 0], [7, 0]), Example([5, 6, 0], [7, 8, 9, 0])], tiny.PAD
    )
    for _ in range(3):
        logits = token_logits(model, batch, "float32")
        reference_loss(logits, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    embedding = model.get_input_embeddings().weight
    assert (embedding[tiny.PAD] == 0).all()
    assert (embedding[7] != 0).any()
    assert logits.softmax(-1)[..., tiny.PAD].max() < 1e-12


def test_positions_do_not_train_and_do_not_count(vocabulary, tmp_path):
    model = build_model(tiny.TINY, vocabulary, 1)
    save_model(model, vocabulary, tmp_path)
    loaded = load_model(tmp_path)
    for one in (model, loaded):
        table = one.model.encoder.embed_positions.weight
        assert not table.requires_grad
    assert count_parameters(model) == count_parameters(loaded)


def test_parameters_are_counted_by_the_formula(vocabulary):
    d, f, v = 32, 64, len(vocabulary)
    attention = 4 * d * d + 4 * d
    feed_forward = 2 * d * f + d + f
    norm = 2 * d
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    model = build_model(tiny.TINY, vocabulary, 1)
    assert count_parameters(model) == v * d + encoder + decoder


@pytest.mark.parametrize(("size", "alphabet"), [(8, ""), (10, ""), (40, ascii_letters)])
def test_a_vocabulary_without_room_for_the_alphabet_is_refused(size, alphabet):
    with pytest.raises(KdcourseError, match=f"of {size} entries for texts of"):
        train_vocabulary(["hello world"] * 20, size, alphabet=alphabet)


RECIPES = ("teacher", "student")


def test_the_student_is_under_a_tenth_of_the_teacher():
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijklmnop"]
    small = train_vocabulary(words, 60)
    extra = 4000 - len(small)  # the shipped vocabulary has 4,000 entries
    sizes = [Architecture(**read_recipe(n)["architecture"]) for n in RECIPES]
    teacher, student = (
        count_parameters(build_model(a, small, 1)) + extra * a.d_model for a in sizes
    )
    assert sizes[1] == STUDENT
    assert teacher >= 10_000_000
    assert student <= teacher / 10


DEEPER = Architecture(32, 64, 2, 3, 2, dropout=0.1)


def test_a_grown_model_says_what_it_said_and_then_learns(vocabulary):
    base = build_model(tiny.TINY, vocabulary, 1)
    grown = grow(base, vocabulary, DEEPER)
    layers = [len(s.layers) for s in (grown.model.encoder, grown.model.decoder)]
    assert layers == [3, 2]
    sources, targets = tiny.pairs(8)
    batch = collate(fixed_examples(sources, targets, vocabulary), tiny.PAD)
    # A fresh norm after a fresh norm changes nothing, so here the two are equal.
    before, after = (student_logits(m.eval(), batch, "float32") for m in (base, grown))
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)
    after.logsumexp(-1).sum().backward()
    assert grown.model.decoder.layers[1].fc2.weight.grad.abs().sum() > 0
    assert grown.get_input_embeddings().weight.grad[tiny.PAD].abs().sum() == 0


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (Architecture(16, 64, 2, 3, 2), "d_model cannot grow from 32 to 16"),
        (Architecture(32, 64, 4, 3, 2), "heads cannot grow from 2 to 4"),
        (Architecture(32, 64, 2, 3, 0), "decoder cannot shrink from 1 layers to 0"),
    ],
)
def test_only_layers_can_be_added(vocabulary, architecture, words):
    with pytest.raises(KdcourseError, match=words):
        grow(build_model(tiny.TINY, vocabulary, 1), vocabulary, architecture)


def test_a_shrunk_model_starts_with_the_teachers_layers(vocabulary):
    teacher = build_model(DEEPER, vocabulary, 3)
    student = shrink(teacher, vocabulary, Architecture(32, 64, 2, 2, 1, dropout=0.0))
    kept = student.model.encoder.layers
    for layer, source in ((0, 0), (1, 2)):  # evenly spaced: the first and the last
        theirs = teacher.model.encoder.layers[source].state_dict()
        for name, value in kept[layer].state_dict().items():
            assert torch.equal(value, theirs[name])
    assert torch.equal(
        student.get_input_embeddings().weight, teacher.get_input_embeddings().weight
    )
    assert student.lm_head.weight is student.get_input_embeddings().weight
    kept[0].fc1.weight.data.zero_()  # a copy: the teacher is not touched
    assert teacher.model.encoder.layers[0].fc1.weight.abs().sum() > 0
    whole = shrink(teacher, vocabulary, DEEPER)
    batch = collate(fixed_examples(*tiny.pairs(4), vocabulary), tiny.PAD)
    same = (student_logits(m.eval(), batch, "float32") for m in (teacher, whole))
    torch.testing.assert_close(*same)


def test_evenly_spaced_layers():
    assert [spread(n, 7) for n in (1, 2, 3, 7)] == [[0], [0, 6], [0, 3, 6], [*range(7)]]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (Architecture(16, 64, 2, 1, 1), "d_model 32 cannot be copied to 16"),
        (Architecture(32, 64, 2, 4, 1), "encoder has 3 layers, not 4"),
    ],
)
def test_what_cannot_be_copied_is_said(vocabulary, architecture, words):
    with pytest.raises(KdcourseError, match=words):
        shrink(build_model(DEEPER, vocabulary, 1), vocabulary, architecture)


def test_saved_in_halves_tied_once_and_loaded_in_float32(vocabulary, tmp_path):
    model = build_model(tiny.TINY, vocabulary, 1)
    save_model(model, vocabulary, tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 2 * count_parameters(model) + 20_000  # tied matrices written once
    assert next(model.parameters()).dtype == torch.float32  # the original is untouched
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["use_cache"] is True
    loaded = load_model(tmp_path)
    for a, b in zip(model.parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
    assert loaded.final_logits_bias[0, -1] == -40.0


def test_a_missing_folder_is_said_with_its_remedy(tmp_path):
    with pytest.raises(KdcourseError, match="config.json is missing"):
        load_model(tmp_path)
    with pytest.raises(KdcourseError, match="tokenizer.json is missing"):
        load_vocabulary(tmp_path)


def test_a_pad_that_is_not_last_is_refused(vocabulary):
    vocabulary = tiny.vocabulary()
    vocabulary.pad_token = "</s>"
    with pytest.raises(KdcourseError, match="<pad> has id 0"):
        build_model(tiny.TINY, vocabulary, 1)


# --- made-up names ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "spans"),
    [
        (
            "A Better Routeplanner is offline",
            "A Better Routeplanner está desconectado",
            ["A Better Routeplanner"],
        ),
        ("Connect to Philips Hue", "Conectar con Philips Hue", ["Philips Hue"]),
        ("Battery", "Batería", []),
        ("The {HOST} failed", "Falló {HOST}", []),
        ("Set up Wi-Fi", "Configurar wifi", []),
    ],
)
def test_names_are_what_stands_word_for_word_on_both_sides(source, target, spans):
    assert name_spans(source, target) == spans


def test_exchanged_names_stand_on_both_sides_and_nothing_else_changes():
    augment, rng = Augmenter(["Philips Hue", "Alexa"], 1.0), random.Random(2)
    changed = 0
    for _ in range(200):
        source, target = augment(
            "Philips Hue reached {host}", "Philips Hue alcanzó {host}", rng
        )
        assert " reached {" in source and " alcanzó {" in target
        assert source.split(" reached ")[0] == target.split(" alcanzó ")[0]
        assert placeholders(source) == placeholders(target)
        changed += source.split(" reached ")[0] != "Philips Hue"
    assert 100 < changed < 180  # seven in ten


def test_brands_are_one_name_each_and_built_from_ordinary_words():
    texts = ["open door now", "Alexa {host} cloud"]
    augment, rng = Augmenter([], 1.0, texts), random.Random(4)
    assert augment.ordinary == ["cloud", "door", "now", "open"]
    brands = [augment.brand(rng) for _ in range(300)]
    for brand in brands:
        assert name_spans(f"{brand} is on", f"{brand} está activa") == [brand]
    assert any(brand[0].islower() for brand in brands)
    known = [b for b in brands if any(w in b.lower() for w in augment.ordinary)]
    assert 200 < len(known) < 300


def test_rows_without_a_name_sometimes_get_one_at_an_end():
    augment, rng = Augmenter([], 1.0), random.Random(3)
    outs = [augment("door is open", "puerta abierta", rng) for _ in range(400)]
    given = [(s, t) for s, t in outs if s != "door is open"]
    assert 30 < len(given) < 100  # about 15 in a hundred
    for source, target in given:
        assert source.replace("door is open", "") == target.replace(
            "puerta abierta", ""
        )


def test_augmentation_is_reproducible_and_mostly_off():
    augment = Augmenter(["Alexa"], 0.4)
    rows = [("Alexa is on", "Alexa está activa")] * 300
    outs = [
        [augment(s, t, random.Random(f"7/{i}")) for i, (s, t) in enumerate(rows)]
        for _ in range(2)
    ]
    assert outs[0] == outs[1]
    assert Counter(out == rows[0] for out in outs[0])[True] > 150


@pytest.mark.parametrize("late", ["weights", "vocabulary"])
def test_a_killed_save_leaves_no_half_model(late, vocabulary, tmp_path, monkeypatch):
    model = build_model(tiny.TINY, vocabulary, 1)

    def killed(*given, **how):
        raise KeyboardInterrupt

    saving = {"weights": "save_file", "vocabulary": None}[late]
    if saving:
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", killed)
    else:
        monkeypatch.setattr(type(vocabulary), "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, vocabulary, tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    monkeypatch.undo()
    save_model(model, vocabulary, tmp_path / "model")
    load_model(tmp_path / "model")
    assert not (tmp_path / "model" / "partial").exists()
