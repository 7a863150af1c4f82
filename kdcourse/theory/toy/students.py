"""Two students small enough to be understood: a table, and a bigram model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..arguments import BadArgument, check_count, check_flag, check_kind
from .language import MINUS_INFINITY, Outputs, Toy
from .words import Ids, Words


class Student(nn.Module):
    """What the students of the toy language have in common: Pr^s_θ(y|c',z).

    A subclass gives ``scores``. With ``reads_context=False`` the student is blind to c:
    its simplified context c' is empty, whatever the teacher reads. The parameters start
    at 0 and are float64, so that training is deterministic and comparisons exact.
    """

    def __init__(self, toy: Toy, reads_context: bool):
        super().__init__()
        check_kind("toy", toy, Toy, "Pass toy_language().")
        check_flag("reads_context", reads_context)
        self.toy, self.reads_context = toy, reads_context

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """Unnormalised scores (N, L, V - 1) of all tokens but ``<pad>`` for y_t."""
        raise NotImplementedError

    def logits(
        self, sequences: Sequence[Ids], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """Logits (N, L, V) of y_t given y_<t, at every position of N sequences.

        As with ``Toy.teacher_logits``, ``<pad>`` is -inf before the end and certain
        after it. What follows a prefix is the last row of ``prefix + (eos,)``.

        Raises:
            BadArgument: a sequence without ``<eos>``, or a student whose parameters
                became NaN or +inf; see ``Toy.check`` for z and c.
        """
        z, c = self.toy.check(z, c)
        ids = self.toy.padded(sequences)
        scores = self.scores(ids, z, c if self.reads_context else None)
        size = (*ids.shape, len(self.toy.vocabulary) - 1)
        if getattr(scores, "shape", None) != size:
            raise BadArgument(
                "scores",
                f"{type(scores).__name__} {tuple(getattr(scores, 'shape', ()))}",
                wanted=f"a tensor (N, L, V - 1), here {size}",
                todo="Return a score for each token but <pad>, at each position.",
            )
        best = scores.detach().amax(dim=-1)
        if not best.isfinite().all():
            raise BadArgument(
                "student",
                f"a model with the best score {best[~best.isfinite()][0].item()}",
                wanted="numbers, and a token that can be said after each prefix",
                todo="Look at the step before: a smaller learning rate, or a finite "
                "loss.",
            )
        logits = nn.functional.pad(scores, (0, 1), value=MINUS_INFINITY)
        return torch.where((ids == self.toy.pad)[..., None], self.toy._ended(), logits)

    def log_prob(
        self, sequences: Sequence[Ids], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """log Pr^s_θ(y|c',z) = Σ_t log Pr^s_θ(y_t | y_<t, c', z), (N,), in nats."""
        log_q = self.logits(sequences, z, c).log_softmax(dim=-1)
        ids = self.toy.padded(sequences)
        return log_q.gather(-1, ids[..., None]).squeeze(-1).sum(dim=-1)


class TabularStudent(Student):
    """A row of free logits for each prefix that the teacher can say.

    It can be the teacher exactly: what it fails to learn is the loss's doing, not its
    size. ``sources`` are the sentences that it knows; it has a table for each of them
    and, where it reads the context, each context and None. Off its table, where the
    teacher never goes, it ends the sentence.

    Raises:
        BadArgument: no sources, a source that is none of the language, or later was not
            among these.
    """

    def __init__(
        self, toy: Toy, sources: Sequence[Sequence[str]], *, reads_context: bool = True
    ):
        super().__init__(toy, reads_context)
        sources = _checked(sources)
        self.rows: dict[tuple[Words, str | None, Ids], int] = {}
        for z in sources:
            for c in (None, *toy.contexts) if reads_context else (None,):
                for prefix in toy._tree(z, c):
                    self.rows.setdefault((tuple(z), c, prefix), len(self.rows))
        size = len(toy.vocabulary) - 1
        self.table = nn.Parameter(
            torch.zeros(len(self.rows), size, dtype=torch.float64)
        )

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """The table's rows, (N, L, V - 1)."""
        if (z, c, ()) not in self.rows:
            raise BadArgument(
                "z",
                f"{z!r}, of which this student has no table",
                wanted="one of its sources",
                todo="Give it when you make the student: TabularStudent(toy, [z]).",
            )
        end = self.table.new_full((1, self.table.shape[1]), MINUS_INFINITY)
        end[0, self.toy.eos] = 0.0
        off = len(self.rows)
        index = [
            [self.rows.get((z, c, tuple(y[:t])), off) for t in range(len(y))]
            for y in ids.tolist()
        ]
        return torch.cat([self.table, end])[torch.tensor(index)]


def _checked(sources) -> list:
    """The sources as a list; what each of them must be, ``Toy.check`` knows."""
    several = isinstance(sources, Iterable) and not isinstance(sources, str)
    found = list(sources) if several else []
    if not found:
        raise BadArgument(
            "sources",
            "empty" if several else f"{sources!r}",
            wanted="a list of source sentences, each a list of words",
            todo="Take toy.sources(), or some of them.",
        )
    return found


class BigramStudent(Student):
    """A student too small for the language: it sees one token back.

    logits(y_t) = B[y_{t-1}] + Σ_{w in z} A[w] (+ C[c]): what came before y_{t-1}, and
    the order of z, are lost on it. All sentences share its parameters, V - 1 for each
    target token, source word and context. The logits are linear in them, so the
    sequence-level loss is convex: what remains at its minimum is the price of the
    student's size, not of bad luck.
    """

    def __init__(self, toy: Toy, *, reads_context: bool = True):
        super().__init__(toy, reads_context)
        size = len(toy.vocabulary)

        def zeros(rows):
            return nn.Parameter(torch.zeros(rows, size - 1, dtype=torch.float64))

        self.bigrams = zeros(size)
        self.words = zeros(len(toy.source_vocabulary))
        self.topics = zeros(len(toy.contexts)) if reads_context else None

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """B[y_{t-1}] + Σ_w A[w] + C[c], (N, L, V - 1)."""
        start = ids.new_full((len(ids), 1), self.toy.pad)
        previous = torch.cat([start, ids[:, :-1]], dim=1)
        bag = self.words[list(self.toy.encode_source(z))].sum(dim=0)
        if c is not None:
            bag = bag + self.topics[self.toy.contexts.index(c)]
        return self.bigrams[previous] + bag


def check_student(student: Student) -> None:
    """A student of the toy language."""
    todo = "Make one: TabularStudent(toy, sources) or BigramStudent(toy)."
    check_kind("student", student, Student, todo)


def enumerate_student(
    student: Student,
    z: Sequence[str],
    c: str | None = None,
    *,
    max_length: int = 12,
    floor: float = 1e-4,
) -> Outputs:
    """What the student says with Pr^s_θ(y|c',z) > floor in at most max_length tokens.

    A student may say infinitely many sequences. Prefixes are followed while they are
    more probable than ``floor``; no more than 1 / floor of one length can be. The
    probabilities are exact and not renormalised: ``missing`` is the mass of all that
    was left out. Most probable first, without gradient; ``<eos>`` counts as a token.

    Raises:
        BadArgument: no student, ``floor`` not above 0 and below 1, or ``max_length``
            below 1.
    """
    check_student(student)
    if not isinstance(floor, float) or not 0.0 < floor < 1.0:
        wanted = "a number above 0 and below 1"
        raise BadArgument("floor", repr(floor), wanted=wanted, todo="Take 1e-4.")
    check_count("max_length", max_length)
    eos = student.toy.eos
    alive, done = {(): 1.0}, []
    for _ in range(max_length):
        ends = [prefix + (eos,) for prefix in alive]
        with torch.no_grad():
            q = student.logits(ends, z, c)[:, -1].softmax(dim=-1)
        q *= torch.tensor(list(alive.values()), dtype=q.dtype)[:, None]
        prefixes, alive = list(alive), {}
        for n, token in (q > floor).nonzero().tolist():
            y, p = prefixes[n] + (token,), q[n, token].item()
            if token == eos:
                done.append((y, p))
            else:
                alive[y] = p
        if not alive:
            break
    done.sort(key=lambda pair: (-pair[1], pair[0]))
    sequences = tuple(y for y, _ in done)
    probabilities = torch.tensor([p for _, p in done], dtype=torch.float64)
    return Outputs(sequences, probabilities)
