"""The losses against independent references, their gradients and their errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.theory import losses
from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.losses import (
    cross_entropy,
    distillation_loss,
    fused_distillation_loss,
)
from kdcourse.theory.signals import Dense, TopK, top_k

B, L, V, D = 2, 5, 7, 6
quick = settings(max_examples=30, deadline=None, derandomize=True)


def world(seed=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(B, L, V, generator=generator, dtype=torch.float64).to(dtype) * 2
        for _ in range(2)
    )
    labels = torch.randint(0, V, (B, L), generator=generator)
    labels[1, 3:] = -100  # two pads
    return student, teacher, labels


def softmax(row, temperature=1.0):
    """With Python's own floats."""
    powers = [math.exp(v / temperature) for v in row]
    return [v / sum(powers) for v in powers]


DISCREPANCY = {
    "forward_kl": lambda p, q: sum(
        a * math.log(a / b) for a, b in zip(p, q, strict=True)
    ),
    "reverse_kl": lambda p, q: sum(
        b * math.log(b / a) for a, b in zip(p, q, strict=True)
    ),
    "generalised_js": lambda p, q: sum(
        0.5 * a * math.log(2 * a / (a + b)) + 0.5 * b * math.log(2 * b / (a + b))
        for a, b in zip(p, q, strict=True)
    ),
    "skew_kl": lambda p, q: sum(
        a * math.log(a / (0.1 * a + 0.9 * b)) for a, b in zip(p, q, strict=True)
    ),
    "skew_reverse_kl": lambda p, q: sum(
        b * math.log(b / (0.9 * a + 0.1 * b)) for a, b in zip(p, q, strict=True)
    ),
    "total_variation": lambda p, q: sum(
        abs(a - b) / 2 for a, b in zip(p, q, strict=True)
    ),
}


def naive(student, teacher, labels, temperature=1.0, alpha=0.0, name="forward_kl"):
    """The formula, token by token, with no code of the package."""
    total, count = 0.0, 0
    for b in range(B):
        for t in range(L):
            y = int(labels[b, t])
            if y == -100:
                continue
            p = softmax(teacher[b, t].tolist(), temperature)
            q = softmax(student[b, t].tolist(), temperature)
            hard = -math.log(softmax(student[b, t].tolist())[y])
            soft = temperature**2 * DISCREPANCY[name](p, q)
            total, count = total + (1 - alpha) * soft + alpha * hard, count + 1
    return total / count


@pytest.mark.parametrize("name", sorted(DISCREPANCY))
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.0), (3.0, 0.25)])
def test_the_loss_is_the_formula(name, temperature, alpha):
    student, teacher, labels = world()
    value = distillation_loss(
        student,
        Dense(teacher),
        labels=labels,
        temperature=temperature,
        alpha=alpha,
        divergence=name,
    )
    expected = naive(student, teacher, labels, temperature, alpha, name)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_a_pinned_value():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2 = 0.130812 nats."""
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    assert distillation_loss(torch.zeros(1, 2), teacher).item() == pytest.approx(
        0.130812, abs=1e-6
    )


@pytest.mark.parametrize("name", sorted(DISCREPANCY))
@pytest.mark.parametrize("kept", [None, 3])
def test_gradients_are_those_of_finite_differences(name, kept):
    student, teacher, labels = world()
    signal = Dense(teacher) if kept is None else top_k(teacher, kept, temperature=2.0)
    student.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda z: distillation_loss(
            z, signal, labels=labels, temperature=2.0, alpha=0.3, divergence=name
        ),
        (student,),
    )


def gradient(loss, at):
    at = at.detach().clone().requires_grad_(True)
    (result,) = torch.autograd.grad(loss(at), at)
    return result


def test_the_gradient_of_the_forward_kl_is_known():
    """d/dz T² KL(p_T ‖ q_T) = T (q_T - p_T), at one token."""
    student, teacher, _ = world()
    temperature = 4.0
    found = gradient(
        lambda z: distillation_loss(z, teacher, temperature=temperature), student
    )
    q, p = ((x / temperature).softmax(-1) for x in (student, teacher))
    torch.testing.assert_close(found, temperature * (q - p) / (B * L))


def test_at_high_temperature_it_is_the_distance_of_centred_logits():
    """T² KL -> 1/(2V) Σ (z_s - z_t - mean)² (Hinton et al. 2015, section 2.1)."""
    student, teacher, _ = world()
    difference = student - teacher
    centred = difference - difference.mean(-1, keepdim=True)
    expected = centred.square().mean(-1).mean() / 2
    value = distillation_loss(student, teacher, temperature=1e4)
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=0)


def test_pads_have_no_gradient_and_padding_changes_nothing():
    student, teacher, labels = world()
    options = {"temperature": 2.0, "alpha": 0.5}
    found = gradient(
        lambda z: distillation_loss(z, teacher, labels=labels, **options), student
    )
    assert (found[labels == -100] == 0).all()
    assert (found[labels != -100].abs().sum(-1) > 0).all()
    value = distillation_loss(student, teacher, labels=labels, **options)
    wide = [
        torch.cat([x, torch.full((B, 3, V), 9.0).to(x)], 1) for x in (student, teacher)
    ]
    more = torch.cat([labels, torch.full((B, 3), -100)], 1)
    torch.testing.assert_close(
        distillation_loss(*wide, labels=more, **options), value, rtol=0, atol=1e-12
    )


def test_a_vocabulary_padded_with_what_cannot_be_said_changes_nothing():
    student, teacher, labels = world()
    value = distillation_loss(student, teacher, labels=labels, alpha=0.4)
    wide = [
        torch.cat([x, torch.full((B, L, 4), -torch.inf).to(x)], -1)
        for x in (student, teacher)
    ]
    torch.testing.assert_close(
        distillation_loss(*wide, labels=labels, alpha=0.4), value, rtol=0, atol=1e-12
    )
    found = gradient(lambda z: distillation_loss(z, wide[1], labels=labels), wide[0])
    assert (found[..., V:] == 0).all() and torch.isfinite(found).all()


def test_micro_batches_with_one_divisor_add_up():
    student, teacher, labels = world()
    whole = distillation_loss(student, teacher, labels=labels)
    real = int((labels != -100).sum())
    parts = [
        distillation_loss(student[b], teacher[b], labels=labels[b], normalizer=real)
        for b in range(B)
    ]
    torch.testing.assert_close(sum(parts), whole)
    means = [
        distillation_loss(student[b], teacher[b], labels=labels[b]) for b in range(B)
    ]
    assert abs(sum(means) / B - whole) > 1e-4  # what the divisor is for


@pytest.mark.parametrize("entries", [1, V * 3, 1 << 20])
def test_chunks_are_invisible(entries, monkeypatch):
    student, teacher, labels = world()
    expected = naive(student, teacher, labels, 2.0, 0.2)
    monkeypatch.setattr(losses, "CHUNK_ENTRIES", entries)
    value = distillation_loss(
        student, teacher, labels=labels, temperature=2.0, alpha=0.2
    )
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_teacher_gets_no_gradient_and_the_graph_serves_twice():
    student, teacher, _ = world()
    student.requires_grad_(True)
    teacher.requires_grad_(True)
    loss = distillation_loss(student, teacher)
    first = torch.autograd.grad(3 * loss, student, retain_graph=True)[0]
    second = torch.autograd.grad(3 * loss, student)[0]
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(
        first, 3 * gradient(lambda z: distillation_loss(z, teacher), student)
    )
    assert teacher.grad is None
    with torch.no_grad():
        torch.testing.assert_close(distillation_loss(student, teacher), loss.detach())


def test_low_precision_is_raised_and_its_gradient_comes_back_low():
    student, teacher, labels = world(dtype=torch.bfloat16)
    student.requires_grad_(True)
    loss = distillation_loss(student, teacher, labels=labels)
    assert loss.dtype == torch.float32 and loss.item() > 0
    (found,) = torch.autograd.grad(loss, student)
    assert found.dtype == torch.bfloat16
    expected = naive(student.detach().double(), teacher.double(), labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@quick
@given(seed=st.integers(0, 9999), kept=st.sampled_from([None, 1, 3, V]))
def test_zero_at_the_teacher_and_never_below(seed, kept):
    student, teacher, labels = world(seed)
    signal = Dense(teacher) if kept is None else top_k(teacher, kept)
    assert distillation_loss(teacher, signal).abs() < 1e-9
    assert distillation_loss(student, signal, labels=labels) > -1e-12


# ------------------------------------------------------------------- the fused loss


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kept", [None, 3])
def test_fused_has_the_value_and_the_gradients_of_plain(chunk, bias, kept):
    _, teacher, labels = world()
    generator = torch.Generator().manual_seed(8)
    hidden = torch.randn(B, L, D, generator=generator, dtype=torch.float64)
    hidden.requires_grad_(True)
    head = torch.nn.Linear(D, V, bias=bias, dtype=torch.float64)
    signal = Dense(teacher) if kept is None else top_k(teacher, kept, temperature=2.0)
    options = {"labels": labels, "temperature": 2.0, "alpha": 0.3}
    inputs = [hidden, *head.parameters()]
    plain = distillation_loss(head(hidden), signal, **options)
    fused = fused_distillation_loss(hidden, head, signal, **options, chunk_tokens=chunk)
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(2 * fused, inputs),
        torch.autograd.grad(2 * plain, inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_fused_never_makes_more_than_a_chunk(monkeypatch):
    _, teacher, labels = world()
    seen = []
    linear = torch.nn.functional.linear

    def watched(*arguments):
        out = linear(*arguments)
        seen.append(out.shape)
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    head = torch.nn.Linear(D, V, dtype=torch.float64)
    hidden = torch.randn(B, L, D, dtype=torch.float64, requires_grad=True)
    fused_distillation_loss(
        hidden, head, teacher, labels=labels, chunk_tokens=3
    ).backward()
    assert seen == [(3, V), (3, V), (2, V)]  # eight real tokens, pads never made


# ----------------------------------------------------------------------- cross-entropy


def test_cross_entropy_has_torchs_value_and_gradient():
    student, _, labels = world(dtype=torch.float32)
    student, labels = student.view(-1, V), labels.view(-1).clamp_min(0)
    torchs = torch.nn.functional.cross_entropy
    expected = torchs(student, labels, reduction="sum")
    assert cross_entropy(student, labels) == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        gradient(lambda z: cross_entropy(z, labels) / 3, student),
        gradient(lambda z: torchs(z, labels, reduction="sum") / 3, student),
    )
    z = student.clone().requires_grad_(True)
    loss = cross_entropy(z, labels) / 3
    first = torch.autograd.grad(loss, z, retain_graph=True)[0].clone()
    torch.testing.assert_close(first, torch.autograd.grad(loss, z)[0])


# ------------------------------------------------------------------------------ errors

S, T, Y = world()
HEAD = torch.nn.Linear(D, V, dtype=torch.float64)
HIDDEN = torch.zeros(B, L, D, dtype=torch.float64)


def with_nan():
    bad = S.clone()
    bad[1, 2, 3] = math.nan
    return bad


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: distillation_loss(S.tolist(), T), "student_logits is a list"),
        (
            lambda: distillation_loss(S.long(), T),
            "student_logits is a tensor of torch.int",
        ),
        (
            lambda: distillation_loss(S[:0], T[:0]),
            "student_logits is a tensor of shape",
        ),
        (
            lambda: distillation_loss(with_nan(), T),
            r"student_logits is nan at \(1, 2, 3\), and so at 1 places",
        ),
        (lambda: distillation_loss(S, with_nan()), "teacher_logits is nan"),
        (
            lambda: distillation_loss(S, T[:1]),
            r"teacher_logits is of shape \(1, 5, 7\)",
        ),
        (lambda: distillation_loss(S, T[..., :6]), r"teacher_logits is of shape"),
        (lambda: distillation_loss(S, "T"), "signal is a str. Wanted: Dense, TopK"),
        (lambda: distillation_loss(S, T.to("meta")), "teacher_logits is on meta"),
        (lambda: distillation_loss(S, T, temperature=0), "temperature is 0"),
        (lambda: distillation_loss(S, T, temperature=math.nan), "temperature is nan"),
        (lambda: distillation_loss(S, T, alpha=1.5), r"alpha is 1.5. Wanted: .*0\.\.1"),
        (lambda: distillation_loss(S, T, alpha=0.5), "labels is None with alpha = 0.5"),
        (lambda: distillation_loss(S, T, divergence="kl"), "divergence is 'kl'"),
        (
            lambda: distillation_loss(S, T, labels=Y[:, 1:]),
            r"labels is of shape \(2, 4\)",
        ),
        (
            lambda: distillation_loss(S, T, labels=Y.float()),
            "labels is of torch.float32",
        ),
        (
            lambda: distillation_loss(S, T, labels=Y + V),
            "labels is .* Wanted: ids in 0..6",
        ),
        (
            lambda: distillation_loss(S, T, labels=Y * 0 - 100),
            "labels is without a single",
        ),
        (lambda: distillation_loss(S, T, mask=Y), "mask is of torch.int64"),
        (lambda: distillation_loss(S, T, mask=(Y > 0)[0]), r"mask is of shape \(5,\)"),
        (
            lambda: distillation_loss(S, T, labels=Y, mask=Y == Y),
            "mask is True where labels are -100",
        ),
        (
            lambda: distillation_loss(S, T, mask=Y == 99),
            "mask is without a single real",
        ),
        (
            lambda: distillation_loss(S, T, labels=Y, mask=Y == 99),
            "mask is without a single real",
        ),
        (lambda: distillation_loss(S, T, divergence=["kl"]), r"divergence is \['kl'\]"),
        (lambda: distillation_loss(S, T.to_sparse()), "teacher_logits is a .* layout"),
        (lambda: distillation_loss(S.to_sparse(), T), "student_logits is a .* layout"),
        (lambda: distillation_loss(S.to("meta"), T), "student_logits is on meta"),
        (
            lambda: distillation_loss(
                S, TopK(Y[..., None] * 0 + V, S[..., :1] * 0 - 1)
            ),
            "indices is 7",
        ),
        (
            lambda: fused_distillation_loss(HIDDEN[..., 1:], HEAD, T),
            "hidden is of width 5. Wanted: 6",
        ),
        (
            lambda: fused_distillation_loss(HIDDEN, HEAD, T[..., :6]),
            "teacher_logits is of",
        ),
        (lambda: fused_distillation_loss(HIDDEN, HEAD, T, alpha=1), "labels is None"),
        (
            lambda: fused_distillation_loss(HIDDEN, HEAD, T, chunk_tokens=0),
            "chunk_tokens is 0",
        ),
    ],
)
def test_wrong_arguments_are_explained(call, words):
    with pytest.raises(BadArgument, match=words):
        call()


def plain(**changed):
    return distillation_loss(S, T, **changed)


def fused(hidden=None, lm_head=None, **changed):
    hidden = HIDDEN if hidden is None else hidden
    lm_head = HEAD if lm_head is None else lm_head
    return fused_distillation_loss(hidden, lm_head, T, **changed)


@pytest.mark.parametrize("loss", [plain, fused])
@pytest.mark.parametrize(
    "wrong",
    [0, 0.0, -1.0, math.nan, math.inf, "3", True, [3.0], 1j, torch.ones(2)],
    ids=str,
)
def test_a_bad_normalizer_is_named(loss, wrong):
    with pytest.raises(BadArgument, match="normalizer is .* Wanted: a finite number"):
        loss(normalizer=wrong)


@pytest.mark.parametrize("kind", [float, torch.tensor, np.int64, np.float32])
def test_a_normalizer_may_be_a_number_of_any_library(kind):
    torch.testing.assert_close(plain(normalizer=kind(4)), plain(normalizer=4))


@pytest.mark.parametrize("loss", [plain, fused])
@pytest.mark.parametrize("wrong", [1e-300, 1e-19, 1e20, 1e300])
def test_a_temperature_without_a_square_is_named(loss, wrong):
    """T² would be 0 or infinite in float32, and 0 times infinity is NaN."""
    with pytest.raises(BadArgument, match="temperature is .* multiplied by its square"):
        loss(temperature=wrong)


@pytest.mark.parametrize("wrong", [1.5, math.inf, "2", None, True, [2]])
def test_bad_chunk_tokens_are_named(wrong):
    with pytest.raises(BadArgument, match="chunk_tokens is .* Wanted: a whole number"):
        fused(chunk_tokens=wrong)


def spoilt(part, value):
    """A head with one number that went wrong."""
    head = torch.nn.Linear(D, V, dtype=torch.float64)
    with torch.no_grad():
        getattr(head, part).view(-1)[0] = value
    return head


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lm_head": 3}, "lm_head is a int. Wanted: a torch.nn.Linear"),
        ({"lm_head": HEAD.weight}, "lm_head is a Parameter"),
        ({"lm_head": torch.nn.Sequential(HEAD)}, "lm_head is a Sequential"),
        ({"lm_head": torch.nn.LayerNorm(D)}, "lm_head is a LayerNorm"),
        ({"lm_head": torch.nn.Conv1d(D, V, 1)}, "lm_head is a Conv1d"),
        ({"hidden": HIDDEN.float()}, "hidden is of torch.float32. Wanted: torch.float"),
        ({"hidden": HIDDEN.to("meta")}, "hidden is on meta"),
        ({"hidden": HIDDEN.to_sparse()}, "hidden is a tensor of layout"),
        ({"hidden": HIDDEN * math.nan}, "hidden is nan at"),
        ({"hidden": HIDDEN - math.inf}, "hidden is -inf at .* Wanted: finite numbers"),
        ({"lm_head": spoilt("weight", math.nan)}, "lm_head.weight is nan at"),
        ({"lm_head": spoilt("weight", math.inf)}, "lm_head.weight is inf at"),
        ({"lm_head": spoilt("bias", math.nan)}, "lm_head.bias is nan at"),
        (
            {"hidden": HIDDEN + 1e200, "lm_head": spoilt("weight", 1e200)},
            "hidden is of finite numbers whose loss is NaN. Wanted: logits that stay",
        ),
    ],
)
def test_a_bad_head_or_hidden_state_is_named(changed, words):
    with pytest.raises(BadArgument, match=words):
        fused(**changed)


def test_a_head_needs_no_bias():
    class Tied(torch.nn.Module):
        weight = HEAD.weight.detach()

    bare = torch.nn.Linear(D, V, bias=False, dtype=torch.float64)
    bare.weight = HEAD.weight
    torch.testing.assert_close(fused(lm_head=Tied()), fused(lm_head=bare))


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_fused_loss_in_its_own_dtype(low):
    head, hidden = torch.nn.Linear(D, V), HIDDEN.float().requires_grad_(True)
    with torch.autocast("cpu", low):
        inside = fused_distillation_loss(hidden, head, T.float())
        found = torch.autograd.grad(inside, [hidden, *head.parameters()])
    outside = fused_distillation_loss(hidden, head, T.float())
    expected = torch.autograd.grad(outside, [hidden, *head.parameters()])
    torch.testing.assert_close([inside, *found], [outside, *expected], rtol=0, atol=0)


def test_many_chunks_in_16_bits_add_no_error_to_the_gradient():
    """Of the head, to which all chunks add: as near to float64 as the plain loss."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(2000, D, generator=generator)
    teacher = torch.randn(2000, V, generator=generator)
    weight, bias = (torch.randn(n, generator=generator) for n in ((V, D), (V,)))

    def gradients(loss, kind):
        head = torch.nn.Linear(D, V, dtype=kind)
        head.load_state_dict({"weight": weight, "bias": bias})
        found = torch.autograd.grad(loss(hidden.to(kind), head), head.parameters())
        return torch.cat([x.flatten() for x in found]).double()

    exact, low, chunked = (
        gradients(lambda h, head: distillation_loss(head(h), teacher), torch.float64),
        gradients(lambda h, head: distillation_loss(head(h), teacher), torch.bfloat16),
        gradients(
            lambda h, head: fused_distillation_loss(h, head, teacher, chunk_tokens=2),
            torch.bfloat16,
        ),
    )
    assert (chunked - exact).norm() < 2 * (low - exact).norm()


def test_an_infinite_loss_is_a_value_whatever_stands_at_the_pads():
    """q = 0 < p at a real token, and NaN only where the mask is False."""
    student, teacher = S.clone(), T.clone()
    student[0, 0, 0] = -math.inf
    student[1, 4] = teacher[1, 4] = math.nan
    assert distillation_loss(student, teacher, labels=Y) == math.inf


ROWS, IDS = S.flatten(0, 1), Y.flatten().clamp_min(0)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (ROWS.tolist(), IDS, "student_logits is a list"),
        (ROWS.long(), IDS, "student_logits is a tensor of torch.int64"),
        (ROWS.to(torch.complex64), IDS, "student_logits is a tensor of torch.complex"),
        (ROWS[:0], IDS[:0], "student_logits is a tensor of shape"),
        (ROWS[0], IDS[0], r"student_logits is of shape \(7,\). Wanted: \(N, V\)"),
        (S, Y, r"student_logits is of shape \(2, 5, 7\)"),
        (ROWS * math.nan, IDS, "student_logits is nan at"),
        (ROWS + math.inf, IDS, "student_logits is inf at"),
        (ROWS - math.inf, IDS, "student_logits is -inf everywhere"),
        (ROWS.to("meta"), IDS, "student_logits is on meta"),
        (ROWS, IDS.tolist(), "labels is of list"),
        (ROWS, IDS.float(), "labels is of torch.float32"),
        (ROWS, IDS > 0, "labels is of torch.bool"),
        (ROWS, IDS[1:], r"labels is of shape \(9,\). Wanted: \(10,\)"),
        (ROWS, IDS[:, None], r"labels is of shape \(10, 1\)"),
        (ROWS, IDS + V, "labels is .* Wanted: ids in 0..6"),
        (ROWS, IDS - V, "labels is -"),
        (ROWS, Y.flatten(), "labels is -100 at some rows"),
        (ROWS, IDS.to("meta"), "labels is on meta"),
    ],
)
def test_a_bad_cross_entropy_is_explained(logits, labels, words):
    with pytest.raises(BadArgument, match=words):
        cross_entropy(logits, labels)


def test_cross_entropy_in_float64_is_that_of_finite_differences():
    at = ROWS.clone().requires_grad_(True)
    assert cross_entropy(at, IDS).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, IDS), (at,))
    torch.testing.assert_close(cross_entropy(at, IDS.short()), cross_entropy(at, IDS))


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: cross_entropy(z, IDS),
        lambda z: distillation_loss(z, T.flatten(0, 1)),
    ],
)
def test_no_loss_pretends_to_a_second_derivative(loss):
    at = ROWS.clone().requires_grad_(True)
    for power in (1, 2):
        (slope,) = torch.autograd.grad(loss(at) ** power, at, create_graph=True)
        with pytest.raises(RuntimeError, match="in the graph|once_differentiable"):
            torch.autograd.grad(slope.square().sum(), at)


@pytest.mark.parametrize("fused", [False, True])
def test_a_kept_graph_gives_the_same_gradient_a_second_time(fused):
    """The gradient is scaled where it lies, so that it can be given away but once."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    head = torch.nn.Linear(4, 9).double()
    teacher = torch.randn(2, 5, 9, generator=generator, dtype=torch.float64)
    leaf = hidden.requires_grad_(True)
    if fused:
        loss = fused_distillation_loss(leaf, head, teacher, chunk_tokens=3)
    else:
        loss = distillation_loss(head(leaf), teacher)
    leaves = [leaf, *head.parameters()]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    kept = [x.clone() for x in first]
    second = torch.autograd.grad(3.0 * loss, leaves)
    for one, before, three in zip(first, kept, second, strict=True):
        torch.testing.assert_close(one, before, rtol=0, atol=0)
        torch.testing.assert_close(3.0 * one, three, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("labels", [None, torch.tensor(2)])
def test_a_single_token_needs_no_batch(labels):
    """(V,) is one of the shapes (..., V), for logits, signals and hidden states."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(7, generator=generator) for _ in range(2))
    alpha = 0.0 if labels is None else 0.5
    rows = None if labels is None else labels[None]
    alone = distillation_loss(student, teacher, labels=labels, alpha=alpha)
    batch = distillation_loss(student[None], teacher[None], labels=rows, alpha=alpha)
    torch.testing.assert_close(alone, batch)
    signal = top_k(teacher, 3)
    torch.testing.assert_close(
        distillation_loss(student, signal),
        distillation_loss(student[None], top_k(teacher[None], 3)),
    )
    head, hidden = torch.nn.Linear(4, 7), torch.randn(4, generator=generator)
    torch.testing.assert_close(
        fused_distillation_loss(hidden, head, teacher),
        distillation_loss(head(hidden), teacher),
    )
