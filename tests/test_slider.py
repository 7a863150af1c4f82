"""The temperature slider: what it shows where it can be moved, and where it cannot."""

from __future__ import annotations

import base64
import html
import re
import xml.etree.ElementTree as xml

import matplotlib.pyplot as plt
import nbformat
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdcourse.errors import KdcourseError
from kdcourse.study import runner, show, slider
from kdcourse.study.slider import VIEW, temperature_slider

WORDS = ["gato", "perro", "$5", "a*b_c", "<b>ratón</b>", "el"]
LOGITS = [4.0, 3.2, 2.5, 1.0, 0.5, float("-inf")]
CELL = f"""
from kdcourse.study.slider import temperature_slider
temperature_slider({LOGITS[:5]}, {WORDS[:5]})
"""


def softened(logits=tuple(LOGITS), words=tuple(WORDS), most=8):
    return slider._softened(torch.tensor(logits), words, most)


def svg_of(text):
    return xml.fromstring(text.partition("</svg>")[0] + "</svg>")


def bars_of(text):
    return [float(e.get("width")) for e in svg_of(text).iter() if "rect" in e.tag]


# ------------------------------------------------------------------- what it computes


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=12),
    st.floats(0.1, 10),
    st.integers(1, 12),
)
def test_the_shares_are_the_softmax_and_sum_to_one(logits, temperature, most):
    words = [f"w{n}" for n in range(len(logits))]
    rows = slider._softened(logits, words, most).shares(temperature)
    assert sum(share for _, share in rows) == pytest.approx(1)
    naive = numpy.exp((numpy.array(logits) - max(logits)) / temperature)
    naive /= naive.sum()
    for name, share in rows[:most]:
        if name.startswith("w"):
            assert share == pytest.approx(naive[int(name[1:])], abs=1e-9)
    shares = [share for name, share in rows if name.startswith("w")]
    assert shares == sorted(shares, reverse=True)  # a temperature changes no order


def test_all_others_have_one_bar_and_equal_names_are_told_apart():
    rows = softened(words=["a", "a", " ", "b" * 40, "c", "d"], most=4).shares(1.0)
    assert [name for name, _ in rows] == [
        "a",
        "a (2)",
        "' '",
        "b" * 17 + "…",
        "2 others",
    ]
    assert softened(most=5).shares(1.0)[-1] == ("1 other", 0.0)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-9, "<1 %"), (0.005, "<1 %"), (0.0051, "1 %"), (0.5, "50 %")]
    + [(0.994, "99 %"), (0.9951, ">99 %"), (0.9999, ">99 %"), (1, "100 %")],
)
def test_little_is_not_nothing_and_much_is_not_all(share, text):
    assert slider.percent(share) == text


@pytest.mark.parametrize(
    "logits",
    [LOGITS, tuple(LOGITS), numpy.array(LOGITS), torch.tensor(LOGITS).half()]
    + [torch.tensor(LOGITS, requires_grad=True), torch.tensor(LOGITS).bfloat16()],
    ids=lambda logits: type(logits).__name__,
)
def test_whatever_holds_numbers_will_do(logits, capsys):
    temperature_slider(logits, WORDS)
    assert capsys.readouterr().out.splitlines()[1].startswith("gato")


# ---------------------------------------------------------------------- in a terminal


def test_a_terminal_gets_a_table(capsys):
    temperature_slider(LOGITS, WORDS, most=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["T", "0.5", "1", "2", "5"]
    assert lines[1].split() == ["gato", "80", "%", "57", "%", "39", "%", "27", "%"]
    assert [line.split("  ")[0] for line in lines[2:]] == [*WORDS[1:4], "2 others"]
    assert len({len(line) for line in lines}) == 1


# ---------------------------------------------------------------------- in a notebook


@pytest.fixture
def displayed(monkeypatch):
    found = []
    monkeypatch.setattr(show, "in_notebook", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display",
        lambda data, raw, metadata=None: found.append((data, metadata)),
    )
    return found


@pytest.mark.parametrize("widgets", ["", "off"])
def test_a_notebook_gets_slider_picture_and_words(widgets, monkeypatch, displayed):
    monkeypatch.setenv("KDCOURSE_WIDGETS", widgets)
    temperature_slider(LOGITS, WORDS)
    (figure, metadata), (caption, _) = displayed
    assert (VIEW in figure) == (widgets != "off")
    assert figure["image/png"].startswith(b"\x89PNG")
    said = "“gato” 57 %, “perro” 26 %, “$5” 13 %. Perplexity"
    assert said in metadata["image/png"]["alt"]
    assert figure["text/plain"] == f"Figure: {metadata['image/png']['alt']}"
    assert r"“\$5”" in caption["text/markdown"]  # or two dollars make a formula
    assert caption["text/plain"].startswith(figure["text/plain"])
    assert not plt.get_fignums()


def test_the_picture_and_its_text_hold_the_words_as_they_are():
    fig = slider.picture(softened(), 1.0)
    labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert labels == ["gato", "perro", r"\$5", *WORDS[3:]]
    plt.close(fig)


def test_moving_the_slider_moves_bars_and_words():
    box = slider.make_widget(softened(), 1.0, 0.1, 10.0)
    handle, drawing = box.children
    cool = drawing.value
    handle.value = 10.0
    warm = drawing.value
    assert bars_of(warm)[0] < bars_of(cool)[0] and bars_of(warm)[4] > bars_of(cool)[4]
    assert "At temperature 10 the most probable" in warm
    handle.value = 1.0
    assert drawing.value == cool


def test_the_slider_is_usable_by_keyboard_and_goes_from_low_to_high():
    handle, _ = slider.make_widget(softened(), 1.0, 0.2, 20.0).children
    assert handle.description == "temperature T" and handle.readout
    assert 10**handle.min == pytest.approx(0.2)
    assert 10**handle.max == pytest.approx(20)
    assert (handle.max - handle.min) / handle.step == pytest.approx(slider.STEPS)


def test_words_cannot_break_the_drawing():
    text = slider.drawn(softened(), 1.0)
    labels = [e.text for e in svg_of(text).iter() if e.get("text-anchor") == "end"]
    assert labels == WORDS
    assert "<b>" not in text
    status = re.search(r'<p role="status"[^>]*>(.+)</p>', text)[1]
    assert html.unescape(status) == softened().read_out(1.0)
    assert svg_of(text).get("aria-hidden") == "true"  # the sentence is what is read


@pytest.mark.slow
def test_a_saved_notebook_holds_nothing_drawn_by_lot(tmp_path):
    path = tmp_path / "probe.ipynb"
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with runner.kernel_environment("fast") as environment:
        first, second = (runner.run_notebook(path, environment) for _ in range(2))
    assert first.failure is None
    outputs = first.notebook.cells[0].outputs
    assert outputs == second.notebook.cells[0].outputs
    assert [set(output.data) for output in outputs] == [
        {"image/png", "text/plain"},
        {"text/markdown", "text/plain"},
    ]
    assert base64.b64decode(outputs[0].data["image/png"]).startswith(b"\x89PNG")


# -------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"logits": "abc"}, "logits is a str"),
        ({"logits": None}, "logits is a NoneType"),
        ({"logits": torch.zeros(2, 6)}, r"shape \(2, 6\)"),
        ({"logits": [1.0]}, r"shape \(1,\)"),
        ({"logits": 3.0}, r"shape \(\)"),
        ({"logits": [float("nan")] * 6}, "NaN or"),
        ({"logits": [float("inf")] * 6}, "NaN or"),
        ({"logits": [float("-inf")] * 6}, "nothing but -inf"),
        ({"words": WORDS[:3]}, "words holds 3 entries, logits 6"),
        ({"words": "abcdef"}, "words holds 1 entries"),
        ({"words": range(6)}, "one word"),
        ({"most": 0}, "most is 0"),
        ({"most": 2.5}, "most is 2.5"),
        ({"low": 0}, "low=0"),
        ({"low": -1.0}, "low=-1.0"),
        ({"start": 20}, "start=20"),
        ({"low": 1, "high": 1}, "high=1"),
        ({"high": float("inf")}, "high=inf"),
        ({"high": "ten"}, "high='ten'"),
    ],
)
def test_bad_input_is_explained(arguments, said):
    with pytest.raises(KdcourseError, match=said) as caught:
        temperature_slider(**{"logits": LOGITS, "words": WORDS} | arguments)
    assert caught.value.wanted and caught.value.todo
