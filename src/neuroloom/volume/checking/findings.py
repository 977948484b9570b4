"""What `check` says about a volume: what was found, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["ok", "warning", "error"]
_RANK: dict[Severity, int] = {"ok": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        severity: "ok"; "warning": works, but think about it; "error": must be put right first.
        volume: The container, or two of them, that it is about.
        check: Name of the check, for scripts: "alignment", "mask", ...
        what: What was found, one sentence with numbers.
        why: Why it matters; empty when all is well.
        remedy: What to do; empty when all is well.
        numbers: The numbers of `what`, for scripts.
    """

    severity: Severity
    volume: str
    check: str
    what: str
    why: str = ""
    remedy: str = ""
    numbers: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain values for JSON."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when all is fine, 1 with warnings, 2 with errors."""
    return max((_RANK[finding.severity] for finding in findings), default=0)
