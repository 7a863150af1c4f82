"""Peakedness and calibration, each held against an enumeration or a known case."""

import itertools

import pytest
import tiny
import torch

from kdcourse.errors import KdcourseError
from kdcourse.translation.behaviour import binned_gap, calibration_error, peakedness
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.training import Example, collate, token_logits
from kdcourse.translation.vocabulary import EOS_ID


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def examples(vocabulary):
    return fixed_examples(*tiny.pairs(), vocabulary)


@pytest.fixture(scope="module")
def model(vocabulary):
    return tiny.trained(vocabulary, 20_000)


def greedy_probability(model, source):
    """Token by token, from the whole prefix each time."""
    said, probability = [], 1.0
    while not said or said[-1] != EOS_ID:
        batch = collate([Example(source, [*said, EOS_ID])], tiny.PAD)
        with torch.no_grad():
            last = token_logits(model, batch, "float32")[-1].softmax(-1)
        said.append(int(last.argmax()))
        probability *= float(last.max())
    return probability


def test_peakedness_is_the_probability_of_the_greedy_output(model, vocabulary):
    sources = ["open door", "turn light battery", "close the window", "error"]
    alone = [greedy_probability(model, vocabulary(s)["input_ids"]) for s in sources]
    found = peakedness(model, vocabulary, sources)
    assert found == pytest.approx(sum(alone) / len(alone), rel=1e-3)
    assert 0.0 < found < 1.0
    for order in itertools.islice(itertools.permutations(sources), 3):
        assert peakedness(model, vocabulary, list(order)) == pytest.approx(found)


def test_a_calibrated_guesser_has_no_error_and_a_boaster_has():
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(20_000, generator=generator)
    right = (torch.rand(20_000, generator=generator) < confidence).float()
    assert binned_gap(confidence, right) < 0.01
    assert binned_gap(torch.full((100,), 0.9), torch.zeros(100)) == pytest.approx(0.9)
    sure = torch.ones(10)
    assert binned_gap(sure, sure) == 0.0  # a confidence of 1 has a bin, too


def test_bins_are_weighted_by_their_tokens():
    confidence = torch.tensor([0.55, 0.55, 0.55, 0.95])
    right = torch.tensor([1.0, 1.0, 0.0, 0.0])
    wanted = (3 * abs(2 / 3 - 0.55) + 0.95) / 4
    assert binned_gap(confidence, right) == pytest.approx(wanted, rel=1e-5)


def test_calibration_sees_real_tokens_alone_and_no_dropout(model, examples):
    first = calibration_error(model.train(), examples[:60])
    shuffled = calibration_error(model, examples[:60][::-1])
    assert first == pytest.approx(shuffled, abs=1e-6)
    ragged = [Example([5, EOS_ID], [7, EOS_ID]), Example([5, 6, EOS_ID], [7] * 30)]
    alone = []
    for example in ragged:
        batch = collate([example], tiny.PAD)
        with torch.no_grad():
            p, guess = token_logits(model, batch, "float32").softmax(-1).max(-1)
        alone.append((p, (guess == batch.real_labels).float()))
    wanted = binned_gap(*(torch.cat(column) for column in zip(*alone, strict=True)))
    assert calibration_error(model, ragged) == pytest.approx(wanted, abs=1e-5)


def test_nothing_to_look_at_is_said(model, vocabulary):
    with pytest.raises(KdcourseError, match="No sentence"):
        calibration_error(model, [])
