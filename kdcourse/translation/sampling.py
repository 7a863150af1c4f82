"""A model's own outputs as training batches: ancestral samples, or greedy search."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import MarianMTModel

from ..theory.arguments import IGNORE
from .training import Batch
from .vocabulary import EOS_ID

MAX_TOKENS = 200


def own_outputs(model: MarianMTModel, batch: Batch, *, sample: bool = True) -> Batch:
    """The same sources with labels that the model itself says.

    ``sample=True`` draws y_t ~ Pr(· | y_<t, z) at temperature 1 from the whole
    vocabulary (an ancestral sample: y ~ Pr(· | z), exactly); else each y_t is the most
    probable token. Labels end with EOS, or without one at the limit of twice the
    longest source's length and ten; what follows EOS is -100. Dropout is off while it
    speaks and the model's mode afterwards what it was; no gradient flows through the
    choice. Randomness is torch's global generator, which a checkpoint keeps.
    """
    training, pad = model.training, model.config.pad_token_id
    limit = min(MAX_TOKENS, 2 * batch.input_ids.shape[1] + 10)
    everything = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {}
    with torch.no_grad():
        rows = model.eval().generate(
            batch.input_ids,
            attention_mask=batch.attention_mask,
            do_sample=sample,
            num_beams=1,
            **everything,
            max_new_tokens=limit,
            max_length=None,
            forced_eos_token_id=None,
        )[:, 1:]
    model.train(training)
    ended = (rows == EOS_ID).cumsum(dim=1) - (rows == EOS_ID).long() > 0
    return replace(batch, labels=rows.masked_fill(ended | (rows == pad), IGNORE))
