# %% [markdown]
# # Exercises 04: the distillation loss, piece by piece
#
# *Seven exercises, about 65 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/04_distillation_loss.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex04.kd_loss.hint()` gives a hint, `ex04.kd_loss.hint(2)` a
# bigger one, and `ex04.kd_loss.solution()` one good solution.
#
# Throughout, p_T = softmax(z_t / T) is the teacher and q_T = softmax(z_s / T) the
# student; the vocabulary is the last axis, and logarithms are natural.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex04

settings = kdcourse.setup(lesson="04")

# %% [markdown]
# ## 1. Soft and hard, mixed
#
# *Difficulty 1, 5 minutes.* You have KL(p_T ‖ q_T), *without* T², and the cross-entropy
# of the labels. Mix them, with α the share of the **hard** labels, and give the soft
# term what it needs to keep its gradient's size. By hand: soft 0.5, hard 1.25, T = 2
# and α = 1/4 make 3/4 · 4 · 0.5 + 1/4 · 1.25 = 1.8125.


# %%
def mix(soft, hard, temperature, alpha):
    """The distillation loss with hard labels: a number, or a tensor as soft and hard.

    soft: KL(p_T ‖ q_T), a number or a tensor of one entry a token.
    hard: -log q_1(y), likewise.
    temperature: T > 0. alpha: the share of the hard labels, 0 to 1.
    """
    ### BEGIN SOLUTION
    return (1 - alpha) * temperature**2 * soft + alpha * hard
    ### END SOLUTION


ex04.mix.check(mix)

# %% [markdown]
# ## 2. What the loss does to a logit
#
# *Difficulty 3, 8 minutes.* Derive the gradient of T² KL(p_T ‖ q_T) in the student's
# logits, on paper, and write the result down: no autograd, no loop (the check sees only
# the numbers). By hand: at T = 2 a
# student with q_T = (1/6, 1/3, 1/2) and a teacher with p_T = (4/7, 2/7, 1/7) give
# (−17/21, 2/21, 15/21). Logits go up to ±10,000, and −inf marks a token that cannot be
# said, by either of the two: its gradient is 0.


# %%
def soft_gradient(student_logits, teacher_logits, temperature):
    """The gradient of T² KL(p_T ‖ q_T) in student_logits: a tensor of their shape.

    student_logits, teacher_logits: (..., V). temperature: T > 0.
    """
    ### BEGIN SOLUTION
    q = torch.softmax(student_logits / temperature, dim=-1)
    p = torch.softmax(teacher_logits / temperature, dim=-1)
    return temperature * (q - p)
    ### END SOLUTION


ex04.soft_gradient.check(soft_gradient)

# %% [markdown]
# ## 3. The loss of a batch
#
# *Difficulty 4, 15 minutes.* T² KL(p_T ‖ q_T), summed over the **real** tokens and
# divided once by **their number**. A position is real where its label is not −100; the
# labels serve no other purpose here. Almost every line of this function has been got
# wrong in public: the check knows over two dozen ways. Your result must carry a
# gradient to the student's logits, and survive logits of ±10,000.


# %%
def kd_loss(student_logits, teacher_logits, labels, temperature):
    """The mean of T² KL(p_T ‖ q_T) over the real tokens, in nats: shape ().

    student_logits, teacher_logits: (B, L, V); position t of both belongs to the label
    at t. labels: (B, L), -100 at pads. temperature: T > 0, for both sides.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    log_q = torch.log_softmax(student_logits[real] / temperature, dim=-1)
    log_p = torch.log_softmax(teacher_logits[real] / temperature, dim=-1)
    per_token = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * per_token.sum() / real.sum()
    ### END SOLUTION


ex04.kd_loss.check(kd_loss)

# %% [markdown]
# ## 4. When everything melts
#
# *Difficulty 3, 8 minutes.* What does T² KL(p_T ‖ q_T) tend to as T → ∞? Derive it,
# then compute it for each position, in closed form: no large T, whose rounding would
# spoil it. By hand: the logits (0, log 4, log 9) against (log 16, log 4, 0) give 2.07,
# and a constant added to all logits of one side changes nothing.


# %%
def high_temperature_limit(student_logits, teacher_logits):
    """The limit of T² KL(p_T ‖ q_T) as T → ∞, for each position: a tensor (...).

    student_logits, teacher_logits: (..., V), finite.
    """
    ### BEGIN SOLUTION
    d = student_logits - teacher_logits
    centred = d - d.mean(dim=-1, keepdim=True)
    return centred.square().mean(dim=-1) / 2
    ### END SOLUTION


ex04.high_temperature_limit.check(high_temperature_limit)

# %% [markdown]
# ## 5. k tokens and a bucket
#
# *Difficulty 4, 12 minutes.* A cache keeps the teacher's k best tokens, at T = 1, and
# the mass of all others. Compute KL over these k + 1 events: Σ_kept p log(p/q) + r
# log(r/s), with r the teacher's mass of the others and s the student's. By hand: "luz"
# 16/21 against 1/14 and the rest 5/21 against 13/14 give 1.48. Mind a student that is
# very sure: its s may be 10⁻²⁰, and 1 − Σ q cannot tell that from 0.


# %%
def bucket_kl(student_logits, indices, log_probs, log_rest):
    """KL over the k kept tokens and the bucket of all others, in nats: shape (N,).

    student_logits: (N, V) raw logits, -inf at tokens that cannot be said. indices:
    (N, k), the kept tokens, k < V. log_probs: (N, k), the teacher's log p of these, not
    renormalised. log_rest: (N,), log r.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits, dim=-1)
    log_s = log_q.scatter(1, indices, float("-inf")).logsumexp(dim=1)
    kept = log_probs.exp() * (log_probs - log_q.gather(1, indices))
    return kept.sum(dim=1) + log_rest.exp() * (log_rest - log_s)
    ### END SOLUTION


ex04.bucket_kl.check(bucket_kl)

# %% [markdown]
# ## 6. Features through a projection
#
# *Difficulty 3, 10 minutes.* The student's features are d_s wide, the teacher's d_t.
# The projection, a matrix (d_s, d_t), is learned together with the student. The loss is
# the mean squared difference over the real tokens and the d_t dimensions. By hand:
# student (1, 2), projected to (1, 2, 3), teacher (1, 2, 5): 4/3.


# %%
def feature_loss(student_features, teacher_features, projection, mask):
    """Mean squared difference over real tokens and dimensions: shape ().

    student_features: (B, L, d_s). teacher_features: (B, L, d_t). projection:
    (d_s, d_t). mask: (B, L) bool, True at a real token. Gradients flow to student and
    projection.
    """
    ### BEGIN SOLUTION
    projected = student_features[mask] @ projection
    return (projected - teacher_features[mask]).square().mean()
    ### END SOLUTION


ex04.feature_loss.check(feature_loss)

# %% [markdown]
# ## 7. Relations between tokens
#
# *Difficulty 3, 7 minutes.* Take all N real tokens of the batch together. The cosines
# of their N² pairs make one matrix for the student and one for the teacher, of equal
# shape though the widths differ. The loss is the mean squared difference of the two. By
# hand: student tokens (1, 0) and (0, 1), teacher (3, 4) and (4, 3): (24/25)²/2 = 0.46.


# %%
def relation_loss(student_features, teacher_features, mask):
    """Mean squared difference of the cosines of all pairs of real tokens: shape ().

    student_features: (B, L, d_s). teacher_features: (B, L, d_t), no feature is 0.
    mask: (B, L) bool, True at a real token. Gradients flow to the student.
    """
    ### BEGIN SOLUTION
    cosines = []
    for features in (student_features, teacher_features):
        unit = torch.nn.functional.normalize(features[mask], dim=-1)
        cosines.append(unit @ unit.T)
    return (cosines[0] - cosines[1]).square().mean()
    ### END SOLUTION


ex04.relation_loss.check(relation_loss)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
