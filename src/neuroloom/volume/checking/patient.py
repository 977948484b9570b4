"""A volume while the doctor looks at it, and how numbers are written in findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroloom.volume.array import Volume
from neuroloom.volume.checking.findings import Finding, Severity
from neuroloom.volume.regions import Box, stored_box


@dataclass
class Patient:
    """One volume while it is being looked at."""

    path: str
    raw: Volume | None = None
    labels: Volume | None = None
    mask: Volume | None = None
    content: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def labelled_box(self) -> Box:
        """The smallest box of whole chunks that holds all labels that count."""
        volume = self.mask or self.labels
        assert volume is not None
        return stored_box(volume)

    def say(self, severity: Severity, check: str, what: str, why: str = "", remedy: str = "", **numbers: Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, self.path, check, what, why, remedy, numbers or None))


def times(values: Sequence[float], form: str = "g") -> str:
    """Numbers as "1 x 2 x 3"."""
    return " x ".join(format(v, form) for v in values)


def commas(values: Sequence[float]) -> str:
    """Numbers as "1,2,3"."""
    return ",".join(f"{v:g}" for v in values)
