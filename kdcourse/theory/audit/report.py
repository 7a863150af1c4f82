"""What an audit says: findings, diagnoses and the text that holds them together."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from ..museum import Diagnosis

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Finding:
    """One property, its status and what was measured, in words."""

    property: str
    status: str
    evidence: str


@dataclass(frozen=True)
class Report:
    """What an audit found; ``print`` it, or let it fail a test in one line."""

    name: str
    findings: tuple[Finding, ...]
    diagnoses: tuple[Diagnosis, ...]

    @property
    def passed(self) -> bool:
        """Whether no property failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return self._of(FAILED)

    def _of(self, status: str) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.status == status)

    def raise_if_failed(self) -> None:
        """An AssertionError that holds the report, where a property failed."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        tested = len(self.findings) - len(self._of(NOT_APPLICABLE))
        verdict = "FAILED" if self.failed else "passed"
        counts = f"{tested - len(self.failed)} of {tested} properties hold"
        lines = [f"Audit of {self.name}: {verdict}, {counts}"]
        for found in self.diagnoses:
            lines.append(f"Diagnosis {found.slug} (museum, row {found.row})")
            lines += _wrap("What happens: ", found.effect)
            lines += _wrap("Remedy: ", found.remedy)
        if self.failed and not self.diagnoses:
            lines.append("No mistake of the museum fits; what failed tells more.")
        for status, mark in ((FAILED, "FAILED "), (PASSED, "passed ")):
            for f in self._of(status):
                lines += _wrap(mark, f"{f.property}: {f.evidence}")
        for f in self._of(NOT_APPLICABLE):
            lines += _wrap("n/a    ", f"{f.property}: {f.evidence}")
        return "\n".join(lines)


def _wrap(mark: str, text: str) -> list[str]:
    return textwrap.wrap(
        mark + text, 88, initial_indent="  ", subsequent_indent=" " * 9
    )
