"""A model's folder as the Hub wants it: nothing is uploaded here.

The weights and the vocabulary are copied byte by byte; configuration and generation
settings are written anew, so that a trainer's leftovers (``use_cache: false``) and this
machine's paths stay behind; ``README.md`` is the model card, its YAML head with
languages, licence, data and scores for the Hub to read.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from string import Template

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import GenerationConfig, MarianConfig

from ..errors import KdcourseError
from .corpus import load_corpus
from .decoding import (
    MODEL_FILES,
    check_model,
    model_folder,
    open_translator,
    reading,
    text_files,
)
from .distil import METHODS
from .evaluation import score
from .models import count_parameters, load_model
from .sources import file_hash

METADATA = "metadata.json"
NEEDED = ("name", "languages", "licence", "data", "method")
LOCAL = ("is_local", "local_files_only", "backend")  # not of a tokenizer
PORTABLE = {  # names that older versions and transformers.js know as well
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
}
MAX_LENGTH, GREEDY = 256, 1

CARD = Template("""
# $name: $source → $target

A translator of $parameters parameters. $method

## How to use

With transformers:

```python
from transformers import AutoTokenizer, MarianMTModel

tokenizer = AutoTokenizer.from_pretrained("$repo")
model = MarianMTModel.from_pretrained("$repo")
batch = tokenizer(["Turn on the light."], padding=True, return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

With CTranslate2, smaller and faster on a CPU, once
`hf download $repo --local-dir $name` has brought the folder:

```sh
ct2-transformers-converter --model $name --output_dir ct2 \\
    --copy_files tokenizer.json --quantization int8
```

```python
import ctranslate2
from tokenizers import Tokenizer

translator = ctranslate2.Translator("ct2")
tokenizer = Tokenizer.from_file("ct2/tokenizer.json")
tokens = tokenizer.encode("Turn on the light.").tokens
best = translator.translate_batch([tokens], beam_size=1)[0].hypotheses[0]
print(tokenizer.decode([tokenizer.token_to_id(token) for token in best]))
```

## Scores

$scores

## Training data

$data$digest

## Licence

$licence, for weights, vocabulary and card.

## Limits

- It knows the language of its training data: short texts of one domain, one at a time.
  Long or literary texts, and those on law or health, are not what it was made for.
- It reads up to 512 tokens and has learned nothing longer than 200; split what is
  longer into sentences.
- It reads no context: of a word with several meanings it takes the most usual one.
- Names that it has never seen may come out garbled.$names
- It can be wrong and sound right. Have a person read what matters.
""")


def facts_of(folder: str | Path, **given) -> dict:
    """What a card says of a model: its ``metadata.json``, and what is ``given``.

    Raises:
        KdcourseError: something is known from neither, or the metadata speak of
            other weights than those in the folder.
    """
    folder = check_model(folder)
    foreign = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if foreign:
        raise KdcourseError(
            f"{folder} has no {' and no '.join(foreign)}: it is in another format.",
            wanted="a folder as save_model() writes it; the card's examples, and "
            "browsers, read tokenizer.json",
            todo="Publish a student with a vocabulary of ours; a model in the format "
            "of opus-mt can be uploaded as it is, with a card of your own.",
        )
    path = folder / METADATA
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    digest = file_hash(folder / "model.safetensors")
    if facts.get("weights_sha256", digest) != digest:
        raise KdcourseError(
            f"{path} speaks of other weights: {facts['weights_sha256'][:16]}… for "
            f"{digest[:16]}…",
            wanted="the metadata of these very weights; its scores are not theirs",
            todo="Delete the file and give the facts yourself, or copy the model anew.",
        )
    facts |= {name: value for name, value in given.items() if value is not None}
    missing = [name for name in NEEDED if not facts.get(name)]
    if missing:
        raise KdcourseError(
            f"Of {folder} nothing is known about: {', '.join(missing)}.",
            wanted=f"{', '.join(NEEDED)}, in its {METADATA} or as arguments",
            todo="Give "
            + ", ".join(f"--{name}" for name in missing)
            + " on the command line.",
        )
    return facts | {"weights_sha256": digest}


def measured(folder: str | Path, corpus: str, source: str, target: str) -> dict:
    """Scores of a model on a corpus's test split, greedy and in float32, as facts."""
    rows = load_corpus(corpus, target, source=source)["test"]["translation"][:]
    outputs = open_translator(folder).translate([row[source] for row in rows])
    result = score(outputs, [row[target] for row in rows])
    return {
        "test": {"bleu": result.bleu, "chrf": result.chrf},
        "signatures": {"bleu": result.bleu_signature, "chrf": result.chrf_signature},
        "beam": 1,
        "test_data": corpus,
    }


def publish(
    model: str | Path, out: str | Path, *, repo: str | None = None, **given
) -> Path:
    """Write the folder ``out`` from a shipped model's name or a model's folder.

    ``given`` are facts for the card, beside or instead of those in the model's
    ``metadata.json``: name, languages (a pair), licence, data, method, test, ….
    ``repo`` is the USER/NAME that the card's examples load.

    Raises:
        KdcourseError: no model, facts that are missing or of other weights, or an
            ``out`` that already holds something.
    """
    folder, out = model_folder(model), Path(out)
    facts = facts_of(folder, **given)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise KdcourseError(
            f"{out} already holds something.",
            wanted="a new folder, or an empty one",
            todo="Name another folder, or empty this one.",
        )
    out.mkdir(parents=True, exist_ok=True)
    with reading(folder):
        facts |= {"parameters": count_parameters(load_model(folder))}
        _write_settings(folder, out)
    copied = [folder / name for name in MODEL_FILES if name != "config.json"]
    for path in {*copied, *text_files(folder)}:
        shutil.copyfile(path, out / path.name)
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    (out / METADATA).write_text(text, encoding="utf-8")
    card(facts, repo or f"USER/{facts['name']}", _record()).save(out / "README.md")
    return out


def _write_settings(folder: Path, out: Path) -> None:
    """Configuration, generation settings and tokenizer settings, free of leftovers."""
    config = MarianConfig.from_pretrained(folder)
    config.use_cache = True
    config.save_pretrained(out)
    generation = GenerationConfig.from_pretrained(folder)
    generation.use_cache, generation._from_model_config = True, False
    generation.max_length = generation.max_length or MAX_LENGTH
    generation.num_beams = generation.num_beams or GREEDY
    generation.save_pretrained(out)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    special = settings.pop("extra_special_tokens", None)
    settings = {n: v for n, v in settings.items() if n not in LOCAL} | PORTABLE
    if special:
        settings["additional_special_tokens"] = special
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (out / path.name).write_text(text, encoding="utf-8")


def _record() -> dict:
    path = Path(__file__).parents[1] / "assets" / "runs" / "full.json"
    return json.loads(path.read_text(encoding="utf-8"))


def card(facts: dict, repo: str, record: dict | None = None) -> ModelCard:
    """The model card: text and YAML head.

    ``record`` is that of the full run: where the model is one of its models, the card
    sets its scores beside the others'.
    """
    source, target = facts["languages"]
    head = ModelCardData(
        language=[source, target],
        license=facts["licence"].lower(),
        library_name="transformers",
        pipeline_tag="translation",
        tags=["translation", "knowledge-distillation", "marian", "ctranslate2"],
        datasets=[_dataset(facts)],
        metrics=["bleu", "chrf"],
        model_name=facts["name"],
        eval_results=_results(facts) or None,
    )
    digest = facts.get("data_sha256")
    body = CARD.substitute(
        name=facts["name"],
        repo=repo,
        source=source,
        target=target,
        parameters=f"{facts['parameters']:,}",
        method=_told(facts["method"]),
        scores=_scores(facts),
        data=f"{facts['data']}.",
        digest=f"\nSHA-256 of its cleaned rows: `{digest}`." if digest else "",
        licence=facts["licence"],
        names=_names(facts, record or {}),
    )
    return ModelCard(f"---\n{head.to_yaml()}\n---\n{body}")


def _dataset(facts: dict) -> str:
    """The name of the training data as the Hub writes names: no version, no spaces."""
    name = re.match(r"(?:hub:)?([^,:=]*)", facts["data"])[1]
    return name.strip().replace(" ", "-")


def _told(method: str) -> str:
    """In a sentence, what the model learned from."""
    chosen = METHODS.get("untaught" if method == "references" else method)
    if chosen is None:
        return f"It was trained on {method}."
    targets = {
        "references": "translations by people",
        "beam": "the translations of a larger teacher",
        "samples": "translations sampled from a larger teacher",
        "interpolation": "those candidates of a larger teacher that are nearest to a "
        "person's translation",
    }[chosen.targets]
    if chosen.divergence is None:
        return f"It learned from {targets}."
    whose = "a larger teacher's" if chosen.targets == "references" else "its"
    return (
        f"It learned from {targets},\nand from {whose} distribution of each token "
        f"({chosen.divergence})."
    )


def _results(facts: dict) -> list[EvalResult]:
    names = {"bleu": "BLEU", "chrf": "chrF2"}
    return [
        EvalResult(
            task_type="translation",
            task_name=f"Translation {'-'.join(facts['languages'])}",
            dataset_type=_dataset(facts),
            dataset_name=facts.get("test_data", facts["data"]),
            dataset_split="test",
            metric_type=metric,
            metric_name=names[metric],
            metric_value=round(value, 1),
            metric_args={"signature": facts["signatures"][metric]},
        )
        for metric, value in facts.get("test", {}).items()
    ]


def _scores(facts: dict) -> str:
    if not facts.get("test"):
        return "It has not been scored."
    beam = facts.get("beam", 1)
    names = {"bleu": "BLEU", "chrf": "chrF2"}
    lines = [
        f"On the test split of {facts.get('test_data', 'the same corpus')}, by "
        "sacreBLEU on plain text; "
        f"{'greedy search' if beam == 1 else f'a beam of {beam}'}, float32, with the",
        "name shield of the package kdcourse where the folder has `known_words.txt`:",
        "",
    ]
    for metric, value in facts["test"].items():
        signature = facts["signatures"][metric]
        lines.append(f"- {names[metric]} {value:.1f}, `{signature}`")
    return "\n".join(lines)


def _names(facts: dict, record: dict) -> str:
    """How many names survive, where it was recorded for these very scores."""
    names, label = record.get("names", {}), facts["name"]
    shipped = model_folder(label) / METADATA
    if label not in names or not shipped.is_file():
        return ""
    if (
        json.loads(shipped.read_text("utf-8"))["weights_sha256"]
        != (facts["weights_sha256"])
    ):
        return ""
    return (
        f" Of {names['count']} names in the\n  test split it keeps "
        f"{100 * names['unshielded'][label]:.0f} %; with the name shield of kdcourse, "
        f"{100 * names[label]:.0f} %."
    )
