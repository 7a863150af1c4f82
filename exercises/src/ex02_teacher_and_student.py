# %% [markdown]
# # Exercises 02: two distributions and their price
#
# *Six exercises, about 36 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/02_teacher_and_student.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex02.sequence_score.hint()` gives a hint,
# `ex02.sequence_score.hint(2)` a bigger one, and `ex02.sequence_score.solution()` one
# good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex02

settings = kdcourse.setup(lesson="02")

# %% [markdown]
# ## 1. The score of a whole translation
#
# *Difficulty 2, 6 minutes.* log Pr(y|c,z) = Σ_t log Pr(y_t | y_<t, c, z): one factor
# for each **real** token, the end of the sentence (here id 0) among them; pads,
# labelled −100, have none. By hand: logits (0, log 3) give token 1 the probability 3/4,
# so a sentence of this one token has the score log(3/4), however many pads stand behind
# it. Logits go up to ±10,000, and −inf marks a token that cannot be said: a sentence
# that says it has the score −inf, and at a pad it does no harm.


# %%
def sequence_score(logits, labels):
    """log Pr(y|c,z) of each sentence of a batch, in nats: a tensor of shape (B,).

    logits: (B, L, V); those at t score the label at t, nothing has to be shifted.
    labels: (B, L), the tokens y_t; -100 marks a pad.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    ids = labels.masked_fill(~real, 0)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    factors = log_probabilities.gather(-1, ids[..., None])[..., 0]
    return factors.masked_fill(~real, 0.0).sum(dim=-1)
    ### END SOLUTION


ex02.sequence_score.check(sequence_score)

# %% [markdown]
# ## 2. The best that a blind student can do
#
# *Difficulty 1, 3 minutes.* The teacher reads c and z, the student z alone. The best it
# can become is the mixture Pr(y|z) = Σ_c Pr(c|z) Pr^t(y|c,z). By hand: two contexts,
# with the probabilities 1/4 and 3/4, in which the teacher gives the first of two
# outputs 1.0 and 0.2, make 1/4 · 1.0 + 3/4 · 0.2 = 0.4 for it.


# %%
def blind_student(context_probabilities, distributions):
    """The mixture Pr(y|z) over N outputs: a tensor of shape (N,).

    context_probabilities: (C,), Pr(c|z) of each context.
    distributions: (C, N); row c is the teacher's Pr^t(y|c,z).
    """
    ### BEGIN SOLUTION
    return context_probabilities @ distributions
    ### END SOLUTION


ex02.blind_student.check(blind_student)

# %% [markdown]
# ## 3. What is the context worth?
#
# *Difficulty 4, 9 minutes.* How far does the best blind student stay behind its
# teacher? Take the divergence KL(p ‖ q) = Σ_y p(y) log(p(y) / q(y)) from the teacher in
# context c, p = Pr^t(·|c,z), to the mixture, q = Pr(·|z), and its mean over the
# contexts, each as often as it occurs. Where p(y) = 0 the term is 0. By hand: two
# equally likely contexts, each sure of another word: q = (1/2, 1/2), each KL is log 2,
# and so is the mean. A context that changes nothing is worth 0.


# %%
def context_worth(context_probabilities, distributions):
    """The mean KL from teacher to best blind student, in nats: a number.

    context_probabilities: (C,), Pr(c|z) of each context.
    distributions: (C, N); row c is the teacher's Pr^t(y|c,z); zeros may occur.
    """
    ### BEGIN SOLUTION
    mixture = context_probabilities @ distributions
    ratios = torch.where(distributions > 0, distributions / mixture, 1.0)
    kl = (distributions * ratios.log()).sum(dim=1)
    return context_probabilities @ kl
    ### END SOLUTION


ex02.context_worth.check(context_worth)

# %% [markdown]
# ## 4. Freeze a teacher
#
# *Difficulty 2, 4 minutes.* A teacher is frozen when it answers the same question in
# the same way each time (every part of it in evaluation mode), and when no training
# step can change it (no parameter asks for a gradient). Freeze the network that you are
# given, and return it.


# %%
def freeze(teacher):
    """The same torch.nn.Module, frozen; its weights stay as they are."""
    ### BEGIN SOLUTION
    teacher.eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher
    ### END SOLUTION


ex02.freeze.check(freeze)

# %% [markdown]
# ## 5. Count the parameters of a translator
#
# *Difficulty 3, 7 minutes.* From a configuration alone, as in the lesson. A matrix from
# m to n numbers has m · n weights and n biases.
#
# - One embedding of `vocab_size` rows and `d_model` columns serves the encoder, the
#   decoder and the output alike: counted **once**, without a bias.
# - An **attention** has four matrices from d to d: query, key, value, output.
# - A **feed-forward** block has two: d to its inner width, and back.
# - A **norm** has a scale and a shift for each of the d numbers.
# - An encoder layer is one attention, one feed-forward block, two norms. A decoder
#   layer has a second attention, over the source, and a third norm.
#
# Positions are constants. By hand: 10 words, d = 2, inner width 4, one layer each:
# 20 + (24 + 22 + 2 · 4) + (2 · 24 + 22 + 3 · 4) = 156.


# %%
def marian_parameters(config):
    """The number of learned parameters: a whole number.

    config: a dictionary with vocab_size, d_model, encoder_layers, decoder_layers,
        encoder_ffn_dim, decoder_ffn_dim (the inner widths), and others.
    """
    ### BEGIN SOLUTION
    d = config["d_model"]
    attention = 4 * (d * d + d)
    norm = 2 * d

    def feed_forward(inner):
        return (d * inner + inner) + (inner * d + d)

    encoder_layer = attention + feed_forward(config["encoder_ffn_dim"]) + 2 * norm
    decoder_layer = 2 * attention + feed_forward(config["decoder_ffn_dim"]) + 3 * norm
    return (
        config["vocab_size"] * d
        + config["encoder_layers"] * encoder_layer
        + config["decoder_layers"] * decoder_layer
    )
    ### END SOLUTION


ex02.marian_parameters.check(marian_parameters)

# %% [markdown]
# ## 6. The price of one more token
#
# *Difficulty 3, 7 minutes.* How many FLOPs does the decoder spend on its token number
# t? A matrix from m to n numbers costs m · n multiply-adds a token, and each
# multiply-add is 2 FLOPs; biases, norms and softmax are not counted. In each **decoder
# layer**:
#
# - self-attention: four matrices d to d for the new token; then t comparisons of d
#   numbers (its query with the keys of t tokens, itself included) and a mixture of t
#   values of d numbers. Earlier keys and values are kept, not computed again;
# - attention over the S source tokens: two matrices only, query and output, for the
#   source's keys and values were made at the first step and are not part of this price;
#   S comparisons and a mixture of S values;
# - feed-forward: d to the inner width, and back.
#
# Then, **once**, the output: d to the whole vocabulary. By hand: V = 10, d = 2, inner
# width 4, one layer, S = 3, t = 2: the layer takes (16 + 2·2·2) + (8 + 2·3·2) + 16 = 60
# multiply-adds, the output 20; that makes 160 FLOPs.


# %%
def step_flops(config, source_length, position):
    """The FLOPs of the decoder's step number ``position``: a whole number.

    config: a dictionary as in exercise 5. source_length: S. position: t, from 1.
    """
    ### BEGIN SOLUTION
    d = config["d_model"]
    self_attention = 4 * d * d + 2 * position * d
    source_attention = 2 * d * d + 2 * source_length * d
    feed_forward = 2 * d * config["decoder_ffn_dim"]
    layer = self_attention + source_attention + feed_forward
    output = d * config["vocab_size"]
    return 2 * (config["decoder_layers"] * layer + output)
    ### END SOLUTION


ex02.step_flops.check(step_flops)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
