"""What a student may imitate besides the answers: features and their relations.

Response-based distillation compares last-layer logits (``losses``). Its two siblings
compare what lies beneath: feature-based distillation the hidden states themselves,
L_F(φ_t(f_t(x)), φ_s(f_s(x))), relation-based distillation how they relate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .arguments import (
    BadArgument,
    as_rows,
    check_device,
    check_features,
    check_mask,
    widen,
)

Projection = Callable[[torch.Tensor], torch.Tensor]


def feature_loss(
    student_features: torch.Tensor,
    teacher_features: torch.Tensor,
    *,
    projection: Projection | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared difference of features, over real tokens and over dimensions.

    L_F = 1/(N d_t) Σ_t ‖φ(f_s(x)_t) - f_t(x)_t‖² (Romero et al. 2015, "FitNets").

    Args:
        student_features: (..., d_s), receives a gradient.
        teacher_features: (..., d_t), does not.
        projection: φ from d_s to d_t, such as ``torch.nn.Linear(d_s, d_t)``; it is
            trained with the student and thrown away afterwards. Needed where the
            widths differ.
        mask: (...) bool, True for a real token; without it all tokens count.

    Raises:
        BadArgument: features that are no floating-point tensors of the same tokens or
            not all finite, a mask that does not fit or leaves nothing, or a projection
            that does not lead from d_s to d_t.
    """
    student, teacher = _pair(student_features, teacher_features, mask)
    if projection is not None:
        student = _projected(projection, student)
    if student.shape != teacher.shape:
        raise BadArgument(
            "student_features",
            f"{student.shape[-1]} wide after the projection",
            wanted=f"{teacher.shape[-1]}, as teacher_features",
            todo="Pass projection=torch.nn.Linear(student width, teacher width).",
        )
    return (widen(student) - teacher).square().mean()


def _projected(projection: Projection, student: torch.Tensor) -> torch.Tensor:
    """φ of the features (N, d_s) of real tokens, or an error that names it."""
    todo = "Pass a module such as torch.nn.Linear(student width, teacher width)."
    if not callable(projection):
        given = f"a {type(projection).__name__}"
        raise BadArgument("projection", given, wanted="a module", todo=todo)
    wanted = f"features (N, d_t) of {student.dtype} features {tuple(student.shape)}"
    try:
        result = projection(student)
    except RuntimeError as error:  # torch's own, of a wrong width, dtype or device
        said = str(error).partition("\n")[0]
        given = f"a {type(projection).__name__} that raises: {said}"
        raise BadArgument("projection", given, wanted=wanted, todo=todo) from error
    shape = getattr(result, "shape", None)
    if not isinstance(result, torch.Tensor) or shape[:-1] != student.shape[:-1]:
        given = f"a {type(result).__name__}{f' {tuple(shape)}' if shape else ''}"
        given = f"a {type(projection).__name__} whose result is {given}"
        raise BadArgument("projection", given, wanted=wanted, todo=todo)
    check_features("projection(student_features)", result.detach())
    return result


def hidden_states_loss(
    student_states: Sequence[torch.Tensor],
    teacher_states: Sequence[torch.Tensor],
    *,
    layers: Sequence[tuple[int, int]],
    projections: Sequence[Projection | None] | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean feature loss over pairs of layers (student's, teacher's), each (B, L, d).

    A student of 3 layers may follow every second layer of a teacher of 6:
    ``layers=[(1, 2), (2, 4), (3, 6)]``, with 0 the embeddings (Jiao et al. 2020,
    "TinyBERT", eq. 8). One projection a pair, or none.

    Raises:
        BadArgument: layers that there are not, another number of projections, or as
            ``feature_loss``.
    """
    _check_layers(layers, student_states, teacher_states)
    if projections is None:
        projections = [None] * len(layers)
    if not hasattr(projections, "__len__") or len(projections) != len(layers):
        length = len(projections) if hasattr(projections, "__len__") else None
        raise BadArgument(
            "projections",
            f"a {type(projections).__name__}"
            if length is None
            else f"a list of {length}",
            wanted=f"one for each of the {len(layers)} pairs of layers",
            todo="Repeat one module where it is to be shared.",
        )
    terms = [
        feature_loss(student_states[s], teacher_states[t], projection=p, mask=mask)
        for (s, t), p in zip(layers, projections, strict=True)
    ]
    return torch.stack(terms).mean()


def attention_loss(
    student_attention: torch.Tensor,
    teacher_attention: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """KL of the teacher's attention from the student's, averaged over real queries.

    1/N Σ KL(A^t ‖ A^s), in nats, of probabilities (B, heads, L, S) averaged over
    heads first, whose numbers may differ (after Wang et al. 2020, "MiniLM", which
    asks for equal numbers). ``mask`` (B, L) is True for a real query.

    Raises:
        BadArgument: attention that is no probabilities (B, heads, L, S) of the same
            tokens, or a mask that does not fit or leaves nothing.
    """
    for name, value in (
        ("student_attention", student_attention),
        ("teacher_attention", teacher_attention),
    ):
        check_features(name, value)
        if value.dim() != 4 or (value < 0).any():
            raise BadArgument(
                name,
                f"of shape {tuple(value.shape)}, smallest entry {value.min():.3g}",
                wanted="probabilities (B, heads, L, S)",
                todo="Ask the model for output_attentions=True, and take one layer's.",
            )
    if student_attention.shape[-1] != teacher_attention.shape[-1]:
        raise BadArgument(
            "teacher_attention",
            f"over {teacher_attention.shape[-1]} positions",
            wanted=f"{student_attention.shape[-1]}, as student_attention",
            todo="Give both models the same tokens.",
        )
    student, teacher = (
        widen(a).mean(dim=1) for a in (student_attention, teacher_attention.detach())
    )
    student, teacher = _pair(student, teacher, mask, "attention")
    _check_sums("student_attention", student)
    _check_sums("teacher_attention", teacher)
    tiny = torch.finfo(student.dtype).tiny
    logs = teacher.clamp_min(tiny).log() - student.clamp_min(tiny).log()
    return (teacher * logs).sum(dim=-1).mean()


def _check_sums(name: str, attention: torch.Tensor) -> None:
    """Rows (N, S) that are distributions, as far as 16 bits can tell."""
    sums = attention.sum(dim=-1)
    wrong = (sums - 1.0).abs() > 0.02
    if wrong.any():
        raise BadArgument(
            name,
            f"of the sum {sums[wrong][0].item():.3g} over S, among others",
            wanted="probabilities, which sum to 1",
            todo="Take them after the softmax, and of a model whose attention has no "
            "dropout on.",
        )


def relation_loss(
    student_features: torch.Tensor,
    teacher_features: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared difference of the cosine similarities between all pairs of tokens.

    L = 1/N² Σ_{i,j} (ψ(s_i, s_j) - ψ(t_i, t_j))², ψ the cosine (Tung & Mori 2019,
    "Similarity-preserving distillation"; Park et al. 2019). Only relations are
    compared, so the widths d_s and d_t may differ and a rotation costs nothing.
    ``mask`` (...) is True for a real token; two or more must be left.

    Raises:
        BadArgument: as ``feature_loss``, or fewer than two real tokens.
    """
    student, teacher = _pair(student_features, teacher_features, mask)
    if len(student) < 2:
        raise BadArgument(
            "mask" if mask is not None else "student_features",
            f"{len(student)} real token",
            wanted="two or more: a relation needs a pair",
            todo="Take larger batches.",
        )
    unit = [torch.nn.functional.normalize(widen(x), dim=-1) for x in (student, teacher)]
    return (unit[0] @ unit[0].T - unit[1] @ unit[1].T).square().mean()


def _pair(
    student, teacher, mask, what: str = "features"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides' features (N, d) of the real tokens, the teacher's detached."""
    ours, theirs = f"student_{what}", f"teacher_{what}"
    check_features(ours, student)
    check_features(theirs, teacher)
    check_device(theirs, teacher, ours, student)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise BadArgument(
            theirs,
            f"of shape {tuple(teacher.shape)}",
            wanted=f"{tuple(student.shape[:-1])} tokens, as {ours}",
            todo="Give both models the same tokens.",
        )
    if mask is None:
        return as_rows(student), as_rows(widen(teacher.detach()))
    check_mask(mask, ours, student)
    if not mask.any():
        raise BadArgument(
            "mask",
            "without a single real token",
            wanted="at least one",
            todo="Leave such a batch out.",
        )
    return student[mask], widen(teacher.detach()[mask])


def _check_layers(layers, student_states, teacher_states) -> None:
    """A list of at least one pair of numbers, each of a layer that there is."""
    for name, states in (
        ("student_states", student_states),
        ("teacher_states", teacher_states),
    ):
        if isinstance(states, str) or not hasattr(states, "__len__"):
            raise BadArgument(
                name,
                f"a {type(states).__name__}",
                wanted="a sequence of hidden states, one a layer",
                todo="Ask the model for output_hidden_states=True.",
            )
    if not _are_pairs(layers):
        raise BadArgument(
            "layers",
            f"{layers!r}",
            wanted="a list of pairs of whole numbers, (student's, teacher's)",
            todo="Name the pairs: [(1, 2), (3, 6)].",
        )
    for student, teacher in layers:
        for side, number, states in (
            ("student", student, student_states),
            ("teacher", teacher, teacher_states),
        ):
            if not 0 <= number < len(states):
                raise BadArgument(
                    "layers",
                    f"{side} layer {number}",
                    wanted=f"0..{len(states) - 1}, 0 the embeddings",
                    todo="Count the entries of output_hidden_states.",
                )
    if not layers:
        raise BadArgument(
            "layers", "empty", wanted="at least one pair", todo="Name one: [(3, 6)]."
        )


def _are_pairs(layers) -> bool:
    return isinstance(layers, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
        for pair in layers
    )
