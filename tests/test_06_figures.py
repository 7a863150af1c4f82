"""The figures of lesson 06: what they draw, and what they refuse."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import corpus as figures

PIECES = ["<start>", "el", "la", "luz", "</s>"]


@pytest.fixture(autouse=True)
def close_all():
    yield
    plt.close("all")


def written(figure):
    """The texts of a figure, in the order in which they were written."""
    return [text.get_text() for text in figure.axes[0].texts]


def pieces(ids):
    return [PIECES[i] for i in ids]


STEPS = [
    ([(math.log(0.6), [0, 1]), (math.log(0.4), [0, 2])], []),
    ([(math.log(0.39), [0, 2, 3])], [(math.log(0.5) / 2, [0, 1, 4])]),
    ([], [(math.log(0.5) / 2, [0, 1, 4]), (math.log(0.3) / 3, [0, 2, 3, 4])]),
]


def test_each_live_and_each_finished_hypothesis_stands_once():
    said = written(figures.beam(STEPS, pieces))
    assert said == ["start", "el\n0.60", "la\n0.40", "luz\n0.39", "</s>", "</s>"]


def test_a_line_leads_from_the_beginning_that_is_extended():
    figure = figures.beam(STEPS, pieces)
    ends = [tuple(map(tuple, line.get_xydata())) for line in figure.axes[0].lines]
    assert ends == [
        ((0, 0), (1, 0)),
        ((0, 0), (1, -1)),
        ((1, -1), (2, 0)),
        ((1, 0), (2, -1)),
        ((2, 0), (3, 0)),
    ]


def test_finished_boxes_have_a_thick_frame():
    figure = figures.beam(STEPS, pieces)
    widths = {
        text.get_text(): text.get_bbox_patch().get_linewidth()
        for text in figure.axes[0].texts
    }
    assert widths["</s>"] > 2 > widths["luz\n0.39"]


def test_a_beam_without_a_step_is_told_what_to_pass():
    with pytest.raises(KdcourseError, match="watch=steps"):
        figures.beam([], pieces)


def test_the_cost_of_subwords_is_drawn_for_each_language():
    cost = {"en": [3.0, 2.0], "es": [2.9, 1.9]}
    figure = figures.subword_cost(
        [500, 1000], cost, {"English only": (1000, {"en": 1.8, "es": 3.5})}
    )
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert lines == [[3.0, 2.0], [1.8], [2.9, 1.9], [3.5]]
    assert written(figure) == ["en", "en, English only", "es", "es, English only"]


def test_a_language_with_too_few_numbers_is_named():
    with pytest.raises(KdcourseError, match="'es' has 1 numbers for 2 sizes"):
        figures.subword_cost([500, 1000], {"es": [3.0]}, {})
