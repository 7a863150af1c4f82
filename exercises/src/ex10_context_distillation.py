# %% [markdown]
# # Exercises 10: context distillation
#
# *Six exercises, about 33 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/10_context_distillation.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex10.read.hint()` gives a hint, `ex10.read.hint(2)` a bigger one,
# and `ex10.read.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex10

settings = kdcourse.setup(lesson="10")

# %% [markdown]
# ## 1. Put c before z
#
# *Difficulty 2, 6 minutes.* c is the place, then the terms of the glossary whose word
# stands in z, by the alphabet; then comes z as it is. By hand: place "hue sensor name",
# glossary {"low": "corto", "battery": "pila", "key": "llave"}, z "Low battery." give
# `hue sensor name ; battery = pila ; low = corto | Low battery.` A word counts as a
# whole and in any case: "Lightning" does not hold "light", "LIGHT!" does. Without any
# context the text is z alone.


# %%
import re


def read(place, glossary, z):
    """What a model reads that reads c and z: a string.

    place: where the string stands, "" where that is not known.
    glossary: dictionary from a word, in lower case, to its wanted translation.
    z: the user's input; a word in it is a longest run of letters.
    """
    ### BEGIN SOLUTION
    words = re.findall(r"[^\W\d_]+", z.lower())
    parts = [place] if place else []
    parts += [
        f"{word} = {glossary[word]}" for word in sorted(glossary) if word in words
    ]
    return f"{' ; '.join(parts)} | {z}" if parts else z
    ### END SOLUTION


ex10.read.check(read)

# %% [markdown]
# ## 2. Ambiguous strings
#
# *Difficulty 1, 4 minutes.* Which sources have more than one translation? Return each
# with the list of its translations, `sorted()`. A translation that stands in ten places
# is still one, and two of them in one place count as two. By hand:
# ("vacuum", "Clean", "Limpiar"), ("filter", "Clean", "Limpio"), ("room", "Clean",
# "Limpio") give {"Clean": ["Limpiar", "Limpio"]}.


# %%
def ambiguous(rows):
    """A dictionary from each ambiguous source to the list of its translations.

    rows: a list of (c, z, y): context, source, translation. "Home" is not "home".
    """
    ### BEGIN SOLUTION
    known = {}
    for _, z, y in rows:
        known.setdefault(z, set()).add(y)
    return {z: sorted(ys) for z, ys in known.items() if len(ys) > 1}
    ### END SOLUTION


ex10.ambiguous.check(ambiguous)

# %% [markdown]
# ## 3. The ceiling of all that read z alone
#
# *Difficulty 2, 5 minutes.* A model that reads z alone gives one translation for each
# source. How large a share of the rows can it have right at best? By hand: "Clean" is
# *Limpio* twice and *Limpiar* once, "Home" is *Inicio* once and *En casa* once. It gets
# two and one of five rows: 3/5.


# %%
def ceiling(rows):
    """The largest share of rows that any function of z alone can have right: a float.

    rows: a list of (c, z, y), at least one; right is y, word for word.
    """
    ### BEGIN SOLUTION
    counts = {}
    for _, z, y in rows:
        ys = counts.setdefault(z, {})
        ys[y] = ys.get(y, 0) + 1
    return sum(max(ys.values()) for ys in counts.values()) / len(rows)
    ### END SOLUTION


ex10.ceiling.check(ceiling)

# %% [markdown]
# ## 4. Two sources, one target
#
# *Difficulty 3, 5 minutes.* Make what a student learns from: for each row the text that
# the student reads, and the teacher's answer to the text that the *teacher* read for
# this row, "c | z". The control reads "c | z", too; the context-distilled student reads
# z. Keep every row, in order: the same z twice, with two answers, is no mistake but the
# mixture that the student is to learn.


# %%
def lessons(rows, teacher, reads_context):
    """A list of (student's source, target), one for each row.

    rows: a list of (c, z); c is "" where there is no context: then the text is z alone.
    teacher: a function from a text to its translation.
    reads_context: whether the student reads c, as the control does.
    """
    ### BEGIN SOLUTION
    pairs = []
    for c, z in rows:
        text = f"{c} | {z}" if c else z
        pairs.append((text if reads_context else z, teacher(text)))
    return pairs
    ### END SOLUTION


ex10.lessons.check(lessons)

# %% [markdown]
# ## 5. The loss when the inputs differ in length
#
# *Difficulty 4, 8 minutes.* In a model that is only a decoder, input and output are one
# sequence, so the answer starts later for the teacher, whose prompt is longer. Compare
# answer token with answer token: the mean over all of them of KL(Pr^t ‖ Pr^s). Each
# mask says where a model predicts an answer token; the n-th True of a row in one mask
# and the n-th True of that row in the other are the same token. By hand: masks (0, 1,
# 1) and (0, 0, 0, 1, 1) compare the student's positions 1, 2 with the teacher's 3, 4.


# %%
def context_loss(student_logits, teacher_logits, student_mask, teacher_mask):
    """The mean of KL(Pr^t ‖ Pr^s) over answer tokens, in nats: a tensor of shape ().

    student_logits: (B, Ls, V); teacher_logits: (B, Lt, V). Prompts and pads may be
        anywhere beside the answers. Gradients flow to the student's logits alone.
    student_mask: (B, Ls), teacher_mask: (B, Lt), bool: equally many True in each row.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits[student_mask], dim=-1)
    log_p = torch.log_softmax(teacher_logits[teacher_mask].detach(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    ### END SOLUTION


ex10.context_loss.check(context_loss)

# %% [markdown]
# ## 6. What survives
#
# *Difficulty 2, 5 minutes.* The share of the context's worth that is left in the
# student that does not read it (*taught* is the lesson's "distilled"):
# (taught − twin) / (control − twin), of the *means* over the seeds. By hand:
# taught 0.5 and 0.7, control 0.9 and 0.9, twin 0.4 and 0.4 give
# (0.6 − 0.4) / (0.9 − 0.4) = 0.4. Where the control is no better than the twin, the
# context was worth nothing: return None. A share below 0 or above 1 may happen, and is
# told.


# %%
def survives(taught, control, twin):
    """The share that survives, a float, or None.

    taught, control, twin: lists of one figure for each seed, as many in each.
    """
    ### BEGIN SOLUTION
    a, b, c = (sum(figures) / len(figures) for figures in (taught, control, twin))
    return (a - c) / (b - c) if b > c else None
    ### END SOLUTION


ex10.survives.check(survives)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
