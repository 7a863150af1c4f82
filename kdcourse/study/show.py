"""Put text before the learner: rendered in a notebook, printed in a terminal."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """True inside a Jupyter kernel, where outputs are rendered."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def show_text(markdown: str, plain: str | None = None) -> None:
    """Show markdown in a notebook; elsewhere print ``plain``, or the same text."""
    plain = markdown if plain is None else plain
    if not in_notebook():
        print(plain)
        return
    from IPython.display import display

    display({"text/markdown": markdown, "text/plain": plain}, raw=True)
