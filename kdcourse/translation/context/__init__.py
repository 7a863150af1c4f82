"""Context distillation: the teacher reads c and z, the student z alone.

Pr^t(y | c, z) against Pr^s_θ(y | c', z), c' empty (Askell et al. 2021 and Snell et al.
2022, for language models; here for translation). c is plain text before z,
"roborock entity select mode state light ; battery = pila | Light", so that any
translation model can read it. It holds two things that fare differently:

* the place: component and key path of the app. It differs from row to row, and z does
  not say it (``places``);
* terms of a glossary that always holds. Which of them are in c, z itself decides
  (``glossary``).

``survival`` measures what of c's worth is left in a student that does not read it, and
``run`` makes the recorded run.
"""

from .glossary import glossed, obeying, replace_term, terms_in
from .places import (
    SEPARATOR,
    Placed,
    ambiguous,
    ceiling,
    contexts_exchanged,
    describe,
    load_placed,
    placed_rows,
    with_context,
)
from .survival import Survival, paired_gain, survival, survives

__all__ = [
    "SEPARATOR",
    "Placed",
    "Survival",
    "ambiguous",
    "ceiling",
    "contexts_exchanged",
    "describe",
    "glossed",
    "load_placed",
    "obeying",
    "paired_gain",
    "placed_rows",
    "replace_term",
    "survival",
    "survives",
    "terms_in",
    "with_context",
]
