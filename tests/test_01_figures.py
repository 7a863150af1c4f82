"""The figures of lesson 01 show the numbers that they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import distributions as figures

SHARES = {"Sin …": {"▁energía": 0.539, "▁$": 0.388, "▁de": 0.002, "no": 0.0}}
THREE = SHARES | {"one": {"a": 1.0}, "two": {"a": 0.5, "b": 0.5}}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_panel_has_a_bar_a_word_and_its_per_cent():
    (axes,) = figures.panels(SHARES, columns=1).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [53.9, 38.8, 0.2, 0.0]
    )
    assert texts(axes) == ["54 %", "39 %", "<1 %", "0 %"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["▁energía", r"▁\$", "▁de", "no"]  # the first at the top
    assert axes.get_yticks().tolist() == [3, 2, 1, 0]
    assert axes.get_title() == "Sin …"


def test_the_marked_word_is_told_apart_without_colour():
    (axes,) = figures.panels(SHARES, marked={"Sin …": "▁de"}, columns=1).axes
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "///", None]
    assert texts(axes)[2] == "<1 %  reference"


def test_panels_fill_rows_and_leave_no_empty_frame():
    fig = figures.panels(THREE)
    assert [axes.get_visible() for axes in fig.axes] == [True, True, True, False]
    assert [axes.get_title() for axes in fig.axes[:3]] == list(THREE)


def test_the_mass_is_drawn_at_each_k_and_named_at_its_curve():
    curves = {"on average": [0.8, 0.9, 0.99], "at least": [0.4, 0.6, 0.9]}
    (axes,) = figures.mass_by_k([1, 2, 4], curves, level=0.95).axes
    drawn = [line.get_ydata() for line in axes.lines[:2]]
    assert [list(ys) for ys in drawn] == list(curves.values())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
    assert texts(axes) == ["on average", "at least", "95 %"]
    first, second = axes.lines[:2]
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()


@pytest.mark.parametrize(
    "empty",
    [
        lambda: figures.panels({}),
        lambda: figures.panels({"nothing": {}}),
        lambda: figures.mass_by_k([1], {}, level=0.95),
    ],
)
def test_nothing_to_show_is_said(empty):
    with pytest.raises(KdcourseError, match="nothing to show"):
        empty()
