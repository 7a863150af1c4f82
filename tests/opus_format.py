"""A small translator in the very format of Helsinki-NLP/opus-mt-en-es, made here.

The files, their names, their keys and the order of the ids are those of the Hub; the
sizes and the language are those of ``tiny``.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import sentencepiece
import tiny
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from kdcourse.translation import models
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.training import Trainer

FILES = {"config.json", "generation_config.json", "pytorch_model.bin", "source.spm"}
FILES |= {"target.spm", "tokenizer_config.json", "vocab.json"}
# Words that are one piece to the source's model and several to the target's, because
# each has seen its own language only; some stand in both texts.
SHARED = ("Alexa", "{name}", "error")


def make_opus(folder: Path, seed: int = 1, budget: int = 8_000) -> Path:
    """The folder, filled; the model has learned the tiny language for some seconds."""
    sources, targets = tiny.pairs(300)
    write_vocabulary(folder, sources, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vocabulary = MarianTokenizer.from_pretrained(folder)
    model = trained(vocabulary, sources, targets, seed, budget)
    write_model(folder, model)
    return folder


def write_vocabulary(folder: Path, sources: list[str], targets: list[str]) -> None:
    """Two SentencePiece models, and one list of ids for the pieces of both."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[str] = []
    for name, lines, size in (("source", sources, 90), ("target", targets, 110)):
        data = unigram([*lines, *SHARED] if name == "source" else lines, size)
        (folder / f"{name}.spm").write_bytes(data)
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        pieces += map(model.id_to_piece, range(model.get_piece_size()))
    body = sorted({*pieces} - {"</s>", "<unk>", "<s>"})
    order = ["</s>", "<unk>", *body, "<pad>"]
    write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(order)})
    write_json(
        folder / "tokenizer_config.json",
        {"source_lang": "eng", "target_lang": "spa", "model_max_length": 512},
    )


def unigram(lines: list[str], size: int) -> bytes:
    """A SentencePiece model of Unigram kind, with Marian's special pieces."""
    data = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 2),
        model_writer=data,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return data.getvalue()


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def trained(vocabulary, sources, targets, seed: int, budget: int) -> MarianMTModel:
    """A model of the format's own layers, taught to translate the tiny language."""
    config = MarianConfig(**(settings(len(vocabulary)) | {"init_std": 32**-0.5}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel._from_config(config, attn_implementation="eager")
        models._shape_initial_weights(model)
    examples = fixed_examples(sources, targets, vocabulary)
    recipe = tiny.recipe(budget, average_decay=0.9)
    return Trainer(models.prepare(model), recipe, lambda epoch: examples).run()


def settings(size: int) -> dict:
    """The keys of the Hub's config.json, at a small size; ``<pad>`` is the last id."""
    pad, sizes = size - 1, tiny.TINY
    return {
        "_name_or_path": "/tmp/Helsinki-NLP/opus-mt-en-es",
        "activation_dropout": 0.0,
        "activation_function": "swish",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "architectures": ["MarianMTModel"],
        "attention_dropout": 0.0,
        "bad_words_ids": [[pad]],
        "bos_token_id": 0,
        "classif_dropout": 0.0,
        "classifier_dropout": 0.0,
        "d_model": sizes.d_model,
        "decoder_attention_heads": sizes.heads,
        "decoder_ffn_dim": sizes.ffn,
        "decoder_layerdrop": 0.0,
        "decoder_layers": sizes.decoder_layers,
        "decoder_start_token_id": pad,
        "decoder_vocab_size": size,
        "dropout": 0.1,
        "encoder_attention_heads": sizes.heads,
        "encoder_ffn_dim": sizes.ffn,
        "encoder_layerdrop": 0.0,
        "encoder_layers": sizes.encoder_layers,
        "eos_token_id": 0,
        "extra_pos_embeddings": pad,
        "forced_eos_token_id": 0,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
        "max_length": 512,
        "max_position_embeddings": 512,
        "model_type": "marian",
        "normalize_before": False,
        "normalize_embedding": False,
        "num_beams": 4,
        "num_hidden_layers": sizes.encoder_layers,
        "pad_token_id": pad,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
        "transformers_version": "4.22.0.dev0",
        "use_cache": True,
        "vocab_size": size,
    }


def write_model(folder: Path, model: MarianMTModel) -> None:
    """config.json, generation_config.json and pytorch_model.bin as the Hub has them.

    The pad's embedding is zero and its bias 0, as Marian's converter leaves them: its
    logit is 0 whatever is read, and only ``bad_words_ids`` keeps it from being said.
    """
    config = settings(model.config.vocab_size)
    write_json(folder / "config.json", config)
    same = ("bad_words_ids", "bos_token_id", "decoder_start_token_id", "eos_token_id")
    same += ("forced_eos_token_id", "max_length", "num_beams", "pad_token_id")
    generation = {name: config[name] for name in same}
    generation |= {"renormalize_logits": True, "transformers_version": "4.32.0.dev0"}
    write_json(folder / "generation_config.json", generation)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["final_logits_bias"][0, config["pad_token_id"]] = 0.0
    torch.save(state, folder / "pytorch_model.bin")
