"""A translator in the format of Helsinki-NLP/opus-mt takes the place of our own."""

from __future__ import annotations

import io
import random
import shutil
import sys
import time
from pathlib import Path

import huggingface_hub
import opus_format
import pytest
import tiny
import torch
from datasets import Dataset
from opus_format import FILES, make_opus, write_json
from transformers import MarianMTModel, MarianTokenizer

from kdcourse import __main__ as cli
from kdcourse.errors import KdcourseError
from kdcourse.study import offline
from kdcourse.theory.divergences import forward_kl
from kdcourse.translation.caching import SignalCache, cache_corpus
from kdcourse.translation.corpus import normalise
from kdcourse.translation.decoding import (
    SearchTranslator,
    model_hash,
    open_translator,
)
from kdcourse.translation.distil import distil
from kdcourse.translation.encoding import OpusEncoder
from kdcourse.translation.examples import encode_targets, fixed_examples
from kdcourse.translation.hub import model_folder
from kdcourse.translation.labelling import label_corpus
from kdcourse.translation.models import build_model, load_model, save_model
from kdcourse.translation.opus import without_advice
from kdcourse.translation.own_vocabulary import OtherVocabulary, same_vocabulary
from kdcourse.translation.publishing import facts_of
from kdcourse.translation.trainer import DistillationTrainer, arguments
from kdcourse.translation.trainer_data import encode
from kdcourse.translation.training import (
    collate,
    reference_loss,
    token_logits,
)
from kdcourse.translation.vocabulary import (
    EOS_ID,
    UNK_ID,
    SubwordSampler,
    load_vocabulary,
)

pytestmark = pytest.mark.usefixtures("own_cache")
ENGINES = ("ctranslate2", "torch")
NAME = "Helsinki-NLP/opus-mt-en-es"
SOURCES, REFERENCES = tiny.pairs(60, seed=9)
ODD = [
    "",
    "  ",
    "日本語",
    "turn 🔥 the light 日本",
    "turn </s> light <pad> door <unk>",
    "</s>",
    ">>fra<< open door",
    "ｏpen ｄoor {name}",  # full-width letters
    "open door. " * 60,
    "x" * 700,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_opus(tmp_path_factory.mktemp("opus"))


@pytest.fixture(scope="module")
def vocabulary(folder):
    return load_vocabulary(folder)


def copy(folder, place):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, place))


# ------------------------------------------------------------------ the vocabulary


def test_the_folder_has_the_hubs_files_and_the_vocabulary_the_hubs_order(
    folder, vocabulary
):
    assert {path.name for path in folder.iterdir()} == FILES
    assert isinstance(vocabulary, MarianTokenizer) and not vocabulary.is_fast
    pieces = vocabulary.convert_ids_to_tokens(range(len(vocabulary)))
    assert pieces[:2] == ["</s>", "<unk>"] and pieces[-1] == "<pad>"
    assert load_model(folder).config.vocab_size == len(vocabulary)


def test_no_advice_is_given_that_nobody_needs(folder, recwarn):
    open_translator(folder).translate(["open door"])
    assert not [w for w in recwarn if "sacremoses" in str(w.message)]


def test_ordinary_text_is_cut_as_the_tokenizer_cuts_it(vocabulary):
    encoder = OpusEncoder(vocabulary)
    for text in [*SOURCES, "turn  Alexa {name}", "ｏpen ﬁne… ＡＢ"]:
        assert (
            list(encoder.encode(normalise(text)).ids)
            == vocabulary(normalise(text)).input_ids
        )


def test_typed_special_tokens_are_text(vocabulary):
    ids = OpusEncoder(vocabulary).encode("turn </s> light <pad> door >>fra<<").ids
    assert ids[-1] == EOS_ID and EOS_ID not in ids[:-1]
    assert vocabulary.pad_token_id not in ids
    assert EOS_ID in vocabulary("turn </s> light").input_ids[:-1]  # the tokenizer's own


def test_an_unknown_run_that_spells_a_special_token_is_text(folder, tmp_path):
    """SentencePiece gives unknown neighbours as one piece, whatever they spell."""
    place = copy(folder, tmp_path / "copy")
    (place / "source.spm").write_bytes(opus_format.unigram(["tata", "nata"], 8))
    vocabulary = load_vocabulary(place)
    assert "</s>" in vocabulary.spm_source.encode("tata </s>", out_type=str)
    source = OpusEncoder(vocabulary).encode("tata </s>")
    assert EOS_ID not in source.ids[:-1] and source.unknowns[-1] == "</s>"


def test_the_kth_unknown_becomes_the_kth_unknown_run_of_the_source(vocabulary):
    encoder = OpusEncoder(vocabulary)
    source = encoder.encode("turn 日本 light 🔥")
    assert source.unknowns == ("日本", "🔥")
    turn = vocabulary.convert_tokens_to_ids("▁turn")
    space = vocabulary.convert_tokens_to_ids("▁")
    ids = [space, UNK_ID, turn, space, UNK_ID, EOS_ID, vocabulary.pad_token_id]
    assert encoder.decode(ids, source.unknowns) == "日本 turn 🔥"


def test_what_is_typed_comes_back_from_a_model_that_echoes(vocabulary):
    class Echo(SearchTranslator):
        def search(self, batch):
            return [list(one.ids) for one in batch]

    texts = [*ODD, *SOURCES]
    plain = [t.replace("ｏ", "o").replace("ｄ", "d") for t in texts]  # as source.spm
    said = Echo(vocabulary, 1, 1).translate(texts)
    assert said == [normalise(text) for text in plain]


def test_sources_and_targets_are_cut_by_their_own_models(vocabulary):
    """Cut as sources, targets have valid ids that the teacher never says."""
    wanted = vocabulary(text_target=REFERENCES)["input_ids"]
    as_sources = vocabulary(REFERENCES)["input_ids"]
    assert all(a != b for a, b in zip(wanted, as_sources, strict=True))
    assert encode_targets(REFERENCES, vocabulary) == wanted
    examples = fixed_examples(SOURCES, REFERENCES, vocabulary)
    assert [e.target for e in examples] == wanted
    sources = vocabulary(SOURCES)["input_ids"]
    assert [e.source for e in examples] == sources
    data = encode(SOURCES, REFERENCES, vocabulary)
    assert data["input_ids"][:] == sources and data["labels"][:] == wanted


def test_sampled_subwords_vary_and_the_likeliest_are_the_tokenizers(vocabulary):
    texts = [*SOURCES[:20], "turn Alexa {name} 🔥", "ｏpen door"]
    sure = SubwordSampler(vocabulary, nbest=1)
    for text in texts:
        assert sure.encode(text, random.Random(1)) == vocabulary(text).input_ids
    wild, rng = SubwordSampler(vocabulary, alpha=0.1), random.Random(1)
    drawn = {tuple(wild.encode("turn light device", rng)) for _ in range(50)}
    assert len(drawn) > 1
    assert {vocabulary.decode(ids, skip_special_tokens=True) for ids in drawn} == {
        "turn light device"
    }


# ------------------------------------------------------------------ translating


@pytest.mark.parametrize("beam", [1, 4])
def test_both_engines_say_the_same(folder, beam):
    assert len(SOURCES) >= 50
    texts = [*SOURCES, *ODD]
    said = [open_translator(folder, e, beam).translate(texts) for e in ENGINES]
    assert said[0] == said[1]
    assert len(set(said[0])) > 40  # no two sentences in three are said alike


def test_it_says_what_transformers_alone_says(folder):
    """As the Hub's model card has it, with nothing of ours."""
    ours = dict(zip(SOURCES, open_translator(folder).translate(SOURCES), strict=True))
    texts = [source for source, said in ours.items() if len(said) < 60]  # no loops
    assert len(texts) > 40
    with without_advice():
        tokenizer = MarianTokenizer.from_pretrained(folder)
    model = MarianMTModel.from_pretrained(folder)
    assert model.generation_config.num_beams == 4
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    output = model.generate(**batch, num_beams=1)
    said = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert [ours[text] for text in texts] == said


def test_the_pad_takes_no_share_of_the_teachers_distribution(folder, vocabulary):
    """Its logit is 0 in the Hub's weights; a softmax over it gives mass away."""
    batch = collate(
        fixed_examples(SOURCES, REFERENCES, vocabulary), vocabulary.pad_token_id
    )
    raw = MarianMTModel.from_pretrained(folder).eval()
    assert (token_logits(raw, batch, "float32")[:, -1] == 0).all()
    logits = token_logits(load_model(folder), batch, "float32").detach()
    assert logits.softmax(dim=1)[:, -1].max() < 1e-12
    others = token_logits(raw, batch, "float32").detach()[:, :-1].log_softmax(dim=1)
    torch.testing.assert_close(logits[:, :-1].log_softmax(dim=1), others)


def test_the_command_line_takes_the_folder(folder, monkeypatch, capsysbinary):
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(SOURCES[:5]).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["translate", "--model", str(folder), "--beam", "4"]) == 0
    said = capsysbinary.readouterr().out.decode().splitlines()
    assert said == open_translator(folder, "torch", 4).translate(SOURCES[:5])


@pytest.mark.parametrize(
    "name", sorted(FILES - {"generation_config.json", "tokenizer_config.json"})
)
def test_the_hash_covers_weights_settings_and_all_of_the_vocabulary(
    folder, tmp_path, name
):
    place = copy(folder, tmp_path / "copy")
    assert model_hash(place) == model_hash(folder)
    with (place / name).open("ab") as file:
        file.write(b" ")
    assert model_hash(place) != model_hash(folder)
    (place / name).unlink()
    with pytest.raises(KdcourseError, match="not found") as error:
        model_hash(place)
    wanted = {"pytorch_model.bin": "model.safetensors"}.get(name, name)
    assert wanted in error.value.given


# ------------------------------------------------------------------ by its name


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the Hub's models, and no way to the Hub."""
    place = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place))
    return place


def downloaded(folder, cache) -> Path:
    """The cache as ``hf download`` leaves it."""
    repository = cache / "models--Helsinki-NLP--opus-mt-en-es"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("5bf3b4a")
    return copy(folder, repository / "snapshots" / "5bf3b4a")


def test_a_downloaded_model_is_found_by_its_name(folder, hub_cache, tmp_path):
    snapshot = downloaded(folder, hub_cache)
    assert model_folder(NAME) == snapshot
    assert model_hash(NAME) == model_hash(folder)
    wanted = open_translator(folder).translate(SOURCES[:9])
    assert open_translator(NAME).translate(SOURCES[:9]) == wanted
    assert load_vocabulary(NAME).encoder == load_vocabulary(folder).encoder
    assert load_model(NAME).config.vocab_size == len(load_vocabulary(NAME))
    labels = label_corpus(SOURCES[:9], NAME, tmp_path / "l", compute_type="float32")
    assert labels.manifest["teacher"] == model_hash(folder)


@pytest.mark.parametrize("variable", [None, "1"])
def test_one_that_was_not_downloaded_is_an_error_at_once(
    hub_cache, monkeypatch, variable
):
    """Also where the network is not declared to be off: nothing is asked for."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", bool(variable))
    refused = []
    monkeypatch.setattr(offline, "is_local", lambda host: refused.append(host))
    monkeypatch.setattr(time, "sleep", refused.append)
    with pytest.raises(KdcourseError, match="no model of that name") as error:
        open_translator(NAME)
    assert f"hf download {NAME}" in error.value.todo
    assert refused == []
    with pytest.raises(KdcourseError, match="hf download"):
        label_corpus(SOURCES, NAME, hub_cache / "labels")


def test_half_a_download_is_named(folder, hub_cache):
    snapshot = downloaded(folder, hub_cache)
    (snapshot / "target.spm").unlink()
    with pytest.raises(KdcourseError, match="target.spm not found") as error:
        open_translator(NAME)
    assert f"hf download {NAME}" in error.value.todo


def test_a_folder_comes_before_the_hub(folder, hub_cache, tmp_path, monkeypatch):
    downloaded(folder, hub_cache)
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir(parents=True)
    assert model_folder(NAME) == Path(NAME)


# ------------------------------------------------------------------ what is not of it


def test_damaged_files_are_an_error_with_a_remedy(folder, tmp_path):
    place = copy(folder, tmp_path / "copy")
    weights = place / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:-1000])
    for engine in ENGINES:
        with pytest.raises(KdcourseError, match="cannot be read"):
            open_translator(place, engine)
    (place / "source.spm").write_bytes(b"no model")
    with pytest.raises(KdcourseError, match="vocabulary in .* cannot be read"):
        load_vocabulary(place)
    (place / "vocab.json").write_text("{")
    with pytest.raises(KdcourseError, match="vocabulary in .* cannot be read"):
        load_vocabulary(place)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids | {"</s>": ids["▁turn"], "▁turn": 0}, "</s> "),
        (lambda ids: ids | {"<pad>": ids["s"], "s": ids["<pad>"]}, "<pad> "),
        (lambda ids: ids | {"▁turn": ids["▁door"]}, "not one each"),
        (
            lambda ids: {
                {"▁turn": ">>fra<<", "▁door": ">>spa<<"}.get(piece, piece): index
                for piece, index in ids.items()
            },
            "2 target languages",
        ),
    ],
)
def test_ids_in_another_order_are_refused(folder, tmp_path, change, said):
    place = copy(folder, tmp_path / "copy")
    write_json(place / "vocab.json", change(load_vocabulary(folder).encoder))
    with pytest.raises(KdcourseError, match=said) as error:
        load_vocabulary(place)
    assert "</s> 0, <unk> 1" in error.value.wanted


def test_it_is_not_published_with_a_card_that_would_not_hold(folder):
    with pytest.raises(KdcourseError, match="no model.safetensors and no tokenizer"):
        facts_of(folder)


# ------------------------------------------------------------------ teaching


def test_it_labels_a_corpus(folder, tmp_path):
    labels = label_corpus(SOURCES, folder, tmp_path / "a", compute_type="float32")
    wanted = open_translator(folder, "torch", 4).translate(SOURCES)
    assert [labels[source] for source in SOURCES] == wanted
    several = label_corpus(SOURCES[:9], folder, tmp_path / "b", candidates=3)
    assert len(several.candidates(SOURCES[0])) > 1
    drawn = label_corpus(
        SOURCES[:9], folder, tmp_path / "c", candidates=4, search="samples"
    )
    known = {*"".join([*tiny.WORDS, *tiny.WORDS.values(), *opus_format.SHARED]), " "}
    assert all({*text} <= known for s in SOURCES[:9] for text in drawn.candidates(s))


def test_a_student_that_takes_over_its_vocabulary_learns_word_level(
    folder, vocabulary, tmp_path
):
    """Ids are the same tokens in both, and its answers bring the student closer."""
    labels = label_corpus(SOURCES, folder, tmp_path / "labels")
    targets = [labels[source] for source in SOURCES]
    cache_corpus(SOURCES, targets, vocabulary, folder, tmp_path / "signals", k=8)
    signals = SignalCache.load(
        tmp_path / "signals", SOURCES, targets, vocabulary, teacher=folder
    )
    teacher = load_model(folder)
    examples = fixed_examples(SOURCES, targets, vocabulary)
    batch = collate(examples, vocabulary.pad_token_id)
    asked = token_logits(teacher, batch, "float32").detach()
    best = signals.signal(batch).indices[:, 0].long()
    assert torch.equal(best, asked.argmax(dim=1))
    # Teacher-forced on its own translation, the teacher says that translation again,
    # but where its beam chose otherwise; with ids mixed up it would in 1 of 100.
    assert (best == batch.real_labels).float().mean() > 0.8

    fresh, _ = learn("both", targets, vocabulary, 200, signals=signals)
    taught, _ = learn("both", targets, vocabulary, 6_000, signals=signals)
    live, _ = learn("both", targets, vocabulary, 3_000, teacher=teacher)

    def divergence(model):
        """The word-level loss itself, from the whole of the teacher's distribution."""
        logits = token_logits(model, batch, "float32").detach()
        found = forward_kl(student_logits=logits, teacher_logits=asked)
        return float(found.mean())

    start, cached, asked_live = map(divergence, (fresh, taught, live))
    assert cached < 0.5 * start and asked_live < 0.8 * start

    save_model(taught, vocabulary, tmp_path / "student", torch.float32)
    kept = load_vocabulary(tmp_path / "student")
    assert isinstance(kept, MarianTokenizer) and same_vocabulary(vocabulary, kept)
    said = [
        open_translator(tmp_path / "student", engine).translate(SOURCES)
        for engine in ENGINES
    ]
    assert said[0] == said[1] and len({*said[0]}) > 10


def learn(method, targets, vocabulary, budget, **answers):
    return distil(
        method,
        SOURCES,
        targets,
        vocabulary,
        tiny.recipe(budget, group_by="source", average_decay=0.9),
        architecture=tiny.TINY,
        **answers,
    )


def test_transformers_own_trainer_takes_it_as_well(folder, vocabulary, tmp_path):
    rows = zip(SOURCES, REFERENCES, strict=True)
    data = Dataset.from_dict({"translation": [{"en": s, "es": t} for s, t in rows]})
    settings = {"per_device_train_batch_size": 8, "max_steps": 40, "disable_tqdm": True}
    settings |= {"save_strategy": "no", "logging_strategy": "no"}

    def trainer(vocabulary):
        student = build_model(tiny.TINY, vocabulary, 1)
        how = arguments(tmp_path, tiny.recipe(), **settings)
        return DistillationTrainer(
            student, how, data, data, vocabulary, method="word", teacher=folder
        )

    run = trainer(vocabulary)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < 0.7 * before
    run.save_model(tmp_path / "student")
    said = [
        open_translator(tmp_path / "student", e).translate(SOURCES) for e in ENGINES
    ]
    assert said[0] == said[1]
    with pytest.raises(OtherVocabulary, match="ids differ"):
        trainer(tiny.vocabulary())


def test_wrong_pieces_cost_the_teacher_its_certainty(folder, vocabulary):
    """What encoding a target as a source does, measured: the teacher is surprised."""
    said = open_translator(folder).translate(SOURCES)
    right = fixed_examples(SOURCES, said, vocabulary)
    wrong = [
        type(e)(e.source, ids)
        for e, ids in zip(right, vocabulary(said)["input_ids"], strict=True)
    ]
    teacher, pad = load_model(folder), vocabulary.pad_token_id

    def nats(examples):
        batch = collate(examples, pad)
        logits = token_logits(teacher, batch, "float32").detach()
        return float(reference_loss(logits, batch)) / batch.tokens

    assert nats(wrong) > 5 * nats(right)
