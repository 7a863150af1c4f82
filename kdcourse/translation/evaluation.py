"""Score translations, compare two systems, and time them.

Quality is measured on detokenised text with sacreBLEU (Post 2018), and never without
its signature; differences with a paired bootstrap; speed with the number of threads
and the load of the machine beside it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from ..errors import KdcourseError
from .augmentation import name_spans, stands_in
from .corpus import placeholders
from .decoding import Translator

NGRAMS = 4
EXAMPLES = 5  # of what was lost, kept for the reader

# --- Quality ---------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Corpus BLEU and chrF2, both 0–100, with what makes them comparable."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str

    def __str__(self) -> str:
        return (
            f"BLEU {self.bleu:5.1f}  ({self.bleu_signature})\n"
            f"chrF {self.chrf:5.1f}  ({self.chrf_signature})"
        )


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU (Papineni et al. 2002) and chrF2 (Popović 2015) of a whole corpus.

    Both sides are plain sentences as a reader sees them, one reference each; sacreBLEU
    does its own tokenisation, which its signature names.

    Raises:
        KdcourseError: no sentence, unequal numbers, or nested references.
    """
    check_parallel(hypotheses=hypotheses, references=references)
    bleu, chrf = BLEU(), CHRF()
    return Scores(
        bleu.corpus_score(list(hypotheses), [list(references)]).score,
        chrf.corpus_score(list(hypotheses), [list(references)]).score,
        str(bleu.get_signature()),
        str(chrf.get_signature()),
    )


def check_parallel(**columns: Sequence[str]) -> None:
    """Nothing, where all columns are lists of strings of one length above zero."""
    for name, column in columns.items():
        if isinstance(column, str):
            given = f"The {name} are one string"
        elif len(column) == 0:
            given = f"The list of {name} is empty"
        elif wrong := [type(x).__name__ for x in column if not isinstance(x, str)]:
            given = f"The {name} hold {len(wrong)} × {wrong[0]}"
        else:
            continue
        raise KdcourseError(
            f"{given}.",
            wanted=f"a flat list of {name}, one string for each sentence",
            todo="Pass [“…”, “…”]; unlike sacreBLEU, do not nest the references.",
        )
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise KdcourseError(
            f"{' but '.join(f'{count} {name}' for name, count in counts.items())}.",
            wanted="the same number on each side, in the same order",
            todo="Find the lost line; an empty translation must stay an empty line.",
        )


@dataclass(frozen=True)
class Comparison:
    """System minus baseline, in BLEU: the difference, its 95 % interval and p."""

    delta: float
    low: float
    high: float
    p: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.delta:+.1f} BLEU, 95 % interval {self.low:+.1f} to "
            f"{self.high:+.1f}, p = {self.p:.4f} "
            f"(paired bootstrap, {self.samples} samples)"
        )


def paired_bootstrap(
    system: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[str],
    samples: int = 1000,
    seed: int = 12345,
) -> Comparison:
    """Is the difference in BLEU more than the luck of this test set? (Koehn 2004)

    Draw N of the N sentences with replacement, score both systems on the same draw,
    repeat. With d_i the differences and d the real one, as in sacreBLEU's ``bs``::

        p = (1 + #{ |d_i| − mean |d_i| ≥ |d| }) / (1 + samples)

    so p is never 0 and can fall to 1 / (1 + samples). (sacreBLEU has > for ≥, with
    which a system compared with itself has the smallest p of all.) The interval
    holds the middle 95 % of the d_i. The bootstrap knows the luck of the sentences,
    not that of the training seed: that takes several seeds.
    """
    check_parallel(system=system, baseline=baseline, references=references)
    ours = bleu_statistics(system, references)
    theirs = bleu_statistics(baseline, references)
    draws = np.random.default_rng(seed).choice(
        len(references), size=(samples, len(references)), replace=True
    )
    delta = bleu_of(ours.sum(axis=0)) - bleu_of(theirs.sum(axis=0))
    differences = np.array(
        [bleu_of(ours[d].sum(axis=0)) - bleu_of(theirs[d].sum(axis=0)) for d in draws]
    )
    sizes = np.abs(differences)
    beyond = int((sizes - sizes.mean() >= abs(delta)).sum())
    low, high = np.quantile(differences, (0.025, 0.975))
    return Comparison(
        delta, float(low), float(high), (1 + beyond) / (1 + samples), samples
    )


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What BLEU sums over sentences, shape (N, 10), whole numbers.

    Per sentence: matched 1- to 4-grams, all 1- to 4-grams, and both lengths.
    """
    metric = BLEU(effective_order=True)  # else it warns of scores that nobody reads
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        one = metric.sentence_score(hypothesis, [reference])
        rows.append([*one.counts, *one.totals, one.sys_len, one.ref_len])
    return np.array(rows, dtype=np.int64)


def bleu_of(sums: np.ndarray) -> float:
    """Corpus BLEU from the summed statistics, smoothed as in ``score``."""
    *counts, system, reference = sums.tolist()
    return BLEU.compute_bleu(
        counts[:NGRAMS], counts[NGRAMS:], system, reference, smooth_method="exp"
    ).score


@dataclass(frozen=True)
class Kept:
    """How many of the names (or placeholders) came through, and some that did not.

    ``lost`` holds up to five (what was lost, hypothesis) pairs.
    """

    kept: int
    total: int
    lost: tuple[tuple[str, str], ...] = ()

    @property
    def share(self) -> float:
        """Between 0 and 1; 1 where there was nothing to keep."""
        return self.kept / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ({self.kept} of {self.total})"


def names_kept(
    sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]
) -> Kept:
    """The share of names that stand word for word in the hypothesis.

    A name is what ``name_spans`` finds in both the source and its reference: the
    human translator left it as it was, so a system should as well.
    """
    check_parallel(sources=sources, references=references, hypotheses=hypotheses)
    total, lost = 0, []
    for source, reference, hypothesis in zip(
        sources, references, hypotheses, strict=True
    ):
        names = name_spans(source, reference)
        total += len(names)
        lost += [(n, hypothesis) for n in names if not stands_in(n, hypothesis)]
    return Kept(total - len(lost), total, tuple(lost[:EXAMPLES]))


def placeholders_kept(sources: Sequence[str], hypotheses: Sequence[str]) -> Kept:
    """The share of placeholders such as ``{host}`` that stand in the hypothesis.

    One that stands twice in the source must stand twice in the hypothesis.
    """
    check_parallel(sources=sources, hypotheses=hypotheses)
    total, lost = 0, []
    for source, hypothesis in zip(sources, hypotheses, strict=True):
        wanted = placeholders(source)
        total += wanted.total()
        missing = wanted - placeholders(hypothesis)
        lost += [(slot, hypothesis) for slot in missing.elements()]
    return Kept(total - len(lost), total, tuple(lost[:EXAMPLES]))


# --- Speed -----------------------------------------------------------------------


@dataclass(frozen=True)
class Latency:
    """Seconds never stand alone: the threads and the load belong to the result.

    ``p50_ms`` and ``p95_ms`` are milliseconds for one sentence on its own;
    ``words_per_second`` counts source words when all sentences come at once;
    ``load`` is the machine's load average over the last minute, None on Windows.
    """

    p50_ms: float
    p95_ms: float
    words_per_second: float
    sentences: int
    threads: int
    load: float | None

    def __str__(self) -> str:
        load = "unknown" if self.load is None else f"{self.load:.1f}"
        return (
            f"p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms a sentence; "
            f"{self.words_per_second:.0f} words/s batched "
            f"({self.sentences} sentences, {self.threads} thread"
            f"{'s' * (self.threads != 1)}, load {load})"
        )


def latency(
    translator: Translator,
    sentences: Sequence[str],
    *,
    warmup: int = 5,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time a translator: sentence by sentence, then all of them in one call.

    The first calls are slow (memory, caches): ``warmup`` sentences are translated
    unmeasured. Each time is the median of ``repeats``, so that one hiccup of the
    machine does not count. Repeated sentences are dropped: an engine may translate
    equal ones once. ``clock`` may be ``time.process_time``, for CPU seconds.
    """
    check_parallel(sentences=sentences)
    if repeats < 1 or warmup < 0:
        raise KdcourseError(
            f"repeats is {repeats} and warmup is {warmup}.",
            wanted="repeats from 1 up, warmup from 0 up",
            todo="Leave them out for 3 and 5.",
        )
    distinct = list(dict.fromkeys(sentences))
    for sentence in distinct[:warmup]:
        translator.translate([sentence])
    single = [_median(translator, [s], repeats, clock) for s in distinct]
    batched = _median(translator, distinct, repeats, clock)
    p50, p95 = np.quantile(single, (0.5, 0.95))
    return Latency(
        p50_ms=1000 * float(p50),
        p95_ms=1000 * float(p95),
        words_per_second=sum(len(s.split()) for s in distinct) / batched,
        sentences=len(distinct),
        threads=translator.threads,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _median(
    translator: Translator, batch: list[str], repeats: int, clock: Callable[[], float]
) -> float:
    """The median of the seconds that a batch takes."""
    seconds = []
    for _ in range(repeats):
        started = clock()
        translator.translate(batch)
        seconds.append(clock() - started)
    return statistics.median(seconds)
