"""Text to ids and back for a search, treating whatever a user typed as text.

Not the tokenizer's own call: to that, a typed "</s>" is the end of the sentence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from .corpus import normalise
from .opus import pieces_by_id
from .vocabulary import EOS_ID, SPACE, UNK_ID, Vocabulary

if TYPE_CHECKING:
    from transformers import MarianTokenizer

BUCKET = 16
# Never part of a normalised string, so a typed "</s>" cannot meet it.
UNTYPABLE = "\n"
Span = tuple[int, int, int]  # a token: its id, and where it begins and ends in the text


@dataclass(frozen=True)
class Source:
    """A piece of a line, ready for the model: ids with EOS, and its unknown runs."""

    ids: tuple[int, ...]
    unknowns: tuple[str, ...]

    @property
    def limit(self) -> int:
        """The most tokens its translation may have, EOS included."""
        return 2 * (-(-len(self.ids) // BUCKET) * BUCKET) + 20


class Encoder:
    """Text to ids and back with a ``tokenizer.json``.

    In the vocabulary of a Unigram model ``</s>`` is an ordinary piece as well, so
    a typed "</s>" would end the sentence, even with ``split_special_tokens``. This
    copy of the tokenizer knows its special tokens by names that nobody can type.
    """

    def __init__(self, vocabulary: PreTrainedTokenizerFast):
        state = json.loads(vocabulary.backend_tokenizer.to_str())
        pieces = state["model"]["vocab"]
        self.pieces = [piece for piece, _ in pieces]
        self.specials = {token["id"] for token in state["added_tokens"]} - {UNK_ID}
        for index in (*self.specials, UNK_ID):
            pieces[index][0] = f"{UNTYPABLE}{index}"
        state["added_tokens"], state["post_processor"] = [], None
        self.core = Tokenizer.from_str(json.dumps(state))

    def spans(self, texts: list[str]) -> list[list[Span]]:
        """The tokens of each text, without EOS."""
        if len(texts) == 1:  # a batch of one would only wait for the thread pool
            coded = [self.core.encode(texts[0], add_special_tokens=False)]
        else:
            coded = self.core.encode_batch(texts, add_special_tokens=False)
        return [
            [(i, a, b) for i, (a, b) in zip(one.ids, one.offsets, strict=True)]
            for one in coded
        ]

    def encode(self, text: str) -> Source:
        """The ids of a normalised text, EOS last, and its unknown runs."""
        (spans,) = self.spans([text])
        unknowns = tuple(text[a:b] for index, a, b in spans if index == UNK_ID)
        return Source((*(index for index, *_ in spans), EOS_ID), unknowns)

    def lengths(self, words: list[str]) -> list[int]:
        """How many tokens each word takes; a text takes the sum over its words."""
        return [len(spans) for spans in self.spans(words)]

    def halves(self, word: str, limit: int) -> list[str]:
        """A word cut into parts of at most ``limit`` tokens, between its characters."""
        ends = [end for _, _, end in self.spans([word])[0]]
        if len(ends) <= limit:
            return [word]
        # A part may be segmented anew and grow by a token or two, hence the margin.
        cuts = sorted({0, len(word), *ends[limit - 4 :: limit - 4]})
        return [word[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]

    def sayable(self, source: Source) -> bool:
        """Whether the vocabulary knows any of its characters."""
        return any(
            index != UNK_ID and self.pieces[index] != SPACE for index in source.ids[:-1]
        )

    def decode(self, ids: list[int], unknowns: tuple[str, ...]) -> str:
        """Ids to text; the k-th <unk> becomes the k-th unknown run of the source.

        Luong et al. 2015, "Addressing the rare word problem in neural machine
        translation", with the positions left to the order of the unknowns.
        """
        runs, parts = iter(unknowns), []
        for index in ids:
            if index == UNK_ID:
                parts.append(next(runs, ""))
            elif index not in self.specials:
                parts.append(self.pieces[index].replace(SPACE, " "))
        return normalise("".join(parts))


class OpusEncoder(Encoder):
    """The same with the vocabulary of an opus-mt model: sources cut by source.spm.

    SentencePiece itself cuts the text: to it a typed "</s>" or ">>de<<" is text.
    """

    def __init__(self, vocabulary: MarianTokenizer):
        self.pieces = pieces_by_id(vocabulary)
        self.specials = {vocabulary.eos_token_id, vocabulary.pad_token_id}
        self.model = vocabulary.spm_source
        known = {i: piece for i, piece in enumerate(self.pieces)}
        self.ids = {p: i for i, p in known.items() if i not in self.specials}

    def spans(self, texts: list[str]) -> list[list[Span]]:
        """The tokens of each text, without EOS; pieces not listed are ``<unk>``."""
        found = [
            self.model.encode(text, return_type="offset_mapping") for text in texts
        ]
        return [
            [
                (self.ids.get(piece, UNK_ID), a, b)
                for piece, (a, b) in zip(one["pieces"], one["offsets"], strict=True)
            ]
            for one in found
        ]


def encoder_of(vocabulary: Vocabulary) -> Encoder:
    """The encoder that a vocabulary needs."""
    fast = isinstance(vocabulary, PreTrainedTokenizerFast)
    return Encoder(vocabulary) if fast else OpusEncoder(vocabulary)
