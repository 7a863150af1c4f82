"""The figures of lesson 09 draw what they are given, and refuse what they cannot."""

from __future__ import annotations

import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import on_policy as figures

ROWS = [[("▁La", 0.98), ("▁luz", 0.005), ("</s>", 0.4)], [("▁Luz", 0.2), ("</s>", 1.0)]]


def cells(figure):
    (axes,) = figure.axes
    return axes.patches, [text.get_text() for text in axes.texts]


def test_each_token_stands_in_a_cell_with_its_probability():
    boxes, texts = cells(figures.opinions(ROWS))
    assert len(boxes) == 5
    assert texts[:6] == ["▁La", ".98", "▁luz", "< .01", "</s>", ".40"]
    assert texts[-2:] == ["</s>", "1.00"]


def test_only_a_slip_has_a_thick_frame_and_the_unlikely_are_darker():
    boxes, _ = cells(figures.opinions(ROWS))
    assert [box.get_linewidth() > 1 for box in boxes] == [
        False,
        True,
        False,
        False,
        False,
    ]
    shades = [box.get_facecolor()[0] for box in boxes]
    assert shades[1] < shades[3] < shades[2] < shades[0] == shades[4] == 1.0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no sentence"),
        ([[("a", 0.5)], []], "an empty sentence"),
        ([[("a", 1.5)]], "no probability"),
        ([[("a", float("nan"))]], "no probability"),
    ],
)
def test_what_cannot_be_drawn_is_named(rows, said):
    with pytest.raises(KdcourseError, match=said):
        figures.opinions(rows)


def test_each_curve_of_the_path_begins_before_the_first_token_and_is_named():
    figure = figures.leaving({"student": [1.0, 0.9, 0.7], "teacher": [1.0] * 3})
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1, 2]] * 2
    assert [text.get_text() for text in axes.texts] == ["student", "teacher"]
    assert len({line.get_marker() for line in axes.lines}) == 2
    with pytest.raises(KdcourseError, match="nothing to show"):
        figures.leaving({})
