"""The figures of lesson 04 tell what they show without colour."""

from __future__ import annotations

import torch

from kdcourse.study.figures import losses

LABELS = torch.tensor([[5, 3, 0], [4, 0, -100]])


def written(axes):
    return [text.get_text() for text in axes.texts]


def test_each_panel_has_a_falling_line_a_level_one_and_its_limit():
    temperatures = [1.0, 2.0, 4.0]
    fall = [1.0, 0.25, 0.0625]
    fig = losses.with_and_without_t_squared(
        temperatures, {"gradient": fall, "KL": fall}, [1.0, 1.0]
    )
    assert [axes.get_title() for axes in fig.axes] == ["gradient", "KL"]
    for axes in fig.axes:
        plain, scaled, limit = axes.lines
        assert list(plain.get_ydata()) == fall
        assert list(scaled.get_ydata()) == [1.0, 1.0, 1.0]
        assert list(limit.get_ydata()) == [1.0, 1.0]
        assert plain.get_linestyle() != scaled.get_linestyle()
        assert "without T²" in written(axes)


def test_a_cross_stands_where_a_position_is_the_wrong_way_round():
    right = LABELS != -100
    wrong = torch.tensor([[False, True, True], [True, True, True]])
    good, bad = losses.positions(LABELS, {"right": right, "wrong": wrong}).axes
    assert written(good) == ["", "", "", "", "", "pad"]
    assert written(bad) == ["✗", "", "", "", "", "✗"]


def test_cosines_are_written_out_and_never_as_minus_zero():
    matrix = torch.tensor([[1.0, -0.01], [-0.01, 1.0]])
    fig = losses.similarities(["▁a", "</s>"], {"teacher": matrix, "student": matrix})
    for axes in fig.axes:
        assert written(axes) == ["1.0", "0.0", "0.0", "1.0"]
        assert [t.get_text() for t in axes.get_xticklabels()] == ["▁a", "</s>"]
