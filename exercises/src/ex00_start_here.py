# %% [markdown]
# # Exercises 00: what a phone can carry
#
# *Three exercises, about 15 minutes, difficulty 1 to 2 of 5. They go with the lesson*
# `notebooks/00_start_here.ipynb`.
#
# Put your code in place of the three dots and run the cell. Its last line checks your
# function at once: **passed**, **not yet right** with a diagnosis, or **not
# attempted**. Stuck? `ex00.megabytes.hint()` gives a hint, `ex00.megabytes.hint(2)` a
# bigger one, and `ex00.megabytes.solution()` one good solution.

# %% [markdown] tags=["solution"]
# > **Solutions.** Each is one good answer among several: yours may look different and
# > be as right, if the check passes it.

# %%
import kdcourse
from kdcourse.study.checks import ex00

settings = kdcourse.setup(lesson="00")

# %% [markdown]
# ## 1. What does a model weigh?
#
# *Difficulty 1, 3 minutes.* A model with P parameters of b bits each takes P · b bits.
# How many megabytes is that? Here 1 MB is 1,000,000 bytes, as in an app store. By hand:
# a million parameters at 8 bits weigh 1 MB.

# %%
def megabytes(parameters, bits):
    """The weight of a model's parameters in MB (1,000,000 bytes), as a float."""
    ### BEGIN SOLUTION
    size_in_bytes = parameters * bits / 8
    return size_in_bytes / 1_000_000
    ### END SOLUTION


ex00.megabytes.check(megabytes)

# %% [markdown]
# ## 2. Which models fit the phone?
#
# *Difficulty 2, 5 minutes.* A phone gives an app a budget: so many megabytes at most,
# and so many milliseconds a sentence at most. Which models fit **both**? A model that
# needs exactly the budget still fits.

# %%
def fits_budget(megabytes, milliseconds, budget):
    """The names of the models that fit, in the order of ``megabytes``.

    megabytes, milliseconds: dictionaries from a model's name to a number.
    budget: a dictionary with the entries "megabytes" and "milliseconds".
    """
    ### BEGIN SOLUTION
    return [
        name
        for name, size in megabytes.items()
        if size <= budget["megabytes"] and milliseconds[name] <= budget["milliseconds"]
    ]
    ### END SOLUTION


ex00.fits_budget.check(fits_budget)

# %% [markdown]
# ## 3. What did shrinking buy, and what did it cost?
#
# *Difficulty 2, 5 minutes.* Compare a student with its teacher in three numbers: how
# many times smaller it is, how many times faster, and what share of the teacher's
# quality (chrF) it keeps. By hand: 50 MB against 5 MB is 10 times smaller; chrF 63
# against 70 keeps 0.9.

# %%
def shrink_report(teacher, student):
    """Three ratios: "times_smaller", "times_faster" and "quality_kept".

    teacher, student: dictionaries with "megabytes", "milliseconds" and "chrf".
    """
    ### BEGIN SOLUTION
    return {
        "times_smaller": teacher["megabytes"] / student["megabytes"],
        "times_faster": teacher["milliseconds"] / student["milliseconds"],
        "quality_kept": student["chrf"] / teacher["chrf"],
    }
    ### END SOLUTION


ex00.shrink_report.check(shrink_report)

# %% [markdown]
# ## Where you are
#
# `python -m kdcourse progress` draws your map: what you have passed, what is failing,
# and what comes next.
