"""What the recorded run of context distillation measures, and what it ships."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from ...errors import KdcourseError
from ..evaluation import score
from ..examples import fixed_examples
from ..measure import manifest, provenance, verdict, write_json
from ..models import count_parameters, load_model
from ..pipeline import Pipeline
from ..sources import file_hash
from ..training import validation_loss
from .glossary import terms_in, word_pattern
from .places import Placed, ambiguous, ceiling, contexts_exchanged
from .run import STUDENTS, ContextRun
from .survival import paired_gain, survives

ASSETS = Path(__file__).parents[2] / "assets"
SHIPPED = ("distilled", "control")
TESTS = ("places", "glossary")
EXAMPLES = 24


class ContextRecord:
    """Read the two tests with the teacher and with every student of a finished run.

    "places" asks the ambiguous strings: right is the reference, word for word.
    "glossary" asks strings with a term of the house: right is a translation that has
    the house's word for each, and the usual word for none.
    """

    def __init__(self, run: ContextRun):
        self.run = run
        self.seeds = run.recipe["comparison"]["seeds"]
        self.pipeline = Pipeline(run.folder)
        self.outputs: dict[tuple, list[str]] = {}

    # -- the tests -----------------------------------------------------------------

    def unclear(self, held_out: Sequence[Placed]) -> list[tuple[Placed, bool]]:
        """The ambiguous rows among some, but for those with a term of the house."""
        found = ambiguous(self.run.placed["train"], held_out)
        return [x for x in found if not terms_in(x[0].source, self.run.house)]

    @cached_property
    def rows(self) -> dict[str, list[Placed]]:
        """The rows of each test, all of components that no training here has seen."""
        return {
            "places": [row for row, _ in self.unclear(self.run.asked)],
            "glossary": self.house_rows(self.run.asked),
        }

    def house_rows(self, held_out: Sequence[Placed]) -> list[Placed]:
        """Rows whose reference says a term of the house as usual, one for a source."""
        first = {row.source: row for row in reversed(held_out)}
        return [row for row in reversed(first.values()) if self.terms(row)]

    def terms(self, row: Placed) -> list[str]:
        """The house's terms in z that the row's reference says in the usual way."""
        usual = self.run.usual
        found = terms_in(row.source, usual)
        return [t for t in found if word_pattern(usual[t]).search(row.target)]

    def groups(self, test: str) -> list[int]:
        """Which rows are no independent witnesses: of one source, of one component."""
        of = [r.source if test == "places" else r.component for r in self.rows[test]]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(of))}
        return [numbers[name] for name in of]

    def right(self, test: str, lines: Sequence[str]) -> list[int]:
        """1 for each row that a model has right, else 0."""
        pairs = zip(lines, self.rows[test], strict=True)
        if test == "places":
            return [int(line == row.target) for line, row in pairs]
        return [int(self.obeys(line, row)) for line, row in pairs]

    def obeys(self, line: str, row: Placed) -> bool:
        """Whether a translation has the house's words, and the usual ones no more."""
        usual, house = self.run.usual, self.run.house
        return all(
            word_pattern(house[term]).search(line)
            and not word_pattern(usual[term]).search(line)
            for term in self.terms(row)
        )

    # -- the models ----------------------------------------------------------------

    def said(self, test: str, kind: str, seed: int) -> list[str]:
        """A student's translations of a test, made once."""
        if (test, kind, seed) not in self.outputs:
            texts = [self.run.read(row, kind == "control") for row in self.rows[test]]
            folder = self.run.student(kind, seed)
            self.outputs[test, kind, seed] = self.run.says(folder, texts)
        return self.outputs[test, kind, seed]

    def student(self, kind: str, seed: int) -> dict:
        """The figures of one student."""
        places = self.right("places", self.said("places", kind, seed))
        return {
            "student": kind,
            "seed": seed,
            **self.figures(places, self.said("places", kind, seed)),
            "glossary": mean(self.right("glossary", self.said("glossary", kind, seed))),
            "plain": self.plain(kind, seed),
        }

    def figures(self, hits: Sequence[int], lines: Sequence[str]) -> dict:
        """Shares on the ambiguous rows: all, the rarer readings, pairs; and chrF."""
        rows = self.rows["places"]
        rarer = [flag for _, flag in self.unclear(self.run.asked)]
        return {
            "places": mean(hits),
            "rarer": mean([h for h, flag in zip(hits, rarer, strict=True) if flag]),
            "pairs": mean([hits[i] and hits[j] for i, j in contrasts(rows)]),
            "chrf": score(lines, [row.target for row in rows]).chrf,
        }

    def plain(self, kind: str, seed: int) -> dict:
        """BLEU and chrF on all other strings of the test split, one for a source."""
        first = {row.source: row for row in reversed(self.run.placed["test"])}
        rows = [r for r in first.values() if not terms_in(r.source, self.run.house)]
        texts = [self.run.read(row, kind == "control") for row in rows]
        lines = self.run.says(self.run.student(kind, seed), texts)
        result = score(lines, [row.target for row in rows])
        return {"bleu": result.bleu, "chrf": result.chrf}

    def teacher(self) -> dict:
        """What the teacher makes of a context: the right one, another's, none."""
        folder, rows = self.run.teacher(), self.rows["places"]
        result = {}
        for name, (some, with_c) in readings(rows).items():
            lines = self.run.says(folder, [self.run.read(r, with_c) for r in some], 4)
            result[name] = self.figures(self.right("places", lines), lines)
            result[name]["nats"] = self.nats(name)
        for name, with_c in (("right", True), ("none", False)):
            texts = [self.run.read(row, with_c) for row in self.rows["glossary"]]
            lines = self.run.says(folder, texts, 4)
            result[name]["glossary"] = mean(self.right("glossary", lines))
        return result

    def nats(self, name: str) -> float:
        """-log Pr^t of a token of the validation split's references, mean, in nats."""
        rows = self.run.placed["validation"]
        rows = [row for row in rows if not terms_in(row.source, self.run.house)]
        some, with_c = readings(rows)[name]
        texts = [self.run.read(row, with_c) for row in some]
        targets = [row.target for row in rows]
        examples = fixed_examples(texts, targets, self.run.vocabulary)
        return validation_loss(load_model(self.run.teacher()), examples)

    # -- the record ----------------------------------------------------------------

    def record(self) -> dict:
        """Everything that lesson 10 shows."""
        every = list(itertools.product(STUDENTS, self.seeds))
        hits = {
            test: {
                f"{kind}-{seed}": self.right(test, self.said(test, kind, seed))
                for kind, seed in every
            }
            for test in TESTS
        }
        groups = {test: self.groups(test) for test in TESTS}
        comparisons = [
            {"test": test, "student": kind, "seed": seed}
            | asdict(
                paired_gain(
                    hits[test][f"{kind}-{seed}"],
                    hits[test][f"twin-{seed}"],
                    groups[test],
                )
            )
            for test in TESTS
            for kind in SHIPPED
            for seed in self.seeds
        ]
        return {
            "manifest": manifest(self.pipeline) | {"context": self.run.recipe},
            "counts": self.counts(),
            "teacher": self.teacher(),
            "students": [self.student(kind, seed) for kind, seed in every],
            "comparisons": comparisons,
            "verdicts": {
                test: {kind: judged(comparisons, test, kind) for kind in SHIPPED}
                for test in TESTS
            },
            "survival": {
                test: asdict(
                    survives(*over_seeds(hits[test], self.seeds), groups[test])
                )
                for test in TESTS
            },
            "hits": {
                test: {name: "".join(map(str, row)) for name, row in found.items()}
                for test, found in hits.items()
            },
            "groups": groups,
            "examples": {test: self.examples(test) for test in TESTS},
        }

    def counts(self) -> dict:
        """How many rows there are of what, and what z alone could have right."""
        unclear, rows = self.unclear(self.run.asked), self.rows["places"]
        validation = self.unclear(self.run.placed["validation"])
        return {name: len(part) for name, part in self.run.placed.items()} | {
            "lessons": len(self.run.lessons),
            "ambiguous": len(rows),
            "sources": len({row.source for row in rows}),
            "rarer": sum(flag for _, flag in unclear),
            "validation_ambiguous": len(validation),
            "contrasts": len(contrasts(rows)),
            "majority": 1 - sum(flag for _, flag in unclear) / len(rows),
            "ceiling": ceiling(rows),
            "glossary": len(self.rows["glossary"]),
        }

    def examples(self, test: str) -> list[dict]:
        """Rows with what each model says; of the ambiguous ones, pairs come first."""
        rows, seed = self.rows[test], self.seeds[0]
        texts = [self.run.read(row, True) for row in rows]
        teacher = self.run.says(self.run.teacher(), texts, 4)
        places = list(dict.fromkeys(itertools.chain(*contrasts(rows))))
        if test == "glossary":
            places = list(range(len(rows)))
        chosen = random.Random(1).sample(places, min(EXAMPLES, len(places)))
        return [
            {
                "read": texts[i],
                "source": rows[i].source,
                "reference": rows[i].target,
                "teacher": teacher[i],
            }
            | {kind: self.said(test, kind, seed)[i] for kind in STUDENTS}
            for i in sorted(chosen, key=lambda i: (rows[i].source, i))
        ]


def readings(rows: Sequence[Placed]) -> dict[str, tuple[list[Placed], bool]]:
    """Rows with their own place, with another row's, and without any."""
    return {
        "right": (list(rows), True),
        "exchanged": (contexts_exchanged(rows), True),
        "none": (list(rows), False),
    }


def contrasts(rows: Sequence[Placed]) -> list[tuple[int, int]]:
    """Pairs of rows with one source and two translations; by z alone never both right.

    One row stands for each source and translation, the first.
    """
    first = {(row.source, row.target): i for i, row in reversed([*enumerate(rows)])}
    by_source = defaultdict(list)
    for (source, _), i in first.items():
        by_source[source].append(i)
    pairs = (itertools.combinations(sorted(ids), 2) for ids in by_source.values())
    return sorted(itertools.chain(*pairs))


def over_seeds(
    hits: Mapping[str, Sequence[int]], seeds: Sequence[int]
) -> list[list[float]]:
    """For distilled, control, twin: the share of seeds that have each row right."""
    return [
        [mean(row) for row in zip(*(hits[f"{k}-{s}"] for s in seeds), strict=True)]
        for k in STUDENTS
    ]


def judged(comparisons: Sequence[dict], test: str, kind: str) -> str:
    """The verdict on a student against its twins of all seeds."""
    own = [c for c in comparisons if (c["test"], c["student"]) == (test, kind)]
    return verdict([c["gain"] for c in own], [c["p"] for c in own])


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of none."""
    return sum(values) / len(values) if values else 0.0


def load_context() -> dict:
    """The recorded run in the package's assets; hits as lists of 0 and 1.

    Raises:
        KdcourseError: nobody has recorded one here.
    """
    path = ASSETS / "runs" / "context.json"
    if not path.is_file():
        raise KdcourseError(
            f"There is no recorded run of context distillation: {path} is missing.",
            wanted="the record that the full run writes, half an hour of one core",
            todo="Run python -m kdcourse context --ship.",
        )
    record = json.loads(path.read_text("utf-8"))
    for found in record["hits"].values():
        found.update({name: [int(h) for h in row] for name, row in found.items()})
    return record


def context_model(kind: str) -> Path:
    """The folder of a shipped student of seed 1: "distilled" or "control"."""
    return ASSETS / "models" / f"context-{kind}"


def ship(run: ContextRun, record: dict) -> None:
    """Put the record and the first seed's students, with cards, into the assets."""
    write_json(ASSETS / "runs" / "context.json", record)
    for kind in SHIPPED:
        row = next(s for s in record["students"] if s["student"] == kind)
        out = context_model(kind)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(run.student(kind, row["seed"]), out)
        card = {
            "name": out.name,
            "languages": ["en", run.target],
            "parameters": count_parameters(load_model(out)),
            **provenance(out, record),
            "started_from": {
                "model": "student",
                "weights_sha256": file_hash(run.shipped_student / "model.safetensors"),
            },
            "reads": "c and z" if kind == "control" else "z",
            "recipe": run.recipe,
            "seed": row["seed"],
            "test": row,
        }
        write_json(out / "metadata.json", card)
