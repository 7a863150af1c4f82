"""One objective, of which every method of distillation is a row.

    L(θ) = E_{(c,c',z)} E_{y~μ} Σ_t D( Pr^t(·|c,z,y_<t) ‖ Pr^s_θ(·|c',z,y_<t) )

Three choices make a method: the data μ on whose prefixes teacher and student are
compared, the divergence D, and the contexts c and c' that the two read. ``objective``
computes L(θ) on the toy language, where the expectations are exact, and ``METHODS`` is
the table of the named ones.
"""

from .data import (
    ClosestOfNBest,
    Mix,
    References,
    StudentSamples,
    TeacherBest,
    TeacherSamples,
    sentence_bleu,
)
from .function import Divergence, objective, sequence_divergence
from .methods import (
    METHODS,
    Method,
    Term,
    context_distillation,
    distillm,
    f_distill_js,
    f_distill_tvd,
    gkd,
    hinton,
    interpolation,
    label_smoothing,
    on_policy,
    self_distillation,
    sequence_level,
    sequence_level_exact,
    word_level,
)
from .models import freeze
from .rows import SAME, Row

__all__ = [
    "METHODS",
    "SAME",
    "ClosestOfNBest",
    "Divergence",
    "Method",
    "Mix",
    "References",
    "Row",
    "StudentSamples",
    "TeacherBest",
    "TeacherSamples",
    "Term",
    "context_distillation",
    "distillm",
    "f_distill_js",
    "f_distill_tvd",
    "freeze",
    "gkd",
    "hinton",
    "interpolation",
    "label_smoothing",
    "objective",
    "on_policy",
    "self_distillation",
    "sentence_bleu",
    "sequence_divergence",
    "sequence_level",
    "sequence_level_exact",
    "word_level",
]
