"""Feature- and relation-based losses against references in numpy-free loops."""

import math

import pytest
import torch

from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.features import (
    attention_loss,
    feature_loss,
    hidden_states_loss,
    relation_loss,
)

B, L = 2, 4


def features(seed, width):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, L, width, generator=generator, dtype=torch.float64)


MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


def real(tensor):
    return [
        row
        for row, kept in zip(tensor.flatten(0, 1), MASK.flatten(), strict=True)
        if kept
    ]


def test_the_feature_loss_is_a_mean_over_real_tokens():
    student, teacher = features(1, 3), features(2, 3)
    rows = zip(real(student), real(teacher), strict=True)
    squares = [
        (a - b) ** 2
        for s, t in rows
        for a, b in zip(s.tolist(), t.tolist(), strict=True)
    ]
    value = feature_loss(student, teacher, mask=MASK)
    assert value.item() == pytest.approx(sum(squares) / len(squares))
    assert feature_loss(teacher, teacher) == 0


def test_a_projection_bridges_widths_and_is_trained():
    student, teacher = features(1, 3), features(2, 5)
    projection = torch.nn.Linear(3, 5, dtype=torch.float64)
    student.requires_grad_(True)
    inputs = (student, *projection.parameters())

    def loss(student, weight, bias):
        put = torch.nn.functional.linear
        return feature_loss(
            student, teacher, projection=lambda x: put(x, weight, bias), mask=MASK
        )

    assert torch.autograd.gradcheck(loss, inputs)
    feature_loss(student, teacher, projection=projection, mask=MASK).backward()
    assert (student.grad[~MASK] == 0).all() and (student.grad[MASK] != 0).all()
    assert projection.weight.grad.abs().sum() > 0


def test_hidden_states_follow_the_chosen_layers():
    student = [features(n, 3) for n in range(3)]
    teacher = [features(10 + n, 3) for n in range(5)]
    value = hidden_states_loss(student, teacher, layers=[(1, 2), (2, 4)], mask=MASK)
    expected = sum(
        feature_loss(student[s], teacher[t], mask=MASK) for s, t in ((1, 2), (2, 4))
    )
    torch.testing.assert_close(value, expected / 2)


def test_attention_is_compared_as_a_distribution():
    student, teacher = (
        torch.stack([features(n + h, 6) for h in range(heads)], 1).softmax(-1)
        for n, heads in ((1, 2), (9, 3))
    )
    total = 0.0
    for b in range(B):
        for t in range(L):
            if MASK[b, t]:
                p, q = (
                    teacher[b, :, t].mean(0).tolist(),
                    student[b, :, t].mean(0).tolist(),
                )
                total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    value = attention_loss(student, teacher, mask=MASK)
    assert value.item() == pytest.approx(total / MASK.sum().item())
    assert attention_loss(teacher, teacher).abs() < 1e-12


def test_relations_survive_a_rotation_and_a_change_of_width():
    teacher = features(2, 5)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    assert relation_loss(3 * teacher @ rotation, teacher, mask=MASK) < 1e-12
    wide = torch.cat([teacher, torch.zeros(B, L, 2).double()], -1)
    assert relation_loss(wide, teacher, mask=MASK) < 1e-12
    student = features(1, 3).requires_grad_(True)
    value = relation_loss(student, teacher, mask=MASK)
    rows = [real(student.detach()), real(teacher)]
    cos = torch.nn.functional.cosine_similarity
    squares = [
        (cos(rows[0][i], rows[0][j], dim=0) - cos(rows[1][i], rows[1][j], dim=0)) ** 2
        for i in range(6)
        for j in range(6)
    ]
    assert value.item() == pytest.approx((sum(squares) / 36).item())
    assert torch.autograd.gradcheck(lambda s: relation_loss(s, teacher), (student,))


X, Y = features(1, 3), features(2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: feature_loss(X, features(2, 4)), "student_features is 3 wide after"),
        (lambda: feature_loss(X, Y[:1]), r"teacher_features is of shape \(1, 4, 3\)"),
        (lambda: feature_loss(X, Y, mask=MASK.long()), "mask is of torch.int64"),
        (lambda: feature_loss(X, Y, mask=MASK & False), "mask is without a single"),
        (lambda: feature_loss(X * math.nan, Y), "student_features is nan"),
        (lambda: relation_loss(X[0, :1], Y[0, :1]), "student_features is 1 real token"),
        (lambda: hidden_states_loss([X], [Y], layers=[]), "layers is empty"),
        (
            lambda: hidden_states_loss([X], [Y], layers=[(0, 1)]),
            "layers is teacher layer",
        ),
        (
            lambda: hidden_states_loss(
                [X], [Y], layers=[(0, 0)], projections=[None] * 2
            ),
            "projections is a list of 2",
        ),
        (lambda: attention_loss(X, Y), r"student_attention is of shape \(2, 4, 3\)"),
    ],
)
def test_wrong_features_are_explained(call, words):
    with pytest.raises(BadArgument, match=words):
        call()
