"""Lesson 02: its figures, and that its exercises count what real models really have."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdcourse.errors import KdcourseError
from kdcourse.study.checks import ex02
from kdcourse.study.figures import models
from kdcourse.theory.distributions import sequence_log_probability
from kdcourse.theory.toy import toy_language
from kdcourse.translation.decoding import model_folder
from kdcourse.translation.models import count_parameters, load_model

PANELS = {
    "river": {"banco": 0.03, "orilla": 0.97},
    "none": {"orilla": 0.4, "banco": 0.6},
}
PARTS = {
    "teacher": {"encoder": 50, "decoder": 47, "vocabulary": 3},
    "student": {"encoder": 5, "decoder": 1, "vocabulary": 4},
}


def written(axes):
    return [text.get_text() for text in axes.texts]


def test_a_panel_has_its_outputs_in_the_first_ones_order():
    fig = models.context_panels(PANELS, mixture="none")
    fig.draw_without_rendering()
    river, none = fig.axes
    assert [river.get_title(), none.get_title()] == ["river", "none"]
    names = [label.get_text() for label in river.get_yticklabels()]
    assert names == ["banco", "orilla"]
    assert [bar.get_width() for bar in none.patches] == [0.6, 0.4]
    assert written(river) == ["0.03", "0.97"]


def test_the_mixture_is_told_without_colour():
    river, none = models.context_panels(PANELS, mixture="none").axes
    assert {bar.get_hatch() for bar in none.patches} == {"///"}
    assert not any(bar.get_hatch() for bar in river.patches)


def test_the_parts_of_a_bar_make_a_hundred():
    (axes,) = models.shares(PARTS, xlabel="per cent").axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([50, 47, 3, 50, 10, 40])
    lefts = [bar.get_x() for bar in axes.patches]
    assert lefts == pytest.approx([0, 50, 97, 0, 50, 60])
    assert axes.get_xlabel() == "per cent"


def test_a_part_too_narrow_for_its_number_has_none():
    (axes,) = models.shares(PARTS, xlabel="per cent").axes
    assert written(axes) == ["50 %", "47 %", "50 %", "10 %", "40 %"]


def test_the_legend_tells_parts_by_their_hatches():
    (legend,) = models.shares(PARTS, xlabel="per cent").legends
    assert [text.get_text() for text in legend.texts] == list(PARTS["teacher"])
    hatches = [handle.get_hatch() for handle in legend.legend_handles]
    assert len(set(hatches)) == 3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: models.context_panels({}, mixture="x"), "nothing to show"),
        (lambda: models.context_panels(PANELS, mixture="x"), "no panel 'x'"),
        (
            lambda: models.context_panels(PANELS | {"c": {"ojo": 1.0}}, mixture="c"),
            "do not have the same entries",
        ),
        (lambda: models.shares({}, xlabel="x"), "nothing to show"),
        (lambda: models.shares({"a": {}}, xlabel="x"), "same entries"),
        (lambda: models.shares({"a": {"b": 1}, "c": {"d": 1}}, xlabel="x"), "same"),
        (lambda: models.shares({"a": {"b": -1}}, xlabel="x"), "below 0"),
        (lambda: models.shares({"a": {"b": 0}}, xlabel="x"), "takes anything"),
        (
            lambda: models.shares({"a": dict.fromkeys("bcdefg", 1)}, xlabel="x"),
            "6 parts",
        ),
    ],
)
def test_what_cannot_be_drawn_is_explained(call, said):
    with pytest.raises(KdcourseError, match=said):
        call()


# ------------------------------------------------- what the exercises hold to be right


@pytest.fixture(scope="module", params=["teacher", "student"])
def model(request):
    return load_model(model_folder(request.param))


def test_the_exercise_counts_the_parameters_of_the_shipped_models(model):
    config = model.config.to_dict()
    assert ex02.marian_parameters.reference(config) == count_parameters(model)


def test_the_exercise_counts_the_flops_that_a_model_really_spends(model):
    """Each step by torch's own counter; the first also makes the source's keys."""
    model.set_attn_implementation("eager")
    config, pad = model.config.to_dict(), model.config.pad_token_id
    source = torch.tensor([[562, 464, 330, 40, 1702, 0]])
    said, past = torch.tensor([[pad]]), None
    with torch.inference_mode():
        encoded = model.model.encoder(source)
        for position in range(1, 5):
            with FlopCounterMode(display=False) as counter:
                output = model(
                    encoder_outputs=encoded,
                    decoder_input_ids=said,
                    past_key_values=past,
                    use_cache=True,
                )
            said, past = output.logits.argmax(dim=-1), output.past_key_values
            wanted = ex02.step_flops.reference(config, source.shape[1], position)
            if position == 1:
                once = 2 * source.shape[1] * model.config.d_model**2
                wanted += 2 * model.config.decoder_layers * once
            assert counter.get_total_flops() == wanted


def test_the_exercise_scores_a_sequence_as_the_package_does():
    for case in ex02.sequence_score.cases():
        arguments = case.arguments.values()
        ours = sequence_log_probability(*arguments)
        assert torch.allclose(ex02.sequence_score.reference(*arguments), ours)


@pytest.mark.parametrize("text", ["she sees the bank", "the cook saves the old bill"])
def test_the_exercise_mixes_contexts_as_the_toy_does(text):
    toy, z = toy_language(), text.split()
    mixed = toy.outputs(z)
    rows = []
    for c in toy.contexts:
        said = toy.outputs(z, c)
        listed = dict(zip(said.sequences, said.probabilities.tolist(), strict=True))
        rows.append([listed[y] for y in mixed.sequences])
    shares, rows = toy.context_distribution(z), torch.tensor(rows).double()
    assert torch.allclose(
        ex02.blind_student.reference(shares, rows), mixed.probabilities
    )
    entropies = [toy.outputs(z, c).entropy for c in toy.contexts]
    worth = mixed.entropy - float(shares @ torch.tensor(entropies).double())
    assert ex02.context_worth.reference(shares, rows) == pytest.approx(worth, abs=1e-6)
