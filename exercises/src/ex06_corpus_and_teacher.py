# %% [markdown]
# # Exercises 06: corpus and teacher
#
# *Eight exercises, about 70 minutes, difficulty 1 to 4 of 5. They go with the lesson*
# `notebooks/06_corpus_and_teacher.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex06.find_leaks.hint()` gives a hint, `ex06.find_leaks.hint(2)` a
# bigger one, and `ex06.find_leaks.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import kdcourse
from kdcourse.study.checks import ex06

settings = kdcourse.setup(lesson="06")

# %% [markdown]
# ## 1. A key for near-duplicates
#
# *Difficulty 1, 5 minutes.* Two strings are near-duplicates if they agree but for case,
# digits and punctuation. Give them one key: small letters; whatever is no letter is a
# space; runs of spaces are one space, and none stands at the ends. By hand: `"Wrong
# password!"` and `"wrong  Password"` both become `"wrong password"`. Letters with
# accents are letters. A text without a letter is its own key: `"100 %"` stays.


# %%
def near_duplicate_key(text):
    """The key of a text: a string, the same for all its near-duplicates."""
    ### BEGIN SOLUTION
    letters = "".join(c if c.isalpha() else " " for c in text.casefold())
    return " ".join(letters.split()) or text
    ### END SOLUTION


ex06.near_duplicate_key.check(near_duplicate_key)

# %% [markdown]
# ## 2. Placeholders must survive
#
# *Difficulty 2, 5 minutes.* The app fills `{name}` in; a translation must keep each
# placeholder, as often as the source has it, in any order. A placeholder is a pair of
# braces around anything but braces and spaces. By hand: `"{n} of {n} done"` → `"{n}
# listos"` is broken, for one of two is lost.


# %%
import re
from collections import Counter


def same_placeholders(source, target):
    """True where both texts hold the same placeholders, equally often."""
    ### BEGIN SOLUTION
    slot = re.compile(r"\{[^{}\s]+\}")
    return Counter(slot.findall(source)) == Counter(slot.findall(target))
    ### END SOLUTION


ex06.same_placeholders.check(same_placeholders)

# %% [markdown]
# ## 3. Find the planted leak
#
# *Difficulty 3, 8 minutes.* This corpus was split by component: none stands on both
# sides. Still somebody has planted leaks: sources of the test of which a near-duplicate
# stands in training. Find them. `near_key(text)` is the package's form of exercise 1.
# By hand: `"RESTART!"` leaks if training has `"Restart"`, whatever their translations;
# `"Restart the fan"` does not, and `"100 %"` is not `"50 %"`.


# %%
from kdcourse.translation.corpus import near_key


def find_leaks(train, test):
    """The numbers of the test rows that leak, from 0, in rising order: a list.

    train, test: lists of rows (source, target, component), in any order.
    """
    ### BEGIN SOLUTION
    seen = {near_key(source) for source, _, _ in train}
    return [n for n, row in enumerate(test) if near_key(row[0]) in seen]
    ### END SOLUTION


ex06.find_leaks.check(find_leaks)

# %% [markdown]
# ## 4. Find the planted shard out of step
#
# *Difficulty 3, 10 minutes.* A teacher's translations lie in shards: line n of the
# targets belongs to line n of the sources. In some shards the targets have slipped by
# one place, up or down. Nothing crashes, line counts agree, each target is good
# Spanish. What gives them away: count the rows whose placeholders differ, then move the
# targets by one place (the line that falls off at one end comes in at the other) and
# count again. **A shard is out of step if moving, up or down, leaves strictly fewer
# such rows.** A sound shard may have a faulty row as well. `placeholders(text)` gives
# the counts of a text's placeholders, to compare as in exercise 2.
#
# By hand: sources `Turn on`, `{n} left`, targets `Quedan {n}`, `Encender`. Two rows
# differ, and none after moving: out of step.


# %%
from kdcourse.translation.corpus import placeholders


def misaligned_shards(shards):
    """The numbers of the shards that are out of step, from 0, rising: a list.

    shards: list of (sources, targets), two lists of strings of one length.
    """

    ### BEGIN SOLUTION
    def broken(sources, targets):
        pairs = zip(sources, targets, strict=True)
        return sum(placeholders(a) != placeholders(b) for a, b in pairs)

    found = []
    for number, (sources, targets) in enumerate(shards):
        moved_up = targets[1:] + targets[:1]
        moved_down = targets[-1:] + targets[:-1]
        best = min(broken(sources, moved_up), broken(sources, moved_down))
        if best < broken(sources, targets):
            found.append(number)
    return found
    ### END SOLUTION


ex06.misaligned_shards.check(misaligned_shards)

# %% [markdown]
# ## 5. All the ways to cut a word
#
# *Difficulty 3, 10 minutes.* Subword sampling draws a cut with a probability that is
# proportional to Pr(cut)^α, where log Pr(cut) is the sum over the pieces. Compute it
# for all cuts of a word. By hand: *reload* is re + load with −11 or reload with −12.
# For α = ½ the weights are as e^½ to 1: 0.62 and 0.38.


# %%
import math


def cut_probabilities(word, scores, alpha):
    """The probability of each cut: a dictionary from a tuple of pieces to a float.

    word: a string that can be cut into known pieces in at least one way.
    scores: dictionary from piece to its log-probability.
    alpha: the power α, from 0 up.
    """

    ### BEGIN SOLUTION
    def cuts(rest):
        if rest == "":
            yield ()
        for end in range(1, len(rest) + 1):
            if rest[:end] in scores:
                for following in cuts(rest[end:]):
                    yield (rest[:end], *following)

    weights = {cut: math.exp(alpha * sum(map(scores.get, cut))) for cut in cuts(word)}
    total = sum(weights.values())
    return {cut: weight / total for cut, weight in weights.items()}
    ### END SOLUTION


ex06.cut_probabilities.check(cut_probabilities)

# %% [markdown]
# ## 6. BLEU of a corpus
#
# *Difficulty 3, 10 minutes.* The lesson scored one sentence. Now a corpus, without
# smoothing: for n = 1 … max_n the clipped precision, with matches and totals **summed
# over all sentences first**; the geometric mean of the max_n precisions; times the
# brevity penalty, min(1, exp(1 − r/h)), for h tokens in all hypotheses and r in all
# references; times 100. Where a precision is 0, or nothing was said, BLEU is 0. By
# hand, from the lesson, max_n = 4: 100 · 0.2^¼ · exp(1 − 6/5) = 55.


# %%
import math
from collections import Counter


def corpus_bleu(hypotheses, references, max_n):
    """BLEU from 0 to 100: a float.

    hypotheses, references: lists of sentences, each a list of tokens, in one order.
    max_n: the longest n-grams that count; every n from 1 on does.
    """
    ### BEGIN SOLUTION
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    product = 1.0
    for n in range(1, max_n + 1):
        matched = total = 0
        for pair in zip(hypotheses, references, strict=True):
            runs = (zip(*(x[i:] for i in range(n)), strict=False) for x in pair)
            ours, theirs = map(Counter, runs)
            matched += (ours & theirs).total()
            total += ours.total()
        product *= matched / max(total, 1)  # 0 where there is no n-gram at all
    return 100 * min(1, math.exp(1 - r / max(h, 1))) * product ** (1 / max_n)
    ### END SOLUTION


ex06.corpus_bleu.check(corpus_bleu)

# %% [markdown]
# ## 7. chrF from scratch
#
# *Difficulty 3, 10 minutes.* Take all spaces out. For n = 1 … 6 count the runs of n
# characters on both sides and the clipped matches. The precision divides them by the
# runs of the hypothesis, the recall by those of the reference. Average the precisions
# to P, the recalls to R; an order in which one side has no run is left out. chrF is 100
# · (1 + β²) P R / (β² P + R) with β = 2, and 0 where P and R are. Capitals count.
#
# By hand: "Sí" for "Si". Runs of one: 1 of 2 on both sides. Runs of two: 0 of 1. Longer
# ones there are none. P = R = ¼, so chrF = 25.


# %%
from collections import Counter


def chrf(hypothesis, reference):
    """chrF2 of one sentence, from 0 to 100: a float."""
    ### BEGIN SOLUTION
    ours, theirs = "".join(hypothesis.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in range(1, 7):
        a = Counter(ours[i : i + n] for i in range(len(ours) - n + 1))
        b = Counter(theirs[i : i + n] for i in range(len(theirs) - n + 1))
        if a and b:
            matched = (a & b).total()
            precisions.append(matched / a.total())
            recalls.append(matched / b.total())
    if sum(precisions) == 0:
        return 0.0
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * 5 * p * r / (4 * p + r)
    ### END SOLUTION


ex06.chrf.check(chrf)

# %% [markdown]
# ## 8. A step of the beam
#
# *Difficulty 4, 12 minutes.* The beam holds beginnings with their log Pr. Extend each
# by each of its next tokens, and rank *all* extensions by their total, best first. Of
# the first `width` of this list those that end in `"</s>"` are **finished**. **Live**
# are the best `width` extensions that do not end: an ended one frees its place. Each
# list is best first; there are no ties.
#
# By hand, width 2: *omit* (0.6) goes on with 0.5, 0.3 or 0.2, *Omitir* (0.4) with 0.94
# or 0.06. The totals are 0.376, 0.30, 0.18, 0.12, 0.024: the first two live, and
# *Omitir* has overtaken *omit*.


# %%
def beam_step(live, next_log_probs, width):
    """The pair (live, finished) after the step: lists of (log Pr, tokens).

    live: list of (log Pr of the beginning, tuple of its tokens).
    next_log_probs: for each beginning the dictionary {token: log-probability}.
    width: how many beginnings live on at most.
    """
    ### BEGIN SOLUTION
    extensions = []
    for (total, tokens), table in zip(live, next_log_probs, strict=True):
        for token, log_p in table.items():
            extensions.append((total + log_p, (*tokens, token)))
    extensions.sort(reverse=True)
    finished = [one for one in extensions[:width] if one[1][-1] == "</s>"]
    going_on = [one for one in extensions if one[1][-1] != "</s>"]
    return going_on[:width], finished
    ### END SOLUTION


ex06.beam_step.check(beam_step)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
