"""Teacher and student: two sizes of transformers' ``MarianMTModel``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import MarianConfig, MarianMTModel

from ..errors import KdcourseError
from .hub import model_folder
from .vocabulary import EOS_ID, MAX_POSITIONS, Vocabulary

RESIDUAL_GAIN = 0.25  # Marian's post-norm stack starts at once with small branches
NEVER = -40.0  # the bias of a token never to be predicted; exp(-40) does not underflow


@dataclass(frozen=True)
class Architecture:
    """The sizes of an encoder-decoder."""

    d_model: int
    ffn: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    dropout: float = 0.1


STUDENT = Architecture(128, 512, 4, 4, 1, dropout=0.05)


def build_model(
    architecture: Architecture, vocabulary: Vocabulary, seed: int
) -> MarianMTModel:
    """A fresh model with reproducible weights, ready to be trained."""
    size, pad = len(vocabulary), vocabulary.pad_token_id
    if pad != size - 1:
        raise KdcourseError(
            f"<pad> has id {pad} in a vocabulary of {size} entries.",
            wanted="<pad> as the last entry; CTranslate2 drops that row",
            todo="Make the vocabulary with train_vocabulary().",
        )
    config = MarianConfig(
        vocab_size=size,
        d_model=architecture.d_model,
        encoder_layers=architecture.encoder_layers,
        decoder_layers=architecture.decoder_layers,
        encoder_attention_heads=architecture.heads,
        decoder_attention_heads=architecture.heads,
        encoder_ffn_dim=architecture.ffn,
        decoder_ffn_dim=architecture.ffn,
        dropout=architecture.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        init_std=architecture.d_model**-0.5,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=pad,
        eos_token_id=EOS_ID,
        forced_eos_token_id=EOS_ID,
        bos_token_id=None,
        decoder_start_token_id=pad,
        use_cache=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Eager attention: on a CPU the backward pass of the fused kernel is 3x slower.
        model = MarianMTModel._from_config(config, attn_implementation="eager")
        _shape_initial_weights(model)
    generation = model.generation_config
    generation.max_length, generation.num_beams = 256, 1
    return prepare(model)


@torch.no_grad()
def _shape_initial_weights(model: MarianMTModel) -> None:
    """Let learning start at once: quiet residual branches, aligned cross-attention.

    From random weights a small Marian spends thousands of steps as a language model
    before it looks at its source. We start it as a copier instead (after Trockman &
    Kolter 2023, "Mimetic initialization of self-attention layers"): with equal query
    and key matrices a decoder position attends to the source position of the same
    number, and with out = value transposed it receives the embedding that stands there.
    """
    for name, weight in model.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")):
            weight.mul_(RESIDUAL_GAIN)
    for layer in model.model.decoder.layers:
        cross = layer.encoder_attn
        for matrix in (cross.q_proj.weight, cross.v_proj.weight):
            torch.nn.init.orthogonal_(matrix)
        cross.k_proj.weight.copy_(cross.q_proj.weight)
        cross.out_proj.weight.copy_(cross.v_proj.weight.T)


def prepare(model: MarianMTModel) -> MarianMTModel:
    """What every model needs: a zero pad row, a pad never said, frozen positions.

    The decoder starts from the pad's embedding. CTranslate2 starts from zeros, so
    the pad's row is zero and its gradient is erased: both engines then agree. Its
    logit is barred by the bias: the Hub's Marian models leave it at 0, where it takes
    a share, often the largest one, of every distribution
    (huggingface/transformers#4290). The sinusoidal positions are constants that are
    never saved; they must not train.
    """
    embedding = model.get_input_embeddings().weight
    pad = model.config.pad_token_id
    with torch.no_grad():
        embedding[pad].zero_()
        model.final_logits_bias[0, pad] = NEVER
    if not getattr(model, "_pad_row_is_pinned", False):
        embedding.register_hook(lambda gradient: _without_row(gradient, pad))
        model._pad_row_is_pinned = True
    for stack in (model.model.encoder, model.model.decoder):
        stack.embed_positions.weight.requires_grad = False
    return model


@torch.no_grad()
def grow(
    model: MarianMTModel,
    vocabulary: Vocabulary,
    architecture: Architecture,
) -> MarianMTModel:
    """A deeper model that begins where a trained one is (Gong et al. 2019).

    "Efficient training of BERT by progressively stacking": each new layer, on top of
    its stack, starts as a copy of a trained one. Here its residual branches are
    silent at first and its norms are those of the layer below, so that the deeper
    model says nearly what the shallower one said, and then learns to say it better.

    Raises:
        KdcourseError: the new model differs in more than depth, or is not deeper.
    """
    deeper = build_model(architecture, vocabulary, seed=0)
    for name in ("d_model", "encoder_ffn_dim", "encoder_attention_heads", "vocab_size"):
        old, new = getattr(model.config, name), getattr(deeper.config, name)
        if old != new:
            raise KdcourseError(
                f"{name} cannot grow from {old} to {new}.",
                wanted="the same width, heads and vocabulary; only layers are added",
                todo="Train a model of another width from the start.",
            )
    state = model.state_dict()
    for side in ("encoder", "decoder"):
        old = len(getattr(model.model, side).layers)
        new = len(getattr(deeper.model, side).layers)
        if new < old:
            raise KdcourseError(
                f"The {side} cannot shrink from {old} layers to {new}.",
                wanted=f"{old} layers or more",
                todo="Give the grown architecture at least the old one's layers.",
            )
        for layer in range(old, new):
            state |= _silent_layer(state, f"model.{side}.layers.", layer, old, new)
    deeper.load_state_dict(state)
    return prepare(deeper)


def _silent_layer(state: dict, stack: str, layer: int, old: int, new: int) -> dict:
    """The weights of one new layer: a trained one's, its branches' outputs zero."""
    trained, top = f"{stack}{max(0, layer - new + old)}.", f"{stack}{old - 1}."
    weights = {}
    for name in [n for n in state if n.startswith(trained)]:
        part = name.removeprefix(trained)
        value = state[name].clone()
        if part.startswith("fc2.") or ".out_proj." in part:
            value.zero_()
        elif "layer_norm." in part:
            value = state[f"{top}final_layer_norm.{part.rsplit('.', 1)[1]}"].clone()
        weights[f"{stack}{layer}.{part}"] = value
    return weights


@torch.no_grad()
def shrink(
    teacher: MarianMTModel,
    vocabulary: Vocabulary,
    architecture: Architecture,
) -> MarianMTModel:
    """A shallower model of the teacher's width that starts with copies of its layers.

    Embeddings and output bias are copied, and of each stack evenly spaced layers, the
    first among them: i (m - 1) / (n - 1), rounded, for n of m ("shrink and fine-tune",
    Shleifer & Rush 2020). One layer is the first.

    Raises:
        KdcourseError: another width, vocabulary or number of heads, or more layers
            than the teacher has. Then a copy is not possible; start from scratch.
    """
    student = build_model(architecture, vocabulary, seed=0)
    same = ("d_model", "encoder_ffn_dim", "encoder_attention_heads", "vocab_size")
    for name in same:
        old, new = getattr(teacher.config, name), getattr(student.config, name)
        if old != new:
            raise KdcourseError(
                f"Layers of {name} {old} cannot be copied to {new}.",
                wanted="the teacher's width, heads and vocabulary; only fewer layers",
                todo="Start from scratch with build_model(), or match the width.",
            )
    given = teacher.state_dict()
    state = {n: v.clone() for n, v in given.items() if ".layers." not in n}
    for side in ("encoder", "decoder"):
        stack = f"model.{side}.layers."
        old = len(getattr(teacher.model, side).layers)
        new = len(getattr(student.model, side).layers)
        if new > old:
            raise KdcourseError(
                f"The teacher's {side} has {old} layers, not {new} to copy.",
                wanted=f"{old} layers or fewer",
                todo="Use grow() to start a deeper model from a shallower one.",
            )
        for layer, source in enumerate(spread(new, old)):
            prefix = f"{stack}{source}."
            for name in [n for n in given if n.startswith(prefix)]:
                part = name.removeprefix(prefix)
                state[f"{stack}{layer}.{part}"] = given[name].clone()
    student.load_state_dict(state)
    return prepare(student)


def spread(count: int, total: int) -> list[int]:
    """``count`` of 0..total-1, evenly spaced, the first and the last among them."""
    if count == 1:
        return [0]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def _without_row(gradient: torch.Tensor, row: int) -> torch.Tensor:
    gradient = gradient.clone()
    gradient[row] = 0
    return gradient


def load_model(folder: str | Path) -> MarianMTModel:
    """Load a saved model in float32, in evaluation mode.

    ``folder`` may also be the name of a shipped model or of a cached one of the Hub.
    """
    folder = model_folder(folder)
    if not (folder / "config.json").is_file():
        raise KdcourseError(
            f"No model in {folder}: config.json is missing.",
            wanted="a folder written by save_model()",
            todo="Check the path, or name a shipped model: teacher, student, untaught.",
        )
    model = MarianMTModel.from_pretrained(folder, dtype=torch.float32)
    return prepare(model).eval()


def save_model(
    model: MarianMTModel,
    vocabulary: Vocabulary,
    folder: str | Path,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write weights, configuration and vocabulary so that any runtime reads them.

    All is written beside its place first, and config.json takes its own last: where it
    stands, the model is whole, whenever the program was killed.
    """
    folder = Path(folder)
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    # One copy for each storage, so that tied matrices stay tied and are written once.
    copies: dict[int, torch.Tensor] = {}
    state = {
        name: copies.setdefault(value.data_ptr(), value.to(dtype))
        for name, value in model.state_dict().items()
    }
    try:
        model.save_pretrained(partial, state_dict=state)
        vocabulary.save_pretrained(partial)
        for path in sorted(partial.iterdir(), key=lambda p: p.name == "config.json"):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def count_parameters(model: MarianMTModel) -> int:
    """Learned parameters; each tied matrix once, the constant positions not at all."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
