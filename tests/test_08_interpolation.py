"""The candidate nearest the reference, and the corpus made of such."""

import pytest

from kdcourse.errors import KdcourseError
from kdcourse.translation.interpolation import closest, interpolate, similarity
from kdcourse.translation.labelling import Labels, source_key

CANDIDATES = ["Apagar la luz", "Apaga la luz ya", "Enciende la luz"]


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_the_nearest_candidate_is_chosen(metric):
    assert closest(CANDIDATES, "Enciende la luz", metric) == "Enciende la luz"
    assert closest(CANDIDATES, "Apaga la luz", metric) == "Apaga la luz ya"


def test_of_equals_the_likeliest_stays():
    assert closest(["a b", "b a", "a b"], "c d") == "a b"
    assert closest(["b a", "a b"], "c d") == "b a"


def test_sentence_scores_are_those_of_sacrebleu():
    from sacrebleu.metrics import CHRF

    wanted = CHRF().sentence_score("Apagar la luz", ["Apaga la luz"]).score
    assert similarity("chrf")("Apagar la luz", "Apaga la luz") == wanted
    assert similarity("bleu")("la luz", "la luz") == pytest.approx(100)


def test_a_corpus_is_interpolated_by_its_keys():
    several = {source_key("Turn off"): CANDIDATES, source_key("Off"): ["Apagado"]}
    labels = Labels({}, {key: c[0] for key, c in several.items()}, several)
    said = interpolate(["Off", "Turn off"], ["Fuera", "Apaga la luz"], labels)
    assert said == ["Apagado", "Apaga la luz ya"]


def test_bad_requests_are_explained():
    with pytest.raises(KdcourseError, match="no candidates"):
        closest([], "Apagar")
    with pytest.raises(KdcourseError, match="no candidates"):
        closest("Apagar", "Apagar")
    with pytest.raises(KdcourseError, match="Unknown metric"):
        closest(CANDIDATES, "Apagar", "comet")
    with pytest.raises(ValueError):
        interpolate(["Off"], [], Labels({}, {}))
