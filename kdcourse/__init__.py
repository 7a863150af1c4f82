"""A course on knowledge distillation: the tested code behind its notebooks.

``import kdcourse`` is cheap; what needs torch is loaded at its first use.
"""

from __future__ import annotations

import importlib
import os

__version__ = "0.1.0"

_HOME_OF = {
    "answer": "kdcourse.study.quizzes",
    "audit": "kdcourse.theory.audit",
    "glossary": "kdcourse.study.glossary",
    "load_corpus": "kdcourse.translation.corpus",
    "open_translator": "kdcourse.translation.decoding",
    "predict": "kdcourse.study.predict",
    "quiz": "kdcourse.study.quizzes",
    "reveal": "kdcourse.study.predict",
    "setup": "kdcourse.study.settings",
}

__all__ = ["__version__", *_HOME_OF]

if os.environ.get("KDCOURSE_OFFLINE") == "1":  # the tests' proof that no lesson needs
    from kdcourse.study import offline  # a network: every process of theirs is guarded

    offline.block()


def __getattr__(name: str) -> object:
    """Load a public name from the module where it lives, at its first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kdcourse' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
