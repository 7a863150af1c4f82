"""The one objective: each method against its paper's formula, written out naively.

The references below know nothing of the implementation. They list a student's outputs
through ``log_prob``, ask for next tokens one prefix at a time, and compute divergences
between probabilities, not logits.
"""

import math
from functools import cache, partial

import pytest
import sacrebleu
import torch

from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.losses import distillation_loss
from kdcourse.theory.objective import (
    METHODS,
    SAME,
    ClosestOfNBest,
    Divergence,
    Method,
    Mix,
    References,
    Row,
    StudentSamples,
    TeacherBest,
    TeacherSamples,
    Term,
    context_distillation,
    distillm,
    f_distill_js,
    f_distill_tvd,
    freeze,
    gkd,
    hinton,
    interpolation,
    label_smoothing,
    objective,
    self_distillation,
    sentence_bleu,
    sequence_divergence,
    sequence_level,
    sequence_level_exact,
    word_level,
)
from kdcourse.theory.toy import (
    BigramStudent,
    TabularStudent,
    sequence_cross_entropy,
    sequence_kl,
    sequence_kl_by_tokens,
    target_generated_loss,
    toy_language,
)

TOY = toy_language()
COIN = tuple("she sees the coin".split())
BANK = tuple("she saves the bank".split())
LN2 = math.log(2)


def scattered(student, seed=7, scale=1.0):
    """The student with parameters that are anything but special."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scale * noise.double())
    return student


def tabular(seed=7, scale=1.0):
    return scattered(TabularStudent(TOY, [COIN, BANK]), seed, scale)


def bigram(seed=7):
    return scattered(BigramStudent(TOY), seed)


def nearly_taught(seed=7, noise=1.0):
    """A table that has learned most of what the language says of a coin."""
    student = scattered(TabularStudent(TOY, [COIN]), seed, noise)
    with torch.no_grad():
        for (z, c, prefix), n in student.rows.items():
            row = TOY.next_token_distribution(prefix, z, c)[: TOY.pad]
            student.table[n] += row.log().clamp_min(-5.0)
    return student


def a_row(z=BANK, c="river", place=1, **options):
    """A row whose reference is what the teacher finds the place-th most probable."""
    return Row(z, c, reference=TOY.outputs(z, c).sequences[place], **options)


ROWS = [
    a_row(),
    a_row(c="finance", place=3, c_student=None, weight=3.0),
    a_row(c="kitchen", place=10, weight=2.0),  # none of the five best
    a_row(COIN, "kitchen", c_student="river", weight=0.5),
]


# ------------------------------------------------------------- the naive references


def q(student, prefix, z, c):
    """Pr^s(·|c',z,y_<t), (V,), with gradient."""
    return student.logits([(*prefix, TOY.eos)], z, c)[0, -1].softmax(-1)


def p(teacher, prefix, z, c):
    """Pr^t(·|c,z,y_<t), (V,), without gradient."""
    if teacher is not TOY:
        return q(teacher, prefix, z, c).detach()
    return of_the_language(prefix, z, c)


@cache
def of_the_language(prefix, z, c):
    """What it says; beyond that, it ends the sentence."""
    try:
        return TOY.next_token_distribution(prefix, z, c)
    except BadArgument:
        return torch.nn.functional.one_hot(torch.tensor(TOY.eos), 73).double()


def kl(a, b):
    some = a > 0
    return (a[some] * (a[some] / b[some]).log()).sum()


def h(a, b):
    some = a > 0
    return -(a[some] * b[some].log()).sum()


def tv(a, b):
    return 0.5 * (a - b).abs().sum()


def js(a, b, beta):
    m = beta * a + (1 - beta) * b
    return beta * kl(a, m) + (1 - beta) * kl(b, m)


def along(y, distance, student, teacher, row, known=None):
    """Σ_t distance(Pr^t, Pr^s) on the prefixes of y; ``known`` spares repetition."""
    c = row.c if row.c_student is SAME else row.c_student
    known = {} if known is None else known
    for prefix in (y[:t] for t in range(len(y))):
        if prefix not in known:
            theirs, own = p(teacher, prefix, row.z, row.c), q(student, prefix, row.z, c)
            known[prefix] = distance(theirs, own)
    return sum(known[y[:t]] for t in range(len(y)))


def nll(y, student, row):
    """-log Pr^s(y|c',z)."""
    c = row.c if row.c_student is SAME else row.c_student
    return -student.log_prob([y], row.z, c)[0]


def teacher_says(row):
    """(y, Pr^t(y|c,z)) for all y of the language."""
    outputs = TOY.outputs(row.z, row.c)
    return list(zip(outputs.sequences, outputs.probabilities.tolist(), strict=True))


@cache
def could_be_said(z, c):
    """All that a tabular student can say: it leaves the table once and then ends."""
    said = TOY.outputs(z, c).sequences
    beginnings = {y[:t] for y in said for t in range(len(y))}
    found = []
    for prefix in sorted(beginnings):
        for token in range(TOY.pad):
            if token == TOY.eos:
                found.append((*prefix, token))
            elif (*prefix, token) not in beginnings:
                found.append((*prefix, token, TOY.eos))
    return found


def student_says(student, row):
    """(y, Pr^s(y|c',z)) for all y, without gradient."""
    c = row.c if row.c_student is SAME else row.c_student
    sequences = could_be_said(row.z, c)
    with torch.no_grad():
        masses = student.log_prob(sequences, row.z, c).exp().tolist()
    assert math.isclose(sum(masses), 1.0, abs_tol=1e-12)
    return list(zip(sequences, masses, strict=True))


def expect(pairs, function):
    return sum(mass * function(y) for y, mass in pairs)


def softened(a, T):
    """a^(1/T), normalised; what is 0 stays 0."""
    some = torch.zeros_like(a).masked_scatter(a > 0, a[a > 0] ** (1 / T))
    return some / some.sum()


def paper_hinton(student, teacher, row, T=2.0, alpha=0.5):
    def soft(a, b):
        return T**2 * kl(softened(a, T), softened(b, T))

    y = row.reference
    return (1 - alpha) * along(y, soft, student, teacher, row) + alpha * nll(
        y, student, row
    )


def paper_word_level(student, teacher, row):
    return along(row.reference, h, student, teacher, row)


def paper_sequence_level_exact(student, teacher, row):
    return expect(teacher_says(row), lambda y: nll(y, student, row))


def paper_sequence_level(student, teacher, row):
    y, _ = max(teacher_says(row), key=lambda pair: pair[1])
    return nll(y, student, row)


def paper_interpolation(student, teacher, row, n=5):
    best = sorted(teacher_says(row), key=lambda pair: -pair[1])[:n]
    wanted = TOY.decode(row.reference)
    y, _ = max(best, key=lambda pair: smoothed_bleu(TOY.decode(pair[0]), wanted))
    return nll(y, student, row)


def smoothed_bleu(said, wanted):
    return sacrebleu.sentence_bleu(
        said, [wanted], smooth_method="add-k", smooth_value=1, tokenize="none"
    ).score


def paper_on_policy(student, teacher, row):
    known = {}
    return expect(
        student_says(student, row),
        lambda y: along(y, kl, student, teacher, row, known) / len(y),
    )


def paper_gkd(student, teacher, row, lam=0.5, beta=0.5):
    known = {}

    def gap(y):
        each = partial(js, beta=beta)
        return along(y, each, student, teacher, row, known) / len(y)

    return (1 - lam) * gap(row.reference) + lam * expect(
        student_says(student, row), gap
    )


def paper_f_distill_js(student, teacher, row):
    def of_teacher(y):
        return along(y, lambda a, b: kl(a, (a + b) / 2), student, teacher, row)

    def of_student(y):
        return along(y, lambda a, b: kl(b, (a + b) / 2), student, teacher, row, known)

    known = {}
    theirs, own = teacher_says(row), student_says(student, row)
    return expect(theirs, of_teacher) / 2 + expect(own, of_student) / 2


def paper_f_distill_tvd(student, teacher, row):
    known = {}

    def gap(y):
        return along(y, tv, student, teacher, row, known)

    both = expect(teacher_says(row), gap) + expect(student_says(student, row), gap)
    return both / 2


def paper_skew_kl(student, teacher, row, alpha=0.1):
    def skew(a, b):
        return kl(a, alpha * a + (1 - alpha) * b)

    return along(row.reference, skew, student, teacher, row)


def paper_skew_reverse_kl(student, teacher, row, alpha=0.1):
    def skew(a, b):
        return kl(b, (1 - alpha) * a + alpha * b)

    return along(row.reference, skew, student, teacher, row)


def paper_context_distillation(student, teacher, row):
    return expect(
        teacher_says(row),
        lambda y: (
            math.log(dict(teacher_says(row))[y]) - student.log_prob([y], row.z, None)[0]
        ),
    )


def paper_label_smoothing(student, teacher, row, epsilon=0.1):
    """Szegedy's own form: the cross-entropy to a smoothed label, over V - 1 tokens."""
    c = row.c if row.c_student is SAME else row.c_student
    total = 0.0
    for t, token in enumerate(row.reference):
        label = torch.full((72,), epsilon / 72, dtype=torch.float64)
        label[token] += 1 - epsilon
        total = total + h(label, q(student, row.reference[:t], row.z, c)[:72])
    return total


PAPERS = {
    "hinton": paper_hinton,
    "word_level": paper_word_level,
    "sequence_level_exact": paper_sequence_level_exact,
    "sequence_level": paper_sequence_level,
    "interpolation": paper_interpolation,
    "on_policy": paper_on_policy,
    "gkd": paper_gkd,
    "f_distill_js": paper_f_distill_js,
    "f_distill_tvd": paper_f_distill_tvd,
    "distillm_skew_kl": paper_skew_kl,
    "distillm_skew_reverse_kl": paper_skew_reverse_kl,
    "context_distillation": paper_context_distillation,
    "self_distillation": paper_word_level,
    "label_smoothing": paper_label_smoothing,
}
ON_POLICY = {"on_policy", "gkd", "f_distill_js", "f_distill_tvd"}


def over(rows, formula, student, teacher):
    """E_{(c,c',z)}: the rows by their weights."""
    total = sum(row.weight for row in rows)
    return sum(row.weight * formula(student, teacher, row) for row in rows) / total


def gradients(loss, student):
    found = torch.autograd.grad(
        loss, list(student.parameters()), retain_graph=True, allow_unused=True
    )
    return [torch.zeros(()) if g is None else g for g in found]


def assert_same(ours, expected, student, tolerance=1e-10):
    """Equal in value and in gradient, which is not zero."""
    assert ours.dtype == torch.float64 and ours.shape == ()
    assert ours.item() == pytest.approx(expected.item(), abs=tolerance)
    pairs = list(
        zip(gradients(ours, student), gradients(expected, student), strict=True)
    )
    assert any(g.abs().max() > 1e-3 for g, _ in pairs)
    for g, wanted in pairs:
        assert (g - wanted).abs().max() < tolerance


def teacher_of(method, student):
    """The toy language, or an earlier self that is not the student's present one."""
    if method.teacher == "an earlier self":
        return freeze(scattered(freeze(student), seed=1))
    return TOY


# ------------------------------------------------------------- each method, each paper


def test_there_is_a_paper_for_each_method():
    assert PAPERS.keys() == METHODS.keys()
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", PAPERS)
def test_method_equals_the_formula_of_its_paper(name):
    student = tabular()
    teacher = teacher_of(METHODS[name], student)
    rows = ROWS[-1:] if name in ON_POLICY else ROWS  # it takes long to list all
    ours = METHODS[name].loss(student, teacher, rows)
    assert_same(ours, over(rows, PAPERS[name], student, teacher), student)


@pytest.mark.parametrize("name", sorted(ON_POLICY))
def test_on_policy_methods_on_several_rows(name):
    """Rows are weighted; what one row gives has been compared above."""
    student, method = tabular(), METHODS[name]
    parts = [method.loss(student, TOY, [row]) for row in ROWS]
    total = sum(row.weight for row in ROWS)
    mean = sum(r.weight * part for r, part in zip(ROWS, parts, strict=True)) / total
    assert_same(method.loss(student, TOY, ROWS), mean, student)


@pytest.mark.parametrize("name", sorted(PAPERS.keys() - ON_POLICY))
def test_method_on_a_student_that_shares_its_parameters(name):
    student = bigram()
    teacher = teacher_of(METHODS[name], student)
    ours = METHODS[name].loss(student, teacher, ROWS)
    assert_same(ours, over(ROWS, PAPERS[name], student, teacher), student)


@pytest.mark.parametrize(
    "method, formula",
    [
        (hinton(4.0, 0.1), partial(paper_hinton, T=4.0, alpha=0.1)),
        (hinton(1.0, 0.0), lambda s, t, row: along(row.reference, kl, s, t, row)),
        (hinton(3.0, 1.0), lambda s, t, row: nll(row.reference, s, row)),
        (word_level(1.0), lambda s, t, row: nll(row.reference, s, row)),
        (
            word_level(0.25),
            lambda s, t, row: (
                0.25 * nll(row.reference, s, row) + 0.75 * paper_word_level(s, t, row)
            ),
        ),
        (interpolation(2), partial(paper_interpolation, n=2)),
        (interpolation(1), paper_sequence_level),
        (gkd(0.25, 0.9), partial(paper_gkd, lam=0.25, beta=0.9)),
        (gkd(0.0, 0.1), partial(paper_gkd, lam=0.0, beta=0.1)),
        (gkd(1.0, 0.1), partial(paper_gkd, lam=1.0, beta=0.1)),
        (distillm(0.7), partial(paper_skew_kl, alpha=0.7)),
        (distillm(0.7, reverse=True), partial(paper_skew_reverse_kl, alpha=0.7)),
        (
            distillm(0.3, phi=0.25),
            lambda s, t, row: (
                0.75 * paper_skew_kl(s, t, row, 0.3)
                + 0.25
                * expect(
                    student_says(s, row),
                    lambda y: along(
                        y, lambda a, b: kl(a, 0.3 * a + 0.7 * b), s, t, row
                    ),
                )
            ),
        ),
        (label_smoothing(0.4), partial(paper_label_smoothing, epsilon=0.4)),
        (label_smoothing(0.0), lambda s, t, row: nll(row.reference, s, row)),
    ],
    ids=lambda x: x.name if isinstance(x, Method) else "",
)
def test_parameters_of_the_methods(method, formula):
    student = tabular()
    rows = ROWS[-1:]
    ours = method.loss(student, TOY, rows)
    assert_same(ours, over(rows, formula, student, TOY), student)


def simple_student():
    """A student without randomness: the same numbers with every version of torch."""
    student = TabularStudent(TOY, [COIN, BANK])
    with torch.no_grad():
        for parameter in student.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(torch.sin(numbers).view_as(parameter))
    return student


PINNED = {
    "hinton": 51.390138154964,
    "word_level": 23.146252911995,
    "sequence_level_exact": 19.575816506418,
    "sequence_level": 17.755665319963,
    "interpolation": 22.276714815990,
    "on_policy": 2.098477745990,
    "gkd": 0.487996923907,
    "f_distill_js": 1.792542562860,
    "f_distill_tvd": 2.648176724473,
    "distillm_skew_kl": 10.780568154370,
    "distillm_skew_reverse_kl": 10.933950163718,
    "context_distillation": 18.668897908629,
    "self_distillation": 22.565639684731,
    "label_smoothing": 23.016018684523,
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_values(name):
    """A change that moves one of these numbers changes a method: it must say so."""
    student = simple_student()
    teacher = TOY
    if METHODS[name].teacher == "an earlier self":
        teacher = TabularStudent(TOY, [COIN, BANK])
    loss = METHODS[name].loss(student, teacher, ROWS)
    assert loss.item() == pytest.approx(PINNED[name], abs=1e-9)


# ------------------------------------------------------- what the toy language has said


@pytest.mark.parametrize("make", [tabular, bigram])
@pytest.mark.parametrize("c", [None, "river"])
def test_forward_kl_on_the_teachers_samples_is_the_sequence_kl(make, c):
    student = make()
    outputs = TOY.outputs(BANK, c)
    ours = objective(student, TOY, [Row(BANK, c)], data=TeacherSamples())
    whole = sequence_kl(outputs, student.log_prob(outputs.sequences, BANK, c))
    assert_same(ours, whole, student)
    assert_same(ours, sequence_kl_by_tokens(TOY, student, BANK, c), student)


@pytest.mark.parametrize("make", [tabular, bigram])
def test_one_hot_targets_are_the_sequence_losses_of_the_toy(make):
    student = make()
    outputs = TOY.outputs(BANK, "river")
    logs = student.log_prob(outputs.sequences, BANK, "river")
    for method, loss in [
        (sequence_level_exact(), sequence_cross_entropy),
        (sequence_level(), target_generated_loss),
    ]:
        ours = method.loss(student, TOY, [Row(BANK, "river")])
        assert_same(ours, loss(outputs, logs), student)


def test_a_teacher_that_is_a_student_gives_the_same_as_the_language_it_learned():
    """Filled with the language's own numbers, a table is the language."""
    student, teacher = tabular(), TabularStudent(TOY, [BANK])
    with torch.no_grad():
        for (z, c, prefix), n in teacher.rows.items():
            row = TOY.next_token_distribution(prefix, z, c)[: TOY.pad]
            teacher.table[n] = row.log()
    rows = [a_row()]
    for name in ("hinton", "sequence_level_exact", "sequence_level", "interpolation"):
        ours = METHODS[name].loss(student, freeze(teacher), rows)
        assert_same(ours, METHODS[name].loss(student, TOY, rows), student)
    for name in ("gkd", "f_distill_js", "f_distill_tvd"):
        ours = METHODS[name].loss(student, freeze(teacher), rows)
        assert_same(ours, METHODS[name].loss(student, TOY, rows), student)


# -------------------------------------------------------- the loss library of lesson 04


@pytest.mark.parametrize("T, alpha", [(1.0, 0.0), (2.0, 0.5), (4.0, 0.1)])
def test_hinton_per_token_is_distillation_loss(T, alpha):
    student = tabular()
    rows = [a_row(place=place) for place in range(4)]
    references = [row.reference for row in rows]
    ids = TOY.padded(references)
    labels = ids.masked_fill(ids == TOY.pad, -100)
    logits = student.logits(references, BANK, "river")
    answers = TOY.teacher_logits(references, BANK, "river")
    batch = distillation_loss(
        logits, answers, labels=labels, temperature=T, alpha=alpha
    )
    assert len({len(y) for y in references}) > 1  # the two ways to divide differ
    ours = sum(
        term.weight
        * objective(
            student,
            TOY,
            rows,
            data=term.data,
            divergence=term.divergence,
            target=term.target,
            temperature=term.temperature,
            per="token",
        )
        for term in hinton(T, alpha).terms
    )
    assert_same(ours, batch, student)


def test_label_smoothing_is_what_torch_calls_so():
    student = tabular()
    row = a_row()
    logits = student.logits([row.reference], BANK, "river")[0, :, : TOY.pad]
    torchs = torch.nn.functional.cross_entropy(
        logits, torch.tensor(row.reference), label_smoothing=0.1, reduction="sum"
    )
    assert_same(label_smoothing(0.1).loss(student, None, [row]), torchs, student)


@pytest.mark.parametrize("per", ["sequence", "length", "token"])
def test_three_ways_to_sum_over_tokens(per):
    student = tabular()
    rows = [a_row(place=0), a_row(place=1, weight=2.0)]
    short, long = (len(row.reference) for row in rows)
    assert short != long
    one, two = (nll(row.reference, student, row) for row in rows)
    expected = {
        "sequence": (one + 2 * two) / 3,
        "length": (one / short + 2 * two / long) / 3,
        "token": (one + 2 * two) / (short + 2 * long),
    }
    ours = objective(
        student,
        None,
        rows,
        data=References(),
        divergence="cross_entropy",
        target="one_hot",
        per=per,
    )
    assert_same(ours, expected[per], student)


# -------------------------------------------------------- sequences against their steps


def whole(student, z, c, name, **options):
    outputs = TOY.outputs(z, c)
    logs = student.log_prob(outputs.sequences, z, c)
    return sequence_divergence(outputs, logs, Divergence(name, **options))


NAIVE = {"generalised_js": partial(js, beta=0.5), "total_variation": tv}


@pytest.mark.parametrize("name", NAIVE)
def test_sequence_divergence_is_that_of_all_sequences(name):
    student, row = nearly_taught(), Row(COIN, "river")
    theirs, own = dict(teacher_says(row)), dict(student_says(student, row))
    every = sorted(theirs.keys() | own.keys())
    a = torch.tensor([theirs.get(y, 0.0) for y in every], dtype=torch.float64)
    b = student.log_prob(every, COIN, "river").exp()
    ours = whole(student, COIN, "river", name)
    assert_same(ours, NAIVE[name](a, b), student)


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_f_distill_is_an_upper_bound(seed, noise):
    """Token by token is at least the divergence of the sequences; the KL is equal."""
    student = nearly_taught(seed, noise)
    row = [Row(COIN, "river")]
    js_tokens, tvd_tokens = (
        method.loss(student, TOY, row) for method in (f_distill_js(), f_distill_tvd())
    )
    assert whole(student, COIN, "river", "generalised_js") < js_tokens - 1e-6
    assert whole(student, COIN, "river", "total_variation") < tvd_tokens - 1e-6
    steps = objective(student, TOY, row, data=TeacherSamples())
    assert_same(steps, whole(student, COIN, "river", "forward_kl"), student)


def test_f_distill_js_is_not_js_on_a_mix():
    student, row = nearly_taught(), [Row(COIN, "river")]
    mixed = objective(
        student,
        TOY,
        row,
        data=Mix(0.5, TeacherSamples(), StudentSamples()),
        divergence="generalised_js",
    )
    assert abs(mixed - f_distill_js().loss(student, TOY, row)) > 0.01


def test_reverse_kl_is_infinite_where_the_teacher_never_goes():
    """The true value: the language gives 0 to most tokens, a softmax to none."""
    student, row = tabular(), [Row(COIN, "river")]
    options = {"data": StudentSamples(), "divergence": "reverse_kl"}
    assert objective(student, TOY, row, **options) == math.inf
    assert whole(student, COIN, "river", "reverse_kl") == math.inf
    teacher = freeze(tabular(seed=2))
    assert 0 < objective(student, teacher, row, **options) < math.inf


# --------------------------------------------------------------- the gradient through μ


def reverse_kl_of_sequences(student, teacher, c="river"):
    every = could_be_said(COIN, c)
    log_q = student.log_prob(every, COIN, c)
    return (log_q.exp() * (log_q - teacher.log_prob(every, COIN, c))).sum()


def test_on_policy_value_is_the_sequences_but_not_its_gradient():
    """GKD and f-distill stop the gradient at the sampling; the value is the same."""
    student, teacher = tabular(), freeze(tabular(seed=2))
    expected = reverse_kl_of_sequences(student, teacher)

    def loss(stop_gradient):
        data = StudentSamples(stop_gradient=stop_gradient)
        options = {"data": data, "divergence": "reverse_kl"}
        return objective(student, teacher, [Row(COIN, "river")], **options)

    assert_same(loss(stop_gradient=False), expected, student)
    stopped = loss(stop_gradient=True)
    assert stopped.item() == pytest.approx(expected.item(), abs=1e-10)
    (ours,), (through,) = gradients(stopped, student), gradients(expected, student)
    assert (ours - through).abs().max() > 0.01


def test_the_whole_gradient_reaches_each_way_to_sum():
    """-Σ_y q(y) log q(y), the student's entropy: its targets are its own outputs."""
    student = nearly_taught()
    every = could_be_said(COIN, "river")
    log_q = student.log_prob(every, COIN, "river")
    lengths = torch.tensor([len(y) for y in every])
    expected = {
        "sequence": -(log_q.exp() * log_q).sum(),
        "length": -(log_q.exp() * log_q / lengths).sum(),
    }
    expected["token"] = expected["sequence"] / (log_q.exp() * lengths).sum()
    for per, entropy in expected.items():
        ours = objective(
            student,
            None,
            [Row(COIN, "river")],
            data=StudentSamples(stop_gradient=False),
            divergence="cross_entropy",
            target="one_hot",
            per=per,
        )
        assert_same(ours, entropy, student)


def test_stopped_gradient_is_the_one_with_the_outputs_held():
    student = tabular()
    row = Row(COIN, "river")
    held, known = student_says(student, row), {}

    def along_held(y):
        return along(y, tv, student, TOY, row, known)

    ours = objective(
        student, TOY, [row], data=StudentSamples(), divergence="total_variation"
    )
    assert_same(ours, expect(held, along_held), student)


def test_no_gradient_reaches_a_teacher():
    student = tabular()
    teacher = tabular(seed=2)  # forgotten to be frozen
    for name in ("hinton", "gkd", "f_distill_js", "sequence_level_exact"):
        loss = METHODS[name].loss(student, teacher, [a_row(COIN)])
        assert gradients(loss, teacher)[0].shape == ()  # unused


# ----------------------------------------------------------------------- the data μ


def test_outputs_of_the_data():
    student, row = tabular(), a_row()
    outputs = TOY.outputs(BANK, "river")
    for data, sequences in [
        (References(), (row.reference,)),
        (TeacherBest(), outputs.sequences[:1]),
        (TeacherSamples(), outputs.sequences),
    ]:
        mu = data.outputs(student, TOY, row)
        assert mu.sequences == sequences
        assert abs(mu.missing) < 1e-12
    said = dict(student_says(student, row))
    mu = StudentSamples().outputs(student, TOY, row)
    ours = dict(zip(mu.sequences, mu.probabilities.tolist(), strict=True))
    assert ours.keys() == said.keys()
    assert all(math.isclose(ours[y], said[y], abs_tol=1e-14) for y in said)
    assert mu.probabilities.tolist() == sorted(ours.values(), reverse=True)


def test_the_student_speaks_in_its_own_context_and_the_teacher_in_its():
    student = tabular()
    row = a_row(c="finance", c_student="river")
    ours = StudentSamples().outputs(student, TOY, row)
    same = StudentSamples().outputs(student, TOY, a_row(c="river"))
    assert ours.sequences == same.sequences
    best = TeacherBest().outputs(student, TOY, row)
    assert best.sequences == (TOY.best(BANK, "finance"),)
    assert TOY.best(BANK, "finance") != TOY.best(BANK, "river")


def test_a_mix_shares_the_mass():
    student, row = tabular(), a_row()
    mu = Mix(0.25, References(), TeacherSamples()).outputs(student, TOY, row)
    assert mu.sequences[0] == row.reference
    assert mu.probabilities[0] == 0.75
    assert mu.probabilities[1:].sum().item() == pytest.approx(0.25)
    only = Mix(0.0, TeacherSamples(), References()).outputs(student, TOY, Row(BANK))
    assert only.sequences == TOY.outputs(BANK).sequences  # no reference is asked for


def test_cut_sequences_count_as_far_as_they_go():
    """The longest that a student may say: the loss is that of the first two tokens."""
    student, row = bigram(), Row(COIN, "river")
    mu = StudentSamples(max_length=2).outputs(student, TOY, row)
    assert abs(mu.missing) < 1e-12
    assert {len(y) for y in mu.sequences} == {1, 2}
    ours = objective(
        student,
        TOY,
        [row],
        data=StudentSamples(max_length=2),
        divergence="total_variation",
    )
    start = q(student, (), COIN, "river")
    first = tv(p(TOY, (), COIN, "river"), start)
    second = sum(
        start[v].detach()
        * tv(p(TOY, (v,), COIN, "river"), q(student, (v,), COIN, "river"))
        for v in range(1, TOY.pad)
    )
    assert_same(ours, first + second, student)


def test_a_floor_leaves_out_little():
    student, rows = tabular(scale=3.0), [Row(COIN, "river")]
    losses = [
        objective(
            student,
            TOY,
            rows,
            data=StudentSamples(floor=floor),
            divergence="total_variation",
        ).item()
        for floor in (1e-1, 1e-2, 1e-4, 0.0)
    ]
    assert losses == sorted(losses)  # a lower bound, ever closer
    assert losses[2] == pytest.approx(losses[3], abs=1e-2)


def test_the_closest_of_the_n_best():
    student, row = tabular(), a_row(place=3)
    outputs = TOY.outputs(BANK, "river").sequences

    def chosen(n, **options):
        data = ClosestOfNBest(n, **options)
        return data.outputs(student, TOY, row).sequences[0]

    assert chosen(1) == outputs[0]
    assert chosen(4) == chosen(10) == outputs[3]  # the reference itself
    assert chosen(3) in outputs[:3]
    assert chosen(8, similarity=lambda y, reference: 0.0) == outputs[0]  # a tie
    assert chosen(2, similarity=lambda y, reference: -y[0]) == min(outputs[:2])


def test_sentence_bleu_is_sacrebleus():
    for c in TOY.contexts:
        sequences = TOY.outputs("they save the light bill".split(), c).sequences
        for y in sequences[:12]:
            for reference in sequences[:12]:
                theirs = smoothed_bleu(TOY.decode(y), TOY.decode(reference))
                ours = sentence_bleu(y, reference)
                assert ours == pytest.approx(theirs / 100, abs=1e-12)
    assert sentence_bleu((0,), (5, 0)) == 0.0
    assert sentence_bleu((0,), (0,)) == 1.0


# --------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    "data",
    [
        TeacherSamples(),
        StudentSamples(),
        Mix(0.25, TeacherSamples(), StudentSamples()),
        Mix(0.5, References(), StudentSamples()),
    ],
    ids=str,
)
@pytest.mark.parametrize("per", ["sequence", "length"])
def test_drawn_samples_estimate_the_exact_expectation(data, per):
    student, rows = tabular(), [a_row(), a_row(COIN, weight=2.0)]
    generator = torch.Generator().manual_seed(3)

    def loss(**options):
        divergence = Divergence("generalised_js", beta=0.3)
        return objective(
            student, TOY, rows, data=data, divergence=divergence, per=per, **options
        )

    drawn = torch.stack(
        [loss(samples=50, generator=generator).detach() for _ in range(30)]
    )
    error = drawn.std().item() / math.sqrt(len(drawn))
    assert 0 < error < 0.1
    assert abs(drawn.mean().item() - loss().item()) < 4 * error


def test_drawn_gradient_estimates_the_stopped_gradient():
    student, rows = tabular(), [a_row(COIN)]
    generator = torch.Generator().manual_seed(3)
    exact = gradients(gkd().loss(student, TOY, rows), student)[0]
    drawn = gkd().loss(student, TOY, rows, samples=4000, generator=generator)
    (ours,) = gradients(drawn, student)
    assert (ours - exact).norm() < 0.05 * exact.norm()


def test_samples_are_cut_and_come_from_the_generator():
    student, row = bigram(), Row(COIN, "river")

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        data = StudentSamples(max_length=4)
        return data.outputs(student, TOY, row, samples=30, generator=generator)

    first = draw(1)
    assert first.sequences == draw(1).sequences != draw(2).sequences
    assert max(len(y) for y in first.sequences) == 4
    assert all(TOY.eos not in y[:-1] for y in first.sequences)
    assert first.probabilities.tolist() == [1 / 30] * 30


# -------------------------------------------------------------- contexts and teachers


def test_context_distillation_takes_the_context_from_the_student_alone():
    student, row = tabular(), Row(BANK, "river")
    ours = context_distillation().loss(student, TOY, [row])
    outputs = TOY.outputs(BANK, "river")
    blind = student.log_prob(outputs.sequences, BANK, None)
    assert_same(ours, sequence_kl(outputs, blind), student)
    seeing = objective(student, TOY, [row], data=TeacherSamples())
    assert abs(ours - seeing) > 0.1
    reader = scattered(TabularStudent(TOY, [BANK], reads_context=False))
    ours = context_distillation().loss(reader, TOY, [row])
    assert ours == objective(reader, TOY, [row], data=TeacherSamples())


def test_self_distillation_is_over_where_the_student_is_its_earlier_self():
    student = tabular()
    teacher = freeze(student)
    assert all(not parameter.requires_grad for parameter in teacher.parameters())
    loss = self_distillation().loss(student, teacher, [a_row()])
    assert gradients(loss, student)[0].abs().max() < 1e-12
    with torch.no_grad():
        student.table += torch.sin(torch.arange(72.0))
    moved = self_distillation().loss(student, teacher, [a_row()])
    assert moved > loss  # the teacher stood still


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_table_speaks(name):
    """Each cell is a text, and a method's choices are in it."""
    method = METHODS[name]
    cells = (method.data, method.divergence, method.contexts, method.teacher)
    for cell in (*cells, method.formula, method.paper):
        assert isinstance(cell, str) and cell
    assert ("student's samples" in method.data) == (name in ON_POLICY)
    assert ("empty" in method.contexts) == (name == "context_distillation")


def test_texts_of_the_values():
    assert str(Divergence("skew_kl", alpha=0.1)) == "skew_kl(alpha=0.1)"
    assert str(Mix(0.25, References(), StudentSamples())) == (
        "0.75 references + 0.25 student's samples"
    )
    assert hinton(2.0, 0.5).divergence == (
        "2 forward_kl(Pr^t, Pr^s; T=2) + 0.5 cross_entropy(one-hot y_t, Pr^s)"
    )
    assert gkd().divergence == "generalised_js(Pr^t, Pr^s; beta=0.5)"
    assert interpolation(3).data == "closest of teacher's 3 best"
    assert repr(SAME) == "SAME"


# ----------------------------------------------------------------------- bad input


def call(**changes):
    """The objective with one argument spoilt."""
    arguments = {
        "student": tabular(),
        "teacher": TOY,
        "rows": [a_row()],
        "data": References(),
        **changes,
    }
    student, teacher, rows = (arguments.pop(n) for n in ("student", "teacher", "rows"))
    return objective(student, teacher, rows, **arguments)


OTHER_TOY = toy_language().__class__(
    nouns={"spoon": TOY.nouns["spoon"]},
    people={"cook": TOY.people["cook"]},
    adjectives=TOY.adjectives,
    verbs=TOY.verbs,
    topics={},
    drop=0.5,
)


def a_term(**changes):
    """A term with one choice spoilt."""
    return Term(1.0, References(), Divergence("forward_kl"), **changes)


def a_method(**changes):
    """A method with one choice spoilt."""
    choices = {"terms": (a_term(),), "formula": "", "paper": ""}
    return Method("mine", **{**choices, **changes})


def closest(similarity):
    """The objective along what a similarity chooses."""
    return call(data=ClosestOfNBest(similarity=similarity), target="one_hot")


def spread(divergence):
    """The divergence of whole sequences."""
    outputs = TOY.outputs(BANK)
    return sequence_divergence(outputs, outputs.probabilities.log(), divergence)


def broken():
    """A student after a step that went wrong."""
    student = tabular()
    with torch.no_grad():
        student.table[3, 3] = math.nan
    return student


@pytest.mark.parametrize(
    "name, run",
    [
        ("student", lambda: call(student=TOY)),
        ("student", lambda: call(student=broken())),
        ("student", lambda: call(student=broken(), data=StudentSamples())),
        ("teacher", lambda: call(teacher=broken())),
        ("teacher", lambda: call(teacher="toy")),
        ("teacher", lambda: call(teacher=None)),
        ("teacher", lambda: call(teacher=OTHER_TOY)),
        ("teacher", lambda: call(teacher=None, data=TeacherBest(), target="one_hot")),
        (
            "teacher",
            lambda: call(teacher=None, data=TeacherSamples(), target="one_hot"),
        ),
        ("rows", lambda: call(rows=[])),
        ("rows", lambda: call(rows=a_row())),
        ("rows", lambda: call(rows=[BANK])),
        ("rows", lambda: call(rows=[Row(BANK)])),
        ("rows", lambda: call(rows=[Row(BANK)], data=ClosestOfNBest())),
        ("sequences", lambda: call(rows=[Row(BANK, reference=(3, 4))])),
        ("z", lambda: call(rows=[Row("she saves the bank")], data=TeacherSamples())),
        ("c", lambda: call(rows=[Row(BANK, "sea")], data=TeacherSamples())),
        ("c", lambda: call(rows=[a_row(c_student="sea")])),
        ("data", lambda: call(data=References)),
        ("data", lambda: call(data="references")),
        ("divergence", lambda: call(divergence="kl")),
        ("divergence", lambda: call(divergence=kl)),
        ("target", lambda: call(target="hard")),
        ("temperature", lambda: call(temperature=0.0)),
        ("temperature", lambda: call(temperature=True)),
        ("per", lambda: call(per="batch")),
        ("samples", lambda: call(data=TeacherSamples(), samples=0)),
        ("samples", lambda: call(data=TeacherSamples(), samples=2.5)),
        ("generator", lambda: call(data=TeacherSamples(), samples=5)),
        ("floor", lambda: call(student=bigram(), data=StudentSamples())),
        ("weight", lambda: Row(BANK, weight=0.0)),
        ("weight", lambda: Row(BANK, weight=math.inf)),
        ("weight", lambda: Row(BANK, weight=math.nan)),
        ("reference", lambda: Row(BANK, reference=[3, 0])),
        ("reference", lambda: Row(BANK, reference="ve la orilla")),
        ("lam", lambda: Mix(1.5, References(), StudentSamples())),
        ("a", lambda: Mix(0.5, "references", StudentSamples())),
        ("b", lambda: Mix(0.5, References(), StudentSamples)),
        ("n", lambda: ClosestOfNBest(0)),
        ("max_length", lambda: StudentSamples(max_length=0)),
        ("floor", lambda: StudentSamples(floor=1.0)),
        ("floor", lambda: TeacherSamples(floor=-0.1)),
        ("floor", lambda: TeacherBest(floor=None)),
        ("divergence", lambda: Divergence("js")),
        ("beta", lambda: Divergence("skew_kl", beta=0.5)),
        ("beta", lambda: Divergence("generalised_js", beta=1.0)),
        ("alpha", lambda: Divergence("generalised_js", alpha=0.5)),
        ("alpha", lambda: Divergence("skew_kl", alpha=1.0)),
        ("weight", lambda: Term(0.0, References(), Divergence("forward_kl"))),
        ("data", lambda: Term(1.0, References, Divergence("forward_kl"))),
        ("divergence", lambda: Term(1.0, References(), "kl")),
        ("divergence", lambda: Term(1.0, References(), Divergence)),
        ("target", lambda: a_term(target="hard")),
        ("target", lambda: a_term(target=["teacher"])),
        ("temperature", lambda: a_term(temperature=0.0)),
        ("temperature", lambda: a_term(temperature=math.nan)),
        ("terms", lambda: a_method(terms=())),
        ("terms", lambda: a_method(terms=None)),
        ("terms", lambda: a_method(terms=a_term())),
        ("terms", lambda: a_method(terms=("forward_kl",))),
        ("teacher", lambda: a_method(teacher="toy")),
        ("per", lambda: a_method(per="batch")),
        ("c_student", lambda: a_method(c_student=3)),
        ("c_student", lambda: a_method(c_student="river")),
        ("rows", lambda: context_distillation().loss(tabular(), TOY, [3])),
        ("student", lambda: freeze(TOY)),
        ("student", lambda: freeze(None)),
        ("student", lambda: freeze(torch.nn.Linear(2, 2))),
        ("stop_gradient", lambda: StudentSamples(stop_gradient="no")),
        ("stop_gradient", lambda: StudentSamples(stop_gradient=None)),
        ("similarity", lambda: ClosestOfNBest(similarity="bleu")),
        ("similarity", lambda: closest(lambda y, reference: None)),
        ("similarity", lambda: closest(lambda y, reference: math.nan)),
        ("similarity", lambda: closest(lambda y, reference: "1")),
        ("y", lambda: sentence_bleu("la orilla", (3, 0))),
        ("y", lambda: sentence_bleu(None, (3, 0))),
        ("y", lambda: sentence_bleu(torch.tensor([3, 0]), (3, 0))),
        ("y", lambda: sentence_bleu([[3], [0]], (3, 0))),
        ("reference", lambda: sentence_bleu((3, 0), (3.0, 0))),
        ("reference", lambda: sentence_bleu((3, 0), 3)),
        ("divergence", lambda: spread("kl")),
        ("divergence", lambda: spread(None)),
        ("divergence", lambda: spread(["forward_kl"])),
        ("divergence", lambda: Divergence(["forward_kl"])),
        ("outputs", lambda: sequence_divergence(TOY, torch.zeros(1))),
        (
            "student_log_probs",
            lambda: sequence_divergence(
                TOY.outputs(BANK), torch.zeros(len(TOY.outputs(BANK)))
            ),
        ),
        ("reverse", lambda: distillm(reverse="no")),
        ("temperature", lambda: hinton(temperature=1e200)),
        ("temperature", lambda: hinton(temperature=0.0)),
        ("alpha", lambda: hinton(alpha=2.0)),
        ("alpha", lambda: word_level(alpha=-0.1)),
        ("epsilon", lambda: label_smoothing(1.5)),
        ("lam", lambda: gkd(lam=-1.0)),
        ("beta", lambda: gkd(beta=0.0)),
        ("n", lambda: interpolation(n=0)),
        ("phi", lambda: distillm(phi=2.0)),
        ("alpha", lambda: distillm(alpha=1.0)),
    ],
)
def test_bad_input_is_named(name, run):
    with pytest.raises(BadArgument) as caught:
        run()
    assert caught.value.name == name
    text = str(caught.value)
    assert "Wanted: " in text and "To do: " in text


class Nothing(References):
    """Data that forget what they are to return."""

    def outputs(self, student, teacher, row, *, samples=None, generator=None):
        return [row.reference]


@pytest.mark.parametrize(
    "name, run",
    [
        ("student", lambda: References().outputs(None, TOY, a_row())),
        ("student", lambda: StudentSamples().outputs(TOY, TOY, a_row())),
        ("student", lambda: ClosestOfNBest().outputs("x", TOY, a_row())),
        ("teacher", lambda: TeacherSamples().outputs(None, "toy", a_row())),
        ("teacher", lambda: TeacherBest().outputs(None, None, a_row())),
        ("row", lambda: References().outputs(tabular(), TOY, BANK)),
        ("row", lambda: TeacherBest().outputs(tabular(), TOY, BANK)),
        ("row", lambda: TeacherSamples().outputs(tabular(), TOY, None)),
        ("row", lambda: StudentSamples().outputs(tabular(), TOY, BANK)),
        (
            "samples",
            lambda: StudentSamples().outputs(tabular(), TOY, a_row(), samples=-1),
        ),
        (
            "generator",
            lambda: TeacherSamples().outputs(tabular(), TOY, a_row(), samples=2),
        ),
        ("data", lambda: call(data=Nothing())),
    ],
)
def test_data_asked_directly_name_what_is_wrong(name, run):
    with pytest.raises(BadArgument) as caught:
        run()
    assert caught.value.name == name


def test_a_list_of_ids_is_as_good_as_a_tuple():
    y, reference = (TOY.encode(x) + (0,) for x in ("ve la orilla", "ve el banco"))
    assert sentence_bleu(list(y), list(reference)) == sentence_bleu(y, reference)


def test_a_drawn_sequence_has_no_gradient():
    data = StudentSamples(stop_gradient=False)
    with pytest.raises(BadArgument, match="stop_gradient is False with samples"):
        call(data=data, samples=5, generator=torch.Generator())


def test_a_best_output_must_fit():
    teacher = freeze(tabular())
    with torch.no_grad():
        teacher.table[:, TOY.eos] = -math.inf
    with pytest.raises(BadArgument, match="within which the teacher finishes nothing"):
        call(teacher=teacher, data=TeacherBest(max_length=1), target="one_hot")


@pytest.mark.parametrize("wrong", ["toy", "other kind", "other size", "itself", None])
def test_an_earlier_self_is_of_the_same_kind(wrong):
    student = tabular()
    teacher = {
        "toy": TOY,
        "other kind": bigram(),
        "other size": scattered(TabularStudent(TOY, [BANK])),
        "itself": student,
        None: None,
    }[wrong]
    with pytest.raises(BadArgument) as caught:
        self_distillation().loss(student, teacher, [a_row()])
    assert caught.value.name == "teacher"
