"""The full run, step by step: vocabulary, teacher, labels, students, figures.

Every step writes into one folder and is skipped where its result is already there;
a killed step goes on from its last checkpoint. ``python -m kdcourse reproduce`` runs
them all, ``train`` and ``distil`` one at a time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import MarianMTModel, PreTrainedTokenizerFast

from ..errors import KdcourseError
from .caching import SignalCache, cache_corpus, cache_signals
from .corpus import Row, content_hash, load_corpus
from .decoding import SearchTranslator, TorchTranslator, model_folder
from .distil import (
    ANOTHERS,
    ITSELF,
    METHODS,
    Curriculum,
    Method,
    distil,
    with_invented_names,
)
from .evaluation import score
from .examples import SampledEpochs, encode_targets, fixed_examples
from .interpolation import interpolate
from .labelling import (
    STORE,
    Labels,
    fault,
    filter_labels,
    keys_hash,
    label_corpus,
    source_key,
)
from .models import Architecture, build_model, grow, load_model, save_model, shrink
from .shield import write_known_words
from .sources import apps_wheel
from .storage import alone, read_manifest, write_whole
from .training import (
    HISTORY,
    Example,
    Recipe,
    Trainer,
    fastest_precision,
    precision_here,
    validation_loss,
)
from .unlabelled import Held, unlabelled
from .vocabulary import load_vocabulary, train_vocabulary

# A run's folders of labels, and what their names in the assets end with.
LABELS = {"labels": "", "labels-unlabelled": "-unlabelled"}
ASSETS = Path(str(resources.files("kdcourse"))) / "assets"
CURVE = "curve.json"  # of a teacher that was not trained here
MADE_BY = "made_by.json"  # the recipe of a finished model
WIDE = ("wide", "copied")  # of the teacher's width: from scratch, or with its layers


def made_by(settings: dict) -> dict:
    """The parts of a recipe that make one model what it is."""
    parts = ("architecture", "data", "labels", "training")
    return {part: settings[part] for part in parts if part in settings}


def read_recipe(name: str) -> dict:
    """A recipe that ships with the package: ``teacher``, ``student``, ``evidence``."""
    text = (
        resources.files("kdcourse.recipes").joinpath(f"{name}.toml").read_text("utf-8")
    )
    return tomllib.loads(text)


@dataclass
class Pipeline:
    """One full run in ``folder``; its properties are the inputs of the steps.

    ``recipe`` names that of its students: ``student`` for the one that ships,
    ``evidence`` for the table of methods.
    """

    folder: Path
    target: str = "es"
    recipe: str = "student"

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.teacher_recipe = read_recipe("teacher")
        self.student_recipe = read_recipe(self.recipe)

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
            *self.sides("train"),
            copies=data["invented_names"],
            seed=data["seed"],
            held=self.held.keys,
        )

    @cached_property
    def held(self) -> Held:
        """What nobody may read in training: the other splits and their components."""
        splits = [self.corpus[name] for name in ("validation", "test")]
        contexts = [context for split in splits for context in split["context"]]
        sources = [pair["en"] for split in splits for pair in split["translation"]]
        return Held((context.split(" ")[0] for context in contexts), sources)

    def rows(self) -> list[Row]:
        """The training split as rows."""
        return [Row(s, t, "", "") for s, t in zip(*self.sides("train"), strict=True)]

    # -- steps ---------------------------------------------------------------

    def train_teacher(self) -> Path:
        """Train the teacher, or go on with it; returns its model folder.

        First a shallower one, "base", which learns to look at its source much sooner;
        the teacher grows out of it and is trained on. A recipe that compares students
        of the shipped teacher takes that one, unless the folder holds another.
        """
        shipped = self.student_recipe["comparison"].get("teacher") == "shipped"
        if shipped and not self.is_trained("teacher"):
            return model_folder("teacher")
        teacher, base = self.teacher_recipe, self.teacher_recipe["base"]
        whole = self._is_made("teacher", made_by(teacher))
        if not whole and not self._is_made("base", made_by(base)):
            seed = base["training"]["seed"]
            model = build_model(
                Architecture(**base["architecture"]), self.vocabulary, seed
            )
            self._train_on_references("base", model, base)
        if not whole:
            model = grow(
                load_model(self.folder / "base" / "model"),
                self.vocabulary,
                Architecture(**teacher["architecture"]),
            )
            self._train_on_references("teacher", model, teacher)
        return self.folder / "teacher" / "model"

    def take_shipped_teacher(self) -> None:
        """Begin with what ships: the teacher, its curve and its translations.

        Nothing happens where the folder has a teacher. Translations of other sources
        than this recipe's are left where they are.
        """
        with alone(self.folder / "teacher"):
            if not self.is_trained("teacher"):
                self._copy_shipped_teacher()

    def _copy_shipped_teacher(self) -> None:
        place = self.folder / "teacher"
        partial = place / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model_folder("teacher"), partial)
        recorded = json.loads((ASSETS / "runs" / "full.json").read_text("utf-8"))
        curve = json.dumps(recorded["teacher"]["curve"])
        write_whole(place / CURVE, curve.encode())
        ours = keys_hash(sorted(set(map(source_key, self.student_data[0]))))
        for made, ending in LABELS.items():
            shipped = ASSETS / "labels" / f"{self.target}{ending}"
            manifest = read_manifest(
                shipped, ("sources",), STORE["maker"], sealed=False
            )
            if manifest and (ending or manifest["sources"] == ours):
                shutil.copytree(shipped, self.folder / made, dirs_exist_ok=True)
        partial.rename(place / "model")  # last: from now on the folder has a teacher

    def _save(self, model: MarianMTModel, name: str, made: dict) -> None:
        """Keep a finished model: what made it, the words it has seen, then itself."""
        folder = self.folder / name / "model"
        write_whole(self.folder / name / MADE_BY, json.dumps(made, indent=1).encode())
        write_known_words(folder, self.sides("train")[0])
        save_model(model, self.vocabulary, folder)

    def is_trained(self, name: str) -> bool:
        """Whether a model of this run is finished."""
        return (self.folder / name / "model" / "config.json").is_file()

    def _is_made(self, name: str, settings: dict) -> bool:
        """Whether a model is finished, and by these settings.

        Raises:
            KdcourseError: others made it.
        """
        path = self.folder / name / MADE_BY
        if not self.is_trained(name) or not path.is_file():
            return self.is_trained(name)
        before = json.loads(path.read_text("utf-8"))
        other = [n for n in {*before, *settings} if before.get(n) != settings.get(n)]
        if other:
            told = "; ".join(
                f"{n}: {before.get(n)} for {settings.get(n)}" for n in sorted(other)
            )
            raise KdcourseError(
                f"{self.folder / name} was made by another recipe ({told}).",
                wanted="one recipe for all that is compared in a folder",
                todo="Name another --folder, or delete this one to train it anew.",
            )
        return True

    def _train_on_references(self, name, model, settings) -> None:
        recipe = Recipe(**settings["training"])
        with token_bar(name, recipe.budget_tokens) as bar:
            trainer = Trainer(
                model,
                recipe,
                SampledEpochs(
                    self.rows(),
                    self.vocabulary,
                    held=self.held.keys,
                    **settings["data"],
                ),
                folder=self.folder / name,
                validate=self.validator(recipe.precision),
                validate_every=1_000_000,
                progress=bar,
            )
            self._save(trainer.run(), name, made_by(settings))

    def label(self, candidates: int = 1, search: str = "beam") -> Labels:
        """Let the teacher translate all that students read; resumes after a kill."""
        plain = (candidates, search) == (1, "beam")
        folder = "labels" if plain else f"labels-{search}-{candidates}"
        how = {"candidates": candidates, "search": search}
        return self._label(self.student_data[0], folder, **how)

    def _label(self, sources: list[str], folder: str, **how) -> Labels:
        settings = self.student_recipe["labels"]
        return label_corpus(
            sources,
            self.train_teacher(),
            self.folder / folder,
            beam=settings["beam"],
            compute_type=settings["compute_type"],
            workers=torch.get_num_threads(),
            **how,
        )

    def distilled_targets(self) -> tuple[list[str], Counter[str]]:
        """The teacher's translation of each source, and how often it was unsound.

        Where a translation is empty, loops or loses a placeholder, the reference
        stands in: every method then still reads the same rows.
        """
        labels = self.label()
        faults = filter_labels(self.student_data[0], labels)[1]
        return self._where_sound(labels[s] for s in self.student_data[0]), faults

    def _where_sound(self, translations: Iterable[str]) -> list[str]:
        """These translations, one a row; the reference where one is unsound."""
        rows = zip(*self.student_data, translations, strict=True)
        return [r if fault(s, t) else t for s, r, t in rows]

    @cached_property
    def unlabelled_text(self) -> list[str]:
        """English of the corpus's own programs that nobody has translated."""
        return unlabelled(apps_wheel(), self.sides("train")[0], self.held)

    def label_unlabelled(self) -> Labels:
        """Let the teacher translate the unlabelled English; resumes after a kill."""
        return self._label(self.unlabelled_text, "labels-unlabelled")

    def labelled_text(self) -> tuple[list[str], list[str]]:
        """The unlabelled English and the teacher's translations, the sound ones."""
        labels = self.label_unlabelled()
        sources = filter_labels(self.unlabelled_text, labels)[0]
        return sources, [labels[source] for source in sources]

    def targets(self, kind: str) -> list[str]:
        """A method's sequences: references, beam, samples or interpolation."""
        sources, references = self.student_data
        if kind == "references":
            return references
        if kind == "beam":
            return self.distilled_targets()[0]
        if kind == "samples":
            labels = self.label(1, "samples")
            return self._where_sound(labels[source] for source in sources)
        labels = self.label(self.student_recipe["labels"]["beam"])
        return self._where_sound(interpolate(sources, references, labels))

    def lesson(self, told: Method) -> tuple[list[str], list[str]]:
        """What a method's student reads and what it shall say: sources and targets."""
        sources, targets = self.student_data[0], self.targets(told.targets)
        if told.unlabelled:
            more, translations = self.labelled_text()
            sources, targets = sources + more, targets + translations
        return sources, targets

    def curriculum(self, told: Method) -> Curriculum | None:
        """How long a method's student reads the unlabelled text, where it reads it.

        To the end, where the recipe's data have no ``unlabelled_epochs``.
        """
        epochs = self.student_recipe["data"].get("unlabelled_epochs")
        if epochs is None or not told.unlabelled:
            return None
        return Curriculum(len(self.student_data[0]), epochs)

    def train_student(self, method: str, seed: int) -> Path:
        """Train one student; returns its model folder."""
        name = f"{method}-{seed}"
        wide = self.student_recipe["wide"] if method in WIDE else {}
        settings = self.student_recipe | wide
        if not self._is_made(name, made_by(settings)):
            recipe = Recipe(**settings["training"], seed=seed)
            architecture = Architecture(**settings["architecture"])
            told = METHODS["untaught" if method in WIDE else method]
            sources, targets = self.lesson(told)
            start = self._copied(architecture) if method == "copied" else None
            with token_bar(f"{method}, seed {seed}", recipe.budget_tokens) as bar:
                model, _ = distil(
                    told,
                    sources,
                    targets,
                    self.vocabulary,
                    recipe,
                    **self.answers(told, sources, targets, seed),
                    alpha=settings["labels"]["alpha"] if told.divergence else 0.0,
                    architecture=architecture,
                    start=start,
                    curriculum=self.curriculum(told),
                    folder=self.folder / name,
                    validate=self.validator(recipe.precision),
                    validate_every=settings.get("validate_every", 1_000_000),
                    progress=bar,
                )
            self._save(model, name, made_by(settings))
        return self.folder / name / "model"

    def _copied(self, architecture: Architecture) -> MarianMTModel:
        """A student of the teacher's width with some of its layers."""
        teacher = load_model(self.train_teacher())
        return shrink(teacher, self.vocabulary, architecture)

    def answers(
        self, told: Method, read: list[str], targets: list[str], seed: int
    ) -> dict:
        """The teacher's answers that a method needs: none, cached, or itself."""
        if not told.cached:
            return {}
        live = {"teacher": load_model(self.train_teacher())} if told.share else {}
        name, teacher = told.targets, None
        if told.unlabelled:
            name = f"{name}-unlabelled"
        if told.teacher == ANOTHERS:
            read, name = random.Random("misled").sample(read, len(read)), "misled"
        if told.teacher == ITSELF:
            name, teacher = f"self-{seed}", self.train_student("untaught", seed)
        return live | {"signals": self.cached_signals(name, read, targets, teacher)}

    def cached_signals(self, name: str, sources, targets, teacher=None) -> SignalCache:
        """The teacher's k best answers for each token of these targets, kept on disk.

        Answered from there once they were made; a killed run goes on where it was.
        ``teacher`` is the folder of another one than this run's.
        """
        return cache_corpus(
            sources,
            targets,
            self.vocabulary,
            teacher or self.train_teacher(),
            self.folder / "signals" / name,
            k=self.student_recipe["labels"]["k"],
            precision="auto",
            workers=torch.get_num_threads(),
        )

    def signals(
        self,
        sources: list[str],
        targets: list[str],
        teacher: MarianMTModel | None = None,
    ) -> SignalCache:
        """The teacher's k best answers for each token of these targets.

        ``teacher`` is this run's, where it is in memory already.
        """
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
                teacher or load_model(self.train_teacher()),
                examples,
                self.student_recipe["labels"]["k"],
                precision=fastest_precision(),
                progress=bar,
            )

    def validator(self, precision: str) -> Callable[[MarianMTModel], dict]:
        """Loss, BLEU and chrF (greedy) on the validation split.

        ``precision`` is that of the training's recipe.
        """
        sources, references = self.sides("validation")
        examples = fixed_examples(sources, references, self.vocabulary)
        precision = precision_here(precision)

        def validate(model: MarianMTModel) -> dict:
            loss = validation_loss(model, examples, precision)
            translator = LiveTranslator(model, self.vocabulary)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                scores = score(translator.translate(sources), references)
            return {"val": loss, "bleu": scores.bleu, "chrf": scores.chrf}

        return validate

    def curve(self, name: str) -> list[dict]:
        """The learning curve of a finished or running training.

        The teacher's begins with that of the base from which it has grown; that of a
        teacher that ships is the recorded one.
        """
        if (whole := self.folder / name / CURVE).is_file():
            return json.loads(whole.read_text("utf-8"))
        rows = json.loads((self.folder / name / HISTORY).read_text("utf-8"))
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
