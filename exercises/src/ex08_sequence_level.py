# %% [markdown]
# # Exercises 08: sequence-level distillation
#
# *Six exercises, about 65 minutes, difficulty 1 to 5 of 5. They go with the lesson*
# `notebooks/08_sequence_level.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex08.closest.hint()` gives a hint, `ex08.closest.hint(2)` a
# bigger one, and `ex08.closest.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex08

settings = kdcourse.setup(lesson="08")

# %% [markdown]
# ## 1. The candidate nearest the reference
#
# *Difficulty 1, 4 minutes.* Interpolation trains on that one of the teacher's
# candidates which is most similar to the reference. They stand in the beam's order, the
# likeliest first; of equally similar ones the likeliest is wanted. By hand, with
# similarities 40, 70, 70: the second. Without candidates there is none: `None`.


# %%
def closest(candidates, reference, similarity):
    """The candidate most similar to the reference, or None.

    candidates: list of strings, the likeliest first; may be empty.
    reference: the human translation.
    similarity: a function; similarity(candidate, reference) is larger for closer ones,
        as sentence chrF is. Its two arguments do not play the same part.
    """
    ### BEGIN SOLUTION
    return max(candidates, key=lambda y: similarity(y, reference), default=None)
    ### END SOLUTION


ex08.closest.check(closest)

# %% [markdown]
# ## 2. Rank the beam
#
# *Difficulty 2, 8 minutes.* A beam ends with hypotheses of different lengths. Our
# decoder ranks them by log Pr(y|z) / |y|, the mean logarithm a token, EOS included. By
# hand: (−0.2, −0.4) has mean −0.3; (−0.1, −0.5, −0.3, −0.1) only −0.25, and wins,
# though its sum is the smaller one. Two hypotheses may be one text in different
# subwords: the better one counts. Equal scores stay in the order in which they came.


# %%
def n_best(hypotheses, n):
    """The n best different texts, best first: a list of at most n strings.

    hypotheses: list of (text, log-probabilities of its tokens, EOS's the last).
    """
    ### BEGIN SOLUTION
    ranked = sorted(hypotheses, key=lambda h: sum(h[1]) / len(h[1]), reverse=True)
    return list(dict.fromkeys(text for text, _ in ranked))[:n]
    ### END SOLUTION


ex08.n_best.check(n_best)

# %% [markdown]
# ## 3. The loss on the teacher's own output
#
# *Difficulty 3, 8 minutes.* The target-generated loss, −log Pr^s(ŷ), for a batch, as a
# mean over its real tokens. In this vocabulary the filler behind a sentence **is the
# EOS token** (pad = eos, as in many models). The first EOS of a row is real: without it
# the student never learns to stop. Those behind it are filler. A row without an EOS was
# cut off at the limit, and counts as it is. By hand: labels (5, 0, 0) with eos = 0; the
# student gives them 1/2, 1/4 and 1/8: (log 2 + log 4) / 2 = 1.04.


# %%
def label_loss(log_q, labels, eos):
    """The mean of -log Pr^s over the real tokens, in nats: a tensor of shape ().

    log_q: (N, L, V), the student's log-probabilities; gradients must flow to them.
    labels: (N, L), the tokens of each ŷ, filled up with eos.
    eos: the id that ends a sentence and fills up the rows.
    """
    ### BEGIN SOLUTION
    is_eos = (labels == eos).long()
    real = torch.cumsum(is_eos, dim=1) - is_eos == 0  # no EOS *before* this token
    chosen = log_q.gather(2, labels[:, :, None])[:, :, 0]
    return -chosen[real].sum() / real.sum()
    ### END SOLUTION


ex08.label_loss.check(label_loss)

# %% [markdown]
# ## 4. How peaked is a model?
#
# *Difficulty 3, 8 minutes.* How much of its probability does a model give to its own
# greedy output, p(t = ŷ)? ŷ_t is the most probable token of each step; ŷ ends with its
# first EOS, or at the last step where none comes. What follows is filler. By hand: the
# largest probabilities 0.9, 0.5 (an EOS), 0.8: Pr(ŷ) = 0.9 · 0.5 = 0.45.


# %%
def peakedness(log_q, eos):
    """The mean of Pr(ŷ|z) over the sentences, in 0..1: a float.

    log_q: (N, L, V), the log-probabilities of the next token, at each step of each
        sentence's own greedy output.
    eos: the id of the token that ends a sentence.
    """
    ### BEGIN SOLUTION
    best, tokens = log_q.max(dim=-1)
    is_eos = (tokens == eos).long()
    real = is_eos.cumsum(dim=1) - is_eos == 0
    return best.masked_fill(~real, 0.0).sum(dim=1).exp().mean().item()
    ### END SOLUTION


ex08.peakedness.check(peakedness)

# %% [markdown]
# ## 5. Caught in a loop
#
# *Difficulty 3, 8 minutes.* A decoder that loses the thread says the same thing again
# and again. A text *loops* if a phrase of one to four words stands three times or more
# **in a row**; words are what white space separates, and case does not matter. A
# translation is at fault if it loops and its source does not: "Knock knock knock" may
# well become "Toc toc toc". By hand: `"de la luz de la luz de la luz"` loops, three
# words three times; `"la luz de la luz de la casa"` does not.


# %%
def looping(source, target):
    """True where the target loops and the source does not."""

    ### BEGIN SOLUTION
    def loops(text):
        words = text.casefold().split()
        return any(
            words[at : at + size] * 3 == words[at : at + 3 * size]
            for size in range(1, 5)
            for at in range(len(words) - 3 * size + 1)
        )

    return loops(target) and not loops(source)
    ### END SOLUTION


ex08.looping.check(looping)

# %% [markdown]
# ## 6. Repair a distilled corpus
#
# *Difficulty 5, 30 minutes.* Somebody hands you a distilled corpus: rows of (source,
# the teacher's translation). You have the human references and the test set. Each row
# has at most one fault that counts, **the first that applies**:
#
# | fault | when |
# |---|---|
# | `leaked` | the source is a near-duplicate of a held-out one (equal `near_key`) |
# | `empty` | the target is nothing but white space |
# | `copied` | source again, whatever the case, though the reference says otherwise |
# | `looping` | a word three times in a row, whatever the case, and none in the source |
# | `truncated` | source of 40 characters or more; target less than a third as long |
# | `placeholders` | not exactly the source's, each equally often |
# | `misaligned` | another's reference; shares no word with its own, whatever the case |
#
# A leaked row **goes**. Any other faulty row **gets its reference** in place of the
# target; where there is none it goes, too. The order stays. By hand: `("On",
# "Bluetooth")`, where the references are *Encender* for "On" and *Bluetooth* for
# "Bluetooth": misaligned; kept as `("On", "Encender")`. But `("Bluetooth",
# "Bluetooth")` is sound: its reference copies it as well. Without a reference nobody
# can say whether a row is copied or misaligned: then it is not.


# %%
from kdcourse.translation.corpus import near_key, placeholders


def repair(rows, references, held_out):
    """The mended corpus, and what was wrong with the old one: (kept, counts).

    rows: list of (source, target); a source may stand there twice.
    references: dictionary from source to its human translation; some may be missing,
        others may belong to no row.
    held_out: list of the sources of the test set.
    kept: list of (source, target) in the order of the rows.
    counts: dictionary from fault to the number of its rows; only those that occur.
    """
    ### BEGIN SOLUTION
    banned = {near_key(source) for source in held_out}
    humans = set(references.values())

    def loops(text):
        words = text.casefold().split()
        return any(len(set(words[at : at + 3])) == 1 for at in range(len(words) - 2))

    def words(text):
        return set(text.casefold().split())

    def fault(source, target):
        reference = references.get(source)
        if near_key(source) in banned:
            return "leaked"
        if not target.strip():
            return "empty"
        if reference is not None and target.casefold() == source.casefold():
            if reference.casefold() != source.casefold():
                return "copied"
        if loops(target) and not loops(source):
            return "looping"
        if len(source) >= 40 and len(target) < len(source) / 3:
            return "truncated"
        if placeholders(source) != placeholders(target):
            return "placeholders"
        if reference is not None and target in humans:
            if not words(target) & words(reference):
                return "misaligned"
        return None

    kept, counts = [], {}
    for source, target in rows:
        found = fault(source, target)
        if found:
            counts[found] = counts.get(found, 0) + 1
            target = None if found == "leaked" else references.get(source)
        if target is not None:
            kept.append((source, target))
    return kept, counts
    ### END SOLUTION


ex08.repair.check(repair)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
