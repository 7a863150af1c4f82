"""The bug museum: mistakes in distillation code that were made in public.

``DIAGNOSES`` gives each mistake its name, ``EXHIBITS`` re-creates it in a few lines of
our own, wrong on purpose, with the place where it was seen. ``audit`` convicts every
exhibit of its own diagnosis and of no other; one exhibit is right, and stands here
because it was reported as wrong.

The functions have the form that ``audit`` calls: a loss takes (student_logits,
teacher_logits, labels), logits (B, L, V) and labels (B, L) that are -100 at pads; a
step takes (student, teacher, batches).
"""

from .diagnoses import DIAGNOSES, Diagnosis
from .exhibits import EXHIBITS, Exhibit

__all__ = ["DIAGNOSES", "EXHIBITS", "Diagnosis", "Exhibit"]
