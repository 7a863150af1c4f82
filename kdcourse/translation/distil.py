"""Distil a teacher into a student: one function, every row of the table of methods.

Each method is a choice of the one objective (``theory.objective``): which sequences
μ the student is shown, and which discrepancy D counts at each of their tokens.

=============  ====================================  ===============================
method         sequences μ                           D at each token
=============  ====================================  ===============================
untaught       references                            -log Pr^s of the token
smoothing      references                            the same, ε of it given to all
word           references                            KL(Pr^t ‖ Pr^s)
word-rkl       references                            KL(Pr^s ‖ Pr^t)
word-js        references                            Jensen-Shannon
word-tvd       references                            total variation
word-skew      references                            skew KL
shuffled       references                            KL, of another source's answers
self           references                            KL, of its own trained twin
sequence       the teacher's beam translations       -log Pr^s of the token
interpolation  its candidates nearest the reference  -log Pr^s of the token
samples        the teacher's samples                 -log Pr^s of the token
both           the teacher's beam translations       KL(Pr^t ‖ Pr^s)
on-policy      references and the student's samples  Jensen-Shannon
unlabelled     beam translations, of more sources    KL(Pr^t ‖ Pr^s)
=============  ====================================  ===============================

All start from the same weights, read the same sources in the same order and stop at
the same number of target tokens: only what they are told differs. One reads more:
"unlabelled" also has the teacher's translations of English that no one translated
(``unlabelled``), which is of no use to a student without a teacher.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Set
from dataclasses import asdict, dataclass

from transformers import MarianMTModel

from ..errors import KdcourseError
from .augmentation import Augmenter, name_spans
from .caching import SignalCache
from .corpus import near_keys
from .examples import encode_targets
from .losses import live_loss, smoothed_loss, word_loss
from .models import STUDENT, Architecture, build_model
from .on_policy import OnPolicyMix
from .own_vocabulary import check_origin, check_teacher
from .training import Example, Recipe, Trainer
from .vocabulary import SubwordSampler, Vocabulary

TEACHER, ANOTHERS, ITSELF = "the teacher", "another row's", "itself"


@dataclass(frozen=True)
class Method:
    """One row of the table: sequences, divergence, and what is special about it.

    ``targets`` names the sequences; ``divergence`` is None for hard labels alone, else
    a name of ``theory.divergences.DIVERGENCES``; ``share`` is λ, the share of steps on
    the student's own samples; ``smoothing`` is ε. ``teacher`` says who answers: the
    teacher; "another row's", the teacher reading another row's source, the control of
    which nothing should be learned; or "itself", the untaught student of the same
    seed once it is trained. ``unlabelled`` adds sources that have no reference.
    """

    targets: str = "references"
    divergence: str | None = None
    share: float = 0.0
    smoothing: float = 0.0
    teacher: str = TEACHER
    unlabelled: bool = False

    @property
    def cached(self) -> bool:
        """Whether the teacher's answers to its sequences are kept beforehand."""
        return self.divergence is not None


METHODS = {
    "untaught": Method(),
    "smoothing": Method(smoothing=0.1),
    "word": Method(divergence="forward_kl"),
    "word-rkl": Method(divergence="reverse_kl"),
    "word-js": Method(divergence="generalised_js"),
    "word-tvd": Method(divergence="total_variation"),
    "word-skew": Method(divergence="skew_kl"),
    "shuffled": Method(divergence="forward_kl", teacher=ANOTHERS),
    "self": Method(divergence="forward_kl", teacher=ITSELF),
    "sequence": Method("beam"),
    "interpolation": Method("interpolation"),
    "samples": Method("samples"),
    "both": Method("beam", "forward_kl"),
    "unlabelled": Method("beam", "forward_kl", unlabelled=True),
    "on-policy": Method(divergence="generalised_js", share=0.25),
}


def with_invented_names(
    sources: list[str],
    references: list[str],
    copies: int,
    seed: int,
    held: Set[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    """The corpus, then ``copies`` more of its rows with names, the names exchanged.

    These are the sentences on which the student learns to copy what it never saw;
    the teacher translates them as it does all others. A made row that has become a
    near-duplicate of a held-out string, by its ``near_keys`` in ``held``, is left out.
    """
    spans = [
        n for s, r in zip(sources, references, strict=True) for n in name_spans(s, r)
    ]
    augment, rng = Augmenter(spans, 1.0, sources), random.Random(seed)
    pairs = list(zip(sources, references, strict=True))
    made = dict(pairs)
    extra: dict[str, str] = {}
    for _ in range(copies):
        for source, reference in pairs:
            new_source, new_reference = augment(source, reference, rng)
            if new_source not in made and not near_keys(new_source) & held:
                extra.setdefault(new_source, new_reference)
    pairs += extra.items()
    return [s for s, _ in pairs], [r for _, r in pairs]


@dataclass(frozen=True)
class Curriculum:
    """General text first, then the job's own: the first ``own_rows`` of the rows.

    All rows are read in the first ``general_epochs`` epochs, the own ones alone in the
    epochs after them: general distillation, then task-specific distillation (Jiao et
    al. 2020).
    """

    own_rows: int
    general_epochs: int

    def rows(self, epoch: int) -> int | None:
        """How many of the rows an epoch reads, from the first on; None for all."""
        return None if epoch < self.general_epochs else self.own_rows


@dataclass
class StudentEpochs:
    """Fixed targets, sources cut anew each epoch, which depends on its number alone."""

    sources: list[str]
    targets: list[list[int]]
    sampler: SubwordSampler
    curriculum: Curriculum | None = None

    def __call__(self, epoch: int) -> list[Example]:
        """The examples of an epoch, in the order of the rows."""
        rng = random.Random(f"student/{epoch}")
        pairs = list(zip(self.sources, self.targets, strict=True))
        read = self.curriculum.rows(epoch) if self.curriculum else None
        return [
            Example(self.sampler.encode(source, rng), target, key)
            for key, (source, target) in enumerate(pairs[:read])
        ]


def distil(
    method: str | Method,
    sources: list[str],
    targets: list[str],
    vocabulary: Vocabulary,
    recipe: Recipe,
    *,
    signals: SignalCache | None = None,
    teacher: MarianMTModel | None = None,
    alpha: float = 0.0,
    architecture: Architecture = STUDENT,
    start: MarianMTModel | None = None,
    curriculum: Curriculum | None = None,
    **trainer_options,
) -> tuple[MarianMTModel, list[dict]]:
    """Train one student; return it with its learning curve.

    ``method`` is a name of ``METHODS`` or a ``Method``; ``targets`` are its sequences,
    one a source. Where it has a divergence it also needs the teacher's answers:
    ``signals``, cached on these very targets, or the ``teacher`` itself, which then
    answers live, with all of its distribution and at its price. On-policy always needs
    it live, for the student's own samples, and may have signals for the data.
    ``recipe.seed`` fixes weights, dropout and order; ``alpha`` is the share of hard
    labels beside a divergence. The student is a fresh one of ``architecture``, or goes
    on from ``start``; a ``curriculum`` lets it end with the job's own rows. Further
    options go to ``Trainer``: folder, validate, validate_every, report, progress.

    Raises:
        KdcourseError: an unknown method, missing or superfluous answers of the
            teacher, targets that are not one a source, or a recipe that groups by
            targets.
        OtherVocabulary: the teacher's answers are numbered by another vocabulary.
    """
    method = as_method(method)
    _check_request(method, sources, targets, recipe, signals, teacher)
    if teacher is not None:
        check_teacher(teacher, vocabulary)
    if signals is not None and signals.origin:
        check_origin(*signals.origin, vocabulary)
    ids, sampler = encode_targets(targets, vocabulary), SubwordSampler(vocabulary)
    epochs = StudentEpochs(sources, ids, sampler, curriculum)
    model = start or build_model(architecture, vocabulary, recipe.seed)
    told = hooks(method, signals, teacher, alpha)
    task = task_of(method, alpha, sources, targets, curriculum)
    trainer = Trainer(model, recipe, epochs, task=task, **told, **trainer_options)
    return trainer.run(), trainer.history


def task_of(
    method: Method,
    alpha: float,
    sources: list[str],
    targets: list[str],
    curriculum: Curriculum | None = None,
) -> str:
    """SHA-256 of what a student is told: one that was told else is another student."""
    told = [asdict(method), alpha, sources, targets]
    told += [asdict(curriculum)] if curriculum else []
    lesson = json.dumps(told, ensure_ascii=False)
    return hashlib.sha256(lesson.encode()).hexdigest()


def as_method(method: str | Method) -> Method:
    """A method by its name, or as it is."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise KdcourseError(
            f"Unknown method {method!r}.",
            wanted=f"one of {', '.join(METHODS)}",
            todo="See the table at the head of kdcourse.translation.distil.",
        )
    return METHODS[method]


def hooks(method: Method, signals, teacher, alpha: float) -> dict:
    """What the method makes of the trainer: its loss, and who chooses the targets."""
    if method.share:
        mix = OnPolicyMix(teacher, method.share, method.divergence, alpha, signals)
        return {"loss": mix.loss, "rewrite": mix.rewrite}
    if method.divergence and signals is not None:
        return {"loss": word_loss(signals, alpha, method.divergence)}
    if method.divergence:
        return {"loss": live_loss(teacher, alpha, method.divergence)}
    return {"loss": smoothed_loss(method.smoothing) if method.smoothing else None}


def _check_request(method, sources, targets, recipe, signals, teacher) -> None:
    answers = {"signals": signals, "teacher": teacher}
    given = [n for n, value in answers.items() if value is not None]
    check_answers(method, given)
    if not sources:
        raise KdcourseError(
            "There are no sources.",
            wanted="at least one pair",
            todo="Look at the split, and at what was filtered out of it.",
        )
    if len(sources) != len(targets):
        raise KdcourseError(
            f"{len(sources)} sources but {len(targets)} targets.",
            wanted="one target a source, in the same order",
            todo="Join them by key (Labels), never by position in two files.",
        )
    if recipe.group_by != "source":
        raise KdcourseError(
            f"recipe.group_by is {recipe.group_by!r}.",
            wanted='"source": batches then hold the same rows whatever the targets are',
            todo='Make the recipe with group_by="source".',
        )


def check_answers(method: Method, given: list[str]) -> None:
    """An error where the teacher's answers are missing, doubled or of no use.

    ``given`` names those that there are, of "signals" and "teacher".
    """
    if method.share:
        wanted = [["teacher"], ["signals", "teacher"]]
    elif method.teacher != TEACHER:
        wanted = [["signals"]]  # a live teacher would answer like any other
    elif method.divergence:
        wanted = [["signals"], ["teacher"]]
    else:
        wanted = [[]]
    if given not in wanted:
        names = " or ".join(" and ".join(w) or "neither" for w in wanted)
        raise KdcourseError(
            f"The method was given {' and '.join(given) or 'no answers of a teacher'}.",
            wanted=f"{names} (of signals= and teacher=)",
            todo="Make signals with cache_signals(), or pass the teacher's model; "
            "leave both out where only sequences teach.",
        )
