"""Translate lines with a trained model, through PyTorch or through CTranslate2.

Both engines stand behind one small interface, ``translate(list[str]) -> list[str]``,
and search in the same way, so that in float32 they give the same translations and a
difference in speed is a difference in speed only. What they share:

* score of a hypothesis y of n tokens, EOS included:  log Pr(y | x) / n;
* a beam stops once it has finished as many hypotheses as it is wide;
* at most ``2 · n + 20`` output tokens, n the source tokens rounded up to a multiple
  of 16: the limit depends on the line alone, never on its neighbours in a batch.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerFast

from ..errors import KdcourseError
from .corpus import normalise
from .encoding import Encoder, Source, encoder_of
from .hub import SHIPPED as SHIPPED
from .hub import download_command, is_hub_name, model_folder
from .opus import VOCABULARY_FILES, is_opus, without_advice
from .shield import KNOWN_FILE, NameShield, restore
from .sources import cache_folder, file_hash, writing
from .vocabulary import EOS_ID, load_vocabulary

ENGINES = ("ctranslate2", "torch")
COMPUTE_TYPES = ("float32", "int8")
MAX_SOURCE_TOKENS = 150  # longer than any training string; what is longer is split
BATCH_TOKENS = 2048  # source tokens, pads included, searched at once
LENGTH_PENALTY = 1.0
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
OLD_WEIGHTS = "pytorch_model.bin"  # as older models on the Hub have them
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*$")


@runtime_checkable
class Translator(Protocol):
    """Anything that translates: as many lines out as went in, in the same order."""

    def translate(self, texts: list[str]) -> list[str]:
        """One translation for each text; an empty line for an empty line."""
        ...


def split_long(text: str, encoder: Encoder, limit: int) -> list[tuple[str, str]]:
    """A text as (separator before it, piece) pairs of at most ``limit`` tokens.

    Cut at the last sentence end that fits, else at the last space, else inside the
    word; the separators and pieces put together are the text again.
    """
    words: list[tuple[str, str]] = []
    whole = text.split(" ")
    for word, length in zip(whole, encoder.lengths(whole), strict=True):
        parts = [word] if length <= limit else encoder.halves(word, limit)
        words += [(" " if i == 0 else "", part) for i, part in enumerate(parts)]
    lengths = encoder.lengths([word for _, word in words])
    pieces, start = [], 0
    while start < len(words):
        end, total = start, 0
        while end < len(words) and (end == start or total + lengths[end] <= limit):
            total += lengths[end]
            end += 1
        if end < len(words):
            ends = range(end, start, -1)
            end = next((i for i in ends if SENTENCE_END.search(words[i - 1][1])), end)
        piece = "".join(gap + word for gap, word in words[start:end])
        gap = words[start][0]
        pieces.append((gap if pieces else "", piece.removeprefix(gap)))
        start = end
    return pieces


class SearchTranslator:
    """What both engines share: the texts' way to ids and back, and the batches.

    ``shield``, where there is one, carries unseen names around the model.
    """

    shield: NameShield | None = None

    def __init__(self, vocabulary: PreTrainedTokenizerFast, beam: int, threads: int):
        self.vocabulary, self.beam, self.threads = vocabulary, beam, threads
        self.encoder = encoder_of(vocabulary)

    def search(self, batch: list[Source]) -> list[list[int]]:
        """The ids of each source's best hypothesis; all sources share one limit."""
        return [best for best, *_ in self.search_many(batch, 1)]

    def search_many(self, batch: list[Source], count: int) -> list[list[list[int]]]:
        """The ids of each source's ``count`` best hypotheses, the best first."""
        raise NotImplementedError

    def candidates(self, texts: list[str], count: int) -> list[list[str]]:
        """The ``count`` best translations of each text, different ones, best first.

        At most ``beam`` can be asked for. A text that must be split, or of which
        nothing can be said, has its one translation.

        Raises:
            KdcourseError: more candidates than the beam holds.
        """
        if not 1 <= count <= self.beam:
            raise KdcourseError(
                f"Asked for {count} candidates of a beam of {self.beam}.",
                wanted="from 1 up to the beam",
                todo=f"Open the translator with beam={max(1, count)}.",
            )
        _check_texts(texts)
        whole = {t: normalise(t) for t in texts}
        pieces = {t for t in whole.values() if len(self._split(t)) == 1}
        sources = {piece: self.encoder.encode(piece) for piece in pieces}
        sayable = {p: s for p, s in sources.items() if self.encoder.sayable(s)}
        found: dict[str, list[str]] = {}
        for group in batches(sayable):
            results = self.search_many([sayable[piece] for piece in group], count)
            for piece, hypotheses in zip(group, results, strict=True):
                unknowns = sayable[piece].unknowns
                said = [self.encoder.decode(ids, unknowns) for ids in hypotheses]
                found[piece] = list(dict.fromkeys(text or piece for text in said))
        rest = [text for text in dict.fromkeys(whole.values()) if text not in found]
        for text, translation in zip(rest, self.translate(rest), strict=True):
            found[text] = [translation]
        return [found[whole[text]] for text in texts]

    def translate(self, texts: list[str]) -> list[str]:
        """One translation a text, in order; an empty line for an empty line.

        What the model cannot say comes back as it went in (white space normalised):
        a text without a known character, or one whose best hypothesis is empty.
        """
        _check_texts(texts)
        lines = [self._split(normalise(text)) for text in texts]
        said = self._shielded({piece for line in lines for _, piece in line})
        return [normalise("".join(g + said[p] for g, p in line)) for line in lines]

    def _shielded(self, pieces: set[str]) -> dict[str, str]:
        """The pieces' translations; where a covered name is lost, without a cover."""
        if self.shield is None:
            return self._said(pieces)
        covered = {piece: self.shield.cover(piece) for piece in pieces}
        said = self._said({text for text, _ in covered.values()})
        whole = {p: restore(said[text], names) for p, (text, names) in covered.items()}
        bare = self._said({piece for piece, text in whole.items() if text is None})
        return whole | bare

    def _said(self, pieces: set[str]) -> dict[str, str]:
        """Each piece's best hypothesis as text."""
        sources = {piece: self.encoder.encode(piece) for piece in pieces}
        sayable = {p: s for p, s in sources.items() if self.encoder.sayable(s)}
        said = {piece: piece for piece in pieces}
        for group in batches(sayable):
            results = self.search([sayable[piece] for piece in group])
            for piece, ids in zip(group, results, strict=True):
                text = self.encoder.decode(ids, sayable[piece].unknowns)
                said[piece] = text or piece
        return said

    def _split(self, text: str) -> list[tuple[str, str]]:
        if len(text) < MAX_SOURCE_TOKENS:  # a token holds at least one character
            return [("", text)]
        return split_long(text, self.encoder, MAX_SOURCE_TOKENS)


def _check_texts(texts: list[str]) -> None:
    wrong = [type(text).__name__ for text in texts if not isinstance(text, str)]
    if isinstance(texts, str) or wrong:
        given = f"a list with a {wrong[0]}" if wrong else "one string"
        raise KdcourseError(
            f"Asked to translate {given}.",
            wanted="a list of strings, one a line",
            todo='Write translate(["Turn on the light"]).',
        )


def batches(sources: dict[str, Source]) -> Iterator[list[str]]:
    """Pieces of one length limit at a time, shortest first, within BATCH_TOKENS.

    Sorted by length and then by text, so that the batches of a set of lines are
    the same in whatever order they come.
    """
    group: list[str] = []
    for piece in sorted(sources, key=lambda p: (len(sources[p].ids), p)):
        one = sources[piece]
        full = len(one.ids) * (len(group) + 1) > BATCH_TOKENS
        if group and (full or one.limit != sources[group[0]].limit):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


class TorchTranslator(SearchTranslator):
    """transformers' own ``generate``, as a newcomer would run it, in float32."""

    def __init__(self, folder: str | Path, beam: int = 1, threads: int = 1):
        from .models import load_model

        folder = check_model(folder)
        with reading(folder):
            super().__init__(load_vocabulary(folder), beam, threads)
            self.model = load_model(folder)

    def search_many(self, batch: list[Source], count: int) -> list[list[list[int]]]:
        """See :meth:`SearchTranslator.search_many`."""
        pad = self.model.config.pad_token_id
        width = max(len(one.ids) for one in batch)
        rows = [[*one.ids, *[pad] * (width - len(one.ids))] for one in batch]
        inputs = torch.tensor(rows)
        with torch_threads_kept(), torch.inference_mode():
            torch.set_num_threads(self.threads)
            output = self.model.generate(
                inputs,
                attention_mask=(inputs != pad).long(),
                num_return_sequences=count,
                **self._options(batch[0].limit),
            )
        rows = [_to_eos(row[1:]) for row in output.tolist()]
        return [rows[i : i + count] for i in range(0, len(rows), count)]

    def _options(self, limit: int) -> dict:
        options = {
            "num_beams": self.beam,
            "do_sample": False,
            "max_new_tokens": limit,
            "max_length": None,
            # CTranslate2 lets a hypothesis end without EOS at the limit; so does this.
            "forced_eos_token_id": None,
        }
        if self.beam > 1:
            # Stop at ``beam`` finished hypotheses, which is CTranslate2's patience = 1.
            options |= {"length_penalty": LENGTH_PENALTY, "early_stopping": True}
        return options


def _to_eos(ids: list[int]) -> list[int]:
    """The ids up to and including the first EOS; pads follow it in a batch."""
    return ids[: ids.index(EOS_ID) + 1] if EOS_ID in ids else ids


class CTranslate2Translator(SearchTranslator):
    """The same model in CTranslate2's optimised C++ runtime, float32 or int8."""

    def __init__(
        self,
        folder: str | Path,
        beam: int = 1,
        threads: int = 1,
        compute_type: str = "float32",
        cache: str | Path | None = None,
    ):
        import ctranslate2

        folder = check_model(folder)
        with reading(folder):
            super().__init__(load_vocabulary(folder), beam, threads)
        self.folder = converted_model(folder, compute_type, cache)
        self.compute_type = compute_type
        with torch_threads_kept():  # both share OpenMP, where this sets the number
            self.engine = ctranslate2.Translator(
                str(self.folder),
                device="cpu",
                compute_type=compute_type,
                inter_threads=1,
                intra_threads=threads,
            )
        self.ids = {piece: i for i, piece in enumerate(self.encoder.pieces)}

    def search_many(self, batch: list[Source], count: int) -> list[list[list[int]]]:
        """See :meth:`SearchTranslator.search_many`."""
        pieces = self.encoder.pieces
        results = self.engine.translate_batch(
            [[pieces[i] for i in one.ids] for one in batch],
            beam_size=self.beam,
            num_hypotheses=count,
            max_batch_size=0,  # the batch is already one of equal limits
            max_decoding_length=batch[0].limit,
            max_input_length=0,
            # The default of 1 would renormalise the first step without EOS.
            min_decoding_length=0,
            return_end_token=True,  # as generate() does
            length_penalty=LENGTH_PENALTY,
            patience=1,
        )
        return [[[self.ids[t] for t in h] for h in r.hypotheses] for r in results]


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Leave torch's number of threads as it was found."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Read a model: no bar of its own, and an error that says what to do."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with without_advice():
            yield
    except Exception as error:
        if not is_damage(error):
            raise
        raise KdcourseError(
            f"The model in {folder} cannot be read: {error}",
            wanted="a MarianMTModel folder as save_model() writes it, whole",
            todo="Save the model again, or copy the folder again.",
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def is_damage(error: BaseException) -> bool:
    """Whether a file was there and made no sense; a full disk or a kill is another.

    transformers raises an OSError without a number where config.json is cut, and
    tokenizers a bare Exception for tokenizer.json.
    """
    from safetensors import SafetensorError

    if isinstance(error, OSError):
        return error.errno is None
    told = (SafetensorError, ValueError, TypeError, KeyError, RuntimeError)
    return isinstance(error, told) or type(error) is Exception


def check_model(model: str | Path) -> Path:
    """The folder of a model, once it is known to hold it and its vocabulary."""
    folder = model_folder(model)
    names = model_files(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and not folder.exists() and is_hub_name(model):
        given = f"No folder {model} here, and no model of that name in the Hub's cache."
    elif missing:
        given = f"No model in {folder}: {', '.join(missing)} not found."
    elif '"marian"' not in (folder / "config.json").read_text(encoding="utf-8"):
        given = f"The model in {folder} is not a Marian model."
    else:
        return folder
    todo = "Check the spelling of --model, or train one first."
    if is_hub_name(model):
        todo = f"Check the spelling, or download it once: {download_command(model)}"
    raise KdcourseError(
        given,
        wanted="teacher, student, untaught, a folder written by save_model(), or a "
        "model of the Hub that was downloaded before",
        todo=todo,
    )


def model_files(folder: str | Path) -> list[str]:
    """The names of the files that decide what a model says: settings, weights, ids."""
    folder = Path(folder)
    config, weights, vocabulary = MODEL_FILES
    old = not (folder / weights).is_file() and (folder / OLD_WEIGHTS).is_file()
    ours = (folder / vocabulary).is_file()
    opus = any((folder / name).is_file() for name in VOCABULARY_FILES) and not ours
    return [
        config,
        OLD_WEIGHTS if old else weights,
        *(VOCABULARY_FILES if opus else (vocabulary,)),
    ]


def text_files(folder: str | Path) -> list[Path]:
    """What a model needs on a device beside its weights: vocabulary and known words."""
    names = VOCABULARY_FILES if is_opus(folder) else ("tokenizer.json",)
    paths = [Path(folder) / name for name in (*names, KNOWN_FILE)]
    return [path for path in paths if path.is_file()]


def model_hash(model: str | Path) -> str:
    """SHA-256 over configuration, weights and vocabulary, in hex."""
    folder = check_model(model)
    parts = "".join(file_hash(folder / name) for name in model_files(folder))
    return hashlib.sha256(parts.encode()).hexdigest()


def converted_model(
    folder: str | Path, compute_type: str, cache: str | Path | None = None
) -> Path:
    """The CTranslate2 form of a model, converted once and kept in the cache.

    Kept under the model's hash and precision: a retrained model is converted anew.
    Written beside its place and renamed, so a half-written one is never found.
    """
    import ctranslate2

    home = cache_folder(cache) / "ctranslate2"
    name = f"{model_hash(folder)[:16]}-{compute_type}-{ctranslate2.__version__}"
    place = home / name
    if (place / "model.bin").is_file():
        return place
    with writing(home) as partial:
        _convert(folder, partial / name, compute_type)
        try:
            os.replace(partial / name, place)
        except OSError:
            if not (place / "model.bin").is_file():  # else another process was first
                raise
    return place


def _convert(folder: str | Path, output: Path, compute_type: str) -> None:
    from ctranslate2.converters import TransformersConverter

    with reading(Path(folder)):
        converter = TransformersConverter(str(folder))
        converter.convert(str(output), quantization=compute_type)


def open_translator(
    model: str | Path = "student",
    engine: str = "ctranslate2",
    beam: int = 1,
    threads: int = 1,
    compute_type: str = "float32",
    shield: bool = True,
) -> SearchTranslator:
    """A translator of a shipped model (teacher, student, untaught) or of a folder.

    A folder may also be in the format of Helsinki-NLP/opus-mt, and ``model`` the name
    of such a model that the Hub's cache holds.

    ``beam`` 1 is greedy search. ``compute_type`` is float32, or int8, which only the
    engine ctranslate2 has: an eighth to a quarter of the size, and faster. ``shield``
    False lets the model spell unseen names itself; a folder without a list of known
    words has no shield.
    """
    if engine not in ENGINES:
        raise _unknown("engine", engine, ENGINES, "--engine")
    if compute_type not in COMPUTE_TYPES:
        raise _unknown("compute type", compute_type, COMPUTE_TYPES, "--compute-type")
    if engine == "torch" and compute_type != "float32":
        raise KdcourseError(
            f"The engine torch was asked for {compute_type}.",
            wanted="float32 with the engine torch; int8 needs the engine ctranslate2",
            todo="Leave out --compute-type, or choose --engine ctranslate2.",
        )
    for name, value in (("beam", beam), ("threads", threads)):
        if not isinstance(value, int) or value < 1:
            raise KdcourseError(
                f"The {name} is {value!r}.",
                wanted="a whole number from 1 up",
                todo=f"Give --{name} 1 or more; a beam of 1 is greedy search.",
            )
    folder = check_model(model)
    if engine == "torch":
        translator = TorchTranslator(folder, beam, threads)
    else:
        translator = CTranslate2Translator(folder, beam, threads, compute_type)
    translator.shield = NameShield.load(folder) if shield else None
    return translator


def _unknown(what: str, given: str, known: tuple, option: str) -> KdcourseError:
    return KdcourseError(
        f"Unknown {what} {given!r}.",
        wanted=f"one of {', '.join(known)}",
        todo=f"Check {option}, or leave it out.",
    )
