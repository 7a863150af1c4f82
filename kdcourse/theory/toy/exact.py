"""The sequence-level losses, summed over all output sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..arguments import BadArgument, check_kind
from .language import MINUS_INFINITY, Outputs, Toy
from .students import Student, check_student


def sequence_cross_entropy(
    outputs: Outputs, student_log_probs: torch.Tensor
) -> torch.Tensor:
    """The sequence-level loss: -Σ_y Pr^t(y|c,z) log Pr^s_θ(y|c',z), in nats, ().

    ``outputs`` are all of the teacher's, ``student_log_probs`` (N,) the student's
    log Pr^s_θ of the same sequences, through which the gradient flows. Its minimum over
    all students is the teacher's entropy, ``outputs.entropy``. Kim & Rush 2016 call it
    the sequence-level objective and approximate it; here it is exact.

    Raises:
        BadArgument: not one logarithm of a probability for each output, or more than
            all of the mass.
    """
    check_log_probs(outputs, student_log_probs)
    p = outputs.probabilities
    return -(p * student_log_probs.masked_fill(p == 0, 0.0)).sum()  # 0 · -inf is 0 here


def sequence_kl(outputs: Outputs, student_log_probs: torch.Tensor) -> torch.Tensor:
    """KL(Pr^t ‖ Pr^s) = Σ_y Pr^t(y|c,z) log [Pr^t(y|c,z) / Pr^s_θ(y|c',z)], nats, ().

    It is the sequence-level loss less the teacher's entropy: it has the same gradient
    and is 0 exactly where the student is the teacher. The sum runs over what the
    teacher can say; what the student says beside that costs it mass here. The other
    direction would be infinite for a student that says anything the teacher cannot.
    Arguments and errors as for ``sequence_cross_entropy``.
    """
    check_log_probs(outputs, student_log_probs)
    said = outputs.probabilities > 0
    p = outputs.probabilities[said]
    return (p * (p.log() - student_log_probs[said])).sum()


def target_generated_loss(
    outputs: Outputs, student_log_probs: torch.Tensor
) -> torch.Tensor:
    """-log Pr^s_θ(ŷ|c',z), with ŷ = argmax_y Pr^t(y|c,z), in nats, ().

    The textbook prints log Pr^s_θ(ŷ|c',z) without the minus sign; but a loss is
    minimised, and without the sign that would teach the student to avoid ŷ. It replaces
    the teacher by a distribution with all its mass on ŷ: sequence-level distillation
    (Kim & Rush 2016). Arguments and errors as for ``sequence_cross_entropy``.
    """
    check_log_probs(outputs, student_log_probs)
    return -student_log_probs[0]  # outputs begin with the most probable


def check_log_probs(outputs: Outputs, student_log_probs: torch.Tensor) -> None:
    """Refuse what are not log-probabilities (N,) of these outputs."""
    check_kind("outputs", outputs, Outputs, "Pass toy.outputs(z, c).")
    if not len(outputs):
        raise BadArgument(
            "outputs",
            "empty",
            wanted="at least one sequence",
            todo="Pass toy.outputs(z, c), or take a smaller floor.",
        )
    todo = "Compute them with student.log_prob(outputs.sequences, z, c)."
    name, wanted = "student_log_probs", f"log Pr^s of {len(outputs)} outputs, (N,)"
    if not isinstance(student_log_probs, torch.Tensor):
        given = f"a {type(student_log_probs).__name__}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    if not student_log_probs.is_floating_point() or student_log_probs.is_meta:
        given = f"of {student_log_probs.dtype} on {student_log_probs.device}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    if student_log_probs.shape != outputs.probabilities.shape:
        given = f"of shape {tuple(student_log_probs.shape)}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    worst = student_log_probs.max().item()
    if not worst < 1e-6:  # also true of NaN
        given = f"up to {worst}"
        raise BadArgument(name, given, wanted="logarithms, at most 0", todo=todo)
    mass = student_log_probs.detach().double().exp().sum().item()
    different = len(set(outputs.sequences)) == len(outputs)
    if different and mass > 1.01:  # 16 bits may add a share of it
        given, wanted = f"of the mass {mass:.3g}", "a mass of at most 1"
        raise BadArgument(name, given, wanted=wanted, todo=todo)


def sequence_kl_by_tokens(
    toy: Toy, student: Student, z: Sequence[str], c: str | None = None
) -> torch.Tensor:
    """The chain rule: Σ_{y_<t} Pr^t(y_<t) KL(Pr^t(·|y_<t,c,z) ‖ Pr^s_θ(·|y_<t,c',z)).

    The sum runs over all prefixes that the teacher can say. It equals ``sequence_kl``:
    a KL between sequences is the sum of the KLs between next tokens, each weighted by
    how often the teacher comes by. As Pr^t(y_<t) = Σ Pr^t(y) over the y that begin with
    it, the sum is taken as Σ_y Pr^t(y) Σ_t KL_t. Nats, (), with gradient.

    Raises:
        BadArgument: no toy language, no student, or see ``Toy.check`` for z and c.
    """
    check_kind("toy", toy, Toy, "Pass toy_language().")
    check_student(student)
    outputs = toy.outputs(z, c)
    log_p = toy.teacher_logits(outputs.sequences, z, c)
    log_q = student.logits(outputs.sequences, z, c).log_softmax(dim=-1)
    said = log_p > MINUS_INFINITY  # 0 · log 0 is 0, but not for a computer
    terms = log_p.exp()[said] * (log_p[said] - log_q[said])
    weights = outputs.probabilities[:, None, None].expand_as(log_p)[said]
    return (weights * terms).sum()
