"""The audit on the losses of other libraries, where they are installed.

``make test-peers`` installs them beside the course and runs this file; elsewhere it is
skipped. What is right must pass through a small adapter, and what is wrong must be
convicted of its own mistake.
"""

from __future__ import annotations

import pytest
import torch

from kdcourse.theory.audit import adapt, audit

for library in ("torchdistill", "textbrewer", "trl"):
    pytest.importorskip(library, reason="make test-peers installs it")

from peers import losses  # noqa: E402  only where the libraries are


def slugs(report):
    return [found.slug for found in report.diagnoses]


def test_trl_generalised_js_is_right_and_its_beta_too():
    loss = adapt(
        losses.trl_jsd,
        takes="student_logits teacher_logits labels",
        options=["beta"],
        float32=True,  # its trainer hands it what the model gives
    )
    report = audit(loss)
    assert report.passed, report
    tested = [f.property for f in report.findings if f.status == "passed"]
    assert "beta" in tested and "pads" in tested


def test_trl_temperature_comes_without_its_square():
    loss = adapt(losses.trl_jsd, options=["beta", "temperature"], float32=True)
    assert slugs(audit(loss)) == ["t-squared-forgotten"]


def test_torchdistill_on_sentences_takes_the_softmax_over_time():
    report = audit(losses.whole(losses.torchdistill_kd), name="KDLoss on (B, L, V)")
    assert slugs(report) == ["softmax-over-time"]
    with pytest.raises(AssertionError, match="softmax-over-time"):
        report.raise_if_failed()


def test_torchdistill_on_real_tokens_is_right():
    loss = losses.real(losses.torchdistill_kd)
    report = audit(adapt(loss, options=[], float32=True))
    assert report.passed, report


def test_torchdistill_without_alpha_forgets_t_squared():
    loss = adapt(
        lambda s, t, temperature: losses.torchdistill_kd(s, t, temperature=temperature),
        takes="student_logits teacher_logits",
        tokens="real",
        float32=True,
    )
    assert slugs(audit(loss)) == ["t-squared-forgotten"]


def test_textbrewer_gives_a_cross_entropy_and_averages_pads_in():
    on_all = audit(losses.whole(losses.kd_ce_loss), name="kd_ce_loss on (B, L, V)")
    assert slugs(on_all) == ["pads-averaged-in", "cross-entropy-as-kl"]
    on_real = audit(losses.real(losses.kd_ce_loss), name="kd_ce_loss, real tokens")
    assert "cross-entropy-as-kl" in slugs(on_real)
    assert "pads-averaged-in" not in slugs(on_real)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_what_counts_in_the_bench_is_what_the_definition_gives(name):
    from peers import bench

    shape = (3, 4, 50)
    wrong = bench.what_is_wrong(name, shape, losses.reference(*bench.tensors(shape)))
    right = "(B, L, V)" not in name and "TextBrewer" not in name
    assert (not wrong) == right, wrong
    if "torchdistill" in name and wrong:
        assert wrong.endswith(": softmax-over-time")
    elif wrong:
        assert "cross-entropy-as-kl" in wrong


def test_the_reference_is_torch_cross_entropy_minus_entropy():
    student, teacher, labels = (torch.randn(2, 3, 7), torch.randn(2, 3, 7), None)
    labels = torch.tensor([[1, 2, -100], [3, 4, 5]])
    value, gradient = losses.reference(student, teacher, labels)
    keep = labels != -100
    p, q = teacher[keep].double().softmax(-1), student[keep].double().log_softmax(-1)
    assert value == pytest.approx(float((p * (p.log() - q)).sum(-1).mean()), rel=1e-6)
    assert not gradient[0, 2].any()
