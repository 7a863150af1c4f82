"""What the learner has done so far: one small JSON file, never lost.

The file stands in the user's data folder, or where ``KDCOURSE_PROGRESS`` says.
``KDCOURSE_PROGRESS=off`` keeps nothing, which is how notebooks are validated: a
solved notebook that is run by a test must not pass the exercises for the learner.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

VERSION = 1
SECTIONS = ("exercises", "quizzes", "predictions")
_told: set[str] = set()


def empty() -> dict:
    """The progress of somebody who has just arrived."""
    return {"version": VERSION, **{section: {} for section in SECTIONS}}


def progress_path() -> Path | None:
    """Where progress is kept; None where it is switched off."""
    setting = os.environ.get("KDCOURSE_PROGRESS", "").strip()
    if setting.lower() == "off":
        return None
    if setting:
        return Path(setting).expanduser()
    import platformdirs

    return platformdirs.user_data_path("kdcourse", appauthor=False) / "progress.json"


def load() -> dict:
    """Everything recorded; an unreadable file is set aside, not overwritten."""
    path = progress_path()
    if path is None:
        return empty()
    try:
        return _read(path)
    except OSError as problem:
        _tell(f"Progress could not be read ({problem.strerror}): {path}")
        return empty()


def _read(path: Path) -> dict:
    """What stands in the file; an OSError where it cannot be told."""
    try:
        return _valid(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return empty()
    except ValueError as problem:
        _set_aside(path, problem)
        return empty()


def record(section: str, name: str, **facts) -> None:
    """Merge facts into one entry, such as ``record("quizzes", "11.1", right=True)``."""

    def merge(data: dict) -> None:
        data[section].setdefault(name, {}).update(facts)

    update(merge)


def update(change: Callable[[dict], None]) -> None:
    """Read, change and write as one step, also when two kernels do it at once.

    A lesson never stops because its progress cannot be saved: it says so, once.
    """
    path = progress_path()
    if path is None:
        return
    import filelock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock", timeout=5):
            data = _read(path)  # an error here must not end in an empty file
            change(data)
            write_whole(path, data)
    except (OSError, filelock.Timeout) as problem:
        reason = getattr(problem, "strerror", None) or "another program holds it"
        _tell(
            f"Your progress was not saved ({reason}): {path}\n"
            "The lesson goes on. To keep your progress elsewhere, set KDCOURSE_PROGRESS"
            " to a file that you may write; then restart the kernel."
        )


def write_whole(path: Path, data: dict) -> None:
    """Write JSON whole or not at all: a temporary file, then one rename."""
    handle, partial = tempfile.mkstemp(
        dir=path.parent, prefix=path.name, suffix=".part"
    )
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _valid(data: object) -> dict:
    """The data if they are ours, with missing sections filled in; else ValueError."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"it is not a progress file of version {VERSION}")
    for section in SECTIONS:
        entries = data.setdefault(section, {})
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) for entry in entries.values()
        ):
            raise ValueError(f"its part {section!r} is damaged")
    return data


def _set_aside(path: Path, problem: Exception) -> None:
    number = 1
    while (backup := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.replace(path, backup)
    _tell(
        f"Your progress file could not be read ({problem}).\n"
        f"It was kept as {backup}; a new one begins.\n"
        f"Mend it and give it its old name, {path.name}, to have your progress back."
    )


def _tell(message: str) -> None:
    """Say it on standard error, each thing once."""
    if message not in _told:
        _told.add(message)
        print(message, file=sys.stderr)
