# %% [markdown]
# # Exercises 04, second part: the bug museum
#
# *Ten exhibits and a question, about 85 minutes, difficulty 1 to 4 of 5. They go with
# the lesson* `notebooks/04_distillation_loss.ipynb`.
#
# A wrong distillation loss does not crash. It gives a number that falls, and a student
# that is a little worse than it could be. All ten exhibits were reported as wrong, or
# found to be so, in public code; the lines that re-create them are our own.
#
# This time you do not write the loss. You write the **property test** that tells
# whether a loss is wrong *in this way*: a function that takes **any** loss and returns
# `True` where the property holds and `False` where it is broken. The check then tests
# your test: it hands it a line-up of right losses, of wrong ones, and of losses that
# are wrong in *another* way, which your test has to let pass.
#
# **One of the ten reports is false.** Its exhibit is right, and the change that was
# asked for would break it. Your own tests will find it; the last question asks which.
#
# Put your code in place of the three dots. Stuck? `ex04.ignores_repetition.hint()`
# gives a hint, `ex04.ignores_repetition.hint(2)` a bigger one.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import inspect
import math

import torch
from torch.nn import functional as F

import kdcourse
from kdcourse.study import lineup
from kdcourse.study.checks import ex04
from kdcourse.theory.losses import distillation_loss

settings = kdcourse.setup(lesson="04")

# %% [markdown]
# ## The two tools
#
# Every loss here is called as `loss(student, teacher, labels)`: logits (B, L, V) of
# student and teacher, labels (B, L) that are −100 at pads. Position t of the logits
# belongs to position t of the labels. It returns one number, and may take an option by
# name where the exercise says so.
#
# Two functions of `kdcourse.study.lineup` keep your tests short. Read them first.

# %%
print(inspect.getsource(lineup.make_batch))
print(inspect.getsource(lineup.gradient))

# %% [markdown]
# A test is mostly: *make a batch, change it in a way that should not matter (or
# should), ask the loss twice, compare*. Two habits help. Compare with room for
# rounding: `torch.isclose(a, b, rtol=1e-4)` returns a tensor, and `bool(...)` makes it
# an answer. And ask of every example: **could it see the mistake at all?**
#
# All exhibits use this, the KL at each position. You may trust it.

# %%
def kl(student, teacher, temperature=1.0):
    """KL(teacher ‖ student) at each position: (B, L)."""
    log_q = (student.float() / temperature).log_softmax(dim=-1)
    log_p = (teacher.float() / temperature).log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)

# %% [markdown]
# ## Exhibit 1: the quiet teacher
#
# *Reported in haitongli/knowledge-distillation-pytorch#48, facebookresearch/deit#61 and
# HikariTJU/LD#74.* Beside a cross-entropy of a few nats the soft term is a number with
# zeros behind the point, so whatever weight it gets, the teacher is hardly heard.
# *Asked for:* do not leave `kl_div` its default mean.

# %%
def exhibit_1(student, teacher, labels):
    real = labels != -100
    student, teacher = student[real].float(), teacher[real].float()
    log_q, p = student.log_softmax(-1), teacher.softmax(-1)
    return F.kl_div(log_q, p, reduction="none").mean()


for size in (10, 1_000, 32_000):
    batch = lineup.make_batch((4, 2), vocabulary=size)
    too_small = distillation_loss(*batch[:2], labels=batch[2]) / exhibit_1(*batch)
    print(f"V = {size:>6,}: {too_small:>6,.0f} times too small")

# %% [markdown]
# The number falls with the size of the vocabulary. But V alone proves nothing: other
# distributions give another KL. So test what cannot matter: **tokens that nobody can
# say**.
#
# *Difficulty 2, 8 minutes.* Does the loss stay when student and teacher both get a few
# more entries in the vocabulary, whose probability is 0?

# %%
from kdcourse.study.lineup import make_batch


def ignores_impossible_tokens(loss):
    """True where entries of the vocabulary with probability 0 change nothing."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    wider_student, wider_teacher = (
        torch.nn.functional.pad(x, (0, 4), value=-1e4) for x in (student, teacher)
    )
    before = loss(student, teacher, labels)
    after = loss(wider_student, wider_teacher, labels)
    return bool(torch.isclose(before, after, rtol=1e-4))
    ### END SOLUTION


ex04.ignores_impossible_tokens.check(ignores_impossible_tokens)

# %% [markdown]
# ## Exhibit 2: long sentences shout
#
# *Reported in huggingface/transformers#1181 and neuralmagic/sparseml#592.* PyTorch
# recommends the reduction `"batchmean"` for `kl_div`, and the first axis of (B, L, V)
# is the batch. *Asked for:* divide by the number of tokens instead.

# %%
def exhibit_2(student, teacher, labels):
    return kl(student, teacher)[labels != -100].sum() / len(labels)


for length in (4, 8, 16):
    batch = lineup.make_batch((length, length))
    times = exhibit_2(*batch) / kl(*batch[:2]).mean()
    print(f"sentences of {length:>2} tokens: {times:.0f} times the loss of a token")

# %% [markdown]
# The learning rate that suits short sentences is too high for long ones.
#
# *Difficulty 2, 6 minutes.* A loss that is a mean over tokens stays when each token is
# said twice, with the same logits and the same label. Does it?

# %%
from kdcourse.study.lineup import make_batch


def ignores_repetition(loss):
    """True where saying each token twice leaves the loss as it is."""
    ### BEGIN SOLUTION
    batch = make_batch((6, 3))
    doubled = [x.repeat_interleave(2, dim=1) for x in batch]
    return bool(torch.isclose(loss(*batch), loss(*doubled), rtol=1e-4))
    ### END SOLUTION


ex04.ignores_repetition.check(ignores_repetition)

# %% [markdown]
# ## Exhibit 3: the perfect student pays
#
# *Seen in TextBrewer's default and in KD_Lib.* A batch is a rectangle, sentences are
# not, and the rest is filled with pads. *What should be there instead:* leave the pads
# out before the mean is taken.

# %%
def exhibit_3(student, teacher, labels):
    return kl(student, teacher).mean()


student, teacher, labels = lineup.make_batch((6, 1))
copied = torch.where((labels != -100)[..., None], teacher, student)
print("a student that says just what its teacher says, at each real token:")
print(f"its loss is 0: {bool(exhibit_3(copied, teacher, labels) < 1e-6)}")

# %% [markdown]
# Two things are wrong: the student is made to *learn* at pads, and the sum is divided
# by a wrong number. Here we ask for the first. What a position learns is its gradient,
# and that is what has to be 0.
#
# *Difficulty 2, 7 minutes.* Is the gradient 0 at each pad? (A loss that only divides by
# the wrong number keeps this property, and has to pass.)

# %%
from kdcourse.study.lineup import gradient, make_batch


def leaves_pads_alone(loss):
    """True where no gradient reaches a pad."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 2, 3))
    pull = gradient(loss, student, teacher, labels)
    return pull[labels == -100].abs().max().item() <= 1e-7
    ### END SOLUTION


ex04.leaves_pads_alone.check(leaves_pads_alone)

# %% [markdown]
# ## Exhibit 4: one logarithm short
#
# *Reported in nlp-with-transformers/notebooks#94.* The first argument of `kl_div` is a
# `log_softmax`, the second a plain `softmax`. *Asked for:* `log_softmax` on both sides,
# as in the second function.

# %%
def exhibit_4(student, teacher, labels):
    real = labels != -100
    student, teacher = student[real].float(), teacher[real].float()
    log_q, p = student.log_softmax(-1), teacher.softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean")


def exhibit_4_as_asked(student, teacher, labels):
    real = labels != -100
    student, teacher = student[real].float(), teacher[real].float()
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean")


student, teacher, labels = lineup.make_batch((4, 2))
terms = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="none")
print(f"some of the terms that are added up are below 0: {bool((terms < 0).any())}")

# %% [markdown]
# A divergence is never negative: that much every book says. And these two lines call
# the same function in two ways, so one of them must be wrong.
#
# Others have called it in more ways: with a `softmax` on the left (KD_Lib,
# microsoft/ProDA#43), or leaving the teacher's entropy in and calling the result "KL"
# (DistiLLM, torchtune). One test for all of them:
#
# *Difficulty 2, 8 minutes.* Is the loss a divergence: a number, 0 where the student
# says just what the teacher says, and **above** 0 where they differ? (Any divergence
# will do; the KL in either direction, for instance.)

# %%
from kdcourse.study.lineup import make_batch


def is_a_divergence(loss):
    """True where the loss is 0 at equality and above 0 elsewhere."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    at_equality = loss(teacher, teacher, labels).item()
    apart = [
        loss(a, b, labels).item() for a, b in ((student, teacher), (teacher, student))
    ]
    above_zero = all(1e-4 < value < float("inf") for value in apart)
    return abs(at_equality) < 1e-4 and above_zero
    ### END SOLUTION


ex04.is_a_divergence.check(is_a_divergence)

# %% [markdown]
# ## Exhibit 5: probabilities of nothing
#
# *Seen in torchdistill's `KDLoss` when it is handed (B, L, V).* For logits (N, C) of a
# classifier, `dim=1` is the axis of the classes. *What should be there instead:*
# `dim=-1`.

# %%
def exhibit_5(student, teacher, labels):
    log_q, p = student.float().log_softmax(dim=1), teacher.float().softmax(dim=1)
    return F.kl_div(log_q, p, reduction="none").sum(-1)[labels != -100].mean()


student, teacher, labels = lineup.make_batch((4, 4))
sums = teacher.softmax(dim=1)[0].sum(-1)
print("the probabilities of one token sum to:", [round(x, 1) for x in sums.tolist()])

# %% [markdown]
# The mistake leaves a mark: a softmax over the vocabulary forgets a constant that is
# added to all V logits *of one token*. One over anything else does not.
#
# *Difficulty 3, 8 minutes.* Does the loss stay when such constants are added to student
# and teacher?

# %%
from kdcourse.study.lineup import make_batch


def ignores_shifts(loss):
    """True where a constant added to all logits of a token changes nothing."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    generator = torch.Generator().manual_seed(1)
    c, d = 4 * torch.randn(2, 2, 5, 1, generator=generator)
    before = loss(student, teacher, labels)
    after = loss(student + c, teacher + d, labels)
    return bool(torch.isclose(before, after, rtol=1e-4))
    ### END SOLUTION


ex04.ignores_shifts.check(ignores_shifts)

# %% [markdown]
# ## Exhibit 6: it depends on how you cut it
#
# *Reported in huggingface/trl#4719 and #6006.* A batch that does not fit into memory is
# cut into micro-batches, whose gradients are added up. *Asked for:* divide by the
# tokens of the whole step.
#
# The exhibit is no loss, but a **step**: it takes a list of micro-batches (student,
# teacher, labels) and returns the loss of the step.

# %%
def exhibit_6(batches):
    means = [kl(s, t)[y != -100].mean() for s, t, y in batches]
    return sum(means) / len(means)


whole = lineup.make_batch((9, 1))
parts = [[x[:1] for x in whole], [x[1:] for x in whole]]
change = exhibit_6(parts) / exhibit_6([whole]) - 1
print("the same two sentences in two parts: the loss differs by more than a tenth:",
      bool(abs(change) > 0.1))

# %% [markdown]
# A token of a short micro-batch weighs more than one of a long one. Who halves the
# micro-batch to save memory trains another student.
#
# *Difficulty 3, 8 minutes.* Does the step give the same, whether the sentences come as
# one batch or as several?

# %%
from kdcourse.study.lineup import make_batch


def adds_up(step):
    """True where cutting a batch into micro-batches changes nothing."""
    ### BEGIN SOLUTION
    batch = make_batch((7, 4, 2))
    first, rest = [x[:1] for x in batch], [x[1:] for x in batch]
    return bool(torch.isclose(step([batch]), step([first, rest]), rtol=1e-4))
    ### END SOLUTION


ex04.adds_up.check(adds_up)

# %% [markdown]
# ## Exhibit 7: it never stops talking
#
# *Reported in huggingface/trl#6357.* This loss gets one option by name,
# `loss(student, teacher, labels, pad_token_id=...)`. Many models have no token for
# padding, and their users set pad = EOS. *Asked for:* make the mask from the labels,
# which are −100 at pads.

# %%
def exhibit_7(student, teacher, labels, pad_token_id=0):
    real = (labels != -100) & (labels != pad_token_id)
    return kl(student, teacher)[real].mean()


_, _, labels = lineup.make_batch((4, 3))
for name, pad in (("of its own", 0), ("EOS", 1)):
    counted = ((labels != -100) & (labels != pad)).sum()
    print(f"pad is {name}: {counted} of {(labels != -100).sum()} tokens count")

# %% [markdown]
# Which ones are missing? The student will show it: it translates the sentence, and goes
# on.
#
# *Difficulty 3, 8 minutes.* Is the end of every sentence learned, whatever the pad's
# id? EOS is token 1, `lineup.EOS`.

# %%
from kdcourse.study.lineup import EOS, gradient, make_batch


def learns_to_stop(loss):
    """True where a gradient reaches each EOS, for any pad_token_id."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3, 4))
    for pad in (0, EOS):
        pull = gradient(loss, student, teacher, labels, pad_token_id=pad)
        if (pull[labels == EOS].abs().amax(-1) < 1e-6).any():
            return False
    return True
    ### END SOLUTION


ex04.learns_to_stop.check(learns_to_stop)

# %% [markdown]
# ## Exhibit 8: the hotter, the fainter
#
# *Reported in IntelLabs/distiller#122 and keras-team/keras-io#869; seen in TextBrewer.*
# The loss gets `temperature=...` by name. *Asked for:* multiply by T².

# %%
def exhibit_8(student, teacher, labels, temperature=1.0):
    return kl(student, teacher, temperature)[labels != -100].mean()


batch = lineup.make_batch((5, 3))
for T in (5, 50):
    fades = exhibit_8(*batch, temperature=1) / exhibit_8(*batch, temperature=T)
    print(f"T = {T:>2}: about {float(f'{fades:.1g}'):>5,.0f} times smaller than at 1")

# %% [markdown]
# A smaller number is no harm in itself. What counts is how hard the loss *pulls* beside
# other terms, and that is the size of its gradient. Of a right loss it tends to a
# constant as T grows.
#
# *Difficulty 3, 10 minutes.* Does the size of the gradient stay, or nearly, from one
# high temperature to another?

# %%
from kdcourse.study.lineup import gradient, make_batch


def keeps_its_size(loss):
    """True where the gradient neither fades nor grows at high temperatures."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    warm, hot = (
        gradient(loss, student, teacher, labels, temperature=T).norm().item()
        for T in (40.0, 160.0)
    )
    return abs(hot - warm) <= 0.1 * warm
    ### END SOLUTION


ex04.keeps_its_size.check(keeps_its_size)

# %% [markdown]
# ## Exhibit 9: taught by the neighbour
#
# *Reported in linkedin/fmchisel#23; its relatives in modelscope/ms-swift#8436 and in
# the trainer of DistillKit.* Someone shifted the logits because a decoder predicts the
# *next* token, and they had been shifted before. *Asked for:* remove the second shift.

# %%
def exhibit_9(student, teacher, labels):
    per_token = kl(student[:, :-1], teacher[:, 1:])
    return per_token[labels[:, :-1] != -100].mean()


student, teacher, labels = lineup.make_batch((6, 4))
print("a perfect student has the loss 0:",
      bool(exhibit_9(teacher, teacher, labels) < 1e-6))

# %% [markdown]
# Think of a spike: change what the teacher says at **one** real token. In a right loss
# the student's gradient moves there and nowhere else.
#
# *Difficulty 4, 10 minutes.* Is that so at every real token?

# %%
from kdcourse.study.lineup import gradient, make_batch


def stays_in_place(loss):
    """True where the teacher's answer at a token moves that token's gradient alone."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    before = gradient(loss, student, teacher, labels)
    for row, position in (labels != -100).nonzero().tolist():
        changed = teacher.clone()
        changed[row, position] = -teacher[row, position]
        after = gradient(loss, student, changed, labels)
        moved = ((after - before).abs().amax(-1) > 1e-5).nonzero()
        if moved.tolist() != [[row, position]]:
            return False
    return True
    ### END SOLUTION


ex04.stays_in_place.check(stays_in_place)

# %% [markdown]
# ## Exhibit 10: which way is β?
#
# *Reported in huggingface/trl#3043.* The generalised Jensen–Shannon divergence is
# β KL(p ‖ m) + (1 − β) KL(q ‖ m) with the mixture m = β p + (1 − β) q; p is the
# teacher, q the student, and the loss gets `beta=...` by name. *Asked for:* exchange β
# and 1 − β in one place. (The tests of the library were green.)

# %%
def exhibit_10(student, teacher, labels, beta=0.5):
    real = labels != -100
    p, q = teacher[real].float().softmax(-1), student[real].float().softmax(-1)
    m = (1 - beta) * p + beta * q
    of_p, of_q = ((x * (x / m).log()).sum(-1).mean() for x in (p, q))
    return beta * of_p + (1 - beta) * of_q


batch = lineup.make_batch((5, 3))
for beta in (0.001, 0.999):
    print(f"beta = {beta}: the loss is over 1 nat:",
          bool(exhibit_10(*batch, beta=beta) > 1))

# %% [markdown]
# With β so near to 0 or 1, m is nearly q or p: how large can the sum be? A formula
# with β and 1 − β in four places looks right in every reading, but its **ends** tell.
# By the formula above, loss/β tends to the forward KL(p ‖ q) as β → 0, and
# loss/(1 − β) to the reverse KL(q ‖ p) as β → 1.
#
# *Difficulty 4, 10 minutes.* Do both ends hold? The two divergences come ready made:
# each returns a value a position, (B, L).

# %%
from kdcourse.study.lineup import make_batch
from kdcourse.theory.divergences import forward_kl, reverse_kl


def knows_its_ends(loss):
    """True where loss / β and loss / (1 - β) tend to the KL that belongs there."""
    ### BEGIN SOLUTION
    student, teacher, labels = make_batch((5, 3))
    for beta, end in ((0.001, forward_kl), (0.999, reverse_kl)):
        per_token = end(student_logits=student, teacher_logits=teacher)
        wanted = per_token[labels != -100].mean()
        found = loss(student, teacher, labels, beta=beta) / min(beta, 1 - beta)
        if not torch.isclose(found, wanted, rtol=0.05):
            return False
    return True
    ### END SOLUTION


ex04.knows_its_ends.check(knows_its_ends)

# %% [markdown]
# ## The verdicts
#
# Ten reports, ten tests of your own. Each exhibit now stands before the test that was
# made for it. (Where you have not written a test yet, it says so.)

# %%
tests = (ignores_impossible_tokens, ignores_repetition, leaves_pads_alone,
         is_a_divergence, ignores_shifts, adds_up, learns_to_stop, keeps_its_size,
         stays_in_place, knows_its_ends)
exhibits = (exhibit_1, exhibit_2, exhibit_3, exhibit_4, exhibit_5, exhibit_6,
            exhibit_7, exhibit_8, exhibit_9, exhibit_10)

for number, (test, exhibit) in enumerate(zip(tests, exhibits, strict=True), 1):
    answer = test(exhibit)
    verdict = "holds" if answer else "BROKEN"
    print(f"{number:>2} {test.__name__:<26}", "?" if answer is None else verdict)

# %% [markdown]
# ## Which report is false?
#
# *Difficulty 1, 2 minutes.* Return the number of the exhibit that was reported as wrong
# and is right. Before you answer, put the change that was asked for to the same test
# as the code that stood there: a reporter who is wrong about the fault may still be
# right about the cure, or not.

# %%
def false_report():
    """The number of the exhibit that is right, from 1 to 10."""
    ### BEGIN SOLUTION
    return 4
    ### END SOLUTION


ex04.false_report.check(false_report)

# %% [markdown] tags=["solution"]
# `kl_div(input, target)` wants the logarithm of its input only: it takes the target's
# itself. Its terms, one for each word, may be negative; their sum is not. With
# log-probabilities as the target, and no `log_target=True`, it takes the logarithm of a
# negative number, and the loss is NaN.

# %% tags=["solution"]
print("as it stood: ", is_a_divergence(exhibit_4))
print("as asked for:", is_a_divergence(exhibit_4_as_asked))
student, teacher, labels = lineup.make_batch((5, 3))
print("NaN:", math.isnan(exhibit_4_as_asked(student, teacher, labels)))

# %% [markdown]
# ## The same properties, all at once
#
# `kdcourse.audit(loss)` holds the properties that you have written, and some more. It
# knows nothing of this notebook. Here it meets two of the exhibits:

# %%
for number in (5, 9):
    report = kdcourse.audit(exhibits[number - 1], name=f"exhibit {number}")
    print(f"{report.name}: {', '.join(found.slug for found in report.diagnoses)}")
    for found in report.failed:
        print(f"   failed: {found.property}")

# %% [markdown]
# | your test | what the audit calls it |
# |---|---|
# | `ignores_impossible_tokens` | impossible tokens |
# | `ignores_repetition` | length |
# | `leaves_pads_alone` | pads |
# | `is_a_divergence` | finite, zero at equality, never negative |
# | `ignores_shifts` | constant shift |
# | `adds_up` | micro-batches |
# | `learns_to_stop` | EOS where the pad token is EOS |
# | `keeps_its_size` | temperature: gradient |
# | `stays_in_place` | position |
# | `knows_its_ends` | beta |
#
# One mistake breaks several properties at once, and so a list of what failed is not yet
# a diagnosis: the audit looks at *how* each failed. But the other way round it holds
# always: **a property that fails is a fact about the loss**, and no longer an opinion
# about a line of code. That is what the false report lacked.
#
# What none of these tests can see lives outside of the loss: a teacher left in train
# mode, a student left in eval mode. `kdcourse.theory.audit.audit_step` looks there.
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
