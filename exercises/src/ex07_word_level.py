# %% [markdown]
# # Exercises 07: word level
#
# *Six exercises, about 56 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/07_word_level.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex07.cache_bytes.hint()` gives a hint,
# `ex07.cache_bytes.hint(2)` a bigger one, and `ex07.cache_bytes.solution()` one good
# solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex07

settings = kdcourse.setup(lesson="07")

# %% [markdown]
# ## 1. What a cache weighs
#
# *Difficulty 1, 5 minutes.* For each token a cache keeps k ids, k log-probabilities in
# float16 (2 bytes each), and one missing mass, also in float16. An id takes 2 bytes
# (int16) if every id of the vocabulary fits, else 4. The largest number in int16 is
# 32,767. By hand, k = 8 and V = 4,000: 8 · (2 + 2) + 2 = 34 bytes a token.


# %%
def cache_bytes(tokens, k, vocabulary_size):
    """The bytes of a top-k cache: an int.

    tokens: the number of target tokens. k: entries kept for each, k < V.
    vocabulary_size: V; the ids are 0 to V - 1.
    """
    ### BEGIN SOLUTION
    id_bytes = 2 if vocabulary_size - 1 <= 32_767 else 4
    return tokens * (k * (id_bytes + 2) + 2)
    ### END SOLUTION


ex07.cache_bytes.check(cache_bytes)

# %% [markdown]
# ## 2. The k best, and what is missing
#
# *Difficulty 2, 8 minutes.* From the teacher's logits: the ids of the k most probable
# tokens, their log-probabilities *over the whole vocabulary*, and log r, the logarithm
# of the mass of all others. By hand: probabilities 0.7, 0.2, 0.06 and 0.04 with k = 2
# give the logarithms of 0.7 and 0.2, and log r = log 0.1. A sure teacher may have r =
# 10⁻¹⁶: in float32 the kept two then sum to exactly 1, and yet log r is −37, not −∞.


# %%
def keep_best(logits, k):
    """indices (N, k), log_probs (N, k) and log_rest (N,), the most probable first.

    logits: (N, V) raw scores, -inf at tokens that cannot be said; k < V.
    """
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(logits, dim=-1)
    log_probs, indices = log_p.topk(k)
    log_rest = log_p.scatter(1, indices, float("-inf")).logsumexp(dim=1)
    return indices, log_probs, log_rest
    ### END SOLUTION


ex07.keep_best.check(keep_best)

# %% [markdown]
# ## 3. The loss of a padded batch
#
# *Difficulty 3, 12 minutes.* The student's logits come as a rectangle with pads, the
# cached answers without: N of them, one for each real token, first those of the first
# sentence, then those of the second … Compute the mean over the N real tokens of the KL
# over k + 1 events, Σ_kept p log(p/q) + r log(r/s), with s the student's mass outside
# the kept tokens. By hand, one token, k = 1: the teacher says 0.8 and the rest 0.2, the
# student 0.5 and 0.5: 0.8 log 1.6 + 0.2 log 0.4 = 0.376 − 0.183 = 0.193.


# %%
def cached_loss(student_logits, labels, indices, log_probs, log_rest):
    """The mean over the real tokens, in nats: a tensor of shape () with its gradient.

    student_logits: (B, L, V) raw scores. labels: (B, L) token ids, -100 at pads.
    indices: (N, k), the kept ids of the N real tokens, row by row; k < V.
    log_probs: (N, k), the teacher's log p of these, not renormalised.
    log_rest: (N,), log r.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits[labels != -100], dim=-1)
    log_s = log_q.scatter(1, indices, float("-inf")).logsumexp(dim=1)
    kept = log_probs.exp() * (log_probs - log_q.gather(1, indices))
    bucket = log_rest.exp() * (log_rest - log_s)
    return (kept.sum() + bucket.sum()) / len(indices)
    ### END SOLUTION


ex07.cached_loss.check(cached_loss)

# %% [markdown]
# ## 4. Answers that find their tokens
#
# *Difficulty 2, 8 minutes.* The teacher was asked about `rows` in a certain order; its
# answers lie one below the other, `lengths[n]` of them for row n. A training batch
# holds some of these rows in an order of its own, and one may stand in it twice. Return
# the answers in the order of the batch. By hand: lengths 2, 3, 2; the batch holds rows
# 2 and 0: answers 5, 6, 0, 1. A pair that was never cached must be an error (a
# `KeyError`, for instance), not a gap.


# %%
def look_up(batch, rows, lengths, answers):
    """The answers to a batch: a tensor (M, ...), M its number of tokens.

    batch: pairs (source, target), in the order of the batch.
    rows: the pairs that were cached, each once; a source may have several targets.
    lengths: for each of rows, its number of tokens.
    answers: (Σ lengths, ...), one for each token, row by row.
    """
    ### BEGIN SOLUTION
    places, begin = {}, 0
    for pair, length in zip(rows, lengths, strict=True):
        places[pair] = slice(begin, begin + length)
        begin += length
    return torch.cat([answers[places[pair]] for pair in batch])
    ### END SOLUTION


ex07.look_up.check(look_up)

# %% [markdown]
# ## 5. When does the twin stop?
#
# *Difficulty 2, 5 minutes.* Twins are compared at one budget of real target tokens. How
# many steps is that? The epoch's batches are read in their order, and again from the
# start when they are over. Training stops after the first step with which the tokens
# read reach the budget. By hand: batches of 6, 10 and 6 real tokens, a budget of 15: 6
# is too little, 16 is enough: two steps.


# %%
def steps_within(batches, budget):
    """The number of steps: an int.

    batches: the labels of one epoch, a list of tensors (B, L), -100 at pads; the end
    of a sentence is a token like any other. budget: real target tokens, 1 or more.
    """
    ### BEGIN SOLUTION
    tokens = steps = 0
    while tokens < budget:
        labels = batches[steps % len(batches)]
        tokens += int((labels != -100).sum())
        steps += 1
    return steps
    ### END SOLUTION


ex07.steps_within.check(steps_within)

# %% [markdown]
# ## 6. A step of word-level distillation
#
# *Difficulty 4, 18 minutes.* The whole step with a live teacher, its batch in several
# micro-batches because of the memory. The loss is KL(Pr^t ‖ Pr^s), averaged over *all*
# real positions of the step; together the micro-batches make **one** step of the
# optimiser. Take nothing for granted: a validation may have left the student in eval
# mode and the teacher in train mode, and there are gradients from before. By hand: two
# micro-batches with 3 and 1 real positions and summed losses 0.6 and 1.0 have the loss
# 1.6 / 4 = 0.4, not (0.2 + 1.0) / 2 = 0.6.


# %%
def distillation_step(student, teacher, micro_batches, optimizer):
    """Make one step; return the mean loss before it, in nats: a float.

    student, teacher: torch.nn.Module; student(inputs) gives logits (n, V).
    micro_batches: a list of (inputs (n, d), mask (n,)), mask True at real positions.
    optimizer: over the student's parameters.
    """
    ### BEGIN SOLUTION
    student.train()
    teacher.eval()
    optimizer.zero_grad()
    tokens = sum(int(mask.sum()) for _, mask in micro_batches)
    total = 0.0
    for inputs, mask in micro_batches:
        with torch.no_grad():
            log_p = teacher(inputs)[mask].log_softmax(dim=-1)
        log_q = student(inputs)[mask].log_softmax(dim=-1)
        loss = (log_p.exp() * (log_p - log_q)).sum() / tokens
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total
    ### END SOLUTION


ex07.distillation_step.check(distillation_step)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
