"""Scores that others can compare, differences that are no luck, honest times."""

from __future__ import annotations

import random
import time

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from kdcourse.errors import KdcourseError
from kdcourse.translation.augmentation import stands_in
from kdcourse.translation.evaluation import (
    Latency,
    latency,
    names_kept,
    paired_bootstrap,
    placeholders_kept,
    score,
)

WORDS = "la luz no está encendida en el salón de tu casa, ¿verdad? (mundo).".split()


def sentences(count=120, seed=1):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(count)]


def spoilt(references, share, seed):
    """The references with a share of their words exchanged."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choice(WORDS) if rng.random() < share else w for w in text.split())
        for text in references
    ]


REFERENCES = sentences()
GOOD = spoilt(REFERENCES, 0.2, seed=2)
POOR = spoilt(REFERENCES, 0.5, seed=3)
LIKE_GOOD = spoilt(REFERENCES, 0.2, seed=4)


# ------------------------------------------------------------------ score


def test_the_scores_are_sacrebleus_own():
    scores = score(GOOD, REFERENCES)
    assert scores.bleu == sacrebleu.corpus_bleu(GOOD, [REFERENCES]).score
    assert scores.chrf == sacrebleu.corpus_chrf(GOOD, [REFERENCES]).score
    assert 40 < scores.bleu < 80
    same = score(REFERENCES, REFERENCES)
    assert same.bleu == pytest.approx(100) and same.chrf == pytest.approx(100)


def test_the_signatures_name_case_tokenizer_and_version():
    scores = score(GOOD, REFERENCES)
    version = f"version:{sacrebleu.__version__}"
    assert scores.bleu_signature == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    )
    assert scores.chrf_signature == (
        f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"
    )
    assert scores.bleu_signature in str(scores)
    assert f"{scores.bleu:.1f}" in str(scores)


def test_the_two_sides_are_not_interchangeable():
    short = [" ".join(text.split()[:-1]) for text in REFERENCES]
    assert score(short, REFERENCES).chrf != score(REFERENCES, short).chrf


@pytest.mark.parametrize(
    "hypotheses, references, said",
    [
        (["a"], ["a", "b"], "1 hypotheses but 2 references"),
        ([], [], "hypotheses is empty"),
        (["a", "b"], [["a", "b"]], "references hold 1 × list"),
        (["a", "b"], [["a"], ["b"]], "references hold 2 × list"),
        ("a sentence", ["a sentence"], "hypotheses are one string"),
        (["a", None], ["a", "b"], "hypotheses hold 1 × NoneType"),
    ],
)
def test_wrong_lists_are_explained(hypotheses, references, said):
    with pytest.raises(KdcourseError, match=said):
        score(hypotheses, references)


# ------------------------------------------------------------------ paired bootstrap


@pytest.mark.parametrize(
    "system", [GOOD, POOR, REFERENCES], ids=["alike", "worse", "perfect"]
)
def test_p_is_that_of_sacrebleus_own_test(system, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    systems = [("baseline", LIKE_GOOD), ("system", system)]
    metrics = {"BLEU": BLEU(references=[REFERENCES])}
    test = PairedTest(systems, metrics, None, test_type="bs", n_samples=300)
    theirs = test()[1]["BLEU"]
    ours = paired_bootstrap(system, LIKE_GOOD, REFERENCES, samples=300)
    assert ours.p == theirs[1].p_value
    assert ours.delta == pytest.approx(theirs[1].score - theirs[0].score)


def test_a_real_difference_can_fall_below_one_per_cent():
    result = paired_bootstrap(GOOD, POOR, REFERENCES)
    assert result.p == 1 / 1001 and 0 < result.low < result.delta < result.high
    worse = paired_bootstrap(POOR, GOOD, REFERENCES)
    assert worse.delta == -result.delta and worse.high < 0
    assert f"{result.delta:+.1f} BLEU" in str(result) and "p = 0.0010" in str(result)


def test_luck_is_not_taken_for_a_difference():
    result = paired_bootstrap(GOOD, LIKE_GOOD, REFERENCES, samples=300)
    assert result.p > 0.05 and result.low < 0 < result.high


def test_a_system_against_itself_differs_in_nothing():
    """sacreBLEU's test, with > for ≥, gives the smallest possible p here."""
    same = paired_bootstrap(GOOD, GOOD, REFERENCES, samples=100)
    assert same.delta == same.low == same.high == 0 and same.p == 1


def test_the_interval_is_that_of_the_difference_not_of_a_system():
    """Paired draws cancel what is hard for both: the interval is the narrower one."""
    almost = [GOOD[0] + " x", *GOOD[1:]]
    result = paired_bootstrap(GOOD, almost, REFERENCES, samples=200)
    assert 0 < result.delta < result.high < 1


def test_the_bootstrap_is_reproducible_and_checks_its_lists():
    first, again = (paired_bootstrap(GOOD, POOR, REFERENCES, 50) for _ in range(2))
    assert first == again != paired_bootstrap(GOOD, POOR, REFERENCES, 50, seed=1)
    with pytest.raises(KdcourseError, match="119 baseline"):
        paired_bootstrap(GOOD, POOR[1:], REFERENCES)


# ------------------------------------------------------------------ what is kept


def test_names_are_kept_where_they_stand_word_for_word():
    sources = ["A Better Routeplanner on Philips", "Turn on Hue", "no name here"]
    references = ["A Better Routeplanner en Philips", "Encender Hue", "sin nombre"]
    kept = names_kept(sources, references, references)
    assert kept.share == 1 and kept.total >= 3
    garbled = ["Aet Tratero en Philips", "Encender Huelva", "sin nombre"]
    found = names_kept(sources, references, garbled)
    assert found.total == kept.total and found.kept == 1
    assert ("Hue", "Encender Huelva") in found.lost
    assert str(found) == f"{100 / kept.total:.1f} % (1 of {kept.total})"


def test_a_name_must_stand_whole():
    assert stands_in("Hue", "el (Hue).") and stands_in("C++", "en C++")
    assert not stands_in("Hue", "Huelva") and not stands_in("Hue", "hue")


def test_placeholders_are_counted_one_by_one():
    kept = placeholders_kept(
        ["{a} and {a} on {b}", "nothing", "{host}"], ["{a} en {b}", "{x}", "{hoost}"]
    )
    assert (kept.kept, kept.total) == (2, 4) and kept.share == 0.5
    assert kept.lost == (("{a}", "{a} en {b}"), ("{host}", "{hoost}"))
    assert placeholders_kept(["none"], ["nada"]).share == 1


# ------------------------------------------------------------------ latency


class Clockwork:
    """A translator whose time is known: a second a call and 0.1 s a word."""

    threads = 1

    def __init__(self, hiccup_at=None):
        self.now, self.calls, self.hiccup_at = 0.0, [], hiccup_at

    def translate(self, texts):
        self.now += 1 + 0.1 * sum(len(text.split()) for text in texts)
        if len(self.calls) == self.hiccup_at:
            self.now += 1000
        self.calls.append(list(texts))
        return texts

    def clock(self):
        return self.now


LINES = [" ".join(["word"] * n) for n in range(1, 22)]  # 1 to 21 words, median 11


def test_times_are_of_single_sentences_and_words_of_all_at_once():
    work = Clockwork()
    result = latency(work, LINES, warmup=2, repeats=3, clock=work.clock)
    assert result.p50_ms == pytest.approx(2100) and result.p95_ms == pytest.approx(3000)
    assert result.words_per_second == pytest.approx(231 / 24.1)
    assert [len(call) for call in work.calls] == [1] * (2 + 3 * 21) + [21] * 3
    assert work.calls[:2] == [[LINES[0]], [LINES[1]]]


def test_one_hiccup_of_the_machine_does_not_count():
    calm, hiccup = Clockwork(), Clockwork(hiccup_at=40)
    times = [latency(w, LINES, clock=w.clock).p95_ms for w in (calm, hiccup)]
    assert times[0] == pytest.approx(times[1])


def test_repeated_sentences_do_not_flatter():
    work = Clockwork()
    result = latency(work, LINES * 3, clock=work.clock)
    assert result.sentences == len(LINES)
    assert result.words_per_second == pytest.approx(231 / 24.1)


def test_threads_and_load_are_part_of_the_result(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (1.5, 0, 0), raising=False)
    result = latency(Clockwork(), LINES[:2], clock=time.perf_counter)
    assert result.threads == 1 and result.load == 1.5
    said = str(Latency(1.234, 5.678, 999.6, 20, 2, None))
    assert said == (
        "p50 1.2 ms, p95 5.7 ms a sentence; 1000 words/s batched "
        "(20 sentences, 2 threads, load unknown)"
    )


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": -1}])
def test_times_need_sensible_counts(options):
    with pytest.raises(KdcourseError, match="repeats from 1 up"):
        latency(Clockwork(), LINES, **options)
