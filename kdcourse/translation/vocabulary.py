"""One joint subword vocabulary for both languages, readable by every runtime.

A Unigram model (Kudo 2018) trained with ``tokenizers``. The order of the ids is a
contract with CTranslate2's Marian loader: ``</s>`` is 0, ``<unk>`` is 1 and
``<pad>`` comes last, because the loader drops the last row and expects the pad there.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import re
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import KdcourseError
from .hub import model_folder
from .opus import is_opus, load_opus_vocabulary, source_pieces, source_words

EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
EOS_ID, UNK_ID = 0, 1
# </s>, <unk>, <pad>, the space, and a piece: without one the trainer overshoots.
OTHERS = 5
SPACE = "▁"
PLAIN = re.compile(r"[^A-Z0-9{}_]*")  # a word that cannot be a name or a placeholder
MAX_POSITIONS = 512
# A tokenizer.json's, or MarianTokenizer with its SentencePiece models.
Vocabulary = PreTrainedTokenizerBase


def train_vocabulary(
    texts: Iterable[str],
    size: int = 4000,
    *,
    tags: tuple[str, ...] = (),
    alphabet: str = "",
) -> PreTrainedTokenizerFast:
    """Train the joint Unigram vocabulary of ``size`` entries, the pad included.

    ``tags`` are further special tokens (a target language, say); ``alphabet``
    holds characters that must not become ``<unk>`` even where they are rare. The
    trainer adds up in no fixed order, so the scores of a few pieces, and the ids of
    near equals, differ from run to run: a vocabulary is kept with its models.

    Raises:
        KdcourseError: ``size`` has no room for the characters.
    """
    texts = list(texts)
    characters = set(alphabet).union(*texts) - {" "}
    least = len(characters) + OTHERS + len(tags)
    if size < least:
        raise KdcourseError(
            f"A vocabulary of {size} entries for texts of {len(characters)} "
            "characters.",
            wanted=f"{least} entries or more: each must be sayable",
            todo="Ask for more, or leave out texts with rare characters.",
        )
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    trainer = trainers.UnigramTrainer(
        vocab_size=size - 1,
        special_tokens=[EOS, UNK, *tags],
        unk_token=UNK,
        initial_alphabet=sorted(set(alphabet)),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    pieces = json.loads(learner.to_str())["model"]["vocab"]
    return assemble([*((p, score) for p, score in pieces), (PAD, 0.0)], tags)


def assemble(
    pieces: list[tuple[str, float]], tags: tuple[str, ...]
) -> PreTrainedTokenizerFast:
    """Wrap the scored pieces into the tokenizer that every runtime reads."""
    core = Tokenizer(models.Unigram(pieces, unk_id=UNK_ID))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    core.decoder = decoders.Metaspace(replacement=SPACE)
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, EOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        additional_special_tokens=list(tags),
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def load_vocabulary(folder: str | Path) -> Vocabulary:
    """Read a saved vocabulary: ``tokenizer.json``, or the files of an opus-mt model.

    ``folder`` may also be the name of a shipped model or of a cached one of the Hub.
    """
    folder = model_folder(folder)
    if is_opus(folder):
        return load_opus_vocabulary(folder)
    if not (folder / "tokenizer.json").is_file():
        raise KdcourseError(
            f"No vocabulary in {folder}: tokenizer.json is missing.",
            wanted="the folder of a saved model or vocabulary",
            todo="Check the path, or train one with train_vocabulary().",
        )
    return PreTrainedTokenizerFast.from_pretrained(folder)


class SubwordSampler:
    """Subword regularisation (Kudo 2018): sample one of a word's best segmentations.

    A segmentation is drawn with a probability proportional to P(pieces)^alpha
    among the ``nbest``. Words are independent, so each word's list is kept. With the
    vocabulary of an opus-mt model it cuts sources, which must be a Unigram model's.
    """

    def __init__(self, vocabulary: Vocabulary, alpha: float = 0.5, nbest: int = 16):
        if isinstance(vocabulary, PreTrainedTokenizerFast):
            self.words = str.split
            self.pieces, self.specials = scored_pieces(vocabulary)
        else:
            self.words = partial(source_words, vocabulary)
            self.pieces, self.specials = source_pieces(vocabulary), {}
        self.longest = max(map(len, self.pieces))
        self.unknown = min(score for _, score in self.pieces.values()) - 10.0
        self.alpha, self.nbest = alpha, nbest
        self.segmentations = lru_cache(maxsize=None)(self._segmentations)

    def encode(self, text: str, rng: random.Random) -> list[int]:
        """Token ids of one string, one segmentation drawn for each word, then EOS.

        A word with a capital, a digit or a brace may be a name, which is copied piece
        by piece: it is cut as everywhere, so that its copy has the same pieces.
        """
        ids: list[int] = []
        for word in self.words(text):
            if word in self.specials:
                ids.append(self.specials[word])
                continue
            choices, cumulative = self.segmentations(SPACE + word)
            if PLAIN.fullmatch(word):
                ids += rng.choices(choices, cum_weights=cumulative)[0]
            else:
                ids += choices[0]
        return [*ids, EOS_ID]

    def _segmentations(self, word: str) -> tuple[list[tuple[int, ...]], list[float]]:
        """The n best segmentations of a word and their cumulative weights."""
        beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())]]
        for end in range(1, len(word) + 1):
            beams.append(heapq.nlargest(self.nbest, self._ending_at(word, end, beams)))
        total, weights = 0.0, []
        best = beams[-1][0][0]
        for score, _ in beams[-1]:
            total += math.exp(self.alpha * (score - best))
            weights.append(total)
        return [ids for _, ids in beams[-1]], weights

    def _ending_at(self, word, end, beams):
        for start in range(max(0, end - self.longest), end):
            piece = self.pieces.get(word[start:end])
            if piece is not None:
                for score, ids in beams[start]:
                    yield score + piece[1], (*ids, piece[0])
        if word[end - 1] not in self.pieces:
            for score, ids in beams[end - 1]:
                # Neighbouring unknown characters are one <unk>, as in the tokenizer.
                fused = ids if ids and ids[-1] == UNK_ID else (*ids, UNK_ID)
                yield score + self.unknown, fused


def scored_pieces(
    vocabulary: PreTrainedTokenizerFast,
) -> tuple[dict[str, tuple[int, float]], dict[str, int]]:
    """Each ordinary piece's id and log-probability, and each special token's id."""
    state = json.loads(vocabulary.backend_tokenizer.to_str())
    specials = {token["content"]: token["id"] for token in state["added_tokens"]}
    scored = enumerate(state["model"]["vocab"])
    return {p: (i, s) for i, (p, s) in scored if p not in specials}, specials
