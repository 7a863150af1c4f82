"""The first cell of every notebook: mode, seeds, threads, style, versions."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from kdcourse.errors import KdcourseError

MODES = ("fast", "full")
PACKAGES = ("kdcourse", "torch", "transformers", "datasets", "ctranslate2", "sacrebleu")


@dataclass(frozen=True)
class Settings:
    """What the set-up cell decided; ``fast`` is True where time is short."""

    lesson: str
    mode: str
    seed: int
    threads: int

    @property
    def fast(self) -> bool:
        """True in fast mode, the one that is committed and validated."""
        return self.mode == "fast"


def setup(lesson: str = "", seed: int = 1, threads: int = 1) -> Settings:
    """Make the notebook reproducible and print how.

    Reads ``KDCOURSE_MODE`` (``fast``, the default, or ``full``), seeds Python, NumPy
    and torch, fixes the number of torch threads, keeps the Hugging Face libraries
    from looking things up online (unless ``HF_HUB_OFFLINE=0`` asks for it), and gives
    figures the course's style. With ``KDCOURSE_OFFLINE=1`` every socket is blocked.

    Raises:
        KdcourseError: for an unknown mode, or fewer than one thread.
    """
    mode = read_mode()
    if threads < 1:
        raise KdcourseError(
            f"setup() was given threads={threads}.",
            wanted="a whole number from 1 up",
            todo="Use threads=1: the committed outputs were computed with one thread.",
        )
    stay_offline()
    seed_everything(seed)
    import torch

    torch.set_num_threads(threads)
    from . import plots

    plots.use_course_style()
    settings = Settings(str(lesson), mode, seed, threads)
    print(describe(settings))
    return settings


def read_mode() -> str:
    """The mode that the environment asks for: ``fast`` unless it says otherwise."""
    mode = os.environ.get("KDCOURSE_MODE", "").strip().lower() or "fast"
    if mode not in MODES:
        raise KdcourseError(
            f"The environment variable KDCOURSE_MODE is {mode!r}.",
            wanted="fast (minutes; the default) or full (the real runs; hours)",
            todo="Set it to one of the two, or remove it; then restart the kernel.",
        )
    return mode


def stay_offline() -> None:
    """Let no Hugging Face library look anything up; block sockets where asked to."""
    if os.environ.setdefault("HF_HUB_OFFLINE", "1") != "0":
        # A library that was imported before this cell has read the variable already.
        for module in ("huggingface_hub.constants", "datasets.config"):
            if module in sys.modules:
                sys.modules[module].HF_HUB_OFFLINE = True
    if os.environ.get("KDCOURSE_OFFLINE") == "1":
        from . import offline

        offline.block()


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def describe(settings: Settings) -> str:
    """Two lines: what was set, and the versions that the results rest on."""
    lesson = f"lesson {settings.lesson}, " if settings.lesson else ""
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    versions = ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    return f"{lesson}mode {settings.mode}, seed {settings.seed}, {threads}\n{versions}"


def installed(package: str) -> str:
    """The version of a package without its build tag: the same on every machine."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        if package == "kdcourse":
            import kdcourse

            return getattr(kdcourse, "__version__", "from source")
        return "missing"
