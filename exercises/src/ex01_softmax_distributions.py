# %% [markdown]
# # Exercises 01: probabilities that do not break
#
# *Seven exercises, about 60 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/01_softmax_distributions.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex01.softmax.hint()` gives a hint, `ex01.softmax.hint(2)` a
# bigger one, and `ex01.softmax.solution()` one good solution.
#
# Logits are float32 tensors with the vocabulary last, (…, V). `log` is the natural
# logarithm. From exercise 3 on you may use `torch.softmax` and `torch.log_softmax`.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex01

settings = kdcourse.setup(lesson="01")

# %% [markdown]
# ## 1. How many times as probable?
#
# *Difficulty 1, 3 minutes.* The odds of token a to token b are Pr_T(a)/Pr_T(b), at
# temperature T. By hand: logits log 5 and log 2 at T = 1 give 5/2. One line is enough,
# and no sum over the vocabulary is needed. The logits may be in the thousands.


# %%
def odds(logits, a, b, temperature):
    """How many times as probable token a is as token b: a tensor of shape ().

    logits: (V,). a, b: two token ids. temperature: a number above 0.
    """
    ### BEGIN SOLUTION
    return torch.exp((logits[a] - logits[b]) / temperature)
    ### END SOLUTION


ex01.odds.check(odds)

# %% [markdown]
# ## 2. A softmax that does not break
#
# *Difficulty 2, 8 minutes.* Write the softmax with a temperature, out of `exp`, sums
# and maxima (no `torch.softmax` yet; the check cannot see it, you can). It must stand
# logits of ±10,000 and barred tokens (logit −∞), for any number of leading dimensions.
# By hand: logits log 1, log 4, log 25 at T = 2 give 1/8, 2/8, 5/8.


# %%
def softmax(logits, temperature):
    """Pr_T(v) = exp(z_v / T) / Σ_w exp(z_w / T), with the shape of the logits.

    logits: (..., V); at least one of each position is finite. temperature: above 0.
    """
    ### BEGIN SOLUTION
    z = logits / temperature
    raised = torch.exp(z - z.amax(dim=-1, keepdim=True))
    return raised / raised.sum(dim=-1, keepdim=True)
    ### END SOLUTION


ex01.softmax.check(softmax)

# %% [markdown]
# ## 3. Some tokens may not be said
#
# *Difficulty 2, 6 minutes.* An app forbids some tokens: they get the probability 0,
# exactly, and the others share everything in their old ratio. By hand: of 1/8, 2/8 and
# 5/8 the third is barred, so 1/3, 2/3 and 0. It must work, too, where the barred token
# was the model's favourite by far.


# %%
def masked_softmax(logits, allowed):
    """Probabilities over the allowed tokens alone, with the shape of the logits.

    logits: (..., V), finite. allowed: (V,), True for a token that may be said.
    """
    ### BEGIN SOLUTION
    barred = logits.masked_fill(~allowed, float("-inf"))
    return torch.softmax(barred, dim=-1)
    ### END SOLUTION


ex01.masked_softmax.check(masked_softmax)

# %% [markdown]
# ## 4. The logarithm of a tiny probability
#
# *Difficulty 2, 8 minutes.* N positions, and one token for each whose log-probability
# we want. Some are next to impossible: with logits 0 and −200 the second has the
# log-probability −200, though its probability is 0 in float32.


# %%
def token_log_probability(logits, tokens):
    """log Pr(tokens[n]) at each position n, in nats, shape (N,).

    logits: (N, V). tokens: (N,), token ids.
    """
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(logits, dim=-1)
    return log_p.gather(-1, tokens[:, None]).squeeze(-1)
    ### END SOLUTION


ex01.token_log_probability.check(token_log_probability)

# %% [markdown]
# ## 5. How many tokens hold the mass?
#
# *Difficulty 3, 8 minutes.* The smallest number of tokens whose probabilities sum to at
# least `mass`, for each position. By hand: 2/8, 5/8, 1/8 and a mass of 0.8 need two.
# (In lesson 07 this number decides what a cache of the teacher's answers costs.)


# %%
def tokens_for_mass(logits, mass):
    """The number of tokens that hold the mass: whole numbers, shape (...).

    logits: (..., V). mass: a number between 0 and 1.
    """
    ### BEGIN SOLUTION
    shares = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True).values
    too_small = shares.cumsum(dim=-1) < mass
    return too_small.sum(dim=-1) + 1
    ### END SOLUTION


ex01.tokens_for_mass.check(tokens_for_mass)

# %% [markdown]
# ## 6. The perplexity of a padded batch
#
# *Difficulty 3, 10 minutes.* How surprised is a model by a text? Average −log
# Pr(label) over the **real** tokens of the whole batch (the label of a pad is −100),
# and raise e to the average. By hand: two tokens with the probabilities 1/2 and 1/8
# have the surprises log 2 and log 8, on average log 4: the perplexity is 4, however
# many pads stand beside them.


# %%
def batch_perplexity(logits, labels):
    """exp of the mean surprise at the real tokens: a tensor of shape ().

    logits: (B, L, V). labels: (B, L), token ids; -100 marks a pad.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    log_p = torch.log_softmax(logits[real], dim=-1)
    surprise = -log_p.gather(-1, labels[real][:, None])
    return surprise.mean().exp()
    ### END SOLUTION


ex01.batch_perplexity.check(batch_perplexity)

# %% [markdown]
# ## 7. The temperature that gives a wanted entropy
#
# *Difficulty 4, 15 minutes.* You want teachers of different sharpness to be equally
# soft: which T gives their distribution the entropy `wanted`? First a small derivation.
# Write β = 1/T. The derivative of the entropy is dH/dβ = −β Var(z), where Var is the
# variance of the logits under Pr_T; with dβ = −dT/T² it becomes
#
# dH/dT = Var(z) / T³, which is never negative.
#
# So the entropy *grows* with T, from 0 (one best token) to log V (or the logarithm of
# the number of tokens that are not barred), and there is exactly one answer. Halving an
# interval finds it: if the entropy at its middle is too small, the answer lies above.
# A miss of one part in a thousand is allowed. The answers lie between 0.01 and 10,000.
#
# By hand: logits log 1, log 4, log 25 and the entropy of 1/8, 2/8, 5/8, which is 0.9003
# nats: T = 2.


# %%
def temperature_for_entropy(logits, wanted):
    """The temperature at which the softmax has this entropy: a number.

    logits: (V,), some may be -inf. wanted: nats, above 0 and below the largest
    entropy that these logits can have.
    """
    ### BEGIN SOLUTION
    low, high = 1e-6, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        p = torch.softmax(logits.double() / middle, dim=-1)
        if torch.special.entr(p).sum() < wanted:  # entr(p) = -p log p, 0 for p = 0
            low = middle
        else:
            high = middle
    return middle
    ### END SOLUTION


ex01.temperature_for_entropy.check(temperature_for_entropy)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
