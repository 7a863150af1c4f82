"""What lesson 01's checks say where a mistake is none of those that they know."""

from __future__ import annotations

import pytest
import torch

from kdcourse.study.checks import ex01


@pytest.mark.parametrize(
    ("answer", "got"),
    [(1e6, "1e+06"), (1e-6, "1e-06"), (torch.tensor(7e5), "700000"), (-1.0, "-1")],
)
def test_a_temperature_far_off_is_shown_as_the_learners_own_number(answer, got):
    """It is compared by the side on which it lies, but never called a text."""
    outcome = ex01.temperature_for_entropy.evaluate(
        lambda logits, wanted: answer if len(logits) != 8 else 1.0
    )
    assert (outcome.status, outcome.diagnosis) == ("failed", "value")
    assert "not the right number" in outcome.message
    assert f"Got:    {got}\n" in outcome.message
