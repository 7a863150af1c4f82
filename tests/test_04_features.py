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
A = features(1, 6)[:, None].expand(B, 2, L, 6).softmax(-1)


def projected(projection):
    return feature_loss(X, features(2, 4), projection=projection)


def layers(pairs, **changed):
    states = {"student_states": [X, X], "teacher_states": [Y, Y, Y], **changed}
    return hidden_states_loss(**states, layers=pairs)


BAD_FEATURES = [
    ([[0.0]], "is a list"),
    (X.long(), "is a tensor of torch.int64. Wanted: floating-point numbers"),
    (X.to(torch.complex64), "is a tensor of torch.complex64"),
    (X[:0], r"is a tensor of shape \(0, 4, 3\)"),
    (X.sum(), r"is a tensor of shape \(\)"),
    (X * math.nan, r"is nan at \(0, 0, 0\), and .* Wanted: finite numbers"),
    (X + math.inf, "is inf at"),
    (X - math.inf, "is -inf at"),
    (X.to("meta"), "is on meta"),
    (X.to_sparse(), "is a tensor of layout"),
]


@pytest.mark.parametrize("loss", [feature_loss, relation_loss])
@pytest.mark.parametrize(("wrong", "words"), BAD_FEATURES)
def test_bad_features_are_named_on_either_side(loss, wrong, words):
    with pytest.raises(BadArgument, match=f"student_features {words}"):
        loss(wrong, X)
    with pytest.raises(BadArgument, match=f"teacher_features {words}"):
        loss(X, wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *BAD_FEATURES,
        (A[0], r"is of shape \(2, 4, 6\)"),
        (A.log(), "is of shape .* smallest entry -"),
        (A / 2, "is of the sum 0.5 over S"),
        (A * 9, "is of the sum 9 over S"),
    ],
)
def test_bad_attention_is_named_on_either_side(wrong, words):
    with pytest.raises(BadArgument, match=f"student_attention {words}"):
        attention_loss(wrong, A)
    with pytest.raises(BadArgument, match=f"teacher_attention {words}"):
        attention_loss(A, wrong)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_attention_of_16_bits_is_a_distribution(kind):
    flat = torch.full((1, 2, 3, 999), 1 / 999)
    assert attention_loss(flat.to(kind), flat.to(kind)) == 0
    assert attention_loss(A.to(kind), A).abs() < 1e-2


class Doubled(torch.nn.Module):
    def forward(self, x):
        return x.repeat(2, 1)


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
        (
            lambda: attention_loss(A, A[..., 1:]),
            "teacher_attention is over 5 positions",
        ),
        (
            lambda: attention_loss(A, A[:1]),
            r"teacher_attention is of shape \(1, 4, 6\)",
        ),
        (lambda: attention_loss(A, A, mask=MASK.long()), "mask is of torch.int64"),
        (lambda: relation_loss(X, Y, mask=MASK & False), "mask is without a single"),
        (lambda: relation_loss(X, Y[:1]), r"teacher_features is of shape \(1, 4, 3\)"),
        (lambda: projected("linear"), "projection is a str. Wanted: a module"),
        (lambda: projected([torch.nn.Linear(3, 4)]), "projection is a list"),
        (
            lambda: projected(torch.nn.Linear(5, 4).double()),
            "projection is a Linear th",
        ),
        (
            lambda: projected(torch.nn.Linear(3, 4)),
            "projection is a Linear that raises",
        ),
        (lambda: projected(lambda x: None), "whose result is a NoneType"),
        (lambda: projected(lambda x: x.long()), r"projection\(student_features\) is a"),
        (lambda: projected(lambda x: x * math.nan), "student_features. is nan at"),
        (lambda: projected(Doubled()), r"Doubled whose result is a Tensor \(16, 3\)"),
        (
            lambda: projected(torch.nn.Linear(3, 5).double()),
            "student_features is 5 wide after the projection. Wanted: 4",
        ),
        (lambda: layers(None), "layers is None. Wanted: a list of pairs"),
        (lambda: layers([1, 2]), r"layers is \[1, 2\]"),
        (lambda: layers([(0, 1, 2)]), "layers is .* Wanted: a list of pairs"),
        (lambda: layers([(0.0, 1)]), "layers is .* Wanted: a list of pairs of whole"),
        (lambda: layers([(True, 1)]), "layers is .* Wanted: a list of pairs of whole"),
        (lambda: layers([(-1, 1)]), "layers is student layer -1"),
        (lambda: layers([(2, 1)]), r"layers is student layer 2. Wanted: 0\.\.1"),
        (lambda: layers([(0, 0)], student_states=None), "student_states is a NoneType"),
        (lambda: layers([(0, 0)], teacher_states=3), "teacher_states is a int"),
        (lambda: layers([(0, 0)], projections=3), "projections is a int"),
        (lambda: layers([(0, 0)], projections=[3]), "projection is a int"),
        (lambda: layers([(0, 0)], mask=MASK.long()), "mask is of torch.int64"),
    ],
)
def test_wrong_features_are_explained(call, words):
    with pytest.raises(BadArgument, match=words):
        call()
