"""The figures of lesson 08 show what they are given, and refuse what they cannot."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import sequence_level as figures

PEOPLE = {"Error al": 2, "No se pudo": 5, "Fallo": 1, "No se ha": 3, "Imposible": 1}
TEACHER = {"No se pudo": 11, "Nunca": 1}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_openings_stand_in_the_first_groups_order_and_lose_no_text():
    fig = figures.openings({"people": PEOPLE, "teacher": TEACHER}, most=3)
    (axes,) = fig.axes
    people, teacher = axes.containers
    names = [label.get_text() for label in axes.get_yticklabels()][::-1]
    assert names == ["No se pudo", "No se ha", "Error al", figures.OTHERS]
    assert [bar.get_width() for bar in people] == [5, 3, 2, 2]
    assert [bar.get_width() for bar in teacher] == [11, 0, 0, 1]
    assert people[0].get_hatch() != teacher[0].get_hatch()


def test_each_bar_stands_beside_its_name():
    (axes,) = figures.openings({"a": {"x": 1}, "b": {"y": 2}}).axes
    ticks = {t.get_text(): n for n, t in enumerate(axes.get_yticklabels())}
    for bars in axes.containers:
        for bar, name in zip(bars, ["x", figures.OTHERS], strict=True):
            assert abs(bar.get_y() + bar.get_height() / 2 - ticks[name]) < 0.5


def test_gains_have_a_dot_a_seed_and_a_marker_a_search():
    points = {
        "sequence": {"greedy": [3.0, 4.0], "beam": [2.0, 2.5]},
        "both": {"greedy": [3.5, 4.5], "beam": [-0.5, 2.0]},
    }
    (axes,) = figures.gains(points, xlabel="BLEU").axes
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in dots] == [
        [3.0, 4.0],
        [2.0, 2.5],
        [3.5, 4.5],
        [-0.5, 2.0],
    ]
    assert len({line.get_marker() for line in dots}) == 2
    heights = [line.get_ydata()[0] for line in dots]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [names[round(height)] for height in heights] == [
        "sequence",
        "sequence",
        "both",
        "both",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: figures.openings({"people": PEOPLE}),
        lambda: figures.openings({"people": PEOPLE, "teacher": {}}),
        lambda: figures.gains({}, xlabel="BLEU"),
        lambda: figures.gains(
            {"a": {"greedy": [1.0]}, "b": {"beam": [1.0]}}, xlabel="BLEU"
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(make):
    with pytest.raises(KdcourseError, match="wanted|For instance"):
        make()
