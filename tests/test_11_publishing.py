"""The folder for the Hub: it loads anywhere, says what it is, and uploads nothing."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest
import tiny
import torch
import yaml
from ctranslate2.converters.transformers import main as transformers_converter
from huggingface_hub import ModelCard
from transformers import AutoTokenizer, MarianMTModel, PreTrainedTokenizerFast

from kdcourse.__main__ import main
from kdcourse.errors import KdcourseError
from kdcourse.translation import publishing
from kdcourse.translation.decoding import model_folder, open_translator
from kdcourse.translation.models import build_model, load_model, save_model
from kdcourse.translation.publishing import facts_of, publish

SENTENCES = [
    "Turn on the light.",
    "The device is already configured.",
    "Battery level",
    "Enter the name of your {device}.",
    "Could not connect to the server, try again later.",
    "Reload",
]
FACTS = {
    "name": "tiny",
    "languages": ["en", "es"],
    "licence": "Apache-2.0",
    "data": "hub:some/set:en-es, train",
    "method": "sequence",
}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return publish("student", tmp_path_factory.mktemp("hub") / "student")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of one's own, saved by a trainer: float32, no metadata."""
    folder = tmp_path_factory.mktemp("own") / "model"
    model = build_model(tiny.TINY, vocabulary := tiny.vocabulary(), 1)
    model.config.use_cache = False
    return save_model(model, vocabulary, folder, torch.float32)


def head(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("kind", [AutoTokenizer, PreTrainedTokenizerFast])
def test_it_translates_with_transformers_alone_as_our_translator_does(kind, student):
    tokenizer = kind.from_pretrained(student)
    model = MarianMTModel.from_pretrained(student)
    assert model.dtype == torch.float32
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    said = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    ours = open_translator("student", "torch", shield=False)
    assert said == ours.translate(SENTENCES)
    assert open_translator(student).translate(SENTENCES) == (
        open_translator("student").translate(SENTENCES)
    )


def test_weights_and_vocabulary_are_the_very_bytes(student):
    for name in ("model.safetensors", "tokenizer.json", "known_words.txt"):
        kept = (model_folder("student") / name).read_bytes()
        assert (student / name).read_bytes() == kept
    own = open_translator("student").vocabulary
    assert AutoTokenizer.from_pretrained(student).get_vocab() == own.get_vocab()
    special = AutoTokenizer.from_pretrained(student).all_special_tokens
    assert set(special) == set(own.all_special_tokens)


def test_the_settings_are_for_use_and_not_for_training(small, tmp_path):
    config = json.loads((small / "config.json").read_text())
    assert config["use_cache"] is False  # a trainer's leftover
    out = publish(small, tmp_path / "out", **FACTS)
    assert json.loads((out / "config.json").read_text())["use_cache"] is True
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["use_cache"] is True
    assert (generation["max_length"], generation["num_beams"]) == (256, 1)
    assert "max_length" not in json.loads((out / "config.json").read_text())
    for folder in (publish("student", tmp_path / "shipped"), out):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert not [name for name in settings if "local" in name]
        # transformers 4 would else give token_type_ids, which no Marian model takes
        assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    both = [load_model(folder).state_dict() for folder in (small, out)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert not list(out.glob("*.bin"))


def test_the_card_has_the_head_that_the_hub_reads(student):
    card = ModelCard.load(student / "README.md")
    data = card.data
    assert data.language == ["en", "es"] and data.license == "apache-2.0"
    assert data.pipeline_tag == "translation" and data.library_name == "transformers"
    assert {"translation", "knowledge-distillation"} <= set(data.tags)
    assert data.datasets == ["homeassistant"] and data.metrics == ["bleu", "chrf"]
    known = json.loads((model_folder("student") / "metadata.json").read_text())
    results = {result.metric_type: result for result in data.eval_results}
    for metric in ("bleu", "chrf"):
        result, signature = results[metric], known["signatures"][metric]
        assert result.metric_value == round(known["test"][metric], 1)
        assert result.metric_args["signature"] == signature
        assert result.dataset_split == "test" and result.task_type == "translation"
        assert f"`{signature}`" in card.text
    assert "model-index" in head(student)


def test_the_card_says_data_licence_limits_and_what_it_learned_from(student):
    text = ModelCard.load(student / "README.md").text
    for words in (
        "1,569,664 parameters",
        "the translations of a larger teacher",
        "homeassistant==2026.11.0",
        "Apache-2.0, for weights",
        "## Limits",
        "Of 812 names in the",
    ):
        assert words in text
    assert "$" not in text and "/root" not in text


def test_the_examples_on_the_card_run(student, tmp_path, monkeypatch, capsys):
    """As a reader would run them, but for the address, which is local."""
    text = (student / "README.md").read_text().replace("USER/student", "student")
    (shell,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    first, second = re.findall(r"```python\n(.*?)```", text, re.S)
    program = shell.replace("\\\n", " ").split()
    assert program[0] == "ct2-transformers-converter"
    shutil.copytree(student, tmp_path / "student")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", program)
    wanted = open_translator("student").translate(["Turn on the light."])
    exec(first, {})
    assert capsys.readouterr().out.strip() == str(wanted)
    transformers_converter()
    exec(second, {})
    assert capsys.readouterr().out.strip() == wanted[0]


def test_a_model_of_ones_own_needs_its_facts(small, tmp_path):
    with pytest.raises(KdcourseError, match="name, languages, licence, data, method"):
        publish(small, tmp_path / "out")
    with pytest.raises(KdcourseError, match="--licence"):
        publish(small, tmp_path / "out", **(FACTS | {"licence": None}))
    assert not (tmp_path / "out").exists()
    out = publish(small, tmp_path / "out", repo="ana/tiny", **FACTS)
    text = ModelCard.load(out / "README.md").text
    assert "It has not been scored." in text and "ana/tiny" in text
    assert "812" not in text  # those names are another model's
    assert "model-index" not in head(out)
    assert head(out)["datasets"] == ["some/set"]
    again = publish(out, tmp_path / "again")  # its own metadata are enough
    assert (again / "README.md").read_text().replace("USER/tiny", "ana/tiny") == (
        (out / "README.md").read_text()
    )


def test_scores_of_other_weights_are_refused(small, tmp_path):
    own = shutil.copytree(small, tmp_path / "own")
    shutil.copyfile(model_folder("student") / "metadata.json", own / "metadata.json")
    with pytest.raises(KdcourseError, match="other weights"):
        publish(own, tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(small, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(KdcourseError, match="already holds"):
        publish(small, tmp_path, **FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(KdcourseError, match="No model"):
        facts_of(tmp_path)


def test_the_command_writes_measures_and_says_what_to_do_next(
    small, tmp_path, capsys, monkeypatch
):
    asked = []

    def measured(folder, *corpus):
        asked.append(corpus)
        return {
            "test": {"bleu": 12.34, "chrf": 34.5},
            "signatures": {"bleu": "bleu-signature", "chrf": "chrf-signature"},
            "test_data": "tsv:mine.tsv",
        }

    monkeypatch.setattr(publishing, "measured", measured)
    out = tmp_path / "out"
    command = ["publish", str(out), "--model", str(small), "--repo", "ana/tiny"]
    assert main([*command, "--languages", "english"]) == 1
    assert "--languages en,es" in capsys.readouterr().err
    command += ["--languages", "en,es", "--name", "tiny", "--licence", "MIT"]
    command += ["--data", "mine", "--method", "word", "--measure", "tsv:mine.tsv"]
    assert main(command) == 0
    assert asked == [("tsv:mine.tsv", "en", "es")]
    said = capsys.readouterr().out
    assert f"hf upload ana/tiny {out}" in said and "upload_folder" in said
    text = (out / "README.md").read_text()
    assert "BLEU 12.3, `bleu-signature`" in text and "tsv:mine.tsv" in text
    assert head(out)["license"] == "mit"


def test_a_corpus_is_scored_on_its_test_split(small, tmp_path, monkeypatch):
    rows = zip(*tiny.pairs(300, seed=5), strict=True)
    (tmp_path / "mine.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in rows))
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    facts = publishing.measured(small, f"tsv:{tmp_path / 'mine.tsv'}", "en", "es")
    assert set(facts["test"]) == {"bleu", "chrf"} == set(facts["signatures"])
    assert (
        0 <= facts["test"]["chrf"] <= 100 and "version:" in facts["signatures"]["bleu"]
    )
