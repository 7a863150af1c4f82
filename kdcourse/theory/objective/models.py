"""What the objective asks of a teacher or a student: the next token, and whole y.

A teacher is the toy language itself or a ``Student`` that stands still. The language
says nothing about prefixes that it would never write, but an on-policy student writes
them; there, by our convention, the teacher ends the sentence, as a ``TabularStudent``
does off its table.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch

from ..arguments import BadArgument
from ..toy import Outputs, Student, Toy
from ..toy.students import check_student

Ids = tuple[int, ...]
Model = Toy | Student

LIMIT = 50_000  # sequences; more of them would fill the memory of a laptop


def freeze(student: Student) -> Student:
    """A copy of a student that never learns: the teacher of its next generation.

    Raises:
        BadArgument: it is no student; the toy language stands still as it is.
    """
    check_student(student)
    return copy.deepcopy(student).requires_grad_(False)


def language(model: Model) -> Toy:
    """The toy language whose vocabulary a model uses."""
    return model if isinstance(model, Toy) else model.toy


def next_logits(
    model: Model, prefixes: Sequence[Ids], z: Sequence[str], c: str | None
) -> torch.Tensor:
    """Logits (N, V) of the token that follows each of N prefixes y_<t."""
    if isinstance(model, Toy):
        known, ends = _rows_of_the_language(model, tuple(z), c)
        return torch.stack([known.get(prefix, ends) for prefix in prefixes])
    logits = model.logits([(*prefix, model.toy.eos) for prefix in prefixes], z, c)
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    return logits[torch.arange(len(lengths)), lengths]


@lru_cache(maxsize=256)
def _rows_of_the_language(toy: Toy, z: tuple[str, ...], c: str | None):
    """log Pr^t(·|c,z,y_<t) (V,) by prefix, and the row that ends a sentence."""
    sequences = toy.outputs(z, c).sequences
    logits = toy.teacher_logits(sequences, z, c)
    known = {
        y[:t]: logits[n, t] for n, y in enumerate(sequences) for t in range(len(y))
    }
    ends = torch.full((len(toy.vocabulary),), float("-inf"), dtype=torch.float64)
    ends[toy.eos] = 0.0
    return known, ends


def all_outputs(
    model: Model, z: Sequence[str], c: str | None, max_length: int, floor: float
) -> Outputs:
    """Every y that a model can say, with its probability; together they have mass 1.

    The language says finitely many. A student is followed token by token; a sequence is
    cut, and stays without ``<eos>``, after ``max_length`` tokens or where no more than
    ``floor`` of the mass goes on. The most probable come first. Without gradient.

    Raises:
        BadArgument: more than ``LIMIT`` sequences.
    """
    if isinstance(model, Toy):
        return model.outputs(z, c)
    eos, done, alive = model.toy.eos, [], {(): 1.0}
    for length in range(1, max_length + 1):
        with torch.no_grad():
            q = next_logits(model, list(alive), z, c).softmax(dim=-1)
        q = q * torch.tensor(list(alive.values()), dtype=q.dtype)[:, None]
        prefixes, alive = list(alive), {}
        said = q > 0
        if len(done) + int(said.sum()) > LIMIT:
            raise _too_many(floor)
        found = zip(said.nonzero().tolist(), q[said].tolist(), strict=True)
        for (n, token), p in found:
            y = (*prefixes[n], token)
            if token == eos or length == max_length or p <= floor:
                done.append((y, p))
            else:
                alive[y] = p
        if not alive:
            break
    done.sort(key=lambda pair: (-pair[1], pair[0]))
    sequences, probabilities = zip(*done, strict=True)
    return Outputs(sequences, torch.tensor(probabilities, dtype=torch.float64))


def _too_many(floor: float) -> BadArgument:
    return BadArgument(
        "floor",
        f"{floor!r}, which leaves more than {LIMIT} sequences to be followed",
        wanted="a share of the mass below which a sequence is cut",
        todo="Take floor=1e-3, or a sample of them: samples=100.",
    )


def draw(
    model: Model,
    z: Sequence[str],
    c: str | None,
    max_length: int,
    count: int,
    generator: torch.Generator,
) -> list[Ids]:
    """``count`` independent y ~ the model, cut after ``max_length`` tokens."""
    if isinstance(model, Toy):
        return model.sample(z, c, count=count, generator=generator)
    drawn: list[Ids] = [()] * count
    for _ in range(max_length):
        alive = [n for n, y in enumerate(drawn) if y[-1:] != (model.toy.eos,)]
        if not alive:
            break
        with torch.no_grad():
            q = next_logits(model, [drawn[n] for n in alive], z, c).softmax(dim=-1)
        tokens = torch.multinomial(q, 1, generator=generator).flatten().tolist()
        for n, token in zip(alive, tokens, strict=True):
            drawn[n] = (*drawn[n], token)
    return drawn
