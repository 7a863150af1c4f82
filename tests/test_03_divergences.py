"""Divergences against references in plain floats, their properties and errors."""

import inspect
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.theory import divergences
from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.distributions import entropy
from kdcourse.theory.divergences import (
    DIVERGENCES,
    FROM_LOG_PROBS,
    cross_entropy,
    forward_kl,
    generalised_js,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    total_variation,
)

INF = math.inf
SHAPES = [(), (3,), (2, 3)]
TEMPERATURES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0])
ALL = {**DIVERGENCES, "cross_entropy": cross_entropy}
often = settings(max_examples=50, deadline=None, derandomize=True)
each = pytest.mark.parametrize("name", sorted(ALL))


# ------------------------------------------------------------------ inputs


@st.composite
def pairs(draw, bound=None, barred="either", dtype=torch.float32):
    """Student's and teacher's logits (..., V), with some tokens barred, or none.

    ``barred``: "either" bars different tokens in the two, "" none.
    """
    shape = draw(st.sampled_from(SHAPES))
    size = draw(st.integers(2, 6))
    bound = draw(st.sampled_from([1.0, 30.0, 1e4])) if bound is None else bound
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    both = (torch.rand(2, *shape, size, generator=generator) * 2 - 1) * bound
    if barred and draw(st.booleans()):
        out = torch.rand(2, *shape, size, generator=generator) < 0.3
        out[..., draw(st.integers(0, size - 1))] = False
        both = both.masked_fill(out, -INF)
    return tuple(both.to(dtype))


def fixed_pair(*shape, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, *shape, generator=generator, dtype=dtype) * scale)


def at(name, student, teacher, **options):
    return ALL[name](student_logits=student, teacher_logits=teacher, **options)


def close(name, ours, expected, **tolerances):
    """Equal in dtype, shape and value."""
    explain = f"{name}: {{}}".format
    torch.testing.assert_close(ours, expected, msg=explain, **tolerances)


def three_to_one():
    """Student's and teacher's logits of q = (1/2, 1/2) and p = (3/4, 1/4)."""
    student = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    teacher = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    return {"student_logits": student, "teacher_logits": teacher}


# ------------------------------------------------------------------ the reference


def naive_log_softmax(row, temperature):
    scaled = [v / temperature for v in row]
    top = max(scaled)
    total = math.log(sum(math.exp(v - top) for v in scaled))
    return [v - top - total for v in scaled]


def naive_mean(logs, values, smallest):
    """Σ p x over the tokens whose p is not zero in the floats that are tested."""
    total = 0.0
    for log, value in zip(logs, values, strict=True):
        if math.exp(log) >= smallest:
            total += math.exp(log) * value
    return total


def naive_kl(a, b, smallest):
    ratios = [x - y if x > -INF else 0.0 for x, y in zip(a, b, strict=True)]
    return naive_mean(a, ratios, smallest)


def naive_kl_to_mixture(a, b, share):
    """KL(a ‖ share · a + (1 - share) · b), straight from the formula."""
    total = 0.0
    for x, y in zip(map(math.exp, a), map(math.exp, b), strict=True):
        if x > 1e-300:  # what is smaller adds nothing, and its share may round to 0
            total += x * math.log(x / (share * x + (1 - share) * y))
    return total


def naive_js(p, q, beta):
    of_p = naive_kl_to_mixture(p, q, beta)
    of_q = naive_kl_to_mixture(q, p, 1 - beta)
    return beta * of_p + (1 - beta) * of_q


def naive_tv(p, q, smallest):
    return sum(abs(math.exp(x) - math.exp(y)) for x, y in zip(p, q, strict=True)) / 2


CASES = {
    "cross_entropy": (
        cross_entropy,
        lambda p, q, s: naive_mean(p, [-v for v in q], s),
    ),
    "forward_kl": (forward_kl, naive_kl),
    "reverse_kl": (reverse_kl, lambda p, q, s: naive_kl(q, p, s)),
    "total_variation": (total_variation, naive_tv),
}
for beta in (0.1, 0.5, 0.8):
    CASES[f"generalised_js {beta}"] = (
        partial(generalised_js, beta=beta),
        lambda p, q, _, beta=beta: naive_js(p, q, beta),
    )
for alpha in (0.1, 0.8):
    CASES[f"skew_kl {alpha}"] = (
        partial(skew_kl, alpha=alpha),
        lambda p, q, _, alpha=alpha: naive_kl_to_mixture(p, q, alpha),
    )
    CASES[f"skew_reverse_kl {alpha}"] = (
        partial(skew_reverse_kl, alpha=alpha),
        lambda p, q, _, alpha=alpha: naive_kl_to_mixture(q, p, alpha),
    )


def check_against_reference(student, teacher, temperature, dtype, tolerance):
    smallest = 1e-45 if dtype == torch.float32 else 5e-324
    rows = [x.double().reshape(-1, x.shape[-1]).tolist() for x in (teacher, student)]
    logs = [
        [naive_log_softmax(row, temperature) for row in distribution]
        for distribution in rows
    ]
    for name, (function, formula) in CASES.items():
        ours = function(
            student_logits=student, teacher_logits=teacher, temperature=temperature
        )
        values = [formula(p, q, smallest) for p, q in zip(*logs, strict=True)]
        expected = torch.tensor(values, dtype=dtype).reshape(student.shape[:-1])
        close(name, ours, expected, rtol=tolerance, atol=tolerance)


@often
@given(pair=pairs(), temperature=TEMPERATURES)
def test_each_divergence_is_its_formula(pair, temperature):
    check_against_reference(*pair, temperature, torch.float32, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@often
@given(data=st.data(), temperature=TEMPERATURES)
def test_low_precision_is_raised_to_float32(dtype, data, temperature):
    pair = data.draw(pairs(dtype=dtype))
    check_against_reference(*pair, temperature, torch.float32, 1e-5)


@often
@given(pair=pairs(dtype=torch.float64), temperature=TEMPERATURES)
def test_double_precision_stays(pair, temperature):
    check_against_reference(*pair, temperature, torch.float64, 1e-10)


@each
def test_the_wider_of_two_dtypes_is_used(name):
    student, teacher = fixed_pair(3, 5)
    exact = at(name, student.half().double(), teacher)
    close(name, at(name, student.half(), teacher), exact, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------ pinned values


def test_three_to_one_against_one_to_one():
    pair = three_to_one()
    # Σ p log(p/q) = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2
    assert forward_kl(**pair).item() == pytest.approx(0.1308120401)
    # Σ q log(q/p) = 1/2 ln(2/3) + 1/2 ln 2 = ln 2 - 1/2 ln 3
    assert reverse_kl(**pair).item() == pytest.approx(0.1438410362)
    # -Σ p log q = ln 2
    assert cross_entropy(**pair).item() == pytest.approx(0.6931471806)
    # ½ (|3/4 - 1/2| + |1/4 - 1/2|)
    assert total_variation(**pair).item() == pytest.approx(0.25)
    # m = (5/8, 3/8): ½ (3/4 ln 6/5 + 1/4 ln 2/3) + ½ (1/2 ln 4/5 + 1/2 ln 4/3)
    assert generalised_js(**pair).item() == pytest.approx(0.0338220756)


def test_three_to_one_skewed():
    pair = three_to_one()
    # β = 1/4: m = (9/16, 7/16); 1/4 (3/4 ln 4/3 + 1/4 ln 4/7)
    #                          + 3/4 (1/2 ln 8/9 + 1/2 ln 8/7)
    value = 0.25 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4 / 7))
    value += 0.75 * (0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7))
    assert value == pytest.approx(0.0248700, abs=1e-7)
    assert generalised_js(**pair, beta=0.25).item() == pytest.approx(value)
    # α = 1/4: the same m; KL(p ‖ m) = 3/4 ln 4/3 + 1/4 ln 4/7
    assert skew_kl(**pair, alpha=0.25).item() == pytest.approx(0.0758576, abs=1e-7)
    # m' = 3/4 p + 1/4 q = (11/16, 5/16); KL(q ‖ m') = 1/2 ln 8/11 + 1/2 ln 8/5
    reverse = skew_reverse_kl(**pair, alpha=0.25).item()
    assert reverse == pytest.approx(0.0757750, abs=1e-7)


def test_temperature_softens_both_and_multiplies_by_nothing():
    # T = 1/2 squares the odds: p = (9/10, 1/10), q = (1/2, 1/2)
    pair = {**three_to_one(), "temperature": 0.5}
    kl = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert forward_kl(**pair).item() == pytest.approx(kl)
    assert reverse_kl(**pair).item() == pytest.approx(-0.5 * math.log(0.36))
    assert total_variation(**pair).item() == pytest.approx(0.4)


def test_forward_seeks_all_modes_and_reverse_seeks_one():
    teacher = torch.tensor([0.49, 0.02, 0.49]).log()
    one_mode = torch.tensor([0.96, 0.02, 0.02]).log()
    spread = torch.tensor([0.34, 0.32, 0.34]).log()
    assert at("forward_kl", spread, teacher) < at("forward_kl", one_mode, teacher)
    assert at("reverse_kl", one_mode, teacher) < at("reverse_kl", spread, teacher)


# ------------------------------------------------------------------ properties


def test_the_table_holds_all_that_are_zero_at_equality():
    own = {
        name
        for name, function in inspect.getmembers(divergences, inspect.isfunction)
        if function.__module__ == divergences.__name__ and name[0] != "_"
    }
    assert own == {*DIVERGENCES, "cross_entropy"}
    assert own | {"DIVERGENCES", "FROM_LOG_PROBS"} == set(divergences.__all__)
    assert all(function.__name__ == name for name, function in DIVERGENCES.items())


def test_the_table_of_log_probabilities_gives_the_same_numbers():
    student, teacher = fixed_pair(2, 3, 5)
    assert set(FROM_LOG_PROBS) == set(DIVERGENCES)
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    for name, function in FROM_LOG_PROBS.items():
        close(name, function(log_p, log_q), at(name, student, teacher))


def test_nan_among_log_probabilities_is_never_hidden():
    log_q, log_p = (x.log_softmax(-1) for x in fixed_pair(2, 5))
    lost = torch.full_like(log_q, math.nan)
    for name, function in FROM_LOG_PROBS.items():
        assert function(log_p, lost).isnan().all(), name
        assert function(lost, log_q).isnan().all(), name


@often
@given(pair=pairs(), shift=st.floats(-20, 20))
def test_zero_at_equality(pair, shift):
    student, _ = pair
    shifted = (student.double() + shift).requires_grad_(True)
    for name in DIVERGENCES:
        same = at(name, student, student.clone())
        assert (same.abs() <= 1e-6).all(), name
        value = at(name, shifted, student.double())
        assert (value.abs() <= 1e-9).all(), name
        (grad,) = torch.autograd.grad(value.sum(), shifted)
        if name != "total_variation":  # which has a corner here
            assert (grad.abs() <= 1e-9).all(), name


def test_cross_entropy_is_not_zero_at_equality():
    logits = three_to_one()["teacher_logits"]
    value = at("cross_entropy", logits, logits).item()
    assert value == pytest.approx(0.5623351446)  # H(3/4, 1/4)


@often
@given(pair=pairs(), temperature=TEMPERATURES)
def test_never_negative(pair, temperature):
    for name in ALL:
        assert (at(name, *pair, temperature=temperature) >= -1e-6).all(), name


def test_positive_where_they_differ():
    for name in ALL:
        assert (at(name, *fixed_pair(3, 5)) > 0.01).all(), name


@often
@given(pair=pairs(), temperature=TEMPERATURES)
def test_jensen_shannon_is_symmetric_and_at_most_ln_2(pair, temperature):
    value = at("generalised_js", *pair, temperature=temperature)
    assert (value <= math.log(2) + 1e-6).all()
    swapped = at("generalised_js", *pair[::-1], temperature=temperature)
    close("generalised_js", value, swapped, rtol=1e-5, atol=1e-6)


def test_jensen_shannon_reaches_ln_2_where_nothing_is_shared():
    student = torch.tensor([0.0, 0.0, -INF])
    teacher = torch.tensor([-INF, -INF, 0.0])
    value = at("generalised_js", student, teacher).item()
    assert value == pytest.approx(math.log(2))
    assert at("total_variation", student, teacher).item() == pytest.approx(1)
    # α of the mixture is the teacher itself: KL = -log α
    for name in ("skew_kl", "skew_reverse_kl"):
        value = at(name, student, teacher, alpha=0.2).item()
        assert value == pytest.approx(math.log(5)), name


@often
@given(pair=pairs(dtype=torch.float64), beta=st.floats(0.01, 0.99))
def test_swapping_the_models_swaps_beta(pair, beta):
    value = at("generalised_js", *pair, beta=beta)
    swapped = at("generalised_js", *pair[::-1], beta=1 - beta)
    close("generalised_js", value, swapped)


@pytest.mark.parametrize("shape", SHAPES)
def test_beta_is_forward_at_zero_and_reverse_at_one(shape):
    pair = fixed_pair(*shape, 5, scale=1.0)
    forward, reverse = at("forward_kl", *pair), at("reverse_kl", *pair)
    assert ((forward - reverse).abs() > 0.01 * forward).all()  # not the same test twice
    near_zero = at("generalised_js", *pair, beta=1e-4) / 1e-4
    close("β → 0", near_zero, forward, rtol=2e-3, atol=0)
    near_one = at("generalised_js", *pair, beta=1 - 1e-4) / 1e-4
    close("β → 1", near_one, reverse, rtol=2e-3, atol=0)


@pytest.mark.parametrize("beta", [5e-324, 1e-50, 1 - 2**-53])
def test_extreme_beta_is_finite(beta):
    pair = fixed_pair(3, 5, dtype=torch.float32)
    value = at("generalised_js", *pair, beta=beta)
    assert value.isfinite().all() and (value >= -1e-6).all()


@often
@given(pair=pairs())
def test_total_variation_lies_between_zero_and_one(pair):
    tv = at("total_variation", *pair)
    assert (tv >= 0).all() and (tv <= 1 + 1e-6).all()


@often
@given(pair=pairs(dtype=torch.float64))
def test_total_variation_is_bounded_by_pinsker(pair):
    tv = at("total_variation", *pair)
    for name in ("forward_kl", "reverse_kl"):
        kl = at(name, *pair).clamp_min(0)
        assert (tv <= (kl / 2).sqrt() + 1e-6).all(), name


@pytest.mark.parametrize(
    "skewed, plain", [("skew_kl", "forward_kl"), ("skew_reverse_kl", "reverse_kl")]
)
@often
@given(pair=pairs())
def test_skew_starts_at_the_plain_kl_and_decreases(skewed, plain, pair):
    values = [at(skewed, *pair, alpha=a) for a in (0, 1e-3, 0.1, 0.5, 0.9, 0.999)]
    close(skewed, values[0], at(plain, *pair))
    for less, more in zip(values, values[1:], strict=False):
        assert (more <= less + 1e-6).all()
    for value, alpha in zip(values[1:], (1e-3, 0.1, 0.5, 0.9, 0.999), strict=True):
        assert (value <= -math.log(alpha) + 1e-5).all()
    assert (values[-1] <= 2e-3).all()  # α = 1 would compare p with itself


@often
@given(pair=pairs(), temperature=TEMPERATURES)
def test_cross_entropy_is_entropy_plus_forward_kl(pair, temperature):
    _, teacher = pair
    parts = entropy(teacher, temperature=temperature)
    parts = parts + at("forward_kl", *pair, temperature=temperature)
    whole = at("cross_entropy", *pair, temperature=temperature)
    close("cross_entropy", whole, parts, rtol=1e-5, atol=1e-5)


@often
@given(
    pair=pairs(bound=30.0, dtype=torch.float64),
    shift=st.floats(-100, 100),
    more=st.integers(1, 3),
)
def test_shifts_and_barred_padding_change_nothing(pair, shift, more):
    student, teacher = pair
    padding = torch.full((*student.shape[:-1], more), -INF, dtype=torch.float64)
    padded = [torch.cat([logits, padding], dim=-1) for logits in pair]
    for name in ALL:
        value = at(name, student, teacher, temperature=2.0)
        close(name, at(name, student + shift, teacher, temperature=2.0), value)
        close(name, at(name, student, teacher + shift, temperature=2.0), value)
        close(name, at(name, *padded, temperature=2.0), value)


@each
def test_a_position_does_not_know_the_others(name):
    student, teacher = fixed_pair(2, 3, 5)
    moved = student.clone()
    moved[1, 2, 0] += 3
    change = at(name, moved, teacher) - at(name, student, teacher)
    assert change[1, 2].abs() > 1e-3
    change[1, 2] = 0
    assert (change == 0).all()


def test_hot_divergences_times_the_square_of_t_tend_to_the_squared_error():
    """T² KL → Σ (centred z - centred w)² / 2V: Hinton et al. 2015, eq. 4."""
    student, teacher = fixed_pair(3, 5)
    centred = (student - student.mean(-1, keepdim=True)) - (
        teacher - teacher.mean(-1, keepdim=True)
    )
    error = centred.square().mean(-1) / 2
    for name in ("forward_kl", "reverse_kl"):
        hot = 1e4 * at(name, student, teacher, temperature=100.0)
        close(name, hot, error, rtol=0.1, atol=0)


# ------------------------------------------------------------------ barred tokens


A, B = [0.0, 1.0, -INF, -INF], [1.0, -INF, 0.0, -INF]


@pytest.mark.parametrize("name", ["forward_kl", "cross_entropy"])
def test_a_student_that_cannot_say_it_is_infinitely_far(name):
    student = torch.tensor([A, A]).requires_grad_(True)
    teacher = torch.tensor([B, A])
    value = at(name, student, teacher)
    assert value[0] == INF and value[1].isfinite()
    (grad,) = torch.autograd.grad(value.sum(), student)
    assert grad.isfinite().all() and (grad[0] == 0).all()


def test_a_student_that_says_the_unsayable_is_infinitely_far_in_reverse():
    student = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    value = at("reverse_kl", student, torch.tensor([0.0, 1.0, -INF]))
    assert value == INF
    (grad,) = torch.autograd.grad(value, student)
    assert (grad == 0).all()


def test_a_student_may_say_what_its_teacher_cannot():
    # p = (1/2, 1/2, 0), q = (1/3, 1/3, 1/3): ln(3/2), and H(p, q) = ln 3
    student, teacher = torch.zeros(3), torch.tensor([0.0, 0.0, -INF])
    assert at("forward_kl", student, teacher).item() == pytest.approx(math.log(1.5))
    assert at("cross_entropy", student, teacher).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    "name", ["generalised_js", "skew_kl", "skew_reverse_kl", "total_variation"]
)
def test_the_others_stay_finite(name):
    value = at(name, torch.tensor(A), torch.tensor(B))
    assert value.isfinite() and value > 0.1


@often
@given(pair=pairs(), temperature=TEMPERATURES)
def test_gradients_are_finite_and_zero_at_barred_tokens(pair, temperature):
    for name in ALL:
        both = [logits.detach().requires_grad_(True) for logits in pair]
        value = at(name, *both, temperature=temperature)
        for logits, grad in zip(
            both, torch.autograd.grad(value.sum(), both), strict=True
        ):
            assert grad.isfinite().all(), name
            assert (grad[logits == -INF] == 0).all(), name


@often
@given(pair=pairs())
def test_the_gradients_of_log_probabilities_are_finite_too(pair):
    """A caller's own log-softmax would spread a NaN that arrives at log 0."""
    log_q, log_p = (x.log_softmax(-1).detach().requires_grad_(True) for x in pair)
    for name, function in FROM_LOG_PROBS.items():
        grads = torch.autograd.grad(function(log_p, log_q).sum(), (log_p, log_q))
        for logs, grad in zip((log_p, log_q), grads, strict=True):
            assert grad.isfinite().all(), name
            assert (grad[logs == -INF] == 0).all(), name


@often
@given(pair=pairs(bound=30.0, barred="", dtype=torch.float64))
def test_barred_padding_leaves_the_other_gradients_alone(pair):
    padding = torch.full((*pair[0].shape[:-1], 2), -INF, dtype=torch.float64)
    padded = [torch.cat([logits, padding], dim=-1) for logits in pair]
    for name in ALL:
        grads = []
        for student, teacher in (pair, padded):
            student = student.detach().requires_grad_(True)
            value = at(name, student, teacher).sum()
            grads += torch.autograd.grad(value, student)
        close(name, grads[1][..., :-2], grads[0])


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_both_sides_are_right(case, shape):
    function, _ = CASES[case]
    student, teacher = (x.requires_grad_(True) for x in fixed_pair(*shape, 5))

    def call(student, teacher):
        return function(student_logits=student, teacher_logits=teacher, temperature=1.7)

    assert torch.autograd.gradcheck(call, (student, teacher))


@pytest.mark.parametrize("name", ["forward_kl", "cross_entropy"])
def test_the_forward_gradient_is_student_minus_teacher(name):
    student, teacher = fixed_pair(2, 3, 5)
    student.requires_grad_(True)
    value = at(name, student, teacher, temperature=2.0)
    (grad,) = torch.autograd.grad(value.sum(), student)
    # ∂/∂z = (q - p) / T
    expected = ((student / 2).softmax(-1) - (teacher / 2).softmax(-1)) / 2
    close(name, grad, expected.detach())


# ------------------------------------------------------------------ errors


def complaint(call):
    """The one sentence of a wrong call; its parts are always the same three."""
    with pytest.raises(BadArgument) as error:
        call()
    message = str(error.value)
    assert message.startswith(f"{error.value.name} is ")
    assert " Wanted: " in message and " To do: " in message
    return message


@each
@pytest.mark.parametrize("whose", ["student_logits", "teacher_logits"])
@pytest.mark.parametrize(
    "logits, said",
    [
        ([[0.0, 1.0]], "a list. Wanted: a torch.Tensor (..., V)."),
        (torch.ones(2, 3, dtype=torch.long), "a tensor of torch.int64."),
        (torch.tensor(1.0), "a tensor of shape (). Wanted: at least one token"),
        (torch.ones(0, 3), "a tensor of shape (0, 3). Wanted: at least one token"),
        (torch.tensor([[0.0, 1, 2], [math.nan, 1, 2]]), "nan at (1, 0)"),
        (torch.tensor([[0.0, INF, 2], [0, 1, 2]]), "inf at (0, 1)"),
        (
            torch.tensor([[0.0, 1, 2], [-INF, -INF, -INF]]),
            "-inf everywhere at position (1,). Wanted: at least one token that can",
        ),
        (torch.zeros(2, 3, device="meta"), "on meta, a device without numbers."),
        (torch.zeros(2, 3).to_sparse(), "a tensor of layout torch.sparse_coo."),
    ],
)
def test_bad_logits_are_named(name, whose, logits, said):
    pair = {"student_logits": torch.zeros(2, 3), "teacher_logits": torch.zeros(2, 3)}
    message = complaint(lambda: ALL[name](**{**pair, whose: logits}))
    assert message.startswith(f"{whose} is {said}")


@each
@pytest.mark.parametrize("shape", [(2, 4), (3,), (1, 3), (3, 2)])
def test_two_shapes_are_an_error_and_never_broadcast(name, shape):
    message = complaint(lambda: at(name, torch.zeros(2, 3), torch.zeros(shape)))
    assert message.startswith(
        f"student_logits is of shape (2, 3). Wanted: {shape}, as teacher_logits."
    )


@each
@pytest.mark.parametrize("wrong", [0, 0.0, -1.0, math.nan, INF, "1", None, True])
def test_a_bad_temperature_is_named(name, wrong):
    zeros = torch.zeros(2, 3)
    message = complaint(lambda: at(name, zeros, zeros, temperature=wrong))
    assert message.startswith(
        f"temperature is {wrong!r}. Wanted: a finite number above"
    )


@pytest.mark.parametrize("wrong", [0, 1, 0.0, 1.0, -0.1, 1.1, math.nan, "½", None])
def test_a_bad_beta_is_named(wrong):
    zeros = torch.zeros(2, 3)
    assert complaint(lambda: at("generalised_js", zeros, zeros, beta=wrong)) == (
        f"beta is {wrong!r}. Wanted: a number strictly between 0 and 1. To do: Take "
        "forward_kl for the limit at 0 and reverse_kl for that at 1."
    )


@pytest.mark.parametrize("name", ["skew_kl", "skew_reverse_kl"])
@pytest.mark.parametrize("wrong", [1, 1.0, -0.1, 1.1, math.nan, "0", None, False])
def test_a_bad_alpha_is_named(name, wrong):
    zeros = torch.zeros(2, 3)
    assert complaint(lambda: at(name, zeros, zeros, alpha=wrong)) == (
        f"alpha is {wrong!r}. Wanted: a number from 0 up to, but not including, 1. "
        "To do: Take 0.1; at 1 the divergence would be 0 for every student."
    )


@each
def test_student_and_teacher_are_told_apart_by_name_only(name):
    logits = torch.zeros(3)
    with pytest.raises(TypeError, match="positional"):
        ALL[name](logits, logits)
    first, second, *_ = inspect.signature(ALL[name]).parameters
    assert (first, second) == ("student_logits", "teacher_logits")
