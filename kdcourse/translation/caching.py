"""The teacher's answers to every target token of a corpus, kept for many epochs.

``cache_signals`` asks one teacher, or an ensemble, in memory. ``cache_corpus`` keeps
the answers on disk: found by a hash of source and target, never by position, so that
no shuffle can misalign them, and made in shards, so that a run that was killed at any
moment and started again ends with the very same bytes.

On disk, a folder of ``manifest.json`` and ``shard-00000.safetensors`` …; a shard of n
rows with N target tokens in all holds

===========  ==========  =======  ==================================================
tensor       shape       dtype    contents
===========  ==========  =======  ==================================================
keys         (n, 8)      uint8    first bytes of SHA-256(source, target), ascending
lengths      (n,)        int32    target tokens of each row, EOS included; Σ = N
indices      (N, k)      int16    token ids, the most probable first
log_probs    (N, k)      float16  log Pr^t of these, at the temperature
log_rest     (N,)        float16  log of the mass outside the k
===========  ==========  =======  ==================================================

At k = 8 that is 34 bytes a token, where all of 8,000 logits in float32 are 32,000.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from tqdm import tqdm
from transformers import MarianMTModel, PreTrainedTokenizerFast

from ..errors import KdcourseError
from ..theory.arguments import check_k, check_softening
from ..theory.signals import Dense, Signal, TopK, top_k
from .decoding import model_folder, model_hash, torch_threads_kept
from .examples import encode_targets
from .models import load_model
from .opus import fingerprint
from .own_vocabulary import check_same_vocabulary
from .storage import Store, read_store, shard_parts
from .training import (
    Batch,
    Example,
    explained_memory,
    precision_here,
    token_batches,
    token_logits,
)
from .vocabulary import load_vocabulary

FORMAT = 1  # raise it whenever the same teacher would give other answers or files
KEY_BYTES = 8
EXAMPLES = 3  # shown in an error
ORIGIN = (
    "format",
    "teacher",
    "weights",
    "vocabulary",
    "k",
    "temperature",
    "precision",
    "rows",
    "count",
    "tokens",
    "shard_size",
)
MAKER, THINGS = "cache_corpus()", "signals"
TOP_K_TENSORS = ("indices", "log_probs", "log_rest")
WHAT = {"format": "version", "rows": "corpus", "count": "corpus", "tokens": "corpus"}
ALL = "all"  # in a manifest, the k of a cache that keeps the whole distribution
Teachers = MarianMTModel | Sequence[MarianMTModel]
Folders = str | Path | Sequence[str | Path]


@dataclass
class SignalCache:
    """Answers of the teacher to every target token of a corpus, row by row.

    ``answers`` is one signal, ``TopK`` or ``Dense``, over all N target tokens;
    ``offsets[i]`` is where row i begins, and a row has one answer a target token, EOS
    included. The row numbers are those of the examples the cache was made from.
    ``origin`` is the size and the folder of the teacher that was asked in memory: what
    tells a student of another vocabulary. A cache from disk has checked it already.
    """

    answers: Signal
    offsets: torch.Tensor
    origin: tuple[int, str] | None = None

    def signal(self, batch: Batch) -> Signal:
        """The teacher's answers to a batch, in the order of its real tokens.

        Raises:
            KdcourseError: a row has another number of target tokens than was cached.
        """
        last = len(self.offsets) - 1
        if not all(0 <= key < last for key in batch.keys):
            raise KdcourseError(
                f"The batch has rows {min(batch.keys)} to {max(batch.keys)}.",
                wanted=f"keys in 0..{last - 1}, the rows that were cached",
                todo="Give each Example the number of its row in the cache as key.",
            )
        rows = self._tokens(batch.keys)
        if len(rows) != batch.tokens:
            raise KdcourseError(
                f"The cache has {len(rows)} answers for {batch.tokens} target tokens.",
                wanted="signals cached from the very targets that are trained on",
                todo="Call cache_signals() on these examples.",
            )
        return self.answers.rows(rows)

    def _tokens(self, rows: Sequence[int]) -> torch.Tensor:
        spans = [
            torch.arange(int(self.offsets[row]), int(self.offsets[row + 1]))
            for row in rows
        ]
        return torch.cat(spans)

    @property
    def temperature(self) -> float:
        """The temperature at which top-k answers were taken; a loss must use it too.

        Dense answers can be softened afterwards: theirs is 1.
        """
        return getattr(self.answers, "temperature", 1.0)

    @property
    def kept_mass(self) -> float:
        """The mean share of the teacher's mass that the k entries hold."""
        if isinstance(self.answers, Dense):
            return 1.0
        return float(self.answers.log_probs.float().exp().sum(dim=1).mean())

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one target token's answer takes, in memory and on disk."""
        return self.answers.bytes_per_token

    @classmethod
    def load(
        cls,
        folder: str | Path,
        sources: list[str],
        targets: list[str],
        vocabulary: PreTrainedTokenizerFast,
        *,
        teacher: Folders | None = None,
    ) -> SignalCache:
        """The answers to these pairs, in their order, from a folder of cache_corpus().

        Some of the pairs that were cached are enough, and one may come twice.
        ``teacher``, where given, must be what answered.

        Raises:
            KdcourseError: there is no finished cache, it was altered, or it is of
                another teacher, another vocabulary or another corpus.
        """
        check_pairs(sources, targets)
        manifest, shards = read_store(folder, ORIGIN, maker=MAKER, things=THINGS)
        wanted = {"format": FORMAT, "vocabulary": vocabulary_hash(vocabulary)}
        if teacher is not None:
            wanted["teacher"] = [model_hash(f) for f in _teacher_folders(teacher)]
        for name, value in wanted.items():
            if manifest[name] != value:
                raise _of_another(folder, name, manifest[name], value)
        stored = [_unpacked(data, folder, manifest) for data in shards]
        _check_rows(folder, stored, manifest)
        return cls._arranged(
            folder, stored, manifest["temperature"], sources, targets, vocabulary
        )

    @classmethod
    def _arranged(cls, folder, stored, temperature, sources, targets, vocabulary):
        """The stored rows in the order in which they are asked for."""
        parts = {n: torch.cat([shard[n] for shard in stored]) for n in stored[0]}
        numbers = {key.tobytes(): i for i, key in enumerate(parts["keys"].numpy())}
        pairs = list(zip(sources, targets, strict=True))
        rows = [numbers.get(row_key(source, target)) for source, target in pairs]
        missing = [pair for pair, row in zip(pairs, rows, strict=True) if row is None]
        if missing:
            raise _uncached(folder, missing, len(pairs))
        lengths = parts["lengths"][rows]
        told = torch.tensor([len(ids) for ids in encode_targets(targets, vocabulary)])
        if not torch.equal(lengths.long(), told):
            row = int((lengths != told).nonzero()[0])
            raise KdcourseError(
                f"{folder} has {int(lengths[row])} answers for the {int(told[row])} "
                f"tokens of {targets[row]!r}.",
                wanted="one answer for each target token",
                todo="Delete the folder and run cache_corpus() again.",
            )
        whole = cls(_signal(parts, temperature), _offsets(parts["lengths"]))
        return cls(whole.answers.rows(whole._tokens(rows)), _offsets(lengths))


# --- In memory -------------------------------------------------------------------


def cache_signals(
    teacher: Teachers,
    examples: list[Example],
    k: int | None = 8,
    *,
    temperature: float = 1.0,
    weights: Sequence[float] | None = None,
    precision: str = "float32",
    batch_tokens: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> SignalCache:
    """Ask the teacher once, teacher-forced, about every token; keep the k best.

    Several teachers answer together, with the mean of their distributions::

        log Pr^t(v) = log Σ_m w_m softmax(z_m / T)_v,    Σ_m w_m = 1

    summed in float32; ``weights`` are scaled to that sum, and equal where there are
    none. ``k=None`` keeps the whole distribution, in float16: 2 V bytes a token, to
    measure what k leaves out. Ids take 16 bits where the vocabulary allows it.
    ``log_rest`` (2 bytes) is kept too, unless k = V: a sure teacher's missing mass is
    less than the rounding of the k entries, from which it could not be had again.

    Raises:
        KdcourseError: teachers that speak different vocabularies, weights that are
            none, answers that are not numbers, or a batch too large for the memory.
        BadArgument: k or the temperature out of range.
    """
    teachers = _as_list(teacher)
    shares = _shares(weights, len(teachers))
    size = _common_size(teachers)
    _check_lengths(examples, teachers)
    check_softening(temperature)
    if k is None and temperature != 1.0:
        raise KdcourseError(
            f"The whole distribution at temperature {temperature}.",
            wanted="temperature 1: whole answers are softened when they are used",
            todo="Leave temperature out here, and give it to the loss.",
        )
    lengths = torch.tensor([len(e.target) for e in examples])
    offsets = _offsets(lengths)
    kept = _empty(int(offsets[-1]), k, size)
    origin = (size, teachers[0].name_or_path)
    cache = SignalCache(_signal(kept, temperature), offsets, origin)
    keyed = [Example(e.source, e.target, row) for row, e in enumerate(examples)]
    for model in teachers:
        model.eval()
    pad = teachers[0].config.pad_token_id
    with torch.inference_mode():
        for batch in token_batches(keyed, batch_tokens, pad, random.Random(0)):
            rows = cache._tokens(batch.keys)
            with explained_memory(batch.shape, "The answers made so far are kept."):
                for name, values in _ask(
                    teachers, shares, batch, k, temperature, precision
                ).items():
                    kept[name][rows] = values.to(kept[name].dtype)
            if progress:
                progress(batch.tokens)
    return cache


def _as_list(one_or_more) -> list:
    alone = isinstance(one_or_more, (MarianMTModel, str, Path))
    several = [one_or_more] if alone else list(one_or_more)
    if not several:
        raise KdcourseError(
            "A list of no teachers.",
            wanted="one teacher, or a list of them",
            todo="Load them with load_model().",
        )
    return several


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """The teachers' weights, scaled to the sum 1."""
    weights = [1.0] * count if weights is None else [float(w) for w in weights]
    right = all(0.0 < weight < math.inf for weight in weights)
    if not right or len(weights) != count:
        raise KdcourseError(
            f"Weights {weights} for {count} teacher{'s' * (count != 1)}.",
            wanted="one positive number for each teacher",
            todo="Leave weights out for the plain mean.",
        )
    return [weight / sum(weights) for weight in weights]


def _common_size(teachers: list[MarianMTModel]) -> int:
    sizes = [model.config.vocab_size for model in teachers]
    if len(set(sizes)) > 1:
        raise KdcourseError(
            f"Teachers of {', '.join(map(str, sizes))} tokens.",
            wanted="one vocabulary: distributions are averaged token by token",
            todo="Average teachers trained on the same vocabulary only.",
        )
    return sizes[0]


def _check_lengths(examples: list[Example], teachers: list[MarianMTModel]) -> None:
    most = min(model.config.max_position_embeddings for model in teachers)
    for row, example in enumerate(examples):
        longest = max(len(example.source), len(example.target))
        if longest > most:
            raise KdcourseError(
                f"Row {row} of the examples has {longest} tokens on one side.",
                wanted=f"at most {most}, the positions that the teacher knows",
                todo="Leave such rows out, or cut them into sentences.",
            )


def _empty(tokens: int, k: int | None, size: int) -> dict[str, torch.Tensor]:
    """Room for the answers to so many tokens, as they are stored."""
    if k is None:
        return {"logits": torch.empty(tokens, size, dtype=torch.float16)}
    small = size - 1 <= torch.iinfo(torch.int16).max
    check_k(k, size)
    room = {
        "indices": torch.empty(tokens, k, dtype=torch.int16 if small else torch.int32),
        "log_probs": torch.empty(tokens, k, dtype=torch.float16),
    }
    if k < size:
        room["log_rest"] = torch.empty(tokens, dtype=torch.float16)
    return room


def _ask(teachers, shares, batch, k, temperature, precision) -> dict:
    """The answers to the real tokens of a batch, by the names of their tensors."""
    if len(teachers) == 1:
        scores = token_logits(teachers[0], batch, precision)
    else:
        scores, temperature = (
            _mixture(
                (
                    token_logits(model, batch, precision) / temperature
                    for model in teachers
                ),
                shares,
            ),
            1.0,
        )
    if scores.isnan().any() or scores.isposinf().any():
        raise KdcourseError(
            f"The teacher's answers to rows {sorted(batch.keys)[:EXAMPLES]} … are not "
            "numbers.",
            wanted="finite logits for every token",
            todo="Train or copy the teacher again: its weights are damaged.",
        )
    if k is None:
        return {"logits": scores.log_softmax(dim=-1)}
    best = top_k(scores, k, temperature=temperature)
    found = {"indices": best.indices, "log_probs": best.log_probs}
    return found if k == scores.shape[-1] else found | {"log_rest": best.log_rest}


def _mixture(logits: Iterable[torch.Tensor], shares: list[float]) -> torch.Tensor:
    """log Σ_m w_m softmax(z_m) (N, V), one teacher after the other, in log space."""
    total = None
    for scores, share in zip(logits, shares, strict=True):
        log_p = scores.log_softmax(dim=-1) + math.log(share)
        total = log_p if total is None else torch.logaddexp(total, log_p)
    return total


def _signal(parts: dict[str, torch.Tensor], temperature: float) -> Signal:
    """The stored tensors as the value that a loss asks."""
    if "logits" in parts:
        return Dense(parts["logits"])
    return TopK(
        parts["indices"],
        parts["log_probs"],
        temperature=temperature,
        log_rest=parts.get("log_rest"),
    )


def _offsets(lengths: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.long), lengths.long().cumsum(0)])


# --- On disk ---------------------------------------------------------------------


def cache_corpus(
    sources: list[str],
    targets: list[str],
    vocabulary: PreTrainedTokenizerFast,
    teacher_folder: Folders,
    out_folder: str | Path,
    *,
    k: int | None = 8,
    temperature: float = 1.0,
    weights: Sequence[float] | None = None,
    precision: str = "float32",
    shard_size: int = 2000,
    batch_tokens: int = 2000,
    workers: int = 1,
) -> SignalCache:
    """The answers of a teacher, or of an ensemble, to all targets, kept in a folder.

    The rows are sorted by the hash of source and target before they are cut into
    shards, so their order and their repetitions never matter. ``workers`` shards are
    made at a time, each on one thread and batched by itself: on one machine the bytes
    depend on neither ``workers`` nor on how often the run was killed. A folder that
    is not finished is gone on with; a bar on standard error shows the progress.
    ``k``, ``temperature``, ``weights`` and ``precision`` (also "auto", the faster one
    here) are as for ``cache_signals``. A smaller ``batch_tokens`` needs less memory
    and may move the last digit of an answer; a begun folder accepts it.

    Raises:
        KdcourseError: no pair, a teacher of another vocabulary, a folder that holds
            the answers of another teacher, setting or corpus, a disk that is full;
            and what ``cache_signals`` raises.
    """
    check_pairs(sources, targets)
    folders = _teacher_folders(teacher_folder)
    for folder in folders:
        _check_vocabulary(folder, vocabulary)
    precision = precision_here(precision)
    pairs = {row_key(s, t): (s, t) for s, t in zip(sources, targets, strict=True)}
    rows = _rows(pairs, vocabulary)
    wanted = {
        "format": FORMAT,
        "teacher": [model_hash(folder) for folder in folders],
        "weights": _shares(weights, len(folders)),
        "vocabulary": vocabulary_hash(vocabulary),
        "k": ALL if k is None else k,
        "temperature": temperature,
        "precision": precision,
        "rows": _rows_hash(key for key, _ in rows),
        "count": len(rows),
        "tokens": sum(len(example.target) for _, example in rows),
        "shard_size": shard_size,
    }
    parts = shard_parts(rows, shard_size, ".safetensors")
    store = Store(out_folder, wanted, parts, maker=MAKER, things=THINGS)
    missing = sum(len(e.target) for part in store.todo.values() for _, e in part)
    teachers = [load_model(folder) for folder in folders] if store.todo else []
    bar = tqdm(total=wanted["tokens"], desc="Caching", unit=" tokens", disable=None)
    with bar, torch_threads_kept():

        def make(part: list[tuple[bytes, Example]]) -> bytes:
            torch.set_num_threads(1)  # of this worker: sums depend on their number
            cache = cache_signals(
                teachers,
                [example for _, example in part],
                k,
                temperature=temperature,
                weights=weights,
                precision=precision,
                batch_tokens=batch_tokens,
                progress=bar.update,
            )
            return _packed([key for key, _ in part], cache)

        bar.update(wanted["tokens"] - missing)
        store.fill(make, workers)
    return SignalCache.load(out_folder, sources, targets, vocabulary)


def check_pairs(sources: list[str], targets: list[str]) -> None:
    """An error where there is no pair, or a source without its target."""
    if len(sources) != len(targets) or not sources:
        raise KdcourseError(
            f"{len(sources)} sources and {len(targets)} targets.",
            wanted="one target a source, in the same order, and at least one of each",
            todo="Join them by key (Labels), never by position in two files.",
        )


def row_key(source: str, target: str) -> bytes:
    """What a row is found by: the first 8 bytes of SHA-256 over source and target."""
    text = json.dumps([source, target])
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def vocabulary_hash(vocabulary: PreTrainedTokenizerFast) -> str:
    """SHA-256 over all that decides which ids a text gets, in hex.

    How a tokenizer was last asked to pad or cut is left out.
    """
    if getattr(vocabulary, "is_fast", False):
        rules = json.loads(vocabulary.backend_tokenizer.to_str())
        rules = {n: v for n, v in rules.items() if n not in ("padding", "truncation")}
    else:
        rules = fingerprint(vocabulary)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _rows(pairs: dict[bytes, tuple[str, str]], vocabulary) -> list:
    """Each distinct pair's key and token ids, ascending by key."""
    keys = sorted(pairs)
    ids = zip(
        keys,
        vocabulary([pairs[key][0] for key in keys])["input_ids"],
        encode_targets([pairs[key][1] for key in keys], vocabulary),
        strict=True,
    )
    return [(key, Example(source, target)) for key, source, target in ids]


def _rows_hash(keys: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(keys)).hexdigest()


def _packed(keys: list[bytes], cache: SignalCache) -> bytes:
    """One shard: a safetensors file, the same bytes for the same answers."""
    answers = cache.answers
    names = ("logits",) if isinstance(answers, Dense) else TOP_K_TENSORS
    found = {name: getattr(answers, name) for name in names}
    return safetensors.torch.save(
        {
            "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(
                len(keys), KEY_BYTES
            ),
            "lengths": cache.offsets.diff().int(),
            **{name: values for name, values in found.items() if values is not None},
        }
    )


def _unpacked(data: bytes, folder, manifest: dict) -> dict[str, torch.Tensor]:
    """The tensors of a shard, which must be those that the manifest speaks of."""
    parts = safetensors.torch.load(data)
    if "indices" in parts:
        k = parts["indices"].shape[1]
    else:
        k = ALL
    if k != manifest["k"]:
        raise _of_another(folder, "k", k, manifest["k"])
    return parts


def _check_rows(folder, stored: list[dict], manifest: dict) -> None:
    """An error where the shards together do not hold the rows of the manifest."""
    keys = b"".join(part["keys"].numpy().tobytes() for part in stored)
    tokens = sum(int(part["lengths"].sum()) for part in stored)
    held = {"rows": _rows_hash([keys]), "tokens": tokens}
    held["count"] = len(keys) // KEY_BYTES
    for name, value in held.items():
        if value != manifest[name]:
            raise _of_another(folder, name, value, manifest[name])


def _teacher_folders(teacher: Folders) -> list[Path]:
    return [model_folder(one) for one in _as_list(teacher)]


def _check_vocabulary(folder: Path, vocabulary) -> None:
    own = load_vocabulary(folder)
    check_same_vocabulary(own, vocabulary)
    if vocabulary_hash(own) != vocabulary_hash(vocabulary):
        raise KdcourseError(
            f"The teacher in {folder} cuts text in another way than the vocabulary "
            "given, though the tokens are the same.",
            wanted="the teacher's own way: it is asked about the pieces it knows",
            todo="Give the teacher's vocabulary: load_vocabulary(FOLDER).",
        )


def _of_another(folder, name: str, found, wanted) -> KdcourseError:
    return KdcourseError(
        f"{folder} holds the signals of another {WHAT.get(name, name)}: {name} "
        f"{found!r} for {wanted!r}.",
        wanted="the folder that cache_corpus() made for these very inputs",
        todo="Name that folder, or make one with cache_corpus().",
    )


def _uncached(folder, missing: list[tuple[str, str]], count: int) -> KdcourseError:
    shown = ", ".join(f"{s!r} → {t!r}" for s, t in missing[:EXAMPLES])
    more = ", …" if len(missing) > EXAMPLES else ""
    return KdcourseError(
        f"{folder} holds the signals of another corpus: {len(missing)} of {count} "
        f"pairs are not in it: {shown}{more}.",
        wanted="signals cached for these very sources and targets",
        todo="Run cache_corpus() on these pairs, with a folder of its own.",
    )
