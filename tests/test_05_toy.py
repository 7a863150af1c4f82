"""The toy language: exact, grammatical, and the ground that the losses stand on."""

import ast
import math
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from kdcourse.theory import toy
from kdcourse.theory.arguments import BadArgument
from kdcourse.theory.toy import (
    BigramStudent,
    Outputs,
    Sense,
    TabularStudent,
    enumerate_student,
    sequence_cross_entropy,
    sequence_kl,
    sequence_kl_by_tokens,
    target_generated_loss,
    toy_language,
)

TOY = toy_language()
EVERYWHERE = (None, *TOY.contexts)
BANK = tuple("she saves the light bank".split())
BILL = tuple("they save the light bill".split())
LARGEST = tuple("the old friends save the light bills".split())
GROUPS = [  # target forms: masculine, feminine, masculine plural, feminine plural
    ("el", "la", "los", "las"),
    ("un", "una", "-", "-"),
    ("ligero", "ligera", "ligeros", "ligeras"),
    ("claro", "clara", "claros", "claras"),
    ("viejo", "vieja", "viejos", "viejas"),
    ("antiguo", "antigua", "antiguos", "antiguas"),
    ("cocinero", "cocinera", "cocineros", "cocineras"),
    ("amigo", "amiga", "amigos", "amigas"),
    ("banco", "orilla", "bancos", "orillas"),
    ("pico", "cuenta", "picos", "cuentas"),
    ("pico", "factura", "picos", "facturas"),
    ("cargo", "carga", "cargos", "cargas"),
    ("barco", "balanza", "barcos", "balanzas"),
    ("barco", "escala", "barcos", "escalas"),
    ("barco", "escama", "barcos", "escamas"),
    ("barco", "cuchara", "barcos", "cucharas"),
    ("barco", "moneda", "barcos", "monedas"),
]
FORMS = {word: form for group in GROUPS for form, word in enumerate(group)}
ARTICLES = {"el", "la", "los", "las", "un", "una"}
CLITICS = {"lo": 0, "la": 1, "los": 2, "las": 3}
ADJECTIVES = {word for group in GROUPS[2:6] for word in group}
VERBS = {v + n for v in "ve guarda conserva ahorra salva".split() for n in ("", "n")}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def says(z, c=None, language=TOY):
    """The outputs in words, with their probabilities as Python's floats."""
    outputs = language.outputs(z, c)
    pairs = zip(outputs.sequences, outputs.probabilities.tolist(), strict=True)
    return {language.decode(y): p for y, p in pairs}


@cache
def everything():
    """Each source sentence with its outputs, all in words."""
    return {z: [words.split() for words in says(z)] for z in TOY.sources()}


def scattered(student, seed=7):
    """The student with parameters that are anything but special."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise.double())
    return student


def train(student, loss, steps):
    """Adam on loss(), with a step size that ends at 0."""
    optimiser = torch.optim.Adam(student.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()


# ------------------------------------------------------------------------ the language


def test_sizes():
    sources = TOY.sources()
    assert len(sources) == len(set(sources)) == 2145
    assert len(TOY.vocabulary) == len(set(TOY.vocabulary)) == 73
    assert len(TOY.source_vocabulary) == 33
    sizes = {z: len(outputs) for z, outputs in everything().items()}
    assert max(sizes.values()) == sizes[LARGEST] == 72
    assert min(sizes.values()) == 2


def test_ids_follow_the_convention_and_words_come_back():
    assert TOY.vocabulary[TOY.eos] == "<eos>" and TOY.eos == 0
    assert TOY.vocabulary[TOY.pad] == "<pad>" and TOY.pad == len(TOY.vocabulary) - 1
    ids = TOY.encode("ella ve la orilla")
    assert TOY.decode((*ids, TOY.eos, TOY.pad)) == "ella ve la orilla"
    words = [TOY.source_vocabulary[i] for i in TOY.encode_source(BANK)]
    assert tuple(words) == BANK
    y = (*ids, TOY.eos)
    expected = [list(y), [TOY.eos] + [TOY.pad] * 4]
    assert TOY.padded([y, (TOY.eos,)]).tolist() == expected


def test_everything_is_the_same_in_two_languages_made_alike():
    other = toy_language()
    assert other.vocabulary == TOY.vocabulary and other.sources() == TOY.sources()
    for c in EVERYWHERE:
        assert other.outputs(BILL, c).sequences == TOY.outputs(BILL, c).sequences


def test_probabilities_sum_to_one_and_fall():
    for z, c in product(TOY.sources()[::7], EVERYWHERE):
        outputs = TOY.outputs(z, c)
        assert outputs.probabilities.dtype == torch.float64
        assert abs(outputs.missing) < 1e-12
        p = outputs.probabilities.tolist()
        assert min(p) > 0
        pairs = list(zip((-q for q in p), outputs.sequences, strict=True))
        assert pairs == sorted(pairs)  # ties are in the order of their ids
        assert len(set(outputs.sequences)) == len(outputs)


def test_ties_are_broken_by_ids():
    (first, p), (second, q) = list(says("the friend sees the coin".split()).items())
    assert p == q == 0.5
    assert (first, second) == ("el amigo ve la moneda", "la amiga ve la moneda")


@pytest.mark.parametrize(
    "z, c, expected",
    [
        (
            "she sees the banks",
            "river",
            {"ven": 0, "ve los bancos": 0.6 * 0.03, "ella ve las orillas": 0.4 * 0.97},
        ),
        (
            "they keep it",
            "finance",
            {
                "lo guardan": 0.6 * 0.7 * 0.6,
                "ellas la conservan": 0.4 * 0.3 * 0.3 * 0.4,
                "él lo guarda": 0,
            },
        ),
        (
            "the old cook saves a bill",
            "kitchen",
            {"la cocinera antigua ahorra un pico": 0.4 * 0.3 * 0.02 * 0.01},
        ),
        (  # Pr(c|z) = 2:4:1, as "bill" has it
            "he sees a bill",
            None,
            {"ve una cuenta": 0.6 * (2 * 0.96 + 4 * 0.03 + 1 * 0.02) / 7},
        ),
    ],
)
def test_probabilities_worked_out_by_hand(z, c, expected):
    said = says(z.split(), c)
    for words, p in expected.items():
        assert said.get(words, 0) == pytest.approx(p, abs=1e-15)


def test_without_a_context_the_teacher_is_the_mixture_over_contexts():
    for z in TOY.sources()[::13]:
        shares = TOY.context_distribution(z).tolist()
        assert sum(shares) == pytest.approx(1, abs=1e-15)
        mixed = Counter()
        for share, c in zip(shares, TOY.contexts, strict=True):
            for words, p in says(z, c).items():
                mixed[words] += share * p
        said = says(z)
        assert said.keys() == mixed.keys()
        assert all(abs(said[words] - mixed[words]) < 1e-15 for words in said)


def test_a_telling_word_in_the_source_betrays_the_context():
    shares = {
        word: dict(zip(TOY.contexts, TOY.context_distribution(z).tolist(), strict=True))
        for word in ("coin", "boat", "spoon", "it")
        for z in [f"she sees {'' if word == 'it' else 'the '}{word}".split()]
    }
    assert shares["coin"]["finance"] == shares["boat"]["river"] == 0.8
    assert shares["spoon"]["kitchen"] == 0.8
    assert set(shares["it"].values()) == {1 / 3}
    cook = TOY.context_distribution("the cook sees the boat".split())
    assert cook.tolist() == pytest.approx([4 / 13, 1 / 13, 8 / 13])


@pytest.mark.parametrize(
    "z, certain",
    [
        ("he sees the bank", {"finance": "banco", "river": "orilla"}),
        (
            "he sees the bill",
            {"kitchen": "cuenta", "finance": "factura", "river": "pico"},
        ),
        ("he sees the charge", {"finance": "cargo", "river": "carga"}),
        (
            "he sees the scale",
            {"kitchen": "balanza", "finance": "escala", "river": "escama"},
        ),
        (
            "he saves the coin",
            {"kitchen": "guarda", "finance": "ahorra", "river": "salva"},
        ),
        ("he sees the light boat", {"kitchen": "ligero", "river": "claro"}),
    ],
)
def test_the_right_context_makes_an_ambiguous_word_nearly_certain(z, certain):
    def share(word, c):
        said = says(z.split(), c)
        return sum(p for words, p in said.items() if word in words.split())

    for c, word in certain.items():
        assert share(word, c) >= 0.9
        assert share(word, None) < 0.9
    assert sum(share(word, None) for word in certain.values()) > 0.9


def test_a_context_says_nothing_new_about_a_sentence_without_ambiguous_words():
    z = "they keep the old spoon".split()
    for c in TOY.contexts:
        assert says(z, c) == pytest.approx(says(z), abs=1e-15)
    assert TOY.outputs(BANK).entropy > TOY.outputs(BANK, "river").entropy + 0.5


def test_gender_and_number_agree_in_every_output_of_every_source():
    """Read with our own table of forms, which knows nothing of the grammar's."""
    for z, outputs in everything().items():
        plural = z[0] == "they" or (z[0] == "the" and z[1 + (z[1] == "old")][-1] == "s")
        for words in outputs:
            (verb,) = (i for i, word in enumerate(words) if word in VERBS)
            assert words[verb].endswith("n") == plural, (z, words)
            before, after = words[:verb], words[verb + 1 :]
            if not after:
                before, after = before[:-1], ["la", "cuenta"]
            for part in (before, after):
                if len(part) > 1:
                    assert part[0] in ARTICLES
                    assert len({FORMS[word] for word in part}) == 1, (z, words)
            assert len(before) < 2 or FORMS[before[0]] // 2 == plural


def test_the_adjective_comes_after_the_noun_and_the_pronoun_before_the_verb():
    seen = Counter()
    for z, outputs in everything().items():
        adjectives = sum(word in ("old", "light") for word in z)
        for words in outputs:
            places = [i for i, word in enumerate(words) if word in ADJECTIVES]
            assert len(places) == adjectives
            assert all(words[i - 2] in ARTICLES for i in places)  # article, noun, it
            if z[-1] in ("it", "them"):
                seen[z[-1]] += 1
                assert words[-1] in VERBS and words[-2] in CLITICS
                assert CLITICS[words[-2]] // 2 == (z[-1] == "them")
            else:
                assert words[-1] not in VERBS
    assert seen["it"] == seen["them"] > 0


def test_a_subject_pronoun_may_be_left_out_a_noun_may_not():
    for pronoun, forms in (("she", ["ella"]), ("they", ["ellos", "ellas"])):
        said = says([pronoun, "see" if pronoun == "they" else "sees", "them"])
        begin = Counter()
        for words, p in said.items():
            begin[words.split()[0]] += p
        assert sum(begin[form] for form in forms) == pytest.approx(0.4)
    for words in says("the cooks see the coin".split()):
        assert words.split()[0] in ("los", "las")


def test_a_variant_of_the_language():
    spoken = replace(TOY, drop=0.0)
    assert set(says("she sees the coin".split(), language=spoken)) == {
        "ella ve la moneda"
    }
    silent = replace(TOY, drop=1.0)
    assert set(says("she sees the coin".split(), language=silent)) == {"ve la moneda"}
    plain = replace(TOY, adjectives={})
    assert len(plain.sources()) == (3 + 4) * 3 * (21 + 2)


# ----------------------------------------------------------- next tokens and samples


@pytest.mark.parametrize("c", EVERYWHERE)
def test_the_factors_of_an_output_give_its_probability(c):
    outputs = TOY.outputs(LARGEST, c)
    log_p = TOY.teacher_logits(outputs.sequences, LARGEST, c)
    ids = TOY.padded(outputs.sequences)
    assert log_p.shape == (*ids.shape, len(TOY.vocabulary))
    ones = torch.ones(ids.shape, dtype=torch.float64)
    torch.testing.assert_close(log_p.exp().sum(-1), ones, rtol=0, atol=1e-12)
    whole = log_p.gather(-1, ids[..., None]).squeeze(-1).sum(dim=-1)
    expected = outputs.probabilities.log()
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-12)


def test_next_tokens_by_counting_the_outputs_that_go_on_with_them():
    said = says(BILL, "kitchen")
    prefix = "guardan la"
    begun = {w: p for w, p in said.items() if f"{w} ".startswith(f"{prefix} ")}
    row = TOY.next_token_distribution(TOY.encode(prefix), BILL, "kitchen")
    for word in ("cuenta", "factura", "pico"):
        mass = sum(p for words, p in begun.items() if words.split()[2] == word)
        (number,) = TOY.encode(word)
        assert row[number].item() == pytest.approx(mass / sum(begun.values()))
    assert row.sum().item() == pytest.approx(1, abs=1e-12)
    assert (row > 0).sum() == 2  # "pico" is "el": the article has decided already


def test_after_the_end_there_is_only_the_pad():
    y = TOY.best(BILL)
    logits = TOY.teacher_logits([y, TOY.encode("ellos guardan") + (0,)], BILL)
    assert logits[1, 2, TOY.eos] == -math.inf  # said too early
    ended = logits[1, 3:].exp()
    assert (ended[:, TOY.pad] == 1).all() and (ended.sum(dim=-1) == 1).all()
    row = TOY.next_token_distribution(y, BILL)
    assert row[TOY.pad] == 1 and row.sum() == 1


@pytest.mark.parametrize("c", [None, "finance"])
def test_samples_are_as_frequent_as_they_are_probable(c, generator):
    outputs, count = TOY.outputs(BANK, c), 2000
    drawn = Counter(TOY.sample(BANK, c, count=count, generator=generator))
    assert set(drawn) <= set(outputs.sequences)
    frequent = rare = rare_drawn = degrees = chi_square = 0
    pairs = zip(outputs.sequences, outputs.probabilities.tolist(), strict=True)
    for y, p in pairs:
        if p * count < 5:
            rare, rare_drawn = rare + p * count, rare_drawn + drawn[y]
            continue
        frequent, degrees = frequent + 1, degrees + 1
        chi_square += (drawn[y] - p * count) ** 2 / (p * count)
    chi_square += (rare_drawn - rare) ** 2 / rare
    assert frequent >= 5
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_samples_repeat_with_the_seed():
    def draw(seed):
        seeded = torch.Generator().manual_seed(seed)
        return TOY.sample(BILL, count=20, generator=seeded)

    assert draw(1) == draw(1) != draw(2)


def test_the_best_output_is_the_most_probable():
    for z, c in product(TOY.sources()[::29], EVERYWHERE):
        said = says(z, c)
        assert said[TOY.decode(TOY.best(z, c))] == max(said.values())
    assert TOY.decode(TOY.best(BANK, "river")) == "salva la orilla clara"
    assert TOY.decode(TOY.best(BANK, "finance")) == "ahorra el banco ligero"


# --------------------------------------------------------------------------- the losses


def students():
    tabular = TabularStudent(TOY, [BANK, BILL])
    return [scattered(tabular), scattered(BigramStudent(TOY))]


@pytest.mark.parametrize("student", students(), ids=["tabular", "bigram"])
@pytest.mark.parametrize("c", [None, "river"])
def test_losses_against_sums_in_plain_python(student, c):
    outputs = TOY.outputs(BILL, c)
    cross_entropy = kl = 0.0
    pairs = zip(outputs.sequences, outputs.probabilities.tolist(), strict=True)
    for y, p in pairs:
        rows = student.logits([y], BILL, c)[0].tolist()
        log_q = 0.0
        for row, token in zip(rows, y, strict=True):
            log_q += row[token] - math.log(sum(math.exp(value) for value in row))
        cross_entropy -= p * log_q
        kl += p * math.log(p / math.exp(log_q))
        if y == TOY.best(BILL, c):
            best = -log_q
    log_probs = student.log_prob(outputs.sequences, BILL, c)
    ours = sequence_cross_entropy(outputs, log_probs).item()
    assert ours == pytest.approx(cross_entropy, rel=1e-12)
    assert sequence_kl(outputs, log_probs).item() == pytest.approx(kl, rel=1e-10)
    assert ours - outputs.entropy == pytest.approx(kl, rel=1e-10)
    ours = target_generated_loss(outputs, log_probs).item()
    assert ours == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("student", students(), ids=["tabular", "bigram"])
@pytest.mark.parametrize("c", EVERYWHERE)
def test_chain_rule(student, c):
    outputs = TOY.outputs(BILL, c)
    whole = sequence_kl(outputs, student.log_prob(outputs.sequences, BILL, c))
    by_tokens = sequence_kl_by_tokens(TOY, student, BILL, c)
    assert by_tokens.item() == pytest.approx(whole.item(), abs=1e-10)
    ours, theirs = (
        torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
        for loss in (by_tokens, whole)
    )
    for one, other in zip(ours, theirs, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_chain_rule_prefix_by_prefix():
    """Σ over prefixes, weighted with the mass of the outputs that begin with them."""
    student = scattered(BigramStudent(TOY))
    outputs = TOY.outputs(BANK)
    mass = Counter()
    pairs = zip(outputs.sequences, outputs.probabilities.tolist(), strict=True)
    for y, p in pairs:
        for t in range(len(y)):
            mass[y[:t]] += p
    total = 0.0
    for prefix, weight in mass.items():
        p = TOY.next_token_distribution(prefix, BANK).tolist()
        q = student.logits([prefix + (TOY.eos,)], BANK)[0, -1].softmax(dim=-1).tolist()
        pairs = zip(p, q, strict=True)
        total += weight * sum(a * math.log(a / b) for a, b in pairs if a > 0)
    ours = sequence_kl_by_tokens(TOY, student, BANK).item()
    assert ours == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("student", students(), ids=["tabular", "bigram"])
def test_gradient_against_finite_differences(student):
    outputs = TOY.outputs(BANK, "river")

    def loss():
        log_probs = student.log_prob(outputs.sequences, BANK, "river")
        return sequence_cross_entropy(outputs, log_probs)

    parameters = list(student.parameters())
    grads = torch.autograd.grad(loss(), parameters)
    tried = 0
    for parameter, grad in zip(parameters, grads, strict=True):
        for flat in grad.abs().flatten().topk(4).indices.tolist():
            index, values = divmod(flat, grad.shape[1]), []
            for step in (1e-5, -2e-5):
                with torch.no_grad():
                    parameter[index] += step
                    values.append(loss().item())
            with torch.no_grad():
                parameter[index] += 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert slope == pytest.approx(grad[index].item(), rel=1e-6)
            assert slope != 0
            tried += 1
    assert tried >= 4


def test_gradient_of_a_tabular_student_is_its_error_where_the_teacher_comes_by():
    """∂/∂logit(v | prefix) = Pr^t(prefix) · (Pr^s(v|prefix) - Pr^t(v|prefix))."""
    student = scattered(TabularStudent(TOY, [BILL, BANK]))
    outputs = TOY.outputs(BILL, "river")
    loss = sequence_cross_entropy(
        outputs, student.log_prob(outputs.sequences, BILL, "river")
    )
    (grad,) = torch.autograd.grad(loss, student.table)
    expected = torch.zeros_like(grad)
    pairs = list(zip(outputs.sequences, outputs.probabilities.tolist(), strict=True))
    for (z, c, prefix), row in student.rows.items():
        if (z, c) == (BILL, "river"):
            weight = sum(p for y, p in pairs if y[: len(prefix)] == prefix)
            p = TOY.next_token_distribution(prefix, BILL, "river")[:-1]
            expected[row] = weight * (student.table[row].softmax(dim=0) - p)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)
    assert (expected != 0).any(dim=1).sum() > 50


# ------------------------------------------------------------------------- the students


def test_the_sum_over_all_outputs_teaches_the_teacher():
    student = TabularStudent(TOY, [BANK], reads_context=False)
    outputs = TOY.outputs(BANK)

    def kl():
        return sequence_kl(outputs, student.log_prob(outputs.sequences, BANK))

    assert kl().item() > 10
    train(student, kl, steps=200)
    assert kl().item() < 1e-3


def test_the_one_best_output_teaches_itself_and_loses_the_others():
    student = TabularStudent(TOY, [BANK], reads_context=False)
    outputs = TOY.outputs(BANK)

    def best():
        return target_generated_loss(
            outputs, student.log_prob([*outputs.sequences], BANK)
        )

    train(student, best, steps=100)
    log_probs = student.log_prob(outputs.sequences, BANK).detach()
    share = outputs.probabilities[0].item()
    assert log_probs[0].exp() > 0.99 > 0.3 > share
    assert log_probs[1:].exp().sum() < 0.01
    assert sequence_kl(outputs, log_probs) > 5  # nats: it cannot say what is often said
    # To learn ŷ is to lie about the rest: the KL is at least that of the event "ŷ or
    # not", which is more than -(1 - share) log(1 - q(ŷ)) less an entropy of log 2.
    bound = -(1 - share) * math.log(1 - log_probs[0].exp().item()) - math.log(2)
    assert sequence_kl(outputs, log_probs).item() >= bound


def test_a_bigram_student_cannot_be_the_teacher():
    """Its minimum is known: the chain of the teacher's own bigram frequencies."""
    outputs = TOY.outputs(BILL)
    pairs = list(zip(outputs.sequences, outputs.probabilities.tolist(), strict=True))
    bigrams, before = Counter(), Counter()
    for y, p in pairs:
        for previous, token in zip((TOY.pad, *y), y, strict=False):
            bigrams[previous, token] += p
            before[previous] += p
    floor = 0.0
    for y, p in pairs:
        chain = zip((TOY.pad, *y), y, strict=False)
        floor += p * math.log(
            p / math.prod(bigrams[u, v] / before[u] for u, v in chain)
        )
    assert floor > 0.3

    student = BigramStudent(TOY)

    def kl():
        return sequence_kl(outputs, student.log_prob(outputs.sequences, BILL))

    train(student, kl, steps=200)
    assert floor - 1e-9 < kl().item() < floor + 0.01


@pytest.mark.parametrize("kind", [TabularStudent, BigramStudent])
def test_a_student_may_be_blind_to_the_context(kind):
    parts = ([BANK],) if kind is TabularStudent else ()
    blind = scattered(kind(TOY, *parts, reads_context=False))
    seeing = scattered(kind(TOY, *parts))
    sequences = TOY.outputs(BANK).sequences

    def answers(student):
        return {
            tuple(student.log_prob(sequences, BANK, c).tolist()) for c in EVERYWHERE
        }

    assert len(answers(blind)) == 1
    assert len(answers(seeing)) == len(EVERYWHERE)
    count = sum(parameter.numel() for parameter in blind.parameters())
    assert count < sum(parameter.numel() for parameter in seeing.parameters())
    with pytest.raises(BadArgument, match="c is 'rivers'"):
        blind.log_prob(sequences, BANK, "rivers")


@pytest.mark.parametrize("student", students(), ids=["tabular", "bigram"])
def test_students_logits_are_like_the_teachers(student):
    sequences = [TOY.best(BILL), TOY.encode("guardan") + (TOY.eos,)]
    logits = student.logits(sequences, BILL)
    teacher = TOY.teacher_logits(sequences, BILL)
    assert logits.shape == teacher.shape and logits.dtype == teacher.dtype
    torch.testing.assert_close(logits[1, 2:], teacher[1, 2:])  # after the end
    assert (logits[0, :, TOY.pad] == -math.inf).all()
    assert logits[0, :, :-1].isfinite().all()
    longer = student.log_prob(sequences, BILL)
    alone = torch.cat([student.log_prob([y], BILL) for y in sequences])
    torch.testing.assert_close(longer, alone)


def test_a_bigram_student_sees_one_token_back_and_the_words_of_the_source():
    student = scattered(BigramStudent(TOY))
    ends = [TOY.encode(t) + (TOY.eos,) for t in ("ella ve la", "él ve la")]
    one, other = student.logits(ends, BANK)[:, -1]
    assert torch.equal(one, other)
    swapped = (
        tuple("the old cook sees the bank".split()),
        tuple("the cook sees the old bank".split()),
    )
    one, other = (student.logits(ends, z)[0] for z in swapped)
    torch.testing.assert_close(one, other)
    by_hand = student.bigrams[TOY.pad] + student.topics[1]
    for word in BANK:
        by_hand = by_hand + student.words[TOY.source_vocabulary.index(word)]
    torch.testing.assert_close(
        student.logits(ends, BANK, "finance")[0, 0, :-1], by_hand
    )


def test_off_its_table_a_tabular_student_ends_the_sentence():
    student = scattered(TabularStudent(TOY, [BANK]))
    (y,) = [TOY.encode("ella ella") + (TOY.eos,)]
    odd = TOY.encode("ella ella ve") + (TOY.eos,)
    first, second = student.log_prob([y, odd], BANK).tolist()
    assert math.isfinite(first) and second == -math.inf


def test_all_that_a_student_says_is_listed_or_counted_as_missing():
    student = scattered(TabularStudent(TOY, [BANK]))
    said = enumerate_student(student, BANK, floor=1e-9)
    assert abs(said.missing) < 1e-5
    log_probs = student.log_prob(said.sequences, BANK)
    torch.testing.assert_close(log_probs.exp(), said.probabilities)
    assert said.probabilities.tolist() == sorted(said.probabilities.tolist())[::-1]
    few = enumerate_student(student, BANK, floor=1e-3)
    assert set(few.sequences) == {
        y
        for y, p in zip(said.sequences, said.probabilities.tolist(), strict=True)
        if p > 1e-3
    }
    assert few.missing == pytest.approx(1 - sum(few.probabilities.tolist()))
    short = enumerate_student(student, BANK, max_length=2)
    assert max(len(y) for y in short.sequences) == 2
    assert short.missing > enumerate_student(student, BANK).missing


def test_what_a_student_says_beside_the_teacher_costs_it():
    """A student with a mass m outside the teacher's outputs has a KL of -log(1 - m)."""
    student = TabularStudent(TOY, [BANK])
    outputs = TOY.outputs(BANK)
    with torch.no_grad():
        for (_, c, prefix), row in student.rows.items():
            p = TOY.next_token_distribution(prefix, BANK, c)[:-1]
            student.table[row] = (p + 1e-300).log()
        student.table[student.rows[BANK, None, ()]] = (
            0.75 * TOY.next_token_distribution((), BANK)[:-1]
            + 0.25 * torch.nn.functional.one_hot(torch.tensor(TOY.eos), TOY.pad)
        ).log()
    kl = sequence_kl(outputs, student.log_prob(outputs.sequences, BANK)).item()
    assert kl == pytest.approx(-math.log(0.75), abs=1e-10)
    said = enumerate_student(student, BANK, floor=1e-12)
    assert said.sequences[0] == (TOY.eos,) and said.probabilities[0] == 0.25
    assert len(said) == len(outputs) + 1 and abs(said.missing) < 1e-9


# ------------------------------------------------------------------------------- errors


def logs(outputs, value=-1.0):
    return torch.full((len(outputs),), value, dtype=torch.float64)


def some():
    return TOY.outputs(BANK)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: TOY.outputs(()), "z is empty. Wanted: a sentence"),
        (lambda: TOY.outputs("she sees it"), "z is 'she sees it'. Wanted: a list"),
        (lambda: TOY.outputs([["she"]]), "Wanted: a list of source words"),
        (lambda: TOY.best("she eats it".split()), "the unknown word 'eats'"),
        (lambda: TOY.best("it sees she".split()), "an order that the grammar"),
        (lambda: TOY.best("the light cook sees it".split()), "an order that the"),
        (lambda: TOY.encode_source(["she"]), "To do: Take z from toy.sources()"),
        (lambda: TOY.outputs(BANK, "sea"), "c is 'sea'. Wanted: None or one of kit"),
        (lambda: TOY.encode("la playa"), "text is 'la playa' with the unknown"),
        (lambda: TOY.decode((1, 73)), "ids is (1, 73). Wanted: a tuple of target ids"),
        (
            lambda: TOY.next_token_distribution(TOY.encode("ella el"), BANK),
            "prefix is 'ella el', which the teacher cannot say. Wanted: a beginning "
            "of one of the teacher's outputs. To do: After 'ella' take one of: "
            "guarda, ahorra, salva.",
        ),
        (
            lambda: TOY.next_token_distribution((TOY.eos,), BANK),
            "prefix is '<eos>', which",
        ),
        (lambda: TOY.next_token_distribution("ella", BANK), "prefix is 'ella'. Want"),
        (
            lambda: TOY.teacher_logits([TOY.encode("la ve") + (0,)], BANK),
            "sequences is 'la ve', which the teacher cannot say",
        ),
        (
            lambda: TOY.teacher_logits([TOY.encode("ella")], BANK),
            "sequences is (7,) among others. Wanted: <eos>, id 0, at the end of each",
        ),
        (lambda: BigramStudent(TOY).log_prob([(0, 7, 0)], BANK), "<eos>, id 0, at"),
        (lambda: BigramStudent(TOY).log_prob([(72, 0)], BANK), "<eos>, id 0, at"),
        (lambda: BigramStudent(TOY).log_prob([()], BANK), "sequences is () among"),
        (lambda: BigramStudent(TOY).log_prob((7, 0), BANK), "To do: Pass outputs.seq"),
        (lambda: BigramStudent(TOY).log_prob([], BANK), "sequences is empty"),
        (lambda: TOY.padded(torch.zeros(2)), "sequences is a Tensor. Wanted: a list"),
        (lambda: BigramStudent(TOY).log_prob([(7, 0)], ()), "z is empty"),
        (lambda: TOY.sample(BANK, count=0, generator=seeded()), "count is 0. Wanted"),
        (lambda: TOY.sample(BANK, count=True, generator=seeded()), "count is True"),
        (lambda: TOY.sample(BANK, count=1, generator=None), "generator is None"),
        (
            lambda: sequence_kl(some(), logs(some())[:-1]),
            "student_log_probs is of shape (23,)",
        ),
        (lambda: sequence_cross_entropy(some(), [0.0]), "student_log_probs is a list"),
        (lambda: target_generated_loss(some(), logs(some(), 0.5)), "is up to 0.5"),
        (lambda: sequence_kl(some(), logs(some(), math.nan)), "is up to nan"),
        (
            lambda: TabularStudent(TOY, [BANK]).log_prob([(7, 0)], BILL),
            "of which this student has no table. Wanted: one of its sources",
        ),
        (lambda: TabularStudent(TOY, ["she"]), "z is 'she'. Wanted: a list"),
        (lambda: enumerate_student(BigramStudent(TOY), BANK, floor=0.0), "floor is 0"),
        (
            lambda: enumerate_student(BigramStudent(TOY), BANK, max_length=0),
            "max_length is 0",
        ),
        (lambda: replace(TOY, drop=1.2), "drop is 1.2"),
        (
            lambda: replace(TOY, nouns={"sea": (Sense("mar", "m", (1.0, 1.0, 0.9)),)}),
            "nouns['sea'] is given with weights [(1.0, 1.0, 0.9)]",
        ),
        (lambda: replace(TOY, verbs={"go": (Sense("va", "", (1.0,)),)}), "verbs['go']"),
        (lambda: replace(TOY, topics={"bank": (1, 0, 1)}), "topics['bank'] is (1, 0"),
        (lambda: replace(TOY, topics={"bank": (1, math.nan, 1)}), "topics['bank'] is"),
        (lambda: replace(TOY, topics={"bank": (1, math.inf, 1)}), "topics['bank'] is"),
        (lambda: replace(TOY, topics={"bank": "abc"}), "topics['bank'] is 'abc'"),
        (lambda: replace(TOY, topics={"bank": 3}), "topics['bank'] is 3"),
        (lambda: replace(TOY, topics=None), "topics is a NoneType. Wanted: a dict"),
        (lambda: replace(TOY, nouns=None), "nouns is a NoneType. Wanted: a dictionary"),
        (lambda: replace(TOY, people=[1]), "people is a list. Wanted: a dictionary"),
        (lambda: replace(TOY, verbs={"go": ()}), "verbs['go'] is (). Wanted: a tuple"),
        (lambda: replace(TOY, verbs={"go": "va"}), "verbs['go'] is 'va'"),
        (
            lambda: replace(TOY, adjectives={"big": (Sense("alto", "", "abc"),)}),
            "adjectives['big'] is given with weights ['abc']",
        ),
        (
            lambda: replace(TOY, nouns={"sea": (Sense("mar", "n", (1.0,) * 3),)}),
            "nouns['sea'] is of the genders ['n']. Wanted: 'm' or 'f'",
        ),
        (lambda: TOY.encode(["la"]), "text is a list. Wanted: words of the target"),
        (lambda: TOY.decode((True,)), "ids is (True,)"),
        (lambda: TOY.padded([(True, False)]), "sequences is (True, False)"),
        (lambda: TOY.outputs(BANK, ["river"]), "c is ['river']"),
        (lambda: TOY.outputs(BANK, np.zeros(3)), "c is array("),
        (lambda: TabularStudent(TOY, []), "sources is empty. Wanted: a list of source"),
        (lambda: TabularStudent(TOY, None), "sources is None"),
        (lambda: TabularStudent(TOY, "she sees it"), "sources is 'she sees it'"),
        (lambda: TabularStudent(None, [BANK]), "toy is a NoneType. Wanted: a Toy"),
        (
            lambda: TabularStudent(toy.Toy, [BANK]),
            "toy is the class Toy. Wanted: a Toy",
        ),
        (lambda: BigramStudent(BigramStudent(TOY)), "toy is a BigramStudent"),
        (lambda: BigramStudent(TOY, reads_context="no"), "reads_context is 'no'. Wa"),
        (lambda: enumerate_student(TOY, BANK), "student is a Toy. Wanted: a Student"),
        (
            lambda: enumerate_student(BigramStudent(TOY), BANK, max_length=True),
            "max_length is True",
        ),
        (
            lambda: sequence_kl_by_tokens(None, BigramStudent(TOY), BANK),
            "toy is a None",
        ),
        (lambda: sequence_kl_by_tokens(TOY, TOY, BANK), "student is a Toy. Wanted"),
        (lambda: sequence_kl(None, logs(some())), "outputs is a NoneType. Wanted: an "),
        (lambda: sequence_kl(some(), logs(some()).long()), "of torch.int64 on cpu"),
        (lambda: sequence_kl(some(), logs(some()) * 1j), "of torch.complex128 on cpu"),
        (lambda: sequence_kl(some(), logs(some()).to("meta")), "torch.float64 on meta"),
        (lambda: sequence_kl(some(), logs(some(), 0.0)), "is of the mass 24. Wanted"),
        (lambda: Outputs(None, torch.ones(1)), "sequences is a NoneType"),
        (lambda: Outputs(((1, 0),), [1.0]), "probabilities is of list"),
        (lambda: Outputs(((1, 0),), torch.ones(1).long()), "of torch.int64. Wanted"),
        (lambda: Outputs(((1, 0),), torch.ones(1).to("meta")), "float32 on meta"),
        (lambda: Outputs(((1, 0),), torch.ones(2) / 2), "probabilities is of shape (2"),
        (lambda: Outputs(((1, 0),), torch.ones(1, 1)), "is of shape (1, 1)"),
        (lambda: Outputs(((1, 0),), torch.ones(1) * 1.5), "is of the sum 1.5, with"),
        (lambda: Outputs(((1, 0),), -torch.ones(1)), "is of the sum -1, with -1"),
        (lambda: Outputs(((1, 0),), torch.ones(1) * math.nan), "is of the sum nan"),
    ],
)
def test_errors_are_sentences(call, sentence):
    with pytest.raises(BadArgument) as caught:
        call()
    said = str(caught.value)
    assert sentence in said
    assert " is " in said and " Wanted: " in said and " To do: " in said


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "use",
    [
        lambda student: student.log_prob(TOY.outputs(BANK).sequences, BANK),
        lambda student: sequence_kl_by_tokens(TOY, student, BANK),
        lambda student: enumerate_student(student, BANK),
    ],
)
def test_a_student_that_went_wrong_is_named(use, wrong):
    """-inf at one token is a token that is never said; at all of them it is no row."""
    student = TabularStudent(TOY, [BANK])
    with torch.no_grad():
        student.table[0, 1:] = -math.inf
    use(student)  # it ends the sentence at once
    with torch.no_grad():
        student.table[0, 0] = wrong
    with pytest.raises(BadArgument, match="student is a model with the best score"):
        use(student)


class Shapeless(toy.Student):
    """A student whose scores include ``<pad>``, or are no tensor."""

    def scores(self, ids, z, c):
        size = len(self.toy.vocabulary)
        return torch.zeros(*ids.shape, size) if self.reads_context else [0.0]


@pytest.mark.parametrize("reads_context", [True, False])
def test_scores_of_another_shape_are_named(reads_context):
    student = Shapeless(TOY, reads_context)
    with pytest.raises(BadArgument, match=r"scores is .* Wanted: a tensor \(N, L, V -"):
        student.log_prob([(7, 0)], BANK)


def test_what_is_never_said_costs_nothing():
    """0 log 0 = 0: outputs may list what has no probability."""
    listed = Outputs(((1, 0), (2, 0)), torch.tensor([1.0, 0.0], dtype=torch.float64))
    student = torch.tensor([-0.1, -math.inf], dtype=torch.float64, requires_grad=True)
    for loss in (sequence_cross_entropy, sequence_kl):
        value = loss(listed, student)
        (gradient,) = torch.autograd.grad(value, student)
        assert value.item() == pytest.approx(0.1) and gradient.tolist() == [-1, 0]


def test_no_outputs_are_an_error():
    nothing = Outputs((), torch.zeros(0, dtype=torch.float64))
    for loss in (sequence_cross_entropy, sequence_kl, target_generated_loss):
        with pytest.raises(BadArgument, match="outputs is empty"):
            loss(nothing, torch.zeros(0))


def test_outputs_are_values():
    outputs = Outputs(((1, 0), (2, 0)), torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert len(outputs) == 2 and outputs.missing == 0.25
    expected = -0.5 * math.log(0.5) - 0.25 * math.log(0.25)
    assert outputs.entropy == pytest.approx(expected, rel=1e-12)
    mine = TOY.outputs(BANK)
    mine.probabilities.zero_()  # nothing is shared with the language
    assert abs(TOY.outputs(BANK).missing) < 1e-12


def test_the_module_imports_torch_and_its_own_room_alone():
    outside = set()
    files = Path(toy.__file__).parent.glob("*.py")
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 3  # the toy's own files and the theory's
            outside |= set() if node.level else {node.module.partition(".")[0]}
    assert outside - set(sys.stdlib_module_names) == {"torch"}
