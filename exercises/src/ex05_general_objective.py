# %% [markdown]
# # Exercises 05: the general objective
#
# *Seven exercises, about 40 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/05_general_objective.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex05.sequence_loss.hint()` gives a hint,
# `ex05.sequence_loss.hint(2)` a bigger one, and `ex05.sequence_loss.solution()` one
# good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex05

settings = kdcourse.setup(lesson="05")

# %% [markdown]
# ## 1. The loss of whole sentences
#
# *Difficulty 1, 4 minutes.* The sequence-level loss, −Σ_y Pr^t(y) log Pr^s(y), from two
# tables. By hand: the teacher says its two outputs with 0.6 and 0.4, the student gives
# them 0.3 and 0.5: 0.6 · 1.20 + 0.4 · 0.69 = 1.00 nats. An output that the teacher
# never says adds nothing, even if the student cannot say it either (0 · ∞ is 0 here).
# One that the teacher says and the student cannot makes the loss infinite, as it
# should.


# %%
def sequence_loss(teacher, student):
    """The sequence-level loss, in nats: a float.

    teacher: dictionary from each output y to Pr^t(y); the probabilities sum to 1.
    student: dictionary from output to log Pr^s(y): these outputs, in any order, and
        perhaps more; -inf (a float) for what the student cannot say.
    """
    ### BEGIN SOLUTION
    return -sum(p * student[y] for y, p in teacher.items() if p > 0)
    ### END SOLUTION


ex05.sequence_loss.check(sequence_loss)

# %% [markdown]
# ## 2. One output in place of all
#
# *Difficulty 2, 6 minutes.* Models score token by token. Find ŷ, the output to which
# the teacher gives the largest probability, and return the target-generated loss, −log
# Pr^s(ŷ). By hand: the teacher gives the tokens of two outputs (0.4, 0.9) and (0.6,
# 0.8). 0.36 < 0.48, so ŷ is the second. The student gives its tokens 0.3 and 0.5: the
# loss is −log 0.15 = 1.90.


# %%
def target_generated_loss(teacher, student):
    """-log Pr^s(ŷ), in nats: a float.

    teacher, student: for each output a list of log-probabilities, one a token. Outputs
    may have different lengths; those of teacher[n] and student[n] are the same.
    """
    ### BEGIN SOLUTION
    scores = [sum(tokens) for tokens in teacher]
    best = scores.index(max(scores))
    return -sum(student[best])
    ### END SOLUTION


ex05.target_generated_loss.check(target_generated_loss)

# %% [markdown]
# ## 3. The chain rule
#
# *Difficulty 4, 10 minutes.* The KL of whole sentences as a sum over prefixes: each
# prefix adds Pr^t(prefix) · KL(Pr^t(·|prefix) ‖ Pr^s(·|prefix)). A table maps a prefix,
# a tuple of tokens, to the distribution of the next token; `()` is the beginning. What
# ends with `"<eos>"` is a finished sentence, and no key. By hand, from the lesson: 1 ·
# 0.02 + 0.6 · 0.19 + 0.4 · 0 = 0.14.


# %%
import math


def kl_by_tokens(teacher, student):
    """KL(Pr^t ‖ Pr^s) of whole sentences, in nats: a float.

    teacher: dictionary from each prefix that the teacher can say, in any order, to the
        dictionary {token: probability} of what it says next; a probability may be 0.
    student: the same for the student; it may know more prefixes and more tokens.
    """

    ### BEGIN SOLUTION
    def below(prefix, mass):
        if prefix not in teacher:
            return 0.0  # a finished sentence
        total = 0.0
        for token, p in teacher[prefix].items():
            if p > 0:
                total += mass * p * math.log(p / student[prefix][token])
                total += below((*prefix, token), mass * p)
        return total

    return below((), 1.0)
    ### END SOLUTION


ex05.kl_by_tokens.check(kl_by_tokens)

# %% [markdown]
# ## 4. A mix of data, some of it the student's own
#
# *Difficulty 3, 6 minutes.* GKD compares teacher and student along references and along
# the student's own outputs: μ = (1 − λ) references + λ Pr^s. The losses of the
# sequences are given. The references count alike; the student's outputs, all of them
# listed, count with their probabilities. **No gradient flows through these
# probabilities.** By hand: λ = 1/4, losses (1, 2) of the references, (4, 8) of outputs
# said with 3/4 and 1/4: 3/4 · 1.5 + 1/4 · 5 = 2.375.


# %%
def mixed_loss(data_losses, own_losses, own_probabilities, lam):
    """The expected loss under the mix: a tensor of shape ().

    data_losses: (N,), the loss along each reference.
    own_losses: (M,), the loss along each of the student's own outputs.
    own_probabilities: (M,), Pr^s of these outputs; they sum to 1 and depend on θ.
    lam: the share λ of the student's own outputs, in 0..1.
    """
    ### BEGIN SOLUTION
    of_data = data_losses.mean()
    of_own = (own_probabilities.detach() * own_losses).sum()
    return (1 - lam) * of_data + lam * of_own
    ### END SOLUTION


ex05.mixed_loss.check(mixed_loss)

# %% [markdown]
# ## 5. Between teacher and reference
#
# *Difficulty 2, 5 minutes.* Sequence-level interpolation trains the student on one of
# the teacher's `n` most probable outputs: the one most similar to the reference. Where
# two are equally similar, the more probable one. By hand, n = 2, outputs with 0.5, 0.3,
# 0.2 and similarities 0.1, 0.4, 0.9: the second; the third may not stand.


# %%
def interpolated_target(candidates, reference, n, similarity):
    """The chosen output: a key of candidates.

    candidates: dictionary from output to Pr^t(y), in any order.
    reference: the human translation.
    n: how many of the most probable outputs are considered; all, if there are fewer.
    similarity: a function; similarity(output, reference) is larger for closer ones.
    """
    ### BEGIN SOLUTION
    best_first = sorted(candidates, key=candidates.get, reverse=True)
    return max(best_first[:n], key=lambda y: similarity(y, reference))
    ### END SOLUTION


ex05.interpolated_target.check(interpolated_target)

# %% [markdown]
# ## 6. A student that does not see the context
#
# *Difficulty 2, 5 minutes.* The teacher reads c, the student z alone. Which
# distribution has the least forward KL, averaged over the contexts? The mixture Σ_c
# Pr(c|z) Pr^t(y|c,z). By hand: *banco* has 0.8, 0.97 and 0.03 in three contexts with
# the shares 1/6, 1/2 and 1/3: 0.13 + 0.485 + 0.01 = 0.63.


# %%
def without_context(shares, teacher):
    """The best student without context: a dictionary from output to probability.

    shares: dictionary from context c to Pr(c|z); they sum to 1.
    teacher: dictionary from context c to {output: Pr^t(output|c,z)}; an output may be
        missing in some contexts, where the teacher never says it.
    """
    ### BEGIN SOLUTION
    mixture = {}
    for c, share in shares.items():
        for y, p in teacher[c].items():
            mixture[y] = mixture.get(y, 0.0) + share * p
    return mixture
    ### END SOLUTION


ex05.without_context.check(without_context)

# %% [markdown]
# ## 7. A teacher that knows nothing
#
# *Difficulty 3, 6 minutes.* Label smoothing is a row of the table, too: the share 1 − ε
# of the hard labels, and the share ε of a teacher that gives each of the V tokens 1/V.
# Both parts are cross-entropies. By hand: V = 2, the student gives the label 3/4, ε =
# 0.2: 0.8 · 0.29 + 0.2 · ½ (0.29 + 1.39) = 0.40.


# %%
def smoothed_loss(logits, labels, epsilon):
    """The mean loss over the rows, in nats: a tensor of shape ().

    logits: (N, V), raw scores, up to ±10,000; gradients must flow to them.
    labels: (N,), the right token of each row.
    epsilon: the share of the uniform teacher, in 0..1.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(logits, dim=-1)
    hard = -log_q.gather(1, labels[:, None])[:, 0]
    uniform = -log_q.mean(dim=-1)
    return ((1 - epsilon) * hard + epsilon * uniform).mean()
    ### END SOLUTION


ex05.smoothed_loss.check(smoothed_loss)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
