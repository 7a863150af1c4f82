"""Both engines say the same, and whatever is typed comes through in order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from kdcourse.commands.bench import report_speed
from kdcourse.errors import KdcourseError
from kdcourse.translation import decoding, sources
from kdcourse.translation.corpus import clean, normalise, read_wheel, split
from kdcourse.translation.decoding import (
    MAX_SOURCE_TOKENS,
    SHIPPED,
    CTranslate2Translator,
    SearchTranslator,
    TorchTranslator,
    Translator,
    model_folder,
    open_translator,
    split_long,
)
from kdcourse.translation.models import Architecture, build_model, save_model
from kdcourse.translation.vocabulary import EOS_ID, UNK_ID, train_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")
ENGINES = ("ctranslate2", "torch")
TINY = Architecture(d_model=32, ffn=64, heads=4, encoder_layers=2, decoder_layers=2)
PHRASES = """
Turn on the light|Turn off all lights in {area}|Set the temperature of {name}
The device is not connected|Enter the host and the port of your server
Wi-Fi signal strength|Could not connect to {host}. Check the password!
Battery level below 20 %|Open the cover?|Do you want to set up "Hue"?
""".replace("\n", "|")
SENTENCES = [phrase for phrase in PHRASES.split("|") if phrase]
ODD = [
    "",
    "   ",
    "日本語",  # nothing that the vocabulary knows
    "🔥",
    "Turn on 🔥 the light 日本",
    "Hello </s> world <pad> <unk>",
    "</s>",
    "two\nlines\u2028or\x0cthree\r",
    "{host}",
    "The device. " * 60,
    "light " * 200,
    "x" * 700,
    "日" * 700,
]


def tiny_vocabulary():
    return train_vocabulary(SENTENCES * 3, 150, alphabet="".join(SENTENCES) + "x/<>")


def save_tiny(folder: Path, seed: int = 1, stops: float = 0.0) -> Path:
    """A small model with random weights, its decisions sharp enough to have no ties.

    It runs on to the length limit; the higher ``stops``, the earlier it ends.
    """
    vocabulary = tiny_vocabulary()
    model = build_model(TINY, vocabulary, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3.0)
        model.final_logits_bias[0, EOS_ID] = stops
    return save_model(model, vocabulary, folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


class Echo(SearchTranslator):
    """A model that says what it hears: all that is left is the way to ids and back."""

    def __init__(self):
        super().__init__(tiny_vocabulary(), beam=1, threads=1)
        self.heard = []

    def search(self, batch):
        self.heard += batch
        return [list(one.ids) for one in batch]


@pytest.fixture(scope="module")
def echo():
    return Echo()


# ------------------------------------------------------------------ what comes through


def test_every_text_comes_back_from_a_model_that_echoes(echo):
    texts = [*ODD, *SENTENCES]
    assert echo.translate(texts) == [normalise(text) for text in texts]


def test_the_order_is_that_of_the_texts_even_when_shuffled_or_repeated(echo):
    texts = [*ODD, *SENTENCES] * 2
    random.Random(5).shuffle(texts)
    assert echo.translate(texts) == [normalise(text) for text in texts]


def test_typed_special_tokens_are_text(echo):
    vocabulary = echo.vocabulary
    source = echo.encoder.encode("a </s> b <pad> c <unk>")
    assert source.ids[-1] == EOS_ID and EOS_ID not in source.ids[:-1]
    assert vocabulary.pad_token_id not in source.ids and UNK_ID not in source.ids


def test_ordinary_text_is_cut_as_in_training(echo):
    for text in SENTENCES:
        assert list(echo.encoder.encode(text).ids) == echo.vocabulary(text).input_ids


def test_the_kth_unknown_becomes_the_kth_unknown_run_of_the_source(echo):
    source = echo.encoder.encode("the 日本 light 🔥🔥")
    assert source.unknowns == ("日本", "🔥🔥")
    light = echo.encoder.encode("light").ids[:-1]
    space = echo.vocabulary.convert_tokens_to_ids("▁")
    ids = [space, UNK_ID, *light, space, UNK_ID, space, UNK_ID, EOS_ID]
    assert echo.encoder.decode(ids, source.unknowns) == "日本 light 🔥🔥"


def test_what_has_no_known_character_is_not_sent_to_the_model():
    echo = Echo()
    assert echo.translate(["日本語", "🔥 💡", "", " \t"]) == ["日本語", "🔥 💡", "", ""]
    assert echo.heard == []


def test_an_empty_hypothesis_gives_the_source_back(monkeypatch):
    echo = Echo()
    monkeypatch.setattr(echo, "search", lambda batch: [[EOS_ID]] * len(batch))
    assert echo.translate(["Turn  on", ""]) == ["Turn on", ""]


def test_long_lines_are_cut_at_sentence_ends_else_spaces_else_anywhere(echo):
    sentences = "Turn on. " * 100
    pieces = split_long(normalise(sentences), echo.encoder, 40)
    assert len(pieces) > 3 and all(piece.endswith("on.") for _, piece in pieces)
    words = "light " * 100
    pieces = split_long(normalise(words), echo.encoder, 40)
    assert {word for _, piece in pieces for word in piece.split()} == {"light"}
    assert [gap for gap, _ in pieces] == ["", *[" "] * (len(pieces) - 1)]
    pieces = split_long("x" * 1000, echo.encoder, 40)
    assert len(pieces) > 10 and {gap for gap, _ in pieces} == {""}


def test_no_piece_is_longer_than_the_model_was_trained_on():
    echo = Echo()
    texts = [normalise(text) for text in ODD]
    mixed = "light! " * 90 + "x" * 900 + " " + "The device, " * 70
    assert echo.translate([*texts, mixed])[-1] == normalise(mixed)
    assert len(echo.heard) > 15
    assert max(len(source.ids) for source in echo.heard) <= MAX_SOURCE_TOKENS + 8


@pytest.mark.parametrize("given", ["one string", [b"bytes"], ["a", None]])
def test_anything_but_a_list_of_strings_is_refused(echo, given):
    with pytest.raises(KdcourseError, match="list of strings"):
        echo.translate(given)


# ------------------------------------------------------------------ the two engines


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed, stops", [(1, 0.0), (1, 5.0), (2, 10.0)])
def test_both_engines_say_the_same(tmp_path, seed, stops, beam):
    """Whether hypotheses end at the limit, early, or at once with nothing said."""
    folder = save_tiny(tmp_path, seed, stops)
    texts = [*SENTENCES, *ODD[:9], "light " * 30]
    both = [open_translator(folder, engine, beam) for engine in ENGINES]
    said = [translator.translate(texts) for translator in both]
    assert said[0] == said[1]
    assert len(set(said[0])) > 12  # and not one answer to everything


def corpus_strings() -> list[str]:
    wheel = sources.own_wheel() or sources.cache_folder() / sources.WHEEL
    if not wheel.is_file():
        pytest.skip("run first: python -m kdcourse fetch")
    parts, _ = split(clean(read_wheel(wheel, "es"))[0])
    rows = random.Random(11).sample(parts["test"], 200)
    return [row.source for row in rows]


@pytest.fixture(scope="module")
def real_strings(own_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KDCOURSE_CACHE")
        if own_cache is not None:  # where the user keeps the corpus
            patch.setenv("KDCOURSE_CACHE", own_cache)
        return corpus_strings()


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_both_engines_say_the_same_with_the_shipped_models(model, beam, real_strings):
    if not (model_folder(model) / "model.safetensors").is_file():
        pytest.skip(f"no trained {model} is shipped yet in kdcourse/assets/models")
    said = [
        open_translator(model, engine, beam).translate(real_strings)
        for engine in ENGINES
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("beam", [1, 3])
def test_a_line_is_translated_alike_alone_and_among_others(tiny, engine, beam):
    translator = open_translator(tiny, engine, beam)
    texts = SENTENCES[:6]
    assert translator.translate(texts) == [translator.translate([t])[0] for t in texts]


@pytest.mark.parametrize("beam", [1, 2])
def test_the_length_limit_follows_the_source_in_both_engines(tiny, beam):
    """Random weights seldom stop by themselves: here the limit does."""
    found = []
    for engine in ENGINES:
        translator = open_translator(tiny, engine, beam)
        batch = [translator.encoder.encode(text) for text in SENTENCES[:4]]
        limit = max(one.limit for one in batch)
        batch = [one for one in batch if one.limit == limit]
        found.append(translator.search(batch))
        lengths = [len(ids) for ids in found[-1]]
        assert max(lengths) == limit < 100
    assert found[0] == found[1]


def test_int8_translates_too_and_is_smaller(tiny):
    whole = open_translator(tiny, compute_type="float32")
    small = open_translator(tiny, compute_type="int8")
    assert len(small.translate(SENTENCES)) == len(SENTENCES)
    sizes = [(t.folder / "model.bin").stat().st_size for t in (small, whole)]
    assert sizes[0] < 0.6 * sizes[1]  # a quarter, were it not for the tables


def test_both_are_translators_and_keep_to_their_threads(tiny, monkeypatch):
    torch.set_num_threads(1)
    kinds = (CTranslate2Translator, TorchTranslator)
    for engine, kind in zip(ENGINES, kinds, strict=True):
        translator = open_translator(tiny, engine, threads=2)
        assert isinstance(translator, Translator) and isinstance(translator, kind)
        assert translator.threads == 2 and torch.get_num_threads() == 1
    used = []

    def generate(inputs, **options):
        used.append(torch.get_num_threads())
        return inputs

    monkeypatch.setattr(translator.model, "generate", generate)
    translator.translate(["Turn on the light"])
    assert used == [2] and torch.get_num_threads() == 1


# ------------------------------------------------------------------ the converted model


def test_a_model_is_converted_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    folder, cache = save_tiny(tmp_path / "model"), tmp_path / "cache"
    first = decoding.converted_model(folder, "float32", cache)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_convert", None)
        assert decoding.converted_model(folder, "float32", cache) == first
    save_tiny(folder, seed=2)
    assert decoding.converted_model(folder, "float32", cache) != first
    assert decoding.converted_model(folder, "int8", cache) not in (first, None)
    assert len(list((cache / "ctranslate2").iterdir())) == 3


def test_half_a_conversion_is_never_found(tmp_path, monkeypatch):
    folder, cache = save_tiny(tmp_path / "model"), tmp_path / "cache"

    def stopped(folder, output, compute_type):
        output.mkdir()
        (output / "model.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_convert", stopped)
        with pytest.raises(KeyboardInterrupt):
            decoding.converted_model(folder, "float32", cache)
    assert list((cache / "ctranslate2").iterdir()) == []
    whole = decoding.converted_model(folder, "float32", cache) / "model.bin"
    assert whole.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KdcourseError, match="KDCOURSE_CACHE"):
        decoding.converted_model(tiny, "float32", tmp_path / "file")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_cannot_be_read_is_an_error_with_a_remedy(tiny, tmp_path, engine):
    for name in decoding.MODEL_FILES:
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(KdcourseError, match="cannot be read"):
        open_translator(tmp_path, engine)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(KdcourseError, match="not a Marian model"):
        open_translator(tmp_path, engine)


# ------------------------------------------------------------------ wrong options


@pytest.mark.parametrize(
    "options, said",
    [
        ({"engine": "cuda"}, "engine 'cuda'"),
        ({"compute_type": "int4"}, "compute type 'int4'"),
        ({"engine": "torch", "compute_type": "int8"}, "torch was asked for int8"),
        ({"beam": 0}, "beam is 0"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"model": "no/such/folder"}, "config.json, model.safetensors"),
    ],
)
def test_wrong_options_are_explained(options, said, tiny):
    with pytest.raises(KdcourseError, match=said):
        open_translator(**{"model": tiny, **options})


def test_the_shipped_models_have_a_place(root):
    for name in SHIPPED:
        assert model_folder(name) == root / "kdcourse" / "assets" / "models" / name
    assert model_folder("elsewhere/model") == Path("elsewhere/model")


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_model_with_a_file_cut_short_says_so(name, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    folder = save_tiny(tmp_path / "model")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-10])
    with pytest.raises(KdcourseError, match="cannot be read") as caught:
        open_translator(folder, engine)
    assert "copy the folder again" in str(caught.value)


def test_where_there_is_no_load_average_the_bench_still_reports():
    row = {"p50_ms": 1.0, "p95_ms": 2.0, "words_per_second": 345.0}
    row |= {"sentences": 3, "threads": 1, "load": None}
    ratios = {f"ratio same engine {p}": 12.0 for p in ("float32", "int8")}
    told = report_speed({"student int8": row, **ratios, "ratio newcomer": 60.0})
    assert "345 words/s" in told and "load unknown" in told and "60x" in told
