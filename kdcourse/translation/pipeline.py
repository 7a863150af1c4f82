"""The full run, step by step: vocabulary, teacher, labels, students, figures.

Every step writes into one folder and is skipped where its result is already there;
a killed step goes on from its last checkpoint. ``python -m kdcourse reproduce`` runs
them all, ``train`` and ``distil`` one at a time.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import MarianMTModel, PreTrainedTokenizerFast

from .caching import SignalCache, cache_signals
from .corpus import Row, content_hash, load_corpus
from .decoding import SearchTranslator, TorchTranslator, model_folder
from .distil import distil, encode_targets, with_invented_names
from .evaluation import score
from .examples import SampledEpochs, fixed_examples
from .labelling import Labels, filter_labels, label_corpus
from .models import Architecture, build_model, grow, load_model, save_model
from .shield import write_known_words
from .training import Example, Recipe, Trainer, fastest_precision, validation_loss
from .vocabulary import load_vocabulary, train_vocabulary


def read_recipe(name: str) -> dict:
    """A recipe that ships with the package: ``teacher`` or ``student``."""
    text = (
        resources.files("kdcourse.recipes").joinpath(f"{name}.toml").read_text("utf-8")
    )
    return tomllib.loads(text)


@dataclass
class Pipeline:
    """One full run in ``folder``; its properties are the inputs of the steps."""

    folder: Path
    target: str = "es"

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.teacher_recipe = read_recipe("teacher")
        self.student_recipe = read_recipe("student")

    @cached_property
    def corpus(self):
        """The apps corpus, cleaned and split."""
        return load_corpus("apps", target=self.target)

    @cached_property
    def data_hash(self) -> str:
        """The content hash of the corpus that everything here was trained on."""
        return content_hash(self.corpus)

    def sides(self, split: str) -> tuple[list[str], list[str]]:
        """Sources and references of a split, in order."""
        pairs = self.corpus[split]["translation"]
        return [p["en"] for p in pairs], [p[self.target] for p in pairs]

    @cached_property
    def vocabulary(self) -> PreTrainedTokenizerFast:
        """The joint vocabulary: the shipped one, so that ids are what they were.

        A recipe with ``shipped = false`` trains one, on both sides of the training
        split; how the shipped one was made.
        """
        settings = self.teacher_recipe["vocabulary"]
        folder = self.folder / "vocabulary"
        if not (folder / "tokenizer.json").is_file():
            if settings["shipped"]:
                known = load_vocabulary(model_folder("teacher"))
            else:
                pairs = zip(*self.sides("train"), strict=True)
                texts = (text for pair in pairs for text in pair)
                known = train_vocabulary(
                    texts,
                    settings["size"],
                    tags=tuple(f"<2{language}>" for language in settings["tags"]),
                    alphabet=settings["alphabet"],
                )
            known.save_pretrained(folder)
        return load_vocabulary(folder)

    @cached_property
    def student_data(self) -> tuple[list[str], list[str]]:
        """What students read: the training split and rows with exchanged names."""
        data = self.student_recipe["data"]
        return with_invented_names(
            *self.sides("train"), copies=data["invented_names"], seed=data["seed"]
        )

    def rows(self) -> list[Row]:
        """The training split as rows."""
        return [Row(s, t, "", "") for s, t in zip(*self.sides("train"), strict=True)]

    # -- steps ---------------------------------------------------------------

    def train_teacher(self) -> Path:
        """Train the teacher, or go on with it; returns its model folder.

        First a shallower one, "base", which learns to look at its source much sooner;
        the teacher grows out of it and is trained on.
        """
        teacher, base = self.teacher_recipe, self.teacher_recipe["base"]
        if not self.is_trained("base") and not self.is_trained("teacher"):
            seed = base["training"]["seed"]
            model = build_model(
                Architecture(**base["architecture"]), self.vocabulary, seed
            )
            self._train_on_references("base", model, base)
        if not self.is_trained("teacher"):
            model = grow(
                load_model(self.folder / "base" / "model"),
                self.vocabulary,
                Architecture(**teacher["architecture"]),
            )
            self._train_on_references("teacher", model, teacher)
        return self.folder / "teacher" / "model"

    def _save(self, model: MarianMTModel, name: str) -> None:
        """Keep a finished model; the words it has seen first, its config.json last."""
        folder = self.folder / name / "model"
        write_known_words(folder, self.sides("train")[0])
        save_model(model, self.vocabulary, folder)

    def is_trained(self, name: str) -> bool:
        """Whether a model of this run is finished."""
        return (self.folder / name / "model" / "config.json").is_file()

    def _train_on_references(self, name, model, settings) -> None:
        recipe = Recipe(**settings["training"])
        with token_bar(name, recipe.budget_tokens) as bar:
            trainer = Trainer(
                model,
                recipe,
                SampledEpochs(self.rows(), self.vocabulary, **settings["data"]),
                folder=self.folder / name,
                validate=self.validator(),
                validate_every=1_000_000,
                progress=bar,
            )
            self._save(trainer.run(), name)

    def label(self) -> Labels:
        """Let the teacher translate all that students read; resumes after a kill."""
        settings = self.student_recipe["labels"]
        return label_corpus(
            self.student_data[0],
            self.train_teacher(),
            self.folder / "labels",
            beam=settings["beam"],
            compute_type=settings["compute_type"],
            workers=torch.get_num_threads(),
        )

    def distilled_targets(self) -> tuple[list[str], Counter[str]]:
        """The teacher's translation of each source, and how often it was unsound.

        Where a translation is empty, loops or loses a placeholder, the reference
        stands in: every method then still reads the same rows.
        """
        labels = self.label()
        sources, references = self.student_data
        sound, faults = filter_labels(sources, labels)
        sound = set(sound)
        pairs = zip(sources, references, strict=True)
        return [labels[s] if s in sound else r for s, r in pairs], faults

    def train_student(self, method: str, seed: int) -> Path:
        """Train one student; returns its model folder."""
        out = self.folder / f"{method}-{seed}"
        if not self.is_trained(f"{method}-{seed}"):
            sources, targets = self.student_data
            if method in ("sequence", "both"):
                targets, _ = self.distilled_targets()
            soft = method in ("word", "both")
            signals = self.cached_signals(method, sources, targets) if soft else None
            recipe = Recipe(**self.student_recipe["training"], seed=seed)
            with token_bar(f"{method}, seed {seed}", recipe.budget_tokens) as bar:
                model, _ = distil(
                    method,
                    sources,
                    targets,
                    self.vocabulary,
                    recipe,
                    signals=signals,
                    alpha=self.student_recipe["labels"]["alpha"] if soft else 0.0,
                    architecture=Architecture(**self.student_recipe["architecture"]),
                    folder=out,
                    validate=self.validator(),
                    validate_every=1_000_000,
                    progress=bar,
                )
            self._save(model, f"{method}-{seed}")
        return out / "model"

    def cached_signals(self, method: str, sources, targets) -> SignalCache:
        """The signals of a method's targets, from disk once they were made."""
        path = self.folder / "signals" / f"{method}.pt"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.part")
            torch.save(vars(self.signals(sources, targets)), partial)
            os.replace(partial, path)
        return SignalCache(**torch.load(path, weights_only=True))

    def signals(self, sources: list[str], targets: list[str]) -> SignalCache:
        """The teacher's k best answers for each token of these targets."""
        examples = [
            Example(s, t)
            for s, t in zip(
                self.vocabulary(sources)["input_ids"],
                encode_targets(targets, self.vocabulary),
                strict=True,
            )
        ]
        with token_bar("signals", sum(len(e.target) for e in examples)) as bar:
            return cache_signals(
                load_model(self.train_teacher()),
                examples,
                self.student_recipe["labels"]["k"],
                precision=fastest_precision(),
                progress=bar,
            )

    def validator(self) -> Callable[[MarianMTModel], dict]:
        """Loss, BLEU and chrF (greedy) on the validation split."""
        sources, references = self.sides("validation")
        examples = fixed_examples(sources, references, self.vocabulary)
        precision = fastest_precision()

        def validate(model: MarianMTModel) -> dict:
            loss = validation_loss(model, examples, precision)
            translator = LiveTranslator(model, self.vocabulary)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                scores = score(translator.translate(sources), references)
            return {"val": loss, "bleu": scores.bleu, "chrf": scores.chrf}

        return validate

    def curve(self, name: str) -> list[dict]:
        """The learning curve of a finished or running training.

        The teacher's begins with that of the base from which it has grown.
        """
        rows = json.loads((self.folder / name / "history.json").read_text("utf-8"))
        if name != "teacher":
            return rows
        before = self.curve("base")
        spent = {key: before[-1][key] for key in ("step", "tokens", "epoch", "seconds")}
        later = [row | {key: row[key] + spent[key] for key in spent} for row in rows]
        return before + later


class LiveTranslator(TorchTranslator):
    """Greedy translation with a model in memory, between two steps of its training."""

    def __init__(self, model: MarianMTModel, vocabulary: PreTrainedTokenizerFast):
        SearchTranslator.__init__(self, vocabulary, 1, torch.get_num_threads())
        self.model = model


@contextmanager
def token_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in target tokens; calls of its function add to it."""
    quiet = os.environ.get("KDCOURSE_QUIET") == "1"
    with tqdm(
        total=total, desc=title, unit="token", unit_scale=True, disable=quiet
    ) as bar:
        yield bar.update
