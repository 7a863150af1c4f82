# %% [markdown]
# # Exercises 09: on-policy distillation
#
# *Seven exercises, about 45 minutes, difficulty 1 to 3 of 5. They go with the lesson*
# `notebooks/09_on_policy.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex09.share_on_path.hint()` gives a hint,
# `ex09.share_on_path.hint(2)` a bigger one, and `ex09.share_on_path.solution()` one
# good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex09

settings = kdcourse.setup(lesson="09")

# %% [markdown]
# ## 1. How fast sentences leave the path
#
# *Difficulty 1, 4 minutes.* A student slips at the first token with probability 0.1, at
# the second, if it has not slipped yet, with 0.2, and so on. Which share of its
# sentences is still free of slips before the first token, after it, after the second,
# …? By hand, for (0.1, 0.2): 1, 0.9, 0.9 · 0.8 = 0.72.


# %%
def share_on_path(slips):
    """The shares on the path: a list of L + 1 numbers, the first of them 1.

    slips: list of L probabilities: to slip at each token, having not slipped before.
    """
    ### BEGIN SOLUTION
    shares = [1.0]
    for slip in slips:
        shares.append(shares[-1] * (1 - slip))
    return shares
    ### END SOLUTION


ex09.share_on_path.check(share_on_path)

# %% [markdown]
# ## 2. An ancestral sample
#
# *Difficulty 3, 10 minutes.* Let a model speak: ask it for the distribution of the next
# token after what it has said so far, draw from it with `torch.multinomial(p, 1,
# generator=generator)`, and go on until it says `eos` or has said `limit` tokens. One
# draw a token, all from the one generator you are given.


# %%
def ancestral_sample(next_probabilities, eos, limit, generator):
    """What the model said: a list of whole numbers, eos included if it was said.

    next_probabilities: a function; next_probabilities(prefix) is a tensor (V,), the
        distribution of the next token after a list of ids ([] at the beginning).
    eos: the id that ends a sentence.
    limit: the most tokens that may be said, eos included; at least 1.
    generator: a torch.Generator, the source of all randomness.
    """
    ### BEGIN SOLUTION
    said = []
    while len(said) < limit and eos not in said:
        p = next_probabilities(said)
        said = [*said, int(torch.multinomial(p, 1, generator=generator))]
    return said
    ### END SOLUTION


ex09.ancestral_sample.check(ancestral_sample)

# %% [markdown]
# ## 3. Labels from what was said
#
# *Difficulty 3, 8 minutes.* `generate` returns rows that begin with a start token and
# are filled up with pads behind their end. Make labels of them: without the start
# token, up to and *with* the first `eos`, and −100 behind it. A row that reached the
# limit has no `eos`: all of it counts. Beware: in some models the pad is the `eos`, or
# the start token is. By hand, start 9, eos 2, pad 2: (9, 5, 6, 2, 2) becomes (5, 6, 2,
# −100).


# %%
def labels_from_samples(rows, eos):
    """Labels (B, L), -100 where nothing counts.

    rows: (B, L + 1), ids as generate returns them: start token, sentence, pads.
    eos: the id that ends a sentence.
    """
    ### BEGIN SOLUTION
    said = rows[:, 1:]
    ends = (said == eos).long()
    behind = ends.cumsum(dim=1) - ends > 0
    return said.masked_fill(behind, -100)
    ### END SOLUTION


ex09.labels_from_samples.check(labels_from_samples)

# %% [markdown]
# ## 4. The coin of the mix
#
# *Difficulty 2, 6 minutes.* With probability λ = `share` the student writes the targets
# of this batch, else the batch stays as it is. Draw one number u = `torch.rand((),
# generator=generator)` a batch; the student writes where u < λ. Letting it speak is
# dear: call `speak` only where its words are used.


# %%
def mixed_batch(labels, share, speak, generator):
    """The labels to train on: a tensor of ids.

    labels: (B, L), the data's own.
    share: λ, in 0..1.
    speak: a function; speak(labels) gives what the student says for the same sources.
    generator: a torch.Generator; the check calls your function several times with it.
    """
    ### BEGIN SOLUTION
    if torch.rand((), generator=generator) < share:
        return speak(labels)
    return labels
    ### END SOLUTION


ex09.mixed_batch.check(mixed_batch)

# %% [markdown]
# ## 5. The on-policy loss
#
# *Difficulty 3, 9 minutes.* The labels are the student's own sample. At each real token
# compare the two next-token distributions with the **reverse** KL, Σ_v q_v (log q_v −
# log p_v), q the student's and p the teacher's; sum over the real tokens and divide
# once by their number. The student must get its whole gradient, the teacher none. By
# hand, one token, q = (½, ½), p = (¾, ¼): ½ log(½ / ¾) + ½ log(½ / ¼) = −0.20 + 0.35 =
# 0.14 nats.


# %%
def on_policy_loss(student_logits, teacher_logits, labels):
    """The reverse KL a real token, in nats: a tensor of shape ().

    student_logits, teacher_logits: (B, L, V); those at [b, t] predict labels[b, t].
    labels: (B, L), what the student said; -100 where nothing counts.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    log_q = torch.log_softmax(student_logits[real], dim=-1)
    log_p = torch.log_softmax(teacher_logits[real].detach(), dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum() / real.sum()
    ### END SOLUTION


ex09.on_policy_loss.check(on_policy_loss)

# %% [markdown]
# ## 6. Do errors accumulate?
#
# *Difficulty 2, 5 minutes.* Given the distance to the teacher at each token, take the
# mean for each position, over the sentences that are still going on there. What stands
# at pads is no measurement; it may even be NaN. By hand, two rows, (1, 3) and (2, pad):
# 1.5, 3.


# %%
def mean_by_position(gaps, labels):
    """The mean gap at each position: a tensor (L,).

    gaps: (B, L), one number a token; anything at pads.
    labels: (B, L), -100 at pads; each position is real in at least one row.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    return gaps.masked_fill(~real, 0.0).sum(dim=0) / real.sum(dim=0)
    ### END SOLUTION


ex09.mean_by_position.check(mean_by_position)

# %% [markdown]
# ## 7. What the mix costs
#
# *Difficulty 1, 3 minutes.* Each step learns, and each asks the teacher, who answers
# live; a share λ of the steps also samples. How many times dearer is the mean step than
# one that only learns? By hand, λ = ½, sampling 4, teacher 2, learning 1 second: (1 + 2
# + ½ · 4) / 1 = 5.


# %%
def cost_ratio(share, sampling, teacher, learning):
    """The price of a step, as a multiple of learning alone: a float.

    share: λ, in 0..1.
    sampling, teacher, learning: the seconds that each takes where it happens.
    """
    ### BEGIN SOLUTION
    return (learning + teacher + share * sampling) / learning
    ### END SOLUTION


ex09.cost_ratio.check(cost_ratio)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
