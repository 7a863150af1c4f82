"""A temperature to move by hand: how T reshapes a distribution over words.

>>> temperature_slider(logits, words)

In JupyterLab (or VS Code) a slider stands over bars that follow it. Where nothing can
be moved, the same cell still says all: a notebook that was run without a browser shows
the picture and its words at the first temperature, a terminal a small table.
"""

from __future__ import annotations

import html
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError

if TYPE_CHECKING:
    import ipywidgets
    import torch
    from matplotlib.figure import Figure

VIEW = "application/vnd.jupyter.widget-view+json"
STEPS = 40  # positions between the lowest and the highest temperature
TABLE = (0.5, 1.0, 2.0, 5.0)  # the temperatures of the table in a terminal
LABEL = 18  # characters of a word beside its bar
READ_OUT = 3  # words that are read out
ROW, LEFT, BAR, WIDTH = 22, 150, 320, 540  # of the drawing, in pixels


@dataclass(frozen=True)
class Softened:
    """Logits over words, ready to be softened: softmax(z / T) over the whole list.

    ``words`` are the ``shown`` most probable ones, in falling order: a temperature
    changes their shares, never their order.
    """

    logits: torch.Tensor
    words: tuple[str, ...]

    def shares(self, temperature: float) -> list[tuple[str, float]]:
        """Each shown word with its probability, then all the others together."""
        from kdcourse.theory.distributions import probabilities

        every = probabilities(self.logits, temperature=temperature).tolist()
        rows = list(zip(self.words, every, strict=False))
        others = len(every) - len(rows)
        if others:
            name = f"{others:,} others" if others > 1 else "1 other"
            rows.append((name, sum(every[len(rows) :])))
        return rows

    def perplexity(self, temperature: float) -> float:
        """exp of the entropy: the number of equally likely words, V at most."""
        from kdcourse.theory.distributions import perplexity

        return float(perplexity(self.logits, temperature=temperature))

    def read_out(self, temperature: float) -> str:
        """The distribution in one or two sentences, in round figures."""
        rows = self.shares(temperature)[: min(READ_OUT, len(self.words))]
        named = ", ".join(f"“{word}” {percent(share)}" for word, share in rows)
        many = self.perplexity(temperature)
        number = f"{many:.1f}" if many < 10 else f"{many:.0f}"
        return (
            f"At temperature {temperature:.2g} the most probable: {named}. Perplexity "
            f"{number}: as uncertain as a choice among {number} equally likely words."
        )


def temperature_slider(
    logits: torch.Tensor | Sequence[float],
    words: Sequence[str],
    *,
    start: float = 1.0,
    low: float = 0.1,
    high: float = 10.0,
    most: int = 8,
) -> None:
    """Show softmax(z / T) as bars, with a slider for T where one can be moved.

    The slider's scale is logarithmic, so that halving T is as far as doubling it. The
    softmax runs over all of ``logits``; bars are drawn for the ``most`` probable words
    and for all others together.

    Args:
        logits: (V,), raw scores; -inf for a word that cannot be said.
        words: the V words in the same order.
        start: the temperature shown first, and the one in a notebook's saved output.
        low: the lowest temperature, above 0.
        high: the highest one.
        most: the number of words with a bar of their own.

    Raises:
        KdcourseError: logits that are no vector of numbers, words that do not fit
            them, temperatures out of order, or no bar at all.
    """
    softened = _softened(logits, words, most)
    _check_temperatures(low, start, high)
    from .show import in_notebook, show_text

    if not in_notebook():
        print(table(softened))
        return
    from IPython.display import display

    alt = softened.read_out(start)
    data = {"image/png": _png(picture(softened, start)), "text/plain": f"Figure: {alt}"}
    box = make_widget(softened, start, low, high)
    if os.environ.get("KDCOURSE_WIDGETS", "").strip().lower() != "off":
        # A widget lives as long as its kernel, under an identity drawn by lot: it has
        # no place in an output that is saved, where the picture stands for it.
        data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
    how = (
        "In JupyterLab, once this cell is run: drag the slider, use the arrow keys, or "
        "type a number beside it."
    )
    show_text(f"*Figure: {_markdown(alt)}* {how}", f"Figure: {alt} {how}")


def make_widget(
    softened: Softened, start: float, low: float, high: float
) -> ipywidgets.VBox:
    """The slider over a drawing that follows it.

    The drawing is a small SVG in the page's own colours, so that it follows at once.
    """
    import ipywidgets

    bottom, top = math.log10(low), math.log10(high)
    slider = ipywidgets.FloatLogSlider(
        value=start,
        min=bottom,
        max=top,
        step=(top - bottom) / STEPS,
        base=10,
        description="temperature T",
        readout_format=".2f",
        tooltip="temperature T: arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": f"{WIDTH}px", "max_width": "100%"},
    )
    drawing = ipywidgets.HTML(drawn(softened, start))

    def follow(change) -> None:
        drawing.value = drawn(softened, change["new"])

    slider.observe(follow, names="value")
    return ipywidgets.VBox([slider, drawing])


def drawn(softened: Softened, temperature: float) -> str:
    """Bars as SVG, and below them the same in words, announced when they change."""
    rows = softened.shares(temperature)
    parts = []
    for number, (word, share) in enumerate(rows):
        y, length = number * ROW, max(BAR * share, 0.5)
        other = number >= len(softened.words)
        style = 'fill="none" stroke="currentColor"' if other else 'fill="#56B4E9"'
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">'
            f"{html.escape(word)}</text>"
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{ROW - 6}" '
            f"{style}/>"
            f'<text x="{LEFT + length + 6:.1f}" y="{y + 15}">{percent(share)}</text>'
        )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
        f'viewBox="0 0 {WIDTH} {ROW * len(rows)}" aria-hidden="true" '
        'style="max-width: 100%" font-size="13" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )
    said = html.escape(softened.read_out(temperature))
    return f'{svg}<p role="status" style="line-height: 1.4">{said}</p>'


def picture(softened: Softened, temperature: float) -> Figure:
    """The same bars as a figure, for a notebook that nobody has run yet."""
    from . import plots

    values = {
        word.replace("$", r"\$"): 100 * share
        for word, share in softened.shares(temperature)
    }
    return plots.bars(
        values, xlabel=f"per cent of the probability at T = {temperature:g}", decimals=1
    )


def table(softened: Softened) -> str:
    """The shares at a few temperatures, for a terminal."""
    columns = [softened.shares(temperature) for temperature in TABLE]
    width = max(len(word) for word, _ in columns[0])
    lines = [f"{'T':<{width}}" + "".join(f"{t:>8g}" for t in TABLE)]
    for row in zip(*columns, strict=True):
        cells = "".join(f"{percent(share):>8}" for _, share in row)
        lines.append(f"{row[0][0]:<{width}}{cells}")
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share in whole per cent; little is not called 0, nor much 100."""
    whole = f"{100 * share:.0f}"
    if whole == "0" and share > 0:
        return "<1 %"
    return ">99 %" if whole == "100" and share < 1 else f"{whole} %"


def _softened(logits, words: Sequence[str], most: int) -> Softened:
    import torch

    vector = _vector(logits)
    names = list(words) if not isinstance(words, str) else [words]
    if len(names) != len(vector) or not all(isinstance(name, str) for name in names):
        raise KdcourseError(
            f"words holds {len(names)} entries, logits {len(vector)}.",
            wanted="one word (a str) for each logit, in the same order",
            todo="For a model: words = tokenizer.convert_ids_to_tokens(range(V)).",
        )
    if not isinstance(most, int) or most < 1:
        raise KdcourseError(
            f"most is {most!r}.",
            wanted="a whole number of words to draw, from 1 up",
            todo="Leave it out: 8 read well.",
        )
    order = torch.sort(vector, descending=True, stable=True).indices
    shown = _distinct([_short(names[i]) for i in order[:most].tolist()])
    return Softened(vector[order], tuple(shown))


def _vector(logits) -> torch.Tensor:
    """The logits as (V,) in float64, or an error that says what they are."""
    import torch

    todo = "Pass the logits of one position, such as model_logits[0, -1]."
    try:
        given = logits.detach() if isinstance(logits, torch.Tensor) else logits
        vector = torch.as_tensor(given, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise KdcourseError(
            f"logits is a {type(logits).__name__} that holds no numbers.",
            wanted="raw scores of shape (V,), one a word",
            todo=todo,
        ) from error
    if vector.dim() != 1 or len(vector) < 2:
        raise KdcourseError(
            f"logits has the shape {tuple(vector.shape)}.",
            wanted="(V,) with at least 2 words: one distribution",
            todo=todo,
        )
    if vector.isnan().any() or vector.isposinf().any() or vector.isneginf().all():
        raise KdcourseError(
            "logits holds NaN or +inf, or nothing but -inf.",
            wanted="finite numbers, or -inf for a word that cannot be said",
            todo="Look for a division by zero or an overflow where they were made.",
        )
    return vector


def _check_temperatures(low: float, start: float, high: float) -> None:
    given = (low, start, high)
    numbers = all(isinstance(t, int | float) and math.isfinite(t) for t in given)
    if not numbers or not 0 < low <= start <= high or low == high:
        raise KdcourseError(
            f"The temperatures are low={low!r}, start={start!r}, high={high!r}.",
            wanted="numbers with 0 < low <= start <= high and low < high",
            todo="Leave them out: 0.1, 1 and 10 show all that there is to see.",
        )


def _distinct(names: list[str]) -> list[str]:
    """The names, numbered where two tokens look alike."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


def _short(word: str) -> str:
    """A label that can be seen and finds room."""
    visible = word if word.strip() else repr(word)
    return visible if len(visible) <= LABEL else f"{visible[: LABEL - 1]}…"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#$|~])", r"\\\1", text)


def _png(fig: Figure) -> bytes:
    import io

    import matplotlib.pyplot as plt

    from .plots import DPI

    file = io.BytesIO()
    fig.savefig(
        file, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None}
    )
    plt.close(fig)
    return file.getvalue()
