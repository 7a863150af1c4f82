"""The recorded run of context distillation: teacher, labels, three students a seed.

==========  ================  =================  ====================================
student     reads             taught by          it is
==========  ================  =================  ====================================
distilled   z                 Pr^t(y | c, z)     context distillation, c' empty
control     c and z           Pr^t(y | c, z)     what c is worth to a student
twin        z                 Pr^t(y | z)        the same without any context
==========  ================  =================  ====================================

One teacher teaches all three: the shipped one, trained on to read c where there is one.
``python -m kdcourse context`` makes it all; a killed run goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch

from ..decoding import model_folder, open_translator
from ..distil import distil
from ..examples import MAX_TOKENS
from ..labelling import Labels, fault, label_corpus
from ..models import load_model, save_model
from ..pipeline import read_recipe, token_bar
from ..training import Example, Recipe, Trainer
from ..vocabulary import SubwordSampler, load_vocabulary
from .glossary import glossed, obeying, terms_in
from .places import PLACES, Placed, ambiguous, load_placed, with_context

STUDENTS = ("distilled", "control", "twin")
READING = ("without", "glossed", "repeats", "others")  # of the teacher's recipe


class ContextRun:
    """All steps in one folder; each is skipped where its result is there already."""

    def __init__(self, folder: str | Path, target: str = "es"):
        self.folder, self.target = Path(folder), target
        self.recipe = read_recipe("context")
        self.vocabulary = load_vocabulary(model_folder("teacher"))
        entries = self.recipe["glossary"].items()
        self.usual = {term: said for term, (said, _) in entries}
        self.house = {term: wanted for term, (_, wanted) in entries}

    @cached_property
    def placed(self) -> dict[str, list[Placed]]:
        """The corpus with contexts, by split."""
        return load_placed(self.target)

    @property
    def asked(self) -> list[Placed]:
        """Rows in components that no training of this run has seen."""
        return self.placed[PLACES] + self.placed["test"]

    @cached_property
    def lessons(self) -> list[Placed]:
        """What students read: see ``emphasised``; drawn once."""
        data = dict(self.recipe["data"])
        rng = random.Random(data.pop("seed"))
        return emphasised(self.placed["train"], self.house, rng, **data)

    def read(self, row: Placed, with_c: bool) -> str:
        """The text that a model reads of a row: z, or "place ; terms | z"."""
        if not with_c:
            return row.source
        terms = terms_in(row.source, self.house)
        return with_context(glossed(row.context, terms), row.source)

    def is_trained(self, name: str) -> bool:
        """Whether a model of this run is finished."""
        return (self.folder / name / "model" / "config.json").is_file()

    def teacher(self) -> Path:
        """The shipped teacher, trained on to read c; returns its folder."""
        out = self.folder / "teacher"
        if not self.is_trained("teacher"):
            settings = dict(self.recipe["teacher"])
            data = {name: settings.pop(name) for name in READING}
            epochs = ContextEpochs(
                self.placed["train"], self.vocabulary, self.recipe["glossary"], **data
            )
            recipe = Recipe(**settings)
            with token_bar("teacher, with contexts", recipe.budget_tokens) as bar:
                start = load_model(model_folder("teacher"))
                trainer = Trainer(start, recipe, epochs, folder=out, progress=bar)
                save_model(trainer.run(), self.vocabulary, out / "model")
        return out / "model"

    def labels(self, with_c: bool) -> Labels:
        """The teacher's translations of the lessons, read with contexts or not."""
        texts = [self.read(row, with_c) for row in self.lessons]
        out = self.folder / ("labels-c" if with_c else "labels-z")
        workers = torch.get_num_threads()
        settings = self.recipe["labels"]
        return label_corpus(texts, self.teacher(), out, workers=workers, **settings)

    def targets(self, with_c: bool) -> list[str]:
        """What the teacher said of the lessons; the reference where that is unsound."""
        labels = self.labels(with_c)
        said = [labels[self.read(row, with_c)] for row in self.lessons]
        return [
            row.target if fault(row.source, line) else line
            for row, line in zip(self.lessons, said, strict=True)
        ]

    @property
    def shipped_student(self) -> Path:
        """The folder of the student from which all students of a run go on."""
        return model_folder("student")

    def student(self, kind: str, seed: int) -> Path:
        """One student, going on from the shipped one; returns its folder."""
        name = f"{kind}-{seed}"
        if not self.is_trained(name):
            recipe = Recipe(**self.recipe["student"], seed=seed)
            sources = [self.read(row, kind == "control") for row in self.lessons]
            with token_bar(f"{kind}, seed {seed}", recipe.budget_tokens) as bar:
                model, _ = distil(
                    "sequence",
                    sources,
                    self.targets(kind != "twin"),
                    self.vocabulary,
                    recipe,
                    start=load_model(self.shipped_student).train(),
                    folder=self.folder / name,
                    progress=bar,
                )
            save_model(model, self.vocabulary, self.folder / name / "model")
        return self.folder / name / "model"

    def says(self, folder: Path, texts: list[str], beam: int = 1) -> list[str]:
        """A model's translations of some texts as they are, greedy or by beam."""
        return open_translator(folder, beam=beam, shield=False).translate(texts)


def emphasised(
    rows: list[Placed], house: Mapping, rng: random.Random, repeats: int, others: int
) -> list[Placed]:
    """Ambiguous rows several times, those with a term of the house, and some others.

    Ambiguous strings are short and few: of all tokens they would make one in fifty.
    """
    unclear = {row.source for row, _ in ambiguous(rows, rows)}
    termed = [row for row in rows if terms_in(row.source, house)]
    hard = [r for r in rows if r.source in unclear and not terms_in(r.source, house)]
    chosen = {*termed, *hard}
    rest = [row for row in rows if row not in chosen]
    return hard * repeats + termed + rng.sample(rest, min(others, len(rest)))


class ContextEpochs:
    """Training rows as "place ; terms | z"; an epoch depends on its number alone.

    A share ``without`` loses its place. Rows with terms of the glossary that their
    reference says as usual get these terms, and the house's words in their target, in
    the share ``glossed`` of the cases.
    """

    def __init__(
        self, rows, vocabulary, glossary, *, without, glossed, repeats, others
    ):
        self.rows, self.vocabulary = rows, vocabulary
        self.usual = {term: said for term, (said, _) in glossary.items()}
        self.house = {term: wanted for term, (_, wanted) in glossary.items()}
        self.without, self.glossed = without, glossed
        self.repeats, self.others = repeats, others
        self.sampler = SubwordSampler(vocabulary)

    def __call__(self, epoch: int) -> list[Example]:
        """The examples of an epoch."""
        rng = random.Random(f"context/{epoch}")
        rows = emphasised(self.rows, self.house, rng, self.repeats, self.others)
        read = [self.reading(row, rng) for row in rows]
        sources = [self.sampler.encode(source, rng) for source, _ in read]
        targets = self.vocabulary([target for _, target in read])["input_ids"]
        pairs = zip(sources, targets, strict=True)
        return [Example(s, t) for s, t in pairs if max(len(s), len(t)) <= MAX_TOKENS]

    def reading(self, row: Placed, rng: random.Random) -> tuple[str, str]:
        """What the teacher reads of a row in this epoch, and what it is to say."""
        place = "" if rng.random() < self.without else row.context
        terms, target = {}, row.target
        if rng.random() < self.glossed:
            terms, target = obeying(row.source, target, self.usual, self.house)
        return with_context(glossed(place, terms), row.source), target
