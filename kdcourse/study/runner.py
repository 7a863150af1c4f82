"""Run a lesson without a browser, cell by cell, and say how far it is."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from tqdm import tqdm

from kdcourse.errors import KdcourseError
from kdcourse.study import offline

TIMINGS = "timings.json"  # beside the lessons: seconds of each code cell, fast mode
REFRESH = 1.0  # seconds between two looks at a running lesson
LOG_EVERY = 20.0  # seconds between two lines where there is no terminal to redraw


@dataclass
class Progress:
    """How far a lesson has come; written by its thread, read by the display."""

    cells: int
    done: int = 0
    finished: bool = False
    index: int | None = None  # of the notebook's cell at work; None before the first
    seconds: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    cell_started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Failure:
    """Where and why a lesson stopped."""

    number: int
    first_line: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """A lesson that was run: the executed copy, its times, and its failure if any."""

    notebook: nbformat.NotebookNode
    seconds: list[float]
    failure: Failure | None


def course_folder() -> Path:
    """The clone of the course from which the package was installed.

    Raises:
        KdcourseError: the package stands alone, without its notebooks.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "notebooks").is_dir():
        raise KdcourseError(
            f"There is no folder 'notebooks' in {folder}.",
            wanted="the package installed in place, from a clone of the course",
            todo="In the clone, run: python -m pip install -e .",
        )
    return folder


def find_lessons(folder: Path, numbers: list[str] | None = None) -> list[Path]:
    """The lessons ``NN_*.ipynb`` in order: all, or those with these numbers.

    Raises:
        KdcourseError: a number has no lesson, or there is none at all.
    """
    by_number = {path.name[:2]: path for path in sorted(folder.glob("[0-9]*_*.ipynb"))}
    wanted = [number.zfill(2) for number in numbers] if numbers else list(by_number)
    missing = [number for number in wanted if number not in by_number]
    if missing or not wanted:
        raise KdcourseError(
            f"There is no lesson {', '.join(missing) or 'at all'} in {folder}.",
            wanted=f"numbers among {', '.join(by_number) or '(none)'}",
            todo="Name an existing number, or none to run every lesson.",
        )
    return [by_number[number] for number in sorted(set(wanted))]


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that will run: code that is not empty."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [cell for cell in cells if cell.source.strip()]


@contextmanager
def kernel_environment(mode: str, **more: str) -> Iterator[dict[str, str]]:
    """The variables under which lessons run: the same here, in tests, in releases."""
    with tempfile.TemporaryDirectory(prefix="kdcourse-") as folder:
        yield {
            **offline.environment(Path(folder)),
            "KDCOURSE_MODE": mode,
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "TOKENIZERS_PARALLELISM": "false",  # or each fork of a kernel warns
            "KDCOURSE_PROGRESS": "off",  # only what learners do themselves counts
            "KDCOURSE_WIDGETS": "off",  # a saved output holds nothing drawn by lot
            **more,
        }


class _Client(NotebookClient):
    """nbclient, with a record of the cells; its kernel is that of this Python."""

    def __init__(self, notebook, folder: Path, progress: Progress, timeout: int | None):
        manager = AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME,
            kernel_spec_manager=NbvalKernelspecManager(),
        )
        super().__init__(
            notebook,
            km=manager,
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
            on_cell_execute=self._begin,
            on_cell_executed=self._end,
        )
        self._progress = progress

    def _begin(self, cell, cell_index: int) -> None:
        self._progress.index = cell_index
        self._progress.cell_started = time.monotonic()

    def _end(self, cell, cell_index: int, execute_reply) -> None:
        self._progress.done += 1
        self._progress.seconds.append(time.monotonic() - self._progress.cell_started)


class _Thread(threading.Thread):
    """Runs the client on a loop of its own, so that the display never waits for it."""

    def __init__(self, client: NotebookClient, environment: dict[str, str]):
        super().__init__(daemon=True)
        self.client, self.environment = client, environment
        self.error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None

    def run(self) -> None:
        """Execute the notebook; whatever is raised is kept for the main thread."""
        try:
            asyncio.run(self._execute())
        except BaseException as error:  # handed over, not swallowed
            self.error = error

    async def _execute(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self.client.async_execute(
            cleanup_kc=True, env=self.environment, stderr=subprocess.DEVNULL
        )

    def cancel(self) -> None:
        """Stop the notebook and wait until its kernel has gone."""
        if self._loop and self._task and self.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self.join(timeout=30)


def run_notebook(
    path: Path,
    environment: dict[str, str],
    *,
    show: Callable[[Progress], None] | None = None,
    timeout: int | None = None,
) -> Outcome:
    """Run a copy of a notebook in a fresh kernel; the file itself is never written.

    The kernel works in the notebook's folder. ``show`` is called about once a second.
    On Ctrl-C the kernel is stopped before ``KeyboardInterrupt`` goes on its way.

    Args:
        path: the notebook.
        environment: the kernel's variables, see :func:`kernel_environment`.
        show: called with the progress so far.
        timeout: seconds a single cell may take; None for no limit.

    Returns:
        The executed copy, the seconds of each finished code cell, and the failure.
    """
    notebook = nbformat.read(path, as_version=4)
    progress = Progress(cells=len(code_cells(notebook)))
    thread = _Thread(_Client(notebook, path.parent, progress, timeout), environment)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(REFRESH)
            if show:
                show(progress)
    finally:
        thread.cancel()
        progress.finished = True
        if show:
            show(progress)
    failure = _failure(notebook, progress, thread.error) if thread.error else None
    return Outcome(notebook, progress.seconds, failure)


def _failure(notebook, progress: Progress, error: BaseException) -> Failure:
    """The cell at work, its first line, and the error in one line."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, CellExecutionError):
        text = f"{error.ename}: {error.evalue}"
    if progress.index is None:
        return Failure(0, "(the kernel did not start)", text)
    before = nbformat.from_dict({"cells": notebook.cells[: progress.index]})
    first_line = notebook.cells[progress.index].source.strip().splitlines()[0]
    return Failure(len(code_cells(before)) + 1, first_line, text)


def interrupt_on_terminate() -> None:
    """Let a plain ``kill`` clean up as Ctrl-C does, so that no kernel outlives us."""

    def handler(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)


# ------------------------------------------------------------------ how long it takes


def read_timings(folder: Path) -> dict[str, list[float]]:
    """Seconds of each code cell by lesson, as recorded when the outputs were made."""
    path = folder / TIMINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_timings(folder: Path, timings: dict[str, list[float]]) -> None:
    """Record the seconds of each code cell, to a tenth."""
    rounded = {
        name: [round(seconds, 1) for seconds in timings[name]]
        for name in sorted(timings)
    }
    lines = ",\n".join(f' "{name}": {json.dumps(row)}' for name, row in rounded.items())
    (folder / TIMINGS).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")


def seconds_left(progress: Progress, recorded: list[float], now: float) -> float | None:
    """What remains of a lesson, from recorded cell times at this machine's own pace.

    pace = seconds taken / seconds recorded, over the cells done so far (1 until a
    second has been recorded); remaining = pace · recorded seconds of the cells to come.
    None where the record does not fit the lesson.
    """
    if len(recorded) != progress.cells:
        return None
    done, to_come = recorded[: progress.done], recorded[progress.done :]
    pace = sum(progress.seconds) / sum(done) if sum(done) >= 1 else 1.0
    if not to_come:
        return 0.0
    current = max(0.0, pace * to_come[0] - (now - progress.cell_started))
    return current + pace * sum(to_come[1:])


def clock(seconds: float) -> str:
    """Minutes and seconds as on a clock: ``clock(75)`` is ``1:15``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Bar:
    """One lesson's progress: redrawn on a terminal, now and then a line in a log."""

    def __init__(self, name: str, recorded: list[float], stream=None):
        self.name, self.recorded = name, recorded
        self.stream = stream or sys.stderr
        self._written = float("-inf")

    def line(self, progress: Progress, now: float) -> str:
        """The bar's text: cells done, time taken, time left."""
        text = clock(now - progress.started)
        if not progress.finished:
            left = seconds_left(progress, self.recorded, now)
            text += ", time left unknown" if left is None else f", {clock(left)} left"
        return tqdm.format_meter(
            progress.done,
            progress.cells,
            elapsed=now - progress.started,
            ncols=88,
            ascii=not (self.stream.encoding or "").lower().startswith("utf"),
            bar_format="{desc} {bar} {n_fmt:>3}/{total_fmt} cells  " + f"{text:<18}",
            prefix=f"{self.name:<24.24}",
        )

    def show(self, progress: Progress) -> None:
        """Draw the bar, or in a log a line every twenty seconds and the last one."""
        now = time.monotonic()
        if self.stream.isatty():
            end = "\n" if progress.finished else ""
            self.stream.write(f"\r{self.line(progress, now)}\x1b[K{end}")
        elif progress.finished or now - self._written >= LOG_EVERY:
            self._written = now
            self.stream.write(self.line(progress, now) + "\n")
        self.stream.flush()
