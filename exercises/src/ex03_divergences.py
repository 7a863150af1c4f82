# %% [markdown]
# # Exercises 03: divergences
#
# *Six exercises, about 41 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/03_divergences.ipynb`.
#
# Everywhere p is the teacher's distribution and q the student's; the vocabulary is the
# last dimension, and logarithms are natural.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex03.forward_kl.hint()` gives a hint, `ex03.forward_kl.hint(2)` a
# bigger one, and `ex03.forward_kl.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex03

settings = kdcourse.setup(lesson="03")

# %% [markdown]
# ## 1. Total variation
#
# *Difficulty 1, 3 minutes.* ½ Σ_v |p_v − q_v|, one number for each position. By hand:
# (3/4, 1/4) and (1/2, 1/2) give ½ (1/4 + 1/4) = 1/4. Two distributions with no word in
# common give 1.

# %%
def total_variation(p, q):
    """Half the sum of the absolute differences at each position: shape (...).

    p, q: probabilities of the teacher and of the student, (..., V).
    """
    ### BEGIN SOLUTION
    return (p - q).abs().sum(dim=-1) / 2
    ### END SOLUTION


ex03.total_variation.check(total_variation)

# %% [markdown]
# ## 2. The forward KL, from logits
#
# *Difficulty 3, 8 minutes.* KL(p ‖ q) = Σ_v p_v (log p_v − log q_v), one number for
# each position. Three things must hold:
#
# - logits may be as large as 10,000;
# - a logit of −∞ is a word that cannot be said. Where the **teacher** cannot say it, it
#   adds nothing, whatever the student does;
# - where the teacher says a word that the **student** cannot, the result is infinite:
#   that is its true value.
#
# By hand: q = (1/2, 1/2) and p = (3/4, 1/4) give 0.131 nats; the other way round it is
# 0.144.

# %%
def forward_kl(student_logits, teacher_logits):
    """KL(p ‖ q) in nats at each position: shape (...).

    student_logits, teacher_logits: (..., V); gradients must flow to the student's.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits, dim=-1)
    log_p = torch.log_softmax(teacher_logits, dim=-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)
    ### END SOLUTION


ex03.forward_kl.check(forward_kl)

# %% [markdown]
# ## 3. Choose a ceiling
#
# *Difficulty 2, 4 minutes.* The skew KL is KL(p ‖ m) with m = α p + (1 − α) q. You
# want it never to exceed a certain number of nats, whatever the student does, and to
# mix in as little of the teacher as that allows. Which α do you take? By hand: for a
# ceiling of log 2 it is 1/2.

# %%
import math


def alpha_for_ceiling(nats):
    """The smallest α for which KL(p ‖ α p + (1 − α) q) is never above ``nats``.

    nats: a number above 0.
    """
    ### BEGIN SOLUTION
    return math.exp(-nats)  # p / m is at most 1 / α, so the ceiling is log(1/α)
    ### END SOLUTION


ex03.alpha_for_ceiling.check(alpha_for_ceiling)

# %% [markdown]
# ## 4. A dial that does not turn down the volume
#
# *Difficulty 3, 8 minutes.* The generalised JS,
#
# $$D_\beta = \beta\,\mathrm{KL}(p\|m) + (1-\beta)\,\mathrm{KL}(q\|m),\quad
#   m = \beta p + (1-\beta) q,$$
#
# goes to 0 at both ends. Make a dial of it: return D_β / (β (1 − β)) for 0 < β < 1. Its
# limits are KL(p ‖ q) at β = 0 and KL(q ‖ p) at β = 1: return these there. A word with
# probability 0 adds nothing to a KL in which it should speak. By hand: for p =
# (3/4, 1/4) and q = (1/2, 1/2) the dial shows 0.131 at 0, 0.135 at ½ and 0.144 at 1.

# %%
def js_dial(p, q, beta):
    """D_β / (β (1 − β)), or its limit at β = 0 or 1, at each position: shape (...).

    p, q: probabilities of the teacher and of the student, (..., V).
    beta: a number from 0 to 1.
    """
    ### BEGIN SOLUTION
    def kl(a, b):
        return torch.where(a > 0, a * (a / b).log(), 0.0).sum(dim=-1)

    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    m = beta * p + (1 - beta) * q
    return (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))
    ### END SOLUTION


ex03.js_dial.check(js_dial)

# %% [markdown]
# ## 5. How the reverse KL pulls
#
# *Difficulty 4, 10 minutes.* The forward KL pulls the student's logits by q − p. Derive
# how the reverse KL, KL(q ‖ p) = Σ_v q_v (log q_v − log p_v), pulls them, and write it
# down **without autograd** (the check sees your numbers, not how you got them). You
# need one fact about the softmax: ∂q_v / ∂z_w = q_v (1[v = w] − q_w). By hand: for
# q = (1/2, 1/2) and p = (3/4, 1/4) the answer is (−¼ log 3, +¼ log 3).
#
# When you have it, look at it: by what is everything multiplied? That is why a word to
# which the student gives next to nothing is hardly pulled back.

# %%
def reverse_kl_gradient(student_logits, teacher_logits):
    """∂ KL(q ‖ p) / ∂ student_logits, each position by itself: shape (..., V).

    student_logits, teacher_logits: finite numbers, (..., V), up to hundreds.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits, dim=-1)
    log_p = torch.log_softmax(teacher_logits, dim=-1)
    q, r = log_q.exp(), log_q - log_p
    # Σ_v (r_v + 1) q_v (1[v = w] − q_w) = q_w (r_w + 1) − q_w (KL + 1)
    return q * (r - (q * r).sum(dim=-1, keepdim=True))
    ### END SOLUTION


ex03.reverse_kl_gradient.check(reverse_kl_gradient)

# %% [markdown]
# ## 6. The best student that cannot look back
#
# *Difficulty 4, 8 minutes.* The teacher says pairs of words, an article and a noun,
# with probabilities p(a, n). The student must choose both independently: q(a, n) =
# q(a) q(n). Which q(a) and q(n) have the smallest **forward KL**(p ‖ q)? Derive it:
# write down the KL, and use that a cross-entropy −Σ p log q is smallest at q = p. Your
# answer works for any table, and needs no training.
#
# By hand: a teacher that says *el banco* with 3/5 and *la orilla* with 2/5 gets a
# student with (3/5, 2/5) for the articles and (3/5, 2/5) for the nouns. It says *el
# orilla* with 6/25.

# %%
def best_independent(joint):
    """Two things: q(a), shape (A,), and q(n), shape (N,).

    joint: the teacher's probabilities p(a, n), shape (A, N); they sum to 1.
    """
    ### BEGIN SOLUTION
    # −Σ p(a, n) log [q(a) q(n)] = −Σ_a p(a) log q(a) − Σ_n p(n) log q(n): two
    # cross-entropies, each smallest where q is the teacher's own share.
    return joint.sum(dim=1), joint.sum(dim=0)
    ### END SOLUTION


ex03.best_independent.check(best_independent)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
