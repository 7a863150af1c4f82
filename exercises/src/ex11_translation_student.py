# %% [markdown]
# # Exercises 11: the pieces of the recipe
#
# *Five exercises, about 50 minutes, difficulty 2 to 4 of 5. They go with the lesson*
# `notebooks/11_translation_student.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex11.batch_loss.hint()` gives a hint, `ex11.batch_loss.hint(2)` a
# bigger one, and `ex11.batch_loss.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import torch

import kdcourse
from kdcourse.study.checks import ex11

settings = kdcourse.setup(lesson="11")

# %% [markdown]
# ## 1. The loss of a batch
#
# *Difficulty 3, 10 minutes.* The sentences of a batch have different lengths and are
# padded to one rectangle; the label of a pad is −100. The loss is the sum of −log
# Pr(label) over the **real** tokens, divided once by **their number**. By hand: logits
# (0, log 3) give the second token the probability 3/4, so a batch of this one token has
# the loss log(4/3), however many pads stand beside it.

# %%
def batch_loss(logits, labels):
    """The mean of -log Pr(label) over the real tokens, in nats: a tensor of shape ().

    logits: (B, L, V), raw scores over the vocabulary; gradients must flow to them.
    labels: (B, L), the token that is right at each position; -100 marks a pad.
    """
    ### BEGIN SOLUTION
    real = labels != -100
    log_probabilities = torch.log_softmax(logits[real], dim=-1)
    of_the_labels = log_probabilities.gather(1, labels[real][:, None])
    return -of_the_labels.sum() / real.sum()
    ### END SOLUTION


ex11.batch_loss.check(batch_loss)

# %% [markdown]
# ## 2. What the decoder may read
#
# *Difficulty 2, 7 minutes.* To predict token t, the decoder reads the tokens before it.
# So its input is the labels moved one place to the right, behind a start token; and
# −100, which is no token, is replaced by the pad. By hand, with start 9 and pad 8: the
# labels (5, 0, −100, −100) give the input (9, 5, 0, 8): the end token is read, the last
# label is not.

# %%
def decoder_inputs(labels, start, pad):
    """The decoder's input for teacher forcing, shape (B, L), whole numbers.

    labels: (B, L), with -100 at pads. start, pad: the ids of these two tokens.
    """
    ### BEGIN SOLUTION
    first = labels.new_full((labels.shape[0], 1), start)
    tokens = labels.masked_fill(labels == -100, pad)
    return torch.cat([first, tokens[:, :-1]], dim=1)
    ### END SOLUTION


ex11.decoder_inputs.check(decoder_inputs)

# %% [markdown]
# ## 3. A corpus that cannot be misaligned
#
# *Difficulty 3, 10 minutes.* The teacher has translated the training strings, in
# whatever order its shards were finished. Its translations are stored under
# `key(source)`, a hash. Make the student's corpus: each source with the teacher's
# translation. Where there is none, keep the reference, and count it, so that nobody
# takes references for the teacher's work.

# %%
def distilled_corpus(sources, references, translations, key):
    """Two things: the list of pairs (source, target), and how many kept a reference.

    sources, references: lists of strings of one length, row by row.
    translations: dictionary from key(source) to the teacher's translation.
    key: a function from a source to its key.
    """
    ### BEGIN SOLUTION
    targets = [translations.get(key(source)) for source in sources]
    pairs = [
        (source, reference if target is None else target)
        for source, reference, target in zip(sources, references, targets, strict=True)
    ]
    return pairs, targets.count(None)
    ### END SOLUTION


ex11.distilled_corpus.check(distilled_corpus)

# %% [markdown]
# ## 4. An honest verdict
#
# *Difficulty 3, 10 minutes.* For each seed you have the student's gain in BLEU over its
# untaught twin, and the p value of a paired bootstrap. Say
#
# - `"BEATS"` where there are at least three seeds, **every** gain is above 0 and
#   **every** p is below 0.01;
# - `"NO BEATS"` where there are at least three seeds and no gain is above 0;
# - `"INCONCLUSIVE"` everywhere else.

# %%
def verdict(deltas, p_values):
    """One of "BEATS", "NO BEATS" and "INCONCLUSIVE".

    deltas: for each seed, BLEU of the student minus BLEU of its untaught twin.
    p_values: for each seed, the p value of that difference.
    """
    ### BEGIN SOLUTION
    if len(deltas) >= 3:
        if all(delta > 0 for delta in deltas) and all(p < 0.01 for p in p_values):
            return "BEATS"
        if all(delta <= 0 for delta in deltas):
            return "NO BEATS"
    return "INCONCLUSIVE"
    ### END SOLUTION


ex11.verdict.check(verdict)

# %% [markdown]
# ## 5. Are names left alone?
#
# *Difficulty 4, 12 minutes.* The worst visible fault of a small translator is a garbled
# name. Call a word a **name** where it has a capital letter in the source and stands
# unchanged in the reference. What share of all names stands in the hypothesis? Words
# are what `split()` gives; compare whole words, letter by letter. Where there are no
# names at all, the share is 1.0. By hand: "Connect to Hue", "Conectar a Hue", "Conecta
# con Hje": one name, none kept, share 0.

# %%
def copied_names(sources, references, hypotheses):
    """The share of names that the hypotheses kept, over all strings: a float in 0..1.

    sources, references, hypotheses: lists of strings of one length, row by row.
    """
    ### BEGIN SOLUTION
    kept = []
    rows = zip(sources, references, hypotheses, strict=True)
    for source, reference, hypothesis in rows:
        stays, translated = set(reference.split()), set(hypothesis.split())
        for word in source.split():
            if any(letter.isupper() for letter in word) and word in stays:
                kept.append(word in translated)
    return sum(kept) / len(kept) if kept else 1.0
    ### END SOLUTION


ex11.copied_names.check(copied_names)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
