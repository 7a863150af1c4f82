"""The figures of lesson 02: contexts side by side, and bars cut into their parts."""

from __future__ import annotations

import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import models

PANELS = {
    "river": {"banco": 0.03, "orilla": 0.97},
    "none": {"orilla": 0.4, "banco": 0.6},
}
PARTS = {
    "teacher": {"encoder": 50, "decoder": 47, "vocabulary": 3},
    "student": {"encoder": 5, "decoder": 1, "vocabulary": 4},
}


def written(axes):
    return [text.get_text() for text in axes.texts]


def test_a_panel_has_its_outputs_in_the_first_ones_order():
    fig = models.context_panels(PANELS, mixture="none")
    fig.draw_without_rendering()
    river, none = fig.axes
    assert [river.get_title(), none.get_title()] == ["river", "none"]
    names = [label.get_text() for label in river.get_yticklabels()]
    assert names == ["banco", "orilla"]
    assert [bar.get_width() for bar in none.patches] == [0.6, 0.4]
    assert written(river) == ["0.03", "0.97"]


def test_the_mixture_is_told_without_colour():
    river, none = models.context_panels(PANELS, mixture="none").axes
    assert {bar.get_hatch() for bar in none.patches} == {"///"}
    assert not any(bar.get_hatch() for bar in river.patches)


def test_the_parts_of_a_bar_make_a_hundred():
    (axes,) = models.shares(PARTS, xlabel="per cent").axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([50, 47, 3, 50, 10, 40])
    lefts = [bar.get_x() for bar in axes.patches]
    assert lefts == pytest.approx([0, 50, 97, 0, 50, 60])
    assert axes.get_xlabel() == "per cent"


def test_a_part_too_narrow_for_its_number_has_none():
    (axes,) = models.shares(PARTS, xlabel="per cent").axes
    assert written(axes) == ["50 %", "47 %", "50 %", "10 %", "40 %"]


def test_the_legend_tells_parts_by_their_hatches():
    (legend,) = models.shares(PARTS, xlabel="per cent").legends
    assert [text.get_text() for text in legend.texts] == list(PARTS["teacher"])
    hatches = [handle.get_hatch() for handle in legend.legend_handles]
    assert len(set(hatches)) == 3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: models.context_panels({}, mixture="x"), "nothing to show"),
        (lambda: models.context_panels(PANELS, mixture="x"), "no panel 'x'"),
        (
            lambda: models.context_panels(PANELS | {"c": {"ojo": 1.0}}, mixture="c"),
            "do not have the same entries",
        ),
        (lambda: models.shares({}, xlabel="x"), "nothing to show"),
        (lambda: models.shares({"a": {}}, xlabel="x"), "same entries"),
        (lambda: models.shares({"a": {"b": 1}, "c": {"d": 1}}, xlabel="x"), "same"),
        (lambda: models.shares({"a": {"b": -1}}, xlabel="x"), "below 0"),
        (lambda: models.shares({"a": {"b": 0}}, xlabel="x"), "takes anything"),
        (
            lambda: models.shares({"a": dict.fromkeys("bcdefg", 1)}, xlabel="x"),
            "6 parts",
        ),
    ],
)
def test_what_cannot_be_drawn_is_explained(call, said):
    with pytest.raises(KdcourseError, match=said):
        call()
