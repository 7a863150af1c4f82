"""Let the teacher translate the training sources: the sequence-level labels.

Labels are found by a hash of their source, never by position, so that no shuffle,
filter or merge of the sources can misalign them. They are made and stored in shards;
a run that was killed at any moment and started again ends with the very same bytes.

On disk, a folder of ``manifest.json`` and ``shard-00000.jsonl.gz`` …, each line of a
shard ``{"key": first 16 hex digits of SHA-256(normalised source), "target": …}``,
or with ``"targets": […]`` where several candidates were asked for.
The sources themselves are not stored: whoever has the corpus can find its labels.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import ctranslate2
import torch
from tqdm import tqdm

from ..errors import KdcourseError
from .corpus import LENGTH_RATIO_FROM, MAX_LENGTH_RATIO, normalise, placeholders
from .decoding import model_folder, model_hash, open_translator, torch_threads_kept
from .models import load_model
from .sampling import own_outputs
from .storage import Store, read_store, shard_parts
from .training import IGNORE, Batch, Example, token_batches
from .vocabulary import EOS_ID, load_vocabulary

FORMAT = 1  # raise it whenever the same teacher would give other labels or files
# Labels made before there were seals are read too.
STORE = {"maker": "label_corpus()", "things": "labels", "sealed": False}
KEY_DIGITS = 16
CHUNK = 250  # sources translated between two steps of the progress bar
EXAMPLES = 3  # shown in an error
SEARCHES = ("beam", "samples")
MOST_SAMPLES = 64
SAMPLE_TOKENS = 1000  # source tokens that are sampled from at a time
COPIED_WORDS = 3  # so many ordinary words are no name: they want a translation
TRUNCATED_FROM, TRUNCATED_SHARE = 40, 1 / 3
ORDINARY_WORD = re.compile(r"(?<![\w{])[a-z]{3,}(?![\w}])")
# A phrase of up to four words, or of a few characters, again and again in a row.
WORD_LOOP = re.compile(r"(?<!\S)(\S+(?: \S+){0,3}?)(?: \1){2,}(?!\S)")
LETTER_LOOP = re.compile(r"([^\W\d_]{1,6}?)\1{4,}")


def source_key(source: str) -> str:
    """The key of a source: the first 16 hex digits of SHA-256 of its normal form."""
    return hashlib.sha256(normalise(source).encode()).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True)
class Labels:
    """A teacher's translations, found by their source: ``labels["Turn on"]``.

    ``several`` holds all candidates of a key where more than one was asked for;
    ``labels[source]`` is then the first: the best, or the first sample.
    """

    manifest: dict
    targets: dict[str, str]
    several: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> Labels:
        """Read a finished folder of labels and verify each shard's SHA-256.

        Raises:
            KdcourseError: there are none, they are not finished, or were altered.
        """
        manifest, shards = read_store(folder, ("sources", "count"), **STORE)
        targets: dict[str, str] = {}
        several: dict[str, list[str]] = {}
        for data in shards:
            for row in map(json.loads, gzip.decompress(data).splitlines()):
                if "targets" in row:
                    several[row["key"]] = row["targets"]
                first = row["target"] if "target" in row else row["targets"][0]
                targets[row["key"]] = first
        held = {"count": len(targets), "sources": keys_hash(sorted(targets))}
        for name, value in held.items():
            if manifest[name] != value:
                raise KdcourseError(
                    f"The labels in {folder} are not those that its manifest speaks "
                    f"of: {name} {value} for {manifest[name]}.",
                    wanted="the folder as label_corpus() filled it",
                    todo="Copy it again, or delete it and run label_corpus() again.",
                )
        return cls(manifest, targets, several)

    def __len__(self) -> int:
        return len(self.targets)

    def __contains__(self, source: str) -> bool:
        return source_key(source) in self.targets

    def __getitem__(self, source: str) -> str:
        """The teacher's translation of a source.

        Raises:
            KdcourseError: this source was not labelled.
        """
        target = self.targets.get(source_key(source))
        if target is None:
            raise unlabelled([source])
        return target

    def candidates(self, source: str) -> list[str]:
        """All of the teacher's translations of a source, the first one first.

        Raises:
            KdcourseError: this source was not labelled.
        """
        return self.several.get(source_key(source)) or [self[source]]

    def check(self, sources: Iterable[str]) -> None:
        """Nothing, where each source has a label; else an error that counts them."""
        missing = [source for source in sources if source not in self]
        if missing:
            raise unlabelled(missing)


def unlabelled(missing: list[str]) -> KdcourseError:
    """The error for sources that have no label, with the first few of them."""
    shown = ", ".join(repr(source) for source in missing[:EXAMPLES])
    more = ", …" if len(missing) > EXAMPLES else ""
    return KdcourseError(
        f"{len(missing)} source{'s' * (len(missing) != 1)} without a label: "
        f"{shown}{more}.",
        wanted="labels made from these very sources (white space may differ)",
        todo="Label them with label_corpus(), or leave them out.",
    )


def label_corpus(
    sources: Iterable[str],
    teacher_folder: str | Path,
    out_folder: str | Path,
    *,
    beam: int = 4,
    compute_type: str = "int8",
    shard_size: int = 2000,
    workers: int = 1,
    candidates: int = 1,
    search: str = "beam",
) -> Labels:
    """Translate every distinct source with the teacher, through CTranslate2.

    Sequence-level distillation (Kim & Rush 2016) trains the student on these. The
    sources are sorted by key before they are cut into shards of ``shard_size``, so
    their order and their repetitions never matter. ``workers`` shards are made at a
    time, each on one thread: the bytes do not depend on it. A folder that is not
    finished is gone on with; a bar on standard error shows the progress.

    ``candidates`` above 1 keeps that many: the n best of the beam, at most ``beam``
    and different ones; or, with ``search="samples"``, y ~ Pr^t(· | z) drawn from the
    whole vocabulary, in PyTorch and float32, the same ones whenever they are drawn.

    Raises:
        KdcourseError: no source, an empty one, or a folder that holds the labels of
            another teacher, search or set of sources.
    """
    check_search(search, candidates, beam)
    texts = keyed(sources)
    keys = sorted(texts)
    wanted = {
        "format": FORMAT,
        "teacher": model_hash(teacher_folder),
        "beam": beam,
        "compute_type": compute_type,
        "ctranslate2": ctranslate2.__version__,
        "sources": keys_hash(keys),
        "count": len(keys),
        "shard_size": shard_size,
    }
    if (search, candidates) != ("beam", 1):  # what a plain search's does not name
        wanted |= {"search": search, "candidates": candidates}
    if search == "samples":
        workers = 1  # torch's threads all draw from one generator
    parts = shard_parts(keys, shard_size, ".jsonl.gz")
    store = Store(out_folder, wanted, parts, **STORE)
    left = sum(map(len, store.todo.values()))
    with tqdm(total=len(keys), desc="Labelling", unit=" sources", disable=None) as bar:
        bar.update(len(keys) - left)
        labellers: SimpleQueue[Labeller] = SimpleQueue()
        for _ in range(min(workers, len(store.todo))):
            labellers.put(labeller(teacher_folder, search, candidates, wanted))

        def make(part: list[str]) -> bytes:
            label = labellers.get()
            try:
                return pack(part, in_chunks([texts[key] for key in part], label, bar))
            finally:
                labellers.put(label)

        store.fill(make, workers)
    return Labels.load(out_folder)


def keys_hash(keys: Iterable[str]) -> str:
    """SHA-256 over all keys in ascending order: which sources were labelled."""
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def keyed(sources: Iterable[str]) -> dict[str, str]:
    """Distinct normalised sources by their keys."""
    texts = [normalise(source) for source in sources]
    if not texts or not all(texts):
        raise KdcourseError(
            f"Source number {texts.index('') + 1} is empty." if texts else "No source.",
            wanted="the training sources, each with some text",
            todo="Pass the sources of load_corpus(…)['train']; they are never empty.",
        )
    return {source_key(text): text for text in texts}


Labeller = Callable[[list[str]], list]  # texts to a translation or candidates each


def labeller(folder: str | Path, search: str, candidates: int, how: dict) -> Labeller:
    """What labels a chunk of texts: a search of the teacher's, or its samples."""
    if search == "samples":
        return TeacherSampler(folder, candidates)
    translator = open_translator(
        # The teacher's own words: a student is taught to spell names itself.
        folder,
        "ctranslate2",
        how["beam"],
        1,
        how["compute_type"],
        shield=False,
    )
    if candidates == 1:
        return translator.translate
    return lambda texts: translator.candidates(texts, candidates)


def check_search(search: str, candidates: int, beam: int) -> None:
    """An error for a search that is unknown or cannot give so many candidates."""
    if search not in SEARCHES:
        raise KdcourseError(
            f"Unknown search {search!r}.",
            wanted=f"one of {', '.join(SEARCHES)}",
            todo="Leave it out for the beam.",
        )
    most = beam if search == "beam" else MOST_SAMPLES
    if not 1 <= candidates <= most:
        raise KdcourseError(
            f"Asked for {candidates} candidates of each source.",
            wanted=f"from 1 to {most}" + (", the beam" if search == "beam" else ""),
            todo="Widen the beam, or ask for fewer.",
        )


class TeacherSampler:
    """Ancestral samples of a teacher; the same texts always get the same ones."""

    def __init__(self, folder: str | Path, candidates: int):
        self.model = load_model(model_folder(folder))
        self.vocabulary = load_vocabulary(model_folder(folder))
        self.candidates = candidates

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """``candidates`` samples for each text, in the order of their drawing."""
        rows = self.vocabulary(texts)["input_ids"]
        examples = [Example(row, [EOS_ID], key) for key, row in enumerate(rows)]
        said: list[list[str]] = [[] for _ in texts]
        seed = int(hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8], 16)
        with torch_threads_kept(), torch.random.fork_rng(devices=[]):
            torch.set_num_threads(1)  # two give other digits, and other samples
            torch.manual_seed(seed)
            for _ in range(self.candidates):
                for batch in self._batches(examples):
                    drawn = own_outputs(self.model, batch).labels
                    ids = drawn.masked_fill(drawn == IGNORE, EOS_ID)
                    lines = self.vocabulary.batch_decode(ids, skip_special_tokens=True)
                    for key, line in zip(batch.keys, lines, strict=True):
                        said[key].append(normalise(line))
        return said

    def _batches(self, examples: list[Example]) -> Iterator[Batch]:
        pad = self.model.config.pad_token_id
        return token_batches(examples, SAMPLE_TOKENS, pad, random.Random(0), "source")


def in_chunks(texts: list[str], label: Labeller, bar: tqdm) -> Iterator:
    """The translations of one shard, or their candidates, moving the bar along."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield from label(chunk)
        bar.update(len(chunk))


def pack(keys: list[str], targets: Iterable[str | list[str]]) -> bytes:
    """One shard: JSON lines, compressed, the same bytes at any time of day."""
    lines = (
        json.dumps({"key": key, name_of(target): target}, ensure_ascii=False) + "\n"
        for key, target in zip(keys, targets, strict=True)
    )
    return gzip.compress("".join(lines).encode(), mtime=0)


def name_of(target: str | list[str]) -> str:
    """The field that holds one translation, or several."""
    return "target" if isinstance(target, str) else "targets"


# --- Filtering -------------------------------------------------------------------


def fault(source: str, target: str) -> str | None:
    """What is wrong with a translation as training text, or None where it is sound.

    * empty: nothing was said;
    * looping: a phrase three times in a row, or letters five times, which the source
      does not have;
    * overlong: more than 40 characters and three times its source;
    * copied: the source again, which has three ordinary words or more (a name or a
      unit is rightly left as it is);
    * truncated: less than a third of a source of 40 characters or more;
    * placeholders: those such as ``{host}`` are not exactly the source's.
    """
    if not target:
        return "empty"
    loops = (WORD_LOOP, LETTER_LOOP)
    if any(loop.search(target) and not loop.search(source) for loop in loops):
        return "looping"
    if len(target) > max(LENGTH_RATIO_FROM, MAX_LENGTH_RATIO * len(source)):
        return "overlong"
    copied = normalise(source).casefold() == normalise(target).casefold()
    if copied and len(ORDINARY_WORD.findall(source)) >= COPIED_WORDS:
        return "copied"
    if len(source) >= TRUNCATED_FROM and len(target) < TRUNCATED_SHARE * len(source):
        return "truncated"
    if placeholders(source) != placeholders(target):
        return "placeholders"
    return None


def filter_labels(
    sources: Iterable[str], labels: Labels
) -> tuple[list[str], Counter[str]]:
    """The sources whose labels are sound, in order, and a count of each fault.

    ``labels`` may be anything that gives a translation for a source, a dict too.
    """
    kept: list[str] = []
    faults: Counter[str] = Counter()
    for source in sources:
        reason = fault(source, labels[source])
        if reason:
            faults[reason] += 1
        else:
            kept.append(source)
    return kept, faults
