"""Distributions against references in plain floats, their properties and errors."""

import inspect
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.theory import distributions
from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.distributions import (
    entropy,
    log_probabilities,
    peakedness,
    perplexity,
    probabilities,
    sequence_log_probability,
    sequence_perplexity,
    top_k_mass,
)

INF = math.inf
SHAPES = [(), (3,), (2, 3)]
TEMPERATURES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0])
often = settings(max_examples=50, deadline=None, derandomize=True)


def top_2_mass(logits, *, temperature=1.0):
    return top_k_mass(logits, 2, temperature=temperature)


PER_POSITION = {
    "entropy": entropy,
    "perplexity": perplexity,
    "peakedness": peakedness,
    "top_k_mass": top_2_mass,
}
PER_TOKEN = {"log_probabilities": log_probabilities, "probabilities": probabilities}
ALL = {**PER_POSITION, **PER_TOKEN}
each = pytest.mark.parametrize("name", sorted(ALL))


# ------------------------------------------------------------------ inputs


@st.composite
def any_logits(draw, bound=None, barred=True, ties=True, dtype=torch.float32):
    """Logits (..., V); barred entries are -inf, but never all of a position."""
    shape = draw(st.sampled_from(SHAPES))
    size = draw(st.integers(2, 6))
    bound = draw(st.sampled_from([30.0, 1e4])) if bound is None else bound
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = (torch.rand(*shape, size, generator=generator) * 2 - 1) * bound
    if ties and draw(st.booleans()):
        logits = logits.round(decimals=-1)
    if barred and draw(st.booleans()):
        out = torch.rand(*shape, size, generator=generator) < 0.4
        out[..., draw(st.integers(0, size - 1))] = False
        logits = logits.masked_fill(out, -INF)
    return logits.to(dtype)


def fixed_logits(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


# ------------------------------------------------------------------ the reference


def naive_log_softmax(row, temperature=1.0):
    """The formula, with Python's own floats."""
    scaled = [v / temperature for v in row]
    top = max(scaled)
    total = math.log(sum(math.exp(v - top) for v in scaled))
    return [v - top - total for v in scaled]


def naive(name, row, temperature):
    logs = naive_log_softmax(row, temperature)
    p = [math.exp(v) for v in logs]
    if name == "log_probabilities":
        return logs
    if name == "probabilities":
        return p
    if name == "peakedness":
        return max(p)
    if name == "top_k_mass":
        return sum(sorted(p)[-2:])
    nats = -sum(math.exp(v) * v for v in logs if math.exp(v) > 0)
    return nats if name == "entropy" else math.exp(nats)


def reference(name, logits, temperature, dtype):
    rows = logits.double().reshape(-1, logits.shape[-1]).tolist()
    values = [naive(name, row, temperature) for row in rows]
    shape = logits.shape if name in PER_TOKEN else logits.shape[:-1]
    return torch.tensor(values, dtype=dtype).reshape(shape)


def check_against_reference(logits, temperature, dtype, tolerance):
    for name, function in ALL.items():
        ours = function(logits, temperature=temperature)
        expected = reference(name, logits, temperature, dtype)
        close(name, ours, expected, rtol=tolerance, atol=tolerance)


def close(name, ours, expected, **tolerances):
    """Equal in dtype, shape and value; of infinities, in sign."""
    explain = f"{name}: {{}}".format
    torch.testing.assert_close(ours, expected, msg=explain, **tolerances)


@often
@given(logits=any_logits(), temperature=TEMPERATURES)
def test_each_function_is_its_formula(logits, temperature):
    check_against_reference(logits, temperature, torch.float32, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@often
@given(data=st.data(), temperature=TEMPERATURES)
def test_low_precision_is_raised_to_float32(dtype, data, temperature):
    logits = data.draw(any_logits(dtype=dtype))
    check_against_reference(logits, temperature, torch.float32, 1e-5)


@often
@given(logits=any_logits(dtype=torch.float64), temperature=TEMPERATURES)
def test_double_precision_stays(logits, temperature):
    check_against_reference(logits, temperature, torch.float64, 1e-11)


# ------------------------------------------------------------------ pinned values


def test_a_distribution_of_three_to_one():
    logits = torch.tensor([3.0, 1.0], dtype=torch.float64).log()
    # p = (3/4, 1/4); H = 3/4 ln(4/3) + 1/4 ln 4 = 2 ln 2 - 3/4 ln 3
    nats = 2 * math.log(2) - 0.75 * math.log(3)
    assert nats == pytest.approx(0.5623351446)
    assert probabilities(logits).tolist() == pytest.approx([0.75, 0.25])
    assert log_probabilities(logits)[1].item() == pytest.approx(-1.3862943611)
    assert entropy(logits).item() == pytest.approx(nats)
    assert perplexity(logits).item() == pytest.approx(1.7547653506)  # 4 / 3^(3/4)
    assert peakedness(logits).item() == pytest.approx(0.75)
    assert top_k_mass(logits, 1).item() == pytest.approx(0.75)
    # T = 1/2 squares the odds: 9 to 1. T = 2 takes their root: √3 to 1.
    sharp = probabilities(logits, temperature=0.5)
    assert sharp.tolist() == pytest.approx([0.9, 0.1])
    root = math.sqrt(3)
    soft = probabilities(logits, temperature=2)
    assert soft.tolist() == pytest.approx([root / (1 + root), 1 / (1 + root)])


def test_top_k_mass_takes_the_largest_wherever_they_stand():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]).log()
    assert top_k_mass(logits, 2).tolist() == pytest.approx([0.7, 0.8])
    assert top_k_mass(logits, 3).tolist() == pytest.approx([0.9, 0.9])
    assert top_k_mass(logits, 4).tolist() == pytest.approx([1.0, 1.0])


# ------------------------------------------------------------------ properties


@often
@given(logits=any_logits(), temperature=TEMPERATURES)
def test_ranges(logits, temperature):
    size, positions = logits.shape[-1], logits.shape[:-1]
    p = probabilities(logits, temperature=temperature)
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(positions))
    assert (p[logits == -INF] == 0).all()
    nats = entropy(logits, temperature=temperature)
    assert nats.shape == positions
    assert (nats >= 0).all() and (nats <= math.log(size) + 1e-6).all()
    choices = perplexity(logits, temperature=temperature)
    assert (choices >= 1).all() and (choices <= size * (1 + 1e-6)).all()
    largest = peakedness(logits, temperature=temperature)
    assert (largest >= 1 / size - 1e-6).all() and (largest <= 1).all()
    torch.testing.assert_close(largest, p.max(dim=-1).values)
    masses = [
        top_k_mass(logits, k, temperature=temperature) for k in range(1, size + 1)
    ]
    torch.testing.assert_close(masses[0], largest)
    torch.testing.assert_close(masses[-1], torch.ones(positions))
    for less, more in zip(masses, masses[1:], strict=False):
        assert (less <= more + 1e-6).all()


@often
@given(logits=any_logits(bound=30.0))
def test_entropy_grows_with_the_temperature(logits):
    nats = [entropy(logits, temperature=t) for t in (0.2, 0.5, 1.0, 2.0, 5.0, 50.0)]
    for colder, warmer in zip(nats, nats[1:], strict=False):
        assert (colder <= warmer + 1e-6).all()


def test_entropy_grows_strictly_where_logits_differ():
    logits = fixed_logits(2, 3, 5)
    assert (entropy(logits) + 0.1 < entropy(logits, temperature=3.0)).all()


@often
@given(logits=any_logits(bound=30.0), temperature=st.sampled_from([1e9, 1e50, 10**400]))
def test_heat_makes_what_can_be_said_equally_likely(logits, temperature):
    sayable = logits != -INF
    uniform = sayable / sayable.sum(dim=-1, keepdim=True)
    p = probabilities(logits, temperature=temperature)
    torch.testing.assert_close(p, uniform)
    nats = sayable.sum(dim=-1).log()
    torch.testing.assert_close(entropy(logits, temperature=temperature), nats)


@often
@given(logits=any_logits(), temperature=st.sampled_from([1e-6, 1e-50, 5e-324]))
def test_cold_leaves_the_largest_alone(logits, temperature):
    logits = logits.round()  # neighbours closer than 1e-5 would need more cold
    largest = logits == logits.max(dim=-1, keepdim=True).values
    shared = largest / largest.sum(dim=-1, keepdim=True)
    p = probabilities(logits, temperature=temperature)
    torch.testing.assert_close(p, shared)


@often
@given(logits=any_logits(bound=30.0, dtype=torch.float64), shift=st.floats(-100, 100))
def test_a_constant_added_to_all_logits_changes_nothing(logits, shift):
    for name, function in ALL.items():
        before = function(logits, temperature=2.0)
        close(name, function(logits + shift, temperature=2.0), before)


@often
@given(logits=any_logits(), more=st.integers(1, 4))
def test_tokens_that_cannot_be_said_change_nothing(logits, more):
    padding = torch.full((*logits.shape[:-1], more), -INF)
    for name, function in ALL.items():
        padded = function(torch.cat([logits, padding], dim=-1), temperature=2.0)
        if name in PER_TOKEN:
            nothing = -INF if name == "log_probabilities" else 0.0
            assert (padded[..., -more:] == nothing).all()
            padded = padded[..., :-more]
        close(name, padded, function(logits, temperature=2.0))


# ------------------------------------------------------------------ gradients


@each
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_right(name, shape):
    logits = fixed_logits(*shape, 5).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: ALL[name](z, temperature=1.7), logits)


def upstream_gradient(function, logits, at_padding=None):
    """The gradient for one upstream; it has ``at_padding`` at the last two tokens."""
    logits = logits.detach().requires_grad_(True)
    result = function(logits)
    upstream = torch.zeros_like(result)
    padded = at_padding is not None and result.shape == logits.shape
    real = upstream[..., :-2] if padded else upstream
    real.copy_(torch.linspace(-2, 3, real.numel()).reshape(real.shape))
    if padded:
        upstream[..., -2:] = at_padding
    return torch.autograd.grad(result, logits, upstream)[0]


@often
@given(logits=any_logits(), temperature=TEMPERATURES)
def test_gradients_are_finite_and_zero_where_nothing_can_be_said(logits, temperature):
    for name, function in ALL.items():
        grad = upstream_gradient(partial(function, temperature=temperature), logits)
        assert grad.isfinite().all(), name
        assert (grad[logits == -INF] == 0).all(), name


@often
@given(logits=any_logits(30.0, barred=False, ties=False, dtype=torch.float64))
def test_barred_tokens_leave_the_other_gradients_alone(logits):
    padding = torch.full((*logits.shape[:-1], 2), -INF, dtype=torch.float64)
    for name, function in ALL.items():
        alone = upstream_gradient(function, logits)
        # What arrives at the barred tokens, here 9, must not spread from them.
        padded = upstream_gradient(function, torch.cat([logits, padding], dim=-1), 9.0)
        close(name, padded[..., :-2], alone)


def test_even_an_infinite_gradient_stops_at_a_barred_token():
    logits = torch.tensor([1.0, 2.0, -INF], requires_grad=True)
    upstream = torch.tensor([0.0, 1.0, math.nan])
    (grad,) = torch.autograd.grad(log_probabilities(logits), logits, upstream)
    p = 1 / (1 + math.e)
    assert grad.tolist() == pytest.approx([-p, p, 0.0])


# ------------------------------------------------------------------ sequences


@st.composite
def any_sequences(draw):
    shape = draw(st.sampled_from([(2,), (3, 4), (2, 3, 2)]))
    size = draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(*shape, size, generator=generator) * 5
    labels = torch.randint(0, size, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.3] = -100
    labels[..., 0] = labels[..., 0].clamp_min(0)
    return logits, labels


def naive_sequences(logits, labels):
    """The log-probability of each label, with the number of its sequence."""
    flat = logits.reshape(-1, *logits.shape[-2:])
    ids = labels.reshape(-1, labels.shape[-1])
    for n, (rows, chosen) in enumerate(zip(flat.tolist(), ids.tolist(), strict=True)):
        for row, label in zip(rows, chosen, strict=True):
            if label != -100:
                yield n, naive_log_softmax(row)[label]


@often
@given(pair=any_sequences())
def test_sequences_are_their_formula(pair):
    logits, labels = pair
    result = sequence_log_probability(logits, labels)
    assert result.shape == labels.shape[:-1]
    totals = [0.0] * max(1, result.numel())
    for n, value in naive_sequences(logits, labels):
        totals[n] += value
    assert result.flatten().tolist() == pytest.approx(totals, rel=1e-5, abs=1e-5)
    values = [value for _, value in naive_sequences(logits, labels)]
    expected = math.exp(-sum(values) / len(values))
    ppl = sequence_perplexity(logits, labels)
    assert ppl.shape == () and ppl.item() == pytest.approx(expected, rel=1e-4)


def test_sequences_of_three_to_one():
    logits = torch.tensor([3.0, 1.0]).log().expand(2, 3, 2)
    labels = torch.tensor([[0, 1, 0], [1, -100, -100]])
    values = sequence_log_probability(logits, labels)
    # 3/4 · 1/4 · 3/4 = 9/64, and 1/4
    assert values.exp().tolist() == pytest.approx([9 / 64, 1 / 4])
    # (9/64 · 1/4)^(-1/4) = (256/9)^(1/4) = 4/√3; the mean over sequences would be 2.96
    ppl = sequence_perplexity(logits, labels).item()
    assert ppl == pytest.approx(4 / math.sqrt(3), rel=1e-6)


def test_a_mask_decides_what_counts_and_ignored_labels_never_do():
    logits = torch.tensor([3.0, 1.0]).log().expand(3, 2)
    labels = torch.tensor([0, 1, -100])
    mask = torch.tensor([False, True, True])
    value = sequence_log_probability(logits, labels, mask=mask)
    assert value.exp().item() == pytest.approx(0.25)
    ppl = sequence_perplexity(logits, labels, mask=mask)
    assert ppl.item() == pytest.approx(4)
    everything = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(
        sequence_log_probability(logits, labels, mask=everything),
        sequence_log_probability(logits, labels),
    )


@often
@given(pair=any_sequences())
def test_padding_changes_neither_value_nor_gradient(pair):
    logits, labels = pair
    logits = logits.double()  # float32 sums depend a little on where they are cut
    extra = torch.full((*logits.shape[:-2], 3, logits.shape[-1]), 7.0)
    ignored = torch.full((*labels.shape[:-1], 3), -100)
    long = torch.cat([logits, extra], dim=-2).requires_grad_(True)
    long_labels = torch.cat([labels, ignored], dim=-1)
    for function in (sequence_log_probability, sequence_perplexity):
        value = function(long, long_labels)
        torch.testing.assert_close(value, function(logits, labels))
        (grad,) = torch.autograd.grad(value.sum(), long)
        assert (grad[..., -3:, :] == 0).all()
        assert (grad[..., :-3, :][labels == -100] == 0).all()


def test_the_model_that_knows_nothing_has_a_perplexity_of_v():
    ppl = sequence_perplexity(torch.zeros(2, 5, 7), torch.ones(2, 5, dtype=torch.int32))
    assert ppl.item() == pytest.approx(7)


def test_no_token_is_an_empty_product():
    labels = torch.tensor([[1, 0], [-100, -100]])
    values = sequence_log_probability(torch.zeros(2, 2, 2), labels)
    assert values.tolist() == pytest.approx([-2 * math.log(2), 0])


@pytest.mark.parametrize("score", [-INF, -1e4])
def test_a_label_that_cannot_be_said_is_infinitely_surprising(score):
    logits = torch.tensor([[0.0, score], [1.0, 2.0]], requires_grad=True)
    labels = torch.tensor([1, 0])
    value = sequence_log_probability(logits, labels)
    assert value.item() == pytest.approx(score - math.log(1 + math.e), rel=1e-6)
    (grad,) = torch.autograd.grad(value, logits)
    assert grad.isfinite().all()
    ppl = sequence_perplexity(logits, labels)
    assert ppl.item() == INF  # e^5000 is beyond a float too
    (grad,) = torch.autograd.grad(ppl, logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("function", [sequence_log_probability, sequence_perplexity])
def test_gradients_of_sequences_are_right(function):
    labels = torch.tensor([[0, 3, -100], [2, 1, 4]])
    logits = fixed_logits(2, 3, 5).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: function(z, labels), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sequences_are_computed_in_float32_or_more(dtype):
    logits = fixed_logits(300, 9, scale=4.0).to(dtype)
    labels = torch.arange(300) % 9
    exact = sequence_log_probability(logits.double(), labels)
    value = sequence_log_probability(logits, labels)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == kind
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    ppl = sequence_perplexity(logits, labels)
    assert ppl.dtype == kind
    assert ppl.item() == pytest.approx(math.exp(-exact.item() / 300), rel=1e-4)


# ------------------------------------------------------------------ errors


def complaint(call):
    """The one sentence of a wrong call; its parts are always the same three."""
    with pytest.raises(BadArgument) as error:
        call()
    message = str(error.value)
    assert message.startswith(f"{error.value.name} is ")
    assert " Wanted: " in message and " To do: " in message
    return message


LABELS = torch.zeros(2, dtype=torch.long)
ON_LOGITS = {
    **ALL,
    "sequence_log_probability": lambda z, **_: sequence_log_probability(z, LABELS),
    "sequence_perplexity": lambda z, **_: sequence_perplexity(z, LABELS),
}
BAD_LOGITS = [
    ([[0.0, 1.0]], "logits is a list. Wanted: a torch.Tensor (..., V)."),
    (torch.ones(2, 3, dtype=torch.long), "logits is a tensor of torch.int64."),
    (torch.tensor(1.0), "logits is a tensor of shape ()."),
    (torch.ones(2, 0), "logits is a tensor of shape (2, 0). Wanted: at least one"),
    (torch.tensor([[0.0, 1], [math.nan, 1]]), "logits is nan at (1, 0)"),
    (torch.tensor([[0.0, INF], [0, 1]]), "logits is inf at (0, 1)"),
    (
        torch.tensor([[0.0, 1], [-INF, -INF]]),
        "logits is -inf everywhere at position (1,). Wanted: at least one token",
    ),
    (torch.ones(2, 3, dtype=torch.complex64), "logits is a tensor of torch.complex64."),
    (torch.ones(2, 3, dtype=torch.bool), "logits is a tensor of torch.bool."),
    (
        torch.ones(2, 3, device="meta"),
        "logits is on meta, a device without numbers. Wanted: numbers to compute with",
    ),
    (torch.eye(3).to_sparse(), "logits is a tensor of layout torch.sparse_coo."),
]


@pytest.mark.parametrize("name", sorted(ON_LOGITS))
@pytest.mark.parametrize("logits, said", BAD_LOGITS)
def test_bad_logits_are_named(name, logits, said):
    assert complaint(lambda: ON_LOGITS[name](logits)).startswith(said)


@each
def test_eight_bits_are_raised_like_sixteen(name):
    logits = torch.tensor([[1.0, 0.5, -2.0], [0.0, -INF, 1.0]])
    low = logits.to(torch.float8_e5m2)
    assert ALL[name](low).equal(ALL[name](low.float()))


@each
@pytest.mark.parametrize("wrong", [0, 0.0, -1.0, math.nan, INF, "1", None, True])
def test_a_bad_temperature_is_named(name, wrong):
    said = complaint(lambda: ALL[name](torch.zeros(2, 3), temperature=wrong))
    assert said.startswith(f"temperature is {wrong!r}. Wanted: a finite number above 0")


@pytest.mark.parametrize("wrong", [0, -1, 4, 1.0, True, "2"])
def test_a_bad_k_is_named(wrong):
    said = complaint(lambda: top_k_mass(torch.zeros(2, 3), wrong))
    assert said.startswith(f"k is {wrong!r}. Wanted: a whole number in 1..3")


sequence = pytest.mark.parametrize(
    "function", [sequence_log_probability, sequence_perplexity]
)


@sequence
@pytest.mark.parametrize(
    "labels, said",
    [
        ([0, 1], "labels is of list. Wanted: a tensor of integer token ids."),
        (torch.zeros(2), "labels is of torch.float32. Wanted: a tensor of integer"),
        (torch.ones(2, dtype=torch.bool), "labels is of torch.bool."),
        (
            torch.tensor([0, 1, 2]),
            "labels is of shape (3,). Wanted: (2,): one label for each position of "
            "logits. To do: Compare the logits at t with the token that stands at t.",
        ),
        (torch.tensor([[0, 1]]), "labels is of shape (1, 2). Wanted: (2,)"),
        (
            torch.tensor([0, 3]),
            "labels is 3 at (1,). Wanted: ids in 0..2, or -100 where there is no "
            "token. To do: Use the vocabulary that the logits are over.",
        ),
        (torch.tensor([-1, 0]), "labels is -1 at (0,). Wanted: ids in 0..2"),
        (torch.tensor([-101, 0]), "labels is -101 at (0,). Wanted: ids in 0..2"),
        (torch.zeros(2, dtype=torch.long, device="meta"), "labels is on meta."),
    ],
)
def test_bad_labels_are_named(function, labels, said):
    assert complaint(lambda: function(torch.zeros(2, 3), labels)).startswith(said)


@sequence
@pytest.mark.parametrize(
    "mask, said",
    [
        ([True, True], "mask is of list. Wanted: a bool tensor, True for a token that"),
        (torch.ones(2), "mask is of torch.float32. Wanted: a bool tensor"),
        (torch.ones(2, dtype=torch.long), "mask is of torch.int64."),
        (
            torch.ones(3, dtype=torch.bool),
            "mask is of shape (3,). Wanted: (2,): one value for each position of "
            "logits. To do: Make it from the labels: labels != -100.",
        ),
        (torch.ones(2, dtype=torch.bool, device="meta"), "mask is on meta."),
    ],
)
def test_a_bad_mask_is_named(function, mask, said):
    call = complaint(lambda: function(torch.zeros(2, 3), LABELS, mask=mask))
    assert call.startswith(said)


@sequence
def test_logits_of_one_position_are_no_sequence(function):
    said = complaint(lambda: function(torch.zeros(3), torch.tensor(0)))
    assert said.startswith("logits is of shape (3,). Wanted: positions and tokens")


def test_a_perplexity_of_nothing_is_an_error():
    logits = torch.zeros(2, 3)
    said = complaint(lambda: sequence_perplexity(logits, torch.full((2,), -100)))
    assert said.startswith("labels is without a single token that counts. Wanted: at")
    nothing = torch.zeros(2, dtype=torch.bool)
    said = complaint(lambda: sequence_perplexity(logits, LABELS, mask=nothing))
    assert said.startswith("mask is without a single token that counts.")


def test_nothing_else_is_public():
    own = {
        name
        for name, function in inspect.getmembers(distributions, inspect.isfunction)
        if function.__module__ == distributions.__name__ and name[0] != "_"
    }
    assert own == set(distributions.__all__)
