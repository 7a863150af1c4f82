"""The table of methods: what each ingredient bought, with intervals and verdicts.

``python -m kdcourse evidence`` trains every method of ``recipes/evidence.toml`` with
each seed, reads the test split with all of them and writes one JSON; a killed run goes
on where it was. The records that ship, of two machines, are ``load_evidence()``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from statistics import mean

from ..errors import KdcourseError
from .behaviour import calibration_error, peakedness
from .decoding import model_hash, open_translator
from .distil import METHODS, StudentEpochs, hooks
from .evaluation import paired_bootstrap, score
from .examples import encode_targets, fixed_examples
from .measure import kept_reading, manifest, verdict
from .models import Architecture, build_model, count_parameters, load_model
from .pipeline import WIDE, Pipeline
from .training import Recipe, Trainer
from .vocabulary import SubwordSampler

BEAM = 4
BASELINES = ("untaught", "sequence")
RECORDS = ("evidence.json", "evidence_second.json")  # the second adds to the first


@cache
def load_records() -> list[dict]:
    """The recorded runs that ship with the package, as they were written."""
    runs = resources.files("kdcourse") / "assets" / "runs"
    files = [runs / name for name in RECORDS if (runs / name).is_file()]
    return [json.loads(path.read_text("utf-8")) for path in files]


@cache
def load_evidence() -> dict:
    """The table of methods that ships with the package: its runs, ``joined``."""
    return joined(*load_records())


def joined(first: dict, *later: dict) -> dict:
    """One table of several runs of the same recipe, on other machines perhaps.

    A later run adds the methods that the first has not. Their students were compared
    with twins of their own run, so read gains (``gain_of``), never differences between
    scores of two runs. Costs are carried over as multiples of the untaught student's,
    which each run measures. ``again`` holds what later runs found for methods that the
    first has too.
    """
    table = first | {"again": []}
    for run in later:
        known = {s["method"] for s in table["students"]}
        added = [s for s in run["students"] if s["method"] not in known]
        new = {s["method"] for s in added}
        scale = first["costs"]["training"]["untaught"]
        scale /= run["costs"]["training"]["untaught"]
        costs = {m: c * scale for m, c in run["costs"]["training"].items() if m in new}
        table |= {
            "students": table["students"] + added,
            "comparisons": table["comparisons"]
            + [c for c in run["comparisons"] if c["method"] in new],
            "verdicts": table["verdicts"]
            | {m: words for m, words in run["verdicts"].items() if m in new},
            "costs": table["costs"] | {"training": table["costs"]["training"] | costs},
            "again": table["again"]
            + [c for c in run["comparisons"] if c["method"] in known],
        }
    return table


def baselines_of(method: str) -> tuple[str, ...]:
    """What a method is compared with: twins of the same size, never with itself."""
    if method in WIDE:
        return ("wide",) if method != "wide" else ()
    return tuple(name for name in BASELINES if name != method)


class Evidence:
    """Train, read and compare the students of one run; every step can be killed."""

    def __init__(self, pipeline: Pipeline, methods: Sequence[str] | None = None):
        """``methods`` in the place of all that the recipe names.

        Raises:
            KdcourseError: an unknown method, or one without its twin.
        """
        self.run = pipeline
        self.sources, self.references = pipeline.sides("test")
        comparison = pipeline.student_recipe["comparison"]
        self.methods = list(methods or comparison["methods"])
        self.seeds = comparison["seeds"]
        self._check_methods()

    def _check_methods(self) -> None:
        unknown = [m for m in self.methods if m not in {*METHODS, *WIDE}]
        if unknown:
            raise KdcourseError(
                f"Unknown method {unknown[0]!r}.",
                wanted=f"some of {', '.join([*METHODS, *WIDE])}",
                todo="Leave methods out for those of recipes/evidence.toml.",
            )
        twins = {"wide" if m in WIDE else "untaught" for m in self.methods}
        needed = twins - {*self.methods}
        if needed:
            raise KdcourseError(
                f"Methods {', '.join(self.methods)} without their twins.",
                wanted=f"also {', '.join(sorted(needed))}, to compare them with",
                todo="Name them too.",
            )

    def train(self) -> None:
        """Whatever is not trained yet, seed by seed."""
        for seed in self.seeds:
            for method in self.methods:
                self.run.train_student(method, seed)

    def reading(self, method: str, seed: int) -> dict:
        """One student's translations and figures on the test split, kept on disk."""
        folder = self.run.folder / f"{method}-{seed}"

        def read() -> dict:
            return {"method": method, "seed": seed} | self._read(folder / "model")

        path = folder / "reading.json"
        return kept_reading(path, model_hash(folder / "model"), read)

    def _read(self, folder: Path) -> dict:
        model, result = load_model(folder), {}
        for prefix, beam in (("", 1), ("beam_", BEAM)):
            lines = open_translator(folder, beam=beam).translate(self.sources)
            scores = score(lines, self.references)
            result |= {f"{prefix}lines": lines}
            result |= {f"{prefix}bleu": scores.bleu, f"{prefix}chrf": scores.chrf}
        vocabulary = self.run.vocabulary
        examples = fixed_examples(self.sources, self.references, vocabulary)
        return result | {
            "parameters": count_parameters(model),
            "peakedness": peakedness(model, vocabulary, self.sources),
            "calibration_error": calibration_error(model, examples),
        }

    def student(self, method: str, seed: int) -> dict:
        """One row of the record: the figures and the learning curve, without lines."""
        row = self.reading(method, seed)
        kept = {k: v for k, v in row.items() if not k.endswith("lines")}
        return kept | {"curve": self.run.curve(f"{method}-{seed}")}

    def comparison(self, method: str, baseline: str, seed: int) -> dict:
        """A method against a baseline of the same seed: gain, interval and p."""
        ours, theirs = self.reading(method, seed), self.reading(baseline, seed)
        result = paired_bootstrap(ours["lines"], theirs["lines"], self.references)
        return {
            "method": method,
            "baseline": baseline,
            "seed": seed,
            "gain": result.delta,
            "interval": [result.low, result.high],
            "p": result.p,
            "beam_gain": ours["beam_bleu"] - theirs["beam_bleu"],
        }

    def record(self) -> dict:
        """The whole table but its costs."""
        students = [self.student(m, s) for m in self.methods for s in self.seeds]
        comparisons = [
            self.comparison(method, baseline, seed)
            for method in self.methods
            for baseline in baselines_of(method)
            if baseline in self.methods
            for seed in self.seeds
        ]
        some = score(self.references, self.references)
        return {
            "manifest": manifest(self.run),
            "signatures": {
                "bleu": some.bleu_signature,
                "chrf": some.chrf_signature,
            },
            "budget_tokens": self.run.student_recipe["training"]["budget_tokens"],
            "wide_budget_tokens": self.run.student_recipe["wide"]["training"][
                "budget_tokens"
            ],
            "students": students,
            "comparisons": comparisons,
            "verdicts": verdicts(comparisons),
            "findings": findings(students),
        }


def verdicts(comparisons: Sequence[dict]) -> dict:
    """{method: {baseline: one of BEATS, NO BEATS, INCONCLUSIVE}} (measure.verdict)."""
    table: dict[str, dict[str, str]] = {}
    for row in comparisons:
        pair = row["method"], row["baseline"]
        same = [c for c in comparisons if (c["method"], c["baseline"]) == pair]
        word = verdict([c["gain"] for c in same], [c["p"] for c in same])
        table.setdefault(pair[0], {})[pair[1]] = word
    return table


def holds(differences: Sequence[float]) -> str:
    """Whether all seeds agree that a difference is above zero: yes, no, or neither."""
    if all(d > 0 for d in differences):
        return "yes"
    return "no" if all(d <= 0 for d in differences) else "inconclusive"


def findings(students: Sequence[dict]) -> list[dict]:
    """What the literature found, and the same difference here, seed by seed.

    Each has ``claim``, ``source``, ``differences`` (one a seed) and ``holds``, which
    asks no more than that all seeds agree in sign. Claims on methods that are not
    among the students are left out.
    """
    trained = {s["method"] for s in students}

    def figures(method: str, name: str) -> list[float]:
        rows = [s for s in students if s["method"] == method]
        return [s[name] for s in sorted(rows, key=lambda s: s["seed"])]

    def minus(method: str, baseline: str, name: str = "bleu") -> list[float]:
        ours, theirs = figures(method, name), figures(baseline, name)
        return [a - b for a, b in zip(ours, theirs, strict=True)]

    def beam_less() -> list[float]:
        greedy = minus("sequence", "untaught")
        beam = minus("sequence", "untaught", "beam_bleu")
        return [g - b for g, b in zip(greedy, beam, strict=True)]

    def best_of_all() -> list[float]:
        others = trained - {"both", *WIDE}
        columns = zip(*(figures(m, "bleu") for m in others), strict=True)
        best = map(max, columns)
        return [a - b for a, b in zip(figures("both", "bleu"), best, strict=True)]

    rows = [
        (
            "sequence-level distillation helps greedy search more than beam search",
            "Kim & Rush 2016",
            {"sequence", "untaught"},
            beam_less,
        ),
        (
            "a student taught on the teacher's translations is more peaked",
            "Kim & Rush 2016",
            {"sequence", "untaught"},
            lambda: minus("sequence", "untaught", "peakedness"),
        ),
        (
            "Jensen-Shannon teaches at least as well as the forward KL",
            "f-distill 2023",
            {"word-js", "word"},
            lambda: minus("word-js", "word"),
        ),
        (
            "sequence- and word-level together teach best of all",
            "Kim & Rush 2016",
            {"both", "sequence", "word"},
            best_of_all,
        ),
    ]
    found = [(c, s, count()) for c, s, needed, count in rows if needed <= trained]
    return [
        {"claim": c, "source": s, "differences": d, "holds": holds(d)}
        for c, s, d in found
    ]


# --- What it costs ---------------------------------------------------------------


def costs(
    pipeline: Pipeline,
    methods: Sequence[str] | None = None,
    *,
    steps: int = 80,
    warmup: int = 20,
    rows: int = 500,
    clock: Callable[[], float] = time.process_time,
) -> dict:
    """CPU seconds of one core, measured side by side in one run.

    ``training`` holds for each method the seconds that its budget takes, from
    ``steps`` timed steps; ``preparation`` the seconds for the whole corpus of
    students of one teacher search, and of caching its answers, from ``rows`` rows.
    """
    seconds = {
        method: _training_seconds(pipeline, method, steps, warmup, clock)
        for method in methods or pipeline.student_recipe["comparison"]["methods"]
    }
    return {
        "training": seconds,
        "preparation": _preparation_seconds(pipeline, rows, clock),
    }


def _training_seconds(pipeline, method, steps, warmup, clock) -> float:
    settings = pipeline.student_recipe | (
        pipeline.student_recipe["wide"] if method in WIDE else {}
    )
    told = METHODS["untaught" if method in WIDE else method]
    sources, targets = pipeline.lesson(told)
    recipe = Recipe(**settings["training"], seed=1)
    epochs = StudentEpochs(
        sources,
        encode_targets(targets, pipeline.vocabulary),
        SubwordSampler(pipeline.vocabulary),
    )
    answers = {"signals": None, "teacher": None} | pipeline.answers(
        told, sources, targets, seed=1
    )
    alpha = settings["labels"]["alpha"]
    trainer = Trainer(
        build_model(Architecture(**settings["architecture"]), pipeline.vocabulary, 1),
        recipe,
        epochs,
        **hooks(told, answers["signals"], answers["teacher"], alpha),
    )
    batches = trainer.batches()
    for batch in islice(batches, warmup):
        trainer.step(batch)
    before, started = trainer.state["tokens"], clock()
    for batch in islice(batches, steps):
        trainer.step(batch)
    spent, tokens = clock() - started, trainer.state["tokens"] - before
    return spent * recipe.budget_tokens / tokens


def _preparation_seconds(pipeline, rows, clock) -> dict:
    sources, references = pipeline.student_data
    share, some = len(sources) / rows, sources[:rows]
    labels = pipeline.student_recipe["labels"]
    translator = open_translator(
        pipeline.train_teacher(),
        beam=labels["beam"],
        compute_type=labels["compute_type"],
        shield=False,
    )
    translator.translate(sources[rows : rows + 20])
    teacher = load_model(pipeline.train_teacher())
    started = clock()
    translator.translate(some)
    labelled = clock()
    pipeline.signals(some, references[:rows], teacher)
    return {
        "labels": (labelled - started) * share,
        "signals": (clock() - labelled) * share,
    }


def mean_of(record: dict, method: str, figure: str) -> float:
    """The mean over seeds of one figure of a method, such as "bleu"."""
    return mean(s[figure] for s in record["students"] if s["method"] == method)


def gain_of(record: dict, method: str, baseline: str = "untaught") -> float:
    """The mean over seeds of a method's gain in BLEU over its twins of the same run."""
    pairs = [c for c in record["comparisons"] if c["method"] == method]
    return mean(c["gain"] for c in pairs if c["baseline"] == baseline)
