"""The figures of lesson 05: a tree of prefixes, and the points of a trade."""

from __future__ import annotations

import pytest

from kdcourse.errors import KdcourseError
from kdcourse.study.figures import objective as figures

TREE = {
    (): {"ve": (0.6, 0.5), "ella ve": (0.4, 0.5)},
    ("ve",): {"el banco": (0.8, 0.5), "la orilla": (0.2, 0.5)},
}
STEPS = {(): (1.0, 0.02), ("ve",): (0.6, 0.19)}
GROUPS = {"forward": [(0.1, 0.3), (0.2, 0.1)], "reverse": [(1.0, 0.0), (2.0, 0.01)]}


def written(axes):
    return [text.get_text() for text in axes.texts]


def test_a_tree_names_its_branches_shares_and_steps():
    (axes,) = figures.prefix_tree(TREE, STEPS).axes
    said = written(axes)
    for word in ("ve", "ella ve", "el banco", "la orilla"):
        assert word in said
    assert {"0.60 | 0.50", "0.80 | 0.50", "0.20 | 0.50"} <= set(said)
    assert {"1.00 × 0.02 nats", "0.60 × 0.19 nats"} <= set(said)


def test_leaves_stand_below_each_other_and_a_parent_between_its_children():
    (axes,) = figures.prefix_tree(TREE, STEPS).axes
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["el banco"] > heights["la orilla"] > heights["ella ve"]
    assert heights["ve"] == (heights["el banco"] + heights["la orilla"]) / 2


def test_a_branch_is_as_wide_as_the_teachers_share():
    (axes,) = figures.prefix_tree(TREE, STEPS).axes
    widths = [line.get_linewidth() for line in axes.lines if line.get_marker() == ""]
    assert widths == pytest.approx([3.8, 2.8, 4.8, 1.8])


def test_a_tree_without_a_root_is_explained():
    with pytest.raises(KdcourseError, match="no root"):
        figures.prefix_tree({("ve",): {"el banco": (1.0, 1.0)}}, {})


def test_the_runs_of_a_pair_are_joined_and_groups_differ_in_marker():
    fig = figures.trade(GROUPS, xlabel="KL", ylabel="mass")
    (axes,) = fig.axes
    joined = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [list(line.get_xdata()) for line in joined] == [[0.1, 1.0], [0.2, 2.0]]
    markers = [line.get_marker() for line in axes.lines if line not in joined]
    assert len(set(markers)) == len(GROUPS)
    assert [text.get_text() for text in fig.legends[0].texts] == list(GROUPS)
    assert (axes.get_xlabel(), axes.get_xscale()) == ("KL", "log")


@pytest.mark.parametrize("groups", [{}, GROUPS | {"third": [(1.0, 1.0)]}])
def test_groups_that_cannot_be_paired_are_explained(groups):
    with pytest.raises(KdcourseError, match="cannot be paired"):
        figures.trade(groups, xlabel="KL", ylabel="mass")
