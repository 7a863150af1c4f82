"""Shards on disk that survive a kill, a full disk and a careless hand.

A store is a folder of shards and ``manifest.json``. The manifest says what the store
was made from, names each shard with its SHA-256, and is sealed by a hash of itself.
Every file is written beside its place, flushed to the disk and renamed: a reader
finds all of it or nothing. A store that was begun is gone on with; what it holds
already is verified first, and made anew where it is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

import filelock

from ..errors import KdcourseError

MANIFEST = "manifest.json"
SEAL = "seal"


# --- One file --------------------------------------------------------------------


@contextlib.contextmanager
def writing_whole(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """An open file that takes its place, whole, when the block ends without an error.

    The name of the partial file is fixed, so that the next run overwrites and renames
    what a killed one left; a failed write removes it, and with it what fills the disk.
    What stood at ``path`` before is renamed to ``keep``, where that is given.

    Raises:
        KdcourseError: the disk is full, or the folder may not be written to. What
            stood at ``path`` before is untouched.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without bytes
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        refusal = _refusal(error)
        if refusal:
            raise _not_writable(path, refusal) from error
        raise


def _not_writable(path: Path, refusal: OSError) -> KdcourseError:
    return KdcourseError(
        f"{path} cannot be written: {refusal.strerror or refusal}.",
        wanted="a folder with room and the right to write",
        todo="Name another folder, or free some space, and run again: what was "
        "finished before is kept.",
    )


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's own error: torch.save covers it with one that only says where."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; errors as ``writing_whole``."""
    with writing_whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """One process at a time: another that wants the same place waits.

    Raises:
        KdcourseError: the lock cannot be written beside the place.
    """
    path = place.with_name(place.name + ".lock")
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as refusal:
        raise _not_writable(path, refusal) from refusal
    try:
        yield
    finally:
        lock.release()


def is_intact(path: Path, digest: str) -> bool:
    """Whether a file is there and has this SHA-256."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


# --- The manifest ----------------------------------------------------------------


def write_manifest(folder: Path, manifest: dict) -> None:
    """Seal the manifest, and write it whole or not at all."""
    contents = {name: value for name, value in manifest.items() if name != SEAL}
    text = json.dumps(contents | {SEAL: seal_of(contents)}, indent=1) + "\n"
    write_whole(folder / MANIFEST, text.encode())


def seal_of(manifest: dict) -> str:
    """SHA-256 over all that a manifest says, but for the seal itself."""
    contents = {name: value for name, value in manifest.items() if name != SEAL}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def read_manifest(
    folder: Path, fields: Iterable[str], maker: str, *, sealed: bool = True
) -> dict | None:
    """The manifest of a folder without its seal, or None where there is no manifest.

    ``fields`` must be there, and "complete" and "shards"; ``maker`` is the function
    that an error sends to. ``sealed=False`` lets pass a manifest that has no seal.

    Raises:
        KdcourseError: it is cut, is no manifest, lacks a field or was altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = [n for n in ("complete", "shards", *fields) if n not in manifest]
        if not isinstance(manifest, dict) or not isinstance(manifest["shards"], dict):
            raise TypeError("it is no list of shards")
        if missing:
            raise KeyError(", ".join(missing))
    except (ValueError, TypeError, KeyError) as error:
        raise _bad_manifest(path, f"{error!r}", maker) from error
    seal = manifest.pop(SEAL, None)
    if seal != seal_of(manifest) and (sealed or seal is not None):
        raise _bad_manifest(path, "its seal is broken, so it was altered", maker)
    return manifest


def _bad_manifest(path: Path, reason: str, maker: str) -> KdcourseError:
    return KdcourseError(
        f"{path} is not a manifest as it was written: {reason}.",
        wanted=f"the file as {maker} writes it",
        todo=f"Copy the folder again, or delete it and run {maker} again.",
    )


# --- A folder of shards ----------------------------------------------------------


class Store:
    """A folder that is being filled: ``wanted`` tells what it is made from.

    ``parts`` gives each shard's name what ``make`` will need for it. ``maker`` and
    ``things`` name the calling function and what it stores, for the errors. After
    construction ``todo`` holds the parts whose shards are not there yet or damaged.

    Raises:
        KdcourseError: the folder holds what was made from something else.
    """

    def __init__(
        self,
        folder: str | Path,
        wanted: dict,
        parts: dict[str, object],
        *,
        maker: str,
        things: str,
        sealed: bool = True,
    ):
        self.folder, self.wanted, self.parts = Path(folder), wanted, parts
        self.maker, self.things, self.sealed = maker, things, sealed
        self._look()

    def _look(self) -> None:
        """What of the parts is there, and what is left to make."""
        found = read_manifest(self.folder, (), self.maker, sealed=self.sealed)
        if found is not None:
            self._check_same(found, self.things)
        shards = {} if found is None else found["shards"]
        self.shards = {
            name: digest
            for name, digest in shards.items()
            if name in self.parts and is_intact(self.folder / name, digest)
        }
        self.todo = {n: p for n, p in self.parts.items() if n not in self.shards}

    def _check_same(self, found: dict, things: str) -> None:
        kept = {n: v for n, v in found.items() if n not in ("complete", "shards")}
        names = [*self.wanted, *(n for n in kept if n not in self.wanted)]
        other = [n for n in names if kept.get(n) != self.wanted.get(n)]
        if other:
            values = ", ".join(
                f"{n} {kept.get(n)!r} for {self.wanted.get(n)!r}" for n in other
            )
            raise KdcourseError(
                f"{self.folder} holds other {things} than asked for: {values}.",
                wanted="an empty folder, or one begun with the same teacher and "
                "sources",
                todo="Name another folder, or delete this one if it is not needed.",
            )

    def fill(self, make: Callable[[object], bytes], workers: int = 1) -> dict:
        """Make the missing shards, ``workers`` at a time; the finished manifest.

        Each shard is on disk before the manifest names it: at whatever moment the run
        is killed, the folder holds intact shards only, and the next run needs to make
        but the others. A second process on the same folder waits for the first, and
        makes what that has left.
        """
        if not self.todo:  # all is there and was verified: nothing to wait for
            return self._fill(make, workers)
        with alone(self.folder):
            self._look()
            return self._fill(make, workers)

    def _fill(self, make: Callable[[object], bytes], workers: int) -> dict:
        def make_and_write(name: str) -> tuple[str, str]:
            data = make(self.todo[name])
            write_whole(self.folder / name, data)
            return name, hashlib.sha256(data).hexdigest()

        for name, digest in in_turns(make_and_write, self.todo, workers):
            self.shards[name] = digest
            write_manifest(self.folder, self._manifest(complete=False))
        manifest = self._manifest(complete=True)
        write_manifest(self.folder, manifest)
        return manifest

    def _manifest(self, complete: bool) -> dict:
        shards = dict(sorted(self.shards.items()))
        return self.wanted | {"complete": complete, "shards": shards}


def read_store(
    folder: str | Path,
    fields: Iterable[str],
    *,
    maker: str,
    things: str,
    sealed: bool = True,
) -> tuple[dict, Iterator[bytes]]:
    """The manifest of a finished store, and its shards in order, each one verified.

    Raises:
        KdcourseError: there is none, it is not finished, or was altered; for a shard
            when the iteration comes to it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, fields, maker, sealed=sealed)
    if manifest is None or not manifest["complete"]:
        state = "No" if manifest is None else "Unfinished"
        raise KdcourseError(
            f"{state} {things} in {folder}.",
            wanted=f"a folder that {maker} has filled to the end",
            todo=f"Run {maker} on it: it goes on where it stopped.",
        )
    return manifest, _verified(folder, manifest["shards"], maker)


def _verified(folder: Path, shards: dict[str, str], maker: str) -> Iterator[bytes]:
    for name, digest in shards.items():
        path = folder / name
        data = path.read_bytes() if path.is_file() else None
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            state = "missing" if data is None else "not what the manifest says"
            raise KdcourseError(
                f"{path} is {state}.",
                wanted=f"a file with SHA-256 {digest}",
                todo=f"Run {maker} again: it makes this shard anew.",
            )
        yield data


def shard_parts(rows: list, size: int, suffix: str) -> dict[str, list]:
    """Rows cut into parts of ``size``, under the names of their shards."""
    starts = range(0, len(rows), size)
    return {
        f"shard-{number:05d}{suffix}": rows[start : start + size]
        for number, start in enumerate(starts)
    }


def in_turns(make: Callable, tasks: Iterable, workers: int) -> Iterator:
    """``make(task)`` for each task, ``workers`` at a time; the first error ends it."""
    with ThreadPoolExecutor(workers) as pool:
        results = [pool.submit(make, task) for task in tasks]
        try:
            for result in as_completed(results):
                yield result.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
