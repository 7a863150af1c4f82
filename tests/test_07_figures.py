"""The figures of lesson 07 tell what they show, and its record is of one piece."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import word_level


def test_a_bar_has_three_parts_that_fill_it_and_names_what_has_room():
    fig = word_level.answers(["▁el", "o"], [0.7, 0.02], [("▁la", 0.2), ("a", 0.95)])
    (axes,) = fig.axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([0.7, 0.2, 0.1, 0.02, 0.95, 0.03])
    starts = [bar.get_x() for bar in axes.patches]
    assert starts == pytest.approx([0.0, 0.7, 0.9, 0.0, 0.02, 0.97])
    assert [text.get_text() for text in axes.texts] == ["▁el", "▁la", "a"]
    assert len({bar.get_hatch() for bar in axes.patches}) == 3
    (legend,) = fig.legends
    assert len(legend.get_texts()) == 3


def test_two_parts_of_the_same_token_are_noticed():
    with pytest.raises(KdcourseError, match="sum to 1.4"):
        word_level.answers(["▁el"], [0.7], [("▁el", 0.7)])


def test_each_curve_over_k_is_named_and_differs_without_colour():
    lines = {"kept mass": [0.8, 0.9, 1.0], "renormalised": [1.5, 1.2, 1.0]}
    fig = word_level.shares([1, 8, 4000], lines, [6, 34, 16_002])
    (axes,) = fig.axes
    assert [text.get_text() for text in axes.texts] == list(lines)
    first, second, level = axes.lines
    assert list(first.get_ydata()) == lines["kept mass"]
    assert list(second.get_ydata()) == lines["renormalised"]
    assert set(level.get_ydata()) == {1.0}
    assert first.get_linestyle() != second.get_linestyle()
    (above,) = axes.child_axes
    labels = [label.get_text() for label in above.get_xticklabels()]
    assert labels == ["6", "34", "16,002"]


def test_the_record_of_k_compares_twins_and_counts_its_bytes():
    path = files("kdcourse") / "assets" / "runs" / "topk.json"
    record = json.loads(path.read_text("utf-8"))
    ways = {(row["k"], row["tail"]): row for row in record["ways"]}
    assert list(ways) == [
        (0, ""),
        (1, "renormalise"),
        (1, "bucket"),
        (8, "bucket"),
        (32, "bucket"),
        ("all", ""),
    ]
    for (k, _), row in ways.items():
        assert len(row["kl"]) == len(record["seeds"]) == 3
        size = 8_000 if k == "all" else 4 * k + 2 * (k > 0)  # all: float16
        assert row["bytes_per_token"] == size
    masses = [row["kept_mass"] for row in ways.values()]
    assert masses == sorted(masses) and masses[0] == 0 and masses[-1] == 1
    assert record["manifest"]["recipe"]["group_by"] == "source"
