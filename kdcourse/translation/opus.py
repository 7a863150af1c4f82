"""Models in the format of Helsinki-NLP/opus-mt: translators that the Hub gives away.

Such a folder holds ``config.json``, ``generation_config.json``, the weights
(``model.safetensors`` or ``pytorch_model.bin``) and, in the place of our
``tokenizer.json``, three files of a vocabulary::

    source.spm, target.spm    one SentencePiece model a language: how text is cut
    vocab.json                piece → id, one list for both: what the model counts in

The two languages are cut by two models, so a target must be encoded as a target:
``tokenizer(text_target=…)``. Encoded as a source it still gets valid ids, of other
pieces than the model ever said (huggingface/transformers#6262).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import KdcourseError

if TYPE_CHECKING:
    from transformers import MarianTokenizer

VOCABULARY_FILES = ("vocab.json", "source.spm", "target.spm")
MOST_LANGUAGES = 1


def is_opus(folder: str | Path) -> bool:
    """Whether a folder has a vocabulary of this format, and none of ours."""
    folder = Path(folder)
    ours = (folder / "tokenizer.json").is_file()
    return not ours and all((folder / name).is_file() for name in VOCABULARY_FILES)


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep MarianTokenizer from advising sacremoses: it no longer uses it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        yield


def load_opus_vocabulary(folder: str | Path) -> MarianTokenizer:
    """Read the vocabulary of an opus-mt folder, and check the order of its ids.

    ``</s>`` is 0, ``<unk>`` is 1 and ``<pad>`` comes last, as in our own.

    Raises:
        KdcourseError: the files cannot be read, the ids are in another order, the
            languages have a list each, or the model speaks several languages.
    """
    from transformers import MarianTokenizer

    try:
        with without_advice():
            vocabulary = MarianTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise KdcourseError(
            f"The vocabulary in {folder} cannot be read: {error}",
            wanted=f"{', '.join(VOCABULARY_FILES)}, whole",
            todo="Download or copy the folder again.",
        ) from error
    check_order(vocabulary, folder)
    return vocabulary


def check_order(vocabulary: MarianTokenizer, folder: str | Path) -> None:
    """An error where the ids are not in the order that all code here relies on."""
    size, ids = len(vocabulary), vocabulary.encoder
    codes = vocabulary.supported_language_codes
    given = None
    if vocabulary.separate_vocabs:
        given = "a list of ids for each language"
    elif sorted(ids.values()) != list(range(size)):
        given = f"{len(ids)} pieces for the ids 0 to {size - 1}, not one each"
    elif (ids["</s>"], ids["<unk>"], ids.get("<pad>")) != (0, 1, size - 1):
        given = f"</s> {ids['</s>']}, <unk> {ids['<unk>']}, <pad> {ids.get('<pad>')}"
    elif len(codes) > MOST_LANGUAGES:
        given = f"{len(codes)} target languages ({', '.join(codes[:3])}, …)"
    if given:
        raise KdcourseError(
            f"The vocabulary in {folder} has {given}.",
            wanted="one list for one pair of languages: </s> 0, <unk> 1, … and <pad> "
            f"last ({size - 1}), as in Helsinki-NLP/opus-mt-en-es",
            todo="Take the opus-mt model of one pair of languages.",
        )


def source_pieces(vocabulary: MarianTokenizer) -> dict[str, tuple[int, float]]:
    """Each piece that a source may be cut into: its id, and its log-probability.

    A piece that vocab.json does not list has the id of ``<unk>``, as in the tokenizer.
    """
    model = vocabulary.spm_source
    return {
        model.id_to_piece(i): (
            vocabulary.encoder.get(model.id_to_piece(i), vocabulary.unk_token_id),
            model.get_score(i),
        )
        for i in range(model.get_piece_size())
        if not (model.is_control(i) or model.is_unknown(i))
    }


def source_words(vocabulary: MarianTokenizer, text: str) -> list[str]:
    """A source's words as SentencePiece normalises them (NFKC, and its own rules)."""
    return vocabulary.spm_source.normalize(text).replace("▁", " ").split()


def pieces_by_id(vocabulary: MarianTokenizer) -> list[str]:
    """All pieces, in the order of their ids."""
    return sorted(vocabulary.encoder, key=vocabulary.encoder.get)


def fingerprint(vocabulary: MarianTokenizer) -> str:
    """All that decides which ids a text gets, as text: the three files' contents."""
    models = (vocabulary.spm_source, vocabulary.spm_target)
    return json.dumps(
        [vocabulary.encoder, *(m.serialized_model_proto().hex() for m in models)],
        sort_keys=True,
    )
