"""A conformance report for any distillation loss: ``print(audit(my_loss))``.

A loss is called as ``loss_fn(student_logits, teacher_logits, labels, **options)`` with
logits (B, L, V), labels (B, L) int64 that are -100 at pads, and returns one number, the
mean over real tokens. Position t's logits are compared with the label at t. Options are
recognised by name in the signature, and what needs one that is missing is reported as
not applicable:

``temperature``
    T, of teacher and student; the soft term is multiplied by T² (Hinton et al. 2015).
``alpha``
    share of the hard labels in 0..1; 0, the teacher alone, unless it is what is tested.
``beta``
    of β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q (Agarwal et al. 2024, GKD):
    divided by β it tends to the forward KL as β → 0, and divided by 1-β to the reverse
    KL as β → 1. p is the teacher's distribution, q the student's.
``k``
    how many of the teacher's best entries are kept of each token, at most V.
``normalizer``
    the real tokens of the whole step, of which the batch may be a part.
``decoder_input_ids``, ``pad_token_id``, ``eos_token_id``
    the decoder's input, labels shifted right; its start token is the pad token.

A function of another form goes through ``adapt``. What lives in the training step and
not in the loss is the matter of ``audit_step``.

How it works: a property is a small function that measures the loss and gives a verdict
with its evidence. A diagnosis is not a list of failed properties, since one mistake
breaks several, but a pattern of its own: which positions have a gradient, by what
factor the value changes when the batch, the length or the vocabulary does, which
formula the values on two-point distributions obey.
"""

from ..museum import DIAGNOSES, Diagnosis
from .calling import OPTIONS, adapt
from .entry import audit, audit_step
from .references import REFERENCES
from .report import Finding, Report

__all__ = [
    "DIAGNOSES",
    "Diagnosis",
    "Finding",
    "OPTIONS",
    "REFERENCES",
    "Report",
    "adapt",
    "audit",
    "audit_step",
]
